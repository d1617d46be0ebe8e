//! Batches of token sequences: what every operator takes as `Q` and `D`.

use std::borrow::Cow;
use std::ops::Range;

use crate::dtype::{DType, DataBuf, DataRef};
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

#[derive(Debug, Clone)]
enum Layout<'a> {
    Padded { len: usize, lengths: Option<Cow<'a, [u32]>> },
    Packed { offsets: Cow<'a, [u32]> },
}

/// Scales of quantised vectors; they multiply the similarity, never the stored value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scales<'a> {
    /// One scale for the whole tensor.
    PerTensor(f32),
    /// One per token slot, masked and padded slots included.
    PerToken(&'a [f32]),
}

impl Scales<'_> {
    /// Scale of token slot `row`.
    pub fn get(&self, row: usize) -> f32 {
        match self {
            Self::PerTensor(s) => *s,
            Self::PerToken(s) => s[row],
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

/// A borrowed batch of token sequences `[.., L, d]` (padded) or `[T, d]` with offsets (packed).
///
/// Every constructor checks what can be checked without the other operand, so a `Tokens` is always
/// internally consistent: reading it cannot go out of bounds.
///
/// ```
/// use maxsim_core::Tokens;
/// let data = vec![0.5f32; 2 * 3 * 4];
/// let two_sequences_of_three = Tokens::padded(&data, &[2, 3, 4])?.with_lengths(&[3u32, 1])?;
/// let same_packed = Tokens::packed(&data[..16], 4, &[0u32, 3, 4])?;
/// assert_eq!(two_sequences_of_three.count(), same_packed.count());
/// # Ok::<(), maxsim_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    data: DataRef<'a>,
    dim: usize,
    axes: Axes,
    layout: Layout<'a>,
    mask: Option<&'a [u8]>,
    scales: Option<Scales<'a>>,
}

/// Product of extents, or an error about `argument` if it overflows.
pub(crate) fn checked_product(argument: impl Into<Argument>, shape: &[usize]) -> Result<usize> {
    shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).ok_or_else(|| Error::Limit {
        argument: argument.into(),
        limit: "a shape whose product fits in 64 bits".into(),
        got: format!("{shape:?}"),
    })
}

fn check_token_count(tokens: usize) -> Result<()> {
    if tokens >= MAX_TOKENS {
        return Err(Error::Limit {
            argument: "data".into(),
            limit: format!("{} tokens per call", MAX_TOKENS - 1),
            got: tokens.to_string(),
        });
    }
    Ok(())
}

fn check_dim(dim: usize) -> Result<()> {
    if dim == 0 {
        return Err(Error::shape("data", "an embedding dimension of at least 1", "0"));
    }
    Ok(())
}

impl<'a> Tokens<'a> {
    /// Sequences of equal extent.
    ///
    /// `shape` is `[L, d]` (one sequence; the result drops its axis), `[N, L, d]`, or `[N, K, L, d]` (`K` candidates
    /// for each of `N` queries). `data` is row-major and has exactly that many elements.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `data`) on another rank, `d = 0`, or another element count; `ERR_LIMIT` from 2³¹ tokens up.
    pub fn padded(data: impl Into<DataRef<'a>>, shape: &[usize]) -> Result<Self> {
        let data = data.into();
        let (axes, len, dim) = match *shape {
            [len, dim] => (Axes::Single, len, dim),
            [n, len, dim] => (Axes::Flat(n), len, dim),
            [n, k, len, dim] => (Axes::Grid(n, k), len, dim),
            _ => {
                return Err(Error::shape(
                    "data",
                    "rank 2 [L, d], 3 [N, L, d] or 4 [N, K, L, d]",
                    format!("rank {} {shape:?}", shape.len()),
                ));
            }
        };
        check_dim(dim)?;
        let elements = checked_product("data", shape)?;
        check_token_count(elements / dim)?;
        if data.len() != elements {
            return Err(Error::shape(
                "data",
                format!("{elements} elements for shape {shape:?}"),
                format!("{} elements", data.len()),
            ));
        }
        Ok(Self { data, dim, axes, layout: Layout::Padded { len, lengths: None }, mask: None, scales: None })
    }

    /// Sequences of different lengths behind one another: sequence `i` is rows `offsets[i]..offsets[i + 1]`.
    ///
    /// `data` is `[T, dim]` row-major; `offsets` (`cu_seqlens`) has `N + 1` entries, starts at 0, never decreases and
    /// ends at `T`.
    ///
    /// # Errors
    /// `ERR_SHAPE` if `data` is not a whole number of rows, `ERR_INDEX` (argument `cu_seqlens`) on bad offsets,
    /// `ERR_LIMIT` from 2³¹ tokens up.
    pub fn packed(data: impl Into<DataRef<'a>>, dim: usize, offsets: impl Integers<'a>) -> Result<Self> {
        let data = data.into();
        check_dim(dim)?;
        if data.len() % dim != 0 {
            return Err(Error::shape(
                "data",
                format!("a multiple of d = {dim} elements"),
                format!("{} elements", data.len()),
            ));
        }
        let tokens = data.len() / dim;
        check_token_count(tokens)?;
        let offsets = offsets.into_u32("cu_seqlens")?;
        check_offsets(&offsets, tokens, "cu_seqlens")?;
        let axes = Axes::Flat(offsets.len() - 1);
        Ok(Self { data, dim, axes, layout: Layout::Packed { offsets }, mask: None, scales: None })
    }

    /// Keeps only tokens whose mask entry is true. One entry per token slot: `[.., L]` padded, `[T]` packed.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `mask`) on another number of entries.
    pub fn with_mask(mut self, mask: impl Into<Mask<'a>>) -> Result<Self> {
        let mask = mask.into().0;
        if mask.len() != self.slots() {
            return Err(Error::shape(
                "mask",
                format!("{} entries (shape {:?})", self.slots(), self.slot_shape()),
                format!("{} entries", mask.len()),
            ));
        }
        self.mask = Some(mask);
        Ok(self)
    }

    /// Keeps the first `lengths[i]` tokens of sequence `i`. What lies behind is neither read nor validated.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `lengths`) on another number of entries or for packed tokens, `ERR_INDEX` on a length beyond `L`.
    pub fn with_lengths(mut self, lengths: impl Integers<'a>) -> Result<Self> {
        let count = self.count();
        let Layout::Padded { len, lengths: slot } = &mut self.layout else {
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
        *slot = Some(lengths);
        Ok(self)
    }

    /// Scales of fp8 or int8 vectors: token = stored value × scale.
    ///
    /// # Errors
    /// `ERR_DTYPE` on an unquantised dtype, `ERR_SHAPE` on another number of scales, `ERR_VALUE` on a scale that is not
    /// finite and positive.
    pub fn with_scales(mut self, scales: Scales<'a>) -> Result<Self> {
        if !self.dtype().is_quantized() {
            return Err(Error::dtype("scales", "fp8 or int8 data", self.dtype().name()));
        }
        let values = match &scales {
            Scales::PerTensor(s) => std::slice::from_ref(s),
            Scales::PerToken(s) if s.len() == self.slots() => s,
            Scales::PerToken(s) => {
                return Err(Error::shape(
                    "scales",
                    format!("1 or {} entries (shape {:?})", self.slots(), self.slot_shape()),
                    format!("{} entries", s.len()),
                ));
            }
        };
        // A scale behind a length is neither read nor validated; one that is read must not flip the order of similarities.
        let per_tensor = matches!(scales, Scales::PerTensor(_));
        let bad = |row: usize| !(values[row].is_finite() && values[row] > 0.0);
        let offender = if per_tensor {
            bad(0).then_some(0)
        } else {
            (0..self.count()).flat_map(|i| self.rows(i)).find(|&row| self.keeps(row) && bad(row))
        };
        if let Some(position) = offender {
            return Err(Error::value(
                "scales",
                "finite positive numbers",
                format!("{} at {position}", values[position]),
            ));
        }
        self.scales = Some(scales);
        Ok(self)
    }

    /// The elements, padding included.
    pub fn data(&self) -> DataRef<'a> {
        self.data
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Embedding dimension `d`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Arrangement of the sequences.
    pub fn axes(&self) -> Axes {
        self.axes
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.axes.count()
    }

    /// Padded extent `L`, or `None` for packed tokens.
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

    /// Offsets of packed tokens.
    pub fn offsets(&self) -> Option<&[u32]> {
        match &self.layout {
            Layout::Packed { offsets } => Some(offsets),
            Layout::Padded { .. } => None,
        }
    }

    /// Token slots in `data`: `N·L` padded, `T` packed.
    pub fn slots(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Shape of one value per token slot.
    pub fn slot_shape(&self) -> Vec<usize> {
        match self.padded_len() {
            Some(len) => [self.axes.shape(), vec![len]].concat(),
            None => vec![self.slots()],
        }
    }

    /// Shape of `data`.
    pub fn shape(&self) -> Vec<usize> {
        [self.slot_shape(), vec![self.dim]].concat()
    }

    /// Rows of sequence `i` in `data`, its prefix length applied, masked tokens included. Panics if `i` is out of range.
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

    /// The largest [`extent`](Self::extent) of the batch.
    pub fn max_extent(&self) -> usize {
        match self.padded_len() {
            Some(len) => len,
            None => (0..self.count()).map(|i| self.rows(i).len()).max().unwrap_or(0),
        }
    }

    /// The mask, where one was given: one byte per token slot, non-zero = keep.
    pub fn mask(&self) -> Option<&'a [u8]> {
        self.mask
    }

    /// Whether the mask keeps `row` (lengths are not asked).
    pub fn keeps(&self, row: usize) -> bool {
        self.mask.is_none_or(|m| m[row] != 0)
    }

    /// The scales, where given.
    pub fn scales(&self) -> Option<Scales<'a>> {
        self.scales
    }

    /// Number of tokens that count: within lengths and kept by the mask.
    pub fn kept(&self) -> usize {
        (0..self.count())
            .map(|i| match self.mask {
                None => self.rows(i).len(),
                Some(mask) => mask[self.rows(i)].iter().filter(|&&m| m != 0).count(),
            })
            .sum()
    }

    /// The vector of `row` as f32, unscaled.
    pub fn vector(&self, row: usize) -> Vec<f32> {
        self.data.slice(row * self.dim..(row + 1) * self.dim).to_f32()
    }

    /// Sequences `range` as a batch of their own, without copying vectors. Panics if out of range.
    pub fn sequences(&self, range: Range<usize>) -> Tokens<'_> {
        let (first, last, layout) = match &self.layout {
            Layout::Padded { len, lengths } => (
                range.start * len,
                range.end * len,
                Layout::Padded {
                    len: *len,
                    lengths: lengths.as_ref().map(|l| Cow::Borrowed(&l[range.clone()])),
                },
            ),
            Layout::Packed { offsets } => {
                let offsets = &offsets[range.start..=range.end];
                let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
                let shifted = offsets.iter().map(|o| o - first).collect();
                (first as usize, last as usize, Layout::Packed { offsets: Cow::Owned(shifted) })
            }
        };
        Tokens {
            data: self.data.slice(first * self.dim..last * self.dim),
            dim: self.dim,
            axes: Axes::Flat(range.len()),
            layout,
            mask: self.mask.map(|m| &m[first..last]),
            scales: self.scales.map(|s| match s {
                Scales::PerTensor(s) => Scales::PerTensor(s),
                Scales::PerToken(s) => Scales::PerToken(&s[first..last]),
            }),
        }
    }

    /// The same tokens as a flat list of sequences (`[N, K, L, d]` becomes `[N·K, L, d]`).
    pub fn flattened(mut self) -> Self {
        self.axes = Axes::Flat(self.axes.count());
        self
    }

    /// An owned copy.
    pub fn to_buf(&self) -> TokensBuf {
        TokensBuf {
            data: self.data.to_buf(),
            dim: self.dim,
            axes: self.axes,
            layout: match &self.layout {
                Layout::Padded { len, lengths } => {
                    Layout::Padded { len: *len, lengths: lengths.as_ref().map(|l| Cow::Owned(l.to_vec())) }
                }
                Layout::Packed { offsets } => Layout::Packed { offsets: Cow::Owned(offsets.to_vec()) },
            },
            mask: self.mask.map(<[u8]>::to_vec),
            scales: self.scales.map(|s| match s {
                Scales::PerTensor(s) => vec![s],
                Scales::PerToken(s) => s.to_vec(),
            }),
        }
    }

    /// First non-finite element of a kept token, as an error about `argument`.
    pub fn check_finite(&self, argument: &'static str) -> Result<()> {
        for row in (0..self.count()).flat_map(|i| self.rows(i)).filter(|&row| self.keeps(row)) {
            for position in row * self.dim..(row + 1) * self.dim {
                let got = self.data.get(position);
                if !got.is_finite() {
                    return Err(Error::NonFinite { argument: argument.into(), position, got });
                }
            }
        }
        Ok(())
    }
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

/// An owned batch of token sequences.
#[derive(Debug, Clone)]
pub struct TokensBuf {
    data: DataBuf,
    dim: usize,
    axes: Axes,
    layout: Layout<'static>,
    mask: Option<Vec<u8>>,
    scales: Option<Vec<f32>>,
}

impl TokensBuf {
    /// Borrows the batch.
    pub fn as_tokens(&self) -> Tokens<'_> {
        Tokens {
            data: self.data.as_ref(),
            dim: self.dim,
            axes: self.axes,
            layout: match &self.layout {
                Layout::Padded { len, lengths } => {
                    Layout::Padded { len: *len, lengths: lengths.as_deref().map(Cow::Borrowed) }
                }
                Layout::Packed { offsets } => Layout::Packed { offsets: Cow::Borrowed(offsets) },
            },
            mask: self.mask.as_deref(),
            scales: self.scales.as_deref().map(|s| match s {
                [one] if self.data.len() != self.dim => Scales::PerTensor(*one),
                many => Scales::PerToken(many),
            }),
        }
    }

    /// The same sequences with other vectors: `data` has as many elements as before.
    ///
    /// # Errors
    /// `ERR_SHAPE` if the element counts differ; scales are dropped when `data` is not quantised.
    pub fn with_data(mut self, data: DataBuf) -> Result<Self> {
        if data.len() != self.data.len() {
            return Err(Error::shape(
                "data",
                format!("{} elements", self.data.len()),
                format!("{} elements", data.len()),
            ));
        }
        if !data.dtype().is_quantized() {
            self.scales = None;
        }
        self.data = data;
        Ok(self)
    }

    /// Replaces the per-token scales.
    pub fn with_token_scales(mut self, scales: Vec<f32>) -> Result<Self> {
        self.as_tokens().with_scales(Scales::PerToken(&scales))?;
        self.scales = Some(scales);
        Ok(self)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let layout = match &self.layout {
            Layout::Padded { lengths, .. } => lengths.as_ref().map_or(0, |l| l.len() * 4),
            Layout::Packed { offsets } => offsets.len() * 4,
        };
        self.data.len() * self.data.dtype().size()
            + layout
            + self.mask.as_ref().map_or(0, Vec::len)
            + self.scales.as_ref().map_or(0, |s| s.len() * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T>) -> &'static str {
        match result {
            Ok(_) => "ok",
            Err(error) => error.code().as_str(),
        }
    }

    #[test]
    fn shapes_are_checked() {
        let data = [0f32; 24];
        assert_eq!(code(Tokens::padded(&data, &[2, 3, 4])), "ok");
        assert_eq!(code(Tokens::padded(&data, &[2, 3, 5])), "ERR_SHAPE");
        assert_eq!(code(Tokens::padded(&data, &[24])), "ERR_SHAPE");
        assert_eq!(code(Tokens::padded(&data, &[1, 2, 3, 4, 1])), "ERR_SHAPE");
        assert_eq!(code(Tokens::padded(&data, &[24, 1, 0])), "ERR_SHAPE");
        assert_eq!(code(Tokens::padded(&data, &[usize::MAX, 2, 2])), "ERR_LIMIT");
        assert_eq!(code(Tokens::padded(&[0f32; 0], &[1 << 40, 0, 4])), "ok");
        assert_eq!(code(Tokens::packed(&data, 5, &[0u32, 4])), "ERR_SHAPE");
    }

    #[test]
    fn offsets_of_any_width_are_checked() {
        let data = [0f32; 24];
        assert_eq!(code(Tokens::packed(&data, 4, &[0i64, 2, 2, 6])), "ok");
        assert_eq!(code(Tokens::packed(&data, 4, &[0i64, 3, 2, 6])), "ERR_INDEX");
        assert_eq!(code(Tokens::packed(&data, 4, &[1i32, 6])), "ERR_INDEX");
        assert_eq!(code(Tokens::packed(&data, 4, &[0i32, 5])), "ERR_INDEX");
        assert_eq!(code(Tokens::packed(&data, 4, &[0i32, -6])), "ERR_INDEX");
        assert_eq!(code(Tokens::packed(&data, 4, &[0u64, 1 << 32])), "ERR_LIMIT");
        assert_eq!(code(Tokens::packed(&data, 4, Vec::<u32>::new())), "ERR_SHAPE");
    }

    #[test]
    fn masks_lengths_and_scales_are_checked() {
        let data = [1i8; 24];
        let tokens = || Tokens::padded(&data, &[2, 3, 4]).unwrap();
        assert_eq!(code(tokens().with_mask(&vec![true; 6])), "ok");
        assert_eq!(code(tokens().with_mask(&vec![true; 5])), "ERR_SHAPE");
        assert_eq!(code(tokens().with_lengths(&[3u8, 0])), "ok");
        assert_eq!(code(tokens().with_lengths(&[3u8, 4])), "ERR_INDEX");
        assert_eq!(code(tokens().with_lengths(&[3u8])), "ERR_SHAPE");
        assert_eq!(code(tokens().with_scales(Scales::PerToken(&[1.0; 6]))), "ok");
        assert_eq!(code(tokens().with_scales(Scales::PerToken(&[1.0; 2]))), "ERR_SHAPE");
        assert_eq!(code(tokens().with_scales(Scales::PerTensor(f32::NAN))), "ERR_VALUE");
        let unread = [1.0, 1.0, 1.0, 1.0, f32::NAN, f32::NAN];
        assert_eq!(
            code(tokens().with_lengths(&[3u8, 1]).unwrap().with_scales(Scales::PerToken(&unread))),
            "ok"
        );
        let float = [0f32; 24];
        assert_eq!(
            code(Tokens::padded(&float, &[6, 4]).unwrap().with_scales(Scales::PerTensor(1.0))),
            "ERR_DTYPE"
        );
    }

    #[test]
    fn a_range_of_sequences_is_a_view() {
        let data: Vec<f32> = (0..12).map(|x| x as f32).collect();
        let packed = Tokens::packed(&data, 2, &[0u32, 1, 4, 6]).unwrap();
        let tail = packed.sequences(1..3);
        assert_eq!(tail.rows(1), 3..5);
        assert_eq!(tail.vector(0), [2.0, 3.0]);
        assert_eq!(packed.sequences(1..1).count(), 0);
    }
}
