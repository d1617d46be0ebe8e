//! Kernels written once over [`Simd`](crate::arch::Simd); the levels instantiate them.

pub(crate) mod convert;
pub(crate) mod forward;
pub(crate) mod norm;
pub(crate) mod project;
