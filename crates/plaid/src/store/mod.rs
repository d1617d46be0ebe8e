//! Where an index lives: checksummed container files, the manifest that names them, and what keeps them (a directory,
//! memory).
//!
//! `docs/index-format.md` describes every byte.

pub(crate) mod checksum;
pub(crate) mod container;
mod deferred;
#[cfg(not(target_arch = "wasm32"))]
mod directory;
pub(crate) mod files;
pub(crate) mod manifest;
mod memory;
pub(crate) mod pack;
pub(crate) mod source;
mod storage;
pub(crate) mod wire;

pub use deferred::{Change, DeferredStorage};
#[cfg(not(target_arch = "wasm32"))]
pub use directory::DirectoryStorage;
pub use files::Verify;
pub use memory::MemoryStorage;
pub use pack::{PackStorage, fetch, pack};
pub use source::{MemorySource, Source};
pub use storage::{Aligned, Bytes, Guard, Sink, Storage, shared};

use maxsim_core::Error;

/// `ERR_CORRUPT` about a file.
pub(crate) fn corrupt(what: &str, problem: impl Into<String>) -> Error {
    Error::Corrupt { what: what.to_owned(), problem: problem.into() }
}
