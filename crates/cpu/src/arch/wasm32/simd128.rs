//! WebAssembly 128-bit SIMD: 4 lanes; engines map its values onto 16 machine registers.

use std::arch::wasm32::*;

#[derive(Clone, Copy)]
struct Simd128;

super::super::instantiate!(
    Simd128, Simd128, [8, 4],
    #[target_feature(enable = "simd128")]
);
super::super::instantiate_integer!(
    Simd128, [8, 4],
    #[target_feature(enable = "simd128")]
);

// SAFETY (all methods): callers are compiled for simd128 and pass valid pointers, as `Simd` demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Simd for Simd128 {
    const LANES: usize = 4;
    type F32 = v128;
    type I32 = v128;

    #[inline(always)]
    unsafe fn zero() -> v128 {
        f32x4_splat(0.0)
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> v128 {
        f32x4_splat(x)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> v128 {
        unsafe { v128_load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: v128) {
        unsafe { v128_store(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn add(a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }
    #[inline(always)]
    unsafe fn max_number(x: v128, best: v128) -> v128 {
        // pmax(a, b) is `a < b ? b : a`: false on NaN, so `best` stays.
        f32x4_pmax(best, x)
    }
    #[inline(always)]
    unsafe fn max_with_index(x: v128, best: v128, id: i32, index: v128) -> (v128, v128) {
        let wins = f32x4_gt(x, best);
        (v128_bitselect(x, best, wins), v128_bitselect(i32x4_splat(id), index, wins))
    }
    #[inline(always)]
    unsafe fn splat_index(x: i32) -> v128 {
        i32x4_splat(x)
    }
    #[inline(always)]
    unsafe fn convert(x: v128) -> v128 {
        f32x4_convert_i32x4(x)
    }
    #[inline(always)]
    unsafe fn load_index(from: *const i32) -> v128 {
        unsafe { v128_load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_index(to: *mut i32, x: v128) {
        unsafe { v128_store(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> v128 {
        // Move exponent and mantissa into place, then let one multiplication by 2^112 rebias the exponent; it is exact for
        // subnormals too. Exponent 31 (inf, NaN) is widened by hand.
        let bits = unsafe { u32x4_load_extend_u16x4(from.cast()) };
        let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
        let magnitude = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
        let finite = f32x4_mul(magnitude, f32x4_splat(f32::from_bits(0x7780_0000)));
        let special = u32x4_ge(magnitude, u32x4_splat(0x7c00 << 13));
        let widened = v128_or(magnitude, u32x4_splat(0x7f80_0000));
        v128_or(sign, v128_bitselect(widened, finite, special))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> v128 {
        u32x4_shl(unsafe { u32x4_load_extend_u16x4(from.cast()) }, 16)
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> v128 {
        let bytes = unsafe { v128_load32_zero(from.cast()) };
        f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes)))
    }
}

// Pairs of 16-bit elements: i32x4.dot_i16x8_s.
// SAFETY (all methods): as above; `BYTES` bytes where `Integer` says so.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Simd128 {
    type V = Self;
    const GROUP: usize = 2;
    const BIAS: u8 = 0;
    const BYTES: usize = 16;
    type Bytes = v128;

    #[inline(always)]
    unsafe fn dot(sum: v128, document: v128, query: v128) -> v128 {
        i32x4_add(sum, i32x4_dot_i16x8(document, query))
    }
    #[inline(always)]
    unsafe fn table(from: &[u8; 16]) -> v128 {
        unsafe { v128_load(from.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> v128 {
        unsafe {
            if count >= 16 {
                return v128_load(from.cast());
            }
            let mut bytes = [0u8; 16];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
            v128_load(bytes.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(x: v128) -> v128 {
        v128_and(x, u8x16_splat(0x0f))
    }
    #[inline(always)]
    unsafe fn high_nibbles(x: v128) -> v128 {
        u8x16_shr(x, 4)
    }
    #[inline(always)]
    unsafe fn lookup(table: v128, index: v128) -> v128 {
        i8x16_swizzle(table, index)
    }
    #[inline(always)]
    unsafe fn store_elements(to: *mut u8, x: v128) {
        unsafe {
            v128_store(to.cast(), i16x8_extend_low_i8x16(x));
            v128_store(to.add(16).cast(), i16x8_extend_high_i8x16(x));
        }
    }
}
