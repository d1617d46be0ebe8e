//! Operators: values that can be run or explained.

#[cfg(feature = "gradients")]
use maxsim_core::{Argmax, Backward, FromHidden, FromHiddenBackward, HeadGradients};
use maxsim_core::{
    Argument, Axes, Corpus, Documents, Engine, Error, Forward, Integers, Op, Options, Plan, Result, Retrieve,
    RetrieveOptions, Submission,
};

use crate::array::Held;
use crate::input::{RawTensor, RawTokens, field, missing};
use crate::output::{RawGradients, RawScores, check_scores};
use crate::residual::{RawCodes, RawResidual};

/// `RawOptions` of `native.ts`: what is not given has its default.
#[derive(Default)]
#[allow(missing_docs, reason = "the options of SPEC")]
pub struct RawOptions {
    pub normalize: Option<bool>,
    pub argmax: Option<bool>,
    pub precision: Option<String>,
    pub validate_finite: Option<bool>,
    pub top_k: Option<usize>,
    pub chunk: Option<usize>,
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
        let defaults = RetrieveOptions::top_k(self.top_k.unwrap_or(0));
        Ok(RetrieveOptions {
            chunk: self.chunk,
            largest: self.largest.unwrap_or(defaults.largest),
            sorted: self.sorted.unwrap_or(defaults.sorted),
            scoring: self.scoring(defaults.scoring)?,
            ..defaults
        })
    }
}

/// `RawOp` of `native.ts`: an operator that owns its inputs.
#[derive(Default)]
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawOp {
    pub op: String,
    pub q: Option<RawTokens>,
    pub d: Option<RawTokens>,
    pub residual: Option<RawResidual>,
    pub pair_q_idx: Option<Held<u32>>,
    pub pair_d_idx: Option<Held<u32>>,
    pub h: Option<RawTokens>,
    pub w: Option<RawTensor>,
    pub b: Option<RawTensor>,
    pub table: Option<RawTensor>,
    pub codes: Option<RawCodes>,
    pub backward: Option<RawBackward>,
    pub options: RawOptions,
}

/// `RawBackward` of `native.ts`: that gradients are wanted, and of what.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawBackward {
    pub grad_scores: Held<f32>,
    pub argmax: Option<Held<i32>>,
    pub method: Option<String>,
    pub wants: Option<Vec<String>>,
}

/// An operator and the corpus that may stand in for its documents.
pub struct Operation {
    raw: RawOp,
    corpus: Option<Corpus>,
}

#[cfg(feature = "gradients")]
impl RawBackward {
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

/// What JavaScript calls the operands of an operator, which may be gone when its errors come.
#[derive(Debug, Clone)]
pub struct Arguments {
    q: String,
    d: String,
}

impl Arguments {
    /// `error` with arguments as JavaScript names them.
    pub fn rename(&self, error: Error) -> Error {
        error.map_argument(|argument| renamed(argument, &self.q, &self.d))
    }
}

impl Operation {
    /// `corpus` stands in for the documents of `raw`.
    pub fn new(raw: RawOp, corpus: Option<Corpus>) -> Self {
        Self { raw, corpus }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Those of the operator.
    pub fn run(&self, engine: &Engine) -> Result<RawScores> {
        self.with(|op| RawScores::new(engine.run(op)?))
    }

    /// Runs it where it gives gradients.
    ///
    /// # Errors
    /// Those of the operator.
    pub fn gradients(&self, engine: &Engine) -> Result<RawGradients> {
        self.with(|op| RawGradients::new(engine.run(op)?))
    }

    /// Starts it; the inputs are not needed any more then. Errors of what was started are to be passed through
    /// those of [`arguments`](Self::arguments).
    ///
    /// # Errors
    /// Those of the operator that can be told now.
    pub fn submit(&self, engine: &Engine) -> Result<Submission> {
        self.with(|op| engine.submit(op))
    }

    /// How it would be run.
    ///
    /// # Errors
    /// Those of the operator that can be told without running it.
    pub fn explain(&self, engine: &Engine) -> Result<Plan> {
        self.with(|op| engine.explain(op))
    }

    /// What its arguments are called.
    pub fn arguments(&self) -> Arguments {
        let RawOp { q, d, residual, codes, .. } = &self.raw;
        let q = q.as_ref().map_or("q", |q| &q.name);
        let d = match (&self.corpus, residual, d, codes) {
            (Some(_), ..) => "d",
            (_, Some(residual), ..) => residual.name(),
            (.., Some(d), _) => &d.name,
            (.., Some(codes)) => &codes.name,
            _ => "d",
        };
        Arguments { q: q.to_owned(), d: d.to_owned() }
    }

    /// Calls `then` with the operator. Errors of both name arguments as JavaScript does.
    fn with<T>(&self, then: impl FnOnce(&Op<'_>) -> Result<T>) -> Result<T> {
        self.call(then).map_err(|error| self.arguments().rename(error))
    }

    fn call<T>(&self, then: impl FnOnce(&Op<'_>) -> Result<T>) -> Result<T> {
        let op = self.op()?;
        let Some(given) = &self.raw.backward else {
            check_scores(&op)?;
            return then(&op);
        };
        self.gradients_of(op, given, then)
    }

    #[cfg(not(feature = "gradients"))]
    fn gradients_of<T>(&self, _: Op<'_>, _: &RawBackward, _: impl FnOnce(&Op<'_>) -> Result<T>) -> Result<T> {
        Err(unsupported())
    }

    /// Calls `then` with the gradients that are wanted of `op`.
    #[cfg(feature = "gradients")]
    fn gradients_of<T>(
        &self,
        op: Op<'_>,
        given: &RawBackward,
        then: impl FnOnce(&Op<'_>) -> Result<T>,
    ) -> Result<T> {
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
            _ => Err(Error::value("op", "an operator that has gradients", format!("{:?}", self.raw.op))),
        }
    }

    fn op(&self) -> Result<Op<'_>> {
        #[cfg_attr(
            not(feature = "gradients"),
            allow(unused_variables, reason = "operands of what is refused")
        )]
        let RawOp { q, h, w, b, table, codes, options, .. } = &self.raw;
        #[cfg(feature = "residual")]
        if let (Some(table), Some(codes)) = (table, codes) {
            return codes.approx(table.tensor()?).map(Op::ApproxScore);
        }
        #[cfg(not(feature = "residual"))]
        if table.is_some() {
            return Err(unsupported());
        }
        let q = q.as_ref().ok_or_else(|| missing("q"))?;
        #[cfg(not(feature = "gradients"))]
        if h.is_some() {
            return Err(unsupported());
        }
        #[cfg(feature = "gradients")]
        if let (Some(h), Some(w)) = (h, w) {
            let b = b.as_ref().map(RawTensor::tensor).transpose()?;
            let mut op = FromHidden::new(q.tokens()?, h.tokens()?, w.tensor()?, b);
            op.options = options.scoring(op.options)?;
            return Ok(Op::FromHidden(op));
        }
        self.scoring(q)
    }

    fn documents(&self) -> Result<Documents<'_>> {
        Ok(match (&self.corpus, &self.raw.residual, &self.raw.d) {
            (Some(corpus), ..) => corpus.documents(),
            #[cfg(feature = "residual")]
            (_, Some(residual), _) => residual.documents()?.into(),
            #[cfg(not(feature = "residual"))]
            (_, Some(_), _) => return Err(unsupported()),
            (.., Some(d)) => d.tokens()?.into(),
            _ => return Err(missing("d")),
        })
    }

    fn check_packed(&self, q: &RawTokens) -> Result<()> {
        check_packed(&q.name, q.is_packed())?;
        match (&self.corpus, &self.raw.residual, &self.raw.d) {
            (None, Some(d), _) => check_packed(d.name(), d.codes.is_packed()),
            (None, None, Some(d)) => check_packed(&d.name, d.is_packed()),
            _ => Ok(()),
        }
    }

    fn scoring<'a>(&'a self, q: &'a RawTokens) -> Result<Op<'a>> {
        let RawOp { op, pair_q_idx, pair_d_idx, options, .. } = &self.raw;
        let (tokens, documents) = (q.tokens()?, self.documents()?);
        let scoring = || options.scoring(Options::default());
        Ok(match op.as_str() {
            "maxsim" => Op::Forward(Forward::maxsim(tokens, documents, scoring()?)),
            "maxsimResidual" => {
                let options = options.scoring(Options::normalized())?;
                Op::Forward(Forward::maxsim(tokens, documents, options))
            }
            "maxsimPairs" => Op::Forward(Forward::pairs(tokens, documents, scoring()?)),
            "maxsimVarlen" => {
                self.check_packed(q)?;
                Op::Forward(Forward::maxsim(tokens, documents, scoring()?))
            }
            "maxsimPadded" => {
                check_candidates(&documents)?;
                Op::Forward(Forward::maxsim(tokens, documents, scoring()?))
            }
            "scorePairs" => {
                let (pair_q, pair_d) =
                    (indices(pair_q_idx, "pair_q_idx")?, indices(pair_d_idx, "pair_d_idx")?);
                Op::Forward(Forward::score_pairs(tokens, documents, pair_q, pair_d, scoring()?)?)
            }
            "retrieve" => Op::Retrieve(Retrieve::new(tokens, documents, options.retrieval()?)),
            other => return Err(Error::value("op", "an operator", format!("{other:?}"))),
        })
    }
}

/// What modules without an operator say of it.
#[cfg(not(all(feature = "gradients", feature = "residual")))]
fn unsupported() -> Error {
    Error::Unsupported { what: "this operator".into(), hint: "it is in another module".into() }
}

/// Indices of pairs; `argument` names them if they are missing.
fn indices<'a>(held: &'a Option<Held<u32>>, argument: &'static str) -> Result<impl Integers<'a>> {
    held.as_ref().map(AsRef::as_ref).ok_or_else(|| Error::value(argument, "indices", "none"))
}

fn check_packed(operand: &str, packed: bool) -> Result<()> {
    if packed {
        return Ok(());
    }
    Err(Error::shape(field(operand, "offsets"), "offsets of packed tokens", "none"))
}

fn check_candidates(d: &Documents<'_>) -> Result<()> {
    match d.axes() {
        Axes::Grid(..) => Ok(()),
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
pub fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}
