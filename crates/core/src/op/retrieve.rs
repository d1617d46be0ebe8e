//! Top-k retrieval over a document set.

use super::{Argmax, Cost, Documents, Forward, Options, Pairing};
use crate::error::{Error, Result};
use crate::tokens::Tokens;

/// Options of `retrieve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrieveOptions {
    /// Results per query; the width of the result is `min(top_k, Nd)`.
    pub top_k: usize,
    /// Documents scored at a time; bounds peak memory, never changes the result.
    pub chunk: Option<usize>,
    /// Highest scores first (`false`: lowest).
    pub largest: bool,
    /// Whether results come in order; `false` allows any order of the same set.
    pub sorted: bool,
    /// Scoring options. `normalize` is true by default here; `argmax` explains every hit.
    pub scoring: Options,
}

impl RetrieveOptions {
    /// The defaults with `top_k` results.
    pub fn top_k(top_k: usize) -> Self {
        Self { top_k, chunk: None, largest: true, sorted: true, scoring: Options::normalized() }
    }
}

/// The top-k operator.
#[derive(Debug, Clone)]
pub struct Retrieve<'a> {
    /// The cross product whose best columns are wanted.
    pub forward: Forward<'a>,
    /// Options.
    pub options: RetrieveOptions,
}

impl<'a> Retrieve<'a> {
    /// `retrieve(Q, D, …)`.
    pub fn new(q: Tokens<'a>, d: impl Into<Documents<'a>>, options: RetrieveOptions) -> Self {
        let mut forward = Forward::maxsim(q, d, options.scoring);
        // A [Nq, K, Ld, d] operand is refused by validate(): retrieval is over one shared document set.
        forward.pairing = Pairing::Cross;
        Self { forward, options }
    }

    /// Checks operands and options.
    ///
    /// # Errors
    /// As [`Forward::validate`]; `ERR_VALUE` for `top_k = 0` or `chunk = 0`.
    pub fn validate(&self) -> Result<()> {
        if self.options.top_k == 0 {
            return Err(Error::value("top_k", "at least 1", "0"));
        }
        if self.options.chunk == Some(0) {
            return Err(Error::value("chunk", "at least 1", "0"));
        }
        self.forward.validate()
    }

    /// Results per query.
    pub fn width(&self) -> usize {
        self.options.top_k.min(self.forward.d.count())
    }

    /// Shape of the result: `[Nq, width]`, without the first axis for a 2-D query.
    pub fn output_shape(&self) -> Vec<usize> {
        [self.forward.q.axes().shape(), vec![self.width()]].concat()
    }

    /// Work of the scoring; selection reads nothing that is not already there.
    pub fn cost(&self) -> Cost {
        let mut cost = self.forward.cost();
        cost.bytes = cost.bytes - 4 * self.forward.pair_count() as u64
            + 8 * (self.forward.q.count() * self.width()) as u64;
        cost
    }
}

/// Result of `retrieve`: score descending, then index ascending (ascending scores for `largest = false`).
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// Scores, row-major.
    pub scores: Vec<f32>,
    /// Document indices, same layout.
    pub indices: Vec<u32>,
    /// `[Nq, width]` or `[width]`.
    pub shape: Vec<usize>,
    /// Winners of every hit, in the order of the hits, if asked for.
    pub argmax: Option<Argmax>,
}

impl TopK {
    /// Results per query.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Hits of query `i`: `(document, score)`.
    pub fn hits(&self, i: usize) -> impl ExactSizeIterator<Item = (u32, f32)> + '_ {
        let range = i * self.width()..(i + 1) * self.width();
        self.indices[range.clone()].iter().copied().zip(self.scores[range].iter().copied())
    }
}
