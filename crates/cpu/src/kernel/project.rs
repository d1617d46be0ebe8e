//! Projection of rows: `out = rows · Wᵀ + b`, one panel of `W` at a time.

use crate::arch::Simd;
use crate::kernel::forward::{Ahead, products};

/// One panel of output columns for a block of rows.
pub(crate) struct Projection<'a> {
    /// `[dim][vectors · LANES]`: columns of `Wᵀ`.
    panel: &'a [f32],
    vectors: usize,
    /// `[count][dim]`.
    rows: &'a [f32],
    dim: usize,
    /// `[vectors · LANES]`.
    bias: &'a [f32],
    /// `[count][stride]`; the panel's columns start at `column`.
    out: &'a mut [f32],
    stride: usize,
    column: usize,
    ahead: Ahead,
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
        bias: &'a [f32],
        out: &'a mut [f32],
        stride: usize,
        column: usize,
        ahead: Ahead,
    ) -> Self {
        let width = vectors * lanes;
        assert!((1..=2).contains(&vectors));
        assert_eq!(panel.len(), dim * width);
        assert_eq!(bias.len(), width);
        assert!(column + width <= stride);
        assert_eq!(rows.len() / dim * stride, out.len());
        assert_eq!(rows.len() % dim, 0);
        Self { panel, vectors, rows, dim, bias, out, stride, column, ahead }
    }
}

/// Computes the panel's columns of all rows.
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
    // SAFETY: rows `row..row + R` (or `row`) exist in every call.
    unsafe {
        while row + R <= count {
            rows::<S, V, R>(p, row);
            row += R;
        }
        if row < count && count >= R {
            // Computing a row twice gives the same bits.
            rows::<S, V, R>(p, count - R);
            row = count;
        }
        while row < count {
            rows::<S, V, 1>(p, row);
            row += 1;
        }
    }
}

/// # Safety
/// Rows `first..first + R` exist.
#[inline(always)]
unsafe fn rows<S: Simd, const V: usize, const R: usize>(p: &mut Projection<'_>, first: usize) {
    // SAFETY: `Projection::new` checked `panel`, `rows`, `bias`, and that `column + V · LANES` fits in each of `count` rows.
    unsafe {
        let ahead = Ahead { from: p.ahead.from.wrapping_add(first * p.ahead.row), row: p.ahead.row };
        let sums = products::<S, V, R>(p.panel.as_ptr(), p.rows.as_ptr().add(first * p.dim), p.dim, ahead);
        for r in 0..R {
            let out = p.out.as_mut_ptr().add((first + r) * p.stride + p.column);
            for v in 0..V {
                let bias = S::load(p.bias.as_ptr().add(v * S::LANES));
                S::store(out.add(v * S::LANES), S::add(sums[r][v], bias));
            }
        }
    }
}
