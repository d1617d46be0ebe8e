//! The MaxSim tile over 8-bit integers: as [`forward`](super::forward), with four bytes per lane and step.
//!
//! A query panel is `[groups][width]`, a lane's entry being a group of two 16-bit or four 8-bit elements of one query token;
//! a document row is `[groups]`, padded with what meets zeros of the panel. One group of a document row is broadcast to all
//! lanes and multiplied into the i32 sums. Sums are exact, so nothing about their order matters; they become f32 once, when
//! the row's factor is applied.
//!
//! Residual rows have a second part, the similarity with their centroid, which comes from a table.

use crate::arch::{Integer, Simd};
use crate::kernel::forward::Ahead;

/// From this dimension on sums might leave i32: `128 · 128 · d < 2³¹`.
pub(crate) const DIM_LIMIT: usize = 1 << 17;

/// One query panel against a block of document rows.
pub(crate) struct IntegerTile<'a> {
    panel: &'a [u32],
    /// What the sums of every lane start at: it takes out the bias of document elements.
    starts: &'a [i32],
    vectors: usize,
    rows: &'a [u32],
    groups: usize,
    scales: &'a [f32],
    ids: &'a [i32],
    best: &'a mut [f32],
    index: &'a mut [i32],
    centroids: Option<CentroidTerm<'a>>,
    ahead: Ahead,
}

/// What residual rows add: similarity = `table[slot, lane] + lanes[lane] · sum`.
#[derive(Clone, Copy)]
pub(crate) struct CentroidTerm<'a> {
    /// `[slots][width]`.
    pub(crate) table: &'a [f32],
    /// Slot of every row.
    pub(crate) slots: &'a [u32],
    /// Factor of every lane's sums.
    pub(crate) lanes: &'a [f32],
}

impl<'a> IntegerTile<'a> {
    /// Checks every bound the kernels rely on. `lanes` is the level's.
    #[allow(clippy::too_many_arguments, reason = "operands of one kernel call")]
    pub(crate) fn new(
        lanes: usize,
        panel: &'a [u32],
        starts: &'a [i32],
        vectors: usize,
        rows: &'a [u32],
        groups: usize,
        scales: &'a [f32],
        ids: &'a [i32],
        best: &'a mut [f32],
        index: &'a mut [i32],
        centroids: Option<CentroidTerm<'a>>,
        ahead: Ahead,
    ) -> Self {
        let width = vectors * lanes;
        assert!((1..=2).contains(&vectors));
        assert_eq!(panel.len(), groups * width);
        assert_eq!(starts.len(), width);
        assert!(rows.len() >= scales.len() * groups);
        assert_eq!(ids.len(), scales.len());
        assert_eq!(best.len(), width);
        assert!(index.is_empty() || index.len() == width);
        if let Some(term) = &centroids {
            assert_eq!(term.slots.len(), scales.len());
            assert_eq!(term.lanes.len(), width);
            let slots = term.table.len() / width;
            assert!(term.slots.iter().all(|&slot| (slot as usize) < slots));
        }
        Self { panel, starts, vectors, rows, groups, scales, ids, best, index, centroids, ahead }
    }
}

/// Raises the panel's running maxima with all rows of the tile.
///
/// # Safety
/// Only where `I`'s instruction set is enabled; with `ARGMAX`, `index` is not empty; with `TERM`, there is a centroid term.
#[inline(always)]
pub(crate) unsafe fn block<
    I: Integer,
    const R1: usize,
    const R2: usize,
    const ARGMAX: bool,
    const TERM: bool,
>(
    tile: &mut IntegerTile<'_>,
) {
    // SAFETY: `IntegerTile::new` checked the bounds; the caller vouches for the level.
    unsafe {
        match tile.vectors {
            1 => cover::<I, 1, R1, ARGMAX, TERM>(tile),
            _ => cover::<I, 2, R2, ARGMAX, TERM>(tile),
        }
    }
}

#[inline(always)]
unsafe fn cover<I: Integer, const V: usize, const R: usize, const ARGMAX: bool, const TERM: bool>(
    tile: &mut IntegerTile<'_>,
) {
    let count = tile.scales.len();
    let mut row = 0;
    if TERM {
        // SAFETY: the caller vouches for the level and the term.
        (0..R).for_each(|row| unsafe { fetch_centroid::<I>(tile, V * <I::V as Simd>::LANES, row) });
    }
    // SAFETY: rows `row..row + R` (or 4, or 1) exist in every call.
    unsafe {
        while row + R <= count {
            rows::<I, V, R, ARGMAX, TERM>(tile, row);
            row += R;
        }
        // Comparing a row twice changes nothing, so the last tile may overlap the one before.
        if row < count && count >= R && count - row > R / 2 {
            return rows::<I, V, R, ARGMAX, TERM>(tile, count - R);
        }
        while row + 4 <= count {
            rows::<I, V, 4, ARGMAX, TERM>(tile, row);
            row += 4;
        }
        if row < count && count >= 4 {
            return rows::<I, V, 4, ARGMAX, TERM>(tile, count - 4);
        }
        while row < count {
            rows::<I, V, 1, ARGMAX, TERM>(tile, row);
            row += 1;
        }
    }
}

/// # Safety
/// Rows `first..first + R` exist.
#[inline(always)]
unsafe fn rows<I: Integer, const V: usize, const R: usize, const ARGMAX: bool, const TERM: bool>(
    tile: &mut IntegerTile<'_>,
    first: usize,
) {
    let lanes = <I::V as Simd>::LANES;
    let (groups, width) = (tile.groups, V * lanes);
    // SAFETY: `g < groups`, `r < R`, `v < V`: inside `panel`, `rows`, and the arrays per lane and row, whose lengths
    // `IntegerTile::new` checked; so it did with slots.
    unsafe {
        let mut sums = [[I::V::splat_index(0); V]; R];
        for v in 0..V {
            let start = I::V::load_index(tile.starts.as_ptr().add(v * lanes));
            for sums in &mut sums {
                sums[v] = start;
            }
        }
        let mut column = tile.panel.as_ptr().cast::<i32>();
        let document = tile.rows.as_ptr().cast::<i32>().add(first * groups);
        let mut fetch = tile.ahead.from.wrapping_add(first * tile.ahead.row);
        let fetch_step = R * tile.ahead.row / groups;
        for g in 0..groups {
            <I::V as Simd>::prefetch(fetch);
            fetch = fetch.wrapping_add(fetch_step);
            if TERM && g < R {
                fetch_centroid::<I>(tile, width, first + R + g);
            }
            let mut q = [I::V::splat_index(0); V];
            for v in 0..V {
                q[v] = I::V::load_index(column.add(v * lanes));
            }
            for r in 0..R {
                let elements = I::V::splat_index(*document.add(r * groups + g));
                for v in 0..V {
                    sums[r][v] = I::dot(sums[r][v], elements, q[v]);
                }
            }
            column = column.add(width);
        }
        for v in 0..V {
            let best_at = tile.best.as_mut_ptr().add(v * lanes);
            let mut best = I::V::load(best_at);
            if ARGMAX {
                let index_at = tile.index.as_mut_ptr().add(v * lanes);
                let mut index = I::V::load_index(index_at);
                for r in 0..R {
                    let id = *tile.ids.get_unchecked(first + r);
                    (best, index) = I::V::max_with_index(
                        similarity::<I, TERM>(tile, sums[r][v], width, v, first + r),
                        best,
                        id,
                        index,
                    );
                }
                I::V::store_index(index_at, index);
            } else {
                for r in 0..R {
                    best =
                        I::V::max_number(similarity::<I, TERM>(tile, sums[r][v], width, v, first + r), best);
                }
            }
            I::V::store(best_at, best);
        }
    }
}

/// Fetches the table row that row `row` of the tile will add: tables do not fit in the first-level cache.
///
/// # Safety
/// Only where `I`'s instruction set is enabled and there is a centroid term.
#[inline(always)]
unsafe fn fetch_centroid<I: Integer>(tile: &IntegerTile<'_>, width: usize, row: usize) {
    /// f32 values of a cache line.
    const LINE: usize = 16;
    // SAFETY: by the caller's promise; prefetched addresses need not be valid.
    unsafe {
        let term = tile.centroids.as_ref().unwrap_unchecked();
        let Some(&slot) = term.slots.get(row) else { return };
        for at in (0..width).step_by(LINE) {
            <I::V as Simd>::prefetch(term.table.as_ptr().wrapping_add(slot as usize * width + at).cast());
        }
    }
}

/// The similarities that a row's sums in vector `v` stand for.
///
/// # Safety
/// Row and vector exist; with `TERM`, there is a centroid term.
#[inline(always)]
unsafe fn similarity<I: Integer, const TERM: bool>(
    tile: &IntegerTile<'_>,
    sum: <I::V as Simd>::I32,
    width: usize,
    v: usize,
    row: usize,
) -> <I::V as Simd>::F32 {
    let lanes = <I::V as Simd>::LANES;
    // SAFETY: `IntegerTile::new` checked the lengths of all arrays, and that every slot is a row of the table.
    unsafe {
        let mut x = I::V::convert(sum);
        if TERM {
            let term = tile.centroids.as_ref().unwrap_unchecked();
            let slot = *term.slots.get_unchecked(row) as usize;
            let centroid = I::V::load(term.table.as_ptr().add(slot * width + v * lanes));
            x = I::V::mul_add(I::V::load(term.lanes.as_ptr().add(v * lanes)), x, centroid);
        }
        I::V::mul(x, I::V::splat(*tile.scales.get_unchecked(row)))
    }
}

/// Rows of `dim` int8 elements to document rows of whole groups.
///
/// # Safety
/// Only where `I`'s instruction set is enabled.
#[inline(always)]
pub(crate) unsafe fn widen<I: Integer>(from: &[i8], dim: usize, to: &mut [u32]) {
    let groups = dim.div_ceil(I::GROUP);
    let count = from.len() / dim;
    assert!(from.len() == count * dim && to.len() >= count * groups);
    // Rows of whole groups follow each other in both: one long row.
    let (dim, groups) =
        if dim.is_multiple_of(I::GROUP) { (from.len(), count * groups) } else { (dim, groups) };
    for (row, to) in from.chunks_exact(dim.max(1)).zip(to.chunks_exact_mut(groups.max(1))) {
        // SAFETY: `groups` words hold `groups · GROUP >= dim` elements of `4 / GROUP` bytes; what lies behind `dim` meets
        // zeros of the panel, so it may be anything.
        unsafe {
            if I::GROUP == 4 {
                let to = std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u8>(), groups * 4);
                for (y, &x) in to.iter_mut().zip(row) {
                    *y = x as u8 ^ I::BIAS;
                }
            } else {
                let to = std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<i16>(), groups * 2);
                for (y, &x) in to.iter_mut().zip(row) {
                    *y = i16::from(x);
                }
            }
        }
    }
}

/// Sum of squares, exact below [`DIM_LIMIT`] elements.
#[inline(always)]
pub(crate) fn square_norm(row: &[i8]) -> i32 {
    row.iter().map(|&x| i32::from(x) * i32::from(x)).sum()
}

/// How packed residual bytes become int8 weights: plane `k` of a decoded row holds the weights of field `k` of every byte.
/// The query panel has its dimensions in the same order, so nothing needs interleaving.
pub(crate) struct Planes {
    /// Packed bytes of a token.
    pub(crate) row_bytes: usize,
    pub(crate) fields: Fields,
}

/// Weights of the fields of a byte.
pub(crate) enum Fields {
    /// Each field depends on one half of the byte alone: weights by the half's value, field by field. The first half of
    /// the fields lie in the upper half of the byte if `high_first`, otherwise in the lower.
    Nibbles { tables: Vec<[u8; 16]>, high_first: bool },
    /// One field.
    Bytes(Box<[u8; 256]>),
}

impl Planes {
    /// Fields of a byte.
    pub(crate) fn count(&self) -> usize {
        match &self.fields {
            Fields::Nibbles { tables, .. } => tables.len(),
            Fields::Bytes(_) => 1,
        }
    }
}

/// Decodes rows of packed bytes, each to `groups` words. `to` has room for a vector of elements behind the last row.
///
/// # Safety
/// Only where `I`'s instruction set is enabled.
#[inline(always)]
pub(crate) unsafe fn decode<I: Integer>(planes: &Planes, bytes: &[u8], groups: usize, to: &mut [u32]) {
    let element = 4 / I::GROUP;
    let count = bytes.len() / planes.row_bytes;
    assert!(planes.count() * planes.row_bytes <= groups * I::GROUP);
    assert!(to.len() * 4 >= count * groups * 4 + I::BYTES * element);
    // SAFETY: the room that the functions below ask for was just checked.
    unsafe {
        match &planes.fields {
            Fields::Nibbles { tables, high_first } => match tables.len() {
                2 => nibbles::<I, 2>(tables, *high_first, planes.row_bytes, bytes, groups, to),
                4 => nibbles::<I, 4>(tables, *high_first, planes.row_bytes, bytes, groups, to),
                _ => nibbles::<I, 8>(tables, *high_first, planes.row_bytes, bytes, groups, to),
            },
            Fields::Bytes(table) => {
                let store = |to: *mut u8, at: usize, byte: u8| {
                    let weight = table[usize::from(byte)];
                    if I::GROUP == 4 {
                        to.add(at).write(weight);
                    } else {
                        to.cast::<i16>().add(at).write(i16::from(weight as i8));
                    }
                };
                for (r, row) in bytes.chunks_exact(planes.row_bytes).enumerate() {
                    let to = to.as_mut_ptr().add(r * groups).cast::<u8>();
                    // Eight bytes from one register: compilers make slow gathers of single bytes.
                    let (eights, rest) = row.as_chunks::<8>();
                    for (e, eight) in eights.iter().enumerate() {
                        let eight = u64::from_le_bytes(*eight);
                        for i in 0..8 {
                            store(to, 8 * e + i, (eight >> (8 * i)) as u8);
                        }
                    }
                    for (i, &byte) in rest.iter().enumerate() {
                        store(to, 8 * eights.len() + i, byte);
                    }
                }
            }
        }
    }
}

/// # Safety
/// Only where `I`'s instruction set is enabled; there are `F` tables; `to` has `groups` words per row, which `F · row_bytes`
/// elements fit in, and room for a vector of elements behind the last.
#[inline(always)]
unsafe fn nibbles<I: Integer, const F: usize>(
    tables: &[[u8; 16]],
    high_first: bool,
    row_bytes: usize,
    bytes: &[u8],
    groups: usize,
    to: &mut [u32],
) {
    let element = 4 / I::GROUP;
    // SAFETY: loads stay in a row of `bytes`. With whole vectors, stores stay in a plane, whose last vector may overlap the
    // one before. A row shorter than a vector spills into what is written after it, planes and rows being in order, or at
    // last into the room behind.
    unsafe {
        let mut table = [I::table(&tables[0]); F];
        for k in 1..F {
            table[k] = I::table(&tables[k]);
        }
        for (r, row) in bytes.chunks_exact(row_bytes).enumerate() {
            let to = to.as_mut_ptr().add(r * groups).cast::<u8>();
            let mut at = 0;
            while at < row_bytes {
                let from = at.min(row_bytes.saturating_sub(I::BYTES));
                let x = I::load_bytes(row.as_ptr().add(from), row_bytes - from);
                let (low, high) = (I::low_nibbles(x), I::high_nibbles(x));
                let (first, second) = if high_first { (high, low) } else { (low, high) };
                for k in 0..F {
                    let half = if k < F / 2 { first } else { second };
                    let plane = to.add((k * row_bytes + from) * element);
                    I::store_elements(plane, I::lookup(table[k], half));
                }
                at += I::BYTES;
            }
        }
    }
}
