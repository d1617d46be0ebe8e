//! Results and failures as plain objects of `native.ts`.

use bytemuck::cast_slice;
use js_sys::{
    Array, Float32Array, Int8Array, Int32Array, Object, Reflect, Uint8Array, Uint16Array, Uint32Array,
};
use maxsim_core::{DataBuf, Error, Tensor};
use maxsim_js::{Detail, Failure};
use wasm_bindgen::JsValue;

/// What exported functions return: a plain object, or a `Failure`, thrown.
pub(crate) type Returned = Result<JsValue, JsValue>;

/// A plain object under construction.
pub(crate) struct Plain(Object);

impl Plain {
    pub(crate) fn new() -> Self {
        Self(Object::new())
    }

    pub(crate) fn with(self, name: &str, value: impl Into<JsValue>) -> Self {
        self.set(name, &value.into());
        self
    }

    /// Once for all types: every page downloads it.
    #[inline(never)]
    fn set(&self, name: &str, value: &JsValue) {
        // Setting a property of an object made here does not fail.
        let _ = Reflect::set(&self.0, &name.into(), value);
    }

    pub(crate) fn with_some<T>(self, name: &str, value: Option<T>, write: impl FnOnce(T) -> JsValue) -> Self {
        match value {
            Some(value) => self.with(name, write(value)),
            None => self,
        }
    }
}

impl From<Plain> for JsValue {
    fn from(plain: Plain) -> Self {
        plain.0.into()
    }
}

pub(crate) fn shape(extents: &[usize]) -> Array {
    extents.iter().map(|&n| JsValue::from(n as f64)).collect()
}

pub(crate) fn strings(texts: impl IntoIterator<Item = String>) -> Array {
    texts.into_iter().map(JsValue::from).collect()
}

/// Elements in the array that holds their type; f16 and bf16 as bits.
fn elements(data: &DataBuf) -> JsValue {
    match data {
        DataBuf::F32(values) => Float32Array::from(values.as_slice()).into(),
        DataBuf::F16(values) => Uint16Array::from(cast_slice::<_, u16>(values)).into(),
        DataBuf::BF16(values) => Uint16Array::from(cast_slice::<_, u16>(values)).into(),
        DataBuf::E4M3(values) => Uint8Array::from(cast_slice::<_, u8>(values)).into(),
        DataBuf::I8(values) => Int8Array::from(values.as_slice()).into(),
    }
}

/// `RawResult` of `native.ts`.
pub(crate) fn tensor(tensor: Tensor) -> JsValue {
    let extents = shape(tensor.shape());
    Plain::new()
        .with("dtype", tensor.dtype().name())
        .with("shape", extents)
        .with("data", elements(tensor.data()))
        .into()
}

/// `RawScores` of `native.ts`.
pub(crate) fn scores(raw: maxsim_js::RawScores) -> JsValue {
    Plain::new()
        .with("scores", Float32Array::from(raw.scores.as_slice()))
        .with("shape", shape(&raw.shape))
        .with_some("indices", raw.indices, |indices| Uint32Array::from(indices.as_slice()).into())
        .with_some("argmax", raw.argmax, |argmax| Int32Array::from(argmax.as_slice()).into())
        .with_some("argmaxShape", raw.argmax_shape, |extents| shape(&extents).into())
        .with_some("argmaxOffsets", raw.argmax_offsets, |offsets| {
            Uint32Array::from(offsets.as_slice()).into()
        })
        .into()
}

/// `RawGradients` of `native.ts`.
pub(crate) fn gradients(raw: maxsim_js::RawGradients) -> JsValue {
    Plain::new()
        .with_some("q", raw.q, tensor)
        .with_some("d", raw.d, tensor)
        .with_some("h", raw.h, tensor)
        .with_some("w", raw.w, tensor)
        .with_some("b", raw.b, tensor)
        .into()
}

/// `RawPacked` of `native.ts`.
pub(crate) fn packed(raw: maxsim_js::RawPacked) -> JsValue {
    let tokens = |raw: maxsim_js::RawPackedTokens| {
        Plain::new()
            .with("dtype", raw.data.dtype().name())
            .with("dim", raw.dim as f64)
            .with("offsets", Uint32Array::from(raw.offsets.as_slice()))
            .with("data", elements(&raw.data))
    };
    Plain::new()
        .with("q", tokens(raw.q))
        .with("d", tokens(raw.d))
        .with("pairQIdx", Uint32Array::from(raw.pair_q_idx.as_slice()))
        .with("pairDIdx", Uint32Array::from(raw.pair_d_idx.as_slice()))
        .into()
}

/// `Failure` of `native.ts`, to be thrown.
pub(crate) fn failure(error: Error) -> JsValue {
    let failure = Failure::from(error);
    let details = failure.details.into_iter().fold(Plain::new(), |details, (name, detail)| match detail {
        Detail::Text(text) => details.with(name, text),
        Detail::Number(number) => details.with(name, number),
    });
    Plain::new().with("code", failure.code).with("message", failure.message).with("details", details).into()
}

/// `RawResidualCodes` of `native.ts`.
pub(crate) fn residual_codes(encoded: maxsim_core::ResidualCodes) -> JsValue {
    Plain::new()
        .with("codes", Uint32Array::from(encoded.codes.as_slice()))
        .with("residuals", Uint8Array::from(encoded.residuals.as_slice()))
        .with("invNorms", Float32Array::from(encoded.inv_norms.as_slice()))
        .into()
}
