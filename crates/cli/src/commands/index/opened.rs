//! An index of whatever format.

use std::path::Path;

use maxsim::plaid::exchange::Directory;
use maxsim::plaid::{IndexCodec, Segment};

/// Tokens of a segment that is read from a foreign directory.
pub(super) const SEGMENT: usize = 1 << 24;

/// An index in memory.
pub(super) struct Opened {
    /// What programs call its format.
    pub(super) format: &'static str,
    /// Its codec.
    pub(super) codec: IndexCodec,
    /// Its documents.
    pub(super) segments: Vec<Segment>,
}

impl Opened {
    /// Reads the index in a directory.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let directory = Directory::open(path)?;
        let segments = directory.segments(SEGMENT).collect::<maxsim::Result<_>>()?;
        Ok(Self { format: directory.written_by(), codec: directory.codec().clone(), segments })
    }

    /// Number of documents.
    pub(super) fn documents(&self) -> usize {
        self.segments.iter().map(Segment::documents).sum()
    }

    /// Number of tokens.
    pub(super) fn tokens(&self) -> usize {
        self.segments.iter().map(Segment::tokens).sum()
    }
}
