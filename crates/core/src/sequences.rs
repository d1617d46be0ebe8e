//! How token slots form sequences: padded or packed, with lengths and masks.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{Argument, Error, Result};
use crate::ints::{Integers, MAX_TOKENS};

/// How the sequences of a batch are arranged, and so which axes a result gets from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// One sequence given as `[L, d]`: the result has no axis for it.
    Single,
    /// `n` sequences: one axis.
    Flat(usize),
    /// `n × k` sequences, candidate `j` of query `i` at `i·k + j`.
    Grid(usize, usize),
}

impl Axes {
    /// Number of sequences.
    pub fn count(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Flat(n) => n,
            Self::Grid(n, k) => n * k,
        }
    }

    /// Extents as they appear in shapes.
    pub fn shape(self) -> Vec<usize> {
        match self {
            Self::Single => vec![],
            Self::Flat(n) => vec![n],
            Self::Grid(n, k) => vec![n, k],
        }
    }
}

/// A boolean mask, one entry per token slot, true (or non-zero) = keep.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a>(pub(crate) &'a [u8]);

impl<'a> From<&'a [bool]> for Mask<'a> {
    fn from(mask: &'a [bool]) -> Self {
        Self(bytemuck::cast_slice(mask))
    }
}

impl<'a> From<&'a Vec<bool>> for Mask<'a> {
    fn from(mask: &'a Vec<bool>) -> Self {
        mask.as_slice().into()
    }
}

impl<'a> From<&'a [u8]> for Mask<'a> {
    fn from(mask: &'a [u8]) -> Self {
        Self(mask)
    }
}

impl<'a> From<&'a Vec<u8>> for Mask<'a> {
    fn from(mask: &'a Vec<u8>) -> Self {
        Self(mask)
    }
}

#[derive(Debug, Clone)]
enum Layout<'a> {
    Padded { len: usize, lengths: Option<Cow<'a, [u32]>> },
    Packed { offsets: Cow<'a, [u32]> },
}

/// Token slots grouped into sequences. Always internally consistent: every range it returns lies within its slots.
#[derive(Debug, Clone)]
pub struct Sequences<'a> {
    axes: Axes,
    slots: usize,
    layout: Layout<'a>,
    mask: Option<Cow<'a, [u8]>>,
}

impl<'a> Sequences<'a> {
    /// Sequences of `len` slots each.
    ///
    /// # Errors
    /// `ERR_LIMIT` from 2³¹ slots up.
    pub fn padded(axes: Axes, len: usize) -> Result<Self> {
        let slots = checked_product("data", &[axes.shape(), vec![len]].concat())?;
        check_slots(slots)?;
        Ok(Self { axes, slots, layout: Layout::Padded { len, lengths: None }, mask: None })
    }

    /// Sequence `i` is slots `offsets[i]..offsets[i + 1]` of `slots`.
    ///
    /// # Errors
    /// `ERR_INDEX` (argument `cu_seqlens`) on offsets that do not start at 0, decrease, or do not end at `slots`;
    /// `ERR_LIMIT` from 2³¹ slots up.
    pub fn packed(offsets: impl Integers<'a>, slots: usize) -> Result<Self> {
        check_slots(slots)?;
        let offsets = offsets.into_u32("cu_seqlens")?;
        check_offsets(&offsets, slots, "cu_seqlens")?;
        Ok(Self {
            axes: Axes::Flat(offsets.len() - 1),
            slots,
            layout: Layout::Packed { offsets },
            mask: None,
        })
    }

    /// [`packed`](Self::packed) with offsets that were checked before.
    pub(crate) fn checked(offsets: &'a [u32], slots: usize) -> Self {
        let layout = Layout::Packed { offsets: Cow::Borrowed(offsets) };
        Self { axes: Axes::Flat(offsets.len() - 1), slots, layout, mask: None }
    }

    /// Keeps only slots whose mask entry is true.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `mask`) on another number of entries.
    pub fn with_mask(mut self, mask: impl Into<Mask<'a>>) -> Result<Self> {
        let mask = mask.into().0;
        if mask.len() != self.slots {
            return Err(Error::shape(
                "mask",
                format!("{} entries (shape {:?})", self.slots, self.shape()),
                format!("{} entries", mask.len()),
            ));
        }
        self.mask = Some(Cow::Borrowed(mask));
        Ok(self)
    }

    /// Keeps the first `lengths[i]` slots of sequence `i`.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `lengths`) on another number of entries or for packed sequences, `ERR_INDEX` on a length
    /// beyond the padded extent.
    pub fn with_lengths(mut self, lengths: impl Integers<'a>) -> Result<Self> {
        let count = self.count();
        let Layout::Padded { len, lengths: place } = &mut self.layout else {
            return Err(Error::shape(
                "lengths",
                "padded tokens",
                "packed tokens, whose offsets are their lengths",
            ));
        };
        let lengths = lengths.into_u32("lengths")?;
        if lengths.len() != count {
            return Err(Error::shape(
                "lengths",
                format!("{count} entries"),
                format!("{} entries", lengths.len()),
            ));
        }
        if let Some(position) = lengths.iter().position(|&l| l as usize > *len) {
            return Err(Error::index(
                "lengths",
                position,
                format!("at most the padded extent {len}"),
                lengths[position].to_string(),
            ));
        }
        *place = Some(lengths);
        Ok(self)
    }

    /// Arrangement.
    pub fn axes(&self) -> Axes {
        self.axes
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.axes.count()
    }

    /// Token slots: `N·L` padded, `T` packed.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Shape of one value per slot.
    pub fn shape(&self) -> Vec<usize> {
        match self.padded_len() {
            Some(len) => [self.axes.shape(), vec![len]].concat(),
            None => vec![self.slots],
        }
    }

    /// Padded extent `L`, or `None` for packed sequences.
    pub fn padded_len(&self) -> Option<usize> {
        match self.layout {
            Layout::Padded { len, .. } => Some(len),
            Layout::Packed { .. } => None,
        }
    }

    /// Prefix lengths, where they were given.
    pub fn lengths(&self) -> Option<&[u32]> {
        match &self.layout {
            Layout::Padded { lengths, .. } => lengths.as_deref(),
            Layout::Packed { .. } => None,
        }
    }

    /// Offsets of packed sequences.
    pub fn offsets(&self) -> Option<&[u32]> {
        match &self.layout {
            Layout::Packed { offsets } => Some(offsets),
            Layout::Padded { .. } => None,
        }
    }

    /// Slots of sequence `i`, its prefix length applied, masked slots included. Panics if `i` is out of range.
    pub fn rows(&self, i: usize) -> Range<usize> {
        match &self.layout {
            Layout::Padded { len, lengths } => {
                assert!(i < self.count(), "sequence {i} of {}", self.count());
                let start = i * len;
                start..start + lengths.as_ref().map_or(*len, |l| l[i] as usize)
            }
            Layout::Packed { offsets } => offsets[i] as usize..offsets[i + 1] as usize,
        }
    }

    /// Slots of sequence `i` in per-token outputs (argmax rows): the padded extent, or its packed length.
    pub fn extent(&self, i: usize) -> usize {
        self.padded_len().unwrap_or_else(|| self.rows(i).len())
    }

    /// The largest [`extent`](Self::extent).
    pub fn max_extent(&self) -> usize {
        match self.padded_len() {
            Some(len) => len,
            None => (0..self.count()).map(|i| self.rows(i).len()).max().unwrap_or(0),
        }
    }

    /// The mask, where one was given: one byte per slot, non-zero = keep.
    pub fn mask(&self) -> Option<&[u8]> {
        self.mask.as_deref()
    }

    /// Whether the mask keeps slot `row` (lengths are not asked).
    pub fn keeps(&self, row: usize) -> bool {
        self.mask.as_ref().is_none_or(|m| m[row] != 0)
    }

    /// Slots that count: within lengths and kept by the mask.
    pub fn kept_rows(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.count()).flat_map(|i| self.rows(i)).filter(|&row| self.keeps(row))
    }

    /// Number of [`kept_rows`](Self::kept_rows).
    pub fn kept(&self) -> usize {
        match &self.mask {
            None => (0..self.count()).map(|i| self.rows(i).len()).sum(),
            Some(_) => self.kept_rows().count(),
        }
    }

    /// The same slots as a flat list of sequences (`[N, K, L]` becomes `[N·K, L]`).
    pub fn flattened(mut self) -> Self {
        self.axes = Axes::Flat(self.axes.count());
        self
    }

    /// Sequences `range` on their own, and the slots they lie in. Panics if out of range.
    pub(crate) fn slice(&self, range: Range<usize>) -> (Sequences<'_>, Range<usize>) {
        let (slots, layout) = match &self.layout {
            Layout::Padded { len, lengths } => (
                range.start * len..range.end * len,
                Layout::Padded {
                    len: *len,
                    lengths: lengths.as_ref().map(|l| Cow::Borrowed(&l[range.clone()])),
                },
            ),
            Layout::Packed { offsets } => {
                let offsets = &offsets[range.start..=range.end];
                let first = offsets[0];
                let shifted = offsets.iter().map(|o| o - first).collect();
                (
                    first as usize..offsets[offsets.len() - 1] as usize,
                    Layout::Packed { offsets: Cow::Owned(shifted) },
                )
            }
        };
        let sequences = Sequences {
            axes: Axes::Flat(range.len()),
            slots: slots.len(),
            layout,
            mask: self.mask.as_ref().map(|m| Cow::Borrowed(&m[slots.clone()])),
        };
        (sequences, slots)
    }

    /// A copy that borrows from this one.
    pub(crate) fn borrowed(&self) -> Sequences<'_> {
        Sequences {
            axes: self.axes,
            slots: self.slots,
            layout: match &self.layout {
                Layout::Padded { len, lengths } => {
                    Layout::Padded { len: *len, lengths: lengths.as_deref().map(Cow::Borrowed) }
                }
                Layout::Packed { offsets } => Layout::Packed { offsets: Cow::Borrowed(offsets) },
            },
            mask: self.mask.as_deref().map(Cow::Borrowed),
        }
    }

    /// A copy that borrows nothing.
    pub(crate) fn owned(&self) -> Sequences<'static> {
        Sequences {
            axes: self.axes,
            slots: self.slots,
            layout: match &self.layout {
                Layout::Padded { len, lengths } => {
                    Layout::Padded { len: *len, lengths: lengths.as_ref().map(|l| Cow::Owned(l.to_vec())) }
                }
                Layout::Packed { offsets } => Layout::Packed { offsets: Cow::Owned(offsets.to_vec()) },
            },
            mask: self.mask.as_ref().map(|m| Cow::Owned(m.to_vec())),
        }
    }

    /// Bytes of lengths, offsets and mask.
    pub(crate) fn bytes(&self) -> usize {
        let layout = match &self.layout {
            Layout::Padded { lengths, .. } => lengths.as_ref().map_or(0, |l| l.len() * 4),
            Layout::Packed { offsets } => offsets.len() * 4,
        };
        layout + self.mask.as_ref().map_or(0, |m| m.len())
    }
}

/// Product of extents, or an error about `argument` if it overflows.
pub(crate) fn checked_product(argument: impl Into<Argument>, shape: &[usize]) -> Result<usize> {
    shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).ok_or_else(|| Error::Limit {
        argument: argument.into(),
        limit: "a shape whose product fits in memory".into(),
        got: format!("{shape:?}"),
    })
}

fn check_slots(slots: usize) -> Result<()> {
    if slots >= MAX_TOKENS {
        return Err(Error::Limit {
            argument: "data".into(),
            limit: format!("{} tokens per call", MAX_TOKENS - 1),
            got: slots.to_string(),
        });
    }
    Ok(())
}

/// Checks `[N + 1]` offsets over `total` rows.
pub(crate) fn check_offsets(offsets: &[u32], total: usize, argument: &'static str) -> Result<()> {
    let Some((&first, &last)) = offsets.first().zip(offsets.last()) else {
        return Err(Error::shape(argument, "N + 1 offsets, at least one", "none"));
    };
    if first != 0 {
        return Err(Error::index(argument, 0, "0", first.to_string()));
    }
    if let Some(i) = offsets.windows(2).position(|w| w[1] < w[0]) {
        return Err(Error::index(
            argument,
            i + 1,
            format!("at least {}", offsets[i]),
            offsets[i + 1].to_string(),
        ));
    }
    if last as usize != total {
        return Err(Error::index(
            argument,
            offsets.len() - 1,
            format!("the token count {total}"),
            last.to_string(),
        ));
    }
    Ok(())
}
