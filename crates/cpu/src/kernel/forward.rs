//! The fused MaxSim tile: similarities live in registers for as long as it takes to compare them.
//!
//! A query panel holds up to two vectors of query tokens, stored dimension-major (`[d][width]`), so one load brings the
//! same dimension of many query tokens. Document rows are read as they lie in memory, one broadcast element at a time. With
//! query tokens in the lanes, the maximum over document tokens is a plain vector maximum between accumulators: no
//! horizontal reduction, and no similarity is ever stored.
//!
//! Every similarity is one chain of multiply-adds over `k = 0, 1, …, d-1`, whatever the tile it falls into, so its bits do
//! not depend on neighbours.

use crate::arch::Simd;

/// One query panel against a block of document rows.
pub(crate) struct Tile<'a> {
    /// `[dim][vectors · LANES]`.
    panel: &'a [f32],
    vectors: usize,
    /// At least `(count - 1) · dim + dim` elements: rows of one document behind one another.
    rows: &'a [f32],
    dim: usize,
    /// Factor of every row's similarities (inverse norm, scale or 1).
    scales: &'a [f32],
    /// Document-local token index of every row.
    ids: &'a [i32],
    /// Running maxima, `[vectors · LANES]`.
    best: &'a mut [f32],
    /// Winners, `[vectors · LANES]`; empty when not asked for.
    index: &'a mut [i32],
    /// What to fetch meanwhile.
    ahead: Ahead,
}

/// Memory that will be read soon. Fetching it early hides the latency of main memory, which hardware prefetchers do not
/// manage for a tile's many short streams. Only an address: it is never dereferenced and may lie outside any allocation.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// What corresponds to the first row.
    pub(crate) from: *const u8,
    /// Bytes per row.
    pub(crate) row: usize,
}

impl Ahead {
    /// The same from row `row` on.
    pub(crate) fn at_row(self, row: usize) -> Self {
        Self { from: self.from.wrapping_add(row * self.row), ..self }
    }
}

impl<'a> Tile<'a> {
    /// Checks every bound the kernels rely on. `lanes` is the level's.
    #[allow(clippy::too_many_arguments, reason = "operands of one kernel call")]
    pub(crate) fn new(
        lanes: usize,
        panel: &'a [f32],
        vectors: usize,
        rows: &'a [f32],
        dim: usize,
        scales: &'a [f32],
        ids: &'a [i32],
        best: &'a mut [f32],
        index: &'a mut [i32],
        ahead: Ahead,
    ) -> Self {
        let width = vectors * lanes;
        assert!((1..=2).contains(&vectors));
        assert_eq!(panel.len(), dim * width);
        assert_eq!(rows.len(), scales.len() * dim);
        assert_eq!(ids.len(), scales.len());
        assert_eq!(best.len(), width);
        assert!(index.is_empty() || index.len() == width);
        Self { panel, vectors, rows, dim, scales, ids, best, index, ahead }
    }
}

/// Raises the panel's running maxima with all rows of the tile.
///
/// # Safety
/// Only where `S`'s instruction set is enabled; with `ARGMAX`, `index` is not empty.
#[inline(always)]
pub(crate) unsafe fn block<S: Simd, const R1: usize, const R2: usize, const ARGMAX: bool>(
    tile: &mut Tile<'_>,
) {
    // SAFETY: `Tile::new` checked the bounds; the caller vouches for the level.
    unsafe {
        match tile.vectors {
            1 => panel::<S, 1, R1, ARGMAX>(tile),
            _ => panel::<S, 2, R2, ARGMAX>(tile),
        }
    }
}

#[inline(always)]
unsafe fn panel<S: Simd, const V: usize, const R: usize, const ARGMAX: bool>(tile: &mut Tile<'_>) {
    let count = tile.scales.len();
    // SAFETY: `cover` is only called with at least as many rows as its tile has.
    unsafe {
        match count {
            0 => {}
            n if n >= R => cover::<S, V, R, ARGMAX>(tile),
            // Documents shorter than a tile.
            n if n >= 4 => cover::<S, V, 4, ARGMAX>(tile),
            _ => cover::<S, V, 1, ARGMAX>(tile),
        }
    }
}

/// Covers all rows with tiles of `R`. Comparing a row twice changes nothing, so the last tile may overlap the one before.
///
/// # Safety
/// There are at least `R` rows.
#[inline(always)]
unsafe fn cover<S: Simd, const V: usize, const R: usize, const ARGMAX: bool>(tile: &mut Tile<'_>) {
    let count = tile.scales.len();
    debug_assert!(count >= R);
    let mut row = 0;
    // SAFETY: `row + R <= count`, and `count - R >= 0` by the caller's promise.
    unsafe {
        while row + R <= count {
            rows::<S, V, R, ARGMAX>(tile, row);
            row += R;
        }
        if row < count {
            rows::<S, V, R, ARGMAX>(tile, count - R);
        }
    }
}

/// Inner products of `R` rows with the columns of a panel, fetching `ahead` on the way.
///
/// # Safety
/// Only where `S`'s instruction set is enabled; `panel` has `dim · V · LANES` elements, `rows` has `R · dim`.
#[inline(always)]
unsafe fn products<S: Simd, const V: usize, const R: usize>(
    panel: *const f32,
    rows: *const f32,
    dim: usize,
    ahead: Ahead,
) -> [[S::F32; V]; R] {
    // SAFETY: `k < dim`, `r < R`, `v < V`, inside what the caller promises; a prefetched address need not be valid.
    unsafe {
        let mut sums = [[S::zero(); V]; R];
        let mut column = panel;
        let mut fetch = ahead.from;
        let fetch_step = R * ahead.row / dim;
        for k in 0..dim {
            S::prefetch(fetch);
            fetch = fetch.wrapping_add(fetch_step);
            let mut q = [S::zero(); V];
            for v in 0..V {
                q[v] = S::load(column.add(v * S::LANES));
            }
            for r in 0..R {
                let element = S::splat(*rows.add(r * dim + k));
                for v in 0..V {
                    sums[r][v] = S::mul_add(element, q[v], sums[r][v]);
                }
            }
            column = column.add(V * S::LANES);
        }
        sums
    }
}

/// # Safety
/// Rows `first..first + R` exist.
#[inline(always)]
unsafe fn rows<S: Simd, const V: usize, const R: usize, const ARGMAX: bool>(
    tile: &mut Tile<'_>,
    first: usize,
) {
    let dim = tile.dim;
    // SAFETY: `k < dim`, `r < R`, `v < V`: inside `panel` (`dim · V · LANES`), `rows`, `scales`, `ids`, `best`, `index`.
    unsafe {
        let ahead = Ahead { from: tile.ahead.from.wrapping_add(first * tile.ahead.row), row: tile.ahead.row };
        let sums = products::<S, V, R>(tile.panel.as_ptr(), tile.rows.as_ptr().add(first * dim), dim, ahead);
        for v in 0..V {
            let best_at = tile.best.as_mut_ptr().add(v * S::LANES);
            let mut best = S::load(best_at);
            if ARGMAX {
                let index_at = tile.index.as_mut_ptr().add(v * S::LANES);
                let mut index = S::load_index(index_at);
                for r in 0..R {
                    let scaled = S::mul(sums[r][v], S::splat(*tile.scales.get_unchecked(first + r)));
                    (best, index) =
                        S::max_with_index(scaled, best, *tile.ids.get_unchecked(first + r), index);
                }
                S::store_index(index_at, index);
            } else {
                for r in 0..R {
                    let scaled = S::mul(sums[r][v], S::splat(*tile.scales.get_unchecked(first + r)));
                    best = S::max_number(scaled, best);
                }
            }
            S::store(best_at, best);
        }
    }
}
