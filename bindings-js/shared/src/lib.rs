//! What `bindings-js/node` and `bindings-js/web` share: plain values become operators of `maxsim`, results and errors become
//! plain values.
//!
//! The types named `Raw…` are those of `bindings-js/api/src/binding/native.ts`; a binding only reads them from, or hands
//! them to, its JavaScript engine. Argument forms and option names were checked in TypeScript, values and how they fit each
//! other are checked by `maxsim`, whose errors are reworded here to name arguments as JavaScript does.

mod array;
mod calls;
#[cfg(feature = "encoder")]
mod encoder;
mod failure;
#[cfg(feature = "plaid")]
mod index;
mod input;
mod operation;
mod output;
mod residual;
mod warnings;

pub use array::{Elements, Held};
pub use calls::{
    RawCorpusOptions, RawQuantized, decode_residual, dequantize, encode_residual, encode_residual_async,
    pack, quantize, threads, upload, upload_residual,
};
#[cfg(feature = "encoder")]
pub use encoder::{RawEncoded, encode};
pub use failure::{Detail, Failure};
#[cfg(feature = "plaid")]
pub use index::{
    Batch, Chosen, OnFallback, OpenBuild, OpenIndex, OpenRemoteIndex, OpenWriter, RawBuildOptions,
    RawBuildState, RawHits, RawIds, RawIndexSearch, RawValue,
};
pub use input::{RawTensor, RawTokens};
pub use operation::{Arguments, Operation, RawBackward, RawOp, RawOptions, camel};
pub use output::{RawGradients, RawPacked, RawPackedTokens, RawScores, check_len};
pub use residual::{RawCodec, RawCodes, RawResidual};
pub use warnings::{collect_warnings, take_warnings};
