//! How calls run on a GPU: they return a Promise.

#[cfg(feature = "gpu-all")]
use maxsim_core::Engine;
use maxsim_core::{Output, Result, Submission};
use maxsim_js::Arguments;
#[cfg(feature = "gpu-all")]
use maxsim_js::{RawCodec, RawTensor};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use crate::engine::WasmEngine;
use crate::read::RawEngineOptions;
#[cfg(feature = "gpu-all")]
use crate::write;
use crate::write::{Returned, failure};

/// Sets an engine up.
#[wasm_bindgen(js_name = createEngine)]
pub async fn create_engine(options: RawEngineOptions) -> Result<WasmEngine, JsValue> {
    let engine = crate::gpu::engine(&options).await.map_err(failure)?;
    Ok(WasmEngine::new(engine, &options))
}

/// A Promise of the result of what was submitted.
pub(crate) fn finish(
    submission: Submission,
    arguments: Arguments,
    write: fn(Output) -> Result<JsValue>,
) -> Returned {
    let result = async move {
        submission.await.map_err(|error| arguments.rename(error)).and_then(write).map_err(failure)
    };
    Ok(future_to_promise(result).into())
}

/// A Promise of codes and residuals of vectors.
#[cfg(feature = "gpu-all")]
pub(crate) fn encode_residual(engine: Engine, x: RawTensor, codec: RawCodec, cutoffs: Vec<f32>) -> Returned {
    let result = async move {
        let codes = maxsim_js::encode_residual_async(&engine, &x, &codec, &cutoffs).await;
        codes.map(write::residual_codes).map_err(failure)
    };
    Ok(future_to_promise(result).into())
}
