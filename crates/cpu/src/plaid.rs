//! Search over a PLAID index on the CPU: `plaid_search`, stage by stage as [`PlaidSearch`] defines them.
//!
//! A query's similarities with all centroids are computed once, in f32. Probing reads them; approximate scores read them
//! rounded to a byte; the integer kernels add packed residuals to them to choose the shortlist. What is on the shortlist is
//! scored by the f32 kernels, for all queries of the batch together.

use std::borrow::Cow;

use maxsim_core::plaid::{Bitmap, Segment};
use maxsim_core::{
    Cancel, Codec, Documents, Forward, Hit, MaybeSendSync, Options, Pairing, PlaidHits, PlaidIndex,
    PlaidSearch, Precision, Residual, Result, Scores,
};

use crate::arch::Kernels;
use crate::documents::{Opened, Reader};
use crate::forward::{Reading, contribution, forward_reader, integer_maxima};
use crate::integer::{IntegerReader, IntegerScratch, Slots, Weights};
use crate::kernel::plaid::{COLUMNS, Rounding};
use crate::pack::{Packed, Panel, panels_of};
use crate::residual::{centroid_table, is_finite};
use crate::retrieve::{self, keep_best, select, sort};
use crate::threads::Threads;

/// Pairs that are scored in f32 at a time; bounds memory.
const PAIRS: usize = 1 << 20;

/// Candidates of a task.
const CANDIDATES: usize = 64;

/// A segment in its place in the index.
struct Part<'a> {
    /// Number of its first document.
    first: usize,
    segment: &'a Segment,
    residual: Residual<'a>,
}

/// What all queries share.
struct Search<'a> {
    op: &'a PlaidSearch<'a>,
    codec: &'a Codec<'a>,
    parts: Vec<Part<'a>>,
    /// Allowed documents; `None`: all.
    allowed: Option<Bitmap>,
    /// How many that are.
    count: usize,
    /// Centroids that may be probed; `None`: all.
    eligible: Option<Bitmap>,
    /// Centroids probed per query token.
    probes: usize,
    /// Weights of the integer kernels, where those choose the shortlist.
    weights: Option<Weights>,
    slots: Slots,
    kernels: &'static Kernels,
    cancel: &'a Cancel,
}

/// Documents whose f32 scores decide about the hits of a query, ascending; or its candidates, if nothing else is asked for.
#[derive(Default)]
struct Shortlist {
    documents: Vec<u32>,
    /// Where hits show whether the query is settled: the best quarter by approximate score of what it was chosen from, ascending.
    front: Option<Vec<u32>>,
}

impl From<Vec<u32>> for Shortlist {
    fn from(documents: Vec<u32>) -> Self {
        Self { documents, front: None }
    }
}

/// Memory for one query.
#[derive(Default)]
struct Scratch {
    packed: Packed,
    /// `[K][width]` per panel.
    table: Vec<f32>,
    /// The same rounded, `[K][stride]`.
    bytes: Vec<u8>,
}

/// Memory of one thread of the integer kernels.
#[derive(Default)]
struct IntegerMemory {
    block: IntegerScratch,
    best: Vec<f32>,
    index: Vec<i32>,
}

/// Runs a validated operator.
pub(crate) fn plaid_search(
    op: &PlaidSearch<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<PlaidHits> {
    let PlaidIndex::Host { codec, segments } = &op.index else { unreachable!("planned for host memory") };
    let search = Search::new(op, codec, segments, kernels, cancel);
    let queries = op.q.count();
    let shortlists = || match search.count {
        0 => Ok((0..queries).map(|_| Shortlist::default()).collect()),
        _ if queries < threads.count() => {
            let mut scratch = Scratch::default();
            (0..queries).map(|query| search.shortlist(query, &mut scratch, Some(threads))).collect()
        }
        _ => threads.map(queries, Scratch::default, |scratch, query| search.shortlist(query, scratch, None)),
    };
    if op.options.candidates_only {
        let candidate = |document| Hit { document, score: 0.0, winners: Vec::new() };
        let lists: Vec<Shortlist> = shortlists()?;
        let hits = lists.into_iter().map(|list| list.documents.into_iter().map(candidate).collect());
        return Ok(hits.collect::<Vec<_>>().into());
    }
    let mut found: Vec<Vec<retrieve::Hit>> = vec![Vec::new(); queries];
    let mut unsettled = Vec::new();
    if op.options.exact {
        search.score_all(&mut found, threads)?;
    } else if search.count > 0 {
        let shortlists = shortlists()?;
        search.score_shortlists(&shortlists, &mut found, threads)?;
        for ((query, list), hits) in (0u32..).zip(&shortlists).zip(&found) {
            let Some(front) = &list.front else { continue };
            let behind = hits.iter().filter(|hit| front.binary_search(&hit.1).is_err()).count();
            if !op.options.settles(behind) {
                unsettled.push(query);
            }
        }
    }
    Ok(PlaidHits { hits: search.hits(found, threads)?, unsettled })
}

/// `threads.map`, or the same by the calling thread.
fn share<S, T: Send>(
    threads: Option<&Threads>,
    tasks: usize,
    scratch: impl Fn() -> S + MaybeSendSync,
    work: impl Fn(&mut S, usize) -> Result<T> + MaybeSendSync,
) -> Result<Vec<T>> {
    match threads {
        Some(threads) => threads.map(tasks, scratch, work),
        None => {
            let mut scratch = scratch();
            (0..tasks).map(|task| work(&mut scratch, task)).collect()
        }
    }
}

impl<'a> Search<'a> {
    fn new(
        op: &'a PlaidSearch<'a>,
        codec: &'a Codec<'a>,
        segments: &[&'a Segment],
        kernels: &'static Kernels,
        cancel: &'a Cancel,
    ) -> Self {
        let mut first = 0;
        let parts: Vec<Part<'a>> = segments
            .iter()
            .map(|&segment| {
                let part = Part { first, segment, residual: segment.residual(codec) };
                first += segment.documents();
                part
            })
            .collect();
        let (live, count) = op.counts();
        let mut search = Self {
            op,
            codec,
            parts,
            allowed: op.allowed(),
            count,
            eligible: None,
            probes: op.options.n_ivf_probe.min(codec.count()),
            weights: None,
            slots: Slots::all(),
            kernels,
            cancel,
        };
        if search.op.options.precision != Precision::Exact && !op.options.exact {
            search.weights = Weights::new(codec, kernels);
        }
        if search.probing()
            && op.subset.is_some()
            && let Some(allowed) = &search.allowed
        {
            let mut eligible = Bitmap::empty(codec.count());
            for document in allowed.iter() {
                search.codes(document).iter().for_each(|&code| eligible.insert(code as usize));
            }
            search.probes = op.options.probes(live, count, eligible.count());
            search.eligible = Some(eligible);
        }
        search
    }

    /// Hits per query at most.
    fn width(&self) -> usize {
        self.op.options.top_k.min(self.count)
    }

    /// Whether candidates are found by probing.
    fn probing(&self) -> bool {
        !self.op.options.exact && self.count > self.op.options.kept()
    }

    /// The segment that holds a document.
    fn part(&self, document: usize) -> usize {
        self.parts.partition_point(|part| part.first <= document) - 1
    }

    fn codes(&self, document: usize) -> &'a [u32] {
        let part = &self.parts[self.part(document)];
        &part.segment.parts().codes[part.segment.rows(document - part.first)]
    }

    fn shortlist(&self, query: usize, scratch: &mut Scratch, threads: Option<&Threads>) -> Result<Shortlist> {
        self.cancel.check()?;
        let options = &self.op.options;
        let finite = is_finite(&self.op.q, query);
        let weights = self.weights.as_ref().filter(|_| finite);
        let few = options.shortlist();
        if !self.probing() && (self.count <= few || weights.is_none() || options.candidates_only) {
            return Ok(self.everything().into());
        }
        let Scratch { packed, table, bytes } = scratch;
        let panels = panels_of(&self.op.q, query, self.kernels);
        match weights {
            Some(Weights { order, scale, .. }) => {
                packed.pack_residual(&self.op.q, panels, options.normalize, order, *scale, self.kernels);
            }
            None => packed.pack(&self.op.q, panels, options.normalize, self.kernels),
        }
        centroid_table(self.codec, packed, &self.slots, table, self.kernels, threads)?;
        let mut documents = match self.probing() {
            true => self.candidates(&self.probe(packed, table)),
            false => self.everything(),
        };
        let (mut front, watched) = (None, self.probing() && options.wider().is_some());
        if watched || documents.len() > options.kept() {
            let scores = self.approximate(packed, table, bytes, &documents, threads)?;
            let best = |count| best(scores.iter().map(|&score| score as f32), &documents, count);
            let kept = options.kept().min(documents.len());
            front = watched.then(|| best(kept / 4));
            documents = best(kept);
        }
        if let Some(weights) = weights
            && documents.len() > few
            && !options.candidates_only
        {
            let scores = self.score_integers(packed, table, weights, &documents, threads)?;
            documents = best(scores.into_iter(), &documents, few);
        }
        Ok(Shortlist { documents, front })
    }

    fn everything(&self) -> Vec<u32> {
        match &self.allowed {
            None => (0..self.count as u32).collect(),
            Some(allowed) => allowed.iter().map(|document| document as u32).collect(),
        }
    }

    /// Panel `p` of a table: its rows, their width, and the lanes that take part.
    fn panel<'t>(&self, packed: &'t Packed, table: &'t [f32], p: usize) -> (&'t [f32], &'t [f32], Panel) {
        let lanes = packed.lanes_of(p, self.kernels);
        let rows = self.codec.count();
        (&table[lanes.start * rows..lanes.end * rows], &packed.factors[lanes], packed.panels[p])
    }

    /// Centroids to look into, ascending.
    fn probe(&self, packed: &Packed, table: &[f32]) -> Vec<u32> {
        let mut probed = Bitmap::empty(self.codec.count());
        for p in 0..packed.panels.len() {
            let (rows, factors, panel) = self.panel(packed, table, p);
            let mut best: Vec<Vec<retrieve::Hit>> = vec![Vec::new(); panel.tokens];
            // What a centroid has to beat, per lane; nothing beats NaN, so that lanes which take no part stay empty.
            let mut bars = vec![f32::NAN; factors.len()];
            for (bar, factor) in bars.iter_mut().zip(&factors[..panel.tokens]) {
                *bar = if factor.is_nan() { f32::NAN } else { f32::NEG_INFINITY };
            }
            for (c, row) in rows.chunks_exact(factors.len()).enumerate() {
                // SAFETY: `kernels` exist only for levels this machine runs.
                let worth = unsafe { (self.kernels.beats)(row, &bars) };
                if !worth || self.eligible.as_ref().is_some_and(|eligible| !eligible.contains(c)) {
                    continue;
                }
                for ((&x, bar), best) in row.iter().zip(&mut bars).zip(&mut best) {
                    if x > *bar {
                        best.push((x, c as u32));
                        if best.len() >= 2 * self.probes {
                            keep_best(best, self.probes, true);
                            // Equal similarities that come later have higher numbers, and lose.
                            *bar = best[self.probes - 1].0;
                        }
                    }
                }
            }
            for mut best in best {
                keep_best(&mut best, self.probes, true);
                best.iter().for_each(|&(_, c)| probed.insert(c as usize));
            }
        }
        let mut centroids: Vec<u32> = probed.iter().map(|c| c as u32).collect();
        if let Some(threshold) = self.op.options.centroid_score_threshold {
            centroids.retain(|&c| {
                (0..packed.panels.len()).any(|p| {
                    let (rows, factors, panel) = self.panel(packed, table, p);
                    let row = &rows[c as usize * factors.len()..][..panel.tokens];
                    row.iter().zip(factors).any(|(x, factor)| x * factor >= threshold)
                })
            });
        }
        centroids
    }

    /// Allowed documents in the lists of `centroids`, ascending.
    fn candidates(&self, centroids: &[u32]) -> Vec<u32> {
        let mut found = Bitmap::empty(self.op.index.documents());
        for part in &self.parts {
            for &c in centroids {
                part.segment.list(c as usize).for_each(|d| found.insert(part.first + d as usize));
            }
        }
        if let Some(allowed) = &self.allowed {
            found.intersect(allowed);
        }
        found.iter().map(|document| document as u32).collect()
    }

    /// Approximate scores of `documents`, in steps that are the same for all of them.
    fn approximate(
        &self,
        packed: &Packed,
        table: &[f32],
        bytes: &mut Vec<u8>,
        documents: &[u32],
        threads: Option<&Threads>,
    ) -> Result<Vec<u32>> {
        let stride = packed.lanes().next_multiple_of(COLUMNS);
        self.round(packed, table, bytes, stride, threads)?;
        let scores = share(
            threads,
            documents.len().div_ceil(CANDIDATES),
            || (),
            |(), task| {
                self.cancel.check()?;
                let documents = documents.chunks(CANDIDATES).nth(task).unwrap_or(&[]);
                let score = |&document: &u32| {
                    // SAFETY: `kernels` exist only for levels this machine runs.
                    unsafe { (self.kernels.approx_u8)(bytes, stride, self.codes(document as usize)) }
                };
                Ok(documents.iter().map(score).collect::<Vec<u32>>())
            },
        )?;
        Ok(scores.concat())
    }

    /// The table in bytes, `[K][stride]`, one scale for the whole query.
    fn round(
        &self,
        packed: &Packed,
        table: &[f32],
        bytes: &mut Vec<u8>,
        stride: usize,
        threads: Option<&Threads>,
    ) -> Result<()> {
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for p in 0..packed.panels.len() {
            let (rows, factors, panel) = self.panel(packed, table, p);
            let (mut least, mut most) =
                (vec![f32::INFINITY; factors.len()], vec![f32::NEG_INFINITY; factors.len()]);
            for row in rows.chunks_exact(factors.len()) {
                for ((x, least), most) in row.iter().zip(&mut least).zip(&mut most) {
                    *least = least.min(*x);
                    *most = most.max(*x);
                }
            }
            // Factors are positive, or NaN for lanes that take no part: minima and maxima leave those out.
            for (lane, factor) in factors[..panel.tokens].iter().enumerate() {
                low = low.min(least[lane] * factor);
                high = high.max(most[lane] * factor);
            }
        }
        let (low, high) = (low.max(f32::MIN), high.min(f32::MAX));
        let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
        let lanes: Vec<(f32, f32)> = (0..packed.panels.len())
            .flat_map(|p| {
                let (_, factors, panel) = self.panel(packed, table, p);
                factors.iter().enumerate().map(move |(lane, factor)| {
                    let part = lane < panel.tokens && !factor.is_nan();
                    if part { (factor * scale, 0.5 - low * scale) } else { (0.0, 0.0) }
                })
            })
            .collect();
        let (factors, starts): (Vec<f32>, Vec<f32>) = lanes.into_iter().unzip();
        bytes.clear();
        bytes.resize(self.codec.count() * stride, 0);
        let rows = self.codec.count().div_ceil(8 * threads.map_or(1, Threads::count)).max(64);
        let tasks: Vec<(usize, &mut [u8])> = bytes.chunks_mut(rows * stride).enumerate().collect();
        let work = |(task, to): (usize, &mut [u8])| {
            for p in 0..packed.panels.len() {
                let lanes = packed.lanes_of(p, self.kernels);
                let (from, width) = (self.panel(packed, table, p).0, lanes.len());
                let first = task * rows * width;
                let rounding = Rounding {
                    factors: &factors[lanes.clone()],
                    starts: &starts[lanes.clone()],
                    stride,
                    column: lanes.start,
                };
                // SAFETY: `kernels` exist only for levels this machine runs.
                unsafe {
                    (self.kernels.round_rows)(&rounding, &from[first..first + to.len() / stride * width], to)
                };
            }
            Ok(())
        };
        match threads {
            Some(threads) => threads.for_each(tasks, work),
            None => tasks.into_iter().try_for_each(work),
        }
    }

    /// Scores of `documents` by the integer kernels.
    fn score_integers(
        &self,
        packed: &Packed,
        table: &[f32],
        weights: &Weights,
        documents: &[u32],
        threads: Option<&Threads>,
    ) -> Result<Vec<f32>> {
        let readers: Vec<IntegerReader<'_>> = self
            .parts
            .iter()
            .map(|part| IntegerReader::residual(&part.residual, weights, &self.slots, true, self.kernels))
            .collect();
        let tasks = documents.len().div_ceil(CANDIDATES);
        let scores = share(threads, tasks, IntegerMemory::default, |memory, task| {
            self.cancel.check()?;
            let IntegerMemory { block, best, index } = memory;
            let documents = documents.chunks(CANDIDATES).nth(task).unwrap_or(&[]);
            let mut score = |&document: &u32| {
                let p = self.part(document as usize);
                let j = document as usize - self.parts[p].first;
                let table = Some((table, self.codec.count()));
                integer_maxima(&readers[p], packed, table, j, false, self.kernels, block, best, index);
                let lanes = best.iter().zip(&packed.factors);
                lanes.filter_map(|(&best, &factor)| contribution(best, factor)).sum::<f64>() as f32
            };
            Ok(documents.iter().map(&mut score).collect::<Vec<f32>>())
        })?;
        Ok(scores.concat())
    }

    /// f32 scores of `(query, document)` pairs within a segment.
    fn score_pairs(
        &self,
        part: &Part<'_>,
        (q, d): (Vec<u32>, Vec<u32>),
        argmax: bool,
        threads: &Threads,
    ) -> Result<Scores> {
        let mut op = self.forward(&part.residual, argmax);
        op.pairing = Pairing::List { q: Cow::Owned(q), d: Cow::Owned(d) };
        let panels = self.op.q.max_extent().div_ceil(self.kernels.vectors * self.kernels.lanes);
        self.run(&op, &part.residual, panels, threads)
    }

    /// Queries with documents of a segment.
    fn forward<'f>(&'f self, residual: &'f Residual<'f>, argmax: bool) -> Forward<'f> {
        let options = Options { normalize: self.op.options.normalize, argmax, ..Options::default() };
        let documents = Documents::Residual(residual.clone());
        Forward::maxsim(self.op.q.clone().flattened(), documents, options)
    }

    /// Scores with document tokens normalised, whatever is done to queries.
    fn run(
        &self,
        op: &Forward<'_>,
        residual: &Residual<'_>,
        panels: usize,
        threads: &Threads,
    ) -> Result<Scores> {
        let opened = Opened::Residual(residual.clone());
        let reader = Reader::new(opened.source(), true, self.kernels, panels);
        forward_reader(op, Reading::Floats(reader), self.kernels, threads, self.cancel)
    }

    /// Scores the shortlists of all queries, segment by segment.
    fn score_shortlists(
        &self,
        shortlists: &[Shortlist],
        found: &mut [Vec<retrieve::Hit>],
        threads: &Threads,
    ) -> Result<()> {
        let top_k = self.width();
        let mut query = 0;
        while query < shortlists.len() {
            // As many queries as there is room for, at least one.
            let mut pairs = 0;
            let more = shortlists[query..].iter().take_while(|list| {
                pairs += list.documents.len();
                pairs <= PAIRS
            });
            let end = query + more.count().max(1);
            for part in &self.parts {
                let numbers = part.first as u32..(part.first + part.segment.documents()) as u32;
                let within = |list: &[u32]| {
                    let start = list.partition_point(|&document| document < numbers.start);
                    start..list.partition_point(|&document| document < numbers.end)
                };
                let pairs: (Vec<u32>, Vec<u32>) = (query..end)
                    .flat_map(|i| {
                        let list = &shortlists[i].documents;
                        list[within(list)].iter().map(move |&document| (i as u32, document - numbers.start))
                    })
                    .unzip();
                if pairs.0.is_empty() {
                    continue;
                }
                let (queries, documents) = pairs.clone();
                let scores = self.score_pairs(part, pairs, false, threads)?;
                let hits = queries.iter().zip(&documents).zip(&scores.values);
                let mut hits = hits.map(|((&i, &d), &score)| (i, (score, d + numbers.start))).peekable();
                for (i, found) in (query..end).zip(&mut found[query..end]) {
                    let mine =
                        std::iter::from_fn(|| hits.next_if(|hit| hit.0 as usize == i).map(|hit| hit.1));
                    *found = select(std::mem::take(found), mine, top_k, true);
                }
            }
            query = end;
        }
        Ok(())
    }

    /// Scores every allowed document, a bounded number at a time.
    fn score_all(&self, found: &mut [Vec<retrieve::Hit>], threads: &Threads) -> Result<()> {
        let (queries, top_k) = (self.op.q.count(), self.width());
        let chunk = (PAIRS / queries.max(1)).max(64);
        let allowed =
            |document: usize| self.allowed.as_ref().is_none_or(|allowed| allowed.contains(document));
        for part in &self.parts {
            for first in (0..part.segment.documents()).step_by(chunk) {
                let last = part.segment.documents().min(first + chunk);
                let residual = part.residual.slice(first..last);
                let panels =
                    (0..queries.min(8)).map(|i| panels_of(&self.op.q, i, self.kernels).count()).sum();
                let scores = self.run(&self.forward(&residual, false), &residual, panels, threads)?;
                let number = part.first + first;
                for (found, row) in found.iter_mut().zip(scores.values.chunks_exact(last - first)) {
                    let hits = row.iter().copied().zip(number as u32..);
                    let hits = hits.filter(|&(_, document)| allowed(document as usize));
                    *found = select(std::mem::take(found), hits, top_k, true);
                }
            }
        }
        Ok(())
    }

    /// Hits in order, with winners if they are asked for.
    fn hits(&self, found: Vec<Vec<retrieve::Hit>>, threads: &Threads) -> Result<Vec<Vec<Hit>>> {
        let mut hits: Vec<Vec<Hit>> = found
            .into_iter()
            .map(|mut found| {
                sort(&mut found, true);
                found
                    .into_iter()
                    .map(|(score, document)| Hit { document, score, winners: Vec::new() })
                    .collect()
            })
            .collect();
        if self.op.options.explain {
            for part in &self.parts {
                let numbers = part.first..part.first + part.segment.documents();
                let mut asked: Vec<(u32, &mut Hit)> = Vec::new();
                for (i, hits) in (0u32..).zip(&mut hits) {
                    let mine = hits.iter_mut().filter(|hit| numbers.contains(&(hit.document as usize)));
                    asked.extend(mine.map(|hit| (i, hit)));
                }
                let pairs = asked.iter().map(|(i, hit)| (*i, hit.document - numbers.start as u32)).unzip();
                let argmax = self.score_pairs(part, pairs, true, threads)?.argmax.expect("asked for");
                for (p, (_, hit)) in asked.into_iter().enumerate() {
                    hit.winners = argmax.pair(p).to_vec();
                }
            }
        }
        Ok(hits)
    }
}

/// The `count` documents of highest score, the lower number among equals; ascending numbers, as they came.
fn best(scores: impl Iterator<Item = f32>, documents: &[u32], count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let hits = select(Vec::new(), scores.zip(documents.iter().copied()), count, true);
    let mut documents: Vec<u32> = hits.into_iter().map(|(_, document)| document).collect();
    documents.sort_unstable();
    documents
}
