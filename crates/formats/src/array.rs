//! Arrays in memory.

use maxsim_core::{DType, DataBuf, E4M3, Error, Integers, Result, bf16, f16};

/// Element type of an [`Array`]: everything both formats store that this project has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
    /// fp8 e4m3fn.
    E4M3,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 64 bits.
    U64,
    /// A byte that is 0 or not.
    Bool,
}

impl ElementType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::E4M3 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::E4M3 => "fp8",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::Bool => "bool",
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Elements of one type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ArrayData {
    /// IEEE binary64.
    F64(Vec<f64>),
    /// IEEE binary32.
    F32(Vec<f32>),
    /// IEEE binary16.
    F16(Vec<f16>),
    /// bfloat16.
    BF16(Vec<bf16>),
    /// fp8 e4m3fn.
    E4M3(Vec<E4M3>),
    /// Signed, 8 bits.
    I8(Vec<i8>),
    /// Unsigned, 8 bits.
    U8(Vec<u8>),
    /// Signed, 16 bits.
    I16(Vec<i16>),
    /// Unsigned, 16 bits.
    U16(Vec<u16>),
    /// Signed, 32 bits.
    I32(Vec<i32>),
    /// Unsigned, 32 bits.
    U32(Vec<u32>),
    /// Signed, 64 bits.
    I64(Vec<i64>),
    /// Unsigned, 64 bits.
    U64(Vec<u64>),
    /// Booleans.
    Bool(Vec<bool>),
}

/// Runs `$body` with `$values` bound to the vector inside.
macro_rules! each {
    ($data:expr, |$values:ident| $body:expr) => {
        match $data {
            ArrayData::F64($values) => $body,
            ArrayData::F32($values) => $body,
            ArrayData::F16($values) => $body,
            ArrayData::BF16($values) => $body,
            ArrayData::E4M3($values) => $body,
            ArrayData::I8($values) => $body,
            ArrayData::U8($values) => $body,
            ArrayData::I16($values) => $body,
            ArrayData::U16($values) => $body,
            ArrayData::I32($values) => $body,
            ArrayData::U32($values) => $body,
            ArrayData::I64($values) => $body,
            ArrayData::U64($values) => $body,
            ArrayData::Bool($values) => $body,
        }
    };
}

/// Little-endian elements; a remainder that fills no element is ignored (callers have compared the sizes).
fn decode<const N: usize, T>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| element(chunk)).collect()
}

fn encode<const N: usize, T: Copy>(values: &[T], element: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| element(value)).collect()
}

impl ArrayData {
    /// Element type.
    pub fn element_type(&self) -> ElementType {
        match self {
            Self::F64(_) => ElementType::F64,
            Self::F32(_) => ElementType::F32,
            Self::F16(_) => ElementType::F16,
            Self::BF16(_) => ElementType::BF16,
            Self::E4M3(_) => ElementType::E4M3,
            Self::I8(_) => ElementType::I8,
            Self::U8(_) => ElementType::U8,
            Self::I16(_) => ElementType::I16,
            Self::U16(_) => ElementType::U16,
            Self::I32(_) => ElementType::I32,
            Self::U32(_) => ElementType::U32,
            Self::I64(_) => ElementType::I64,
            Self::U64(_) => ElementType::U64,
            Self::Bool(_) => ElementType::Bool,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, |values| values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Little-endian bytes as elements.
    pub(crate) fn from_le_bytes(element_type: ElementType, bytes: &[u8]) -> Self {
        match element_type {
            ElementType::F64 => Self::F64(decode(bytes, f64::from_le_bytes)),
            ElementType::F32 => Self::F32(decode(bytes, f32::from_le_bytes)),
            ElementType::F16 => Self::F16(decode(bytes, f16::from_le_bytes)),
            ElementType::BF16 => Self::BF16(decode(bytes, bf16::from_le_bytes)),
            ElementType::E4M3 => Self::E4M3(decode(bytes, |[b]| E4M3(b))),
            ElementType::I8 => Self::I8(decode(bytes, i8::from_le_bytes)),
            ElementType::U8 => Self::U8(bytes.to_vec()),
            ElementType::I16 => Self::I16(decode(bytes, i16::from_le_bytes)),
            ElementType::U16 => Self::U16(decode(bytes, u16::from_le_bytes)),
            ElementType::I32 => Self::I32(decode(bytes, i32::from_le_bytes)),
            ElementType::U32 => Self::U32(decode(bytes, u32::from_le_bytes)),
            ElementType::I64 => Self::I64(decode(bytes, i64::from_le_bytes)),
            ElementType::U64 => Self::U64(decode(bytes, u64::from_le_bytes)),
            ElementType::Bool => Self::Bool(decode(bytes, |[b]| b != 0)),
        }
    }

    /// Elements as little-endian bytes.
    pub(crate) fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F64(v) => encode(v, f64::to_le_bytes),
            Self::F32(v) => encode(v, f32::to_le_bytes),
            Self::F16(v) => encode(v, f16::to_le_bytes),
            Self::BF16(v) => encode(v, bf16::to_le_bytes),
            Self::E4M3(v) => encode(v, |x| [x.0]),
            Self::I8(v) => encode(v, i8::to_le_bytes),
            Self::U8(v) => v.clone(),
            Self::I16(v) => encode(v, i16::to_le_bytes),
            Self::U16(v) => encode(v, u16::to_le_bytes),
            Self::I32(v) => encode(v, i32::to_le_bytes),
            Self::U32(v) => encode(v, u32::to_le_bytes),
            Self::I64(v) => encode(v, i64::to_le_bytes),
            Self::U64(v) => encode(v, u64::to_le_bytes),
            Self::Bool(v) => encode(v, |x| [u8::from(x)]),
        }
    }

    /// Elements in row-major order, from column-major ones.
    pub(crate) fn transposed(self, shape: &[usize]) -> Self {
        /// `values` holds `shape` with the first axis fastest.
        fn reorder<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
            let mut strides = Vec::with_capacity(shape.len());
            let mut stride = 1;
            for &extent in shape {
                strides.push(stride);
                stride *= extent;
            }
            let mut index = vec![0usize; shape.len()];
            let mut position = 0;
            let mut out = Vec::with_capacity(values.len());
            for _ in 0..values.len() {
                out.push(values[position]);
                // Next index in row-major order: the last axis moves first.
                for axis in (0..shape.len()).rev() {
                    index[axis] += 1;
                    position += strides[axis];
                    if index[axis] < shape[axis] {
                        break;
                    }
                    position -= strides[axis] * shape[axis];
                    index[axis] = 0;
                }
            }
            out
        }
        match self {
            Self::F64(v) => Self::F64(reorder(&v, shape)),
            Self::F32(v) => Self::F32(reorder(&v, shape)),
            Self::F16(v) => Self::F16(reorder(&v, shape)),
            Self::BF16(v) => Self::BF16(reorder(&v, shape)),
            Self::E4M3(v) => Self::E4M3(reorder(&v, shape)),
            Self::I8(v) => Self::I8(reorder(&v, shape)),
            Self::U8(v) => Self::U8(reorder(&v, shape)),
            Self::I16(v) => Self::I16(reorder(&v, shape)),
            Self::U16(v) => Self::U16(reorder(&v, shape)),
            Self::I32(v) => Self::I32(reorder(&v, shape)),
            Self::U32(v) => Self::U32(reorder(&v, shape)),
            Self::I64(v) => Self::I64(reorder(&v, shape)),
            Self::U64(v) => Self::U64(reorder(&v, shape)),
            Self::Bool(v) => Self::Bool(reorder(&v, shape)),
        }
    }
}

macro_rules! from_vec {
    ($($ty:ty => $variant:ident),* $(,)?) => {$(
        impl From<Vec<$ty>> for ArrayData {
            fn from(values: Vec<$ty>) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}
from_vec!(
    f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, E4M3 => E4M3, i8 => I8, u8 => U8, i16 => I16, u16 => U16,
    i32 => I32, u32 => U32, i64 => I64, u64 => U64, bool => Bool,
);

impl From<DataBuf> for ArrayData {
    fn from(buffer: DataBuf) -> Self {
        match buffer {
            DataBuf::F32(v) => Self::F32(v),
            DataBuf::F16(v) => Self::F16(v),
            DataBuf::BF16(v) => Self::BF16(v),
            DataBuf::E4M3(v) => Self::E4M3(v),
            DataBuf::I8(v) => Self::I8(v),
        }
    }
}

/// Number of elements of `shape`, or an error about `what` where 64 bits cannot hold it.
pub(crate) fn element_count(what: &str, shape: &[usize]) -> Result<usize> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).ok_or_else(|| Error::Limit {
        argument: what.to_owned().into(),
        limit: "a shape whose product fits in 64 bits".into(),
        got: format!("{shape:?}"),
    })
}

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    data: ArrayData,
}

impl Array {
    /// An array of `shape` (no extents: one element).
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `data`) if `shape` has another number of elements, `ERR_LIMIT` if it overflows.
    pub fn new(shape: Vec<usize>, data: impl Into<ArrayData>) -> Result<Self> {
        let data = data.into();
        let elements = element_count("data", &shape)?;
        if data.len() != elements {
            return Err(Error::shape(
                "data",
                format!("{elements} elements for shape {shape:?}"),
                format!("{} elements", data.len()),
            ));
        }
        Ok(Self { shape, data })
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &ArrayData {
        &self.data
    }

    /// Shape and elements, without a copy.
    pub fn into_parts(self) -> (Vec<usize>, ArrayData) {
        (self.shape, self.data)
    }

    /// Element type.
    pub fn element_type(&self) -> ElementType {
        self.data.element_type()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    fn not(&self, argument: &'static str, expected: &str) -> Error {
        Error::dtype(argument, expected, self.element_type().name())
    }

    /// Token vectors: f32, f16, bf16, fp8 and int8 as they are, f64 rounded to f32.
    ///
    /// # Errors
    /// `ERR_DTYPE` about `argument` for other types; unsigned bytes say nothing about being fp8, see
    /// [`into_quantized`](Self::into_quantized).
    pub fn into_vectors(self, argument: &'static str) -> Result<DataBuf> {
        match self.data {
            ArrayData::F64(v) => Ok(DataBuf::F32(v.into_iter().map(|x| x as f32).collect())),
            ArrayData::F32(v) => Ok(DataBuf::F32(v)),
            ArrayData::F16(v) => Ok(DataBuf::F16(v)),
            ArrayData::BF16(v) => Ok(DataBuf::BF16(v)),
            ArrayData::E4M3(v) => Ok(DataBuf::E4M3(v)),
            ArrayData::I8(v) => Ok(DataBuf::I8(v)),
            _ => Err(self.not(argument, "f32, f16, bf16, fp8, int8 or f64")),
        }
    }

    /// Quantised vectors stored as `dtype` or as plain bytes.
    ///
    /// # Errors
    /// `ERR_DTYPE` about `argument` for other types, or if `dtype` is not quantised.
    pub fn into_quantized(self, argument: &'static str, dtype: DType) -> Result<DataBuf> {
        match (self.data, dtype) {
            (ArrayData::E4M3(v), DType::E4M3) => Ok(DataBuf::E4M3(v)),
            (ArrayData::U8(v), DType::E4M3) => Ok(DataBuf::E4M3(v.into_iter().map(E4M3).collect())),
            (ArrayData::I8(v), DType::I8) => Ok(DataBuf::I8(v)),
            (ArrayData::U8(v), DType::I8) => Ok(DataBuf::I8(v.into_iter().map(|b| b as i8).collect())),
            (data, _) => {
                Err(Error::dtype(argument, format!("{} or bytes", dtype.name()), data.element_type().name()))
            }
        }
    }

    /// The values as f64: exact except for 64-bit integers beyond 2⁵³. Booleans are 0 and 1.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            ArrayData::F64(v) => v.clone(),
            ArrayData::F32(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::F16(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::BF16(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::E4M3(v) => v.iter().map(|&x| x.to_f32().into()).collect(),
            ArrayData::I8(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::U8(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::I16(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::U16(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::I32(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::U32(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::I64(v) => v.iter().map(|&x| x as f64).collect(),
            ArrayData::U64(v) => v.iter().map(|&x| x as f64).collect(),
            ArrayData::Bool(v) => v.iter().map(|&x| u8::from(x).into()).collect(),
        }
    }

    /// The values of a floating-point array as f32 (f64 rounded).
    ///
    /// # Errors
    /// `ERR_DTYPE` about `argument` for integers and booleans.
    pub fn to_f32(&self, argument: &'static str) -> Result<Vec<f32>> {
        match &self.data {
            ArrayData::F64(v) => Ok(v.iter().map(|&x| x as f32).collect()),
            ArrayData::F32(v) => Ok(v.clone()),
            ArrayData::F16(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            ArrayData::BF16(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            ArrayData::E4M3(v) => Ok(v.iter().map(|&x| x.to_f32()).collect()),
            _ => Err(self.not(argument, "a floating-point type")),
        }
    }

    /// Lengths, offsets, indices: integers of any width whose values fit in 32 bits, unsigned.
    ///
    /// # Errors
    /// `ERR_DTYPE` about `argument` for floats and booleans, `ERR_INDEX` for a negative value, `ERR_LIMIT` for one beyond
    /// 32 bits.
    pub fn to_u32(&self, argument: &'static str) -> Result<Vec<u32>> {
        let values = match &self.data {
            ArrayData::I8(v) => v.into_u32(argument)?,
            ArrayData::U8(v) => v.into_u32(argument)?,
            ArrayData::I16(v) => v.into_u32(argument)?,
            ArrayData::U16(v) => v.into_u32(argument)?,
            ArrayData::I32(v) => v.into_u32(argument)?,
            ArrayData::U32(v) => v.into_u32(argument)?,
            ArrayData::I64(v) => v.into_u32(argument)?,
            ArrayData::U64(v) => v.into_u32(argument)?,
            _ => return Err(self.not(argument, "an integer type")),
        };
        Ok(values.into_owned())
    }

    /// Signed integers of any width.
    ///
    /// # Errors
    /// `ERR_DTYPE` about `argument` for floats and booleans, `ERR_LIMIT` for a value beyond `i64`.
    pub fn to_i64(&self, argument: &'static str) -> Result<Vec<i64>> {
        Ok(match &self.data {
            ArrayData::I8(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::U8(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::I16(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::U16(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::I32(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::U32(v) => v.iter().map(|&x| x.into()).collect(),
            ArrayData::I64(v) => v.clone(),
            ArrayData::U64(v) => v
                .iter()
                .map(|&x| {
                    i64::try_from(x).map_err(|_| Error::Limit {
                        argument: argument.into(),
                        limit: i64::MAX.to_string(),
                        got: x.to_string(),
                    })
                })
                .collect::<Result<_>>()?,
            _ => return Err(self.not(argument, "an integer type")),
        })
    }

    /// A mask: booleans, or integers where anything but 0 keeps.
    ///
    /// # Errors
    /// `ERR_DTYPE` about `argument` for floats.
    pub fn to_mask(&self, argument: &'static str) -> Result<Vec<bool>> {
        match &self.data {
            ArrayData::Bool(v) => Ok(v.clone()),
            ArrayData::I8(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            ArrayData::U8(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            ArrayData::I16(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            ArrayData::U16(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            ArrayData::I32(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            ArrayData::U32(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            ArrayData::I64(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            ArrayData::U64(v) => Ok(v.iter().map(|&x| x != 0).collect()),
            _ => Err(self.not(argument, "bool or an integer type")),
        }
    }
}
