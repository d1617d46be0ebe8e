//! Projection of rows: `out = rows · Wᵀ + b`, one slab of dimensions of one panel of `W` at a time.
//!
//! Cutting the dimensions into slabs keeps a slab of a panel in the first-level cache while a whole block of rows passes it.
//! Every output element is still one chain of multiply-adds in the order of the dimensions.

use crate::arch::Simd;

/// One slab of one panel of output columns for a block of rows.
pub(crate) struct Projection<'a> {
    /// `[slab][vectors · LANES]`: columns of `Wᵀ`.
    panel: &'a [f32],
    vectors: usize,
    /// `[count][dim]`.
    rows: &'a [f32],
    dim: usize,
    /// First dimension of the slab; at 0 sums start from nothing, otherwise from `out`.
    first: usize,
    /// `[vectors · LANES]`, added at the end of the last slab.
    bias: &'a [f32],
    /// `[count][stride]`; the panel's columns start at `column`.
    out: &'a mut [f32],
    stride: usize,
    column: usize,
}

impl<'a> Projection<'a> {
    /// Checks every bound the kernel relies on. `lanes` is the level's.
    #[allow(clippy::too_many_arguments, reason = "operands of one kernel call")]
    pub(crate) fn new(
        lanes: usize,
        panel: &'a [f32],
        vectors: usize,
        rows: &'a [f32],
        dim: usize,
        first: usize,
        bias: &'a [f32],
        out: &'a mut [f32],
        stride: usize,
        column: usize,
    ) -> Self {
        let width = vectors * lanes;
        assert!((1..=2).contains(&vectors));
        assert_eq!(panel.len() % width, 0);
        assert!(first + panel.len() / width <= dim);
        assert_eq!(bias.len(), width);
        assert!(column + width <= stride);
        assert_eq!(rows.len() % dim, 0);
        assert_eq!(rows.len() / dim * stride, out.len());
        Self { panel, vectors, rows, dim, first, bias, out, stride, column }
    }
}

/// Adds the slab's part to the panel's columns of all rows.
///
/// # Safety
/// Only where `S`'s instruction set is enabled.
#[inline(always)]
pub(crate) unsafe fn project<S: Simd, const R1: usize, const R2: usize>(p: &mut Projection<'_>) {
    // SAFETY: `Projection::new` checked the bounds; the caller vouches for the level.
    unsafe {
        match p.vectors {
            1 => cover::<S, 1, R1>(p),
            _ => cover::<S, 2, R2>(p),
        }
    }
}

#[inline(always)]
unsafe fn cover<S: Simd, const V: usize, const R: usize>(p: &mut Projection<'_>) {
    let count = p.rows.len() / p.dim;
    let mut row = 0;
    // SAFETY: rows `row..row + R` (or `row`) exist in every call. Tiles do not overlap: a slab may be added only once.
    unsafe {
        while row + R <= count {
            rows::<S, V, R>(p, row);
            row += R;
        }
        while row + 4 <= count {
            rows::<S, V, 4>(p, row);
            row += 4;
        }
        while row < count {
            rows::<S, V, 1>(p, row);
            row += 1;
        }
    }
}

/// # Safety
/// Rows `at..at + R` exist.
#[inline(always)]
unsafe fn rows<S: Simd, const V: usize, const R: usize>(p: &mut Projection<'_>, at: usize) {
    let slab = p.panel.len() / (V * S::LANES);
    let (begins, ends) = (p.first == 0, p.first + slab == p.dim);
    // SAFETY: `Projection::new` checked that `first + slab <= dim`, that `panel` holds `slab · V · LANES` and `bias`
    // `V · LANES` elements, and that `column + V · LANES` fits in each of `count` rows of `out`.
    unsafe {
        let out = p.out.as_mut_ptr().add(at * p.stride + p.column);
        let mut sums = [[S::zero(); V]; R];
        if !begins {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = S::load(out.add(r * p.stride + v * S::LANES));
                }
            }
        }
        let from = p.rows.as_ptr().add(at * p.dim + p.first);
        let mut column = p.panel.as_ptr();
        for k in 0..slab {
            let mut w = [S::zero(); V];
            for v in 0..V {
                w[v] = S::load(column.add(v * S::LANES));
            }
            for r in 0..R {
                let element = S::splat(*from.add(r * p.dim + k));
                for v in 0..V {
                    sums[r][v] = S::mul_add(element, w[v], sums[r][v]);
                }
            }
            column = column.add(V * S::LANES);
        }
        for v in 0..V {
            let bias = S::load(p.bias.as_ptr().add(v * S::LANES));
            for r in 0..R {
                let sum = if ends { S::add(sums[r][v], bias) } else { sums[r][v] };
                S::store(out.add(r * p.stride + v * S::LANES), sum);
            }
        }
    }
}
