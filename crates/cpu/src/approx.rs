//! `plaid_approx_score` on the CPU.

use maxsim_core::{ApproxScore, Cancel, DataRef, Result, Scores};

use crate::arch::Kernels;
use crate::threads::Threads;

/// Documents of a task.
const DOCUMENTS: usize = 64;

/// Runs a validated operator.
pub(crate) fn approx_score(
    op: &ApproxScore<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let count = op.sequences().count();
    let width = op.table().shape()[1];
    let scores = threads.map(count.div_ceil(DOCUMENTS), Vec::new, |best: &mut Vec<f32>, task| {
        cancel.check()?;
        let mut scores = Vec::with_capacity(DOCUMENTS);
        for document in task * DOCUMENTS..((task + 1) * DOCUMENTS).min(count) {
            best.clear();
            best.resize(width, f32::NEG_INFINITY);
            let codes = &op.codes()[op.sequences().rows(document)];
            // SAFETY: `kernels` exist only for levels this machine runs.
            unsafe {
                match op.table().data() {
                    DataRef::F32(table) => (kernels.approx_f32)(table, codes, best),
                    DataRef::F16(table) => (kernels.approx_f16)(table, codes, best),
                    _ => unreachable!("tables are f32 or f16"),
                }
            }
            // A query token still at -inf has no winner.
            let winners = best.iter().filter(|&&x| x > f32::NEG_INFINITY);
            scores.push(winners.map(|&x| f64::from(x)).sum::<f64>() as f32);
        }
        Ok(scores)
    })?;
    Ok(Scores { values: scores.concat(), shape: vec![count], argmax: None })
}
