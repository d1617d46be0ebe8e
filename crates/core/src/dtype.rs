//! Element types of token vectors.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
pub use half::{bf16, f16};

use crate::error::{Error, Result};

/// Data type of token vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of an f32.
    BF16,
    /// fp8 e4m3fn: no infinities, NaN is `0x7f`/`0xff`, largest finite value 448. Needs scales.
    E4M3,
    /// Signed 8-bit integer, symmetric. Needs scales.
    I8,
}

impl DType {
    /// All types, in the order of the enum.
    pub const ALL: [DType; 5] = [DType::F32, DType::F16, DType::BF16, DType::E4M3, DType::I8];

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::E4M3 | Self::I8 => 1,
        }
    }

    /// Lower-case name as used on the command line and in JavaScript.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::E4M3 => "fp8",
            Self::I8 => "int8",
        }
    }

    /// Whether values only mean something together with a scale.
    pub const fn is_quantized(self) -> bool {
        matches!(self, Self::E4M3 | Self::I8)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "f32" | "float32" => Ok(Self::F32),
            "f16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::BF16),
            "fp8" | "e4m3" | "e4m3fn" => Ok(Self::E4M3),
            "int8" | "i8" => Ok(Self::I8),
            other => Err(Error::value("dtype", "one of f32, f16, bf16, fp8, int8", format!("{other:?}"))),
        }
    }
}

/// An fp8 e4m3fn number as its byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct E4M3(pub u8);

impl E4M3 {
    /// Largest finite value.
    pub const MAX: f32 = 448.0;

    /// Exact value as f32; `0x7f` and `0xff` are NaN.
    pub fn to_f32(self) -> f32 {
        let sign = u32::from(self.0 & 0x80) << 24;
        let exponent = u32::from(self.0 >> 3) & 0xf;
        let mantissa = u32::from(self.0 & 0x7);
        let magnitude = match (exponent, mantissa) {
            (0xf, 0x7) => return f32::from_bits(sign | 0x7fc0_0000),
            // Subnormals count in steps of 2^-9; f32 holds them exactly.
            (0, m) => (m as f32 / 512.0).to_bits(),
            (e, m) => ((e + 120) << 23) | (m << 20),
        };
        f32::from_bits(sign | magnitude)
    }

    /// Nearest representable value, ties to even, saturating at ±448. NaN stays NaN.
    pub fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let sign = (bits >> 24) as u8 & 0x80;
        let magnitude = bits & 0x7fff_ffff;
        if magnitude > 0x7f80_0000 {
            return Self(sign | 0x7f);
        }
        // From 464 up (halfway between 448 and the 480 that does not exist) everything saturates anyway.
        if f32::from_bits(magnitude) >= Self::MAX {
            return Self(sign | 0x7e);
        }
        if magnitude < 0x3c80_0000 {
            // Below 2^-6: steps of 2^-9. Adding 2^14 makes the f32 adder round at that step, ties to even.
            let steps = (f32::from_bits(magnitude) + 16384.0).to_bits() - 16384f32.to_bits();
            return Self(sign | steps as u8);
        }
        // Round the 23-bit mantissa to 3 bits; a carry runs into the exponent as it should.
        let rounded = magnitude + 0x0007_ffff + ((magnitude >> 20) & 1);
        Self(sign | ((rounded >> 20) - (120 << 3)) as u8)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
    impl Sealed for super::E4M3 {}
    impl Sealed for i8 {}
}

/// A Rust type that stands for one [`DType`].
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync + Default {
    /// The matching data type.
    const DTYPE: DType;
    /// Views a slice as [`DataRef`].
    fn data(slice: &[Self]) -> DataRef<'_>;
    /// Moves a vector into [`DataBuf`].
    fn buffer(vec: Vec<Self>) -> DataBuf;
    /// The value as f32, exactly.
    fn to_f32(self) -> f32;
    /// The nearest value of this type (ties to even; e4m3 and i8 saturate).
    fn from_f32(x: f32) -> Self;
    /// Neither NaN nor infinite, decided from the bits.
    fn is_finite(self) -> bool;
}

macro_rules! element {
    ($ty:ty, $variant:ident, |$x:ident| $to:expr, |$y:ident| $from:expr, |$z:ident| $finite:expr) => {
        impl Element for $ty {
            const DTYPE: DType = DType::$variant;
            fn data(slice: &[Self]) -> DataRef<'_> {
                DataRef::$variant(slice)
            }
            fn buffer(vec: Vec<Self>) -> DataBuf {
                DataBuf::$variant(vec)
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                let $x = self;
                $to
            }
            #[inline(always)]
            fn from_f32($y: f32) -> Self {
                $from
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                let $z = self;
                $finite
            }
        }
    };
}

element!(f32, F32, |x| x, |y| y, |z| f32::is_finite(z));
element!(f16, F16, |x| f16::to_f32(x), |y| f16::from_f32(y), |z| f16::is_finite(z));
element!(bf16, BF16, |x| bf16::to_f32(x), |y| bf16::from_f32(y), |z| bf16::is_finite(z));
element!(E4M3, E4M3, |x| E4M3::to_f32(x), |y| E4M3::from_f32(y), |z| z.0 & 0x7f != 0x7f);
element!(i8, I8, |x| f32::from(x), |y| y.round_ties_even().clamp(-127.0, 127.0) as i8, |_z| true);

/// Runs `$body` with `$slice` bound to the typed slice inside a [`DataRef`] or `&`[`DataBuf`].
#[macro_export]
macro_rules! dispatch {
    ($enum:ident, $value:expr, |$slice:ident| $body:expr) => {
        match $value {
            $crate::$enum::F32($slice) => $body,
            $crate::$enum::F16($slice) => $body,
            $crate::$enum::BF16($slice) => $body,
            $crate::$enum::E4M3($slice) => $body,
            $crate::$enum::I8($slice) => $body,
        }
    };
}

/// Borrowed elements of one type. `Debug` says type and count, not a million numbers.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "as the variants of DType")]
pub enum DataRef<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
    E4M3(&'a [E4M3]),
    I8(&'a [i8]),
}

impl<'a> DataRef<'a> {
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
            Self::E4M3(_) => DType::E4M3,
            Self::I8(_) => DType::I8,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        dispatch!(DataRef, self, |s| s.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements `range`. Panics if it is out of bounds.
    pub fn slice(&self, range: std::ops::Range<usize>) -> DataRef<'a> {
        dispatch!(DataRef, self, |s| Element::data(&s[range]))
    }

    /// Element `i` as f32. Panics if it is out of bounds.
    pub fn get(&self, i: usize) -> f32 {
        dispatch!(DataRef, self, |s| Element::to_f32(s[i]))
    }

    /// Position of the first element that is NaN or infinite.
    pub fn first_non_finite(&self) -> Option<usize> {
        /// Elements looked at without a branch, which lets compilers use vectors.
        const STRETCH: usize = 64;
        fn find<T: Element>(s: &[T]) -> Option<usize> {
            let stretch = s
                .chunks(STRETCH)
                .position(|chunk| !chunk.iter().fold(true, |finite, x| finite & x.is_finite()))?;
            s[stretch * STRETCH..].iter().position(|x| !x.is_finite()).map(|i| stretch * STRETCH + i)
        }
        dispatch!(DataRef, self, |s| find(s))
    }

    /// All elements as f32, exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            // By the processor's own instructions, many at a time.
            Self::F16(s) => s.to_f32_vec(),
            _ => dispatch!(DataRef, self, |s| s.iter().map(|&x| Element::to_f32(x)).collect()),
        }
    }

    /// An owned copy.
    pub fn to_buf(&self) -> DataBuf {
        dispatch!(DataRef, self, |s| Element::buffer(s.to_vec()))
    }
}

impl<'a, T: Element> From<&'a [T]> for DataRef<'a> {
    fn from(slice: &'a [T]) -> Self {
        T::data(slice)
    }
}

impl<'a, T: Element> From<&'a Vec<T>> for DataRef<'a> {
    fn from(vec: &'a Vec<T>) -> Self {
        T::data(vec)
    }
}

impl<'a, T: Element, const N: usize> From<&'a [T; N]> for DataRef<'a> {
    fn from(array: &'a [T; N]) -> Self {
        T::data(array)
    }
}

impl<'a> From<&'a DataBuf> for DataRef<'a> {
    fn from(buf: &'a DataBuf) -> Self {
        buf.as_ref()
    }
}

impl fmt::Debug for DataRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.dtype(), self.len())
    }
}

impl fmt::Debug for DataBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// Owned elements of one type. `Debug` as for [`DataRef`].
#[derive(Clone, PartialEq)]
#[allow(missing_docs, reason = "as the variants of DType")]
pub enum DataBuf {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    E4M3(Vec<E4M3>),
    I8(Vec<i8>),
}

impl DataBuf {
    /// Borrows the elements.
    pub fn as_ref(&self) -> DataRef<'_> {
        dispatch!(DataBuf, self, |v| Element::data(v.as_slice()))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.as_ref().dtype()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        dispatch!(DataBuf, self, |v| v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `values` rounded to `dtype` (ties to even). Quantised types saturate and take the values as already scaled.
    pub fn from_f32(values: &[f32], dtype: DType) -> Self {
        fn convert<T: Element>(values: &[f32]) -> DataBuf {
            T::buffer(values.iter().map(|&x| T::from_f32(x)).collect())
        }
        match dtype {
            DType::F32 => Self::F32(values.to_vec()),
            DType::F16 => Self::F16(Vec::from_f32_slice(values)),
            DType::BF16 => convert::<bf16>(values),
            DType::E4M3 => convert::<E4M3>(values),
            DType::I8 => convert::<i8>(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_decodes_every_byte_like_the_reference() {
        for byte in 0..=255u8 {
            let reference = float8::F8E4M3::from_bits(byte).to_f32();
            let ours = E4M3(byte).to_f32();
            assert!(
                ours == reference || (ours.is_nan() && reference.is_nan()),
                "{byte:#x}: {ours} {reference}"
            );
        }
    }

    #[test]
    fn e4m3_rounds_to_nearest_even_between_all_neighbours() {
        for byte in 0..0x7eu8 {
            let (low, high) = (E4M3(byte).to_f32(), E4M3(byte + 1).to_f32());
            let middle = (low + high) / 2.0; // exact: neighbours differ in the last of 4 bits
            let even = if byte % 2 == 0 { byte } else { byte + 1 };
            assert_eq!(E4M3::from_f32(low).0, byte);
            assert_eq!(E4M3::from_f32(middle).0, even, "tie between {low} and {high}");
            assert_eq!(E4M3::from_f32(middle.next_down()).0, byte);
            assert_eq!(E4M3::from_f32(middle.next_up()).0, byte + 1);
            assert_eq!(E4M3::from_f32(-middle.next_up()).0, 0x80 | (byte + 1));
        }
    }

    #[test]
    fn finiteness_is_that_of_the_value_for_every_16_and_8_bit_pattern() {
        for bits in 0..=u16::MAX {
            assert_eq!(Element::is_finite(f16::from_bits(bits)), f16::from_bits(bits).to_f32().is_finite());
            assert_eq!(Element::is_finite(bf16::from_bits(bits)), bf16::from_bits(bits).to_f32().is_finite());
        }
        for byte in 0..=u8::MAX {
            assert_eq!(Element::is_finite(E4M3(byte)), E4M3(byte).to_f32().is_finite(), "{byte:#x}");
        }
    }

    #[test]
    fn first_non_finite_is_found_wherever_it_stands() {
        let mut x = vec![1f32; 200];
        assert_eq!(f32::data(&x).first_non_finite(), None);
        assert_eq!(f32::data(&[]).first_non_finite(), None);
        for i in (0..200).rev() {
            x[i] = if i % 2 == 0 { f32::NAN } else { f32::NEG_INFINITY };
            assert_eq!(f32::data(&x).first_non_finite(), Some(i));
        }
    }

    #[test]
    fn e4m3_saturates_and_keeps_nan() {
        for (x, byte) in [(448.0, 0x7e), (463.9, 0x7e), (500.0, 0x7e), (f32::INFINITY, 0x7e), (-1e30, 0xfe)] {
            assert_eq!(E4M3::from_f32(x).0, byte, "{x}");
        }
        assert_eq!(E4M3::from_f32(f32::NAN).0 & 0x7f, 0x7f);
        assert_eq!(E4M3::from_f32(-0.0).0, 0x80);
        assert_eq!(E4M3::from_f32(1e-30).0, 0);
    }

    #[test]
    fn names_parse_back() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>().unwrap(), dtype);
        }
        assert_eq!("f64".parse::<DType>().unwrap_err().code().as_str(), "ERR_VALUE");
    }
}
