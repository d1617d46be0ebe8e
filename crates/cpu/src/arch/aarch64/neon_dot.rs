//! NEON with dot products: four 8-bit products per lane and instruction, for integers; otherwise as [`super::neon`].

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::Neon;
use crate::arch::{Integer, Kernels};
use crate::level::Level;

struct Dot;

super::super::instantiate_integer!(
    Dot, [12, 12],
    #[target_feature(enable = "neon,dotprod")]
);

/// The kernels of this level.
pub(crate) static KERNELS: Kernels =
    Kernels { level: Level::NeonDot, integer: &INTEGER, ..super::neon::KERNELS };

// SAFETY (all methods): callers are compiled for NEON with dot products and pass valid pointers, as `Integer` demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Dot {
    type V = Neon;
    const GROUP: usize = 4;
    const BIAS: u8 = 0;
    const BYTES: usize = 16;
    type Bytes = uint8x16_t;

    #[inline(always)]
    unsafe fn dot(mut sum: int32x4_t, document: int32x4_t, query: int32x4_t) -> int32x4_t {
        // The intrinsic is not stable.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {document:v}.16b, {query:v}.16b",
                sum = inout(vreg) sum,
                document = in(vreg) document,
                query = in(vreg) query,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
    #[inline(always)]
    unsafe fn table(from: &[u8; 16]) -> uint8x16_t {
        unsafe { vld1q_u8(from.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> uint8x16_t {
        unsafe {
            if count >= 16 {
                return vld1q_u8(from);
            }
            let mut bytes = [0u8; 16];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
            vld1q_u8(bytes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(x: uint8x16_t) -> uint8x16_t {
        unsafe { vandq_u8(x, vdupq_n_u8(0x0f)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(x: uint8x16_t) -> uint8x16_t {
        unsafe { vshrq_n_u8::<4>(x) }
    }
    #[inline(always)]
    unsafe fn lookup(table: uint8x16_t, index: uint8x16_t) -> uint8x16_t {
        unsafe { vqtbl1q_u8(table, index) }
    }
    #[inline(always)]
    unsafe fn store_elements(to: *mut u8, x: uint8x16_t) {
        unsafe { vst1q_u8(to, x) }
    }
}
