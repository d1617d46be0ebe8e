//! Results as JavaScript sees them: arrays of Rust, handed over without a copy.

use bytemuck::cast_vec;
use maxsim::{DataBuf, Plan, Tensor};
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

fn shape(extents: &[usize]) -> Vec<i64> {
    extents.iter().map(|&n| n as i64).collect()
}

impl From<maxsim_js::RawScores> for RawScores {
    fn from(raw: maxsim_js::RawScores) -> Self {
        Self {
            scores: raw.scores.into(),
            shape: shape(&raw.shape),
            indices: raw.indices.map(Into::into),
            argmax: raw.argmax.map(Into::into),
            argmax_shape: raw.argmax_shape.as_deref().map(shape),
            argmax_offsets: raw.argmax_offsets.map(Into::into),
        }
    }
}

type Elements = Either4<Float32Array, Uint16Array, Uint8Array, Int8Array>;

/// Elements in the array that holds their type; f16 and bf16 as bits.
fn elements(data: DataBuf) -> Elements {
    match data {
        DataBuf::F32(values) => Either4::A(values.into()),
        DataBuf::F16(values) => Either4::B(cast_vec::<_, u16>(values).into()),
        DataBuf::BF16(values) => Either4::B(cast_vec::<_, u16>(values).into()),
        DataBuf::E4M3(values) => Either4::C(cast_vec::<_, u8>(values).into()),
        DataBuf::I8(values) => Either4::D(values.into()),
    }
}

/// `RawResult` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawResult {
    pub data: Elements,
    pub dtype: String,
    pub shape: Vec<i64>,
}

impl From<Tensor> for RawResult {
    fn from(tensor: Tensor) -> Self {
        let (dtype, shape) = (tensor.dtype().name().into(), shape(tensor.shape()));
        Self { data: elements(tensor.into_data()), dtype, shape }
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

impl From<maxsim_js::RawGradients> for RawGradients {
    fn from(raw: maxsim_js::RawGradients) -> Self {
        let result = |gradient: Option<Tensor>| gradient.map(RawResult::from);
        Self { q: result(raw.q), d: result(raw.d), h: result(raw.h), w: result(raw.w), b: result(raw.b) }
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

impl From<maxsim_js::RawPackedTokens> for RawPackedTokens {
    fn from(raw: maxsim_js::RawPackedTokens) -> Self {
        let dtype = raw.data.dtype().name().into();
        Self { data: elements(raw.data), dtype, dim: raw.dim as i64, offsets: raw.offsets.into() }
    }
}

/// `RawPacked` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawPacked {
    pub q: RawPackedTokens,
    pub d: RawPackedTokens,
    pub pair_q_idx: Uint32Array,
    pub pair_d_idx: Uint32Array,
}

impl From<maxsim_js::RawPacked> for RawPacked {
    fn from(raw: maxsim_js::RawPacked) -> Self {
        Self {
            q: raw.q.into(),
            d: raw.d.into(),
            pair_q_idx: raw.pair_q_idx.into(),
            pair_d_idx: raw.pair_d_idx.into(),
        }
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
