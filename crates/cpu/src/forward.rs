//! The scoring operator on the CPU: which query panels meet which documents, on which thread.

use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use maxsim_core::{Argmax, Cancel, Error, Forward, Pairing, Precision, Result, Scores, Tokens};

use crate::arch::Kernels;
use crate::documents::{self, BlockScratch, Opened, RESIDUAL, Reader, Source};
use crate::integer::{IntegerReader, IntegerScratch, is_int8};
use crate::kernel::forward::{Ahead, Tile};
use crate::kernel::integer::{CentroidTerm, IntegerTile};
use crate::pack::{Packed, Panel, panels_of};
use crate::residual::forward_int8;
use crate::threads::Threads;

/// f32 values of packed queries that are scored together (1 MiB): documents are read once per group, and the group stays
/// in the second-level cache.
const GROUP: usize = 256 << 10;

/// Scores and winners, written from several threads, each element by one of them.
pub(crate) struct Results {
    scores: Vec<AtomicU32>,
    pub(crate) argmax: Option<(Argmax, Vec<AtomicI32>)>,
}

impl Results {
    pub(crate) fn new(op: &Forward<'_>) -> Result<Self> {
        let scores = filled(op.pair_count(), || AtomicU32::new(0))?;
        let argmax = if op.options.argmax {
            let argmax = op.empty_argmax();
            let values = filled(argmax.values.len(), || AtomicI32::new(-1))?;
            Some((argmax, values))
        } else {
            None
        };
        Ok(Self { scores, argmax })
    }

    /// Stores the score of `pair`.
    pub(crate) fn store(&self, pair: usize, sum: f64) {
        self.scores[pair].store((sum as f32).to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn finish(self, op: &Forward<'_>) -> Scores {
        Scores {
            values: self.scores.into_iter().map(|s| f32::from_bits(s.into_inner())).collect(),
            shape: op.output_shape(),
            argmax: self.argmax.map(|(mut argmax, values)| {
                argmax.values = values.into_iter().map(AtomicI32::into_inner).collect();
                argmax
            }),
        }
    }
}

/// `count` elements, or `ERR_OUT_OF_MEMORY`: results are the one thing here whose size the caller decides.
fn filled<T>(count: usize, element: impl FnMut() -> T) -> Result<Vec<T>> {
    let mut out = Vec::new();
    out.try_reserve_exact(count).map_err(|_| Error::OutOfMemory {
        requested: (count as u64).saturating_mul(size_of::<T>() as u64),
    })?;
    out.resize_with(count, element);
    Ok(out)
}

/// Memory of one thread.
#[derive(Default)]
struct Scratch {
    block: Blocks,
    packed: Packed,
    best: Vec<f32>,
    index: Vec<i32>,
}

/// The block at hand, in either form.
#[derive(Default)]
struct Blocks {
    floats: BlockScratch,
    integers: IntegerScratch,
}

/// The arithmetic documents are read for.
pub(crate) enum Reading<'a> {
    Floats(Reader<'a>),
    Integers(IntegerReader<'a>),
}

/// What all tasks share.
struct Job<'a> {
    op: &'a Forward<'a>,
    reader: Reading<'a>,
    kernels: &'static Kernels,
    results: Results,
    cancel: &'a Cancel,
}

impl Job<'_> {
    /// Packs panels as documents will meet them.
    fn pack(&self, packed: &mut Packed, panels: impl IntoIterator<Item = Panel>) {
        let (q, normalize) = (&self.op.q, self.op.options.normalize);
        match self.reader {
            Reading::Floats(_) => packed.pack(q, panels, normalize, self.kernels),
            Reading::Integers(_) => packed.pack_int8(q, panels, normalize, self.kernels),
        }
    }

    /// Maxima of all lanes of `packed` over document `j`, left in `best` (and `index`).
    fn maxima(
        &self,
        packed: &Packed,
        j: usize,
        block: &mut Blocks,
        best: &mut Vec<f32>,
        index: &mut Vec<i32>,
    ) {
        let dim = self.op.q.dim();
        let kernels = self.kernels;
        let argmax = self.results.argmax.is_some();
        let reader = match &self.reader {
            Reading::Floats(reader) => reader,
            Reading::Integers(reader) => {
                let block = &mut block.integers;
                return integer_maxima(reader, packed, None, j, argmax, kernels, block, best, index);
            }
        };
        clear_maxima(packed, argmax, best, index);
        reader.blocks(j, &mut block.floats, |block| {
            for p in 0..packed.panels.len() {
                let (panel, lanes) = packed.panel(p, dim, kernels);
                // Fetching ahead once per block is enough; a line already near costs nothing.
                let ahead = if p == 0 { block.ahead } else { Ahead { from: panel.as_ptr().cast(), row: 0 } };
                let index = if argmax { &mut index[lanes.clone()] } else { &mut [][..] };
                let mut tile = Tile::new(
                    kernels.lanes,
                    panel,
                    packed.panels[p].vectors,
                    block.rows,
                    dim,
                    block.scales,
                    block.ids,
                    &mut best[lanes],
                    index,
                    ahead,
                );
                // SAFETY: `kernels` exist only for levels this machine runs; `index` is not empty when winners are tracked.
                unsafe {
                    if argmax { (kernels.forward_argmax)(&mut tile) } else { (kernels.forward)(&mut tile) }
                }
            }
        });
    }

    /// Scores document `j` for every query whose panels are all in `packed`; `pair_of` gives the place in the result.
    fn score(&self, scratch: &mut Scratch, packed: &Packed, j: usize, pair_of: impl Fn(usize) -> usize) {
        let Scratch { block, best, index, .. } = scratch;
        self.maxima(packed, j, block, best, index);
        let mut p = 0;
        while p < packed.panels.len() {
            let query = packed.panels[p].query;
            let pair = pair_of(query);
            let mut sum = 0.0;
            while p < packed.panels.len() && packed.panels[p].query == query {
                sum = add_panel(&self.results, packed, p, self.kernels, best, index, pair, sum);
                p += 1;
            }
            self.results.store(pair, sum);
        }
    }
}

fn clear_maxima(packed: &Packed, argmax: bool, best: &mut Vec<f32>, index: &mut Vec<i32>) {
    best.clear();
    best.resize(packed.lanes(), f32::NEG_INFINITY);
    index.clear();
    index.resize(if argmax { packed.lanes() } else { 0 }, -1);
}

/// Maxima of all lanes of `packed` over document `j`, by integers. `table`: similarities with centroids, `[slots][width]`
/// per panel, one panel behind the other, and the number of slots.
#[allow(clippy::too_many_arguments, reason = "two operands, their options and the memory for them")]
pub(crate) fn integer_maxima(
    reader: &IntegerReader<'_>,
    packed: &Packed,
    table: Option<(&[f32], usize)>,
    j: usize,
    argmax: bool,
    kernels: &Kernels,
    block: &mut IntegerScratch,
    best: &mut Vec<f32>,
    index: &mut Vec<i32>,
) {
    clear_maxima(packed, argmax, best, index);
    reader.blocks(j, block, |block| {
        for p in 0..packed.panels.len() {
            let (panel, lanes) = packed.integer_panel(p, kernels);
            let ahead =
                if p == 0 { block.ahead } else { Ahead { from: panel.words.as_ptr().cast(), row: 0 } };
            let index = if argmax { &mut index[lanes.clone()] } else { &mut [][..] };
            let centroids = table.map(|(table, slots)| CentroidTerm {
                table: &table[lanes.start * slots..lanes.end * slots],
                slots: block.slots,
                lanes: panel.scales,
            });
            let mut tile = IntegerTile::new(
                kernels.lanes,
                panel.words,
                panel.starts,
                packed.panels[p].vectors,
                block.rows,
                block.groups,
                block.scales,
                block.ids,
                &mut best[lanes],
                index,
                centroids,
                ahead,
            );
            let integer = kernels.integer;
            // SAFETY: `kernels` exist only for levels this machine runs; `index` is not empty when winners are tracked, and
            // the centroid term is there when it is used.
            unsafe {
                match (table.is_some(), argmax) {
                    (false, false) => (integer.forward)(&mut tile),
                    (false, true) => (integer.forward_argmax)(&mut tile),
                    (true, false) => (integer.residual)(&mut tile),
                    (true, true) => (integer.residual_argmax)(&mut tile),
                }
            }
        }
    });
}

/// Adds the maxima of panel `p` to `sum` in token order and notes the winners of `pair`.
#[allow(clippy::too_many_arguments, reason = "maxima, where they belong and what they are added to")]
pub(crate) fn add_panel(
    results: &Results,
    packed: &Packed,
    p: usize,
    kernels: &Kernels,
    best: &[f32],
    index: &[i32],
    pair: usize,
    sum: f64,
) -> f64 {
    let panel = packed.panels[p];
    let lanes = packed.lanes_of(p, kernels);
    let slots = results.argmax.as_ref().map(|(argmax, values)| (argmax.range(pair).start, values));
    let mut sum = sum;
    for (t, lane) in lanes.take(panel.tokens).enumerate() {
        let Some(contribution) = contribution(best[lane], packed.factors[lane]) else { continue };
        sum += contribution;
        if let Some((start, values)) = slots {
            values[start + panel.token + t].store(index[lane], Ordering::Relaxed);
        }
    }
    sum
}

/// What a lane adds to its query's score, if it has a winner.
pub(crate) fn contribution(best: f32, factor: f32) -> Option<f64> {
    // A lane still at -inf has no winner; a NaN factor marks a masked or NaN query token; inf · 0 is a token of infinite
    // norm, whose similarities are all NaN.
    let contribution = f64::from(best) * f64::from(factor);
    (best > f32::NEG_INFINITY && !contribution.is_nan()).then_some(contribution)
}

/// Runs a validated operator.
pub(crate) fn forward(
    op: &Forward<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let (opened, normalized) = documents::open(&op.d)?;
    forward_opened(op, &opened, normalized, kernels, threads, cancel)
}

/// The same with the documents at hand; `normalized` says that they have unit length already.
pub(crate) fn forward_opened(
    op: &Forward<'_>,
    opened: &Opened<'_>,
    normalized: bool,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let source = opened.source();
    if RESIDUAL && matches!(source, Source::Residual(_)) && op.options.precision == Precision::Int8 {
        return forward_int8(op, opened, normalized, kernels, threads, cancel);
    }
    let panels = match op.pairing {
        // As many as a group of queries holds.
        Pairing::Cross => (0..op.q.count().min(8)).map(|i| panels_of(&op.q, i, kernels).count()).sum(),
        _ => op.q.max_extent().div_ceil(kernels.vectors * kernels.lanes),
    };
    let normalize = op.options.normalize && !normalized;
    let reader = match source {
        Source::Tokens(tokens) if is_int8(op) => {
            Reading::Integers(IntegerReader::int8(tokens, normalize, kernels))
        }
        _ => Reading::Floats(Reader::new(source, normalize, kernels, panels)),
    };
    forward_reader(op, reader, kernels, threads, cancel)
}

/// The same with documents as `reader` gives them.
pub(crate) fn forward_reader(
    op: &Forward<'_>,
    reader: Reading<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let job = Job { op, reader, kernels, results: Results::new(op)?, cancel };
    if op.pair_count() > 0 {
        match op.pairing {
            Pairing::Cross => cross(&job, threads)?,
            Pairing::Grouped { .. } | Pairing::List { .. } => listed(&job, threads)?,
        }
    }
    Ok(job.results.finish(op))
}

/// Runs of consecutive queries whose panels together stay below `limit` values; at least one query each.
fn groups(q: &Tokens<'_>, limit: usize, kernels: &Kernels) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut size = 0;
    for i in 0..q.count() {
        let here: usize = panels_of(q, i, kernels).map(|p| Packed::size(p, q.dim(), kernels)).sum();
        match groups.last_mut() {
            Some(group) if size + here <= limit => {
                group.end = i + 1;
                size += here;
            }
            _ => {
                groups.push(i..i + 1);
                size = here;
            }
        }
    }
    groups
}

/// Every query with every document.
fn cross(job: &Job<'_>, threads: &Threads) -> Result<()> {
    let op = job.op;
    let (q, documents) = (&op.q, op.d.count());
    let pack = |packed: &mut Packed, queries: Range<usize>| {
        let panels = queries.flat_map(|i| panels_of(q, i, job.kernels));
        job.pack(packed, panels);
    };
    let workers = threads.count();
    if documents >= 4 * workers || q.count() == 1 {
        // Enough documents to share out: one group of queries at a time.
        let chunk = documents.div_ceil(8 * workers).clamp(1, 64);
        let mut packed = Packed::default();
        for group in groups(q, GROUP, job.kernels) {
            let panels: Vec<Panel> = group.clone().flat_map(|i| panels_of(q, i, job.kernels)).collect();
            let size: usize = panels.iter().map(|&p| Packed::size(p, q.dim(), job.kernels)).sum();
            if size > 4 * GROUP || documents < workers {
                // One query too long to be packed at once, or too few documents to keep all threads busy.
                long_query(job, threads, &panels)?;
                continue;
            }
            pack(&mut packed, group);
            threads.run(documents.div_ceil(chunk), Scratch::default, |scratch, task| {
                job.cancel.check()?;
                for j in task * chunk..((task + 1) * chunk).min(documents) {
                    job.score(scratch, &packed, j, |i| i * documents + j);
                }
                Ok(())
            })?;
        }
        return Ok(());
    }
    // Many queries, few documents: share out the queries.
    let limit = GROUP.min((q.slots() * q.dim()).div_ceil(4 * workers));
    let groups = groups(q, limit, job.kernels);
    threads.run(groups.len(), Scratch::default, |scratch, task| {
        job.cancel.check()?;
        let mut packed = std::mem::take(&mut scratch.packed);
        pack(&mut packed, groups[task].clone());
        for j in 0..documents {
            job.score(scratch, &packed, j, |i| i * documents + j);
        }
        scratch.packed = packed;
        Ok(())
    })
}

/// One query whose panels are shared out among the threads; sums are made afterwards, in token order.
fn long_query(job: &Job<'_>, threads: &Threads, panels: &[Panel]) -> Result<()> {
    let op = job.op;
    let documents = op.d.count();
    let query = panels.first().map_or(0, |p| p.query);
    let mut sums = vec![0f64; documents];
    let widest = job.kernels.vectors * job.kernels.lanes;
    let run = (GROUP / (widest * op.q.dim())).clamp(1, panels.len().div_ceil(threads.count()).max(1));
    for runs in panels.chunks(run * threads.count()) {
        let packs: Vec<Packed> = runs
            .chunks(run)
            .map(|panels| {
                let mut packed = Packed::default();
                job.pack(&mut packed, panels.iter().copied());
                packed
            })
            .collect();
        // A bounded number of documents at a time keeps the maxima in waiting small.
        let wave = 4 * threads.count();
        for first in (0..documents).step_by(wave) {
            let here = wave.min(documents - first);
            let maxima = threads.map(here * packs.len(), Scratch::default, |scratch, task| {
                job.cancel.check()?;
                let Scratch { block, best, index, .. } = scratch;
                job.maxima(&packs[task % packs.len()], first + task / packs.len(), block, best, index);
                Ok((std::mem::take(best), std::mem::take(index)))
            })?;
            for (task, (best, index)) in maxima.into_iter().enumerate() {
                let (j, packed) = (first + task / packs.len(), &packs[task % packs.len()]);
                for p in 0..packed.panels.len() {
                    let pair = query * documents + j;
                    sums[j] = add_panel(&job.results, packed, p, job.kernels, &best, &index, pair, sums[j]);
                }
            }
        }
    }
    for (j, sum) in sums.into_iter().enumerate() {
        job.results.store(query * documents + j, sum);
    }
    Ok(())
}

/// Pairs of one query that a task scores at most: packing a query costs about as much as scoring one short document.
const PAIRS: usize = 64;

/// Pairs that share queries but not documents: sorted by query, so that each is packed once per run of its pairs.
fn listed(job: &Job<'_>, threads: &Threads) -> Result<()> {
    let op = job.op;
    let mut order: Vec<u32> = (0..op.pair_count() as u32).collect();
    order.sort_by_key(|&p| op.pair(p as usize).0);
    let most = op.pair_count().div_ceil(4 * threads.count()).clamp(1, PAIRS);
    let runs: Vec<&[u32]> = order
        .chunk_by(|&a, &b| op.pair(a as usize).0 == op.pair(b as usize).0)
        .flat_map(|same_query| same_query.chunks(most))
        .collect();
    threads.run(runs.len(), Scratch::default, |scratch, task| {
        job.cancel.check()?;
        let query = op.pair(runs[task][0] as usize).0;
        let mut packed = std::mem::take(&mut scratch.packed);
        let panels: Vec<Panel> = panels_of(&op.q, query, job.kernels).collect();
        let mut sums = vec![0f64; runs[task].len()];
        let run = (GROUP / (job.kernels.vectors * job.kernels.lanes * op.q.dim())).max(1);
        for panels in panels.chunks(run) {
            job.pack(&mut packed, panels.iter().copied());
            for (sum, &pair) in sums.iter_mut().zip(runs[task]) {
                let Scratch { block, best, index, .. } = scratch;
                job.maxima(&packed, op.pair(pair as usize).1, block, best, index);
                for p in 0..packed.panels.len() {
                    *sum = add_panel(&job.results, &packed, p, job.kernels, best, index, pair as usize, *sum);
                }
            }
        }
        for (sum, &pair) in sums.into_iter().zip(runs[task]) {
            job.results.store(pair as usize, sum);
        }
        scratch.packed = packed;
        Ok(())
    })
}
