//! Operators as values. An [`Op`] says what is asked; a backend decides how.

mod backward;
mod forward;
mod head;
mod pack;
mod plaid;
mod quantize;
mod residual;
mod retrieve;

pub use backward::{Backward, BackwardMethod, Gradients};
pub use forward::{Argmax, Forward, Options, Pairing, Precision, Scores};
pub use head::{FromHidden, FromHiddenBackward, HeadGradients};
pub use pack::{PackedPairs, pack_padded};
pub use plaid::{Hit, PlaidHits, PlaidIndex, PlaidOptions, PlaidSearch};
pub use quantize::{
    Quantized, ResidualCodes, ScaleMode, decode_residual, dequantize, pack_residuals, quantize_fp8,
    quantize_int8,
};
pub(crate) use quantize::{check_encode, check_vectors};
pub use residual::{ApproxScore, Codec, Residual, ResidualBuf, ResidualLayout};
pub use retrieve::{Retrieve, RetrieveOptions, TopK};

use crate::backend::Resident;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::sequences::{Axes, Sequences};
use crate::tokens::Tokens;

/// Documents of any kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Documents<'a> {
    /// Token vectors in host memory.
    Tokens(Tokens<'a>),
    /// Codes and packed residuals in host memory.
    Residual(Residual<'a>),
    /// Documents that a backend already holds.
    Resident(&'a Resident),
}

impl<'a> From<Tokens<'a>> for Documents<'a> {
    fn from(tokens: Tokens<'a>) -> Self {
        Self::Tokens(tokens)
    }
}

impl<'a> From<Residual<'a>> for Documents<'a> {
    fn from(residual: Residual<'a>) -> Self {
        Self::Residual(residual)
    }
}

impl<'a> From<&'a Resident> for Documents<'a> {
    fn from(resident: &'a Resident) -> Self {
        Self::Resident(resident)
    }
}

impl Documents<'_> {
    /// Embedding dimension.
    pub fn dim(&self) -> usize {
        match self {
            Self::Tokens(t) => t.dim(),
            Self::Residual(r) => r.codec().dim(),
            Self::Resident(r) => r.meta().dim,
        }
    }

    /// How the token slots form documents.
    pub fn sequences(&self) -> &Sequences<'_> {
        match self {
            Self::Tokens(t) => t.sequences(),
            Self::Residual(r) => r.sequences(),
            Self::Resident(r) => &r.meta().sequences,
        }
    }

    /// Arrangement of the documents.
    pub fn axes(&self) -> Axes {
        self.sequences().axes()
    }

    /// Number of documents.
    pub fn count(&self) -> usize {
        self.axes().count()
    }

    /// Storage type of the vectors; for residual documents that of the centroids.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Tokens(t) => t.dtype(),
            Self::Residual(r) => r.codec().centroids().dtype(),
            Self::Resident(r) => r.meta().dtype,
        }
    }

    /// Whether they are codes and packed residuals.
    pub fn is_residual(&self) -> bool {
        match self {
            Self::Tokens(_) => false,
            Self::Residual(_) => true,
            Self::Resident(r) => r.meta().residual,
        }
    }

    /// Tokens that count.
    pub fn kept(&self) -> usize {
        match self {
            Self::Resident(r) => r.meta().kept,
            _ => self.sequences().kept(),
        }
    }

    /// Bytes of one token as stored.
    pub fn token_bytes(&self) -> usize {
        match self {
            Self::Residual(r) => r.codec().residual_bytes() + 4,
            Self::Resident(r) => r.meta().token_bytes,
            Self::Tokens(t) => t.dim() * t.dtype().size(),
        }
    }
}

/// Work of an operator: the floor any kernel is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Floating-point (or integer) operations, a multiply-add counting two.
    pub flops: u64,
    /// Bytes that must be read and written at least once.
    pub bytes: u64,
}

/// An operator with its inputs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op<'a> {
    /// Scores of query–document pairs.
    Forward(Forward<'a>),
    /// Gradients of scores.
    Backward(Backward<'a>),
    /// The best documents per query.
    Retrieve(Retrieve<'a>),
    /// Scores over projected hidden states.
    FromHidden(FromHidden<'a>),
    /// Gradients of those.
    FromHiddenBackward(FromHiddenBackward<'a>),
    /// Scores from centroids alone.
    ApproxScore(ApproxScore<'a>),
    /// The best documents of an index per query.
    PlaidSearch(PlaidSearch<'a>),
}

impl Op<'_> {
    /// Name as in the operator list.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Backward(_) => "backward",
            Self::Retrieve(_) => "retrieve",
            Self::FromHidden(_) => "from_hidden",
            Self::FromHiddenBackward(_) => "from_hidden_backward",
            Self::ApproxScore(_) => "plaid_approx_score",
            Self::PlaidSearch(_) => "plaid_search",
        }
    }

    /// Checks everything that can be checked on the host.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Forward(op) => op.validate(),
            Self::Backward(op) => op.validate(),
            Self::Retrieve(op) => op.validate(),
            Self::FromHidden(op) => op.validate(),
            Self::FromHiddenBackward(op) => op.validate(),
            // Checked when it was made.
            Self::ApproxScore(_) => Ok(()),
            Self::PlaidSearch(op) => op.validate(),
        }
    }

    /// Work to be done.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Forward(op) => op.cost(),
            Self::Backward(op) => op.cost(),
            Self::Retrieve(op) => op.cost(),
            Self::FromHidden(op) => op.cost(),
            Self::FromHiddenBackward(op) => op.cost(),
            Self::ApproxScore(op) => op.cost(),
            Self::PlaidSearch(op) => op.cost(),
        }
    }
}

/// What an [`Op`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// From [`Op::Forward`], [`Op::FromHidden`] and [`Op::ApproxScore`].
    Scores(Scores),
    /// From [`Op::Backward`] and [`Op::FromHiddenBackward`].
    Gradients(Gradients),
    /// From [`Op::Retrieve`].
    TopK(TopK),
    /// From [`Op::PlaidSearch`]: the hits of every query.
    Hits(PlaidHits),
}

pub(crate) fn check_query(q: &Tokens<'_>) -> Result<()> {
    if matches!(q.axes(), Axes::Grid(..)) {
        return Err(Error::shape("Q", "rank 2 [Lq, d] or 3 [Nq, Lq, d]", format!("rank 4 {:?}", q.shape())));
    }
    check_scaled(q, "Q", "scale_Q")
}

pub(crate) fn check_scaled(tokens: &Tokens<'_>, argument: &'static str, scales: &'static str) -> Result<()> {
    if tokens.dtype().is_quantized() && tokens.scales().is_none() {
        return Err(Error::value(scales, format!("scales for {} {argument}", tokens.dtype()), "none"));
    }
    Ok(())
}
