//! Search over a PLAID index: from the upload of the queries to the hits without a word read back in between.
//!
//! Candidates are found by going through the codes of all documents, four bytes per token, so that no inverted lists need to
//! be on the device. Every selection — centroids to probe, candidates to score, hits — is the one of `retrieve`.

use std::sync::Arc;

use maxsim_core::plaid::Segment;
use maxsim_core::{
    Cancel, Codec, Documents, Error, Forward, Hit, Options, Output, PlaidHits, PlaidIndex, PlaidOptions,
    PlaidSearch, Result, Submission, Tokens,
};
use maxsim_shaders::kernels::{self, SORTED};

use crate::device::Gpu;
use crate::matmul::{MatmulParams, matmul};
use crate::memory::Buffer;
use crate::passes::{Job, Listed, Opened, Passes, QueryGroup};
use crate::plan::{ForwardPlan, Stored};
use crate::residual::{CodecShape, RowWriter, upload_codec};
use crate::retrieve::{Runs, Selection, score_of};
use crate::rows::{Compact, Held, Rows, Stage};
use crate::submit::{Batch, Flight, Pending, started};

/// Key of what takes part in no selection.
const ABSENT: u32 = u32::MAX;

/// Query tokens have factors.
const FACTORS: u32 = 1;
/// There is a threshold; only some documents are allowed.
const RESTRICTED: u32 = 2;

/// Parameters of the kernels `mask` and `plaid_eligible`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct MaskParams {
    work: u32,
    columns: u32,
    first: u32,
    masked: u32,
}

/// Parameters of the kernel `plaid_probed`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ProbedParams {
    work: u32,
    probes: u32,
    rows: u32,
    flags: u32,
    threshold: f32,
    words: u32,
    queries: u32,
    probed_at: u32,
}

/// Parameters of the kernel `plaid_approx`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ApproxParams {
    work: u32,
    documents: u32,
    first: u32,
    total: u32,
    rows: u32,
    flags: u32,
    words: u32,
    probed_at: u32,
}

/// An index on the device; its segments behind one another.
pub(crate) struct Index {
    pub(crate) held: Held,
    /// Codes alone, by shard.
    codes: Vec<Buffer>,
    centroids: usize,
    dim: usize,
    tokens: usize,
}

impl Index {
    pub(crate) fn upload(
        gpu: &Gpu,
        codec: &Codec<'_>,
        segments: &[&Segment],
        resident: bool,
    ) -> Result<Self> {
        let limit = |argument: &'static str, limit: String, got: usize| Error::Limit {
            argument: argument.into(),
            limit,
            got: got.to_string(),
        };
        let tokens: usize = segments.iter().map(|segment| segment.tokens()).sum();
        if tokens > i32::MAX as usize {
            return Err(limit("tokens", i32::MAX.to_string(), tokens));
        }
        let mut offsets = vec![0u32];
        let mut starts = Vec::with_capacity(segments.len());
        for segment in segments {
            let start = offsets[offsets.len() - 1];
            starts.push(start as usize);
            offsets.extend(segment.parts().offsets[1..].iter().map(|end| start + end));
        }
        let compact = Compact::packed(offsets);
        let held_codec = upload_codec(gpu, codec, resident)?;
        let writer = RowWriter::new(codec);
        let rows = Rows { compact: &compact, stride: writer.stride, widest: 0, resident, longest: u32::MAX };
        let width = codec.residual_bytes();
        let mut codes: Vec<Vec<u32>> = Vec::new();
        let held = Held::shared_out(gpu, &rows, |range, to| {
            let mut stage = Stage::new(gpu, to);
            let mut here = Vec::with_capacity(range.len());
            for (segment, &start) in segments.iter().zip(&starts) {
                let parts = segment.parts();
                let (from, end) = (range.start.max(start), range.end.min(start + segment.tokens()));
                for row in from.saturating_sub(start)..end.saturating_sub(start) {
                    let buckets = &parts.residuals[row * width..(row + 1) * width];
                    writer.push(&mut stage, parts.codes[row], parts.inv_norms[row].to_f32(), buckets);
                    here.push(parts.codes[row]);
                }
            }
            stage.flush();
            codes.push(here);
            Ok(None)
        })?;
        if !held.single() {
            let longest = compact.offsets.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
            let most = gpu.caps.max_binding / writer.stride as u64;
            return Err(limit("documents", format!("{most} tokens each on this device"), longest as usize));
        }
        let mut held = writer.documents(held, held_codec, true);
        let buffer = |codes: &Vec<u32>| {
            let bytes = 4 * codes.len() as u64;
            let buffer = if resident { gpu.resident(bytes)? } else { gpu.scratch(bytes)? };
            gpu.queue.write_buffer(buffer.raw(), 0, bytemuck::cast_slice(codes));
            Ok::<_, Error>(buffer)
        };
        let codes = codes.iter().map(buffer).collect::<Result<Vec<_>>>()?;
        held.bytes += codes.iter().map(|codes| codes.raw().size()).sum::<u64>();
        Ok(Self { held, codes, centroids: codec.count(), dim: codec.dim(), tokens })
    }
}

/// What kernels for an index are chosen by.
pub(crate) fn codec_shape(index: &PlaidIndex<'_>) -> Result<CodecShape> {
    Ok(match index {
        PlaidIndex::Host { codec, .. } => CodecShape::of(codec),
        PlaidIndex::Resident(resident) => {
            let index = resident.handle::<Arc<Index>>()?;
            index.held.codec.as_ref().expect("an index has one").shape
        }
    })
}

/// What all queries share.
struct Search {
    gpu: Arc<Gpu>,
    index: Arc<Index>,
    job: Job,
    /// Bits of the allowed documents; empty: all are.
    allowed: Vec<u32>,
    allowed_buffer: Buffer,
    /// Bits of the centroids that may be probed; `None`: all.
    eligible: Option<Buffer>,
    threshold: Option<f32>,
    probes: usize,
    kept: usize,
    top_k: usize,
}

/// Starts a validated operator.
pub(crate) fn plaid_search(gpu: &Arc<Gpu>, op: &PlaidSearch<'_>, cancel: &Cancel) -> Result<Submission> {
    let options = op.options;
    let (live, count) = op.counts();
    let (queries, top_k) = (op.q.count(), options.top_k.min(count));
    let hits: Vec<Vec<Hit>> = vec![Vec::new(); queries];
    if queries * top_k == 0 {
        return Ok(Submission::ready(Ok(Output::Hits(hits.into()))));
    }
    let index = match &op.index {
        PlaidIndex::Host { codec, segments } => Arc::new(Index::upload(gpu, codec, segments, false)?),
        PlaidIndex::Resident(resident) => resident.handle::<Arc<Index>>()?.clone(),
    };
    let q = op.q.clone().flattened();
    let probing = !options.exact && count > options.kept();
    let codec = index.held.codec.as_ref().expect("an index has one");
    let plan = ForwardPlan::over(&q, Stored::Residual(codec.shape), probing, false, &gpu.caps)?;
    let opened = Opened::Index(index.clone());
    let job = Job::over(gpu, plan, opened, (index.dim, index.tokens), [options.normalize, true])?;
    let allowed = op.allowed().map_or_else(Vec::new, |allowed| allowed.words().to_vec());
    let mut search = Search {
        gpu: gpu.clone(),
        index,
        job,
        allowed_buffer: gpu.scratch_with(bytemuck::cast_slice(&allowed))?,
        allowed,
        eligible: None,
        threshold: options.centroid_score_threshold,
        probes: 0,
        kept: options.kept().min(count),
        top_k,
    };
    search.probes = options.n_ivf_probe.min(search.index.centroids);
    if probing && op.subset.is_some() {
        search.eligible = Some(search.find_eligible()?);
        search.probes = options.probes(live, count, search.index.centroids);
    }
    let mut groups: Vec<(Batch, QueryGroup)> = Vec::new();
    for range in search.job.query_groups(&q, search.most_queries(&q, probing)?)? {
        let mut batch = Batch::new(gpu);
        let group = search.job.upload(&mut batch, &q, range)?;
        groups.push((batch, group));
    }
    let explained = options.explain.then(|| q.to_buf());
    let cancel = cancel.clone();
    Ok(started(Box::pin(async move {
        let mut found =
            Found { hits, unsettled: Vec::new(), options, top_k, first: 0, listed: Vec::new(), pairs: 0 };
        let mut flight = Flight::new();
        for (mut batch, group) in groups {
            cancel.check()?;
            let selection =
                Selection { gpu: &search.gpu, queries: group.count(), width: top_k, largest: true };
            let best = match probing {
                true => {
                    let (best, chosen) = search.probe(&mut batch, &group)?;
                    (best, Some(chosen))
                }
                false => {
                    let mut scan = Scan::new(&search, &group)?;
                    while let Some(pending) = scan.step(&search, &mut batch, &group, &cancel)? {
                        found.take(flight.add(pending, None).await?);
                    }
                    (scan.so_far.expect("there are documents"), None)
                }
            };
            let (best, chosen) = best;
            selection.read(&mut batch, &best);
            if let Some(chosen) = chosen.filter(|_| options.wider().is_some()) {
                Selection { width: search.kept, ..selection }.read(&mut batch, &chosen);
            }
            found.take(flight.add(batch.submit()?, Some(group)).await?);
        }
        while let landed @ Some(_) = flight.land().await? {
            found.take(landed);
        }
        let Found { mut hits, unsettled, listed, .. } = found;
        if let Some(q) = explained {
            explain(search.job.into_list(true), q.as_tokens(), listed, &mut hits, &cancel).await?;
        }
        Ok(Output::Hits(PlaidHits { hits, unsettled }))
    })))
}

/// What was read back of the groups so far.
struct Found {
    hits: Vec<Vec<Hit>>,
    unsettled: Vec<u32>,
    options: PlaidOptions,
    top_k: usize,
    /// Queries of those groups.
    first: usize,
    /// The groups with their hits as pairs to score.
    listed: Vec<(QueryGroup, Vec<Listed>)>,
    pairs: u32,
}

impl Found {
    /// Takes the results of a group; others have none.
    fn take(&mut self, landed: Option<(Vec<Vec<u32>>, Option<QueryGroup>)>) {
        let Some((read, Some(group))) = landed else { return };
        let mut mine = Vec::new();
        for (at, (&key, &document)) in read[0].iter().zip(&read[1]).enumerate() {
            if key != ABSENT {
                let hit = Hit { document, score: score_of(key, true), winners: Vec::new() };
                self.hits[self.first + at / self.top_k].push(hit);
                mine.push((self.pairs, (at / self.top_k) as u32, document));
                self.pairs += 1;
            }
        }
        if let [_, _, keys, documents] = &read[..] {
            let kept = keys.len() / group.count();
            let chosen = keys.chunks_exact(kept).zip(documents.chunks_exact(kept));
            for (query, (keys, documents)) in (self.first..).zip(chosen) {
                // Best first by approximate score.
                let scored = keys.iter().filter(|&&key| key != ABSENT).count();
                let front = &documents[..scored / 4];
                let behind = self.hits[query].iter().filter(|hit| !front.contains(&hit.document));
                if !self.options.settles(behind.count()) {
                    self.unsettled.push(query as u32);
                }
            }
        }
        self.first += group.count();
        self.listed.push((group, mine));
    }
}

/// Puts the winners of hits in their places.
async fn explain(
    job: Job,
    q: Tokens<'_>,
    listed: Vec<(QueryGroup, Vec<Listed>)>,
    hits: &mut [Vec<Hit>],
    cancel: &Cancel,
) -> Result<()> {
    // Winners are laid out by queries alone; any documents will do.
    let of: Vec<u32> = (0u32..).zip(&*hits).flat_map(|(i, hits)| hits.iter().map(move |_| i)).collect();
    let pairs = Forward::score_pairs(q.clone(), Documents::Tokens(q), of.clone(), of, Options::default())?;
    let mut winners = pairs.empty_argmax();
    let mut passes = Passes::default();
    listed.into_iter().for_each(|(group, listed)| passes.add_list(&job, group, listed));
    passes.run(&job, cancel, &mut [], Some(&mut winners)).await?;
    for (pair, hit) in hits.iter_mut().flatten().enumerate() {
        hit.winners = winners.pair(pair).to_vec();
    }
    Ok(())
}

/// Scoring every allowed document, some at a time.
struct Scan {
    meta: (Buffer, u32),
    /// Documents at a time, as selections take them.
    chunk: usize,
    first: usize,
    so_far: Option<Runs>,
}

impl Scan {
    fn new(search: &Search, group: &QueryGroup) -> Result<Self> {
        let meta = search.job.cross_meta(group)?;
        // Sorting takes whole blocks of every query.
        let blocks = search.job.most as usize / 4 / (group.count() * search.top_k.min(SORTED as usize));
        let chunk = blocks.max(1).saturating_mul(SORTED as usize);
        Ok(Self { meta, chunk, first: 0, so_far: None })
    }

    /// Records the next documents and submits them, unless they are the last ones: then the rest is the caller's to submit.
    fn step(
        &mut self,
        search: &Search,
        batch: &mut Batch,
        group: &QueryGroup,
        cancel: &Cancel,
    ) -> Result<Option<Pending>> {
        cancel.check()?;
        let (job, total, first) = (&search.job, search.index.held.count, self.first);
        let selection =
            Selection { gpu: &search.gpu, queries: group.count(), width: search.top_k, largest: true };
        let end = job.cross_end(group, first).min(first.saturating_add(self.chunk));
        let scored = job.cross_scores(batch, group, &self.meta, first..end)?;
        if !search.allowed.is_empty() {
            let bits = Some(&search.allowed_buffer);
            search.mask(batch, &scored.scores, [group.count(), end - first, first], bits)?;
        }
        let best = selection.best(batch, &scored.scores, first, end - first)?;
        self.so_far = Some(selection.with(batch, self.so_far.take(), best)?);
        self.first = end;
        if end == total {
            return Ok(None);
        }
        Ok(Some(std::mem::replace(batch, Batch::new(&search.gpu)).submit()?))
    }
}

impl Search {
    /// Queries of a group at most, so that every buffer fits a binding and no submission takes too long.
    fn most_queries(&self, q: &Tokens<'_>, probing: bool) -> Result<usize> {
        let most = self.job.most as usize / 4;
        let (rows, centroids) = (q.max_extent(), self.index.centroids);
        let mut words = (2 * self.top_k).max(SORTED as usize);
        let mut work = 1;
        if probing {
            let scored = self.job.chosen_words(rows, self.kept);
            words = words.max(self.index.held.count).max(rows * centroids).max(2 * self.kept).max(scored);
            let mean = self.index.tokens.div_ceil(self.index.held.count).max(1);
            work = rows * self.index.dim * (2 * centroids + self.kept * mean);
        }
        if 4 * words as u64 > self.gpu.caps.max_binding {
            return Err(Error::Limit {
                argument: "index".into(),
                limit: format!("{} words per query on this device", self.gpu.caps.max_binding / 4),
                got: words.to_string(),
            });
        }
        let by_work = usize::try_from(self.gpu.caps.max_work).unwrap_or(usize::MAX) / work.max(1);
        Ok((most / words).min(by_work).max(1))
    }

    fn flags(&self, group: &QueryGroup, restricted: bool) -> u32 {
        let factors = if group.queries.factors.is_some() { FACTORS } else { 0 };
        factors | if restricted { RESTRICTED } else { 0 }
    }

    /// Shards with their codes, first documents and numbers of documents.
    fn shards(&self) -> impl Iterator<Item = (&crate::rows::Shard, &Buffer, usize, usize)> {
        let held = &self.index.held;
        held.shards.iter().zip(&self.index.codes).enumerate().map(move |(s, (shard, codes))| {
            let end = held.shards.get(s + 1).map_or(held.count, |next| next.first_segment);
            (shard, codes, shard.first_segment, end - shard.first_segment)
        })
    }

    /// Bits of the centroids of the allowed documents' tokens.
    fn find_eligible(&self) -> Result<Buffer> {
        let eligible = self.gpu.scratch_with(&vec![0; 4 * self.index.centroids.div_ceil(32)])?;
        let mut batch = Batch::new(&self.gpu);
        for (shard, codes, first, documents) in self.shards() {
            let params = MaskParams { work: documents as u32, columns: first as u32, first: 0, masked: 0 };
            let buffers = [codes, &shard.meta, &self.allowed_buffer, &eligible];
            batch.dispatch(&kernels::only(&kernels::PLAID_ELIGIBLE), &params, &buffers, documents)?;
        }
        batch.submit()?;
        Ok(eligible)
    }

    /// Makes scores ABSENT that are NaN or whose column's bit, counted from `first`, is not set.
    fn mask(
        &self,
        batch: &mut Batch,
        scores: &Buffer,
        [rows, columns, first]: [usize; 3],
        bits: Option<&Buffer>,
    ) -> Result<()> {
        let params = MaskParams {
            work: (rows * columns) as u32,
            columns: columns as u32,
            first: first as u32,
            masked: bits.is_some().into(),
        };
        let nothing = self.gpu.scratch(0)?;
        let buffers = [bits.unwrap_or(&nothing), scores];
        batch.dispatch(&kernels::only(&kernels::MASK), &params, &buffers, (rows * columns).div_ceil(64))
    }

    /// Similarities of all query tokens of a group with all centroids: `[tokens][centroids]`.
    fn by_token(&self, batch: &mut Batch, group: &QueryGroup) -> Result<Buffer> {
        let (rows, centroids) = (group.queries.compact.rows(), self.index.centroids);
        let codec = self.index.held.codec.as_ref().expect("an index has one");
        let table = self.gpu.scratch(4 * (rows * centroids) as u64)?;
        let params = MatmulParams {
            m: rows as u32,
            n: centroids as u32,
            k: 4 * self.index.held.stride,
            a_stride: group.queries.stride,
            b_stride: self.index.held.stride,
            c_stride: centroids as u32,
            b_start: codec.centroids_at,
            ..MatmulParams::default()
        };
        let buffers = [&group.queries.rows, &codec.buffer, &self.gpu.scratch(0)?, &table];
        matmul(batch, false, params, buffers)?;
        Ok(table)
    }

    /// Probes, gathers, scores roughly and scores well: the best documents, and those that were scored well by approximate score.
    fn probe(&self, batch: &mut Batch, group: &QueryGroup) -> Result<(Runs, Runs)> {
        let (gpu, index) = (&self.gpu, &self.index);
        let (rows, queries, total) = (group.queries.compact.rows(), group.count(), index.held.count);
        let words = index.centroids.div_ceil(32);
        let offsets = &group.queries.compact.offsets;
        let owners =
            (0u32..).zip(offsets.windows(2)).flat_map(|(i, ends)| (ends[0]..ends[1]).map(move |_| i));
        let q_meta: Vec<u32> = offsets.iter().copied().chain(owners).collect();
        let q_meta = gpu.scratch_with(bytemuck::cast_slice(&q_meta))?;
        let nothing = gpu.scratch(0)?;
        let factors = group.queries.factors.as_ref().unwrap_or(&nothing);
        let probed_at = self.allowed.len();
        let mut bits = self.allowed.clone();
        bits.resize(probed_at + queries * words, 0);
        let bits = gpu.scratch_with(bytemuck::cast_slice(&bits))?;
        let table = self.job.table(batch, group)?;
        if rows > 0 {
            let by_token = self.by_token(batch, group)?;
            self.mask(batch, &by_token, [rows, index.centroids, 0], self.eligible.as_ref())?;
            let selection = Selection { gpu, queries: rows, width: self.probes, largest: true };
            let best = selection.best(batch, &by_token, 0, index.centroids)?;
            let params = ProbedParams {
                work: (rows * self.probes) as u32,
                probes: self.probes as u32,
                rows: rows as u32,
                flags: self.flags(group, self.threshold.is_some()),
                threshold: self.threshold.unwrap_or(0.0),
                words: words as u32,
                queries: queries as u32,
                probed_at: probed_at as u32,
            };
            let buffers = [&best.keys, &best.indices, &table, &q_meta, factors, &bits];
            let groups = (rows * self.probes).div_ceil(64);
            batch.dispatch(&kernels::only(&kernels::PLAID_PROBED), &params, &buffers, groups)?;
        }
        let approximate = gpu.scratch(4 * (queries * total) as u64)?;
        for (shard, codes, first, documents) in self.shards() {
            let params = ApproxParams {
                work: (queries * documents) as u32,
                documents: documents as u32,
                first: first as u32,
                total: total as u32,
                rows: rows as u32,
                flags: self.flags(group, !self.allowed.is_empty()),
                words: words as u32,
                probed_at: probed_at as u32,
            };
            let buffers = [codes, &shard.meta, &table, &q_meta, factors, &bits, &approximate];
            batch.dispatch(&kernels::only(&kernels::PLAID_APPROX), &params, &buffers, queries * documents)?;
        }
        let selection = Selection { gpu, queries, width: self.kept, largest: true };
        let kept = selection.best(batch, &approximate, 0, total)?;
        let scores = self.job.chosen(batch, group, [&kept.keys, &kept.indices], self.kept)?;
        let work = queries * self.kept;
        let params = [work as u32, 0, 0, 0];
        let groups = work.div_ceil(64);
        batch.dispatch(&kernels::only(&kernels::PLAID_RANK), &params, &[&scores, &kept.keys], groups)?;
        let selection = Selection { width: self.top_k, ..selection };
        Ok((selection.best_keys(batch, self.kept, [&kept.keys, &kept.indices])?, kept))
    }
}
