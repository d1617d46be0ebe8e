//! Operands and operators from JavaScript. Conversions fail only on what TypeScript does not let through.

use maxsim_js::{Elements, Held};
use napi::bindgen_prelude::{Float32Array, Int32Array, Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::HOLD_BYTES;

/// `RawTokens` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawTokens {
    pub name: String,
    pub data: Uint8Array,
    pub dtype: String,
    pub shape: Option<Vec<i64>>,
    pub dim: Option<i64>,
    pub offsets: Option<Uint32Array>,
    pub mask: Option<Uint8Array>,
    pub lengths: Option<Uint32Array>,
    pub scales: Option<Float32Array>,
}

/// `RawTensor` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawTensor {
    pub name: String,
    pub data: Uint8Array,
    pub dtype: String,
    pub shape: Vec<i64>,
}

/// `RawCodes` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawCodes {
    pub name: String,
    pub codes: Uint32Array,
    pub lengths: Option<Uint32Array>,
    pub offsets: Option<Uint32Array>,
}

/// `RawCodec` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawCodec {
    pub name: String,
    pub centroids: RawTensor,
    pub bucket_weights: Float32Array,
    pub nbits: i64,
    pub layout: String,
}

/// `RawResidual` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawResidual {
    pub codes: RawCodes,
    pub residuals: Uint8Array,
    pub codec: RawCodec,
    pub inv_norms: Option<RawTensor>,
}

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

/// An array of JavaScript: copied if small, else referenced, and then read in place.
pub(crate) fn held<A, T>(array: A) -> Held<T>
where
    A: AsRef<[T]> + Send + 'static,
    T: Copy,
{
    let slice = array.as_ref();
    if size_of_val(slice) < HOLD_BYTES as usize {
        Held::Copied(slice.to_vec())
    } else {
        Held::InPlace(Box::new(array))
    }
}

fn elements(bytes: Uint8Array, dtype: &str) -> napi::Result<Elements> {
    let dtype = dtype.parse().map_err(|_| unexpected("dtype"))?;
    let elements = if bytes.len() < HOLD_BYTES as usize {
        Elements::copied(dtype, bytes.len(), |to| to.copy_from_slice(&bytes))
    } else {
        Elements::in_place(dtype, bytes)
    };
    elements.map_err(|error| napi::Error::from_reason(error.to_string()))
}

/// What only a defect of the TypeScript part can cause.
fn unexpected(what: &str) -> napi::Error {
    napi::Error::new(napi::Status::InvalidArg, what)
}

fn extent(n: i64) -> napi::Result<usize> {
    usize::try_from(n).map_err(|_| unexpected("shape"))
}

fn extents(shape: Vec<i64>) -> napi::Result<Vec<usize>> {
    shape.into_iter().map(extent).collect()
}

/// `convert` of what is there.
fn optional<T, U>(value: Option<T>) -> napi::Result<Option<U>>
where
    U: TryFrom<T, Error = napi::Error>,
{
    value.map(U::try_from).transpose()
}

impl TryFrom<RawTensor> for maxsim_js::RawTensor {
    type Error = napi::Error;

    fn try_from(raw: RawTensor) -> napi::Result<Self> {
        Ok(Self { name: raw.name, data: elements(raw.data, &raw.dtype)?, shape: extents(raw.shape)? })
    }
}

impl TryFrom<RawTokens> for maxsim_js::RawTokens {
    type Error = napi::Error;

    fn try_from(raw: RawTokens) -> napi::Result<Self> {
        Ok(Self {
            name: raw.name,
            data: elements(raw.data, &raw.dtype)?,
            shape: raw.shape.map(extents).transpose()?,
            dim: raw.dim.map(extent).transpose()?,
            offsets: raw.offsets.map(held),
            mask: raw.mask.map(held),
            lengths: raw.lengths.map(held),
            scales: raw.scales.map(held),
        })
    }
}

impl From<RawCodes> for maxsim_js::RawCodes {
    fn from(raw: RawCodes) -> Self {
        Self {
            name: raw.name,
            codes: held(raw.codes),
            lengths: raw.lengths.map(held),
            offsets: raw.offsets.map(held),
        }
    }
}

impl TryFrom<RawCodec> for maxsim_js::RawCodec {
    type Error = napi::Error;

    fn try_from(raw: RawCodec) -> napi::Result<Self> {
        Ok(Self {
            name: raw.name,
            centroids: raw.centroids.try_into()?,
            bucket_weights: held(raw.bucket_weights),
            // Whether there are residuals of so many bits is for the core to say.
            nbits: u32::try_from(raw.nbits).unwrap_or(u32::MAX),
            layout: raw.layout,
        })
    }
}

impl TryFrom<RawResidual> for maxsim_js::RawResidual {
    type Error = napi::Error;

    fn try_from(raw: RawResidual) -> napi::Result<Self> {
        Ok(Self {
            codes: raw.codes.into(),
            residuals: held(raw.residuals),
            codec: raw.codec.try_into()?,
            inv_norms: optional(raw.inv_norms)?,
        })
    }
}

impl From<RawOptions> for maxsim_js::RawOptions {
    fn from(raw: RawOptions) -> Self {
        let count = |n: i64| usize::try_from(n).unwrap_or(0);
        Self {
            normalize: raw.normalize,
            argmax: raw.argmax,
            precision: raw.precision,
            validate_finite: raw.validate_finite,
            top_k: raw.top_k.map(count),
            chunk: raw.chunk.map(count),
            largest: raw.largest,
            sorted: raw.sorted,
        }
    }
}

impl From<RawBackward> for maxsim_js::RawBackward {
    fn from(raw: RawBackward) -> Self {
        Self {
            grad_scores: held(raw.grad_scores),
            argmax: raw.argmax.map(held),
            method: raw.method,
            wants: raw.wants,
        }
    }
}

impl TryFrom<RawOp> for maxsim_js::RawOp {
    type Error = napi::Error;

    fn try_from(raw: RawOp) -> napi::Result<Self> {
        Ok(Self {
            op: raw.op,
            q: optional(raw.q)?,
            d: optional(raw.d)?,
            residual: optional(raw.residual)?,
            pair_q_idx: raw.pair_q_idx.map(held),
            pair_d_idx: raw.pair_d_idx.map(held),
            h: optional(raw.h)?,
            w: optional(raw.w)?,
            b: optional(raw.b)?,
            table: optional(raw.table)?,
            codes: raw.codes.map(Into::into),
            backward: raw.backward.map(Into::into),
            options: raw.options.into(),
        })
    }
}
