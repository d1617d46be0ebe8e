//! Products of f32 matrices on the device.

use maxsim_core::Result;
use maxsim_shaders::kernels;

use crate::memory::Buffer;
use crate::submit::Batch;

/// Parameters of the kernel `matmul`.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct MatmulParams {
    pub(crate) work: u32,
    pub(crate) columns: u32,
    pub(crate) m: u32,
    pub(crate) n: u32,
    pub(crate) k: u32,
    pub(crate) a_stride: u32,
    pub(crate) b_stride: u32,
    pub(crate) c_stride: u32,
    pub(crate) a_start: u32,
    pub(crate) flags: u32,
    pub(crate) b_start: u32,
    pub(crate) unused: u32,
}

/// There is a bias.
pub(crate) const BIAS: u32 = 1;
/// The product is added to what is there.
pub(crate) const ADD: u32 = 2;

/// Records `A·Bᵀ`, or `Aᵀ·B` if `transposed`, of `params.m` by `params.n`. Buffers: A, B, bias, result.
pub(crate) fn matmul(
    batch: &mut Batch,
    transposed: bool,
    params: MatmulParams,
    buffers: [&Buffer; 4],
) -> Result<()> {
    let columns = params.n.div_ceil(64);
    let work = params.m.div_ceil(64) * columns;
    let params = MatmulParams { work, columns, ..params };
    batch.dispatch(&kernels::matmul(transposed), &params, &buffers, work as usize)
}
