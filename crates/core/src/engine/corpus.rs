//! Documents held by an engine: uploaded once, scored many times.

use super::Engine;
use crate::backend::{BackendKind, Resident};
use crate::dtype::{DType, DataBuf};
use crate::error::{Error, Result};
use crate::op::{
    Documents, Options, Precision, Residual, RetrieveOptions, ScaleMode, Scores, TopK, quantize_fp8,
    quantize_int8,
};
use crate::tensor::TensorRef;
use crate::tokens::{Tokens, TokensBuf};

/// How documents are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorpusOptions {
    /// Normalise every token once, now, and queries at search time (default true).
    pub normalize: bool,
    /// Storage type; `None` keeps the input's.
    pub storage: Option<DType>,
    /// Reject NaN and infinity with `ERR_NON_FINITE`.
    pub validate_finite: bool,
}

impl Default for CorpusOptions {
    fn default() -> Self {
        Self { normalize: true, storage: None, validate_finite: false }
    }
}

/// Options of [`Corpus::search`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    /// Results per query.
    pub top_k: usize,
    /// Also return, per hit, the winning document token of every query token.
    pub explain: bool,
    /// How exact the products are.
    pub precision: Precision,
}

impl SearchOptions {
    /// The defaults with `top_k` results.
    pub fn top_k(top_k: usize) -> Self {
        Self { top_k, explain: false, precision: Precision::Default }
    }

    /// Sets `explain`.
    pub fn with_explain(self) -> Self {
        Self { explain: true, ..self }
    }
}

/// Documents held by an engine's backend. Dropping it frees them.
#[derive(Clone)]
pub struct Corpus {
    engine: Engine,
    resident: Resident,
    normalize: bool,
}

impl Engine {
    /// Uploads documents: normalised if asked for, then converted to `storage`. fp8 and int8 get a scale per token.
    ///
    /// Documents that are quantised already are stored as they are; they want `normalize = false`.
    ///
    /// # Errors
    /// `ERR_DTYPE` for quantised documents with another `storage` or `normalize`, `ERR_SHAPE` for `[N, K, L, d]` documents,
    /// `ERR_NON_FINITE` under `validate_finite` and for non-finite tokens that are to be quantised, and the backend's.
    pub fn corpus(&self, documents: Tokens<'_>, options: CorpusOptions) -> Result<Corpus> {
        if let crate::sequences::Axes::Grid(..) = documents.axes() {
            return Err(Error::shape("documents", "rank 2 or 3, or packed", "rank 4"));
        }
        crate::op::check_scaled(&documents, "documents", "scales")?;
        let storage = options.storage.unwrap_or(documents.dtype());
        if documents.dtype().is_quantized() && (storage != documents.dtype() || options.normalize) {
            return Err(Error::dtype(
                "documents",
                "f32, f16 or bf16 (quantised documents are stored as they are, with normalize = false)",
                documents.dtype().name(),
            ));
        }
        let checked =
            options.validate_finite || (storage.is_quantized() && !documents.dtype().is_quantized());
        if checked {
            documents.check_finite("documents")?;
        }
        self.cancel.check()?;
        let backend = &self.inner.backends[0];
        let resident = if options.normalize || storage != documents.dtype() {
            match backend.upload_as(&documents, options.normalize, storage) {
                Some(resident) => resident?,
                None => {
                    let stored = self.converted(&documents, options.normalize, storage)?;
                    backend.upload(&Documents::Tokens(stored.as_tokens()), options.normalize)?
                }
            }
        } else {
            backend.upload(&Documents::Tokens(documents), false)?
        };
        Ok(Corpus { engine: self.clone(), resident: resident.checked(checked), normalize: options.normalize })
    }

    /// Documents in PLAID's form, as they are; `search` and `score` normalise them and the queries.
    ///
    /// # Errors
    /// The backend's.
    pub fn residual_corpus(&self, documents: Residual<'_>) -> Result<Corpus> {
        self.cancel.check()?;
        // Their floats are few: the codec, and a norm per token.
        let finite = documents.check_finite().is_ok();
        let resident = self.inner.backends[0].upload(&Documents::Residual(documents), false)?;
        Ok(Corpus { engine: self.clone(), resident: resident.checked(finite), normalize: true })
    }

    fn converted(&self, documents: &Tokens<'_>, normalized: bool, storage: DType) -> Result<TokensBuf> {
        let dim = documents.dim();
        let mut values = vec![0f32; documents.data().len()];
        // Slots behind a length or mask stay zero: they are neither read nor quantised.
        for (done, row) in documents.sequences().kept_rows().enumerate() {
            if done % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            let vector = &mut values[row * dim..(row + 1) * dim];
            vector.copy_from_slice(&documents.vector(row));
            if normalized {
                normalize(vector);
            }
        }
        let quantize = match storage {
            DType::E4M3 => quantize_fp8,
            DType::I8 => quantize_int8,
            float => return documents.to_buf().with_data(DataBuf::from_f32(&values, float)),
        };
        let quantized = quantize(&TensorRef::new(&values, &[documents.slots(), dim])?, ScaleMode::PerToken)?;
        documents.to_buf().with_data(quantized.values.into_data())?.with_token_scales(quantized.scales)
    }
}

/// Tokens normalised between two looks at the cancel flag: about a millisecond.
const CANCEL_EVERY: usize = 8192;

/// Divides a token vector by its length: `x / max(‖x‖, 1e-6)`, as corpora store it.
pub fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(1e-6);
    for x in vector {
        *x = (f64::from(*x) / norm) as f32;
    }
}

impl Corpus {
    /// Number of documents.
    pub fn count(&self) -> usize {
        self.resident.meta().sequences.count()
    }

    /// Embedding dimension.
    pub fn dim(&self) -> usize {
        self.resident.meta().dim
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.resident.meta().dtype
    }

    /// Bytes held by the backend.
    pub fn bytes(&self) -> u64 {
        self.resident.meta().bytes
    }

    /// Backend that holds the documents.
    pub fn backend(&self) -> BackendKind {
        self.resident.meta().backend
    }

    /// The documents as an operand of any operator.
    pub fn documents(&self) -> Documents<'_> {
        Documents::Resident(&self.resident)
    }

    /// Scores every document: `[Nq, Nd]`, or `[Nd]` for a 2-D query. Queries are normalised if the corpus was.
    ///
    /// # Errors
    /// As [`Engine::maxsim`].
    pub fn score(&self, q: Tokens<'_>, options: Options) -> Result<Scores> {
        let options = Options { normalize: self.normalize || options.normalize, ..options };
        self.engine.maxsim(q, &self.resident, options)
    }

    /// The best documents of every query.
    ///
    /// # Errors
    /// As [`Engine::retrieve`].
    pub fn search(&self, q: Tokens<'_>, options: SearchOptions) -> Result<TopK> {
        let scoring = Options {
            normalize: self.normalize,
            argmax: options.explain,
            precision: options.precision,
            validate_finite: false,
        };
        self.engine.retrieve(
            q,
            &self.resident,
            RetrieveOptions { scoring, ..RetrieveOptions::top_k(options.top_k) },
        )
    }

    /// The same corpus with its calls stopped by `cancel`.
    pub fn with_cancel(&self, cancel: crate::backend::Cancel) -> Self {
        Self { engine: self.engine.with_cancel(cancel), ..self.clone() }
    }
}
