//! Arrays of JavaScript.

use bytemuck::{Pod, cast_slice_mut, try_cast_slice};
use maxsim_core::{DType, DataBuf, DataRef, E4M3, Element, Error, Result, bf16, f16};

/// Integers or numbers of an array: copied, or read where JavaScript has them.
pub enum Held<T> {
    /// Ours.
    Copied(Vec<T>),
    /// JavaScript's.
    InPlace(Box<dyn AsRef<[T]> + Send>),
}

impl<T> AsRef<[T]> for Held<T> {
    fn as_ref(&self) -> &[T] {
        match self {
            Self::Copied(values) => values,
            Self::InPlace(array) => (**array).as_ref(),
        }
    }
}

impl<T: Pod> Held<T> {
    /// Copies `len` elements by `fill`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn copied(len: usize, fill: impl FnOnce(&mut [T])) -> Result<Self> {
        zeroed(len, fill).map(Self::Copied)
    }
}

fn zeroed<T: Pod>(len: usize, fill: impl FnOnce(&mut [T])) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let requested = len.saturating_mul(size_of::<T>()) as u64;
    values.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { requested })?;
    values.resize(len, T::zeroed());
    fill(&mut values);
    Ok(values)
}

/// Elements of an array that arrived as bytes and a type.
pub enum Elements {
    /// Ours.
    Copied(DataBuf),
    /// JavaScript's, of this type.
    InPlace(Box<dyn AsRef<[u8]> + Send>, DType),
}

impl Elements {
    /// Copies `bytes` bytes by `fill`. What does not make up a whole element is left behind: typed arrays have no such rest.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn copied(dtype: DType, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        fn copy<T: Element>(bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<DataBuf> {
            Ok(T::buffer(zeroed(bytes / size_of::<T>(), |values: &mut [T]| fill(cast_slice_mut(values)))?))
        }
        Ok(Self::Copied(match dtype {
            DType::F32 => copy::<f32>(bytes, fill),
            DType::F16 => copy::<f16>(bytes, fill),
            DType::BF16 => copy::<bf16>(bytes, fill),
            DType::E4M3 => copy::<E4M3>(bytes, fill),
            DType::I8 => copy::<i8>(bytes, fill),
        }?))
    }

    /// Reads `bytes` where they are, unless they are not aligned, which typed arrays of that type always are.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn in_place(dtype: DType, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Self> {
        let slice = bytes.as_ref();
        if view(slice, dtype).is_some() {
            return Ok(Self::InPlace(Box::new(bytes), dtype));
        }
        Self::copied(dtype, slice.len(), |to| to.copy_from_slice(slice))
    }

    pub(crate) fn as_ref(&self) -> DataRef<'_> {
        match self {
            Self::Copied(data) => data.as_ref(),
            Self::InPlace(bytes, dtype) => {
                view((**bytes).as_ref(), *dtype).expect("in_place() keeps only bytes that can be viewed")
            }
        }
    }
}

/// The bytes as elements; `None` if they are not aligned.
fn view(bytes: &[u8], dtype: DType) -> Option<DataRef<'_>> {
    fn cast<T: Element + Pod>(bytes: &[u8]) -> Option<DataRef<'_>> {
        try_cast_slice::<u8, T>(bytes).ok().map(T::data)
    }
    match dtype {
        DType::F32 => cast::<f32>(bytes),
        DType::F16 => cast::<f16>(bytes),
        DType::BF16 => cast::<bf16>(bytes),
        DType::E4M3 => cast::<E4M3>(bytes),
        DType::I8 => cast::<i8>(bytes),
    }
}
