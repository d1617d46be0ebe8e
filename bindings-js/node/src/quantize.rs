//! Quantisers and their inverses.

use maxsim::{Error, Quantized, Result, ScaleMode, Scales, decode_residual, quantize_fp8, quantize_int8};
use napi::bindgen_prelude::{Float32Array, Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::engine::{NativeCancel, flag};
use crate::input::{Held, HeldTensor, RawTensor};
use crate::job::{Promised, promise};
use crate::output::{RawResult, array, check_len};
use crate::residual::{HeldResidual, RawResidual};

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

impl RawResidualCodes {
    pub(crate) fn new(encoded: maxsim::ResidualCodes) -> Result<Self> {
        Ok(Self {
            codes: array("codes", encoded.codes)?,
            residuals: array("residuals", encoded.residuals)?,
            inv_norms: array("invNorms", encoded.inv_norms)?,
        })
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
    let (x, cancel): (HeldTensor, _) = (x.try_into()?, flag(cancel));
    Ok(promise(move || {
        cancel.check()?;
        let mode = scale.as_deref().map_or(Ok(ScaleMode::default()), str::parse)?;
        let to = match dtype.as_str() {
            "fp8" => quantize_fp8,
            "int8" => quantize_int8,
            other => return Err(Error::value("dtype", "fp8 or int8", format!("{other:?}"))),
        };
        let Quantized { values, scales, .. } = to(&x.tensor()?, mode)?;
        Ok(RawQuantized { values: RawResult::new("data", values)?, scales: array("scales", scales)? })
    }))
}

/// Values of a quantised array in f32.
#[napi(catch_unwind)]
pub fn dequantize(
    x: RawTensor,
    scales: Float32Array,
    cancel: Option<&NativeCancel>,
) -> napi::Result<Promised<RawResult>> {
    let (x, cancel): (HeldTensor, _) = (x.try_into()?, flag(cancel));
    let scales: Held<Float32Array, f32> = scales.into();
    Ok(promise(move || {
        cancel.check()?;
        let tensor = x.tensor()?;
        check_len::<f32>("x", tensor.data().len())?;
        let scales = match scales.as_ref() {
            [one] => Scales::PerTensor(*one),
            many => Scales::PerToken(many),
        };
        let values = maxsim::dequantize(&tensor, scales).map_err(|error| {
            error.map_argument(|argument| match argument {
                "scales" => "x.scales".into(),
                other => other.to_owned().into(),
            })
        })?;
        RawResult::new("data", values)
    }))
}

/// Vectors of residual documents in f32: `[Nd, L, d]` padded, `[T, d]` packed.
#[napi(catch_unwind)]
pub fn decode_residual_documents(
    d: RawResidual,
    normalize: Option<bool>,
    cancel: Option<&NativeCancel>,
) -> napi::Result<Promised<RawResult>> {
    let (d, cancel): (HeldResidual, _) = (d.try_into()?, flag(cancel));
    Ok(promise(move || {
        cancel.check()?;
        let documents = d.documents()?;
        let (slots, dim) = (documents.sequences().slots(), documents.codec().dim());
        check_len::<f32>("d", slots.saturating_mul(dim))?;
        let vectors = decode_residual(&documents, normalize.unwrap_or(true));
        let shape = [documents.sequences().shape(), vec![dim]].concat();
        RawResult::new("data", maxsim::Tensor::new(vectors.into_data(), shape)?)
    }))
}
