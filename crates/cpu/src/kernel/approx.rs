//! Maxima over rows of a table of centroid scores: approximate scores without a gathered copy.

use maxsim_core::Element;

use crate::arch::Simd;

/// Tokens that are fetched ahead: table rows lie anywhere in a table that may not fit in the second-level cache.
const AHEAD: usize = 12;

/// `best[s] = max(best[s], max_t table[codes[t], s])` for a table `[C, best.len()]`; NaN entries never win.
///
/// # Safety
/// Only where `S`'s instruction set is enabled; `load` reads `LANES` elements.
#[inline(always)]
pub(crate) unsafe fn maxima<S: Simd, T: Element>(
    table: &[T],
    codes: &[u32],
    best: &mut [f32],
    load: unsafe fn(*const T) -> S::F32,
) {
    let width = best.len();
    if width == 0 {
        return;
    }
    let rows = table.len() / width;
    assert!(codes.iter().all(|&code| (code as usize) < rows));
    if width < S::LANES {
        for &code in codes {
            let row = &table[code as usize * width..(code as usize + 1) * width];
            for (best, x) in best.iter_mut().zip(row) {
                let x = x.to_f32();
                if x > *best {
                    *best = x;
                }
            }
        }
        return;
    }
    let mut at = 0;
    // SAFETY: `at + V · LANES <= width` in every call, and codes are below `rows`.
    unsafe {
        while at + 4 * S::LANES <= width {
            columns::<S, T, 4>(table, codes, best, at, load);
            at += 4 * S::LANES;
        }
        if at + 2 * S::LANES <= width {
            columns::<S, T, 2>(table, codes, best, at, load);
            at += 2 * S::LANES;
        }
        while at < width {
            // The last vector may overlap the one before: a maximum taken twice is the same maximum.
            columns::<S, T, 1>(table, codes, best, at.min(width - S::LANES), load);
            at += S::LANES;
        }
    }
}

/// # Safety
/// Columns `at..at + V · LANES` exist, and all codes are rows of the table.
#[inline(always)]
unsafe fn columns<S: Simd, T: Element, const V: usize>(
    table: &[T],
    codes: &[u32],
    best: &mut [f32],
    at: usize,
    load: unsafe fn(*const T) -> S::F32,
) {
    let width = best.len();
    // SAFETY: by the caller's promise; prefetched addresses need not be valid.
    unsafe {
        let table = table.as_ptr().add(at);
        let to = best.as_mut_ptr().add(at);
        let mut sums = [S::zero(); V];
        for v in 0..V {
            sums[v] = S::load(to.add(v * S::LANES));
        }
        for (t, &code) in codes.iter().enumerate() {
            let next = codes[(t + AHEAD).min(codes.len() - 1)] as usize;
            S::prefetch(table.wrapping_add(next * width).cast());
            let row = table.add(code as usize * width);
            for v in 0..V {
                sums[v] = S::max_number(load(row.add(v * S::LANES)), sums[v]);
            }
        }
        for v in 0..V {
            S::store(to.add(v * S::LANES), sums[v]);
        }
    }
}
