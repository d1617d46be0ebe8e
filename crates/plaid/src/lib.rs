//! PLAID indexes: token vectors as a centroid plus a few bits per dimension, found through inverted lists.
//!
//! - [`IndexCodec`]: centroids and buckets, trained once per index; encodes tokens.
//! - `exchange`: directories of fast-plaid and next-plaid (feature `exchange`).
//! - [`Sample`], [`train`]: a codec from a sample of tokens.
//! - [`Searched`]: a search, in short.
//! - [`build`]: an index of any size from documents that are gone through twice, in bounded memory.
//! - [`Index`], [`IndexWriter`]: an index that is kept: opened, searched, added to, deleted from, compacted.
//! - [`RemoteIndex`]: an index of which is read only what searches need.
//! - [`store`]: where an index is kept: a directory, memory, one file.
//! - [`EncoderRecord`]: what made the vectors of its texts.
//! - [`Filter`]: expressions over documents' metadata.
//! - [`Segment`], [`Bitmap`]: immutable documents, and sets of them.
//!
//! Santhanam et al., *ColBERTv2* (2022) and *PLAID* (2022).

#![cfg_attr(
    target_arch = "wasm32",
    allow(clippy::arc_with_non_send_sync, reason = "`MaybeSendSync` asks for both where threads exist")
)]

mod build;
mod codec;
mod encoder;
#[cfg(feature = "exchange")]
pub mod exchange;
mod ids;
mod index;
mod metadata;
mod number;
mod parallel;
mod remote;
mod search;
pub mod store;
mod times;
mod train;
mod writer;

pub use build::{Batch, BuildOptions, Builder, DocumentSource, Progress, build, build_timed};
pub use codec::{Centroids, CodecParts, Encoded, IndexCodec};
pub use encoder::EncoderRecord;
pub use ids::{DocumentId, IdKind};
pub use index::{Index, IndexInfo, SearchHit, Selection};
pub use maxsim_core::plaid::{Bitmap, Buffer, Segment, SegmentParts, SharedBytes};
pub use metadata::{ColumnType, Columns, Filter, Row, Value};
pub use remote::RemoteIndex;
pub use search::Searched;
pub use times::BuildTimes;
pub use train::{MAX_SAMPLE, Sample, TrainOptions, centroids_for, train};
pub use writer::{CreateOptions, IndexWriter, SEGMENT_BYTES};
