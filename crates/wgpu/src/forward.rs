//! The scoring operator.

use std::sync::Arc;

use maxsim_core::{Cancel, Error, Forward, Output, Result, Scores, Submission};

use crate::device::Gpu;
use crate::passes::{Job, Passes};
use crate::submit::started;

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
    let job = Job::new(gpu, op)?;
    let passes = Passes::of(&job, op)?;
    let cancel = cancel.clone();
    Ok(started(Box::pin(async move {
        passes.run(&job, &cancel, &mut scores.values, scores.argmax.as_mut()).await?;
        Ok(Output::Scores(scores))
    })))
}
