//! Residual documents through the integer kernels: `Precision::Int8`.
//!
//! A similarity is `inverse norm · (⟨q, centroid⟩ + s_q·s_w·⟨q̂, ŵ⟩)`. The first part is one row of a table per query
//! panel, computed once with the f32 kernel; the second is read straight off the packed bytes. How far that is from exact:
//! [`integer`](crate::integer).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use maxsim_core::{Cancel, Codec, Forward, Pairing, Precision, Residual, Result, Scores, Tokens};

use crate::arch::Kernels;
use crate::documents::{Opened, widen};
use crate::forward::{Results, add_panel, forward_opened, integer_maxima};
use crate::integer::{IntegerReader, IntegerScratch, Slots, Weights};
use crate::kernel::project::Projection;
use crate::pack::{Packed, Panel, panels_of};
use crate::threads::Threads;

/// Table values held at a time where several panels share a pass over the documents (4 MiB); one panel may take more.
const TABLE: usize = 1 << 20;

/// Centroids whose similarities are one task.
const CENTROIDS: usize = 96;

/// Documents of one query.
#[derive(Clone, Copy)]
enum Targets<'a> {
    /// All, result `query · count + document`.
    All(usize),
    /// Those of the listed pairs.
    Pairs(&'a [u32]),
}

/// What all panels of some queries meet.
struct Pass<'a> {
    targets: Targets<'a>,
    slots: &'a Slots,
    reader: IntegerReader<'a>,
    threads: Option<&'a Threads>,
}

struct Job<'a> {
    op: &'a Forward<'a>,
    residual: &'a Residual<'a>,
    weights: Weights,
    normalize: bool,
    kernels: &'static Kernels,
    results: Results,
    cancel: &'a Cancel,
}

/// Runs a validated operator. `normalized`: the documents have unit length already.
pub(crate) fn forward_int8(
    op: &Forward<'_>,
    opened: &Opened<'_>,
    normalized: bool,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let Opened::Residual(residual) = opened else { unreachable!("residual documents") };
    let exact = |mut op: Forward<'_>| {
        op.options.precision = Precision::Exact;
        forward_opened(&op, opened, normalized, kernels, threads, cancel)
    };
    let Some(weights) = Weights::new(residual.codec(), kernels) else {
        return exact(op.clone());
    };
    let normalize = op.options.normalize && !normalized;
    let job = Job { op, residual, weights, normalize, kernels, results: Results::new(op)?, cancel };
    let finite: Vec<bool> = (0..op.q.count()).map(|i| is_finite(&op.q, i)).collect();
    match op.pairing {
        Pairing::Cross => {
            let targets = Targets::All(op.d.count());
            let slots = Slots::new(residual, 0..op.d.count());
            let panels: Vec<Panel> =
                (0..op.q.count()).filter(|&i| finite[i]).flat_map(|i| panels_of(&op.q, i, kernels)).collect();
            if op.d.count() > 0 {
                job.score(&panels, targets, &slots, Some(threads))?;
            }
        }
        Pairing::Grouped { .. } | Pairing::List { .. } => job.listed(&finite, threads)?,
    }
    // Infinities and NaN have no int8 form: queries that hold one are scored in f32.
    let odd: Vec<u32> = (0..op.pair_count() as u32).filter(|&p| !finite[op.pair(p as usize).0]).collect();
    if !odd.is_empty() {
        let (q, d) = odd.iter().map(|&p| op.pair(p as usize)).map(|(i, j)| (i as u32, j as u32)).unzip();
        let mut pairs = op.clone();
        pairs.pairing = Pairing::List { q: Cow::Owned(q), d: Cow::Owned(d) };
        let scores = exact(pairs)?;
        for (k, &pair) in odd.iter().enumerate() {
            job.results.store(pair as usize, f64::from(scores.values[k]));
            if let (Some(from), Some((to, values))) = (&scores.argmax, &job.results.argmax) {
                for (slot, &winner) in to.range(pair as usize).zip(from.pair(k)) {
                    values[slot].store(winner, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(job.results.finish(op))
}

/// Whether all numbers of a query that count are finite.
pub(crate) fn is_finite(q: &Tokens<'_>, query: usize) -> bool {
    let dim = q.dim();
    q.rows(query).filter(|&row| q.keeps(row)).all(|row| {
        let vector = q.data().slice(row * dim..(row + 1) * dim);
        maxsim_core::dispatch!(DataRef, vector, |v| v
            .iter()
            .all(|&x| maxsim_core::Element::to_f32(x).is_finite()))
    })
}

impl Job<'_> {
    /// Pairs that share queries but not documents.
    fn listed(&self, finite: &[bool], threads: &Threads) -> Result<()> {
        let op = self.op;
        let mut order: Vec<u32> = (0..op.pair_count() as u32).collect();
        order.retain(|&p| finite[op.pair(p as usize).0]);
        order.sort_by_key(|&p| op.pair(p as usize).0);
        let queries: Vec<&[u32]> =
            order.chunk_by(|&a, &b| op.pair(a as usize).0 == op.pair(b as usize).0).collect();
        let one = |pairs: &[u32], threads: Option<&Threads>| {
            let query = op.pair(pairs[0] as usize).0;
            let slots = Slots::new(self.residual, pairs.iter().map(|&p| op.pair(p as usize).1));
            let panels: Vec<Panel> = panels_of(&op.q, query, self.kernels).collect();
            self.score(&panels, Targets::Pairs(pairs), &slots, threads)
        };
        if queries.len() < 2 * threads.count() {
            return queries.iter().try_for_each(|pairs| one(pairs, Some(threads)));
        }
        // Many queries: a thread each, and so one table per thread.
        threads.run(queries.len(), || (), |(), task| one(queries[task], None))
    }

    /// Scores the queries whose panels are given, all of them, with the same documents.
    fn score(
        &self,
        mut panels: &[Panel],
        targets: Targets<'_>,
        slots: &Slots,
        threads: Option<&Threads>,
    ) -> Result<()> {
        let reader =
            IntegerReader::residual(self.residual, &self.weights, slots, self.normalize, self.kernels);
        let pass = Pass { targets, slots, reader, threads };
        // The integer panels count too: documents are read once per batch, and the batch stays in the cache.
        let rows = slots.count(self.residual.codec().count()).max(self.op.q.dim());
        let most = (TABLE / (self.kernels.vectors * self.kernels.lanes * rows)).max(1);
        let mut memory = (Packed::default(), Vec::new());
        while let Some(first) = panels.first() {
            let mut queries = panels.chunk_by(|a, b| a.query == b.query).map(<[Panel]>::len);
            let mut count = queries.next().unwrap_or(0);
            if count > most {
                // A long query, part by part: its sums go on from part to part.
                let sums: Vec<AtomicU64> =
                    (0..targets.count()).map(|_| AtomicU64::new(0f64.to_bits())).collect();
                for part in panels[..count].chunks(most) {
                    self.batch(&mut memory, part, &pass, Some(&sums))?;
                }
                for (k, sum) in sums.into_iter().enumerate() {
                    self.results.store(targets.pair(first.query, k), f64::from_bits(sum.into_inner()));
                }
            } else {
                // As many whole queries as fit.
                count += queries
                    .scan(count, |sum, len| {
                        *sum += len;
                        (*sum <= most).then_some(len)
                    })
                    .sum::<usize>();
                self.batch(&mut memory, &panels[..count], &pass, None)?;
            }
            panels = &panels[count..];
        }
        Ok(())
    }

    /// Scores panels that are in memory together; with `sums`, they are a part of one query.
    fn batch(
        &self,
        (packed, table): &mut (Packed, Vec<f32>),
        panels: &[Panel],
        pass: &Pass<'_>,
        sums: Option<&[AtomicU64]>,
    ) -> Result<()> {
        let Pass { targets, slots, reader, threads } = pass;
        self.cancel.check()?;
        let Weights { order, scale, .. } = &self.weights;
        let panels = panels.iter().copied();
        packed.pack_residual(&self.op.q, panels, self.op.options.normalize, order, *scale, self.kernels);
        centroid_table(self.residual.codec(), packed, slots, table, self.kernels, *threads)?;
        let (packed, table) = (&*packed, &table[..]);
        let rows = slots.count(self.residual.codec().count());
        let one = |scratch: &mut Scratch, k: usize| {
            let Scratch { block, best, index } = scratch;
            let argmax = self.results.argmax.is_some();
            let j = targets.document(self.op, k);
            integer_maxima(reader, packed, Some((table, rows)), j, argmax, self.kernels, block, best, index);
            let mut p = 0;
            while p < packed.panels.len() {
                let query = packed.panels[p].query;
                let pair = targets.pair(query, k);
                let mut sum = sums.map_or(0.0, |sums| f64::from_bits(sums[k].load(Ordering::Relaxed)));
                while p < packed.panels.len() && packed.panels[p].query == query {
                    sum = add_panel(&self.results, packed, p, self.kernels, best, index, pair, sum);
                    p += 1;
                }
                match sums {
                    Some(sums) => sums[k].store(sum.to_bits(), Ordering::Relaxed),
                    None => self.results.store(pair, sum),
                }
            }
        };
        let count = targets.count();
        let Some(threads) = threads else {
            let mut scratch = Scratch::default();
            (0..count).for_each(|k| one(&mut scratch, k));
            return Ok(());
        };
        let chunk = count.div_ceil(8 * threads.count()).clamp(1, 64);
        threads.run(count.div_ceil(chunk), Scratch::default, |scratch, task| {
            self.cancel.check()?;
            (task * chunk..((task + 1) * chunk).min(count)).for_each(|k| one(scratch, k));
            Ok(())
        })
    }
}

/// Memory of one thread.
#[derive(Default)]
struct Scratch {
    block: IntegerScratch,
    best: Vec<f32>,
    index: Vec<i32>,
}

/// Similarities of every query token in `packed` with every centroid that has a slot: `[slots][width]` per panel, one
/// panel behind the other.
pub(crate) fn centroid_table(
    codec: &Codec<'_>,
    packed: &Packed,
    slots: &Slots,
    table: &mut Vec<f32>,
    kernels: &'static Kernels,
    threads: Option<&Threads>,
) -> Result<()> {
    let dim = codec.dim();
    let rows = slots.count(codec.count());
    table.clear();
    table.resize(rows * packed.lanes(), 0.0);
    let zeros = vec![0f32; kernels.vectors * kernels.lanes];
    let mut tasks: Vec<(usize, usize, &mut [f32])> = Vec::new();
    let mut rest = &mut table[..];
    for p in 0..packed.panels.len() {
        let width = packed.panel(p, dim, kernels).1.len();
        let (mine, others) = rest.split_at_mut(rows * width);
        rest = others;
        tasks.extend(mine.chunks_mut(CENTROIDS * width).enumerate().map(|(c, out)| (p, c * CENTROIDS, out)));
    }
    let work = |(p, first, out): (usize, usize, &mut [f32])| {
        let (panel, lanes) = packed.panel(p, dim, kernels);
        let width = lanes.len();
        let mut centroids = vec![0f32; out.len() / width * dim];
        for (slot, row) in (first..).zip(centroids.chunks_exact_mut(dim)) {
            let code = slots.code(slot);
            widen(codec.centroids().data().slice(code * dim..(code + 1) * dim), row, kernels);
        }
        let vectors = packed.panels[p].vectors;
        let bias = &zeros[..width];
        let mut projection =
            Projection::new(kernels.lanes, panel, vectors, &centroids, dim, 0, bias, out, width, 0);
        // SAFETY: `kernels` exist only for levels this machine runs.
        unsafe { (kernels.project)(&mut projection) };
        Ok(())
    };
    match threads {
        Some(threads) => threads.for_each(tasks, work),
        None => tasks.into_iter().try_for_each(work),
    }
}

impl Targets<'_> {
    fn count(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Pairs(pairs) => pairs.len(),
        }
    }

    fn document(self, op: &Forward<'_>, k: usize) -> usize {
        match self {
            Self::All(_) => k,
            Self::Pairs(pairs) => op.pair(pairs[k] as usize).1,
        }
    }

    /// Place of the score of document `k` in the result.
    fn pair(self, query: usize, k: usize) -> usize {
        match self {
            Self::All(count) => query * count + k,
            Self::Pairs(pairs) => pairs[k] as usize,
        }
    }
}
