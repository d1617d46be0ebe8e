//! Documents as the integer kernels take them: int8 rows as they are, residual rows with their weights rounded to int8.
//!
//! # Error of residual scores
//! A query row `q` becomes `s_q·q̂` with `q̂` int8 and `s_q = max|q| / 127`, the weights `w` of a token become `s_w·ŵ` with
//! `s_w = max|bucket weight| / 127`; every element of either is off by at most half a scale. The centroid's part of a
//! similarity is computed in f32 and the integer part exactly, so
//! `⟨q, w⟩ − s_q·s_w·⟨q̂, ŵ⟩ = ⟨q, w − s_w·ŵ⟩ + ⟨q − s_q·q̂, s_w·ŵ⟩`, and a row's similarity is off by
//! `|Δ| ≤ n·½·(s_w·‖q‖₁ + s_q·s_w·‖ŵ‖₁) ≤ n·d·max|q|·max|w| / 127`, where `n` is the product of the two rows' inverse
//! norms (1 without `normalize`), beside the rounding of f32 arithmetic.

use maxsim_core::{Codec, DType, DataRef, Forward, Residual, Scales, Tokens};

use crate::arch::Kernels;
use crate::documents::{Decoder, Source, pieces, stored, widen};
use crate::kernel::forward::Ahead;
use crate::kernel::integer::{DIM_LIMIT, Fields, Planes};
use crate::norm::inverse_norm_of;
use crate::pack::round_int8;

/// Up to this dimension sums in f32 are exact, too: `128 · 128 · d ≤ 2²⁴`.
const EXACT_DIM: usize = 1 << 10;

/// Whether tokens meet as integers. It makes a difference to time, and from [`EXACT_DIM`] on to bits, where it therefore does not
/// depend on whether winners are asked for.
pub(crate) fn is_int8(op: &Forward<'_>) -> bool {
    let integers = if cfg!(feature = "gradients") {
        op.q.dim() < DIM_LIMIT
    } else {
        !op.options.argmax && op.q.dim() <= EXACT_DIM
    };
    cfg!(feature = "corpora") && integers && op.q.dtype() == DType::I8 && op.d.dtype() == DType::I8
}

/// Bucket weights rounded to int8, ready for decoding.
pub(crate) struct Weights {
    planes: Planes,
    /// `s_w`: what a rounded weight is multiplied by.
    pub(crate) scale: f32,
    /// Dimension of every element of a decoded row; `u32::MAX` for those behind the last.
    pub(crate) order: Vec<u32>,
}

impl Weights {
    /// `None` where int8 cannot hold them: weights that are not finite, or a dimension whose sums could leave i32.
    pub(crate) fn new(codec: &Codec<'_>, kernels: &Kernels) -> Option<Self> {
        let weights = codec.bucket_weights();
        if codec.dim() >= DIM_LIMIT || weights.iter().any(|w| !w.is_finite()) {
            return None;
        }
        let mut rounded = vec![0i8; weights.len()];
        let scale = round_int8(weights, &mut rounded);
        let count = 8 / codec.nbits() as usize;
        let weight = |byte: u8, field: usize| {
            let bucket = codec.layout().bucket(byte, field, codec.nbits());
            rounded[usize::from(bucket)] as u8 ^ kernels.integer.bias
        };
        let fields = if count == 1 {
            Fields::Bytes(Box::new(std::array::from_fn(|byte| weight(byte as u8, 0))))
        } else {
            nibbles(count, weight)
        };
        let row_bytes = codec.residual_bytes();
        let order = (0..count * row_bytes)
            .map(|position| (position % row_bytes) * count + position / row_bytes)
            .map(|dim| if dim < codec.dim() { dim as u32 } else { u32::MAX })
            .collect();
        Some(Self { planes: Planes { row_bytes, fields }, scale, order })
    }
}

/// Weights by halves of a byte, for `count` fields of which none spans both.
fn nibbles(count: usize, weight: impl Fn(u8, usize) -> u8) -> Fields {
    // The two layouts differ in which half holds the first fields.
    let high_first = (0..=255u8).all(|byte| weight(byte, 0) == weight(byte & 0xf0, 0));
    let is_high = |field: usize| (field < count / 2) == high_first;
    let tables: Vec<[u8; 16]> = (0..count)
        .map(|k| std::array::from_fn(|half| weight((half as u8) << if is_high(k) { 4 } else { 0 }, k)))
        .collect();
    debug_assert!((0..count).all(|k| (0..=255u8).all(|byte| {
        let half = if is_high(k) { byte >> 4 } else { byte & 0xf };
        tables[k][usize::from(half)] == weight(byte, k)
    })));
    Fields::Nibbles { tables, high_first }
}

/// Rows of a document as integers.
pub(crate) struct IntegerBlock<'a> {
    /// `[count][groups]`.
    pub(crate) rows: &'a [u32],
    pub(crate) groups: usize,
    pub(crate) scales: &'a [f32],
    pub(crate) ids: &'a [i32],
    /// Per row: where its centroid's similarities stand (residual rows only).
    pub(crate) slots: &'a [u32],
    pub(crate) ahead: Ahead,
}

/// Memory for the block at hand.
#[derive(Default)]
pub(crate) struct IntegerScratch {
    rows: Vec<u32>,
    scales: Vec<f32>,
    ids: Vec<i32>,
    slots: Vec<u32>,
    decoded: (Vec<f32>, Vec<f32>),
}

/// Bytes of a block's rows: they stay in the first-level cache beside the query panel.
const BLOCK_BYTES: usize = 8 << 10;

enum Rows<'a> {
    Int8 { tokens: &'a Tokens<'a>, data: &'a [i8] },
    Residual { residual: &'a Residual<'a>, weights: &'a Weights, decoder: Decoder<'a>, slots: &'a Slots },
}

/// Brings documents to the integer kernels.
pub(crate) struct IntegerReader<'a> {
    source: Source<'a>,
    rows: Rows<'a>,
    normalize: bool,
    kernels: &'static Kernels,
    groups: usize,
    block: usize,
}

impl<'a> IntegerReader<'a> {
    /// Reads int8 tokens.
    pub(crate) fn int8(tokens: &'a Tokens<'a>, normalize: bool, kernels: &'static Kernels) -> Self {
        let DataRef::I8(data) = tokens.data() else { unreachable!("int8 documents") };
        Self::new(Source::Tokens(tokens), Rows::Int8 { tokens, data }, tokens.dim(), normalize, kernels)
    }

    /// Reads residual tokens.
    pub(crate) fn residual(
        residual: &'a Residual<'a>,
        weights: &'a Weights,
        slots: &'a Slots,
        normalize: bool,
        kernels: &'static Kernels,
    ) -> Self {
        let rows = Rows::Residual { residual, weights, decoder: Decoder::new(residual), slots };
        Self::new(Source::Residual(residual), rows, weights.order.len(), normalize, kernels)
    }

    fn new(
        source: Source<'a>,
        rows: Rows<'a>,
        elements: usize,
        normalize: bool,
        kernels: &'static Kernels,
    ) -> Self {
        let groups = elements.div_ceil(kernels.integer.group);
        let tiles = (BLOCK_BYTES / (4 * groups * kernels.rows)).max(1);
        Self { source, rows, normalize, kernels, groups, block: tiles * kernels.rows }
    }

    /// Calls `each` for the blocks of document `j`, in order.
    pub(crate) fn blocks(
        &self,
        j: usize,
        scratch: &mut IntegerScratch,
        mut each: impl FnMut(IntegerBlock<'_>),
    ) {
        let mut ids = std::mem::take(&mut scratch.ids);
        pieces(self.source.sequences(), j, self.block, &mut ids, |ids, first, contiguous| {
            // Stretches of rows that lie behind one another.
            let mut from = 0;
            scratch.rows.resize(ids.len() * self.groups + self.kernels.integer.slack.div_ceil(4), 0);
            scratch.scales.clear();
            scratch.slots.clear();
            while from < ids.len() {
                let stretch = ids[from..].iter().zip(ids[from]..);
                let count = match contiguous {
                    Some(_) => ids.len(),
                    None => stretch.take_while(|&(&id, next)| id == next).count(),
                };
                self.read(scratch, first + ids[from] as usize, from, count);
                from += count;
            }
            let ahead = match contiguous {
                Some(at) => stored(self.source).at_row(at + ids.len()),
                None => Ahead { from: scratch.rows.as_ptr().cast(), row: 0 },
            };
            each(IntegerBlock {
                rows: &scratch.rows[..ids.len() * self.groups],
                groups: self.groups,
                scales: &scratch.scales,
                ids,
                slots: &scratch.slots,
                ahead,
            });
        });
        scratch.ids = ids;
    }

    /// Reads slots `at..at + count` into the block's rows from `to` on.
    fn read(&self, scratch: &mut IntegerScratch, at: usize, to: usize, count: usize) {
        let kernels = self.kernels;
        let IntegerScratch { rows, scales, slots, decoded, .. } = scratch;
        let rows = &mut rows[to * self.groups..];
        match &self.rows {
            Rows::Int8 { tokens, data } => {
                let dim = tokens.dim();
                let from = &data[at * dim..(at + count) * dim];
                // SAFETY: `kernels` exist only for levels this machine runs.
                unsafe { (kernels.integer.widen)(from, dim, rows) };
                let first = scales.len();
                match tokens.scales() {
                    Some(Scales::PerToken(all)) => scales.extend_from_slice(&all[at..at + count]),
                    Some(Scales::PerTensor(one)) => scales.resize(first + count, one),
                    None => scales.resize(first + count, 1.0),
                }
                if self.normalize {
                    for (scale, row) in scales[first..].iter_mut().zip(from.chunks_exact(dim)) {
                        // SAFETY: as above.
                        let square = unsafe { (kernels.integer.square_norm)(row) };
                        *scale = inverse_norm_of(square as f32, *scale);
                    }
                }
            }
            Rows::Residual { residual, weights, decoder, slots: places } => {
                let width = weights.planes.row_bytes;
                let from = &residual.residuals()[at * width..(at + count) * width];
                // SAFETY: as above.
                unsafe { (kernels.integer.decode)(&weights.planes, from, self.groups, rows) };
                slots.extend(residual.codes()[at..at + count].iter().map(|&code| places.of(code)));
                match (self.normalize, residual.inv_norms()) {
                    (false, _) => scales.resize(scales.len() + count, 1.0),
                    (true, Some(DataRef::F32(stored))) => scales.extend_from_slice(&stored[at..at + count]),
                    (true, Some(stored @ DataRef::F16(_))) => {
                        let first = scales.len();
                        scales.resize(first + count, 0.0);
                        widen(stored.slice(at..at + count), &mut scales[first..], kernels);
                    }
                    (true, _) => {
                        scales.extend((at..at + count).map(|row| decoder.factor(row, decoded, kernels)));
                    }
                }
            }
        }
    }
}

/// Which centroids take part, and where their similarities stand in a table.
pub(crate) struct Slots {
    /// Centroid of every slot; empty: all, in their own order.
    pub(crate) codes: Vec<u32>,
    /// Slot of every centroid that takes part.
    places: Vec<u32>,
}

impl Slots {
    /// All centroids, in their own order.
    pub(crate) fn all() -> Self {
        Self { codes: Vec::new(), places: Vec::new() }
    }

    /// Slots for the tokens of some documents: only what they need, where that is less than all.
    pub(crate) fn new(residual: &Residual<'_>, documents: impl Iterator<Item = usize> + Clone) -> Self {
        let count = residual.codec().count();
        let sequences = residual.sequences();
        let mut tokens = 0;
        let all = documents.clone().any(|j| {
            tokens += sequences.rows(j).len();
            tokens >= count
        });
        let mut slots = Self::all();
        if all {
            return slots;
        }
        slots.places.resize(count, u32::MAX);
        for row in documents.flat_map(|j| sequences.rows(j)).filter(|&row| sequences.keeps(row)) {
            let place = &mut slots.places[residual.codes()[row] as usize];
            if *place == u32::MAX {
                *place = slots.codes.len() as u32;
                slots.codes.push(residual.codes()[row]);
            }
        }
        slots
    }

    /// How many there are, of `count` centroids.
    pub(crate) fn count(&self, count: usize) -> usize {
        if self.places.is_empty() { count } else { self.codes.len() }
    }

    /// Centroid of slot `slot`.
    pub(crate) fn code(&self, slot: usize) -> usize {
        if self.places.is_empty() { slot } else { self.codes[slot] as usize }
    }

    fn of(&self, code: u32) -> u32 {
        if self.places.is_empty() { code } else { self.places[code as usize] }
    }
}
