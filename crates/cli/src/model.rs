//! Which encoder makes vectors of text.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use maxsim::Error;
use maxsim_encode::{Encoder, StaticEncoder};

/// The encoder of text.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Encode text with this ColBERT model instead of the built-in encoder: a folder (PyLate, Stanford or
    /// sentence-transformers layout), or an id on the Hugging Face hub, which is fetched once
    #[arg(long, value_name = "DIR|ID")]
    model: Option<String>,
}

/// The encoder of each side; one and the same, but for limits.
pub(crate) struct Encoders {
    pub(crate) queries: Arc<dyn Encoder>,
    pub(crate) documents: Arc<dyn Encoder>,
}

impl ModelArgs {
    /// Whether a model was named.
    pub(crate) fn is_given(&self) -> bool {
        self.model.is_some()
    }

    /// Loads what was asked for. Documents are cut after `max_tokens`.
    pub(crate) fn load(&self, max_tokens: Option<usize>) -> anyhow::Result<Encoders> {
        if let Some(model) = &self.model {
            let encoder = colbert(model, max_tokens).context("--model")?;
            return Ok(Encoders { queries: encoder.clone(), documents: encoder });
        }
        let encoder = StaticEncoder::embedded()?.clone();
        let limit = max_tokens.unwrap_or(usize::MAX);
        Ok(Encoders {
            queries: Arc::new(encoder.clone()),
            documents: Arc::new(encoder.with_max_tokens(limit)),
        })
    }
}

#[cfg(feature = "colbert")]
fn colbert(model: &str, document_length: Option<usize>) -> maxsim::Result<Arc<dyn Encoder>, Error> {
    let options = maxsim_encode::ColbertOptions { document_length, ..Default::default() };
    let encoder = maxsim_encode::ColbertEncoder::open(model, &options)?;
    tracing::debug!("{encoder:?}");
    Ok(Arc::new(encoder))
}

#[cfg(not(feature = "colbert"))]
fn colbert(model: &str, _document_length: Option<usize>) -> maxsim::Result<Arc<dyn Encoder>, Error> {
    Err(Error::Unsupported {
        what: format!("{model:?}: a ColBERT model"),
        hint: "this command was built without them; cargo install maxsim-cli --features colbert".into(),
    })
}
