//! The CUDA backend of `maxsim`: kernels compiled at run time for exactly the GPU at hand.
//!
//! - [`CudaBackend`] runs operators on one GPU. The driver and NVRTC are loaded when it is made; a program that uses this
//!   crate builds and starts without CUDA, and gets `ERR_UNSUPPORTED` naming the library that is missing.
//! - `config` chooses a kernel's configuration, `driver` compiles (or finds it compiled), loads and launches it, `memory` owns
//!   what is on the device, `operands` brings queries and documents there. One file per operator decides what is launched.
//! - The kernels' text is `maxsim-kernels`; with the feature `emulator` it runs on the host, which is how it is tested.
//!
//! Run on an H200 with its own kernels (sm_90a) and with those of sm_80; those of sm_75 and sm_89 ran in the emulator only, and
//! for newer GPUs they are compiled and not run. `plaid/residual.cuh` and `head/products.cuh` as they are now ran in the emulator only.

mod approx;
mod arch;
mod backend;
mod backward;
mod config;
mod context;
mod device;
mod driver;
#[cfg(feature = "emulator")]
mod emulator;
mod forward;
mod graph;
mod head;
mod interop;
pub mod jit;
mod memory;
mod operands;
mod params;
mod pieces;
mod plaid;
mod plan;
mod retrieve;
mod shards;
pub mod tuning;
mod variants;

pub use arch::{Arch, Path};
pub use backend::{CudaBackend, CudaOptions, Event, Measurement};
pub use device::{Caps, Unit};
pub use graph::Graph;
pub use interop::{DeviceMemory, DeviceTensor, DeviceWinners, GradientsInto};
pub use shards::ShardedBackend;
pub use variants::{prebuilt, variants};
