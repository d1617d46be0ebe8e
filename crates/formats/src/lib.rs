//! `.npy` and `.safetensors` files.
//!
//! Files come from anywhere, so nothing a header claims is believed before it is compared with the bytes that are there:
//! a damaged or hostile file is an [`Error`](maxsim_core::Error) (`ERR_FORMAT`, `ERR_DTYPE`, `ERR_LIMIT`, `ERR_VERSION`,
//! `ERR_IO`), never a panic, and never an allocation larger than the file itself.
//!
//! Both parsers are written here. `npyz` allocates what a header's length field says, and `safetensors` computes the end
//! of the data with an addition that overflows for a tensor of 2⁶⁴−1 bytes; both serve as independent references in the
//! tests.
//!
//! ```
//! use maxsim_formats::{Array, npy};
//! let array = Array::new(vec![2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! let bytes = npy::to_bytes(&array)?;
//! assert_eq!(npy::from_bytes(&bytes)?, array);
//! # Ok::<(), maxsim_core::Error>(())
//! ```

mod array;
mod file;
pub mod npy;
mod safetensors;

pub use array::{Array, ArrayData, ElementType};
pub use npy::{NpyFile, read_npy, write_npy};
pub use safetensors::{SafeTensors, TensorView, safetensors_to_bytes, write_safetensors};
