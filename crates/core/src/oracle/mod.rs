//! The answer every backend is held to: float64, naive, one obvious loop per rule.
//!
//! Nothing here is fast and nothing here shares code with a kernel.

mod approx;
mod backward;
mod forward;
mod head;
mod plaid;

pub use approx::plaid_approx_score;
pub use backward::{OracleGradients, backward};
pub use forward::{OracleScores, forward, retrieve};
pub use head::{OracleHeadGradients, from_hidden, from_hidden_backward};
pub use plaid::plaid_search;
