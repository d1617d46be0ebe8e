//! Conversions of rows to f32.

use std::sync::OnceLock;

use maxsim_core::{E4M3, Element};

use crate::arch::Simd;

/// Converts `from` to f32 with `load` for whole vectors and scalar code for the tail.
///
/// # Safety
/// Only where `S`'s instruction set is enabled.
#[inline(always)]
pub(crate) unsafe fn widen<S: Simd, T: Element>(
    from: &[T],
    to: &mut [f32],
    load: unsafe fn(*const T) -> S::F32,
) {
    assert_eq!(from.len(), to.len());
    let blocks = from.len() / S::LANES;
    for b in 0..blocks {
        // SAFETY: block `b` ends at `(b + 1) · LANES <= len` of both slices.
        unsafe { S::store(to.as_mut_ptr().add(b * S::LANES), load(from.as_ptr().add(b * S::LANES))) };
    }
    for i in blocks * S::LANES..from.len() {
        to[i] = from[i].to_f32();
    }
}

/// e4m3 through a table of all 256 values.
pub(crate) fn widen_e4m3(from: &[E4M3], to: &mut [f32]) {
    static TABLE: OnceLock<[f32; 256]> = OnceLock::new();
    let table = TABLE.get_or_init(|| std::array::from_fn(|byte| E4M3(byte as u8).to_f32()));
    assert_eq!(from.len(), to.len());
    for (x, y) in from.iter().zip(to) {
        *y = table[usize::from(x.0)];
    }
}
