//! Top-k: score a chunk of documents, keep the best keys on the device, go on.

use maxsim_core::{Result, Retrieve, TopK};

use crate::config;
use crate::context::{Context, WORKSPACE};
use crate::device::Reading;
use crate::forward::{Scoring, may_be_empty, score};
use crate::memory::{Buffer, address};
use crate::operands::Held;
use crate::params::SelectParams;

/// Scores that one block selects from, at least.
const SEGMENT: u32 = 4096;
/// Results that are sorted on the device: as many keys as fit into shared memory everywhere.
const SORTED: usize = 4096;

/// Keys of the best documents of every query, `[Nq, width]`, on their way.
pub(crate) fn retrieve(context: &Context, op: &Retrieve<'_>, held: &Held) -> Result<Reading> {
    let (queries, documents, width) = (op.forward.q.count(), op.forward.d.count(), op.width());
    let chunk = op.options.chunk.unwrap_or(WORKSPACE / 4 / queries.max(1)).clamp(1, documents.max(1));
    let mut forward = op.forward.clone();
    forward.options.argmax = false;
    let scores = context.pool.buffer(queries * chunk * 4)?;
    if may_be_empty(&forward.q) {
        scores.fill(0)?;
    }
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
        let source = Source {
            scores: scores.address(),
            stride: (last - first) as u64,
            count: (last - first) as u32,
            first: first as u32,
            before: address(before.as_ref().map(|b| &b.0)),
            before_count: kept as u32,
        };
        let keys = select(context, source, queries, next, op.options.largest)?;
        before = Some((keys, next));
    }
    let (keys, _) = before.expect("there are documents");
    keys.read(queries * width * 8)
}

/// What is selected from: scores of documents `first ..`, and keys of what was best so far.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) scores: u64,
    pub(crate) stride: u64,
    pub(crate) count: u32,
    pub(crate) first: u32,
    pub(crate) before: u64,
    pub(crate) before_count: u32,
}

/// The best `width` of every query, in order where they can be sorted. Many scores are cut into segments for a block each;
/// what is best of those is selected from again. NaN, the score of what takes no part, comes last: see [`is_absent`].
pub(crate) fn select(
    context: &Context,
    source: Source,
    queries: usize,
    width: usize,
    largest: bool,
) -> Result<Buffer> {
    let unit = config::topk_select();
    let capacity = if width <= SORTED { width.next_power_of_two().max(2) as u32 } else { 0 };
    let (mut source, mut best): (Source, Option<Buffer>) = (source, None);
    loop {
        if let Some(keys) = &best {
            let count = (keys.bytes() / 8 / queries) as u32;
            source = Source { before: keys.address(), before_count: count, ..Source::default() };
        }
        let total = source.count + source.before_count;
        // A segment that keeps most of what it sees is a pass for nothing.
        let segment = if capacity > 0 { SEGMENT.max(8 * capacity) } else { total }.min(total);
        let segments = total.div_ceil(segment.max(1)).max(1);
        let keys = context.pool.buffer(queries * segments as usize * width * 8)?;
        let params = SelectParams {
            scores: source.scores,
            before: source.before,
            keys: keys.address(),
            stride: source.stride,
            count: source.count,
            first: source.first,
            before_count: source.before_count,
            width: width as u32,
            largest: largest.into(),
            capacity,
            segment,
            segments,
        };
        let shared = 4 * 260 + 8 * capacity;
        // SAFETY: scores, old and new keys are as long as the counts say.
        unsafe { context.launch(&unit, [queries as u32, segments], shared, &params)? };
        if segments == 1 {
            return Ok(keys);
        }
        best = Some(keys);
    }
}

/// Keys to results: see `key_of` in `topk/select.cuh`.
pub(crate) fn results(op_shape: Vec<usize>, width: usize, largest: bool, mut keys: Vec<u64>) -> TopK {
    if width > SORTED {
        keys.chunks_exact_mut(width).for_each(<[u64]>::sort_unstable);
    }
    TopK {
        scores: keys.iter().map(|&key| score_of(key, largest)).collect(),
        indices: keys.iter().map(|&key| key as u32).collect(),
        shape: op_shape,
        argmax: None,
    }
}

/// The score in a key.
pub(crate) fn score_of(key: u64, largest: bool) -> f32 {
    let high = (key >> 32) as u32;
    let ascending = if largest { !high } else { high };
    f32::from_bits(if ascending >> 31 == 1 { ascending ^ 0x8000_0000 } else { !ascending })
}

/// Whether a key is that of something that takes no part, or of nothing.
pub(crate) fn is_absent(key: u64) -> bool {
    key >> 32 == u64::from(u32::MAX)
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
