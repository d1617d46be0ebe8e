//! Test support of `maxsim`.

pub mod fixture;
