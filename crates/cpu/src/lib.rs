//! The CPU backend of `maxsim`: fused MaxSim kernels that never build the similarity tensor.
//!
//! - [`CpuBackend`] runs operators on a pool of threads at one SIMD [`Level`].
//! - `arch/` has a folder per instruction set; `kernel/` has the kernels, written once over a vector trait.
//! - One file per operator (`forward`, `backward`, `head`, `approx`, `retrieve`) decides what meets what on which thread;
//!   `pack`, `documents` and, for 8-bit integers, `integer` bring queries and documents into the kernels' form. `residual` is
//!   `forward` for residual documents as integers.

mod approx;
mod arch;
mod backend;
mod backward;
mod documents;
mod forward;
mod head;
mod integer;
mod kernel;
mod level;
mod norm;
mod pack;
mod plaid;
mod residual;
mod retrieve;
mod threads;

pub use backend::{CpuBackend, CpuOptions};
pub use level::Level;
