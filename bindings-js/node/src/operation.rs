//! Operators from JavaScript: values that can be run or explained.

use maxsim::{Argument, Corpus, Documents, Error, Forward, Op, Options, Result, Retrieve, RetrieveOptions};
use napi::bindgen_prelude::Uint32Array;
use napi_derive::napi;

use crate::input::{Held, HeldTokens, RawTokens, indices};
use crate::output::check_scores;

/// `RawOptions` of `native.ts`.
#[napi(object, object_to_js = false)]
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
    pub q: RawTokens,
    pub d: Option<RawTokens>,
    pub pair_q_idx: Option<Uint32Array>,
    pub pair_d_idx: Option<Uint32Array>,
    pub options: RawOptions,
}

/// An operator that owns its inputs.
pub(crate) struct Operation {
    op: String,
    q: HeldTokens,
    d: HeldDocuments,
    pair_q_idx: Option<Held<Uint32Array, u32>>,
    pair_d_idx: Option<Held<Uint32Array, u32>>,
    options: RawOptions,
}

enum HeldDocuments {
    Tokens(Box<HeldTokens>),
    Corpus(Corpus),
}

impl Operation {
    /// `corpus` stands in for the documents of `raw`.
    pub(crate) fn new(raw: RawOp, corpus: Option<Corpus>) -> napi::Result<Self> {
        let d = match (corpus, raw.d) {
            (Some(corpus), _) => HeldDocuments::Corpus(corpus),
            (None, Some(d)) => HeldDocuments::Tokens(Box::new(d.try_into()?)),
            (None, None) => return Err(napi::Error::new(napi::Status::InvalidArg, "RawOp.d")),
        };
        Ok(Self {
            op: raw.op,
            q: raw.q.try_into()?,
            d,
            pair_q_idx: raw.pair_q_idx.map(Held::from),
            pair_d_idx: raw.pair_d_idx.map(Held::from),
            options: raw.options,
        })
    }

    /// Calls `then` with the operator. Errors of both name arguments as JavaScript does.
    pub(crate) fn with<T>(&self, then: impl FnOnce(&Op<'_>) -> Result<T>) -> Result<T> {
        let q = self.q.tokens()?;
        let d = match &self.d {
            HeldDocuments::Tokens(d) => Documents::Tokens(d.tokens()?),
            HeldDocuments::Corpus(corpus) => corpus.documents(),
        };
        let scoring = || self.options.scoring(Options::default());
        let op = || {
            Ok(match self.op.as_str() {
                "maxsim" => Op::Forward(Forward::maxsim(q, d, scoring()?)),
                "maxsimPairs" => Op::Forward(Forward::pairs(q, d, scoring()?)),
                "maxsimVarlen" => {
                    self.check_packed()?;
                    Op::Forward(Forward::maxsim(q, d, scoring()?))
                }
                "maxsimPadded" => {
                    check_candidates(&d)?;
                    Op::Forward(Forward::maxsim(q, d, scoring()?))
                }
                "scorePairs" => {
                    let pair_q = indices(self.pair_q_idx.as_ref(), "pair_q_idx")?;
                    let pair_d = indices(self.pair_d_idx.as_ref(), "pair_d_idx")?;
                    Op::Forward(Forward::score_pairs(q, d, pair_q, pair_d, scoring()?)?)
                }
                "retrieve" => Op::Retrieve(Retrieve::new(q, d, self.options.retrieval()?)),
                other => return Err(Error::value("op", "an operator", format!("{other:?}"))),
            })
        };
        let d_name = if let HeldDocuments::Tokens(d) = &self.d { &d.name } else { "d" };
        op().and_then(|op| check_scores(&op).and_then(|()| then(&op)))
            .map_err(|e| e.map_argument(|a| renamed(a, &self.q.name, d_name)))
    }

    fn check_packed(&self) -> Result<()> {
        let packed = |tokens: &HeldTokens| {
            let expected = "offsets of packed tokens";
            if tokens.is_packed() {
                Ok(())
            } else {
                Err(Error::shape(tokens.field("offsets"), expected, "none"))
            }
        };
        packed(&self.q)?;
        if let HeldDocuments::Tokens(d) = &self.d { packed(d) } else { Ok(()) }
    }
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
        other => camel(other).into(),
    }
}

fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}
