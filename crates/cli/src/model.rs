//! Which encoder makes vectors of text.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use maxsim::Error;
use maxsim::plaid::EncoderRecord;
use maxsim_encode::{Encoder, StaticEncoder};

use crate::setup::Global;

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
    /// What an index built with them remembers.
    pub(crate) record: EncoderRecord,
}

impl ModelArgs {
    /// Whether a model was named.
    pub(crate) fn is_given(&self) -> bool {
        self.model.is_some()
    }

    /// Loads what was asked for. Documents are cut after `max_tokens`.
    pub(crate) fn load(&self, global: &Global, max_tokens: Option<usize>) -> anyhow::Result<Encoders> {
        match &self.model {
            Some(model) => named(model, global, max_tokens).context("--model"),
            None => built_in(max_tokens),
        }
    }

    /// Loads the encoder of an index, as it remembers it; what `--model` names has to be the same model. An index that
    /// remembers none is like none.
    pub(crate) fn load_for(
        &self,
        index: Option<&EncoderRecord>,
        global: &Global,
        max_tokens: Option<usize>,
    ) -> anyhow::Result<Encoders> {
        let Some(record) = index else { return self.load(global, max_tokens) };
        if self.model.is_some() {
            let encoders = self.load(global, max_tokens)?;
            record.check(&encoders.record).context("--model")?;
            return Ok(encoders);
        }
        let lost = || format!("the index was built with {record}; --model says where that is now");
        let encoders = match &record.location[..] {
            "" => built_in(max_tokens)?,
            location => named(location, global, max_tokens).with_context(lost)?,
        };
        record.check(&encoders.record).with_context(lost)?;
        Ok(encoders)
    }
}

/// The encoder within this program.
fn built_in(max_tokens: Option<usize>) -> anyhow::Result<Encoders> {
    let encoder = StaticEncoder::embedded()?.clone();
    let limit = max_tokens.unwrap_or(usize::MAX);
    let record = record(&encoder, String::new());
    Ok(Encoders {
        queries: Arc::new(encoder.clone()),
        documents: Arc::new(encoder.with_max_tokens(limit)),
        record,
    })
}

/// The model in a folder, or of a hub.
fn named(model: &str, global: &Global, max_tokens: Option<usize>) -> anyhow::Result<Encoders> {
    let encoder = colbert(model, max_tokens, global.threads())?;
    // Relative to another folder it would be another one, or none.
    let location = match Path::new(model).canonicalize() {
        Ok(folder) if folder.is_dir() => folder.display().to_string(),
        _ => model.to_owned(),
    };
    let record = record(&*encoder, location);
    Ok(Encoders { queries: encoder.clone(), documents: encoder, record })
}

fn record(encoder: &dyn Encoder, location: String) -> EncoderRecord {
    EncoderRecord { name: encoder.name().to_owned(), location, fingerprint: encoder.model_fingerprint() }
}

#[cfg(feature = "colbert")]
fn colbert(
    model: &str,
    document_length: Option<usize>,
    threads: Option<usize>,
) -> maxsim::Result<Arc<dyn Encoder>, Error> {
    let options = maxsim_encode::ColbertOptions { document_length, threads, ..Default::default() };
    let encoder = maxsim_encode::ColbertEncoder::open(model, &options)?;
    tracing::debug!("{encoder:?}");
    Ok(Arc::new(encoder))
}

#[cfg(not(feature = "colbert"))]
fn colbert(
    model: &str,
    _document_length: Option<usize>,
    _threads: Option<usize>,
) -> maxsim::Result<Arc<dyn Encoder>, Error> {
    Err(Error::Unsupported {
        what: format!("{model:?}: a ColBERT model"),
        hint: "this command was built without them; cargo install maxsim-cli --features colbert".into(),
    })
}
