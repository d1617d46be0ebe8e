//! GPUs through wgpu as a backend of maxsim: WebGPU in browsers, Vulkan, Metal and DX12 natively.
//!
//! - `device`, [`Tier`]: which adapter, and what may be used of it.
//! - `memory`: buffers, the byte budget, and buffers kept for reuse.
//! - `pipeline`: compiled variants of the kernels in `maxsim-shaders`.
//! - `submit`: dispatches of one call, recorded and submitted together; their results read back.
//! - `rows`: token batches as they lie on the device.
//! - `store`: documents normalised and converted on the device as they are uploaded.
//! - `plan`: from an operator and the device's capabilities to variants; pure, so that it can be tested without a device.
//! - `passes`: queries that meet documents, in submissions of bounded size.
//! - `gradient`: rows added up by their winners, and the way back through normalisation.
//! - one file per operator: what is uploaded, which dispatches, how results are put together.

#![cfg_attr(
    target_arch = "wasm32",
    allow(clippy::arc_with_non_send_sync, reason = "wgpu's types are both where threads exist")
)]
#![cfg_attr(
    not(all(feature = "gradients", feature = "plaid", feature = "residual", feature = "store")),
    allow(dead_code, reason = "what operators share is there for those that are left out, too")
)]

#[cfg(feature = "residual")]
mod approx;
mod backend;
#[cfg(feature = "gradients")]
mod backward;
mod device;
mod fault;
mod forward;
#[cfg(feature = "gradients")]
mod gradient;
#[cfg(feature = "gradients")]
mod head;
mod matmul;
mod memory;
mod passes;
mod pipeline;
#[cfg(feature = "plaid")]
mod plaid;
mod plan;
mod residual;
mod retrieve;
mod rows;
#[cfg(feature = "store")]
mod store;
mod submit;
mod tier;

pub use backend::WgpuBackend;
pub use device::{AdapterFacts, WgpuOptions, adapters};
pub use tier::Tier;
