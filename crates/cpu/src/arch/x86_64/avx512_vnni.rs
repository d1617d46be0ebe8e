//! AVX-512 with VNNI: four 8-bit products per lane and instruction, for integers; otherwise as [`super::avx512`].

use std::arch::x86_64::*;

use super::avx512::Avx512;
use crate::arch::{Integer, Kernels};
use crate::level::Level;

struct Vnni;

super::super::instantiate_integer!(
    Vnni, [12, 12],
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
);

/// The kernels of this level.
pub(crate) static KERNELS: Kernels =
    Kernels { level: Level::Avx512Vnni, integer: &INTEGER, ..super::avx512::KERNELS };

// VPDPBUSD multiplies unsigned by signed bytes: documents carry a bias of 128, which the sums' starting value takes out again.
// SAFETY (all methods): callers are compiled for AVX-512 with VNNI and pass valid pointers, as `Integer` demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Vnni {
    type V = Avx512;
    const GROUP: usize = 4;
    const BIAS: u8 = 0x80;
    const BYTES: usize = 32;
    type Bytes = __m256i;

    #[inline(always)]
    unsafe fn dot(sum: __m512i, document: __m512i, query: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, document, query) }
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
        unsafe { _mm256_storeu_si256(to.cast(), x) }
    }
}
