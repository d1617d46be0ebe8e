//! Plain n-dimensional arrays: weights, gradients, quantised vectors.

use crate::dtype::{DType, DataBuf, DataRef};
use crate::error::{Error, Result};
use crate::sequences::checked_product;

fn check(data: usize, shape: &[usize]) -> Result<()> {
    let elements = checked_product("data", shape)?;
    if data != elements {
        return Err(Error::shape(
            "data",
            format!("{elements} elements for shape {shape:?}"),
            format!("{data} elements"),
        ));
    }
    Ok(())
}

/// A borrowed row-major array.
#[derive(Debug, Clone)]
pub struct TensorRef<'a> {
    data: DataRef<'a>,
    shape: Vec<usize>,
}

impl<'a> TensorRef<'a> {
    /// `data` in the given shape.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `data`) on another element count.
    pub fn new(data: impl Into<DataRef<'a>>, shape: &[usize]) -> Result<Self> {
        let data = data.into();
        check(data.len(), shape)?;
        Ok(Self { data, shape: shape.to_vec() })
    }

    /// The elements.
    pub fn data(&self) -> DataRef<'a> {
        self.data
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// First non-finite element, as an error about `argument`.
    pub fn check_finite(&self, argument: &'static str) -> Result<()> {
        match self.data.first_non_finite() {
            None => Ok(()),
            Some(position) => {
                Err(Error::NonFinite { argument: argument.into(), position, got: self.data.get(position) })
            }
        }
    }
}

/// An owned row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    data: DataBuf,
    shape: Vec<usize>,
}

impl Tensor {
    /// `data` in the given shape.
    ///
    /// # Errors
    /// `ERR_SHAPE` (argument `data`) on another element count.
    pub fn new(data: DataBuf, shape: Vec<usize>) -> Result<Self> {
        check(data.len(), &shape)?;
        Ok(Self { data, shape })
    }

    /// The elements.
    pub fn data(&self) -> &DataBuf {
        &self.data
    }

    /// The elements, without a copy.
    pub fn into_data(self) -> DataBuf {
        self.data
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Borrows the array.
    pub fn as_ref(&self) -> TensorRef<'_> {
        TensorRef { data: self.data.as_ref(), shape: self.shape.clone() }
    }
}
