//! 64-bit Arm.

pub(crate) mod neon;
pub(crate) mod neon_dot;
