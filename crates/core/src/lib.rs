//! Core of `maxsim`: what late-interaction scoring means, independent of what computes it.
//!
//! - [`DType`], [`Tokens`]: element types and batches of token sequences (padded or packed, masked, with lengths).
//! - [`Op`] and its structs ([`Forward`], [`Retrieve`]): operators as values that validate themselves and know their cost.
//! - [`plaid`]: segments of an index and sets of documents.
//! - [`oracle`]: the float64 reference every backend is compared with.
//! - [`Backend`], [`Engine`], [`Corpus`]: who computes, who chooses, and documents held by a device.
//! - [`Error`]: one error type with stable codes.

#![cfg_attr(
    target_arch = "wasm32",
    allow(clippy::arc_with_non_send_sync, reason = "`MaybeSendSync` asks for both where threads exist")
)]

mod backend;
mod dtype;
mod engine;
mod error;
mod ints;
mod op;
pub mod oracle;
pub mod plaid;
mod sequences;
mod tensor;
mod tokens;

pub use backend::{
    Backend, BackendInfo, BackendKind, BoxFuture, Cancel, IndexMeta, MaybeSendSync, Plan, Resident,
    ResidentIndex, ResidentMeta, Submission,
};
pub use dtype::{DType, DataBuf, DataRef, E4M3, Element, bf16, f16};
pub use engine::{Corpus, CorpusOptions, Engine, SearchOptions, normalize};
pub use error::{Argument, Error, ErrorCode, Result, not_finite};
pub use ints::{Integers, MAX_TOKENS};
pub use op::{
    ApproxScore, Argmax, Backward, BackwardMethod, Codec, Cost, Documents, Forward, FromHidden,
    FromHiddenBackward, Gradients, HeadGradients, Hit, Op, Options, Output, PackedPairs, Pairing, PlaidHits,
    PlaidIndex, PlaidOptions, PlaidSearch, Precision, Quantized, Residual, ResidualBuf, ResidualCodes,
    ResidualLayout, Retrieve, RetrieveOptions, ScaleMode, Scores, TopK, decode_residual, dequantize,
    pack_padded, pack_residuals, quantize_fp8, quantize_int8,
};
pub use sequences::{Axes, Mask, Sequences};
pub use tensor::{Tensor, TensorRef};
pub use tokens::{Scales, Tokens, TokensBuf};
