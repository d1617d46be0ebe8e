//! Results as JavaScript sees them.

use bytemuck::cast_vec;
use maxsim::{Argmax, DataBuf, Error, Op, Output, PackedPairs, Plan, Result, Scores, Tensor, TopK};
use napi::bindgen_prelude::{
    Either4, Float32Array, Int8Array, Int32Array, Uint8Array, Uint16Array, Uint32Array,
};
use napi_derive::napi;

/// `RawScores` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawScores {
    pub scores: Float32Array,
    pub shape: Vec<i64>,
    pub indices: Option<Uint32Array>,
    pub argmax: Option<Int32Array>,
    pub argmax_shape: Option<Vec<i64>>,
    pub argmax_offsets: Option<Uint32Array>,
}

/// Bytes of the largest array every supported Node can make; making a larger one is an exception that nobody catches.
const MAX_BYTES: u64 = 1 << 32;

/// `values` as an array of JavaScript.
pub(crate) fn array<T, A: From<Vec<T>>>(argument: &'static str, values: Vec<T>) -> Result<A> {
    check_len::<T>(argument, values.len())?;
    Ok(values.into())
}

/// Refuses `len` elements of `T` if no array can hold them.
pub(crate) fn check_len<T>(argument: &'static str, len: usize) -> Result<()> {
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

fn shape(extents: &[usize]) -> Vec<i64> {
    extents.iter().map(|&n| n as i64).collect()
}

fn unknown(output: &Output) -> Error {
    Error::Unsupported {
        what: format!("result {output:?}"),
        hint: "this package is older than the engine".into(),
    }
}

impl RawScores {
    pub(crate) fn new(output: Output) -> Result<Self> {
        match output {
            Output::Scores(Scores { values, shape, argmax }) => Self::of(values, None, &shape, argmax),
            Output::TopK(TopK { scores, indices, shape, argmax }) => {
                Self::of(scores, Some(indices), &shape, argmax)
            }
            other => Err(unknown(&other)),
        }
    }

    fn of(
        scores: Vec<f32>,
        indices: Option<Vec<u32>>,
        extents: &[usize],
        argmax: Option<Argmax>,
    ) -> Result<Self> {
        let rows = scores.len();
        let mut raw = Self {
            scores: array("scores", scores)?,
            shape: shape(extents),
            indices: indices.map(|indices| array("indices", indices)).transpose()?,
            argmax: None,
            argmax_shape: None,
            argmax_offsets: None,
        };
        if let Some(argmax) = argmax {
            // Hits are scored as a list of pairs, so their winners come as [Nq·k, Lq]; the scores' own axes are wanted.
            match argmax.shape() {
                Some(of_list) => {
                    let lq = of_list.last().copied().unwrap_or(0);
                    raw.argmax_shape = Some(shape(&[extents, &[lq]].concat()));
                }
                None => raw.argmax_offsets = Some(array("argmax", offsets(&argmax, rows)?)?),
            }
            raw.argmax = Some(array("argmax", argmax.values)?);
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

type Elements = Either4<Float32Array, Uint16Array, Uint8Array, Int8Array>;

/// Elements in the array that holds their type; f16 and bf16 as bits.
fn elements(argument: &'static str, data: DataBuf) -> Result<Elements> {
    Ok(match data {
        DataBuf::F32(values) => Either4::A(array(argument, values)?),
        DataBuf::F16(values) => Either4::B(array(argument, cast_vec::<_, u16>(values))?),
        DataBuf::BF16(values) => Either4::B(array(argument, cast_vec::<_, u16>(values))?),
        DataBuf::E4M3(values) => Either4::C(array(argument, cast_vec::<_, u8>(values))?),
        DataBuf::I8(values) => Either4::D(array(argument, values)?),
    })
}

/// `RawResult` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawResult {
    pub data: Elements,
    pub dtype: String,
    pub shape: Vec<i64>,
}

impl RawResult {
    pub(crate) fn new(argument: &'static str, tensor: Tensor) -> Result<Self> {
        let (dtype, shape) = (tensor.dtype().name().into(), shape(tensor.shape()));
        Ok(Self { data: elements(argument, tensor.into_data())?, dtype, shape })
    }
}

/// `RawGradients` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawGradients {
    pub q: Option<RawResult>,
    pub d: Option<RawResult>,
    pub h: Option<RawResult>,
    pub w: Option<RawResult>,
    pub b: Option<RawResult>,
}

impl RawGradients {
    pub(crate) fn new(output: Output) -> Result<Self> {
        let Output::Gradients(gradients) = output else { return Err(unknown(&output)) };
        let result = |name, gradient: Option<Tensor>| gradient.map(|g| RawResult::new(name, g)).transpose();
        Ok(Self {
            q: result("q", gradients.q)?,
            d: result("d", gradients.d)?,
            h: result("h", gradients.h)?,
            w: result("w", gradients.w)?,
            b: result("b", gradients.b)?,
        })
    }
}

/// `RawPackedTokens` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawPackedTokens {
    pub data: Elements,
    pub dtype: String,
    pub dim: i64,
    pub offsets: Uint32Array,
}

/// `RawPacked` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawPacked {
    pub q: RawPackedTokens,
    pub d: RawPackedTokens,
    pub pair_q_idx: Uint32Array,
    pub pair_d_idx: Uint32Array,
}

impl RawPacked {
    pub(crate) fn new(pairs: PackedPairs) -> Result<Self> {
        Ok(Self {
            q: RawPackedTokens::new(pairs.q, pairs.dim, pairs.cu_seqlens_q)?,
            d: RawPackedTokens::new(pairs.d, pairs.dim, pairs.cu_seqlens_d)?,
            pair_q_idx: array("pairQIdx", pairs.pair_q_idx)?,
            pair_d_idx: array("pairDIdx", pairs.pair_d_idx)?,
        })
    }
}

impl RawPackedTokens {
    fn new(data: DataBuf, dim: usize, offsets: Vec<u32>) -> Result<Self> {
        let dtype = data.dtype().name().into();
        let data = elements("data", data)?;
        Ok(Self { data, dtype, dim: dim as i64, offsets: array("offsets", offsets)? })
    }
}

/// `RawPlan` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawPlan {
    pub backend: String,
    pub kernel: String,
    pub choices: Vec<Vec<String>>,
    pub notes: Vec<String>,
    pub text: String,
}

impl From<Plan> for RawPlan {
    fn from(plan: Plan) -> Self {
        Self {
            text: plan.to_string(),
            backend: plan.backend.name().into(),
            kernel: plan.kernel,
            choices: plan.choices.into_iter().map(|(name, value)| vec![name.into(), value]).collect(),
            notes: plan.notes,
        }
    }
}
