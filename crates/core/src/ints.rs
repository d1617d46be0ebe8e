//! Integer arguments of any width, brought to `u32` where the values fit.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Tokens, documents and offsets of one call stay below this; larger corpora are split into several calls.
pub const MAX_TOKENS: usize = 1 << 31;

/// A list of non-negative integers: `&[u32]` is borrowed, other widths are copied when every value fits.
pub trait Integers<'a> {
    /// The values, or an error about `argument` naming the first that does not fit.
    fn into_u32(self, argument: &'static str) -> Result<Cow<'a, [u32]>>;
}

fn convert<T: Copy + TryInto<u64> + std::fmt::Display>(
    values: &[T],
    argument: &'static str,
) -> Result<Cow<'static, [u32]>> {
    let mut out = Vec::with_capacity(values.len());
    for (position, &value) in values.iter().enumerate() {
        let wide: u64 = value
            .try_into()
            .map_err(|_| Error::index(argument, position, "a non-negative integer", value.to_string()))?;
        let narrow = u32::try_from(wide).map_err(|_| Error::Limit {
            argument: argument.into(),
            limit: format!("{} per call", MAX_TOKENS - 1),
            got: wide.to_string(),
        })?;
        out.push(narrow);
    }
    Ok(Cow::Owned(out))
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl<'a> Integers<'a> for &'a [$ty] {
            fn into_u32(self, argument: &'static str) -> Result<Cow<'a, [u32]>> {
                convert(self, argument)
            }
        }
        impl<'a> Integers<'a> for &'a Vec<$ty> {
            fn into_u32(self, argument: &'static str) -> Result<Cow<'a, [u32]>> {
                self.as_slice().into_u32(argument)
            }
        }
        impl<'a, const N: usize> Integers<'a> for &'a [$ty; N] {
            fn into_u32(self, argument: &'static str) -> Result<Cow<'a, [u32]>> {
                self.as_slice().into_u32(argument)
            }
        }
        impl<'a> Integers<'a> for Vec<$ty> {
            fn into_u32(self, argument: &'static str) -> Result<Cow<'a, [u32]>> {
                convert(&self, argument)
            }
        }
    )*};
}
integers!(i8, u8, i16, u16, i32, i64, u64, usize, isize);

impl<'a> Integers<'a> for &'a [u32] {
    fn into_u32(self, _: &'static str) -> Result<Cow<'a, [u32]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl<'a> Integers<'a> for &'a Vec<u32> {
    fn into_u32(self, _: &'static str) -> Result<Cow<'a, [u32]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl<'a, const N: usize> Integers<'a> for &'a [u32; N] {
    fn into_u32(self, _: &'static str) -> Result<Cow<'a, [u32]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl<'a> Integers<'a> for Vec<u32> {
    fn into_u32(self, _: &'static str) -> Result<Cow<'a, [u32]>> {
        Ok(Cow::Owned(self))
    }
}

impl<'a> Integers<'a> for Cow<'a, [u32]> {
    fn into_u32(self, _: &'static str) -> Result<Cow<'a, [u32]>> {
        Ok(self)
    }
}
