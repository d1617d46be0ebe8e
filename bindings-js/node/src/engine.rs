//! Engines.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use maxsim::{Cancel, Corpus, CorpusOptions, Engine, EngineBuilder, Error, Result, pack_padded};
use napi::bindgen_prelude::{Float32Array, ToNapiValue, TypeName};
use napi_derive::napi;

use crate::corpus::{NativeCorpus, Slot, clear};
use crate::input::{self, HeldTensor, HeldTokens, RawTensor, RawTokens};
use crate::job::{Promised, promise, promise_as};
use crate::operation::{Operation, RawOp, renamed};
use crate::output::{RawGradients, RawPacked, RawPlan, RawScores};
use crate::quantize::RawResidualCodes;
use crate::residual::{HeldCodec, HeldResidual, RawCodec, RawResidual};
use crate::warnings;

/// `RawEngineOptions` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawEngineOptions {
    pub backend: Option<String>,
    pub threads: Option<i64>,
    pub cpu_level: Option<String>,
    pub silent: Option<bool>,
}

impl RawEngineOptions {
    fn build(&self) -> Result<Engine> {
        let mut builder = EngineBuilder::new();
        if let Some(backend) = &self.backend {
            builder = builder.backend(backend.parse()?);
        }
        if let Some(threads) = self.threads {
            // Zero is refused below; more threads than a u16 counts would only fail later and worse.
            let threads = u16::try_from(threads)
                .map_err(|_| Error::value("threads", "at least 1 and at most 65535", threads.to_string()))?;
            builder = builder.threads(threads.into());
        }
        if let Some(level) = &self.cpu_level {
            builder = builder.cpu_level(level.parse()?);
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
    warnings::collect();
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

/// `RawCorpusOptions` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawCorpusOptions {
    pub storage: Option<String>,
    pub normalize: Option<bool>,
    pub validate_finite: Option<bool>,
}

impl RawCorpusOptions {
    fn options(&self) -> Result<CorpusOptions> {
        let defaults = CorpusOptions::default();
        Ok(CorpusOptions {
            storage: self.storage.as_deref().map(str::parse).transpose()?,
            normalize: self.normalize.unwrap_or(defaults.normalize),
            validate_finite: self.validate_finite.unwrap_or(defaults.validate_finite),
        })
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
    fn get(&self, cancel: Option<&NativeCancel>) -> Result<Engine> {
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
        self.operate(op, corpus, cancel, |engine, op| RawScores::new(op.with(|op| engine.run(op))?))
    }

    /// Gradients of an operator that says so.
    #[napi(catch_unwind)]
    pub fn backward(&self, op: RawOp, cancel: Option<&NativeCancel>) -> napi::Result<Promised<RawGradients>> {
        self.operate(op, None, cancel, |engine, op| RawGradients::new(op.with(|op| engine.run(op))?))
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
        let (x, codec): (HeldTensor, HeldCodec) = (x.try_into()?, codec.try_into()?);
        let cutoffs: input::Held<Float32Array, f32> = cutoffs.into();
        Ok(promise(move || {
            let engine = engine.clone()?;
            let (vectors, checked) = (x.tensor()?, codec.codec()?);
            let encoded = engine.quantize_residual(&vectors, cutoffs.as_ref(), &checked);
            let encoded = encoded.map_err(|error| {
                error.map_argument(|argument| match argument {
                    "Q" => x.name.clone().into(),
                    "D" | "centroids" => codec.field("centroids"),
                    other => other.to_owned().into(),
                })
            })?;
            RawResidualCodes::new(encoded)
        }))
    }

    /// How an operator would be run.
    #[napi(catch_unwind)]
    pub fn explain(&self, op: RawOp, corpus: Option<&NativeCorpus>) -> napi::Result<Promised<RawPlan>> {
        self.operate(op, corpus, None, |engine, op| op.with(|op| engine.explain(op)).map(Into::into))
    }

    /// Packs padded reranking input.
    #[napi(catch_unwind)]
    pub fn pack_padded(
        &self,
        q: RawTokens,
        d: RawTokens,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawPacked>> {
        let (q, d): (HeldTokens, HeldTokens) = (q.try_into()?, d.try_into()?);
        let cancel = flag(cancel);
        Ok(promise(move || {
            cancel.check()?;
            let pairs = pack_padded(&q.tokens()?, &d.tokens()?);
            RawPacked::new(pairs.map_err(|e| e.map_argument(|a| renamed(a, &q.name, &d.name)))?)
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
        let documents: HeldTokens = documents.try_into()?;
        Ok(self.upload(cancel, move |engine| {
            let corpus = engine.corpus(documents.tokens()?, options.options()?);
            corpus.map_err(|e| e.map_argument(|a| renamed(a, "q", "documents")))
        }))
    }

    /// Uploads residual documents.
    #[napi(catch_unwind)]
    pub fn residual_corpus(
        &self,
        documents: RawResidual,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<(Corpus, Slot), NativeCorpus>> {
        let documents: HeldResidual = documents.try_into()?;
        Ok(self.upload(cancel, move |engine| engine.residual_corpus(documents.documents()?)))
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
        let op = Operation::new(op, corpus)?;
        Ok(promise(move || work(&engine, &op)))
    }
}
