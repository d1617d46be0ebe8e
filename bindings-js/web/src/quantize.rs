//! Quantisers and their inverses, which need no engine.

use js_sys::Float32Array;
use maxsim_js::Held;
use wasm_bindgen::prelude::wasm_bindgen;

#[cfg(feature = "all")]
use crate::read::RawResidual;
use crate::read::RawTensor;
use crate::write::{Plain, Returned, failure, tensor};

/// Quantises to `dtype`, `"fp8"` or `"int8"`, with a scale per `scale`, `"token"` or `"tensor"`.
#[wasm_bindgen]
pub fn quantize(x: &RawTensor, dtype: &str, scale: Option<String>) -> Returned {
    let quantized =
        x.read().and_then(|x| maxsim_js::quantize(&x, dtype, scale.as_deref())).map_err(failure)?;
    let scales = Float32Array::from(quantized.scales.as_slice());
    Ok(Plain::new().with("values", tensor(quantized.values)).with("scales", scales).into())
}

/// Values of a quantised array in f32.
#[wasm_bindgen]
pub fn dequantize(x: &RawTensor, scales: Vec<f32>) -> Returned {
    let scales = Held::Copied(scales);
    x.read().and_then(|x| maxsim_js::dequantize(&x, &scales)).map(tensor).map_err(failure)
}

/// Vectors of residual documents in f32: `[Nd, L, d]` padded, `[T, d]` packed.
#[cfg(feature = "all")]
#[wasm_bindgen(js_name = decodeResidualDocuments)]
pub fn decode_residual_documents(d: &RawResidual, normalize: Option<bool>) -> Returned {
    d.read().and_then(|d| maxsim_js::decode_residual(&d, normalize)).map(tensor).map_err(failure)
}
