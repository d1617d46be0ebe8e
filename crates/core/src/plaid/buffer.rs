//! Numbers in a vector, or in bytes that something else holds (a memory map).

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;

use crate::backend::MaybeSendSync;
use crate::error::{Error, Result};

/// Bytes that buffers are views of. They must be the same bytes, at the same place, as long as the value lives.
pub trait SharedBytes: AsRef<[u8]> + MaybeSendSync + 'static {}
impl<T: AsRef<[u8]> + MaybeSendSync + 'static> SharedBytes for T {}

/// Immutable numbers, owned or part of shared bytes; cheap to clone.
#[derive(Clone)]
pub struct Buffer<T>(Storage<T>);

#[derive(Clone)]
enum Storage<T> {
    Owned(Arc<Vec<T>>),
    Shared { bytes: Arc<dyn SharedBytes>, range: Range<usize> },
}

impl<T: Pod> Buffer<T> {
    /// The numbers in `bytes[range]` (native, that is little-endian order): without a copy where they are aligned.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `bytes`) if the range is not within the bytes or no whole number of elements.
    pub fn view(bytes: Arc<dyn SharedBytes>, range: Range<usize>) -> Result<Self> {
        let all = (*bytes).as_ref();
        let Some(part) = all.get(range.clone()) else {
            let expected = format!("at least {} bytes", range.end);
            return Err(Error::shape("bytes", expected, format!("{} bytes", all.len())));
        };
        if part.len() % size_of::<T>() != 0 {
            let expected = format!("a multiple of {} bytes", size_of::<T>());
            return Err(Error::shape("bytes", expected, format!("{} bytes", part.len())));
        }
        if bytemuck::try_cast_slice::<u8, T>(part).is_ok() {
            return Ok(Self(Storage::Shared { bytes, range }));
        }
        Ok(bytemuck::pod_collect_to_vec(part).into())
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Storage::Owned(values) => values,
            // The cast was tried when the view was made.
            Storage::Shared { bytes, range } => bytemuck::cast_slice(&(**bytes).as_ref()[range.clone()]),
        }
    }
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Storage::Owned(Arc::new(values)))
    }
}

impl<T: Pod> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} × {} bytes)", self.len(), size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_views_are_copies_and_equal() {
        let bytes: Arc<dyn SharedBytes> = Arc::new((0..41u8).collect::<Vec<u8>>());
        for start in 0..4 {
            let view: Buffer<u32> = Buffer::view(bytes.clone(), start..start + 36).unwrap();
            let s = start as u8;
            assert_eq!(view[0], u32::from_le_bytes([s, s + 1, s + 2, s + 3]));
            assert_eq!(view.len(), 9);
        }
        assert!(Buffer::<u32>::view(bytes.clone(), 0..42).is_err());
        assert!(Buffer::<u32>::view(bytes, 0..7).is_err());
    }
}
