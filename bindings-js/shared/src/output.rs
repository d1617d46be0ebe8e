//! Results, checked to fit arrays of JavaScript.

use maxsim_core::{Argmax, DataBuf, Error, Gradients, Op, Output, PackedPairs, Result, Scores, Tensor, TopK};

/// `RawScores` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawScores {
    pub scores: Vec<f32>,
    pub shape: Vec<usize>,
    pub indices: Option<Vec<u32>>,
    pub argmax: Option<Vec<i32>>,
    pub argmax_shape: Option<Vec<usize>>,
    pub argmax_offsets: Option<Vec<u32>>,
}

/// Bytes of the largest array every supported runtime can make; making a larger one is an exception that nobody catches.
const MAX_BYTES: u64 = 1 << 32;

pub(crate) fn fitting<T>(argument: &'static str, values: Vec<T>) -> Result<Vec<T>> {
    check_len::<T>(argument, values.len())?;
    Ok(values)
}

/// Refuses `len` elements of `T` if no array can hold them.
///
/// # Errors
/// `ERR_LIMIT` about `argument`.
pub fn check_len<T>(argument: &'static str, len: usize) -> Result<()> {
    let limit = MAX_BYTES / size_of::<T>() as u64;
    if len as u64 <= limit {
        return Ok(());
    }
    Err(Error::Limit {
        argument: argument.into(),
        limit: format!("{limit} elements per result"),
        got: len.to_string(),
    })
}

/// Refuses results that could not be handed over before memory is asked for.
pub(crate) fn check_scores(op: &Op<'_>) -> Result<()> {
    let scores = match op {
        Op::Forward(op) => op.pair_count(),
        Op::Retrieve(op) => op.forward.q.count().saturating_mul(op.width()),
        Op::FromHidden(op) => op.q.count().saturating_mul(op.h.count()),
        // Gradients and approximate scores are no larger than what they come from.
        _ => 0,
    };
    check_len::<f32>("scores", scores)
}

fn unknown() -> Error {
    Error::Unsupported {
        what: "a result of this kind".into(),
        hint: "this package is older than the engine".into(),
    }
}

impl RawScores {
    /// Of an operator that gives scores.
    ///
    /// # Errors
    /// `ERR_LIMIT` for more than arrays hold.
    pub fn new(output: Output) -> Result<Self> {
        match output {
            Output::Scores(Scores { values, shape, argmax }) => Self::of(values, None, shape, argmax),
            Output::TopK(TopK { scores, indices, shape, argmax }) => {
                Self::of(scores, Some(indices), shape, argmax)
            }
            _ => Err(unknown()),
        }
    }

    fn of(
        scores: Vec<f32>,
        indices: Option<Vec<u32>>,
        shape: Vec<usize>,
        argmax: Option<Argmax>,
    ) -> Result<Self> {
        let rows = scores.len();
        let mut raw = Self {
            scores: fitting("scores", scores)?,
            shape,
            indices: indices.map(|indices| fitting("indices", indices)).transpose()?,
            argmax: None,
            argmax_shape: None,
            argmax_offsets: None,
        };
        if let Some(argmax) = argmax {
            // Hits are scored as a list of pairs, so their winners come as [Nq·k, Lq]; the scores' own axes are wanted.
            match argmax.shape() {
                Some(of_list) => {
                    let lq = of_list.last().copied().unwrap_or(0);
                    raw.argmax_shape = Some([raw.shape.as_slice(), &[lq]].concat());
                }
                None => raw.argmax_offsets = Some(fitting("argmax", offsets(&argmax, rows)?)?),
            }
            raw.argmax = Some(fitting("argmax", argmax.values)?);
        }
        Ok(raw)
    }
}

/// `[rows + 1]` ends of the winners of packed queries.
fn offsets(argmax: &Argmax, rows: usize) -> Result<Vec<u32>> {
    let ends = (0..rows).map(|p| argmax.range(p).end);
    std::iter::once(0)
        .chain(ends)
        .map(|end| {
            u32::try_from(end).map_err(|_| Error::Limit {
                argument: "argmax".into(),
                limit: format!("{} winners of packed queries per call", u32::MAX),
                got: argmax.values.len().to_string(),
            })
        })
        .collect()
}

/// Refuses what no array can hold.
pub(crate) fn check_data(argument: &'static str, data: &DataBuf) -> Result<()> {
    match data {
        DataBuf::F32(values) => check_len::<f32>(argument, values.len()),
        DataBuf::F16(values) => check_len::<u16>(argument, values.len()),
        DataBuf::BF16(values) => check_len::<u16>(argument, values.len()),
        DataBuf::E4M3(values) => check_len::<u8>(argument, values.len()),
        DataBuf::I8(values) => check_len::<i8>(argument, values.len()),
    }
}

/// `RawGradients` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawGradients {
    pub q: Option<Tensor>,
    pub d: Option<Tensor>,
    pub h: Option<Tensor>,
    pub w: Option<Tensor>,
    pub b: Option<Tensor>,
}

impl RawGradients {
    /// Of an operator that gives gradients.
    ///
    /// # Errors
    /// `ERR_LIMIT` for more than arrays hold.
    pub fn new(output: Output) -> Result<Self> {
        let Output::Gradients(gradients) = output else { return Err(unknown()) };
        let Gradients { q, d, h, w, b } = gradients;
        for (name, gradient) in [("q", &q), ("d", &d), ("h", &h), ("w", &w), ("b", &b)] {
            gradient.as_ref().map_or(Ok(()), |gradient| check_data(name, gradient.data()))?;
        }
        Ok(Self { q, d, h, w, b })
    }
}

/// `RawPackedTokens` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawPackedTokens {
    pub data: DataBuf,
    pub dim: usize,
    pub offsets: Vec<u32>,
}

/// `RawPacked` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawPacked {
    pub q: RawPackedTokens,
    pub d: RawPackedTokens,
    pub pair_q_idx: Vec<u32>,
    pub pair_d_idx: Vec<u32>,
}

impl RawPacked {
    pub(crate) fn new(pairs: PackedPairs) -> Result<Self> {
        Ok(Self {
            q: RawPackedTokens::new(pairs.q, pairs.dim, pairs.cu_seqlens_q)?,
            d: RawPackedTokens::new(pairs.d, pairs.dim, pairs.cu_seqlens_d)?,
            pair_q_idx: fitting("pairQIdx", pairs.pair_q_idx)?,
            pair_d_idx: fitting("pairDIdx", pairs.pair_d_idx)?,
        })
    }
}

impl RawPackedTokens {
    fn new(data: DataBuf, dim: usize, offsets: Vec<u32>) -> Result<Self> {
        check_data("data", &data)?;
        Ok(Self { data, dim, offsets: fitting("offsets", offsets)? })
    }
}
