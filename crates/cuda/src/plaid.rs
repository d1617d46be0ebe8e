//! Search over a PLAID index: from the upload of the queries to the keys of the hits without a word read back in between.
//!
//! Per group of queries: a table ⟨query token, centroid⟩, the best centroids of every token, bits of the
//! documents in their lists, rough scores of those from the table, and the scoring kernel over the ones that are left, as jobs
//! that a kernel writes. Every selection is the one of `retrieve`; what takes no part has the score NaN.
//!
//! # Floor
//! One query of 32 tokens over 30,000 documents of 120 tokens (d = 128, 4 bits, 16,384 centroids), 1,024 documents kept: the
//! centroids (8 MB), the table (2 MB) written and read a few times, some 50,000 entries of lists (0.2 MB), a code (4 bytes) and a
//! row of the table (128 bytes, from the second-level cache) per token of a candidate (7 and 230 MB for 15,000 of them), and 8 MB
//! of residuals: 7 µs of memory, 40 µs of cache. About 15 launches in a row take longer than that, so that one query is bound by
//! latency, and a batch by the cache and by f32 products (0.1 GFLOP of tables and 1 GFLOP of scores a query). A group has as many
//! queries as keep the table, both ways round, within the workspace: each then stays in the second-level cache.

use std::ops::Range;

use maxsim_core::plaid::Segment;
use maxsim_core::{Cancel, Codec, Error, Pairing, PlaidSearch, Precision, Result, Tokens};

use crate::config::{self, Problem, Use};
use crate::context::{Context, WORKSPACE};
use crate::device::Reading;
use crate::forward::{Jobs, Scoring, Shared, Table, Tiles, exact_queries, may_be_empty};
use crate::memory::{Buffer, address};
use crate::operands::{Held, Packing, Queries, stride};
use crate::params::{EligibleParams, Job, JobsParams, MarkParams, RankParams, RoughParams, TurnParams};
use crate::retrieve::{Source, select};

/// Rows that are padded on the host at a time.
const PADDED: usize = 1 << 16;
/// Document rows of a job at most, where documents follow each other.
const JOB_ROWS: usize = 2048;
/// Queries of a group at most: what a grid has room for.
const QUERIES: usize = 1 << 15;

/// An index on the device, its segments behind one another.
pub(crate) struct Index {
    pub(crate) held: Held,
    /// Entries of every centroid's list.
    list_offsets: Buffer,
    /// Documents, ascending in each list.
    list_entries: Buffer,
}

impl Index {
    pub(crate) fn upload(context: &Context, codec: &Codec<'_>, segments: &[&Segment]) -> Result<Self> {
        let tokens: usize = segments.iter().map(|segment| segment.tokens()).sum();
        if tokens > i32::MAX as usize {
            let limit = i32::MAX.to_string();
            return Err(Error::Limit { argument: "tokens".into(), limit, got: tokens.to_string() });
        }
        let (width, stride) = (codec.residual_bytes(), stride(codec.residual_bytes()));
        let rows = context.pool.buffer(tokens * stride)?;
        let codes = context.pool.buffer(tokens * 4)?;
        let mut offsets = vec![0u32];
        let mut norms = Vec::with_capacity(tokens);
        for segment in segments {
            let parts = segment.parts();
            let first = norms.len();
            if width == stride {
                rows.write(first * stride, &parts.residuals)?;
            } else {
                let mut padded = Vec::new();
                for (i, some) in parts.residuals.chunks(PADDED * width).enumerate() {
                    padded.clear();
                    padded.resize(some.len() / width * stride, 0);
                    for (to, row) in padded.chunks_exact_mut(stride).zip(some.chunks_exact(width)) {
                        to[..width].copy_from_slice(row);
                    }
                    rows.write((first + i * PADDED) * stride, &padded)?;
                }
            }
            codes.write(first * 4, bytemuck::cast_slice(&parts.codes))?;
            norms.extend(parts.inv_norms.iter().map(|norm| norm.to_f32()));
            offsets.extend(parts.offsets[1..].iter().map(|end| first as u32 + end));
        }
        let (list_offsets, list_entries) = lists(codec.count(), segments);
        let list_offsets = context.pool.upload(&list_offsets)?;
        let list_entries = context.pool.upload(&list_entries)?;
        let held = Held::encoded(context, codec, Packing::packed(offsets), rows, codes, Some(norms))?;
        Ok(Self { held, list_offsets, list_entries })
    }

    fn centroids(&self) -> u32 {
        self.held.residual.as_ref().map_or(0, |residual| residual.centroid_count)
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> u64 {
        self.held.bytes() + (self.list_offsets.bytes() + self.list_entries.bytes()) as u64
    }
}

/// The lists of all segments as one list per centroid.
fn lists(centroids: usize, segments: &[&Segment]) -> (Vec<u32>, Vec<u32>) {
    let mut offsets = Vec::with_capacity(centroids + 1);
    offsets.push(0);
    let mut entries = Vec::new();
    for centroid in 0..centroids {
        let mut first = 0;
        for segment in segments {
            entries.extend(segment.list(centroid).map(|document| first + document));
            first += segment.documents() as u32;
        }
        offsets.push(entries.len() as u32);
    }
    (offsets, entries)
}

/// How a search goes about it: a function of the operator alone.
pub(crate) struct Course {
    /// Candidates are found by probing; else every allowed document is scored.
    pub(crate) probing: bool,
    /// Documents that may be found.
    pub(crate) allowed: usize,
    /// Hits per query at most.
    pub(crate) width: usize,
    /// Centroids that every token probes.
    pub(crate) probes: usize,
    /// Documents that are scored well.
    pub(crate) kept: usize,
}

impl Course {
    pub(crate) fn of(op: &PlaidSearch<'_>) -> Self {
        let (live, allowed) = op.counts();
        let (options, centroids) = (&op.options, op.index.centroids());
        let probes = match op.subset {
            None => options.n_ivf_probe.min(centroids),
            // Of the allowed documents' centroids, which only the device counts; beyond them nothing is probed.
            Some(_) => options.probes(live, allowed, centroids),
        };
        Self {
            probing: !options.exact && allowed > options.kept(),
            allowed,
            width: options.top_k.min(allowed),
            probes,
            kept: options.kept().min(op.index.documents()),
        }
    }
}

/// What is read back of a group of queries.
pub(crate) struct Found {
    pub(crate) group: Range<u32>,
    /// Keys of the hits, `[group, width]`.
    pub(crate) hits: Reading,
    /// Keys by approximate score of the documents that were scored well, `[group, kept]`, where they tell whether queries are settled.
    pub(crate) chosen: Option<Reading>,
}

/// Starts a validated search, of queries `q` (those of `op`, one sequence each), that finds something.
pub(crate) fn plaid_search(
    context: &Context,
    op: &PlaidSearch<'_>,
    q: &Tokens<'_>,
    index: &Index,
    cancel: &Cancel,
) -> Result<Vec<Found>> {
    let held = &index.held;
    let scoring = scoring(q, held, &Pairing::Cross, op.options.normalize);
    let product = scoring.product(context);
    let queries = Queries::new(context, q, product, false, op.options.normalize)?;
    let exact = exact_queries(context, &scoring, product)?;
    let norms = held.factors(context, true)?;
    let nothing = context.pool.buffer(0)?;
    let shared = Shared {
        context,
        scoring: &scoring,
        queries: &queries,
        exact: exact.as_ref(),
        d_factors: address(norms.as_deref()),
        scores: &nothing,
    };
    let problem = Problem {
        product,
        stored: held.stored,
        dim: held.dim,
        rows: 0,
        listed: true,
        scaled: true,
        precision: Precision::Default,
        purpose: Use::Scores { argmax: false },
    };
    let course = Course::of(op);
    let allowed = op.allowed();
    let mut search = Search {
        op,
        index,
        shared,
        problem,
        allowed: None,
        eligible: None,
        documents: Vec::new(),
        empty: may_be_empty(q),
        course,
    };
    let centroids = index.centroids().max(1) as usize;
    let course = &search.course;
    let groups = if course.probing {
        let each = (4 * held.count() as usize).max(16 * course.kept);
        search.shared.groups(WORKSPACE / 8 / centroids, (WORKSPACE / each).clamp(1, QUERIES))
    } else {
        search.shared.groups(WORKSPACE / 4 / centroids, QUERIES)
    };
    if course.probing {
        search.allowed = allowed.map(|allowed| context.pool.upload(allowed.words())).transpose()?;
        if op.subset.is_some() {
            search.eligible = Some(search.find_eligible()?);
        }
    } else {
        search.documents = match allowed {
            None => (0..held.count()).collect(),
            Some(allowed) => allowed.iter().map(|document| document as u32).collect(),
        };
    }
    let mut found = Vec::new();
    for group in groups {
        cancel.check()?;
        let (hits, chosen) = match search.course.probing {
            true => search.probe(&group)?,
            false => (search.everything(&group)?, None),
        };
        let hits = hits.read(group.len() * search.course.width * 8)?;
        let bytes = group.len() * search.course.kept * 8;
        let chosen =
            chosen.filter(|_| op.options.wider().is_some()).map(|chosen| chosen.read(bytes)).transpose()?;
        found.push(Found { group, hits, chosen });
    }
    Ok(found)
}

/// Scoring of documents of an index: their tokens have unit length, whatever is done to queries.
pub(crate) fn scoring<'a>(
    q: &'a Tokens<'a>,
    held: &'a Held,
    pairing: &'a Pairing<'a>,
    normalize: bool,
) -> Scoring<'a> {
    Scoring {
        q,
        q_address: None,
        held,
        pairing,
        documents: 0..held.count(),
        columns: held.count() as usize,
        column: 0,
        packed_winners: false,
        normalize_q: normalize,
        normalize_d: true,
        precision: Precision::Default,
    }
}

/// What all groups of queries share.
struct Search<'a> {
    op: &'a PlaidSearch<'a>,
    index: &'a Index,
    shared: Shared<'a>,
    problem: Problem,
    course: Course,
    /// Probing: bits of the allowed documents; `None`: all.
    allowed: Option<Buffer>,
    /// Probing: bits of the centroids that may be probed; `None`: all.
    eligible: Option<Buffer>,
    /// Not probing: the allowed documents.
    documents: Vec<u32>,
    /// Some query might have no token that counts.
    empty: bool,
}

impl Search<'_> {
    fn context(&self) -> &Context {
        self.shared.context
    }

    /// Bits of the centroids of the allowed documents' tokens.
    fn find_eligible(&self) -> Result<Buffer> {
        let held = &self.index.held;
        let words = self.index.centroids().div_ceil(32) as usize;
        let eligible = self.context().pool.buffer(4 * words)?;
        eligible.fill(0)?;
        let unit = config::plaid_eligible();
        let params = EligibleParams {
            codes: held.residual.as_ref().map_or(0, |residual| residual.codes.address()),
            offsets: held.offsets.address(),
            allowed: address(self.allowed.as_ref()),
            eligible: eligible.address(),
            documents: held.count(),
            unused: 0,
        };
        let grid = held.count().div_ceil(unit.constant("kThreads") as u32 / 32);
        // SAFETY: codes and offsets are those of the documents, bits as many as documents and centroids.
        unsafe { self.context().launch(&unit, [grid, 1], 0, &params)? };
        Ok(eligible)
    }

    /// Bits of the documents in the lists that a group's tokens probe, `[queries, words]`. `rows`: see [`Rows`].
    fn candidates(&self, group: &Range<u32>, table: &Table, rows: &Rows) -> Result<Buffer> {
        let (context, shared, index) = (self.context(), &self.shared, self.index);
        let (count, centroids) = (shared.rows_of(group), index.centroids());
        let document_words = index.held.count().div_ceil(32);
        let candidates = context.pool.buffer(group.len() * document_words as usize * 4)?;
        candidates.fill(0)?;
        let probes = self.course.probes;
        if count == 0 || probes == 0 {
            return Ok(candidates);
        }
        let turned = context.pool.buffer(count as usize * centroids as usize * 4)?;
        let params = TurnParams {
            table: table.values.address(),
            eligible: address(self.eligible.as_ref()),
            turned: turned.address(),
            rows: count,
            stride: table.stride,
            centroids,
            unused: 0,
        };
        let (unit, bytes) = config::plaid_turn();
        // SAFETY: both tables are of all rows and centroids, and there is a bit for each of those.
        unsafe { context.launch(&unit, [centroids.div_ceil(32), count.div_ceil(32)], bytes, &params)? };
        let source = Source {
            scores: turned.address(),
            stride: centroids.into(),
            count: centroids,
            ..Source::default()
        };
        let best = select(context, source, count as usize, probes, true)?;
        drop(turned);
        let centroid_words = centroids.div_ceil(32);
        let probed = context.pool.buffer(group.len() * centroid_words as usize * 4)?;
        probed.fill(0)?;
        let threshold = self.op.options.centroid_score_threshold;
        let params = MarkParams {
            keys: best.address(),
            table: table.values.address(),
            factors: rows.factors,
            owners: rows.owners.address(),
            rows: rows.offsets.address(),
            list_offsets: index.list_offsets.address(),
            list_entries: index.list_entries.address(),
            probed: probed.address(),
            candidates: candidates.address(),
            probes: probes as u32,
            stride: table.stride,
            centroid_words,
            document_words,
            restricted: threshold.is_some().into(),
            threshold: threshold.unwrap_or(0.0),
        };
        // SAFETY: keys for all rows and probes; lists of every centroid, whose entries are documents; bits of both.
        unsafe { context.launch(&config::plaid_mark(), [count * probes as u32, 1], 16, &params)? };
        Ok(candidates)
    }

    /// Keys of the best candidates by approximate score, `[queries, kept]`.
    fn cut(&self, group: &Range<u32>, table: &Table) -> Result<Buffer> {
        let (context, held) = (self.context(), &self.index.held);
        let rows = Rows::new(&self.shared, group)?;
        let candidates = self.candidates(group, table, &rows)?;
        let scores = context.pool.buffer(group.len() * held.count() as usize * 4)?;
        let unit = config::plaid_rough(rows.aligned);
        let warps = unit.constant("kThreads") as u32 / 32;
        // As many documents a warp as leave work for every warp that runs at a time.
        let each = group.len() * held.count() as usize / (64 * context.caps().processors as usize);
        let span = 1 << each.clamp(1, 32).ilog2();
        let params = RoughParams {
            table: table.values.address(),
            factors: rows.factors,
            codes: held.residual.as_ref().map_or(0, |residual| residual.codes.address()),
            offsets: held.offsets.address(),
            rows: rows.offsets.address(),
            candidates: candidates.address(),
            allowed: address(self.allowed.as_ref()),
            scores: scores.address(),
            documents: held.count(),
            document_words: held.count().div_ceil(32),
            centroids: self.index.centroids(),
            stride: table.stride,
            span,
            unused: 0,
        };
        let grid = [held.count().div_ceil(span * warps), group.len() as u32];
        // SAFETY: a table of the group's rows, codes and offsets of the documents, bits and scores for each of them.
        unsafe { context.launch(&unit, grid, 0, &params)? };
        let source = Source {
            scores: scores.address(),
            stride: held.count().into(),
            count: held.count(),
            ..Source::default()
        };
        select(context, source, group.len(), self.course.kept, true)
    }

    /// Probes, scores roughly, and scores well what is left: keys of the best, and by approximate score of what was left.
    fn probe(&self, group: &Range<u32>) -> Result<(Buffer, Option<Buffer>)> {
        let (context, width) = (self.context(), self.course.kept);
        let table = self.shared.table(group)?;
        let chosen = self.cut(group, &table)?;
        let scores = self.scored(group, &table, width, true, |tiles| {
            let owners = context.pool.upload(tiles.owners)?;
            let count = tiles.owners.len() * width;
            let jobs = context.pool.buffer(count * size_of::<Job>())?;
            let unit = config::plaid_jobs();
            let params = JobsParams {
                keys: chosen.address(),
                owners: owners.address(),
                jobs: jobs.address(),
                tiles: tiles.owners.len() as u32,
                width: width as u32,
            };
            let grid = count.div_ceil(unit.constant("kThreads") as usize) as u32;
            // SAFETY: keys of every query, and room for every job.
            unsafe { context.launch(&unit, [grid, 1], 0, &params)? };
            Ok(Jobs::Made(jobs, count as u32))
        })?;
        let ranked = self.ranked(group, &scores, (&chosen, width as u64), width, None)?;
        let source = Source { before: ranked.address(), before_count: width as u32, ..Source::default() };
        let best = select(context, source, group.len(), self.course.width, true)?;
        Ok((best, Some(chosen)))
    }

    /// Scores every allowed document, as many at a time as the workspace has room for.
    fn everything(&self, group: &Range<u32>) -> Result<Buffer> {
        let (context, rows) = (self.context(), self.shared.rows_of(group) as usize);
        let table = self.shared.table(group)?;
        let longest = group.clone().map(|query| self.shared.rows_of(&(query..query + 1))).max().unwrap_or(0);
        // A score, or the sums of a long query's blocks; a job per tile, the smallest of which has 16 rows.
        let scores = 4 * group.len() * longest.div_ceil(32).max(1) as usize;
        let jobs = size_of::<Job>() * (rows / 16 + group.len());
        let chunk = (WORKSPACE / scores.max(jobs)).max(1);
        let mut best: Option<(Buffer, usize)> = None;
        for documents in self.documents.chunks(chunk) {
            let scores = self.scored(group, &table, documents.len(), false, |tiles| {
                Ok(Jobs::Listed(self.jobs(documents, &tiles)))
            })?;
            let chosen: Vec<u64> = documents.iter().map(|&document| document.into()).collect();
            let chosen = context.pool.upload(&chosen)?;
            let before = best.as_ref().map(|(keys, count)| (keys, *count));
            let ranked = self.ranked(group, &scores, (&chosen, 0), documents.len(), before)?;
            let total = before.map_or(0, |b| b.1) + documents.len();
            let width = self.course.width.min(total);
            let source = Source { before: ranked.address(), before_count: total as u32, ..Source::default() };
            best = Some((select(context, source, group.len(), width, true)?, width));
        }
        Ok(best.expect("there are allowed documents").0)
    }

    /// Jobs for all tiles with `documents`, runs of which are streamed; a document's scores go to its place among them.
    fn jobs(&self, documents: &[u32], tiles: &Tiles<'_>) -> Vec<Job> {
        let offsets = &self.index.held.packing.offsets;
        let rows: usize =
            documents.iter().map(|&j| (offsets[j as usize + 1] - offsets[j as usize]) as usize).sum();
        // Several for each that runs at a time, but none that is over as soon as it began.
        let most = rows * tiles.owners.len() / (4 * tiles.workers as usize);
        let most = most.clamp(tiles.columns as usize, JOB_ROWS) as u32;
        let mut jobs: Vec<Job> = Vec::new();
        let mut first = 0;
        while first < documents.len() {
            let (begin, mut end) = (documents[first], documents[first] + 1);
            let mut next = first + 1;
            while next < documents.len()
                && documents[next] == end
                && offsets[end as usize + 1] - offsets[begin as usize] <= most
            {
                (end, next) = (end + 1, next + 1);
            }
            jobs.extend((0..tiles.owners.len() as u32).map(|tile| Job {
                tile,
                document_begin: begin,
                document_end: end,
                shift: (first as u32).wrapping_sub(begin),
            }));
            first = next;
        }
        jobs
    }

    /// Scores `[queries, width]` of what `jobs` lists.
    fn scored(
        &self,
        group: &Range<u32>,
        table: &Table,
        width: usize,
        apart: bool,
        jobs: impl FnOnce(Tiles<'_>) -> Result<Jobs>,
    ) -> Result<Buffer> {
        let scores = self.context().pool.buffer(group.len() * width * 4)?;
        if self.empty {
            scores.fill(0)?;
        }
        let shared = Shared { scores: &scores, ..self.shared };
        shared.listed(&self.problem, group, table, width, apart, jobs)?;
        Ok(scores)
    }

    /// Keys of `width` documents by their scores, behind those there were before. `chosen`: keys that name them, and how far
    /// it is from one query's to the next's.
    fn ranked(
        &self,
        group: &Range<u32>,
        scores: &Buffer,
        chosen: (&Buffer, u64),
        width: usize,
        before: Option<(&Buffer, usize)>,
    ) -> Result<Buffer> {
        let before_count = before.map_or(0, |b| b.1);
        let total = before_count + width;
        let keys = self.context().pool.buffer(group.len() * total * 8)?;
        let unit = config::plaid_rank();
        let params = RankParams {
            scores: scores.address(),
            chosen: chosen.0.address(),
            before: address(before.map(|b| b.0)),
            keys: keys.address(),
            stride: chosen.1,
            width: width as u32,
            before_count: before_count as u32,
        };
        let grid = [total.div_ceil(unit.constant("kThreads") as usize) as u32, group.len() as u32];
        // SAFETY: scores, keys before and keys after are as many as said.
        unsafe { self.context().launch(&unit, grid, 0, &params)? };
        Ok(keys)
    }
}

/// The rows of a group of queries, counted from its first.
struct Rows {
    /// Per query, and the end.
    offsets: Buffer,
    /// Per row its query.
    owners: Buffer,
    /// Address of the first row's factor, or null.
    factors: u64,
    /// Every query begins and ends at a multiple of four rows.
    aligned: bool,
}

impl Rows {
    fn new(shared: &Shared<'_>, group: &Range<u32>) -> Result<Self> {
        let queries = shared.queries;
        let offsets = &queries.packing.offsets[group.start as usize..=group.end as usize];
        let first = offsets[0];
        let offsets: Vec<u32> = offsets.iter().map(|row| row - first).collect();
        let owners: Vec<u32> =
            (0u32..).zip(offsets.windows(2)).flat_map(|(i, w)| (w[0]..w[1]).map(move |_| i)).collect();
        let factors = address(queries.factors.as_ref());
        Ok(Self {
            aligned: offsets.iter().all(|row| row % 4 == 0),
            factors: if factors == 0 { 0 } else { factors + 4 * u64::from(first) },
            owners: shared.context.pool.upload(&owners)?,
            offsets: shared.context.pool.upload(&offsets)?,
        })
    }
}
