//! Quantisers and their inverses.

use napi::bindgen_prelude::{Float32Array, Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::engine::{NativeCancel, flag};
use crate::input::{RawResidual, RawTensor, held};
use crate::job::{Promised, promise};
use crate::output::RawResult;

/// `RawQuantized` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawQuantized {
    pub values: RawResult,
    pub scales: Float32Array,
}

/// `RawResidualCodes` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawResidualCodes {
    pub codes: Uint32Array,
    pub residuals: Uint8Array,
    pub inv_norms: Float32Array,
}

impl From<maxsim::ResidualCodes> for RawResidualCodes {
    fn from(encoded: maxsim::ResidualCodes) -> Self {
        Self {
            codes: encoded.codes.into(),
            residuals: encoded.residuals.into(),
            inv_norms: encoded.inv_norms.into(),
        }
    }
}

/// Quantises to `dtype`, `"fp8"` or `"int8"`, with a scale per `scale`, `"token"` or `"tensor"`.
#[napi(catch_unwind)]
pub fn quantize(
    x: RawTensor,
    dtype: String,
    scale: Option<String>,
    cancel: Option<&NativeCancel>,
) -> napi::Result<Promised<RawQuantized>> {
    let (x, cancel): (maxsim_js::RawTensor, _) = (x.try_into()?, flag(cancel));
    Ok(promise(move || {
        cancel.check()?;
        let quantized = maxsim_js::quantize(&x, &dtype, scale.as_deref())?;
        Ok(RawQuantized { values: quantized.values.into(), scales: quantized.scales.into() })
    }))
}

/// Values of a quantised array in f32.
#[napi(catch_unwind)]
pub fn dequantize(
    x: RawTensor,
    scales: Float32Array,
    cancel: Option<&NativeCancel>,
) -> napi::Result<Promised<RawResult>> {
    let (x, cancel): (maxsim_js::RawTensor, _) = (x.try_into()?, flag(cancel));
    let scales = held(scales);
    Ok(promise(move || {
        cancel.check()?;
        maxsim_js::dequantize(&x, &scales).map(Into::into)
    }))
}

/// Vectors of residual documents in f32: `[Nd, L, d]` padded, `[T, d]` packed.
#[napi(catch_unwind)]
pub fn decode_residual_documents(
    d: RawResidual,
    normalize: Option<bool>,
    cancel: Option<&NativeCancel>,
) -> napi::Result<Promised<RawResult>> {
    let (d, cancel): (maxsim_js::RawResidual, _) = (d.try_into()?, flag(cancel));
    Ok(promise(move || {
        cancel.check()?;
        maxsim_js::decode_residual(&d, normalize).map(Into::into)
    }))
}
