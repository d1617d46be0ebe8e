//! The answer every backend is held to: float64, naive, one obvious loop per rule.
//!
//! Nothing here is fast and nothing here shares code with a kernel.

mod forward;

pub use forward::{OracleScores, forward, retrieve};
