//! Batches of token sequences: what every operator takes as `Q` and `D`.

use std::ops::Range;

use crate::dtype::{DType, DataBuf, DataRef};
use crate::error::{Error, Result};
use crate::ints::Integers;
use crate::sequences::{Axes, Mask, Sequences, checked_product};

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

    /// Refuses a scale among those of `rows` that is not finite and positive: it would flip the order of similarities.
    ///
    /// # Errors
    /// `ERR_VALUE` that says where.
    pub(crate) fn check(&self, rows: impl IntoIterator<Item = usize>) -> Result<()> {
        let bad = |s: f32| !(s.is_finite() && s > 0.0);
        let offender = match self {
            Self::PerTensor(s) => bad(*s).then_some((0, *s)),
            Self::PerToken(s) => rows.into_iter().find(|&row| bad(s[row])).map(|row| (row, s[row])),
        };
        match offender {
            None => Ok(()),
            Some((at, scale)) => {
                // Without the number itself: code that prints floats is large where modules are small.
                let what = match scale {
                    _ if scale == 0.0 => "0",
                    _ if scale.is_nan() => "NaN",
                    _ if scale < 0.0 => "a negative number",
                    _ => "infinity",
                };
                Err(Error::value("scales", "finite positive numbers", format!("{what} at {at}")))
            }
        }
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
    sequences: Sequences<'a>,
    scales: Option<Scales<'a>>,
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
        if data.len() != elements {
            return Err(Error::shape(
                "data",
                format!("{elements} elements for shape {shape:?}"),
                format!("{} elements", data.len()),
            ));
        }
        Ok(Self { data, dim, sequences: Sequences::padded(axes, len)?, scales: None })
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
        let sequences = Sequences::packed(offsets, data.len() / dim)?;
        Ok(Self { data, dim, sequences, scales: None })
    }

    /// Keeps only tokens whose mask entry is true. One entry per token slot: `[.., L]` padded, `[T]` packed.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `mask`) on another number of entries.
    pub fn with_mask(mut self, mask: impl Into<Mask<'a>>) -> Result<Self> {
        self.sequences = self.sequences.with_mask(mask)?;
        Ok(self)
    }

    /// Keeps the first `lengths[i]` tokens of sequence `i`. What lies behind is neither read nor validated.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `lengths`) on another number of entries or for packed tokens, `ERR_INDEX` on a length beyond `L`.
    pub fn with_lengths(mut self, lengths: impl Integers<'a>) -> Result<Self> {
        self.sequences = self.sequences.with_lengths(lengths)?;
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
        if let Scales::PerToken(s) = scales
            && s.len() != self.slots()
        {
            return Err(Error::shape(
                "scales",
                format!("1 or {} entries (shape {:?})", self.slots(), self.sequences.shape()),
                format!("{} entries", s.len()),
            ));
        }
        // A scale behind a length is neither read nor validated.
        scales.check(self.sequences.kept_rows())?;
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

    /// How the token slots form sequences.
    pub fn sequences(&self) -> &Sequences<'a> {
        &self.sequences
    }

    /// Arrangement of the sequences.
    pub fn axes(&self) -> Axes {
        self.sequences.axes()
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.sequences.count()
    }

    /// Padded extent `L`, or `None` for packed tokens.
    pub fn padded_len(&self) -> Option<usize> {
        self.sequences.padded_len()
    }

    /// Prefix lengths, where they were given.
    pub fn lengths(&self) -> Option<&[u32]> {
        self.sequences.lengths()
    }

    /// Offsets of packed tokens.
    pub fn offsets(&self) -> Option<&[u32]> {
        self.sequences.offsets()
    }

    /// Token slots in `data`: `N·L` padded, `T` packed.
    pub fn slots(&self) -> usize {
        self.sequences.slots()
    }

    /// Shape of `data`.
    pub fn shape(&self) -> Vec<usize> {
        [self.sequences.shape(), vec![self.dim]].concat()
    }

    /// Rows of sequence `i` in `data`, its prefix length applied, masked tokens included. Panics if `i` is out of range.
    pub fn rows(&self, i: usize) -> Range<usize> {
        self.sequences.rows(i)
    }

    /// Slots of sequence `i` in per-token outputs (argmax rows): the padded extent, or its packed length.
    pub fn extent(&self, i: usize) -> usize {
        self.sequences.extent(i)
    }

    /// The largest [`extent`](Self::extent) of the batch.
    pub fn max_extent(&self) -> usize {
        self.sequences.max_extent()
    }

    /// The mask, where one was given: one byte per token slot, non-zero = keep.
    pub fn mask(&self) -> Option<&[u8]> {
        self.sequences.mask()
    }

    /// Whether the mask keeps `row` (lengths are not asked).
    pub fn keeps(&self, row: usize) -> bool {
        self.sequences.keeps(row)
    }

    /// Number of tokens that count: within lengths and kept by the mask.
    pub fn kept(&self) -> usize {
        self.sequences.kept()
    }

    /// The scales, where given.
    pub fn scales(&self) -> Option<Scales<'a>> {
        self.scales
    }

    /// The vector of `row` as f32, unscaled.
    pub fn vector(&self, row: usize) -> Vec<f32> {
        self.data.slice(row * self.dim..(row + 1) * self.dim).to_f32()
    }

    /// The vectors of some rows as f32, unscaled, `[rows, d]`.
    pub fn vectors(&self, rows: &[usize]) -> Vec<f32> {
        let mut values = Vec::with_capacity(rows.len() * self.dim);
        for run in rows.chunk_by(|a, b| a + 1 == *b) {
            let first = run[0] * self.dim;
            values.extend(self.data.slice(first..first + run.len() * self.dim).to_f32());
        }
        values
    }

    /// Sequences `range` as a batch of their own, without copying vectors. Panics if out of range.
    pub fn slice(&self, range: Range<usize>) -> Tokens<'_> {
        let (sequences, slots) = self.sequences.slice(range);
        Tokens {
            data: self.data.slice(slots.start * self.dim..slots.end * self.dim),
            dim: self.dim,
            sequences,
            scales: self.scales.map(|s| match s {
                Scales::PerTensor(s) => Scales::PerTensor(s),
                Scales::PerToken(s) => Scales::PerToken(&s[slots]),
            }),
        }
    }

    /// The same tokens as a flat list of sequences (`[N, K, L, d]` becomes `[N·K, L, d]`).
    pub fn flattened(mut self) -> Self {
        self.sequences = self.sequences.flattened();
        self
    }

    /// An owned copy.
    pub fn to_buf(&self) -> TokensBuf {
        TokensBuf {
            data: self.data.to_buf(),
            dim: self.dim,
            sequences: self.sequences.owned(),
            scales: self.scales.map(|s| match s {
                Scales::PerTensor(s) => ScalesBuf::PerTensor(s),
                Scales::PerToken(s) => ScalesBuf::PerToken(s.to_vec()),
            }),
        }
    }

    /// First non-finite element of a kept token, as an error about `argument`.
    pub fn check_finite(&self, argument: &'static str) -> Result<()> {
        // Most often nothing is found, in whatever is masked neither.
        if self.data.first_non_finite().is_none() {
            return Ok(());
        }
        for row in self.sequences.kept_rows() {
            let first = row * self.dim;
            if let Some(i) = self.data.slice(first..first + self.dim).first_non_finite() {
                let position = first + i;
                return Err(Error::NonFinite {
                    argument: argument.into(),
                    position,
                    got: self.data.get(position),
                });
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum ScalesBuf {
    PerTensor(f32),
    PerToken(Vec<f32>),
}

/// An owned batch of token sequences.
#[derive(Debug, Clone)]
pub struct TokensBuf {
    data: DataBuf,
    dim: usize,
    sequences: Sequences<'static>,
    scales: Option<ScalesBuf>,
}

impl TokensBuf {
    /// Borrows the batch.
    pub fn as_tokens(&self) -> Tokens<'_> {
        Tokens {
            data: self.data.as_ref(),
            dim: self.dim,
            sequences: self.sequences.borrowed(),
            scales: self.scales.as_ref().map(|s| match s {
                ScalesBuf::PerTensor(s) => Scales::PerTensor(*s),
                ScalesBuf::PerToken(s) => Scales::PerToken(s),
            }),
        }
    }

    /// The same sequences with other, unscaled vectors: `data` has as many elements as before.
    ///
    /// # Errors
    /// `ERR_SHAPE` if the element counts differ.
    pub fn with_data(mut self, data: DataBuf) -> Result<Self> {
        if data.len() != self.data.len() {
            return Err(Error::shape(
                "data",
                format!("{} elements", self.data.len()),
                format!("{} elements", data.len()),
            ));
        }
        self.scales = None;
        self.data = data;
        Ok(self)
    }

    /// Sets per-token scales.
    ///
    /// # Errors
    /// As [`Tokens::with_scales`].
    pub fn with_token_scales(mut self, scales: Vec<f32>) -> Result<Self> {
        self.as_tokens().with_scales(Scales::PerToken(&scales))?;
        self.scales = Some(ScalesBuf::PerToken(scales));
        Ok(self)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let scales = match &self.scales {
            None => 0,
            Some(ScalesBuf::PerTensor(_)) => 4,
            Some(ScalesBuf::PerToken(s)) => 4 * s.len(),
        };
        self.data.len() * self.data.dtype().size() + self.sequences.bytes() + scales
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
        let tail = packed.slice(1..3);
        assert_eq!(tail.rows(1), 3..5);
        assert_eq!(tail.vector(0), [2.0, 3.0]);
        assert_eq!(packed.slice(1..1).count(), 0);
    }
}
