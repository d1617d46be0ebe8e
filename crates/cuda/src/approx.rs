//! `plaid_approx_score`.

use maxsim_core::{ApproxScore, Result};

use crate::config;
use crate::context::Context;
use crate::memory::Buffer;
use crate::operands::{Packing, bytes_of};
use crate::params::ApproxParams;

/// Scores of all documents, `[B]`.
pub(crate) fn approx_score(context: &Context, op: &ApproxScore<'_>) -> Result<Buffer> {
    let packing = Packing::new(op.sequences());
    let documents = op.sequences().count();
    let scores = context.pool.buffer(documents * 4)?;
    let codes: Vec<u32> = packing.slots().map(|slot| op.codes()[slot]).collect();
    let [centroids, width] = *op.table().shape() else { unreachable!("tables are of rank 2") };
    let (table, codes) = (context.pool.upload(bytes_of(op.table().data()))?, context.pool.upload(&codes)?);
    let offsets = context.pool.upload(&packing.offsets)?;
    let unit = config::approx_score(op.table().dtype().into(), width as u32);
    let warps = unit.constant("kThreads") as usize / 32;
    let params = ApproxParams {
        table: table.address(),
        codes: codes.address(),
        offsets: offsets.address(),
        scores: scores.address(),
        documents: documents as u32,
        centroids: centroids as u32,
        width: width as u32,
        unused: 0,
    };
    // SAFETY: table, codes, offsets and scores are as long as the counts say.
    unsafe { context.launch(&unit, [documents.div_ceil(warps) as u32, 1], 0, &params)? };
    Ok(scores)
}
