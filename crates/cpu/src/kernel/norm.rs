//! Row norms.

use crate::arch::Simd;

/// Sum of squares; may overflow to infinity, which callers handle.
///
/// # Safety
/// Only where `S`'s instruction set is enabled.
#[inline(always)]
pub(crate) unsafe fn square_norm<S: Simd>(row: &[f32]) -> f32 {
    let blocks = row.len() / S::LANES;
    let tail = &row[blocks * S::LANES..];
    // SAFETY: block `b` ends at `(b + 1) · LANES <= row.len()`; `lanes` holds the widest vector.
    let head = unsafe {
        let mut sums = S::zero();
        for b in 0..blocks {
            let x = S::load(row.as_ptr().add(b * S::LANES));
            sums = S::mul_add(x, x, sums);
        }
        let mut lanes = [0f32; 16];
        S::store(lanes.as_mut_ptr(), sums);
        lanes[..S::LANES].iter().sum::<f32>()
    };
    head + tail.iter().map(|x| x * x).sum::<f32>()
}
