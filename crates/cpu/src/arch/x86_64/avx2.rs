//! AVX2 + FMA + F16C: 8 lanes, 16 registers, two FMAs a cycle on every core since Haswell and Zen 2.

use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx2;

// Twelve accumulators hide the FMA latency (4–5 cycles × 2 units) and leave registers for operands.
super::super::instantiate!(
    Avx2, Avx2, [12, 6],
    #[target_feature(enable = "avx2,fma,f16c")]
);
super::super::instantiate_integer!(
    Avx2, [12, 6],
    #[target_feature(enable = "avx2,fma,f16c")]
);

// SAFETY (all methods): callers are compiled for AVX2, FMA and F16C and pass valid pointers, as `Simd` demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Simd for Avx2 {
    const LANES: usize = 8;
    type F32 = __m256;
    type I32 = __m256i;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max_number(x: __m256, best: __m256) -> __m256 {
        // VMAXPS returns its second operand when either is NaN.
        unsafe { _mm256_max_ps(x, best) }
    }
    #[inline(always)]
    unsafe fn max_with_index(x: __m256, best: __m256, id: i32, index: __m256i) -> (__m256, __m256i) {
        unsafe {
            let wins = _mm256_cmp_ps::<_CMP_GT_OQ>(x, best);
            let index = _mm256_blendv_ps(
                _mm256_castsi256_ps(index),
                _mm256_castsi256_ps(_mm256_set1_epi32(id)),
                wins,
            );
            (_mm256_blendv_ps(best, x, wins), _mm256_castps_si256(index))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_index(x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn convert(x: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_index(from: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_index(to: *mut i32, x: __m256i) {
        unsafe { _mm256_storeu_si256(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> __m256 {
        // bf16 is the upper half of an f32.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
}

// Pairs of 16-bit elements (VPMADDWD): VPMADDUBSW would saturate.
// SAFETY (all methods): as above; `BYTES` bytes where `Integer` says so.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Avx2 {
    type V = Self;
    const GROUP: usize = 2;
    const BIAS: u8 = 0;
    const BYTES: usize = 16;
    type Bytes = __m128i;

    #[inline(always)]
    unsafe fn dot(sum: __m256i, document: __m256i, query: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(document, query)) }
    }
    #[inline(always)]
    unsafe fn table(from: &[u8; 16]) -> __m128i {
        unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> __m128i {
        unsafe {
            if count >= 16 {
                return _mm_loadu_si128(from.cast());
            }
            let mut bytes = [0u8; 16];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
            _mm_loadu_si128(bytes.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(x: __m128i) -> __m128i {
        unsafe { _mm_and_si128(x, _mm_set1_epi8(0x0f)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(x: __m128i) -> __m128i {
        unsafe { _mm_and_si128(_mm_srli_epi16::<4>(x), _mm_set1_epi8(0x0f)) }
    }
    #[inline(always)]
    unsafe fn lookup(table: __m128i, index: __m128i) -> __m128i {
        unsafe { _mm_shuffle_epi8(table, index) }
    }
    #[inline(always)]
    unsafe fn store_elements(to: *mut u8, x: __m128i) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm256_cvtepi8_epi16(x)) }
    }
}
