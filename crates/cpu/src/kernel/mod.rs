//! Kernels written once over [`Simd`](crate::arch::Simd); the levels instantiate them.

#![allow(clippy::needless_range_loop, reason = "tiles are indexed by row and vector; constant bounds unroll")]

pub(crate) mod approx;
pub(crate) mod convert;
pub(crate) mod forward;
pub(crate) mod integer;
pub(crate) mod norm;
pub(crate) mod plaid;
pub(crate) mod project;
pub(crate) mod residual;
