//! One folder per instruction set: each implements [`Simd`] and instantiates the kernels with it.
//!
//! The kernels themselves ([`crate::kernel`]) are written once over [`Simd`] and inlined into functions compiled for the
//! instruction set, so a level is a vector type, a tile size and a few conversions.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(not(all(feature = "one-level", target_feature = "simd128")))]
pub(crate) mod generic;
#[cfg(target_arch = "wasm32")]
pub(crate) mod wasm32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

use maxsim_core::{E4M3, bf16, f16};

use crate::kernel::forward::Tile;
use crate::kernel::integer::{IntegerTile, Planes};
use crate::kernel::plaid;
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
    unsafe fn splat_index(x: i32) -> Self::I32;
    /// Lanes as f32, rounded to nearest.
    unsafe fn convert(x: Self::I32) -> Self::F32;
    unsafe fn load_index(from: *const i32) -> Self::I32;
    unsafe fn store_index(to: *mut i32, x: Self::I32);
    unsafe fn load_f16(from: *const f16) -> Self::F32;
    unsafe fn load_bf16(from: *const bf16) -> Self::F32;
    unsafe fn load_i8(from: *const i8) -> Self::F32;
}

/// Products of 8-bit integers summed in i32, four bytes of every lane at a time.
///
/// Document elements are stored with [`BIAS`](Self::BIAS) added: the instructions of some levels multiply unsigned by signed
/// bytes. Sums are exact whichever instruction makes them.
///
/// # Safety
/// As [`Simd`]; `Bytes` loads and stores concern [`BYTES`](Self::BYTES) packed bytes.
pub(crate) trait Integer {
    /// Vectors the sums live in.
    type V: Simd;
    /// Elements in a lane's four bytes: two of 16 bits or four of 8.
    const GROUP: usize;
    /// What is added to (exclusive-ored into) the elements of documents.
    const BIAS: u8;
    /// Packed bytes that are decoded at a time.
    const BYTES: usize;
    /// A vector of them.
    type Bytes: Copy;

    /// `sum` plus the products of a lane's elements.
    unsafe fn dot(
        sum: <Self::V as Simd>::I32,
        document: <Self::V as Simd>::I32,
        query: <Self::V as Simd>::I32,
    ) -> <Self::V as Simd>::I32;
    /// A 16-entry table for [`lookup`](Self::lookup).
    unsafe fn table(from: &[u8; 16]) -> Self::Bytes;
    /// `count <= BYTES` bytes; the others may be anything.
    unsafe fn load_bytes(from: *const u8, count: usize) -> Self::Bytes;
    unsafe fn low_nibbles(x: Self::Bytes) -> Self::Bytes;
    unsafe fn high_nibbles(x: Self::Bytes) -> Self::Bytes;
    /// Entry `index < 16` of the table, per byte.
    unsafe fn lookup(table: Self::Bytes, index: Self::Bytes) -> Self::Bytes;
    /// Stores bytes as `BYTES` document elements: as they are, or widened with their sign where elements have 16 bits.
    unsafe fn store_elements(to: *mut u8, x: Self::Bytes);
}

/// The integer kernels of one level.
pub(crate) struct IntegerKernels {
    /// Elements per four bytes.
    pub(crate) group: usize,
    /// What is added to document elements.
    pub(crate) bias: u8,
    /// Bytes that decoding may write behind a row.
    pub(crate) slack: usize,
    /// Raises the running maxima of a query panel with a block of document rows.
    pub(crate) forward: unsafe fn(&mut IntegerTile<'_>),
    /// The same, also tracking which row won.
    pub(crate) forward_argmax: unsafe fn(&mut IntegerTile<'_>),
    /// The same two with a centroid's similarity added to every row's.
    pub(crate) residual: unsafe fn(&mut IntegerTile<'_>),
    pub(crate) residual_argmax: unsafe fn(&mut IntegerTile<'_>),
    /// int8 rows of the given length to rows of whole groups.
    pub(crate) widen: unsafe fn(&[i8], usize, &mut [u32]),
    /// Packed residual rows to rows of whole groups.
    pub(crate) decode: unsafe fn(&Planes, &[u8], usize, &mut [u32]),
    /// Sum of squares of fewer than 2¹⁷ elements.
    pub(crate) square_norm: unsafe fn(&[i8]) -> i32,
}

/// Centroid, packed bytes, table of weights, and where the sum goes.
type Decode = unsafe fn(&[f32], &[u8], &[f32], &mut [f32]);

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
    /// Centroid plus bucket weights: see [`decode`](crate::kernel::residual::decode).
    pub(crate) decode: Decode,
    /// Maxima over rows of a table: see [`approx`](crate::kernel::approx).
    pub(crate) approx_f32: unsafe fn(&[f32], &[u32], &mut [f32]),
    pub(crate) approx_f16: unsafe fn(&[f16], &[u32], &mut [f32]),
    /// Search over an index: see [`plaid`](crate::kernel::plaid).
    pub(crate) beats: unsafe fn(&[f32], &[f32]) -> bool,
    pub(crate) round_rows: unsafe fn(&plaid::Rounding<'_>, &[f32], &mut [u8]),
    pub(crate) approx_u8: unsafe fn(&[u8], usize, &[u32]) -> u32,
    /// Kernels over 8-bit integers.
    pub(crate) integer: &'static IntegerKernels,
}

/// Leaves nothing but a trap of a kernel whose feature is left out.
macro_rules! kernel_of {
    ($feature:literal) => {
        if !cfg!(feature = $feature) {
            unreachable!("left out");
        }
    };
}
pub(crate) use kernel_of;

/// Instantiates the kernels for a level: `$simd` is its vector type, `$rows` the document rows of a tile for panels of
/// one and of two vectors.
macro_rules! instantiate {
    ($level:ident, $simd:ty, [$rows1:literal, $rows2:literal], $(#[$attr:meta])*) => {
        use maxsim_core::{E4M3, bf16, f16};
        use $crate::arch::{Integer, Kernels, Simd};
        use $crate::kernel::{approx, convert, forward, norm, plaid, project as projection, residual};
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
            $crate::arch::kernel_of!("residual");
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

        $(#[$attr])*
        unsafe fn decode(centroid: &[f32], bytes: &[u8], table: &[f32], to: &mut [f32]) {
            $crate::arch::kernel_of!("residual");
            residual::decode(centroid, bytes, table, to)
        }
        $(#[$attr])*
        unsafe fn approx_f32(table: &[f32], codes: &[u32], best: &mut [f32]) {
            $crate::arch::kernel_of!("residual");
            // SAFETY: the caller guarantees the level.
            unsafe { approx::maxima::<$simd, f32>(table, codes, best, <$simd as Simd>::load) }
        }
        $(#[$attr])*
        unsafe fn approx_f16(table: &[f16], codes: &[u32], best: &mut [f32]) {
            $crate::arch::kernel_of!("residual");
            // SAFETY: the caller guarantees the level.
            unsafe { approx::maxima::<$simd, f16>(table, codes, best, <$simd as Simd>::load_f16) }
        }
        $(#[$attr])*
        unsafe fn beats(row: &[f32], bars: &[f32]) -> bool {
            $crate::arch::kernel_of!("plaid");
            plaid::beats(row, bars)
        }
        $(#[$attr])*
        unsafe fn round_rows(rounding: &plaid::Rounding<'_>, from: &[f32], to: &mut [u8]) {
            $crate::arch::kernel_of!("plaid");
            plaid::round_rows(rounding, from, to)
        }
        $(#[$attr])*
        unsafe fn approx_u8(table: &[u8], stride: usize, codes: &[u32]) -> u32 {
            $crate::arch::kernel_of!("plaid");
            plaid::approx(table, stride, codes)
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
            decode,
            approx_f32,
            approx_f16,
            beats,
            round_rows,
            approx_u8,
            integer: &INTEGER,
        };
    };
}
pub(crate) use instantiate;

/// Instantiates the integer kernels for a level: `$integer` is its [`Integer`], `$rows` as in [`instantiate!`].
macro_rules! instantiate_integer {
    ($integer:ty, [$rows1:literal, $rows2:literal], $(#[$attr:meta])*) => {
        mod integer_kernels {
            use super::*;
            use $crate::kernel::integer;

            $(#[$attr])*
            pub(super) unsafe fn forward(tile: &mut integer::IntegerTile<'_>) {
                $crate::arch::kernel_of!("corpora");
                // SAFETY: the caller guarantees the level; `IntegerTile` guarantees its bounds.
                unsafe { integer::block::<$integer, $rows1, $rows2, false, false>(tile) }
            }
            $(#[$attr])*
            pub(super) unsafe fn forward_argmax(tile: &mut integer::IntegerTile<'_>) {
                $crate::arch::kernel_of!("gradients");
                // SAFETY: as above.
                unsafe { integer::block::<$integer, $rows1, $rows2, true, false>(tile) }
            }
            $(#[$attr])*
            pub(super) unsafe fn residual(tile: &mut integer::IntegerTile<'_>) {
                $crate::arch::kernel_of!("residual");
                // SAFETY: as above.
                unsafe { integer::block::<$integer, $rows1, $rows2, false, true>(tile) }
            }
            $(#[$attr])*
            pub(super) unsafe fn residual_argmax(tile: &mut integer::IntegerTile<'_>) {
                $crate::arch::kernel_of!("residual");
                // SAFETY: as above.
                unsafe { integer::block::<$integer, $rows1, $rows2, true, true>(tile) }
            }
            $(#[$attr])*
            pub(super) unsafe fn widen(from: &[i8], dim: usize, to: &mut [u32]) {
                $crate::arch::kernel_of!("corpora");
                // SAFETY: the caller guarantees the level.
                unsafe { integer::widen::<$integer>(from, dim, to) }
            }
            $(#[$attr])*
            pub(super) unsafe fn decode(
                planes: &integer::Planes,
                bytes: &[u8],
                groups: usize,
                to: &mut [u32],
            ) {
                $crate::arch::kernel_of!("residual");
                // SAFETY: the caller guarantees the level.
                unsafe { integer::decode::<$integer>(planes, bytes, groups, to) }
            }
            $(#[$attr])*
            pub(super) unsafe fn square_norm(row: &[i8]) -> i32 {
                $crate::arch::kernel_of!("corpora");
                integer::square_norm(row)
            }
        }

        /// The integer kernels of this level.
        static INTEGER: $crate::arch::IntegerKernels = $crate::arch::IntegerKernels {
            group: <$integer as $crate::arch::Integer>::GROUP,
            bias: <$integer as $crate::arch::Integer>::BIAS,
            slack: <$integer as $crate::arch::Integer>::BYTES * (4 / <$integer as $crate::arch::Integer>::GROUP),
            forward: integer_kernels::forward,
            forward_argmax: integer_kernels::forward_argmax,
            residual: integer_kernels::residual,
            residual_argmax: integer_kernels::residual_argmax,
            widen: integer_kernels::widen,
            decode: integer_kernels::decode,
            square_norm: integer_kernels::square_norm,
        };
    };
}
pub(crate) use instantiate_integer;

/// The kernels of `level`, or `None` where the machine does not run it.
pub(crate) fn kernels(level: Level) -> Option<&'static Kernels> {
    if !level.is_available() {
        return None;
    }
    match level {
        #[cfg(not(all(feature = "one-level", target_feature = "simd128")))]
        Level::Generic => Some(&generic::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Some(&x86_64::avx2::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2Vnni => Some(&x86_64::avx2_vnni::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Some(&x86_64::avx512::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => Some(&x86_64::avx512_vnni::KERNELS),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Some(&aarch64::neon::KERNELS),
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot => Some(&aarch64::neon_dot::KERNELS),
        #[cfg(target_arch = "wasm32")]
        Level::Simd128 => Some(&wasm32::simd128::KERNELS),
        #[allow(unreachable_patterns, reason = "levels of other architectures are never available")]
        _ => None,
    }
}
