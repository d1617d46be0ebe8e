//! Plain Rust: what runs where nothing else does. Four lanes, so that compilers vectorise it when they can.

#[derive(Clone, Copy)]
struct Generic;

super::instantiate!(Generic, Generic, [4, 4],);
super::instantiate_integer!(Generic, [4, 4],);

const LANES: usize = 4;

// SAFETY (all methods): plain loads and stores through pointers that `Simd` says are valid for `LANES` elements.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Simd for Generic {
    const LANES: usize = LANES;
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];

    #[inline(always)]
    unsafe fn zero() -> [f32; LANES] {
        [0.0; LANES]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; LANES] {
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [f32; LANES]) {
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        // Not f32::mul_add: without the instruction that is a call into libm.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max_number(x: [f32; LANES], best: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| if x[i] > best[i] { x[i] } else { best[i] })
    }
    #[inline(always)]
    unsafe fn max_with_index(
        x: [f32; LANES],
        best: [f32; LANES],
        id: i32,
        index: [i32; LANES],
    ) -> ([f32; LANES], [i32; LANES]) {
        (
            std::array::from_fn(|i| if x[i] > best[i] { x[i] } else { best[i] }),
            std::array::from_fn(|i| if x[i] > best[i] { id } else { index[i] }),
        )
    }
    #[inline(always)]
    unsafe fn splat_index(x: i32) -> [i32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn convert(x: [i32; LANES]) -> [f32; LANES] {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn load_index(from: *const i32) -> [i32; LANES] {
        unsafe { from.cast::<[i32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_index(to: *mut i32, x: [i32; LANES]) {
        unsafe { to.cast::<[i32; LANES]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> [f32; LANES] {
        unsafe { from.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32)
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> [f32; LANES] {
        unsafe { from.cast::<[bf16; LANES]>().read_unaligned() }.map(bf16::to_f32)
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> [f32; LANES] {
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from)
    }
}

// SAFETY (all methods): as above; `BYTES` bytes where `Integer` says so.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the comment above holds for every method")]
impl Integer for Generic {
    type V = Self;
    const GROUP: usize = 2;
    const BIAS: u8 = 0;
    const BYTES: usize = 16;
    type Bytes = [u8; 16];

    #[inline(always)]
    unsafe fn dot(sum: [i32; LANES], document: [i32; LANES], query: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|i| {
            let (d, q) = (document[i], query[i]);
            sum[i] + i32::from(d as i16) * i32::from(q as i16) + (d >> 16) * (q >> 16)
        })
    }
    #[inline(always)]
    unsafe fn table(from: &[u8; 16]) -> [u8; 16] {
        *from
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> [u8; 16] {
        let mut bytes = [0; 16];
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count.min(16)) };
        bytes
    }
    #[inline(always)]
    unsafe fn low_nibbles(x: [u8; 16]) -> [u8; 16] {
        x.map(|x| x & 0x0f)
    }
    #[inline(always)]
    unsafe fn high_nibbles(x: [u8; 16]) -> [u8; 16] {
        x.map(|x| x >> 4)
    }
    #[inline(always)]
    unsafe fn lookup(table: [u8; 16], index: [u8; 16]) -> [u8; 16] {
        index.map(|i| table[usize::from(i & 0x0f)])
    }
    #[inline(always)]
    unsafe fn store_elements(to: *mut u8, x: [u8; 16]) {
        unsafe { to.cast::<[i16; 16]>().write_unaligned(x.map(|x| i16::from(x as i8))) }
    }
}
