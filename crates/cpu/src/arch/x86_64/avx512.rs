//! AVX-512 F, BW, DQ, VL: 16 lanes, 32 registers.

use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

super::super::instantiate!(
    Avx512, Avx512, [12, 12],
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
);
super::super::instantiate_integer!(
    Avx512, [12, 12],
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
);

// SAFETY (all methods): callers are compiled for AVX-512 F, BW, DQ, VL and pass valid pointers, as `Simd` demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Simd for Avx512 {
    const LANES: usize = 16;
    type F32 = __m512;
    type I32 = __m512i;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max_number(x: __m512, best: __m512) -> __m512 {
        // VMAXPS returns its second operand when either is NaN.
        unsafe { _mm512_max_ps(x, best) }
    }
    #[inline(always)]
    unsafe fn max_with_index(x: __m512, best: __m512, id: i32, index: __m512i) -> (__m512, __m512i) {
        unsafe {
            let wins = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, best);
            (_mm512_mask_mov_ps(best, wins, x), _mm512_mask_set1_epi32(index, wins, id))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_index(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn convert(x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_index(from: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_index(to: *mut i32, x: __m512i) {
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> __m512 {
        // bf16 is the upper half of an f32.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }
}

// Pairs of 16-bit elements: what there is without VNNI.
// SAFETY (all methods): as above; `BYTES` bytes where `Integer` says so.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Avx512 {
    type V = Self;
    const GROUP: usize = 2;
    const BIAS: u8 = 0;
    const BYTES: usize = 32;
    type Bytes = __m256i;

    #[inline(always)]
    unsafe fn dot(sum: __m512i, document: __m512i, query: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(document, query)) }
    }
    #[inline(always)]
    unsafe fn table(from: &[u8; 16]) -> __m256i {
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> __m256i {
        // Masked bytes are not touched.
        unsafe { _mm256_maskz_loadu_epi8(u32::MAX >> (32 - count.min(32)), from.cast()) }
    }
    #[inline(always)]
    unsafe fn low_nibbles(x: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(x, _mm256_set1_epi8(0x0f)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(x: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(x), _mm256_set1_epi8(0x0f)) }
    }
    #[inline(always)]
    unsafe fn lookup(table: __m256i, index: __m256i) -> __m256i {
        unsafe { _mm256_shuffle_epi8(table, index) }
    }
    #[inline(always)]
    unsafe fn store_elements(to: *mut u8, x: __m256i) {
        unsafe { _mm512_storeu_si512(to.cast(), _mm512_cvtepi8_epi16(x)) }
    }
}
