//! Directories of fast-plaid and next-plaid, read and written.
//!
//! Both store `.npy` and `.json` files that differ in a few element types. [`Directory`] reads what any of their versions
//! wrote: chunk files (fast-plaid up to 1.6, next-plaid) or merged ones (fast-plaid from 1.7 on), tables in half or single
//! precision, data at any alignment. [`write()`] writes chunk files in the types both accept. Documents are numbered by their
//! position; there are no other ids.
//!
//! Not read: `ivf.npy` (inverted lists are made of the codes, of which they are a function; [`Directory::verify`] compares),
//! next-plaid's stored inverse norms (computed, so that stale ones do no harm), buffers of raw embeddings, and
//! `metadata.db`. Indexes of sign bits (`"binary": true`) and of ternary residuals are `ERR_UNSUPPORTED`, and so are
//! ColBERTv2's and PyLate's `.pt` files: they are Python pickles, for which no small, well-kept reader exists; load such an
//! index with PyLate and save its tensors as `.npy` under the names used here.

mod import;
mod read;
mod write;

pub use import::import;
pub use read::{Directory, Verdict};
pub use write::write;

/// Names of files that readers and writers agree on.
mod names {
    pub(super) const METADATA: &str = "metadata.json";
    pub(super) const PLAN: &str = "plan.json";
    pub(super) const CENTROIDS: &str = "centroids.npy";
    pub(super) const CUTOFFS: &str = "bucket_cutoffs.npy";
    pub(super) const WEIGHTS: &str = "bucket_weights.npy";
    pub(super) const AVG_RESIDUAL: &str = "avg_residual.npy";
    pub(super) const THRESHOLD: &str = "cluster_threshold.npy";
    pub(super) const IVF: &str = "ivf.npy";
    pub(super) const IVF_LENGTHS: &str = "ivf_lengths.npy";

    pub(super) fn doclens(chunk: usize) -> String {
        format!("doclens.{chunk}.json")
    }

    pub(super) fn chunk_metadata(chunk: usize) -> String {
        format!("{chunk}.metadata.json")
    }

    /// `what` is `codes` or `residuals`.
    pub(super) fn chunk(chunk: usize, what: &str) -> String {
        format!("{chunk}.{what}.npy")
    }

    /// As [`chunk`], for all of them.
    pub(super) fn merged(what: &str) -> String {
        format!("merged_{what}.npy")
    }
}
