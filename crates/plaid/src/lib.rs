//! PLAID indexes: token vectors as a centroid plus a few bits per dimension, found through inverted lists.
//!
//! - [`IndexCodec`]: centroids and buckets, trained once per index; encodes tokens.
//! - `exchange`: directories of fast-plaid and next-plaid (feature `exchange`).
//! - [`Sample`], [`train`]: a codec from a sample of tokens.
//! - [`Searched`]: a search, in short.
//! - [`Segment`], [`Bitmap`]: immutable documents, and sets of them.
//!
//! Santhanam et al., *ColBERTv2* (2022) and *PLAID* (2022).

mod codec;
#[cfg(feature = "exchange")]
pub mod exchange;
mod search;
mod train;

pub use codec::{Centroids, CodecParts, Encoded, IndexCodec};
pub use maxsim_core::plaid::{Bitmap, Buffer, Segment, SegmentParts, SharedBytes};
pub use search::Searched;
pub use train::{MAX_SAMPLE, Sample, TrainOptions, centroids_for, train};
