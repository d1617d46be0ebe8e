//! Bytes of a file, mapped where the system can.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use maxsim_core::{Error, Result};
use memmap2::Mmap;

/// The contents of a file, or bytes someone brought.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Name of a file in errors.
pub(crate) fn name(path: &Path) -> String {
    path.display().to_string()
}

/// Maps a regular file; reads anything else (pipes) to its end.
pub(crate) fn open(path: &Path) -> Result<Bytes> {
    let fail = |error: std::io::Error| Error::io(name(path), error);
    let mut file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_file() && metadata.len() > 0 {
        // SAFETY: the mapping is read-only and private to this process. What Rust cannot rule out is another process
        // writing to or truncating the file meanwhile: bytes may then change under a reader, which copies and validates
        // values as plain numbers (every bit pattern is one), or the system stops the process with a signal. Headers are
        // parsed out of an owned copy, so no check can be invalidated behind its back.
        return Ok(Bytes::Mapped(unsafe { Mmap::map(&file) }.map_err(fail)?));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(fail)?;
    Ok(Bytes::Owned(bytes))
}
