//! Documents that are normalised, converted or quantised while they are uploaded, with the bits that the host would give them.

use std::sync::Arc;

use maxsim_core::{BackendKind, DType, Documents, Resident, ResidentMeta, Result, Tokens};
use maxsim_shaders::kernels::{self, STORED};

use crate::device::Gpu;
use crate::passes::PASS;
use crate::plan::stored;
use crate::rows::{Compact, Held, Rows, SEGMENT, row_bytes, write_rows};
use crate::submit::Batch;

/// Parameters of the kernel `store`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct StoreParams {
    rows: u32,
    dim: u32,
    stride: u32,
    to_stride: u32,
    first: u32,
    normalize: u32,
    unused: [u32; 2],
}

/// Multiply-adds that the conversion of an element takes as long as, about.
const WORK: u64 = 128;

/// Uploads `documents`, f32, f16 or bf16, normalised if asked for, as `storage`.
pub(crate) fn store(
    gpu: &Arc<Gpu>,
    documents: &Tokens<'_>,
    normalize: bool,
    storage: DType,
) -> Result<Resident> {
    let compact = Compact::of(documents.sequences());
    let (dim, from) = (documents.dim(), documents.dtype());
    let stride = row_bytes(storage, dim, gpu.caps.row_unit(storage));
    let given = row_bytes(from, dim, 4);
    let rows = Rows { compact: &compact, stride, widest: 0, resident: true, longest: SEGMENT };
    let variant = kernels::store(stored(from), stored(storage));
    // Rows at a time: a bounded buffer, and a fraction of a second.
    let by_bytes = PASS.min(gpu.caps.max_binding) / given as u64;
    let by_work = gpu.caps.max_work / (WORK * dim as u64);
    let piece = by_bytes.min(by_work).max(1) as usize;
    let mut held = Held::shared_out(gpu, &rows, |range, to| {
        let scales = storage.is_quantized().then(|| gpu.resident(4 * range.len() as u64)).transpose()?;
        let unused = gpu.scratch(0)?;
        let staged = gpu.scratch((given * piece.min(range.len())) as u64)?;
        for first in range.clone().step_by(piece) {
            let here = first..range.end.min(first + piece);
            write_rows(gpu, documents.data(), dim, &compact, here.clone(), given, &staged);
            let params = StoreParams {
                rows: here.len() as u32,
                dim: dim as u32,
                stride: given as u32 / 4,
                to_stride: stride as u32 / 4,
                first: (first - range.start) as u32,
                normalize: normalize.into(),
                unused: [0; 2],
            };
            let mut batch = Batch::new(gpu);
            let buffers = [&staged, to, scales.as_ref().unwrap_or(&unused)];
            batch.dispatch(&variant, &params, &buffers, here.len().div_ceil(STORED as usize))?;
            // What it reports comes with whatever waits for the device next.
            batch.submit()?;
        }
        Ok(scales)
    })?;
    (held.dtype, held.stride) = (storage, stride as u32 / 16);
    let mut meta = ResidentMeta::of(&Documents::Tokens(documents.clone()), BackendKind::Wgpu, normalize);
    meta.dtype = storage;
    meta.token_bytes = dim * storage.size();
    meta.bytes = held.bytes;
    Ok(Resident::new(meta, held))
}
