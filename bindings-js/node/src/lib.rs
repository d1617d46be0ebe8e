//! Node binding: from JavaScript values to `maxsim` and back, computing off the event loop.
//!
//! What users see is written in TypeScript (`bindings-js/api`); this crate implements its `binding/native.ts`, by
//! `bindings-js/shared`, as `bindings-js/web` does.

#![allow(unreachable_pub, reason = "what `#[napi]` exports is `pub`, and reached from JavaScript only")]

mod corpus;
mod encoder;
mod engine;
mod failure;
mod index;
mod input;
mod job;
mod output;
mod quantize;
mod warnings;

use napi_derive::napi;

/// Version of maxsim.
#[napi]
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Inputs of at least so many bytes are read in place while a call runs; smaller ones cost less to copy than to pin.
#[napi]
pub const HOLD_BYTES: u32 = 64 << 10;
