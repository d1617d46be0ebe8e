//! What tests and `maxsim selftest` share, so that both judge by the same rules.
//!
//! - [`tolerance`]: how far a result may be from the float64 reference, as named functions.
//! - [`compare`]: results against references, with a text that says what is wrong and where.
//! - [`cases`]: seeded random inputs of every kind.
//! - [`fixture`]: files of stored inputs and results, run through an engine.
//! - [`devices`]: the engines to test.

pub mod cases;
pub mod compare;
pub mod devices;
pub mod fixture;
pub mod tolerance;
