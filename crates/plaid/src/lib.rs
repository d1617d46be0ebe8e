//! PLAID indexes: token vectors as a centroid plus a few bits per dimension, found through inverted lists.
//!
//! - [`IndexCodec`]: centroids and buckets, trained once per index; encodes tokens.
//! - [`Segment`], [`Bitmap`]: immutable documents, and sets of them.
//!
//! Santhanam et al., *ColBERTv2* (2022) and *PLAID* (2022).

mod codec;

pub use codec::{Centroids, CodecParts, Encoded, IndexCodec};
pub use maxsim_core::plaid::{Bitmap, Buffer, Segment, SegmentParts, SharedBytes};
