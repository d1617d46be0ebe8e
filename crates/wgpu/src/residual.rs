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

/// Centroids and weights on the device.
#[derive(Clone)]
pub(crate) struct HeldCodec {
    /// As `lib/residual.wgsl` reads them.
    pub(crate) buffer: Buffer,
    /// Weights of buckets.
    pub(crate) weights: Vec<f32>,
    /// What kernels are chosen by.
    pub(crate) shape: CodecShape,
    /// Where centroids begin in the buffer, in vectors.
    pub(crate) centroids_at: u32,
}

/// What kernels for residual documents are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodecShape {
    /// Bits of a bucket.
    pub(crate) nbits: u32,
    pub(crate) centroids: usize,
}

impl CodecShape {
    pub(crate) fn of(codec: &Codec<'_>) -> Self {
        Self { nbits: codec.nbits(), centroids: codec.count() }
    }
}

/// Brings centroids and weights to the device.
pub(crate) fn upload_codec(gpu: &Gpu, codec: &Codec<'_>, resident: bool) -> Result<HeldCodec> {
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
    Ok(HeldCodec {
        buffer,
        weights: codec.bucket_weights().to_vec(),
        shape: CodecShape::of(codec),
        centroids_at: 1 + weights as u32 / 4,
    })
}

/// How residual rows are written.
#[derive(Clone, Copy)]
pub(crate) struct RowWriter {
    /// Bytes of a row on the device.
    pub(crate) stride: usize,
    /// Bytes of its buckets.
    width: usize,
    /// Whether the first field of a byte lies in its lowest bits, as it does on the device.
    natural: bool,
    /// f32 vectors of a decoded row.
    vectors: u32,
}

impl RowWriter {
    pub(crate) fn new(codec: &Codec<'_>) -> Self {
        let width = codec.residual_bytes();
        Self {
            stride: 4 * HEAD + width.next_multiple_of(4),
            width,
            natural: codec.layout() == ResidualLayout::Lik,
            vectors: codec.dim().div_ceil(4) as u32,
        }
    }

    /// Appends a row.
    pub(crate) fn push(&self, stage: &mut Stage<'_>, code: u32, inverse_norm: f32, buckets: &[u8]) {
        stage.push(|staged| {
            staged.extend_from_slice(bytemuck::cast_slice(&[code, inverse_norm.to_bits()]));
            staged.extend(buckets.iter().map(|byte| if self.natural { *byte } else { byte.reverse_bits() }));
            staged.resize(staged.len() + self.stride - 4 * HEAD - self.width, 0);
        });
    }

    /// Rows that were written, as documents; `normed`: with their inverse norms.
    pub(crate) fn documents(&self, mut held: Held, codec: HeldCodec, normed: bool) -> Held {
        held.stride = self.vectors;
        if normed {
            held.shards.iter_mut().for_each(|shard| shard.norms = Mutex::new(Some(codec.buffer.clone())));
        }
        held.bytes += codec.buffer.raw().size();
        held.codec = Some(codec);
        held
    }
}

impl Held {
    /// Uploads residual documents; `resident` for those that stay.
    pub(crate) fn upload_residual(gpu: &Gpu, residual: &Residual<'_>, resident: bool) -> Result<Self> {
        let codec = upload_codec(gpu, residual.codec(), resident)?;
        let compact = Compact::of(residual.sequences());
        let writer = RowWriter::new(residual.codec());
        let rows = Rows { compact: &compact, stride: writer.stride, widest: 0, resident, longest: SEGMENT };
        let held = Self::shared_out(gpu, &rows, |range, to| {
            let mut stage = Stage::new(gpu, to);
            compact.each_run(range, |rows| {
                for row in rows {
                    let inverse = residual.inv_norms().map_or(1.0, |norms| norms.get(row));
                    writer.push(&mut stage, residual.codes()[row], inverse, residual.residual(row));
                }
            });
            stage.flush();
            Ok(None)
        })?;
        Ok(writer.documents(held, codec, residual.inv_norms().is_some()))
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
