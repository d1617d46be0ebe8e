//! Bytes that are read by range: over HTTP, from a browser's file system.

use std::ops::Range;
use std::sync::Arc;

use maxsim_core::{BoxFuture, Error, MaybeSendSync, Result};

use super::storage::Bytes;

/// A file that is read in pieces. Implementations need not know the format: what is read is checked by its reader.
pub trait Source: MaybeSendSync {
    /// How errors name the file, e.g. its URL.
    fn name(&self) -> &str;

    /// Length of the file in bytes.
    fn size(&self) -> u64;

    /// The bytes of `range`, all of them.
    ///
    /// # Errors
    /// `ERR_IO` if they cannot be had.
    fn read(&self, range: Range<u64>) -> BoxFuture<Result<Vec<u8>>>;
}

/// A part of a file.
#[derive(Clone)]
pub(crate) struct PartSource {
    file: Arc<dyn Source>,
    name: String,
    range: Range<u64>,
}

impl PartSource {
    /// `range` of `file`, which holds a file of this name.
    pub(crate) fn new(file: Arc<dyn Source>, name: &str, range: Range<u64>) -> Self {
        let name = format!("{}/{name}", file.name());
        Self { file, name, range }
    }
}

impl Source for PartSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<Result<Vec<u8>>> {
        self.file.read(self.range.start + range.start..self.range.start + range.end)
    }
}

impl Source for Arc<dyn Source> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<Result<Vec<u8>>> {
        (**self).read(range)
    }
}

/// A file in memory as a [`Source`].
pub struct MemorySource {
    name: String,
    bytes: Bytes,
}

impl MemorySource {
    /// `bytes` under the name `name`.
    pub fn new(name: impl Into<String>, bytes: Bytes) -> Self {
        Self { name: name.into(), bytes }
    }
}

impl Source for MemorySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        (*self.bytes).as_ref().len() as u64
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<Result<Vec<u8>>> {
        let bytes = (*self.bytes).as_ref();
        let within = || Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?);
        let found = within().and_then(|range| bytes.get(range)).map(<[u8]>::to_vec).ok_or_else(|| {
            Error::io(&self.name, format!("bytes {}..{} of {}", range.start, range.end, bytes.len()))
        });
        Box::pin(std::future::ready(found))
    }
}
