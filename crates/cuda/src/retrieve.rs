//! Top-k: score a chunk of documents, keep the best keys on the device, go on.

use maxsim_core::{Result, Retrieve, TopK};

use crate::config;
use crate::context::{Context, WORKSPACE};
use crate::device::Pending;
use crate::forward::{Scoring, may_be_empty, score};
use crate::memory::{Buffer, address};
use crate::operands::Held;
use crate::params::SelectParams;

/// Results that are sorted on the device: as many keys as fit into shared memory everywhere.
const SORTED: usize = 4096;

/// Keys of the best documents of every query, `[Nq, width]`, on their way.
pub(crate) fn retrieve(context: &Context, op: &Retrieve<'_>, held: &Held) -> Result<Box<dyn Pending>> {
    let (queries, documents, width) = (op.forward.q.count(), op.forward.d.count(), op.width());
    let chunk = op.options.chunk.unwrap_or(WORKSPACE / 4 / queries.max(1)).clamp(1, documents.max(1));
    let mut forward = op.forward.clone();
    forward.options.argmax = false;
    let scores = context.pool.buffer(queries * chunk * 4)?;
    if may_be_empty(&forward.q) {
        scores.fill(0)?;
    }
    let unit = config::topk_select();
    let mut before: Option<(Buffer, usize)> = None;
    for first in (0..documents).step_by(chunk) {
        let last = documents.min(first + chunk);
        let part = Scoring {
            documents: first as u32..last as u32,
            columns: last - first,
            column: -(first as i64),
            ..Scoring::of(&forward, held)
        };
        score(context, &part, &scores, None)?;
        let kept = before.as_ref().map_or(0, |b| b.1);
        let next = width.min(kept + last - first);
        let keys = context.pool.buffer(queries * next * 8)?;
        let capacity = if next <= SORTED { next.next_power_of_two().max(2) as u32 } else { 0 };
        let params = SelectParams {
            scores: scores.address(),
            before: address(before.as_ref().map(|b| &b.0)),
            keys: keys.address(),
            stride: (last - first) as u64,
            count: (last - first) as u32,
            first: first as u32,
            before_count: kept as u32,
            width: next as u32,
            largest: op.options.largest.into(),
            capacity,
        };
        // SAFETY: scores, old and new keys are as long as the counts say.
        unsafe { context.launch(&unit, [queries as u32, 1], 4 * 260 + 8 * capacity, &params)? };
        before = Some((keys, next));
    }
    let (keys, _) = before.expect("there are documents");
    keys.read(queries * width * 8)
}

/// Keys to results: see `key_of` in `topk/select.cuh`.
pub(crate) fn results(op_shape: Vec<usize>, width: usize, largest: bool, mut keys: Vec<u64>) -> TopK {
    if width > SORTED {
        keys.chunks_exact_mut(width).for_each(<[u64]>::sort_unstable);
    }
    let score = |key: u64| {
        let high = (key >> 32) as u32;
        let ascending = if largest { !high } else { high };
        f32::from_bits(if ascending >> 31 == 1 { ascending ^ 0x8000_0000 } else { !ascending })
    };
    TopK {
        scores: keys.iter().map(|&key| score(key)).collect(),
        indices: keys.iter().map(|&key| key as u32).collect(),
        shape: op_shape,
        argmax: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(score: f32, index: u32, largest: bool) -> u64 {
        let bits = if score == 0.0 { 0 } else { score.to_bits() };
        let ascending = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
        u64::from(if largest { !ascending } else { ascending }) << 32 | u64::from(index)
    }

    #[test]
    fn keys_order_like_results_and_give_scores_back() {
        let scores = [f32::NEG_INFINITY, -3.5, -1e-30, 0.0, 1e-30, 2.0, f32::INFINITY];
        for largest in [false, true] {
            let mut keys: Vec<u64> = scores.iter().map(|&s| key(s, 7, largest)).collect();
            if largest {
                keys.reverse();
            }
            assert!(keys.is_sorted(), "{largest}");
            let mut back = results(vec![7], 7, largest, keys).scores;
            if largest {
                back.reverse();
            }
            assert_eq!(back, scores);
        }
        assert!(key(1.0, 3, true) < key(1.0, 4, true));
    }
}
