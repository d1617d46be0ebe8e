//! The scoring operator.

use std::ops::Range;
use std::sync::Arc;

use maxsim_core::{Cancel, Error, Forward, Output, Result, Scores, Submission};

use crate::device::Gpu;
use crate::passes::{Job, Placed};
use crate::submit::{Batch, Pending};

/// Starts a validated operator.
pub(crate) fn forward(gpu: &Arc<Gpu>, op: &Forward<'_>, cancel: &Cancel) -> Result<Submission> {
    let mut values: Vec<f32> = Vec::new();
    let bytes = 4 * op.pair_count() as u64;
    values.try_reserve_exact(op.pair_count()).map_err(|_| Error::OutOfMemory { requested: bytes })?;
    values.resize(op.pair_count(), 0.0);
    let mut scores =
        Scores { values, shape: op.output_shape(), argmax: op.options.argmax.then(|| op.empty_argmax()) };
    if op.pair_count() == 0 {
        return Ok(Submission::ready(Ok(Output::Scores(scores))));
    }
    let passes = passes(&Job::new(gpu, op)?, op, cancel)?;
    Ok(Submission::pending(Box::pin(async move {
        for (pending, placed) in passes {
            let read = pending.finish().await?;
            placed.place(&read, &mut scores.values, scores.argmax.as_mut());
        }
        Ok(Output::Scores(scores))
    })))
}

/// Starts the passes of an operator whose documents are on the device.
pub(crate) fn passes(job: &Job, op: &Forward<'_>, cancel: &Cancel) -> Result<Vec<(Pending, Placed)>> {
    let mut passes = Vec::new();
    let groups = job.query_groups(&op.q, usize::MAX)?;
    let listed = if job.is_list() { by_group(op, &groups) } else { Vec::new() };
    for (g, range) in groups.into_iter().enumerate() {
        let mut batch = Batch::new(&job.gpu);
        let group = job.upload(&mut batch, &op.q, range)?;
        if job.is_list() {
            job.list(batch, &group, &listed[g], cancel, &mut passes)?;
        } else {
            job.cross(batch, &group, cancel, &mut passes)?;
        }
    }
    Ok(passes)
}

/// Pairs of every group of queries: (pair, query of the group, document).
fn by_group(op: &Forward<'_>, groups: &[Range<usize>]) -> Vec<Vec<(u32, u32, u32)>> {
    let mut listed = vec![Vec::new(); groups.len()];
    for p in 0..op.pair_count() {
        let (q, d) = op.pair(p);
        let g = groups.partition_point(|range| range.end <= q);
        listed[g].push((p as u32, (q - groups[g].start) as u32, d as u32));
    }
    listed
}
