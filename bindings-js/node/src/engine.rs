//! Engines.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use maxsim::{Cancel, Corpus, Engine, EngineBuilder, Error, Result};
use maxsim_js::Operation;
use napi::bindgen_prelude::{Float32Array, ToNapiValue, TypeName};
use napi_derive::napi;

use crate::corpus::{NativeCorpus, Slot, clear};
use crate::input::{RawCodec, RawOp, RawResidual, RawTensor, RawTokens, held};
use crate::job::{Promised, promise, promise_as};
use crate::output::{RawGradients, RawPacked, RawPlan, RawScores};
use crate::quantize::RawResidualCodes;

/// `RawEngineOptions` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawEngineOptions {
    pub backend: Option<String>,
    pub threads: Option<i64>,
    pub cpu_level: Option<String>,
    pub gpu_tier: Option<String>,
    pub gpu_memory: Option<f64>,
    pub tuning: Option<String>,
    pub silent: Option<bool>,
}

impl RawEngineOptions {
    fn build(&self) -> Result<Engine> {
        let mut builder = EngineBuilder::new();
        if let Some(backend) = &self.backend {
            builder = builder.backend(backend.parse()?);
        }
        if let Some(threads) = self.threads {
            builder = builder.threads(maxsim_js::threads(threads as f64)?);
        }
        if let Some(level) = &self.cpu_level {
            builder = builder.cpu_level(level.parse()?);
        }
        if let Some(tier) = &self.gpu_tier {
            builder = builder.wgpu_tier(tier.parse()?);
        }
        if let Some(bytes) = self.gpu_memory {
            builder = builder.memory_budget(bytes as u64);
        }
        if let Some(table) = &self.tuning {
            builder = builder.tuning(table);
        }
        if self.silent == Some(true) {
            builder = builder.silent();
        }
        builder.build()
    }
}

/// Sets an engine up.
#[napi(catch_unwind)]
pub fn create_engine(options: RawEngineOptions) -> Promised<Engine, NativeEngine> {
    maxsim_js::collect_warnings();
    promise_as(
        move || options.build(),
        |_, engine| NativeEngine { held: Arc::new(Mutex::new(Some(Held { engine, corpora: Vec::new() }))) },
    )
}

/// A flag by which JavaScript stops work.
#[napi]
pub struct NativeCancel(Cancel);

#[napi]
impl NativeCancel {
    #[napi]
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// The flag behind `cancel`, or one that nobody sets.
pub(crate) fn flag(cancel: Option<&NativeCancel>) -> Cancel {
    cancel.map(|cancel| cancel.0.clone()).unwrap_or_default()
}

/// A flag that is not set.
#[napi]
pub fn create_cancel() -> NativeCancel {
    NativeCancel(Cancel::new())
}

/// `EngineInfo` without the version.
#[napi(object, object_from_js = false)]
pub struct RawInfo {
    pub backend: String,
    pub device: String,
    pub level: String,
    pub levels: Vec<String>,
    pub threads: i64,
}

/// `RawTuning` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawTuning {
    pub table: String,
}

/// `RawCorpusOptions` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawCorpusOptions {
    pub storage: Option<String>,
    pub normalize: Option<bool>,
    pub validate_finite: Option<bool>,
}

impl From<RawCorpusOptions> for maxsim_js::RawCorpusOptions {
    fn from(raw: RawCorpusOptions) -> Self {
        Self { storage: raw.storage, normalize: raw.normalize, validate_finite: raw.validate_finite }
    }
}

/// `NativeEngine` of `native.ts`.
#[napi]
pub struct NativeEngine {
    /// `None` once disposed. Calls under way hold clones of the engine.
    held: Arc<Mutex<Option<Held>>>,
}

struct Held {
    engine: Engine,
    /// To be emptied with the engine. Weak: an engine keeps no documents alive that nobody can reach.
    corpora: Vec<Weak<Mutex<Option<Corpus>>>>,
}

/// What `then` makes of an engine that is not disposed.
fn alive<T>(held: &Mutex<Option<Held>>, then: impl FnOnce(&mut Held) -> T) -> Result<T> {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    held.as_mut().map(then).ok_or_else(|| Error::Disposed { what: "engine".into() })
}

/// A slot with `corpus`, known to its engine.
fn slot(held: &Mutex<Option<Held>>, corpus: &Corpus) -> Result<Slot> {
    let slot = Arc::new(Mutex::new(Some(corpus.clone())));
    alive(held, |held| {
        held.corpora.retain(|other| other.strong_count() > 0);
        held.corpora.push(Arc::downgrade(&slot));
    })?;
    Ok(slot)
}

impl NativeEngine {
    pub(crate) fn get(&self, cancel: Option<&NativeCancel>) -> Result<Engine> {
        alive(&self.held, |held| held.engine.with_cancel(flag(cancel)))
    }
}

#[napi]
impl NativeEngine {
    /// Facts about the backend.
    #[napi(getter, catch_unwind)]
    pub fn info(&self) -> napi::Result<RawInfo> {
        let engine = self.get(None).map_err(|e| napi::Error::from_reason(e.to_string()))?;
        let info = engine.info();
        Ok(RawInfo {
            backend: info.kind.name().into(),
            device: info.device.clone(),
            level: info.level.clone(),
            levels: info.levels.clone(),
            threads: info.threads as i64,
        })
    }

    /// Runs an operator; `corpus` stands in for its documents.
    #[napi(catch_unwind)]
    pub fn run(
        &self,
        op: RawOp,
        corpus: Option<&NativeCorpus>,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawScores>> {
        self.operate(op, corpus, cancel, |engine, op| op.run(engine).map(Into::into))
    }

    /// Gradients of an operator that says so.
    #[napi(catch_unwind)]
    pub fn backward(&self, op: RawOp, cancel: Option<&NativeCancel>) -> napi::Result<Promised<RawGradients>> {
        self.operate(op, None, cancel, |engine, op| op.gradients(engine).map(Into::into))
    }

    /// Codes and residuals of vectors.
    #[napi(catch_unwind)]
    pub fn quantize_residual(
        &self,
        x: RawTensor,
        codec: RawCodec,
        cutoffs: Float32Array,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawResidualCodes>> {
        let engine = self.get(cancel);
        let x: maxsim_js::RawTensor = x.try_into()?;
        let codec: maxsim_js::RawCodec = codec.try_into()?;
        let cutoffs = held(cutoffs);
        Ok(promise(move || {
            maxsim_js::encode_residual(&engine.clone()?, &x, &codec, cutoffs.as_ref()).map(Into::into)
        }))
    }

    /// How an operator would be run.
    #[napi(catch_unwind)]
    pub fn explain(&self, op: RawOp, corpus: Option<&NativeCorpus>) -> napi::Result<Promised<RawPlan>> {
        self.operate(op, corpus, None, |engine, op| op.explain(engine).map(Into::into))
    }

    /// The tuning table in use.
    #[napi(catch_unwind)]
    pub fn tuning(&self) -> Promised<RawTuning> {
        let engine = self.get(None);
        promise(move || Ok(RawTuning { table: engine.clone()?.tuning()? }))
    }

    /// Packs padded reranking input.
    #[napi(catch_unwind)]
    pub fn pack_padded(
        &self,
        q: RawTokens,
        d: RawTokens,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawPacked>> {
        let (q, d): (maxsim_js::RawTokens, maxsim_js::RawTokens) = (q.try_into()?, d.try_into()?);
        let cancel = flag(cancel);
        Ok(promise(move || {
            cancel.check()?;
            maxsim_js::pack(&q, &d).map(Into::into)
        }))
    }

    /// Uploads documents.
    #[napi(catch_unwind)]
    pub fn corpus(
        &self,
        documents: RawTokens,
        options: RawCorpusOptions,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<(Corpus, Slot), NativeCorpus>> {
        let documents: maxsim_js::RawTokens = documents.try_into()?;
        let options = options.into();
        Ok(self.upload(cancel, move |engine| maxsim_js::upload(engine, &documents, &options)))
    }

    /// Uploads residual documents.
    #[napi(catch_unwind)]
    pub fn residual_corpus(
        &self,
        documents: RawResidual,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<(Corpus, Slot), NativeCorpus>> {
        let documents: maxsim_js::RawResidual = documents.try_into()?;
        Ok(self.upload(cancel, move |engine| maxsim_js::upload_residual(engine, &documents)))
    }

    /// Drops the engine and its corpora; calls under way keep them until they are done.
    #[napi(catch_unwind)]
    pub fn dispose(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        for slot in held.iter().flat_map(|held| &held.corpora).filter_map(Weak::upgrade) {
            clear(&slot);
        }
    }
}

impl NativeEngine {
    fn upload(
        &self,
        cancel: Option<&NativeCancel>,
        work: impl Fn(&Engine) -> Result<Corpus> + Send + 'static,
    ) -> Promised<(Corpus, Slot), NativeCorpus> {
        let (held, engine) = (self.held.clone(), self.get(cancel));
        promise_as(
            move || {
                let corpus = work(&engine.clone()?)?;
                let slot = slot(&held, &corpus)?;
                Ok((corpus, slot))
            },
            NativeCorpus::new,
        )
    }

    fn operate<T>(
        &self,
        op: RawOp,
        corpus: Option<&NativeCorpus>,
        cancel: Option<&NativeCancel>,
        work: fn(&Engine, &Operation) -> Result<T>,
    ) -> napi::Result<Promised<T>>
    where
        T: Send + ToNapiValue + TypeName + 'static,
    {
        let inputs =
            self.get(cancel).and_then(|engine| Ok((engine, corpus.map(NativeCorpus::get).transpose()?)));
        let (engine, corpus) = match inputs {
            Ok(inputs) => inputs,
            // Disposed: still a typed error, by the same way as all others.
            Err(error) => return Ok(promise(move || Err(error.clone()))),
        };
        let op = Operation::new(op.try_into()?, corpus);
        Ok(promise(move || work(&engine, &op)))
    }
}
