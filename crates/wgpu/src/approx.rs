//! `plaid_approx_score`: scores from a table of similarities with centroids. Tables beyond a binding go by query tokens.

use std::sync::Arc;

use maxsim_core::{ApproxScore, Cancel, Error, Output, Result, Scores, Submission, dispatch};
use maxsim_shaders::kernels;

use crate::device::Gpu;
use crate::plan::stored;
use crate::rows::Stage;
use crate::submit::Batch;

/// Query tokens that kernels add up together: `GROUP` of `lib/order.wgsl`.
const GROUP: usize = 32;

/// Parameters of the kernel `approx`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ApproxParams {
    work: u32,
    width: u32,
    stride: u32,
    first: u32,
}

/// Starts a validated operator.
pub(crate) fn approx_score(gpu: &Arc<Gpu>, op: &ApproxScore<'_>, cancel: &Cancel) -> Result<Submission> {
    let count = op.sequences().count();
    let (centroids, width) = (op.table().shape()[0], op.table().shape()[1]);
    let mut scores = Scores { values: vec![0.0; count], shape: vec![count], argmax: None };
    if count == 0 || width == 0 || centroids == 0 {
        return Ok(Submission::ready(Ok(Output::Scores(scores))));
    }
    let dtype = op.table().dtype();
    let most = gpu.caps.max_binding;
    let limit = |argument: &'static str, bytes: u64| Error::Limit {
        argument: argument.into(),
        limit: format!("{most} bytes on this device"),
        got: bytes.to_string(),
    };
    // A table that does not fit a binding goes by groups of query tokens: what kernels add up at once, so that no bit changes.
    let bytes_of = |tokens: usize| ((tokens * dtype.size()).next_multiple_of(4) * centroids) as u64;
    let columns = if bytes_of(width) <= most { width } else { GROUP };
    if bytes_of(columns) > most {
        return Err(limit("query_centroid_scores", bytes_of(columns)));
    }
    let variant = kernels::approx(stored(dtype));
    let bytes: &[u8] = dispatch!(DataRef, op.table().data(), |s| bytemuck::cast_slice(s));
    let mut parts = Vec::new();
    for start in (0..width).step_by(columns) {
        let range = start..width.min(start + columns);
        let row = (range.len() * dtype.size()).next_multiple_of(4);
        let table = gpu.scratch((row * centroids) as u64)?;
        let mut stage = Stage::new(gpu, &table);
        for values in bytes.chunks_exact(width * dtype.size()) {
            let values = &values[range.start * dtype.size()..range.end * dtype.size()];
            stage.push(|staged| {
                staged.extend_from_slice(values);
                staged.resize(staged.len() + row - values.len(), 0);
            });
        }
        stage.flush();
        let mut first = 0;
        while first < count {
            cancel.check()?;
            // As many documents as a binding holds, offsets and codes.
            let mut words = 1;
            let more = (first..count).take_while(|&document| {
                words += 1 + op.sequences().rows(document).len() as u64;
                4 * words <= most
            });
            let documents = first..first + more.count();
            if documents.is_empty() {
                return Err(limit("codes", 4 * words));
            }
            let mut codes: Vec<u32> = Vec::with_capacity(words as usize);
            let mut at = documents.len() + 1;
            for document in documents.clone() {
                codes.push(at as u32);
                at += op.sequences().rows(document).len();
            }
            codes.push(at as u32);
            documents.clone().for_each(|j| codes.extend_from_slice(&op.codes()[op.sequences().rows(j)]));
            let codes = gpu.scratch_with(bytemuck::cast_slice(&codes))?;
            let out = gpu.scratch(4 * documents.len() as u64)?;
            let params = ApproxParams {
                work: documents.len() as u32,
                width: range.len() as u32,
                stride: row as u32 / 4,
                first: 0,
            };
            let mut batch = Batch::new(gpu);
            batch.dispatch(&variant, &params, &[&table, &codes, &out], documents.len())?;
            batch.read(&out, 4 * documents.len() as u64);
            first = documents.end;
            parts.push((batch.submit()?, documents));
        }
    }
    Ok(Submission::pending(Box::pin(async move {
        for (pending, documents) in parts {
            let read = pending.finish().await?;
            let values = read[0].iter().map(|&bits| f32::from_bits(bits));
            scores.values[documents].iter_mut().zip(values).for_each(|(to, value)| *to += value);
        }
        Ok(Output::Scores(scores))
    })))
}
