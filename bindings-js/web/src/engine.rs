//! An engine and the documents it keeps.

use std::cell::RefCell;

use js_sys::{Array, Function};
use maxsim_core::{Corpus, Engine, Error, Output, Plan, Result};
#[cfg(feature = "all")]
use maxsim_js::RawGradients;
use maxsim_js::{Operation, RawScores};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

#[cfg(feature = "all")]
use crate::read::{RawCodec, RawResidual, RawTensor};
use crate::read::{RawCorpusOptions, RawEngineOptions, RawOp, RawTokens, cancel};
use crate::run;
use crate::write::{self, Plain, Returned, failure};

/// `WasmEngine` of `lib/module.ts`. Documents are known by a number, so that they can be named from another thread.
#[wasm_bindgen]
pub struct WasmEngine {
    engine: Engine,
    corpora: RefCell<Vec<Option<Corpus>>>,
}

impl WasmEngine {
    pub(crate) fn new(engine: Engine, options: &RawEngineOptions) -> Self {
        let engine = if options.silent() == Some(true) { engine.silent() } else { engine };
        Self { engine, corpora: RefCell::default() }
    }
}

#[wasm_bindgen]
impl WasmEngine {
    /// `EngineInfo` without the version.
    pub fn info(&self) -> JsValue {
        let info = self.engine.info();
        Plain::new()
            .with("backend", info.kind.name())
            .with("device", &info.device)
            .with("level", &info.level)
            .with("levels", write::strings(info.levels.iter().cloned()))
            .with("threads", info.threads as f64)
            .into()
    }

    /// Runs an operator; `corpus` stands in for its documents.
    pub fn run(&self, op: &RawOp, corpus: Option<usize>, poll: Option<Function>) -> Returned {
        self.submit(op, corpus, poll, |output| RawScores::new(output).map(write::scores))
    }

    /// How an operator would be run.
    pub fn explain(&self, op: &RawOp, corpus: Option<usize>) -> Returned {
        let plan = self.operation(op, corpus).and_then(|op| op.explain(&self.engine));
        plan.map(written).map_err(failure)
    }

    /// Uploads documents: the corpus' number and facts about it.
    pub fn corpus(
        &self,
        documents: &RawTokens,
        options: &RawCorpusOptions,
        poll: Option<Function>,
    ) -> Returned {
        let engine = self.engine.with_cancel(cancel(poll));
        self.keep(documents.read().and_then(|d| maxsim_js::upload(&engine, &d, &options.read())))
    }

    /// Frees a corpus. Doing it twice is fine.
    #[wasm_bindgen(js_name = dropCorpus)]
    pub fn drop_corpus(&self, corpus: usize) {
        if let Some(slot) = self.corpora.borrow_mut().get_mut(corpus) {
            *slot = None;
        }
    }
}

/// What few pages use: the modules for searches do without.
#[cfg(feature = "all")]
#[wasm_bindgen]
impl WasmEngine {
    /// Gradients of an operator that says so.
    pub fn backward(&self, op: &RawOp, poll: Option<Function>) -> Returned {
        self.submit(op, None, poll, |output| RawGradients::new(output).map(write::gradients))
    }

    /// Uploads residual documents.
    #[wasm_bindgen(js_name = residualCorpus)]
    pub fn residual_corpus(&self, documents: &RawResidual, poll: Option<Function>) -> Returned {
        let engine = self.engine.with_cancel(cancel(poll));
        self.keep(documents.read().and_then(|d| maxsim_js::upload_residual(&engine, &d)))
    }

    /// Packs padded reranking input.
    #[wasm_bindgen(js_name = packPadded)]
    pub fn pack_padded(&self, q: &RawTokens, d: &RawTokens) -> Returned {
        let packed = q.read().and_then(|q| maxsim_js::pack(&q, &d.read()?));
        packed.map(write::packed).map_err(failure)
    }

    /// Codes and residuals of vectors.
    #[wasm_bindgen(js_name = quantizeResidual)]
    pub fn quantize_residual(
        &self,
        x: &RawTensor,
        codec: &RawCodec,
        cutoffs: Vec<f32>,
        poll: Option<Function>,
    ) -> Returned {
        let engine = self.engine.with_cancel(cancel(poll));
        let read = || Ok((x.read()?, codec.read()?));
        let (x, codec) = read().map_err(failure)?;
        run::encode_residual(engine, x, codec, cutoffs)
    }
}

impl WasmEngine {
    fn operation(&self, op: &RawOp, corpus: Option<usize>) -> Result<Operation> {
        let corpus = corpus.map(|number| self.get(number)).transpose()?;
        Ok(Operation::new(op.read()?, corpus))
    }

    fn get(&self, number: usize) -> Result<Corpus> {
        let corpora = self.corpora.borrow();
        corpora.get(number).cloned().flatten().ok_or_else(|| Error::Disposed { what: "corpus".into() })
    }

    fn keep(&self, corpus: Result<Corpus>) -> Returned {
        let corpus = corpus.map_err(failure)?;
        let facts = Plain::new()
            .with("count", corpus.count() as f64)
            .with("dim", corpus.dim() as f64)
            .with("dtype", corpus.dtype().name())
            .with("bytes", corpus.bytes() as f64);
        let mut corpora = self.corpora.borrow_mut();
        let number = corpora.iter().position(Option::is_none).unwrap_or_else(|| {
            corpora.push(None);
            corpora.len() - 1
        });
        corpora[number] = Some(corpus);
        Ok(facts.with("number", number as f64).into())
    }

    fn submit(
        &self,
        op: &RawOp,
        corpus: Option<usize>,
        poll: Option<Function>,
        write: fn(Output) -> Result<JsValue>,
    ) -> Returned {
        let engine = self.engine.with_cancel(cancel(poll));
        let op = self.operation(op, corpus).map_err(failure)?;
        let submission = op.submit(&engine).map_err(failure)?;
        run::finish(submission, op.arguments(), write)
    }
}

/// `RawPlan` of `native.ts`.
fn written(plan: Plan) -> JsValue {
    let text = plan.to_string();
    let choices: Array =
        plan.choices.into_iter().map(|(name, value)| write::strings([name.into(), value])).collect();
    Plain::new()
        .with("backend", plan.backend.name())
        .with("kernel", plan.kernel)
        .with("choices", choices)
        .with("notes", write::strings(plan.notes))
        .with("text", text)
        .into()
}
