//! An immutable set of documents of an index.

use super::Buffer;
use super::lists::{self, List};
use crate::dtype::f16;
use crate::error::{Error, Result};
use crate::ints::MAX_TOKENS;
use crate::op::{Codec, Residual};
use crate::sequences::{Sequences, check_offsets};

/// Documents as codes and packed residuals, with the inverted lists that find them.
///
/// Numbers of documents are local to the segment. Everything was checked when it was made.
#[derive(Debug, Clone)]
pub struct Segment {
    parts: SegmentParts,
    centroids: usize,
    residual_bytes: usize,
}

/// The arrays a [`Segment`] is made of, for `N` documents of `T` tokens and `K` centroids.
#[derive(Debug, Clone)]
pub struct SegmentParts {
    /// `[N + 1]`: tokens of document `i` are `offsets[i]..offsets[i + 1]`.
    pub offsets: Buffer<u32>,
    /// `[T]`: centroid of every token.
    pub codes: Buffer<u32>,
    /// `[T, ⌈d·nbits/8⌉]`: packed residuals.
    pub residuals: Buffer<u8>,
    /// `[T]`: `1 / max(‖centroid + weights‖, 1e-6)` of every token.
    pub inv_norms: Buffer<f16>,
    /// `[K + 1]`: the list of centroid `c` is bytes `list_offsets[c]..list_offsets[c + 1]`.
    pub list_offsets: Buffer<u32>,
    /// Per list the documents with a token in the cell, each once, ascending, as [`List`] has them.
    pub list_entries: Buffer<u8>,
}

impl Segment {
    /// Checks the arrays against each other: `O(T)`, so that reading needs no checks. `centroids` and `residual_bytes` are
    /// the codec's.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_INDEX` or `ERR_LIMIT` naming the array, where arrays do not fit each other.
    pub fn new(parts: SegmentParts, centroids: usize, residual_bytes: usize) -> Result<Self> {
        let residuals = parts.codes.len().saturating_mul(residual_bytes);
        Self::checked(parts, centroids, residual_bytes, residuals)
    }

    /// A segment whose residuals are elsewhere (`parts.residuals` is empty): candidates are found in it, nothing is scored.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn without_residuals(parts: SegmentParts, centroids: usize, residual_bytes: usize) -> Result<Self> {
        Self::checked(parts, centroids, residual_bytes, 0)
    }

    fn checked(
        parts: SegmentParts,
        centroids: usize,
        residual_bytes: usize,
        residuals: usize,
    ) -> Result<Self> {
        let tokens = parts.codes.len();
        if tokens >= MAX_TOKENS {
            return Err(Error::Limit {
                argument: "codes".into(),
                limit: format!("{} tokens per segment", MAX_TOKENS - 1),
                got: tokens.to_string(),
            });
        }
        check_offsets(&parts.offsets, tokens, "offsets")?;
        let count = |argument: &'static str, expected: usize, got: usize| {
            if expected == got {
                return Ok(());
            }
            Err(Error::shape(argument, format!("{expected} entries"), format!("{got} entries")))
        };
        count("residuals", residuals, parts.residuals.len())?;
        count("inv_norms", tokens, parts.inv_norms.len())?;
        count("list_offsets", centroids + 1, parts.list_offsets.len())?;
        check_offsets(&parts.list_offsets, parts.list_entries.len(), "list_offsets")?;
        if let Some(at) = parts.codes.iter().position(|&code| code as usize >= centroids) {
            let expected = format!("below {centroids} centroids");
            return Err(Error::index("codes", at, expected, parts.codes[at].to_string()));
        }
        let documents = parts.offsets.len() - 1;
        lists::check(&parts.list_offsets, &parts.list_entries, documents)?;
        Ok(Self { parts, centroids, residual_bytes })
    }

    /// A segment whose inverted lists are made here, from the codes.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn build(
        offsets: Vec<u32>,
        codes: Vec<u32>,
        residuals: Vec<u8>,
        inv_norms: Vec<f16>,
        codec: &Codec<'_>,
    ) -> Result<Self> {
        // Checked first: lists cannot be made of codes that are no centroids.
        let empty = SegmentParts {
            offsets: offsets.into(),
            codes: codes.into(),
            residuals: residuals.into(),
            inv_norms: inv_norms.into(),
            list_offsets: vec![0; codec.count() + 1].into(),
            list_entries: Vec::new().into(),
        };
        let checked = Self::new(empty, codec.count(), codec.residual_bytes())?;
        let (list_offsets, list_entries) = lists::invert(&checked.parts, codec.count())?;
        let parts = SegmentParts {
            list_offsets: list_offsets.into(),
            list_entries: list_entries.into(),
            ..checked.parts
        };
        Ok(Self { parts, ..checked })
    }

    /// The arrays.
    pub fn parts(&self) -> &SegmentParts {
        &self.parts
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.parts.offsets.len() - 1
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.parts.codes.len()
    }

    /// Tokens of document `i`. Panics if there is none.
    pub fn rows(&self, document: usize) -> std::ops::Range<usize> {
        self.parts.offsets[document] as usize..self.parts.offsets[document + 1] as usize
    }

    /// Whether its residuals are here.
    pub fn has_residuals(&self) -> bool {
        self.parts.residuals.len() == self.tokens() * self.residual_bytes
    }

    /// Documents with a token in the cell of `centroid`, ascending. Panics if there is no such centroid.
    pub fn list(&self, centroid: usize) -> List<'_> {
        let offsets = &self.parts.list_offsets;
        List::new(&self.parts.list_entries[offsets[centroid] as usize..offsets[centroid + 1] as usize])
    }

    /// Whether it was made for a codec of this size.
    pub fn fits(&self, codec: &Codec<'_>) -> bool {
        self.centroids == codec.count() && self.residual_bytes == codec.residual_bytes()
    }

    /// The documents as an operand of scoring operators. Panics if the segment does not [fit](Self::fits).
    pub fn residual<'a>(&'a self, codec: &Codec<'a>) -> Residual<'a> {
        assert!(self.fits(codec));
        let parts = &self.parts;
        let sequences = Sequences::checked(&parts.offsets, parts.codes.len());
        Residual::checked(codec.clone(), &parts.codes, &parts.residuals, sequences, &*parts.inv_norms)
    }

    /// Bytes of all arrays, those of residuals that are elsewhere included.
    pub fn bytes(&self) -> usize {
        let parts = &self.parts;
        let words = parts.offsets.len() + parts.codes.len() + parts.list_offsets.len();
        let residuals = self.tokens() * self.residual_bytes;
        4 * words + parts.list_entries.len() + residuals + 2 * parts.inv_norms.len()
    }
}
