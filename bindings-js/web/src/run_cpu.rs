//! How calls run on the CPU: they are done when they return.

#[cfg(feature = "all")]
use maxsim_core::Engine;
use maxsim_core::{Output, Result, Submission};
use maxsim_js::Arguments;
#[cfg(feature = "all")]
use maxsim_js::{RawCodec, RawTensor};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::engine::WasmEngine;
use crate::read::RawEngineOptions;
#[cfg(feature = "all")]
use crate::write;
use crate::write::{Returned, failure};

/// Sets an engine up.
#[wasm_bindgen(js_name = createEngine)]
pub fn create_engine(options: &RawEngineOptions) -> Result<WasmEngine, JsValue> {
    crate::cpu::engine(options).map(|engine| WasmEngine::new(engine, options)).map_err(failure)
}

/// The result of what was submitted.
pub(crate) fn finish(
    submission: Submission,
    arguments: Arguments,
    write: fn(Output) -> Result<JsValue>,
) -> Returned {
    submission.wait().map_err(|error| arguments.rename(error)).and_then(write).map_err(failure)
}

/// Codes and residuals of vectors.
#[cfg(feature = "all")]
pub(crate) fn encode_residual(engine: Engine, x: RawTensor, codec: RawCodec, cutoffs: Vec<f32>) -> Returned {
    maxsim_js::encode_residual(&engine, &x, &codec, &cutoffs).map(write::residual_codes).map_err(failure)
}
