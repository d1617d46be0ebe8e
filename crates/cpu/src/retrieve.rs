//! Top-k on the CPU: score a chunk of documents, keep the best, go on.

use std::cmp::Ordering;

use maxsim_core::{Cancel, Forward, Options, Result, Retrieve, Scores, TopK};

use crate::arch::Kernels;
use crate::documents;
use crate::forward::{forward, forward_opened};
use crate::threads::Threads;

/// Scores held at a time where the caller named no chunk (4 MiB).
const SCORES: usize = 1 << 20;

/// A candidate: score and document.
pub(crate) type Hit = (f32, u32);

/// Result order: better score first, lower index among equals.
pub(crate) fn rank(largest: bool, a: &Hit, b: &Hit) -> Ordering {
    let by_score = if largest { b.0.partial_cmp(&a.0) } else { a.0.partial_cmp(&b.0) };
    // Scores are never NaN: NaN similarities lose, and -inf ones do not count.
    by_score.unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// Runs a validated operator.
pub(crate) fn retrieve(
    op: &Retrieve<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<TopK> {
    let (opened, normalized) = documents::open(&op.forward.d)?;
    let queries = op.forward.q.count();
    let (documents, width, largest) = (opened.count(), op.width(), op.options.largest);
    let chunk = op.options.chunk.unwrap_or_else(|| (SCORES / queries.max(1)).max(64));
    let scoring = Options { argmax: false, validate_finite: false, ..op.forward.options };
    let mut best: Vec<Vec<Hit>> = vec![Vec::new(); queries];
    for first in (0..documents).step_by(chunk) {
        let last = documents.min(first + chunk);
        let slice = opened.slice(first..last);
        let chunk_op = Forward::maxsim(op.forward.q.clone(), slice.documents(), scoring);
        let scores = forward_opened(&chunk_op, &slice, normalized, kernels, threads, cancel)?;
        let kept = threads.map(
            queries,
            || (),
            |(), i| {
                let row = &scores.values[i * (last - first)..(i + 1) * (last - first)];
                let hits = row.iter().copied().zip(first as u32..);
                Ok(select(best[i].clone(), hits, width, largest))
            },
        )?;
        best = kept;
    }
    let mut result = TopK {
        scores: Vec::with_capacity(queries * width),
        indices: Vec::with_capacity(queries * width),
        shape: op.output_shape(),
        argmax: None,
    };
    for hits in &mut best {
        sort(hits, largest);
        result.scores.extend(hits.iter().map(|h| h.0));
        result.indices.extend(hits.iter().map(|h| h.1));
    }
    if op.forward.options.argmax {
        result.argmax = explain(op, &result, kernels, threads, cancel)?.argmax;
    }
    Ok(result)
}

/// The `width` best of `hits` and `more`, in any order. Equal scores are decided by the documents' numbers.
pub(crate) fn select(
    mut hits: Vec<Hit>,
    more: impl Iterator<Item = Hit>,
    width: usize,
    largest: bool,
) -> Vec<Hit> {
    // Once `width` hits are there, a document must beat the worst of them; most do not, and cost one comparison.
    let mut bar: Option<Hit> = None;
    for hit in more {
        if hits.len() >= width && bar.is_some_and(|bar| rank(largest, &hit, &bar).is_gt()) {
            continue;
        }
        hits.push(hit);
        if hits.len() >= 2 * width {
            keep_best(&mut hits, width, largest);
            bar = hits.last().copied();
        }
    }
    keep_best(&mut hits, width, largest);
    hits
}

/// Puts hits in order. Not inlined, as is [`keep_best`]: one copy of a sort is enough for what web pages download.
#[inline(never)]
pub(crate) fn sort(hits: &mut [Hit], largest: bool) {
    hits.sort_unstable_by(|a, b| rank(largest, a, b));
}

/// Leaves the `count` best, the last of them the worst, where there are more.
#[inline(never)]
pub(crate) fn keep_best(hits: &mut Vec<Hit>, count: usize, largest: bool) {
    if hits.len() > count {
        hits.select_nth_unstable_by(count - 1, |a, b| rank(largest, a, b));
        hits.truncate(count);
    }
}

/// Winners of every hit, by scoring just the hits again.
fn explain(
    op: &Retrieve<'_>,
    result: &TopK,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let q_idx: Vec<u32> =
        (0..op.forward.q.count() as u32).flat_map(|i| std::iter::repeat_n(i, op.width())).collect();
    let pairs = Forward::score_pairs(
        op.forward.q.clone(),
        op.forward.d.clone(),
        q_idx,
        result.indices.clone(),
        op.forward.options,
    )?;
    forward(&pairs, kernels, threads, cancel)
}
