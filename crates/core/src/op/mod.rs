//! Operators as values. An [`Op`] says what is asked; a backend decides how.

mod forward;
mod pack;
mod retrieve;

pub use forward::{Argmax, Forward, Options, Pairing, Precision, Scores};
pub use pack::{PackedPairs, pack_padded};
pub use retrieve::{Retrieve, RetrieveOptions, TopK};

use crate::backend::Resident;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::sequences::Axes;
use crate::tokens::Tokens;

/// Documents of any kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Documents<'a> {
    /// Token vectors in host memory.
    Tokens(Tokens<'a>),
    /// Documents that a backend already holds.
    Resident(&'a Resident),
}

impl<'a> From<Tokens<'a>> for Documents<'a> {
    fn from(tokens: Tokens<'a>) -> Self {
        Self::Tokens(tokens)
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
            Self::Resident(r) => r.meta().dim,
        }
    }

    /// Arrangement of the documents.
    pub fn axes(&self) -> Axes {
        match self {
            Self::Tokens(t) => t.axes(),
            Self::Resident(r) => r.meta().axes,
        }
    }

    /// Number of documents.
    pub fn count(&self) -> usize {
        self.axes().count()
    }

    /// Storage type of the vectors.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Tokens(t) => t.dtype(),
            Self::Resident(r) => r.meta().dtype,
        }
    }

    /// Tokens that count.
    pub fn kept(&self) -> usize {
        match self {
            Self::Tokens(t) => t.kept(),
            Self::Resident(r) => r.meta().kept,
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
    /// The best documents per query.
    Retrieve(Retrieve<'a>),
}

impl Op<'_> {
    /// Name as in SPEC's operator list.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Retrieve(_) => "retrieve",
        }
    }

    /// Checks everything that can be checked on the host.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Forward(op) => op.validate(),
            Self::Retrieve(op) => op.validate(),
        }
    }

    /// Work to be done.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Forward(op) => op.cost(),
            Self::Retrieve(op) => op.cost(),
        }
    }
}

/// What an [`Op`] returns.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// From [`Op::Forward`].
    Scores(Scores),
    /// From [`Op::Retrieve`].
    TopK(TopK),
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
