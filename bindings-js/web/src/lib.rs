//! Browser binding: from JavaScript values to `maxsim` and back.
//!
//! What users see is written in TypeScript (`bindings-js/api`), and so is what moves calls to a worker (`lib/`). This crate
//! implements what `lib/module.ts` describes, by `bindings-js/shared`, as `bindings-js/node` does. Results that fail throw
//! a `Failure` of `native.ts`.
//!
//! The crate is compiled once per feature into a module of its own.

#![cfg(target_arch = "wasm32")]
#![allow(
    unreachable_pub,
    reason = "what `#[wasm_bindgen]` exports is `pub`, and reached from JavaScript only"
)]
#![allow(clippy::arc_with_non_send_sync, reason = "what `maxsim-core` and `maxsim-plaid` take")]

mod alloc;
#[cfg(feature = "plaid-all")]
mod changes;
#[cfg(any(feature = "cpu", feature = "plaid"))]
mod cpu;
#[cfg(feature = "encoder")]
mod encoder;
#[cfg(any(feature = "cpu", feature = "gpu"))]
mod engine;
#[cfg(any(feature = "gpu", feature = "plaid-gpu"))]
mod gpu;
#[cfg(feature = "index")]
mod plaid;
#[cfg(feature = "cpu")]
mod quantize;
#[cfg_attr(not(feature = "all"), allow(dead_code, reason = "some of it is for engines"))]
mod read;
#[cfg(feature = "plaid-all")]
mod remote;
#[cfg(all(feature = "cpu", not(feature = "gpu")))]
#[path = "run_cpu.rs"]
mod run;
#[cfg(feature = "gpu")]
#[path = "run_gpu.rs"]
mod run;
#[cfg_attr(not(feature = "all"), allow(dead_code, reason = "some of it is for engines"))]
mod write;

use wasm_bindgen::prelude::wasm_bindgen;

/// Called when the module is instantiated.
#[wasm_bindgen(start)]
fn start() {
    // A panic would be a trap without a word. Thrown, it is an exception whose message says what happened.
    std::panic::set_hook(Box::new(|info| wasm_bindgen::throw_str(&info.to_string())));
    maxsim_js::collect_warnings();
}

/// Version of maxsim.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// One-time warnings since the last call.
#[wasm_bindgen(js_name = takeWarnings)]
pub fn take_warnings() -> Vec<String> {
    maxsim_js::take_warnings()
}
