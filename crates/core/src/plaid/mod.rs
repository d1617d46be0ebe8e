//! What a PLAID index is made of: immutable [`Segment`]s of documents with their inverted lists, and [`Bitmap`]s of documents.
//!
//! How an index is trained, kept and changed is `maxsim-plaid`'s matter; here is what [`PlaidSearch`](crate::PlaidSearch)
//! reads, on any backend.

mod bitmap;
mod buffer;
mod lists;
mod segment;

pub use bitmap::Bitmap;
pub use buffer::{Buffer, SharedBytes};
pub use lists::List;
pub use segment::{Segment, SegmentParts};
