//! AVX2 with AVX-VNNI: four 8-bit products per lane and instruction, for integers; otherwise as [`super::avx2`].

use std::arch::x86_64::*;

use super::avx2::Avx2;
use crate::arch::{Integer, Kernels};
use crate::level::Level;

struct Vnni;

super::super::instantiate_integer!(
    Vnni, [12, 6],
    #[target_feature(enable = "avx2,avxvnni,fma,f16c")]
);

/// The kernels of this level.
pub(crate) static KERNELS: Kernels =
    Kernels { level: Level::Avx2Vnni, integer: &INTEGER, ..super::avx2::KERNELS };

// VPDPBUSD multiplies unsigned by signed bytes: documents carry a bias of 128, which the sums' starting value takes out again.
// SAFETY (all methods): callers are compiled for AVX2 and AVX-VNNI and pass valid pointers, as `Integer` demands.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Vnni {
    type V = Avx2;
    const GROUP: usize = 4;
    const BIAS: u8 = 0x80;
    const BYTES: usize = 32;
    type Bytes = __m256i;

    #[inline(always)]
    unsafe fn dot(sum: __m256i, document: __m256i, query: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sum, document, query) }
    }
    #[inline(always)]
    unsafe fn table(from: &[u8; 16]) -> __m256i {
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> __m256i {
        unsafe {
            if count >= 32 {
                return _mm256_loadu_si256(from.cast());
            }
            let mut bytes = [0u8; 32];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
            _mm256_loadu_si256(bytes.as_ptr().cast())
        }
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
