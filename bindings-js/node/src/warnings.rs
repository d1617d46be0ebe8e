//! One-time warnings of the engine.

use napi_derive::napi;

/// Warnings since the last call.
#[napi(catch_unwind)]
pub fn take_warnings() -> Vec<String> {
    maxsim_js::take_warnings()
}
