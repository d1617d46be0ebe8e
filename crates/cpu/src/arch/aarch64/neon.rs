//! NEON: 4 lanes, 32 registers.

use std::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(super) struct Neon;

super::super::instantiate!(
    Neon, Neon, [12, 12],
    #[target_feature(enable = "neon")]
);
super::super::instantiate_integer!(
    Neon, [12, 12],
    #[target_feature(enable = "neon")]
);

// SAFETY (all methods): callers are compiled for NEON and pass valid pointers, as `Simd` demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Simd for Neon {
    const LANES: usize = 4;
    type F32 = float32x4_t;
    type I32 = int32x4_t;

    #[inline(always)]
    unsafe fn zero() -> float32x4_t {
        unsafe { vdupq_n_f32(0.0) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: float32x4_t) {
        unsafe { vst1q_f32(to, x) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn max_number(x: float32x4_t, best: float32x4_t) -> float32x4_t {
        // FMAXNM prefers the number over a quiet NaN.
        unsafe { vmaxnmq_f32(x, best) }
    }
    #[inline(always)]
    unsafe fn max_with_index(
        x: float32x4_t,
        best: float32x4_t,
        id: i32,
        index: int32x4_t,
    ) -> (float32x4_t, int32x4_t) {
        unsafe {
            let wins = vcgtq_f32(x, best);
            (vbslq_f32(wins, x, best), vbslq_s32(wins, vdupq_n_s32(id), index))
        }
    }
    #[inline(always)]
    unsafe fn splat_index(x: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    unsafe fn convert(x: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(x) }
    }
    #[inline(always)]
    unsafe fn load_index(from: *const i32) -> int32x4_t {
        unsafe { vld1q_s32(from) }
    }
    #[inline(always)]
    unsafe fn store_index(to: *mut i32, x: int32x4_t) {
        unsafe { vst1q_s32(to, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> float32x4_t {
        // Without a stable half-precision vector type: move exponent and mantissa into place, then let one multiplication
        // by 2^112 rebias the exponent; it is exact for subnormals too. Exponent 31 (inf, NaN) is widened by hand.
        unsafe {
            let bits = vmovl_u16(vld1_u16(from.cast()));
            let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
            let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
            let finite = vmulq_n_f32(vreinterpretq_f32_u32(magnitude), f32::from_bits(0x7780_0000));
            let special = vcgeq_u32(magnitude, vdupq_n_u32(0x7c00 << 13));
            let widened = vorrq_u32(magnitude, vdupq_n_u32(0x7f80_0000));
            vreinterpretq_f32_u32(vorrq_u32(sign, vbslq_u32(special, widened, vreinterpretq_u32_f32(finite))))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> float32x4_t {
        unsafe {
            let bytes = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }
}

// Pairs of 16-bit elements: what there is without the dot product instructions.
// SAFETY (all methods): as above; `BYTES` bytes where `Integer` says so.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Neon {
    type V = Self;
    const GROUP: usize = 2;
    const BIAS: u8 = 0;
    const BYTES: usize = 16;
    type Bytes = uint8x16_t;

    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, document: int32x4_t, query: int32x4_t) -> int32x4_t {
        unsafe {
            let (d, q) = (vreinterpretq_s16_s32(document), vreinterpretq_s16_s32(query));
            let low = vmull_s16(vget_low_s16(d), vget_low_s16(q));
            vaddq_s32(sum, vpaddq_s32(low, vmull_high_s16(d, q)))
        }
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
        unsafe {
            let x = vreinterpretq_s8_u8(x);
            vst1q_u8(to, vreinterpretq_u8_s16(vmovl_s8(vget_low_s8(x))));
            vst1q_u8(to.add(16), vreinterpretq_u8_s16(vmovl_high_s8(x)));
        }
    }
}
