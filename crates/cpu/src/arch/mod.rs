//! One folder per instruction set: each implements [`Simd`] and instantiates the kernels with it.
//!
//! The kernels themselves ([`crate::kernel`]) are written once over [`Simd`] and inlined into functions compiled for the
//! instruction set, so a level is a vector type, a tile size and a few conversions.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
pub(crate) mod generic;
#[cfg(target_arch = "wasm32")]
pub(crate) mod wasm32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

use maxsim_core::{E4M3, bf16, f16};

use crate::kernel::forward::Tile;
use crate::kernel::project::Projection;
use crate::level::Level;

/// A vector of f32 lanes.
///
/// # Safety
/// Methods may only be called where the instruction set of the implementing level is enabled; pointers must be valid for
/// `LANES` elements.
pub(crate) trait Simd: Copy {
    /// Lanes of a vector.
    const LANES: usize;
    /// Vectors of f32.
    type F32: Copy;
    /// Vectors of i32 with the same number of lanes.
    type I32: Copy;

    unsafe fn zero() -> Self::F32;
    unsafe fn splat(x: f32) -> Self::F32;
    unsafe fn load(from: *const f32) -> Self::F32;
    unsafe fn store(to: *mut f32, x: Self::F32);
    unsafe fn add(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a·b + c`, fused where the hardware fuses.
    unsafe fn mul_add(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger lane; `best` where `x` is NaN. `best` itself is never NaN.
    unsafe fn max_number(x: Self::F32, best: Self::F32) -> Self::F32;
    /// `(x > best ? x : best, x > best ? id : index)`, comparing false on NaN.
    unsafe fn max_with_index(
        x: Self::F32,
        best: Self::F32,
        id: i32,
        index: Self::I32,
    ) -> (Self::F32, Self::I32);
    /// Hints that the cache line at `address` will be read. The address need not be valid.
    #[inline(always)]
    unsafe fn prefetch(_address: *const u8) {}
    unsafe fn load_index(from: *const i32) -> Self::I32;
    unsafe fn store_index(to: *mut i32, x: Self::I32);
    unsafe fn load_f16(from: *const f16) -> Self::F32;
    unsafe fn load_bf16(from: *const bf16) -> Self::F32;
    unsafe fn load_i8(from: *const i8) -> Self::F32;
}

/// The kernels of one level, callable only where the level is available (which [`kernels`] checks).
pub(crate) struct Kernels {
    /// Level they are compiled for.
    pub(crate) level: Level,
    /// Query tokens per vector.
    pub(crate) lanes: usize,
    /// Vectors per query panel at most.
    pub(crate) vectors: usize,
    /// Document rows per tile.
    pub(crate) rows: usize,
    /// Raises the running maxima of a query panel with a block of document rows.
    pub(crate) forward: unsafe fn(&mut Tile<'_>),
    /// The same, also tracking which row won.
    pub(crate) forward_argmax: unsafe fn(&mut Tile<'_>),
    /// Projects a block of rows onto a panel of columns.
    pub(crate) project: unsafe fn(&mut Projection<'_>),
    /// Sum of squares of a row.
    pub(crate) square_norm: unsafe fn(&[f32]) -> f32,
    /// Conversions to f32; both slices have the same length.
    pub(crate) widen_f16: unsafe fn(&[f16], &mut [f32]),
    pub(crate) widen_bf16: unsafe fn(&[bf16], &mut [f32]),
    pub(crate) widen_i8: unsafe fn(&[i8], &mut [f32]),
    pub(crate) widen_e4m3: unsafe fn(&[E4M3], &mut [f32]),
}

/// Instantiates the kernels for a level: `$simd` is its vector type, `$rows` the document rows of a tile for panels of
/// one and of two vectors.
macro_rules! instantiate {
    ($level:ident, $simd:ty, [$rows1:literal, $rows2:literal], $(#[$attr:meta])*) => {
        use maxsim_core::{E4M3, bf16, f16};
        use $crate::arch::{Kernels, Simd};
        use $crate::kernel::{convert, forward, norm, project as projection};
        use $crate::level::Level;

        $(#[$attr])*
        unsafe fn forward_max(tile: &mut forward::Tile<'_>) {
            // SAFETY: the caller guarantees the level; `Tile` guarantees its bounds.
            unsafe { forward::block::<$simd, $rows1, $rows2, false>(tile) }
        }
        $(#[$attr])*
        unsafe fn forward_argmax(tile: &mut forward::Tile<'_>) {
            // SAFETY: as above.
            unsafe { forward::block::<$simd, $rows1, $rows2, true>(tile) }
        }
        $(#[$attr])*
        unsafe fn project(p: &mut projection::Projection<'_>) {
            // SAFETY: the caller guarantees the level; `Projection` guarantees its bounds.
            unsafe { projection::project::<$simd, $rows1, $rows2>(p) }
        }
        $(#[$attr])*
        unsafe fn square_norm(row: &[f32]) -> f32 {
            // SAFETY: the caller guarantees the level.
            unsafe { norm::square_norm::<$simd>(row) }
        }
        $(#[$attr])*
        unsafe fn widen_f16(from: &[f16], to: &mut [f32]) {
            // SAFETY: the caller guarantees the level.
            unsafe { convert::widen::<$simd, f16>(from, to, <$simd as Simd>::load_f16) }
        }
        $(#[$attr])*
        unsafe fn widen_bf16(from: &[bf16], to: &mut [f32]) {
            // SAFETY: the caller guarantees the level.
            unsafe { convert::widen::<$simd, bf16>(from, to, <$simd as Simd>::load_bf16) }
        }
        $(#[$attr])*
        unsafe fn widen_i8(from: &[i8], to: &mut [f32]) {
            // SAFETY: the caller guarantees the level.
            unsafe { convert::widen::<$simd, i8>(from, to, <$simd as Simd>::load_i8) }
        }
        $(#[$attr])*
        unsafe fn widen_e4m3(from: &[E4M3], to: &mut [f32]) {
            convert::widen_e4m3(from, to)
        }

        /// The kernels of this level.
        pub(crate) static KERNELS: Kernels = Kernels {
            level: Level::$level,
            lanes: <$simd as Simd>::LANES,
            vectors: 2,
            rows: if $rows1 > $rows2 { $rows1 } else { $rows2 },
            forward: forward_max,
            forward_argmax,
            project,
            square_norm,
            widen_f16,
            widen_bf16,
            widen_i8,
            widen_e4m3,
        };
    };
}
pub(crate) use instantiate;

/// The kernels of `level`, or `None` where the machine does not run it.
pub(crate) fn kernels(level: Level) -> Option<&'static Kernels> {
    if !level.is_available() {
        return None;
    }
    match level {
        Level::Generic => Some(&generic::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Some(&x86_64::avx2::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Some(&x86_64::avx512::KERNELS),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Some(&aarch64::neon::KERNELS),
        #[cfg(target_arch = "wasm32")]
        Level::Simd128 => Some(&wasm32::simd128::KERNELS),
        #[allow(unreachable_patterns, reason = "levels of other architectures are never available")]
        _ => None,
    }
}
