//! Operators from JavaScript: values that can be run or explained.

use maxsim::{
    Argmax, Argument, Backward, Corpus, Documents, Error, Forward, FromHidden, FromHiddenBackward,
    HeadGradients, Op, Options, Result, Retrieve, RetrieveOptions,
};
use napi::bindgen_prelude::{Float32Array, Int32Array, Uint32Array};
use napi_derive::napi;

use crate::input::{Held, HeldTensor, HeldTokens, RawTensor, RawTokens, field, indices, unexpected};
use crate::output::check_scores;
use crate::residual::{HeldCodes, HeldResidual, RawCodes, RawResidual};

/// `RawOptions` of `native.ts`.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct RawOptions {
    pub normalize: Option<bool>,
    pub argmax: Option<bool>,
    pub precision: Option<String>,
    pub validate_finite: Option<bool>,
    pub top_k: Option<i64>,
    pub chunk: Option<i64>,
    pub largest: Option<bool>,
    pub sorted: Option<bool>,
}

impl RawOptions {
    /// `defaults` where nothing was given.
    fn scoring(&self, defaults: Options) -> Result<Options> {
        Ok(Options {
            normalize: self.normalize.unwrap_or(defaults.normalize),
            argmax: self.argmax.unwrap_or(defaults.argmax),
            precision: self.precision.as_deref().map_or(Ok(defaults.precision), str::parse)?,
            validate_finite: self.validate_finite.unwrap_or(defaults.validate_finite),
        })
    }

    fn retrieval(&self) -> Result<RetrieveOptions> {
        let count = |n: i64| usize::try_from(n).unwrap_or(0);
        let defaults = RetrieveOptions::top_k(self.top_k.map_or(0, count));
        Ok(RetrieveOptions {
            chunk: self.chunk.map(count),
            largest: self.largest.unwrap_or(defaults.largest),
            sorted: self.sorted.unwrap_or(defaults.sorted),
            scoring: self.scoring(defaults.scoring)?,
            ..defaults
        })
    }
}

/// `RawOp` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawOp {
    pub op: String,
    pub q: Option<RawTokens>,
    pub d: Option<RawTokens>,
    pub residual: Option<RawResidual>,
    pub pair_q_idx: Option<Uint32Array>,
    pub pair_d_idx: Option<Uint32Array>,
    pub h: Option<RawTokens>,
    pub w: Option<RawTensor>,
    pub b: Option<RawTensor>,
    pub table: Option<RawTensor>,
    pub codes: Option<RawCodes>,
    pub backward: Option<RawBackward>,
    pub options: RawOptions,
}

/// `RawBackward` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawBackward {
    pub grad_scores: Float32Array,
    pub argmax: Option<Int32Array>,
    pub method: Option<String>,
    pub wants: Option<Vec<String>>,
}

/// An operator that owns its inputs.
pub(crate) struct Operation {
    op: String,
    operands: Operands,
    backward: Option<HeldBackward>,
    options: RawOptions,
}

type Indices = Held<Uint32Array, u32>;

enum Operands {
    Scoring { q: HeldTokens, d: HeldDocuments, pair_q_idx: Option<Indices>, pair_d_idx: Option<Indices> },
    Head { q: HeldTokens, h: Box<HeldTokens>, w: HeldTensor, b: Option<HeldTensor> },
    Approx { table: HeldTensor, codes: HeldCodes },
}

enum HeldDocuments {
    Tokens(Box<HeldTokens>),
    Residual(Box<HeldResidual>),
    Corpus(Corpus),
}

/// That gradients are wanted, and of what.
struct HeldBackward {
    grad_scores: Held<Float32Array, f32>,
    argmax: Option<Held<Int32Array, i32>>,
    method: Option<String>,
    wants: Option<Vec<String>>,
}

impl From<RawBackward> for HeldBackward {
    fn from(raw: RawBackward) -> Self {
        Self {
            grad_scores: raw.grad_scores.into(),
            argmax: raw.argmax.map(Held::from),
            method: raw.method,
            wants: raw.wants,
        }
    }
}

impl HeldBackward {
    /// Whether the gradient of `operand` is wanted; without a list, all that exist are.
    fn wants(&self, operand: &str) -> Option<bool> {
        self.wants.as_ref().map(|wants| wants.iter().any(|name| name == operand))
    }

    /// The winners that were given, in the layout of `forward`, which has been validated.
    fn winners(&self, forward: &Forward<'_>) -> Option<Argmax> {
        self.argmax.as_ref().map(|given| {
            let mut argmax = forward.empty_argmax();
            argmax.values = given.as_ref().to_vec();
            argmax
        })
    }
}

impl TryFrom<(RawOp, Option<Corpus>)> for Operands {
    type Error = napi::Error;

    /// Fails only on what TypeScript does not let through.
    fn try_from((raw, corpus): (RawOp, Option<Corpus>)) -> napi::Result<Self> {
        if let (Some(table), Some(codes)) = (raw.table, raw.codes) {
            return Ok(Self::Approx { table: table.try_into()?, codes: codes.try_into()? });
        }
        let q = raw.q.ok_or_else(|| unexpected("RawOp.q"))?.try_into()?;
        if let (Some(h), Some(w)) = (raw.h, raw.w) {
            let b = raw.b.map(HeldTensor::try_from).transpose()?;
            return Ok(Self::Head { q, h: Box::new(h.try_into()?), w: w.try_into()?, b });
        }
        let d = match (corpus, raw.residual, raw.d) {
            (Some(corpus), ..) => HeldDocuments::Corpus(corpus),
            (_, Some(residual), _) => HeldDocuments::Residual(Box::new(residual.try_into()?)),
            (.., Some(d)) => HeldDocuments::Tokens(Box::new(d.try_into()?)),
            _ => return Err(unexpected("RawOp.d")),
        };
        Ok(Self::Scoring {
            q,
            d,
            pair_q_idx: raw.pair_q_idx.map(Held::from),
            pair_d_idx: raw.pair_d_idx.map(Held::from),
        })
    }
}

impl HeldDocuments {
    fn documents(&self) -> Result<Documents<'_>> {
        Ok(match self {
            Self::Tokens(d) => d.tokens()?.into(),
            Self::Residual(d) => d.documents()?.into(),
            Self::Corpus(corpus) => corpus.documents(),
        })
    }

    fn name(&self) -> &str {
        match self {
            Self::Tokens(d) => &d.name,
            Self::Residual(d) => d.name(),
            Self::Corpus(_) => "d",
        }
    }

    fn check_packed(&self) -> Result<()> {
        match self {
            Self::Tokens(d) => check_packed(&d.name, d.is_packed()),
            Self::Residual(d) => check_packed(d.name(), d.is_packed()),
            Self::Corpus(_) => Ok(()),
        }
    }
}

impl Operation {
    /// `corpus` stands in for the documents of `raw`.
    pub(crate) fn new(mut raw: RawOp, corpus: Option<Corpus>) -> napi::Result<Self> {
        let op = std::mem::take(&mut raw.op);
        let options = std::mem::take(&mut raw.options);
        let backward = raw.backward.take().map(HeldBackward::from);
        Ok(Self { op, operands: (raw, corpus).try_into()?, backward, options })
    }

    /// Calls `then` with the operator. Errors of both name arguments as JavaScript does.
    pub(crate) fn with<T>(&self, then: impl FnOnce(&Op<'_>) -> Result<T>) -> Result<T> {
        let (q, d) = match &self.operands {
            Operands::Scoring { q, d, .. } => (q.name.as_str(), d.name()),
            Operands::Head { q, .. } => (q.name.as_str(), "d"),
            Operands::Approx { codes, .. } => ("q", codes.name.as_str()),
        };
        self.call(then).map_err(|error| error.map_argument(|argument| renamed(argument, q, d)))
    }

    fn call<T>(&self, then: impl FnOnce(&Op<'_>) -> Result<T>) -> Result<T> {
        let op = self.op()?;
        let Some(given) = &self.backward else {
            check_scores(&op)?;
            return then(&op);
        };
        let (grad, argmax) = (given.grad_scores.as_ref(), &mut None);
        match op {
            Op::Forward(forward) => {
                if matches!(forward.d, Documents::Residual(_)) && given.wants("d") == Some(true) {
                    return Err(Error::value("wants", "q alone for residual documents", "d"));
                }
                let mut op = Backward::new(forward, grad);
                op.method = given.method.as_deref().map_or(Ok(op.method), str::parse)?;
                op.wants_q = given.wants("q").unwrap_or(op.wants_q);
                op.wants_d = given.wants("d").unwrap_or(op.wants_d);
                if given.argmax.is_some() {
                    // The layout of winners follows from operands that fit each other.
                    op.validate()?;
                    *argmax = given.winners(&op.forward);
                    op.argmax = argmax.as_ref();
                }
                then(&Op::Backward(op))
            }
            Op::FromHidden(forward) => {
                let mut op = FromHiddenBackward::new(forward, grad);
                op.wants = HeadGradients {
                    q: given.wants("q").unwrap_or(op.wants.q),
                    h: given.wants("h").unwrap_or(op.wants.h),
                    w: given.wants("w").unwrap_or(op.wants.w),
                    b: given.wants("b").unwrap_or(op.wants.b),
                };
                if given.argmax.is_some() {
                    op.validate()?;
                    *argmax = given.winners(&op.forward.scoring());
                    op.argmax = argmax.as_ref();
                }
                then(&Op::FromHiddenBackward(op))
            }
            _ => Err(Error::value("op", "an operator that has gradients", format!("{:?}", self.op))),
        }
    }

    fn op(&self) -> Result<Op<'_>> {
        match &self.operands {
            Operands::Scoring { q, d, pair_q_idx, pair_d_idx } => {
                self.scoring(q, d, [pair_q_idx.as_ref(), pair_d_idx.as_ref()])
            }
            Operands::Head { q, h, w, b } => {
                let b = b.as_ref().map(HeldTensor::tensor).transpose()?;
                let mut op = FromHidden::new(q.tokens()?, h.tokens()?, w.tensor()?, b);
                op.options = self.options.scoring(op.options)?;
                Ok(Op::FromHidden(op))
            }
            Operands::Approx { table, codes } => codes.approx(table.tensor()?).map(Op::ApproxScore),
        }
    }

    fn scoring<'a>(
        &self,
        q: &'a HeldTokens,
        d: &'a HeldDocuments,
        [pair_q, pair_d]: [Option<&'a Indices>; 2],
    ) -> Result<Op<'a>> {
        let (tokens, documents) = (q.tokens()?, d.documents()?);
        let scoring = || self.options.scoring(Options::default());
        Ok(match self.op.as_str() {
            "maxsim" => Op::Forward(Forward::maxsim(tokens, documents, scoring()?)),
            "maxsimResidual" => {
                let options = self.options.scoring(Options::normalized())?;
                Op::Forward(Forward::maxsim(tokens, documents, options))
            }
            "maxsimPairs" => Op::Forward(Forward::pairs(tokens, documents, scoring()?)),
            "maxsimVarlen" => {
                check_packed(&q.name, q.is_packed())?;
                d.check_packed()?;
                Op::Forward(Forward::maxsim(tokens, documents, scoring()?))
            }
            "maxsimPadded" => {
                check_candidates(&documents)?;
                Op::Forward(Forward::maxsim(tokens, documents, scoring()?))
            }
            "scorePairs" => {
                let (pair_q, pair_d) = (indices(pair_q, "pair_q_idx")?, indices(pair_d, "pair_d_idx")?);
                Op::Forward(Forward::score_pairs(tokens, documents, pair_q, pair_d, scoring()?)?)
            }
            "retrieve" => Op::Retrieve(Retrieve::new(tokens, documents, self.options.retrieval()?)),
            other => return Err(Error::value("op", "an operator", format!("{other:?}"))),
        })
    }
}

fn check_packed(operand: &str, packed: bool) -> Result<()> {
    if packed {
        return Ok(());
    }
    Err(Error::shape(field(operand, "offsets"), "offsets of packed tokens", "none"))
}

fn check_candidates(d: &Documents<'_>) -> Result<()> {
    match d.axes() {
        maxsim::Axes::Grid(..) => Ok(()),
        other => {
            Err(Error::shape("D", "rank 4 [B, K, Ld, d]", format!("documents of shape {:?}", other.shape())))
        }
    }
}

/// An argument of an operator as JavaScript spells it: operands by their names, the rest in camelCase.
pub(crate) fn renamed(argument: &str, q: &str, d: &str) -> Argument {
    match argument {
        "Q" | "queries" => q.to_owned().into(),
        "D" | "documents" => d.to_owned().into(),
        "scale_Q" => format!("{q}.scales").into(),
        "scale_D" => format!("{d}.scales").into(),
        "H" => "h".into(),
        "W" => "w".into(),
        "grad" => "gradScores".into(),
        other => camel(other).into(),
    }
}

/// `snake_case` as JavaScript spells it.
pub(crate) fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}
