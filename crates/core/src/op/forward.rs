//! MaxSim scores: `score(i, j) = Σ_s max_t ⟨Q[i,s], D[j,t]⟩` over kept tokens.
//!
//! One operator covers SPEC's `maxsim`, `maxsim_pairs`, `maxsim_varlen`, `score_pairs` and `maxsim_padded`: they differ
//! in how the sequences lie in memory ([`Tokens`]) and in which pairs are scored ([`Pairing`]).

use std::borrow::Cow;

use super::{Cost, Documents, check_query, check_scaled};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ints::Integers;
use crate::sequences::Axes;
use crate::tokens::Tokens;

/// How exact the products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Precision {
    /// What `Exact` gives for f32; 16-bit inputs are never rounded further.
    #[default]
    Default,
    /// f32 products and sums.
    Exact,
    /// f32 operands may be rounded to 16 bit or TF32.
    Fast,
    /// Integer arithmetic on quantised operands.
    Int8,
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "default" => Ok(Self::Default),
            "exact" => Ok(Self::Exact),
            "fast" => Ok(Self::Fast),
            "int8" => Ok(Self::Int8),
            other => {
                Err(Error::value("precision", "one of default, exact, fast, int8", format!("{other:?}")))
            }
        }
    }
}

/// Options of the scoring operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Divide every token by `max(‖x‖₂, 1e-6)`.
    pub normalize: bool,
    /// Also return which document token won each query token.
    pub argmax: bool,
    /// How exact the products are.
    pub precision: Precision,
    /// Reject inputs that hold NaN or infinity with `ERR_NON_FINITE`; a corpus has to have been uploaded with it
    /// (`ERR_VALUE`).
    pub validate_finite: bool,
}

impl Options {
    /// Options with `normalize = true`.
    pub fn normalized() -> Self {
        Self { normalize: true, ..Self::default() }
    }

    /// Sets `argmax`.
    pub fn with_argmax(self) -> Self {
        Self { argmax: true, ..self }
    }
}

/// Which (query, document) pairs are scored, and in which order.
#[derive(Debug, Clone)]
pub enum Pairing<'a> {
    /// Every query with every document: `[Nq, Nd]`.
    Cross,
    /// Query `i` with documents `i·k .. (i+1)·k`: `[Nq, k]`.
    Grouped {
        /// Documents per query.
        k: usize,
    },
    /// The listed pairs: `[P]`.
    List {
        /// Query of every pair.
        q: Cow<'a, [u32]>,
        /// Document of every pair.
        d: Cow<'a, [u32]>,
    },
}

/// The scoring operator.
#[derive(Debug, Clone)]
pub struct Forward<'a> {
    /// Queries.
    pub q: Tokens<'a>,
    /// Documents.
    pub d: Documents<'a>,
    /// Which pairs.
    pub pairing: Pairing<'a>,
    /// Whether the pair axes of the result are one list `[B]` (pairs) and not `[Nq, k]`.
    flat: bool,
    /// Options.
    pub options: Options,
}

impl<'a> Forward<'a> {
    /// `maxsim`: `Q [Nq,Lq,d] × D [Nd,Ld,d] → [Nq,Nd]`, or with `D [Nq,K,Ld,d]` the KD layout `→ [Nq,K]`.
    pub fn maxsim(q: Tokens<'a>, d: impl Into<Documents<'a>>, options: Options) -> Self {
        let d = d.into();
        let pairing = match d.axes() {
            Axes::Grid(_, k) => Pairing::Grouped { k },
            _ => Pairing::Cross,
        };
        Self { q, d, pairing, flat: false, options }
    }

    /// `maxsim_pairs`: `[B,Lq,d] × [B,Ld,d] → [B]`.
    pub fn pairs(q: Tokens<'a>, d: impl Into<Documents<'a>>, options: Options) -> Self {
        Self { q, d: d.into(), pairing: Pairing::Grouped { k: 1 }, flat: true, options }
    }

    /// `score_pairs`: pair `p` is query `pair_q_idx[p]` with document `pair_d_idx[p]`; order kept, duplicates allowed.
    ///
    /// # Errors
    /// `ERR_INDEX` or `ERR_LIMIT` if an index is negative or beyond 32 bits.
    pub fn score_pairs(
        q: Tokens<'a>,
        d: impl Into<Documents<'a>>,
        pair_q_idx: impl Integers<'a>,
        pair_d_idx: impl Integers<'a>,
        options: Options,
    ) -> Result<Self> {
        let pairing =
            Pairing::List { q: pair_q_idx.into_u32("pair_q_idx")?, d: pair_d_idx.into_u32("pair_d_idx")? };
        Ok(Self { q, d: d.into(), pairing, flat: true, options })
    }

    /// Checks that the operands fit each other.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_VALUE`, `ERR_INDEX`, `ERR_LIMIT` naming the argument; `ERR_NON_FINITE` under `validate_finite`.
    pub fn validate(&self) -> Result<()> {
        check_query(&self.q)?;
        if self.q.dim() != self.d.dim() {
            return Err(Error::shape(
                "D",
                format!("d = {} as in Q", self.q.dim()),
                format!("d = {}", self.d.dim()),
            ));
        }
        if let Documents::Tokens(d) = &self.d {
            check_scaled(d, "D", "scale_D")?;
        }
        let int8 = self.q.dtype() == DType::I8 && self.d.dtype() == DType::I8;
        if self.options.precision == Precision::Int8 && !self.d.is_residual() && !int8 {
            return Err(Error::value(
                "precision",
                "int8 for residual documents or int8 operands only",
                format!("int8 for {} Q and {} D", self.q.dtype(), self.d.dtype()),
            ));
        }
        match &self.pairing {
            Pairing::Cross => {
                if let Axes::Grid(..) = self.d.axes() {
                    return Err(Error::shape("D", "rank 2 [Ld, d] or 3 [Nd, Ld, d]", "rank 4"));
                }
            }
            Pairing::Grouped { k } => self.check_groups(*k)?,
            Pairing::List { q, d } => {
                if q.len() != d.len() {
                    return Err(Error::shape(
                        "pair_d_idx",
                        format!("{} entries as in pair_q_idx", q.len()),
                        format!("{} entries", d.len()),
                    ));
                }
                check_indices(q, self.q.count(), "pair_q_idx")?;
                check_indices(d, self.d.count(), "pair_d_idx")?;
            }
        }
        if self.pair_count() >= u32::MAX as usize {
            return Err(Error::Limit {
                argument: "scores".into(),
                limit: format!("{} pairs per call", u32::MAX - 1),
                got: self.pair_count().to_string(),
            });
        }
        if self.options.validate_finite {
            self.q.check_finite("Q")?;
            match &self.d {
                Documents::Tokens(d) => d.check_finite("D")?,
                Documents::Residual(d) => d.check_finite()?,
                Documents::Resident(d) if !d.meta().finite => {
                    return Err(Error::value(
                        "validate_finite",
                        "a corpus that was uploaded with it, or false",
                        "one that nobody checked",
                    ));
                }
                Documents::Resident(_) => {}
            }
        }
        Ok(())
    }

    fn check_groups(&self, k: usize) -> Result<()> {
        let nq = self.q.count();
        let expected = match self.d.axes() {
            // [1, K, Ld, d] with a 2-D query.
            Axes::Grid(n, dk) if n == nq && dk == k => return Ok(()),
            Axes::Grid(..) => format!("[{nq}, K, Ld, d]: as many rows as queries"),
            _ if self.d.count() == nq * k => return Ok(()),
            _ => format!("{} documents for {nq} queries", nq * k),
        };
        let got = match &self.d {
            Documents::Tokens(d) => format!("{:?}", d.shape()),
            _ => format!("{} documents", self.d.count()),
        };
        Err(Error::shape("D", expected, got))
    }

    /// Number of pairs.
    pub fn pair_count(&self) -> usize {
        match &self.pairing {
            Pairing::Cross => self.q.count().saturating_mul(self.d.count()),
            Pairing::Grouped { k } => self.q.count().saturating_mul(*k),
            Pairing::List { q, .. } => q.len(),
        }
    }

    /// Query and document of pair `p` (row-major in the result).
    pub fn pair(&self, p: usize) -> (usize, usize) {
        match &self.pairing {
            Pairing::Cross => (p / self.d.count(), p % self.d.count()),
            Pairing::Grouped { k } => (p / k, p),
            Pairing::List { q, d } => (q[p] as usize, d[p] as usize),
        }
    }

    /// Shape of the scores. A 2-D `Q` or `D` has no axis of its own.
    pub fn output_shape(&self) -> Vec<usize> {
        match &self.pairing {
            _ if self.flat => match (&self.pairing, self.q.axes()) {
                (Pairing::Grouped { .. }, Axes::Single) => vec![],
                _ => vec![self.pair_count()],
            },
            Pairing::Cross => [self.q.axes().shape(), self.d.axes().shape()].concat(),
            Pairing::Grouped { k } => [self.q.axes().shape(), vec![*k]].concat(),
            Pairing::List { .. } => vec![self.pair_count()],
        }
    }

    /// Work: two operations per element of every token pair; every operand read once, every score written once.
    pub fn cost(&self) -> Cost {
        let d = self.q.dim() as u64;
        // Mean lengths: exact for cross products, which is where the figure matters.
        let kept_q = self.q.kept() as u64;
        let kept_d = self.d.kept() as u64;
        let pairs = self.pair_count() as u64;
        let all = (self.q.count() as u64 * self.d.count() as u64).max(1);
        let token_pairs = (kept_q as u128 * kept_d as u128 * pairs as u128 / all as u128) as u64;
        let bytes = kept_q * d * self.q.dtype().size() as u64 + kept_d * self.d.token_bytes() as u64;
        Cost { flops: 2 * token_pairs * d, bytes: bytes + 4 * pairs }
    }

    /// Winners of all pairs: elements of an [`Argmax`].
    pub fn argmax_len(&self) -> usize {
        match self.q.padded_len() {
            Some(len) => self.pair_count() * len,
            None => (0..self.pair_count()).map(|p| self.q.extent(self.pair(p).0)).sum(),
        }
    }

    /// An [`Argmax`] of the right layout, all `-1`.
    pub fn empty_argmax(&self) -> Argmax {
        match self.q.padded_len() {
            Some(len) => Argmax {
                values: vec![-1; self.pair_count() * len],
                shape: Some([self.output_shape(), vec![len]].concat()),
                rows: Rows::Uniform(len),
            },
            None => {
                let mut offsets = Vec::with_capacity(self.pair_count() + 1);
                let mut total = 0;
                offsets.push(0);
                for p in 0..self.pair_count() {
                    total += self.q.extent(self.pair(p).0);
                    offsets.push(total);
                }
                Argmax { values: vec![-1; total], shape: None, rows: Rows::Ragged(offsets) }
            }
        }
    }
}

fn check_indices(indices: &[u32], count: usize, argument: &'static str) -> Result<()> {
    match indices.iter().position(|&i| i as usize >= count) {
        Some(position) => {
            Err(Error::index(argument, position, format!("below {count}"), indices[position].to_string()))
        }
        None => Ok(()),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Rows {
    Uniform(usize),
    Ragged(Vec<usize>),
}

/// Winning document token per query token, document-local; −1 where a row has no winner or is masked.
#[derive(Debug, Clone, PartialEq)]
pub struct Argmax {
    /// All rows behind one another, pair by pair.
    pub values: Vec<i32>,
    shape: Option<Vec<usize>>,
    rows: Rows,
}

impl Argmax {
    /// `[.., Lq]` for padded queries; `None` for packed ones, whose rows differ in length.
    pub fn shape(&self) -> Option<&[usize]> {
        self.shape.as_deref()
    }

    /// Where the rows of pair `p` lie in `values`.
    pub fn range(&self, p: usize) -> std::ops::Range<usize> {
        match &self.rows {
            Rows::Uniform(len) => p * len..(p + 1) * len,
            Rows::Ragged(offsets) => offsets[p]..offsets[p + 1],
        }
    }

    /// Winners of pair `p`, one per query token slot.
    pub fn pair(&self, p: usize) -> &[i32] {
        &self.values[self.range(p)]
    }
}

/// Result of a scoring operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Scores in row-major order.
    pub values: Vec<f32>,
    /// Shape of `values`.
    pub shape: Vec<usize>,
    /// Winners, if asked for.
    pub argmax: Option<Argmax>,
}
