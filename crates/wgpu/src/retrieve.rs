//! Top-k: scores of some documents, the best of them, merged with the best so far. Only those are read back.

use std::sync::Arc;

use maxsim_core::{Argmax, Cancel, Error, Forward, Options, Output, Result, Retrieve, Submission, TopK};
use maxsim_shaders::kernels::{self, SORTED};

use crate::device::Gpu;
use crate::memory::Buffer;
use crate::passes::{Job, Listed, Passes, QueryGroup};
use crate::submit::{Batch, Flight, started};

/// Results up to which the best are sorted again and again; more are merged, run by run.
const SORT_AGAIN: usize = 256;

/// Parameters of the kernel `topk_sort`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SortParams {
    work: u32,
    blocks: u32,
    candidates: u32,
    first: u32,
    largest: u32,
    length: u32,
    unused: [u32; 2],
}

/// Parameters of the kernel `topk_merge`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct MergeParams {
    work: u32,
    pairs: u32,
    runs: u32,
    length: u32,
    each: u32,
    out_length: u32,
    out_stride: u32,
    out_start: u32,
    in_stride: u32,
    unused: [u32; 3],
}

/// Sorted candidates on the device: `runs` of `length` for every query.
pub(crate) struct Runs {
    pub(crate) keys: Buffer,
    pub(crate) indices: Buffer,
    runs: usize,
    length: usize,
}

/// Where merged runs go: distance of queries, and where a query's first run begins.
#[derive(Clone, Copy)]
struct Place {
    stride: usize,
    start: usize,
}

/// Selection for the queries of a group.
pub(crate) struct Selection<'a> {
    pub(crate) gpu: &'a Arc<Gpu>,
    pub(crate) queries: usize,
    pub(crate) width: usize,
    pub(crate) largest: bool,
}

impl Selection<'_> {
    fn scratch(&self, each: usize) -> Result<[Buffer; 2]> {
        let bytes = 4 * (self.queries * each) as u64;
        Ok([self.gpu.scratch(bytes)?, self.gpu.scratch(bytes)?])
    }

    /// The best of every [`SORTED`] candidates: scores of documents from `first` on, or keys with their indices.
    fn sort(
        &self,
        batch: &mut Batch,
        candidates: usize,
        [values, indices]: [&Buffer; 2],
        first: Option<usize>,
    ) -> Result<Runs> {
        let blocks = candidates.div_ceil(SORTED as usize);
        let length = self.width.min(SORTED as usize);
        let [out_keys, out_indices] = self.scratch(blocks * length)?;
        let params = SortParams {
            work: (self.queries * blocks) as u32,
            blocks: blocks as u32,
            candidates: candidates as u32,
            first: first.unwrap_or(0) as u32,
            largest: self.largest.into(),
            length: length as u32,
            unused: [0; 2],
        };
        let buffers = [values, indices, &out_keys, &out_indices];
        batch.dispatch(&kernels::topk_sort(first.is_none()), &params, &buffers, self.queries * blocks)?;
        Ok(Runs { keys: out_keys, indices: out_indices, runs: blocks, length })
    }

    /// Runs merged in pairs to `out_length` each, at `place` of `out`.
    fn merge(
        &self,
        batch: &mut Batch,
        from: &Runs,
        out_length: usize,
        out: [&Buffer; 2],
        place: Place,
    ) -> Result<()> {
        let pairs = from.runs.div_ceil(2);
        let each = (2 * from.length).max(out_length);
        let work = self.queries * pairs * each;
        let params = MergeParams {
            work: work as u32,
            pairs: pairs as u32,
            runs: from.runs as u32,
            length: from.length as u32,
            each: each as u32,
            out_length: out_length as u32,
            out_stride: place.stride as u32,
            out_start: place.start as u32,
            in_stride: (from.runs * from.length) as u32,
            unused: [0; 3],
        };
        let buffers = [&from.keys, &from.indices, out[0], out[1]];
        batch.dispatch(&kernels::topk_merge(), &params, &buffers, work.div_ceil(64))
    }

    /// One run of the best of the scores of `documents` documents from `first` on.
    pub(crate) fn best(
        &self,
        batch: &mut Batch,
        scores: &Buffer,
        first: usize,
        documents: usize,
    ) -> Result<Runs> {
        let nothing = self.gpu.scratch(0)?;
        let runs = self.sort(batch, documents, [scores, &nothing], Some(first))?;
        self.united(batch, runs)
    }

    /// The same of `candidates` candidates that have keys, with their indices.
    pub(crate) fn best_keys(
        &self,
        batch: &mut Batch,
        candidates: usize,
        keys_and_indices: [&Buffer; 2],
    ) -> Result<Runs> {
        let runs = self.sort(batch, candidates, keys_and_indices, None)?;
        self.united(batch, runs)
    }

    /// One run of what is best in all of them.
    fn united(&self, batch: &mut Batch, mut runs: Runs) -> Result<Runs> {
        while runs.runs > 1 {
            runs = if self.width <= SORT_AGAIN {
                self.sort(batch, runs.runs * runs.length, [&runs.keys, &runs.indices], None)?
            } else {
                let (pairs, length) = (runs.runs.div_ceil(2), self.width.min(2 * runs.length));
                let [keys, indices] = self.scratch(pairs * length)?;
                let place = Place { stride: pairs * length, start: 0 };
                self.merge(batch, &runs, length, [&keys, &indices], place)?;
                Runs { keys, indices, runs: pairs, length }
            };
        }
        Ok(runs)
    }

    /// The best of `so_far` and of `run`, as a run of the full width.
    pub(crate) fn with(&self, batch: &mut Batch, so_far: Option<Runs>, run: Runs) -> Result<Runs> {
        let width = self.width;
        let alone = Place { stride: width, start: 0 };
        if so_far.is_none() && run.length == width {
            return Ok(run);
        }
        let [keys, indices] = self.scratch(width)?;
        match so_far {
            // Filled up.
            None => self.merge(batch, &run, width, [&keys, &indices], alone)?,
            Some(so_far) => {
                let [both_keys, both_indices] = self.scratch(2 * width)?;
                let both = Runs { keys: both_keys, indices: both_indices, runs: 2, length: width };
                for (run, start) in [(&so_far, 0), (&run, width)] {
                    let place = Place { stride: 2 * width, start };
                    self.merge(batch, run, width, [&both.keys, &both.indices], place)?;
                }
                self.merge(batch, &both, width, [&keys, &indices], alone)?;
            }
        }
        Ok(Runs { keys, indices, runs: 1, length: width })
    }
}

impl Selection<'_> {
    /// Asks for keys and indices of the best of all.
    pub(crate) fn read(&self, batch: &mut Batch, best: &Runs) {
        let bytes = 4 * (self.queries * self.width) as u64;
        batch.read(&best.keys, bytes);
        batch.read(&best.indices, bytes);
    }
}

/// The score that a key of the kernel `topk_sort` stands for.
pub(crate) fn score_of(key: u32, largest: bool) -> f32 {
    let ascending = if largest { !key } else { key };
    f32::from_bits(if ascending >= 1 << 31 { ascending ^ (1 << 31) } else { !ascending })
}

/// Starts a validated operator.
pub(crate) fn retrieve(gpu: &Arc<Gpu>, op: &Retrieve<'_>, cancel: &Cancel) -> Result<Submission> {
    let (width, count) = (op.width(), op.forward.q.count());
    let mut hits = TopK {
        scores: Vec::with_capacity(count * width),
        indices: Vec::with_capacity(count * width),
        shape: op.output_shape(),
        argmax: None,
    };
    let scoring = Options { argmax: false, validate_finite: false, ..op.forward.options };
    let forward = Forward::maxsim(op.forward.q.clone(), op.forward.d.clone(), scoring);
    let mut explained: Option<Argmax> = None;
    if op.forward.options.argmax {
        explained = Some(empty_winners(op)?);
    }
    if count * width == 0 {
        hits.argmax = explained;
        return Ok(Submission::ready(Ok(Output::TopK(hits))));
    }
    let job = Job::new(gpu, &forward)?;
    let largest = op.options.largest;
    let most = job.most as usize / 4;
    if 2 * width > most {
        return Err(Error::Limit {
            argument: "top_k".into(),
            limit: (most / 2).to_string(),
            got: width.to_string(),
        });
    }
    let most_queries = most / (2 * width).max(SORTED as usize);
    let mut groups: Vec<(Batch, QueryGroup)> = Vec::new();
    for range in job.query_groups(&op.forward.q, most_queries.max(1))? {
        let mut batch = Batch::new(gpu);
        let group = job.upload(&mut batch, &op.forward.q, range)?;
        groups.push((batch, group));
    }
    let chunk = op.options.chunk;
    let (gpu, cancel) = (gpu.clone(), cancel.clone());
    Ok(started(Box::pin(async move {
        let mut found = Found { hits, width, largest, listed: Vec::new(), keep: explained.is_some() };
        let mut flight = Flight::new();
        for (mut batch, group) in groups {
            let selection = Selection { gpu: &gpu, queries: group.count(), width, largest };
            let meta = job.cross_meta(&group)?;
            // Sorting takes whole blocks of every query.
            let blocks = most / (group.count() * width.min(SORTED as usize));
            let chunk = chunk.unwrap_or(usize::MAX).min(blocks.max(1).saturating_mul(SORTED as usize));
            let mut so_far: Option<Runs> = None;
            let mut first = 0;
            while first < job.held().count {
                cancel.check()?;
                let end = job.cross_end(&group, first).min(first.saturating_add(chunk));
                let scored = job.cross_scores(&mut batch, &group, &meta, first..end)?;
                let best = selection.best(&mut batch, &scored.scores, first, end - first)?;
                so_far = Some(selection.with(&mut batch, so_far, best)?);
                first = end;
                if first < job.held().count {
                    let pending = std::mem::replace(&mut batch, Batch::new(&gpu)).submit()?;
                    found.take(flight.add(pending, None).await?);
                }
            }
            selection.read(&mut batch, &so_far.expect("there are documents"));
            found.take(flight.add(batch.submit()?, Some(group)).await?);
        }
        while let landed @ Some(_) = flight.land().await? {
            found.take(landed);
        }
        let Found { mut hits, listed, .. } = found;
        if let Some(winners) = &mut explained {
            let job = job.into_list(true);
            let mut passes = Passes::default();
            listed.into_iter().for_each(|(group, listed)| passes.add_list(&job, group, listed));
            passes.run(&job, &cancel, &mut [], Some(winners)).await?;
        }
        hits.argmax = explained;
        Ok(Output::TopK(hits))
    })))
}

/// What was read back of the groups so far.
struct Found {
    hits: TopK,
    width: usize,
    largest: bool,
    /// Groups with their hits as pairs, where those are wanted.
    listed: Vec<(QueryGroup, Vec<Listed>)>,
    keep: bool,
}

impl Found {
    /// Takes the results of a group; others have none.
    fn take(&mut self, landed: Option<(Vec<Vec<u32>>, Option<QueryGroup>)>) {
        let Some((read, Some(group))) = landed else { return };
        let first = self.hits.indices.len();
        self.hits.scores.extend(read[0].iter().map(|&key| score_of(key, self.largest)));
        self.hits.indices.extend_from_slice(&read[1]);
        if self.keep {
            let pair = |(at, &document)| ((first + at) as u32, (at / self.width) as u32, document);
            self.listed.push((group, read[1].iter().enumerate().map(pair).collect()));
        }
    }
}

/// Winners of hits, before anything is known of them: query by query, `width` hits each.
fn empty_winners(op: &Retrieve<'_>) -> Result<Argmax> {
    let (width, count) = (op.width(), op.forward.q.count());
    let queries: Vec<u32> = (0..count as u32).flat_map(|i| std::iter::repeat_n(i, width)).collect();
    let documents = vec![0u32; queries.len()];
    let hits = Forward::score_pairs(
        op.forward.q.clone(),
        op.forward.d.clone(),
        queries,
        documents,
        op.forward.options,
    )?;
    Ok(hits.empty_argmax())
}
