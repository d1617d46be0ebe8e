//! Bytes of a file, mapped where the system can.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

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
    open_both(path).map(|(bytes, _)| bytes)
}

/// [`open`], with the file itself.
pub(crate) fn open_both(path: &Path) -> Result<(Bytes, File)> {
    let fail = |error: std::io::Error| Error::io(name(path), error);
    let mut file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_file() && metadata.len() > 0 {
        // SAFETY: the mapping is read-only and private to this process. What Rust cannot rule out is another process
        // writing to or truncating the file meanwhile: bytes may then change under a reader, which copies and validates
        // values as plain numbers (every bit pattern is one), or the system stops the process with a signal. Headers are
        // parsed out of an owned copy, so no check can be invalidated behind its back.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        return Ok((Bytes::Mapped(map), file));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(fail)?;
    Ok((Bytes::Owned(bytes), file))
}

/// A file whose parts are copied out as they are needed: pages of a map would stay with the process, those of a file that is larger
/// than memory too.
#[derive(Debug)]
pub(crate) enum Parts {
    /// A regular file. One reader at a time, since it has one position.
    File(Mutex<File>),
    /// What came out of a pipe.
    Owned(Vec<u8>),
}

impl Parts {
    /// The parts of what [`open_both`] opened.
    pub(crate) fn of(bytes: Bytes, file: File) -> Self {
        match bytes {
            Bytes::Mapped(_) => Self::File(Mutex::new(file)),
            Bytes::Owned(bytes) => Self::Owned(bytes),
        }
    }

    /// `length` bytes from `start` on; an error of kind `UnexpectedEof` if there are not as many.
    pub(crate) fn read(&self, start: usize, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        match self {
            Self::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(start as u64))?;
                file.read_exact(&mut bytes)?;
            }
            Self::Owned(all) => {
                let part = all.get(start..).and_then(|rest| rest.get(..length));
                bytes.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
            }
        }
        Ok(bytes)
    }
}
