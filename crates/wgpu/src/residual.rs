//! PLAID documents on the device: rows of a centroid's number, an inverse norm and packed buckets, which kernels decode on
//! the way into workgroup memory. `Precision::Int8` takes the same kernels.

use std::sync::{Arc, Mutex};

use maxsim_core::{Codec, Error, Residual, ResidualLayout, Result};
use maxsim_shaders::kernels;

use crate::device::Gpu;
use crate::memory::Buffer;
use crate::rows::{Compact, Held, Rows, SEGMENT, Shard, Stage, row_groups};
use crate::submit::Batch;

/// Words of a row before its buckets: number of the centroid, inverse norm.
const HEAD: usize = 2;

/// Centroids and weights as `lib/residual.wgsl` reads them.
pub(crate) fn upload_codec(gpu: &Gpu, codec: &Codec<'_>, resident: bool) -> Result<Buffer> {
    let weights = codec.bucket_weights().len().next_multiple_of(4);
    let dim = codec.dim().next_multiple_of(4);
    let bytes = 4 * (4 + weights + codec.count() * dim) as u64;
    if bytes > gpu.caps.max_binding {
        return Err(Error::Limit {
            argument: "centroids".into(),
            limit: format!("{} bytes as f32 on this device", gpu.caps.max_binding),
            got: bytes.to_string(),
        });
    }
    let buffer = if resident { gpu.resident(bytes)? } else { gpu.scratch(bytes)? };
    let mut stage = Stage::new(gpu, &buffer);
    let words = HEAD + codec.residual_bytes().div_ceil(4);
    let header = [words as u32, codec.nbits(), codec.dim() as u32, weights as u32 / 4];
    stage.push(|staged| {
        staged.extend_from_slice(bytemuck::cast_slice(&header));
        staged.extend_from_slice(bytemuck::cast_slice(codec.bucket_weights()));
        staged.resize(16 + 4 * weights, 0);
    });
    for c in 0..codec.count() {
        let centroid = codec.centroids().data().slice(c * codec.dim()..(c + 1) * codec.dim()).to_f32();
        stage.push(|staged| {
            staged.extend_from_slice(bytemuck::cast_slice(&centroid));
            staged.resize(staged.len() + 4 * (dim - centroid.len()), 0);
        });
    }
    stage.flush();
    Ok(buffer)
}

impl Held {
    /// Uploads residual documents; `resident` for those that stay.
    pub(crate) fn upload_residual(gpu: &Gpu, residual: &Residual<'_>, resident: bool) -> Result<Self> {
        let codec = upload_codec(gpu, residual.codec(), resident)?;
        Self::with_codec(gpu, residual, &codec, resident, SEGMENT)
    }

    /// Uploads residual documents whose codec is there already; `longest`: rows of a segment.
    pub(crate) fn with_codec(
        gpu: &Gpu,
        residual: &Residual<'_>,
        codec: &Buffer,
        resident: bool,
        longest: u32,
    ) -> Result<Self> {
        let compact = Compact::of(residual.sequences());
        let width = residual.codec().residual_bytes();
        let stride = 4 * HEAD + width.next_multiple_of(4);
        let natural = residual.codec().layout() == ResidualLayout::Lik;
        let rows = Rows { compact: &compact, stride, resident, longest };
        let mut held = Self::shared_out(gpu, &rows, |range, to| {
            let mut stage = Stage::new(gpu, to);
            compact.each_run(range, |rows| {
                for row in rows {
                    let inverse = residual.inv_norms().map_or(1.0, |norms| norms.get(row));
                    let head = [residual.codes()[row], inverse.to_bits()];
                    stage.push(|staged| {
                        staged.extend_from_slice(bytemuck::cast_slice(&head));
                        let buckets = residual.residual(row).iter();
                        // The first field in the lowest bits, whatever the layout.
                        staged.extend(buckets.map(|byte| if natural { *byte } else { byte.reverse_bits() }));
                        staged.resize(staged.len() + stride - 4 * HEAD - width, 0);
                    });
                }
            });
            stage.flush();
            None
        })?;
        held.stride = residual.codec().dim().div_ceil(4) as u32;
        if residual.inv_norms().is_some() {
            held.shards.iter_mut().for_each(|shard| shard.norms = Mutex::new(Some(codec.clone())));
        }
        held.bytes += codec.raw().size();
        held.codec = Some(codec.clone());
        Ok(held)
    }
}

/// Computes inverse norms into the rows of `shard`.
pub(crate) fn norms(gpu: &Arc<Gpu>, codec: &Buffer, shard: &Shard) -> Result<()> {
    let mut batch = Batch::new(gpu);
    let params = [shard.count, 0, 0, 0];
    let groups = row_groups(shard.count as usize);
    batch.dispatch(&kernels::residual_norms(), &params, &[codec, &shard.rows], groups)?;
    batch.submit()?;
    Ok(())
}
