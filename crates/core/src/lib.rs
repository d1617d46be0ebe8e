//! Core of `maxsim`: what late-interaction scoring means, independent of what computes it.
//!
//! - [`DType`], [`Tokens`]: element types and batches of token sequences (padded or packed, masked, with lengths).
//! - [`Op`] and its structs ([`Forward`], [`Retrieve`]): operators as values that validate themselves and know their cost.
//! - [`oracle`]: the float64 reference every backend is compared with.
//! - [`Backend`], [`Engine`], [`Corpus`]: who computes, who chooses, and documents held by a device.
//! - [`Error`]: one error type with stable codes.

mod backend;
mod dtype;
mod engine;
mod error;
mod ints;
mod op;
pub mod oracle;
mod sequences;
mod tokens;

pub use backend::{
    Backend, BackendInfo, BackendKind, BoxFuture, Cancel, MaybeSendSync, Plan, Resident, ResidentMeta,
    Submission,
};
pub use dtype::{DType, DataBuf, DataRef, E4M3, Element, bf16, f16};
pub use engine::{Corpus, CorpusOptions, Engine, SearchOptions};
pub use error::{Argument, Error, ErrorCode, Result};
pub use ints::{Integers, MAX_TOKENS};
pub use op::{
    Argmax, Cost, Documents, Forward, Op, Options, Output, PackedPairs, Pairing, Precision, Retrieve,
    RetrieveOptions, Scores, TopK, pack_padded,
};
pub use sequences::{Axes, Mask, Sequences};
pub use tokens::{Scales, Tokens, TokensBuf};
