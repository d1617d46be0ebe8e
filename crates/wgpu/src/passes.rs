//! Queries that meet documents: passes, each a submission whose buffers are bounded.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use maxsim_core::{Argmax, Cancel, Documents, Error, Forward, Resident, Result, Tokens};
use maxsim_shaders::kernels;

use crate::device::Gpu;
use crate::matmul::{MatmulParams, matmul};
use crate::memory::Buffer;
#[cfg(feature = "plaid")]
use crate::plaid::Index;
use crate::plan::ForwardPlan;
use crate::rows::{Compact, Held, Queries, Shard, query_row_bytes};
use crate::submit::{Batch, Flight, Pending};

/// Bytes of results and scratch of a pass at most; smaller where the device's bindings are.
pub(crate) const PASS: u64 = 64 << 20;

/// Flags of the kernels `forward` and `forward_sum`.
const Q_FACTORS: u32 = 1;
const D_FACTORS: u32 = 2;
const LIST: u32 = 4;
const MAXIMA: u32 = 8;

/// What `forward` leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// Scores: every query lies in one block of rows and every document in one segment.
    Scores,
    /// Maxima per query row and segment, which `forward_sum` adds up.
    Rows,
}

/// Queries of a block at most: an invocation adds one up.
const BLOCK_QUERIES: u32 = 64;

/// Parameters of the kernels `forward`, `forward_coop` and `forward_residual`.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct ForwardParams {
    work: u32,
    blocks: u32,
    q_stride: u32,
    d_stride: u32,
    rows: u32,
    row0: u32,
    query0: u32,
    documents: u32,
    doc0: u32,
    seg0: u32,
    seg_base: u32,
    offsets_at: u32,
    items_at: u32,
    ids_at: u32,
    flags: u32,
    block0: u32,
    dim: u32,
    weights_at: u32,
    table_row0: u32,
    table_stride: u32,
}

/// Parameters of the kernel `forward_sum`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SumParams {
    work: u32,
    flags: u32,
    unused: [u32; 2],
}

/// Parameters of the kernel `plaid_items`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ItemsParams {
    work: u32,
    width: u32,
    first: u32,
    documents: u32,
    blocks_at: u32,
    items_at: u32,
    offsets_at: u32,
    records: u32,
}

/// Documents of an operator on the device: held since an upload, or for this call.
pub(crate) enum Opened {
    Held(Resident),
    Own(Held),
    #[cfg(feature = "plaid")]
    Index(Arc<Index>),
}

impl Opened {
    /// Brings documents to the device if they are not there; the flag says that they have unit length already.
    pub(crate) fn new(gpu: &Gpu, documents: &Documents<'_>) -> Result<(Self, bool)> {
        match documents {
            Documents::Resident(resident) => {
                resident.handle::<Held>()?;
                Ok((Self::Held((*resident).clone()), resident.meta().normalized))
            }
            Documents::Tokens(tokens) => Ok((Self::Own(Held::upload(gpu, tokens, false)?), false)),
            #[cfg(feature = "residual")]
            Documents::Residual(residual) => {
                Ok((Self::Own(Held::upload_residual(gpu, residual, false)?), false))
            }
            _ => Err(Error::Unsupported {
                what: "documents of a new kind on wgpu".into(),
                hint: "use the cpu backend".into(),
            }),
        }
    }

    pub(crate) fn held(&self) -> &Held {
        match self {
            Self::Held(resident) => resident.handle().expect("checked when it was opened"),
            Self::Own(held) => held,
            #[cfg(feature = "plaid")]
            Self::Index(index) => &index.held,
        }
    }
}

/// Consecutive queries on the device, in blocks of rows.
pub(crate) struct QueryGroup {
    pub(crate) queries: Queries,
    /// First of them in the operator.
    first: usize,
    /// Blocks of (first row, rows, first query, queries).
    blocks: Vec<u32>,
    /// First block of every query and the end, where no block is shared (lists).
    first_block: Vec<u32>,
    /// Whether every query lies in one block.
    whole: bool,
    /// Similarities of all rows with all centroids, `[centroids][rows]`, once they were asked for.
    table: Mutex<Option<Buffer>>,
}

/// Query rows of a group whose similarities with centroids are one table.
struct TablePart {
    blocks: Range<u32>,
    rows: Range<u32>,
}

impl QueryGroup {
    fn new(queries: Queries, first: usize, plan: &ForwardPlan) -> Self {
        let bm = plan.block.rows();
        let offsets = &queries.compact.offsets;
        let mut blocks: Vec<u32> = Vec::new();
        let mut first_block = vec![0];
        let mut whole = true;
        for (i, ends) in offsets.windows(2).enumerate() {
            let (start, rows) = (ends[0], ends[1] - ends[0]);
            let last = blocks.len().checked_sub(4);
            match last {
                Some(last)
                    if !plan.list && blocks[last + 1] + rows <= bm && blocks[last + 3] < BLOCK_QUERIES =>
                {
                    blocks[last + 1] += rows;
                    blocks[last + 3] += 1;
                }
                _ => {
                    whole &= rows <= bm;
                    for at in (0..rows.max(1)).step_by(bm as usize) {
                        let here = (rows - at).min(bm);
                        // A block that is not a whole query takes no company.
                        let queries = if rows <= bm { 1 } else { BLOCK_QUERIES };
                        blocks.extend([start + at, here, i as u32, queries]);
                    }
                }
            }
            first_block.push(blocks.len() as u32 / 4);
        }
        Self { queries, first, blocks, first_block, whole, table: Mutex::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.queries.compact.offsets.len() - 1
    }

    fn rows_of(&self, query: usize) -> Range<u32> {
        let offsets = &self.queries.compact.offsets;
        offsets[query]..offsets[query + 1]
    }

    /// Blocks and first rows of queries, in words of what `Job::meta` makes.
    fn words(&self) -> usize {
        self.blocks.len() + self.queries.compact.offsets.len()
    }

    /// Whole blocks whose tables, `bytes` per row, have at most `most` bytes each.
    fn table_parts(&self, bytes: u64, most: u64) -> Vec<TablePart> {
        let mut parts: Vec<TablePart> = Vec::new();
        for (b, block) in (0u32..).zip(self.blocks.chunks_exact(4)) {
            let end = block[0] + block[1];
            match parts.last_mut() {
                Some(part) if u64::from(end - part.rows.start) * bytes <= most => {
                    part.blocks.end = b + 1;
                    part.rows.end = end;
                }
                _ => parts.push(TablePart { blocks: b..b + 1, rows: block[0]..end }),
            }
        }
        parts
    }
}

/// Runs of queries whose rows fit `most` bytes.
fn query_groups(q: &Tokens<'_>, row: usize, most: u64, most_queries: usize) -> Result<Vec<Range<usize>>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for i in 0..q.count() {
        let here = (q.rows(i).len() * row) as u64;
        if here > most {
            return Err(Error::Limit {
                argument: "Q".into(),
                limit: format!("{most} bytes per query on this device"),
                got: here.to_string(),
            });
        }
        match groups.last_mut() {
            Some(group) if bytes + here <= most && group.len() < most_queries => {
                group.end = i + 1;
                bytes += here;
            }
            _ => {
                groups.push(i..i + 1);
                bytes = here;
            }
        }
    }
    Ok(groups)
}

/// Where a pass's results belong.
pub(crate) struct Placed {
    /// Pair of every score, in the order of the device.
    pairs: Pairs,
    /// Rows that count of the queries of the group, for winners.
    compact: Arc<Compact>,
}

enum Pairs {
    /// Queries `q` of the group (`first` before it) with `d`; the group has `rows` rows.
    Cross { first: usize, q: usize, d: Range<usize>, of: usize, rows: usize, by_document: bool },
    /// (pair, query of the group, first winner).
    List(Vec<(u32, u32, u32)>),
}

impl Placed {
    /// Puts the results of a pass where they belong; scores are not looked at if `values` is empty.
    pub(crate) fn place(&self, read: &[Vec<u32>], values: &mut [f32], argmax: Option<&mut Argmax>) {
        if !values.is_empty() {
            self.each(|at, pair, _, _| values[pair] = f32::from_bits(read[0][at]));
        }
        let Some(argmax) = argmax else { return };
        self.each(|_, pair, query, first| {
            let start = argmax.range(pair).start;
            let rows = self.compact.offsets[query] as usize..self.compact.offsets[query + 1] as usize;
            for (r, row) in rows.enumerate() {
                let slot = self.compact.slots.as_ref().map_or(r, |slots| slots[row] as usize);
                argmax.values[start + slot] = read[1][first + r] as i32;
            }
        });
    }

    /// Calls `each` with the place of every score: on the device, pair, query of the group, first winner.
    fn each(&self, mut each: impl FnMut(usize, usize, usize, usize)) {
        match &self.pairs {
            Pairs::Cross { first, q, d, of, rows, by_document } => {
                for i in 0..*q {
                    let row = self.compact.offsets[i] as usize;
                    for (k, j) in d.clone().enumerate() {
                        let winner =
                            if *by_document { k * rows + row } else { row * d.len() + k * self.length(i) };
                        each(i * d.len() + k, (first + i) * of + j, i, winner);
                    }
                }
            }
            Pairs::List(list) => {
                for (at, &(pair, query, winner)) in list.iter().enumerate() {
                    each(at, pair as usize, query as usize, winner as usize);
                }
            }
        }
    }

    fn length(&self, query: usize) -> usize {
        (self.compact.offsets[query + 1] - self.compact.offsets[query]) as usize
    }
}

/// A listed pair: its number, query of the group, document.
pub(crate) type Listed = (u32, u32, u32);

/// Passes that are still to be made of some queries.
struct Part {
    group: QueryGroup,
    /// With what prepares the queries, until it was submitted.
    batch: Option<Batch>,
    compact: Arc<Compact>,
    what: What,
    /// Documents or pairs that were submitted.
    done: usize,
}

enum What {
    /// Every document; blocks on the device once there was a pass.
    Cross(Option<(Buffer, u32)>),
    List(Vec<Listed>),
}

/// The passes of a call, one after the other.
#[derive(Default)]
pub(crate) struct Passes(VecDeque<Part>);

impl Passes {
    /// Of a scoring operator: uploads its queries.
    pub(crate) fn of(job: &Job, op: &Forward<'_>) -> Result<Self> {
        let mut passes = Self::default();
        let groups = job.query_groups(&op.q, usize::MAX)?;
        let mut listed = if job.plan.list { by_group(op, &groups) } else { Vec::new() }.into_iter();
        for range in groups {
            let mut batch = Batch::new(&job.gpu);
            let group = job.upload(&mut batch, &op.q, range)?;
            let what = listed.next().map_or(What::Cross(None), What::List);
            passes.add(group, batch, what);
        }
        Ok(passes)
    }

    /// Adds pairs of queries that are on the device.
    pub(crate) fn add_list(&mut self, job: &Job, group: QueryGroup, listed: Vec<Listed>) {
        let group = QueryGroup::new(group.queries, group.first, &job.plan);
        self.add(group, Batch::new(&job.gpu), What::List(listed));
    }

    fn add(&mut self, group: QueryGroup, batch: Batch, what: What) {
        let compact = Arc::new(group.queries.compact.clone());
        self.0.push_back(Part { group, batch: Some(batch), compact, what, done: 0 });
    }

    /// Submits the next pass.
    pub(crate) fn next(&mut self, job: &Job, cancel: &Cancel) -> Result<Option<(Pending, Placed)>> {
        while let Some(Part { group, batch, compact, what, done }) = self.0.front_mut() {
            let all = if let What::List(listed) = what { listed.len() } else { job.held().count };
            if *done == all {
                self.0.pop_front();
                continue;
            }
            cancel.check()?;
            let batch = batch.take().unwrap_or_else(|| Batch::new(&job.gpu));
            let first = *done;
            let pass = match what {
                What::List(listed) => {
                    *done = job.list_end(group, listed, first);
                    job.list_pass(batch, group, &listed[first..*done], compact)?
                }
                What::Cross(meta) => {
                    *done = job.cross_end(group, first);
                    let meta = match meta {
                        Some(meta) => meta,
                        None => meta.insert(job.cross_meta(group)?),
                    };
                    job.cross_pass(batch, group, meta, first..*done, compact)?
                }
            };
            return Ok(Some(pass));
        }
        Ok(None)
    }

    /// Runs all of them, a few at a time, and puts results where they belong; see [`Placed::place`].
    pub(crate) async fn run(
        mut self,
        job: &Job,
        cancel: &Cancel,
        values: &mut [f32],
        mut argmax: Option<&mut Argmax>,
    ) -> Result<()> {
        let mut flight = Flight::new();
        loop {
            let landed = match self.next(job, cancel)? {
                Some((pending, placed)) => flight.add(pending, placed).await?,
                None => match flight.land().await? {
                    None => return Ok(()),
                    landed => landed,
                },
            };
            if let Some((read, placed)) = landed {
                placed.place(&read, values, argmax.as_deref_mut());
            }
        }
    }
}

/// Pairs of every group of queries.
fn by_group(op: &Forward<'_>, groups: &[Range<usize>]) -> Vec<Vec<Listed>> {
    let mut listed = vec![Vec::new(); groups.len()];
    for p in 0..op.pair_count() {
        let (q, d) = op.pair(p);
        let g = groups.partition_point(|range| range.end <= q);
        listed[g].push((p as u32, (q - groups[g].start) as u32, d as u32));
    }
    listed
}

/// Scores of a pass on the device, and winners if they are wanted.
pub(crate) struct Scored {
    pub(crate) scores: Buffer,
    count: usize,
    winners: Buffer,
    winner_count: usize,
}

/// What all passes of a call share.
pub(crate) struct Job {
    pub(crate) gpu: Arc<Gpu>,
    plan: ForwardPlan,
    opened: Opened,
    dim: usize,
    normalize: bool,
    /// Of documents, by shard.
    factors: Vec<Option<Buffer>>,
    /// Column of the first document in a cross product's result, and how many columns there are.
    pub(crate) columns: (usize, usize),
    /// Rows of a document on average, at least 1.
    mean_rows: u64,
    /// Bytes of any one buffer of a pass.
    pub(crate) most: u64,
    nothing: Buffer,
}

impl Job {
    /// Brings the documents of `op` to the device.
    pub(crate) fn new(gpu: &Arc<Gpu>, op: &Forward<'_>) -> Result<Self> {
        let plan = ForwardPlan::new(op, &gpu.caps)?;
        let (opened, normalized) = Opened::new(gpu, &op.d)?;
        let normalize = op.options.normalize;
        Self::over(gpu, plan, opened, (op.q.dim(), op.d.kept()), [normalize, normalize && !normalized])
    }

    /// Documents that are on the device, of so many dimensions and tokens; whether queries and documents are to be normalised.
    pub(crate) fn over(
        gpu: &Arc<Gpu>,
        plan: ForwardPlan,
        opened: Opened,
        (dim, tokens): (usize, usize),
        [normalize, normalize_documents]: [bool; 2],
    ) -> Result<Self> {
        let held = opened.held();
        let factors = held
            .shards
            .iter()
            .map(|shard| shard.factors(gpu, held, normalize_documents))
            .collect::<Result<_>>()?;
        let mean_rows = tokens.div_ceil(held.count.max(1)).max(1) as u64;
        let most = PASS.min(gpu.caps.max_binding);
        let (gpu, nothing) = (gpu.clone(), gpu.scratch(0)?);
        let columns = (0, held.count);
        Ok(Self { gpu, plan, opened, dim, normalize, factors, columns, mean_rows, most, nothing })
    }

    /// The documents.
    pub(crate) fn held(&self) -> &Held {
        self.opened.held()
    }

    /// The same for a list of pairs of the same operands.
    pub(crate) fn into_list(self, argmax: bool) -> Self {
        Self { plan: ForwardPlan { list: true, argmax, ..self.plan }, ..self }
    }

    /// Runs of queries that fit the device's bindings, at most `most_queries` each.
    pub(crate) fn query_groups(&self, q: &Tokens<'_>, most_queries: usize) -> Result<Vec<Range<usize>>> {
        let row = query_row_bytes(&self.gpu.caps, q.dtype(), self.dim, self.plan.stored_queries());
        query_groups(q, row, self.most.saturating_sub((row * self.gpu.caps.padding()) as u64), most_queries)
    }

    /// Uploads queries `range` of `q`; what prepares them is recorded in `batch`.
    pub(crate) fn upload(
        &self,
        batch: &mut Batch,
        q: &Tokens<'_>,
        range: Range<usize>,
    ) -> Result<QueryGroup> {
        let queries =
            Queries::upload(batch, &q.slice(range.clone()), self.plan.stored_queries(), self.normalize)?;
        Ok(QueryGroup::new(queries, range.start, &self.plan))
    }

    /// Whether scores come from `forward` at once.
    fn finish(&self, group: &QueryGroup) -> Finish {
        if group.whole && self.held().single() { Finish::Scores } else { Finish::Rows }
    }

    /// What kernels are told of a group: blocks, first rows of queries, weights of buckets, then `items`; and where the second and
    /// the last begin.
    fn meta(&self, group: &QueryGroup, items: &[u32]) -> (Vec<u32>, u32, u32) {
        let offsets = &group.queries.compact.offsets;
        let weights = self.held().codec().map_or(&[][..], |codec| &codec.weights);
        let meta = [&group.blocks[..], offsets, bytemuck::cast_slice(weights), items].concat();
        (meta, group.blocks.len() as u32, (group.words() + weights.len()) as u32)
    }

    fn params(&self, group: &QueryGroup) -> ForwardParams {
        ForwardParams {
            blocks: group.blocks.len() as u32 / 4,
            weights_at: group.words() as u32,
            dim: self.dim as u32,
            q_stride: group.queries.stride,
            d_stride: self.held().stride,
            rows: group.queries.compact.rows() as u32,
            ..ForwardParams::default()
        }
    }

    fn factors_of(&self, shard: &Shard) -> Option<&Buffer> {
        let at = self.held().shards.iter().position(|s| std::ptr::eq(s, shard)).expect("one of them");
        self.factors[at].as_ref()
    }

    /// Similarities of all rows of `group` with all centroids of residual documents, `[centroids][rows]`: recorded in `batch`
    /// when it is first asked for. They fit a binding.
    pub(crate) fn table(&self, batch: &mut Batch, group: &QueryGroup) -> Result<Buffer> {
        let mut table = group.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = &*table {
            return Ok(table.clone());
        }
        let rows = 0..group.queries.compact.rows() as u32;
        let made = self.gpu.scratch(self.table_row_bytes() * u64::from(rows.end))?;
        self.fill_table(batch, group, rows, &made)?;
        Ok(table.insert(made).clone())
    }

    /// Bytes of a query row's similarities with all centroids.
    fn table_row_bytes(&self) -> u64 {
        self.held().codec().map_or(0, |codec| 4 * codec.shape.centroids as u64)
    }

    fn fill_table(&self, batch: &mut Batch, group: &QueryGroup, rows: Range<u32>, to: &Buffer) -> Result<()> {
        let codec = self.held().codec().expect("of residual documents");
        let rows_here = rows.end - rows.start;
        let params = MatmulParams {
            m: codec.shape.centroids as u32,
            n: rows_here,
            k: 4 * self.held().stride,
            a_stride: self.held().stride,
            b_stride: group.queries.stride,
            c_stride: rows_here,
            a_start: codec.centroids_at,
            b_start: rows.start * group.queries.stride,
            ..MatmulParams::default()
        };
        matmul(batch, false, params, [&codec.buffer, &group.queries.rows, &self.nothing, to])
    }

    /// Runs the kernel that meets documents over what `params` say; over residual ones once for every table that it takes.
    #[allow(clippy::too_many_arguments, reason = "what the kernel binds")]
    fn dispatch(
        &self,
        batch: &mut Batch,
        group: &QueryGroup,
        shard: &Shard,
        finish: Finish,
        params: ForwardParams,
        meta: &Buffer,
        values: &Buffer,
        winners: &Buffer,
    ) -> Result<()> {
        let factors = self.factors_of(shard);
        let flags = [
            (group.queries.factors.is_some(), Q_FACTORS),
            (factors.is_some(), D_FACTORS),
            (self.plan.list, LIST),
            (finish == Finish::Rows, MAXIMA),
        ];
        let flags = flags.into_iter().map(|(set, flag)| if set { flag } else { 0 }).sum();
        let params = ForwardParams { ids_at: shard.slots_at, flags, ..params };
        let variant = self.plan.variant();
        let buffers = |factors| {
            let q_factors = group.queries.factors.as_ref().unwrap_or(&self.nothing);
            [&group.queries.rows, &shard.rows, meta, &shard.meta, q_factors, factors, values, winners]
        };
        if self.held().codec().is_none() {
            let buffers = buffers(factors.unwrap_or(&self.nothing));
            return batch.dispatch(&variant, &params, &buffers, params.work as usize);
        }
        let bytes = self.table_row_bytes();
        let parts = group.table_parts(bytes, self.most);
        let largest = parts.iter().map(|part| u64::from(part.rows.end - part.rows.start) * bytes).max();
        let whole = parts.len() == 1;
        let table = match largest {
            None => return Ok(()),
            Some(bytes) if bytes > self.gpu.caps.max_binding => {
                return Err(Error::Limit {
                    argument: "centroids".into(),
                    limit: format!("{} bytes of similarities with query tokens", self.gpu.caps.max_binding),
                    got: bytes.to_string(),
                });
            }
            Some(_) if whole => self.table(batch, group)?,
            Some(bytes) => self.gpu.scratch(bytes)?,
        };
        for TablePart { blocks, rows } in parts {
            if !whole {
                self.fill_table(batch, group, rows.clone(), &table)?;
            }
            let here = blocks.end - blocks.start;
            // Every workgroup of a list looks whether it is its turn.
            let work = if self.plan.list { params.work } else { params.work / params.blocks * here };
            let params = ForwardParams {
                work,
                blocks: here,
                block0: blocks.start,
                table_row0: rows.start,
                table_stride: rows.end - rows.start,
                ..params
            };
            batch.dispatch(&variant, &params, &buffers(&table), work as usize)?;
        }
        Ok(())
    }

    /// Sums of maxima. `pairs`: eight words each, as the kernel `forward_sum` wants them.
    fn sum(
        &self,
        batch: &mut Batch,
        group: &QueryGroup,
        pairs: &[u32],
        [maxima, indices]: [&Buffer; 2],
        winner_count: usize,
    ) -> Result<Scored> {
        let count = pairs.len() / 8;
        let records = self.gpu.scratch_with(bytemuck::cast_slice(pairs))?;
        let scores = self.gpu.scratch(4 * count as u64)?;
        let winners = self.gpu.scratch(if self.plan.argmax { 4 * winner_count as u64 } else { 0 })?;
        let params = SumParams {
            work: count as u32,
            flags: if group.queries.factors.is_some() { Q_FACTORS } else { 0 },
            unused: [0; 2],
        };
        let factors = group.queries.factors.as_ref().unwrap_or(&self.nothing);
        let buffers = [&records, maxima, indices, factors, &scores, &winners];
        batch.dispatch(&kernels::forward_sum(self.plan.argmax), &params, &buffers, count)?;
        Ok(Scored { scores, count, winners, winner_count })
    }

    /// Blocks of `group` on the device, as a cross product wants them, and where first rows begin.
    pub(crate) fn cross_meta(&self, group: &QueryGroup) -> Result<(Buffer, u32)> {
        let (meta, offsets_at, _) = self.meta(group, &[]);
        Ok((self.gpu.scratch_with(bytemuck::cast_slice(&meta))?, offsets_at))
    }

    /// Records in `batch` the scores of every query of `group` with documents `d`: `[queries, documents]`.
    pub(crate) fn cross_scores(
        &self,
        batch: &mut Batch,
        group: &QueryGroup,
        (meta, offsets_at): &(Buffer, u32),
        d: Range<usize>,
    ) -> Result<Scored> {
        let held = self.held();
        let finish = self.finish(group);
        let (q, rows) = (group.count(), group.queries.compact.rows());
        let segments = held.segments(d.clone());
        let per = if finish == Finish::Scores { d.len() } else { segments.len() };
        let maxima_bytes = 4 * (rows * per) as u64;
        let winners = self.gpu.scratch(if self.plan.argmax { maxima_bytes } else { 0 })?;
        let scores_bytes = 4 * (q * d.len()) as u64;
        let values = self.gpu.scratch(if finish == Finish::Scores { scores_bytes } else { maxima_bytes })?;
        for (shard, here) in held.by_shard(segments.clone()) {
            let params = ForwardParams {
                work: group.blocks.len() as u32 / 4 * here.len() as u32,
                documents: d.len() as u32,
                doc0: d.start as u32,
                seg0: here.start as u32,
                seg_base: (shard.first_segment + here.start - segments.start) as u32,
                offsets_at: *offsets_at,
                ..self.params(group)
            };
            self.dispatch(batch, group, shard, finish, params, meta, &values, &winners)?;
        }
        if finish == Finish::Scores {
            return Ok(Scored { scores: values, count: q * d.len(), winners, winner_count: rows * per });
        }
        let mut pairs = Vec::with_capacity(8 * q * d.len());
        for i in 0..q {
            let r = group.rows_of(i);
            for (k, j) in d.clone().enumerate() {
                let s = held.segments(j..j + 1);
                let base = (s.start - segments.start) * rows + r.start as usize;
                let winner = r.start as usize * d.len() + k * r.len();
                let place = i * d.len() + k;
                pairs.extend([base, rows, s.len()].map(|x| x as u32));
                pairs.extend([r.start, r.len() as u32, place as u32, winner as u32, 0]);
            }
        }
        self.sum(batch, group, &pairs, [&values, &winners], rows * d.len())
    }

    /// Submits the scores of every query of `group` with documents `d`.
    fn cross_pass(
        &self,
        mut batch: Batch,
        group: &QueryGroup,
        meta: &(Buffer, u32),
        d: Range<usize>,
        compact: &Arc<Compact>,
    ) -> Result<(Pending, Placed)> {
        let scored = self.cross_scores(&mut batch, group, meta, d.clone())?;
        self.read(&mut batch, &scored);
        let pairs = Pairs::Cross {
            first: group.first,
            q: group.count(),
            d: self.columns.0 + d.start..self.columns.0 + d.end,
            of: self.columns.1,
            rows: group.queries.compact.rows(),
            by_document: self.finish(group) == Finish::Scores,
        };
        Ok((batch.submit()?, Placed { pairs, compact: compact.clone() }))
    }

    /// Asks for scores, and winners if they are wanted.
    fn read(&self, batch: &mut Batch, scored: &Scored) {
        batch.read(&scored.scores, 4 * scored.count as u64);
        if self.plan.argmax {
            batch.read(&scored.winners, 4 * scored.winner_count as u64);
        }
    }

    /// The last document, exclusive, of a pass that begins with `d0`.
    pub(crate) fn cross_end(&self, group: &QueryGroup, d0: usize) -> usize {
        let finish = self.finish(group);
        let (q, rows) = (group.count() as u64, group.queries.compact.rows() as u64);
        let dim = self.dim as u64;
        let mut d1 = d0;
        let mut segments = 0u64;
        while d1 < self.held().count {
            segments += self.held().segments(d1..d1 + 1).len() as u64;
            let documents = (d1 + 1 - d0) as u64;
            let words = match finish {
                Finish::Scores => (q * documents).max(if self.plan.argmax { rows * documents } else { 0 }),
                Finish::Rows => (rows * segments).max(8 * q * documents),
            };
            let work = rows * dim * documents * self.mean_rows;
            if d1 > d0 && (4 * words > self.most || work > self.gpu.caps.max_work) {
                break;
            }
            d1 += 1;
        }
        d1
    }

    /// The last of `listed`, exclusive, of a pass that begins with `start`.
    fn list_end(&self, group: &QueryGroup, listed: &[Listed], start: usize) -> usize {
        let (mut words, mut items, mut work) = (0u64, 0u64, 0u64);
        let most = self.most / 4;
        for (n, &(_, q, d)) in listed[start..].iter().enumerate() {
            let rows = group.rows_of(q as usize).len() as u64;
            let segments = self.held().segments(d as usize..d as usize + 1).len() as u64;
            let blocks = u64::from(group.first_block[q as usize + 1] - group.first_block[q as usize]);
            words += rows * segments;
            items += 4 * blocks * segments + 8;
            work += rows * self.mean_rows * self.dim as u64;
            let weights = self.held().codec().map_or(0, |codec| codec.weights.len());
            let meta = (group.words() + weights) as u64;
            if n > 0 && (words > most || items + meta > most || work > self.gpu.caps.max_work) {
                return start + n;
            }
        }
        listed.len()
    }

    fn list_pass(
        &self,
        mut batch: Batch,
        group: &QueryGroup,
        listed: &[Listed],
        compact: &Arc<Compact>,
    ) -> Result<(Pending, Placed)> {
        let finish = self.finish(group);
        // Four words per workgroup, by shard.
        let mut items: Vec<Vec<u32>> = vec![Vec::new(); self.held().shards.len()];
        let mut records: Vec<u32> = Vec::new();
        let mut placed = Vec::with_capacity(listed.len());
        let (mut maxima, mut winners) = (0u32, 0u32);
        for (place, &(pair, q, d)) in listed.iter().enumerate() {
            let rows = group.rows_of(q as usize);
            let segments = self.held().segments(d as usize..d as usize + 1);
            records.extend([maxima, rows.len() as u32, segments.len() as u32, rows.start]);
            records.extend([rows.len() as u32, place as u32, winners, 0]);
            placed.push((pair, q, winners));
            winners += rows.len() as u32;
            for s in segments {
                let at = self.held().shards.partition_point(|shard| shard.first_segment <= s) - 1;
                for block in group.first_block[q as usize]..group.first_block[q as usize + 1] {
                    let row = group.blocks[4 * block as usize] - rows.start;
                    let segment = (s - self.held().shards[at].first_segment) as u32;
                    items[at].extend([block, segment, place as u32, maxima + row]);
                }
                maxima += rows.len() as u32;
            }
        }
        let (meta, offsets_at, items_at) = self.meta(group, &items.concat());
        let meta = self.gpu.scratch_with(bytemuck::cast_slice(&meta))?;
        let words = if finish == Finish::Scores { listed.len() } else { maxima as usize };
        let values = self.gpu.scratch(4 * words as u64)?;
        let indices = self.gpu.scratch(if self.plan.argmax { 4 * u64::from(maxima) } else { 0 })?;
        let mut at = items_at;
        for (shard, items) in self.held().shards.iter().zip(&items) {
            let work = items.len() as u32 / 4;
            let params = ForwardParams { work, offsets_at, items_at: at, ..self.params(group) };
            self.dispatch(&mut batch, group, shard, finish, params, &meta, &values, &indices)?;
            at += items.len() as u32;
        }
        let scored = match finish {
            Finish::Scores => Scored {
                scores: values,
                count: listed.len(),
                winners: indices,
                winner_count: maxima as usize,
            },
            Finish::Rows => self.sum(&mut batch, group, &records, [&values, &indices], winners as usize)?,
        };
        self.read(&mut batch, &scored);
        Ok((batch.submit()?, Placed { pairs: Pairs::List(placed), compact: compact.clone() }))
    }

    /// Words of a query's pairs when `width` documents are chosen for it.
    pub(crate) fn chosen_words(&self, rows: usize, width: usize) -> usize {
        let blocks = rows.div_ceil(self.plan.block.rows() as usize).max(1);
        width * (4 * blocks * self.held().shards.len()).max(8).max(rows)
    }

    /// Records in `batch` the scores of documents that a selection on the device left: `width` for every query of `group`, where
    /// keys are not ABSENT. `[queries, width]`; what is absent has no score.
    pub(crate) fn chosen(
        &self,
        batch: &mut Batch,
        group: &QueryGroup,
        [keys, documents]: [&Buffer; 2],
        width: usize,
    ) -> Result<Buffer> {
        let (held, finish) = (self.held(), self.finish(group));
        let work = group.count() * width;
        let (head, offsets_at, blocks_at) = self.meta(group, &group.first_block);
        let items = width * group.blocks.len() / 4;
        let items_at = head.len();
        let meta = self.gpu.scratch(4 * (items_at + 4 * items * held.shards.len()) as u64)?;
        self.gpu.queue.write_buffer(meta.raw(), 0, bytemuck::cast_slice(&head));
        let maxima = if finish == Finish::Rows { width * group.queries.compact.rows() } else { 0 };
        let records = self.gpu.scratch(if finish == Finish::Rows { 32 * work as u64 } else { 0 })?;
        let scores = self.gpu.scratch(4 * work as u64)?;
        let winners = self.gpu.scratch(0)?;
        let values =
            if finish == Finish::Rows { self.gpu.scratch(4 * maxima as u64)? } else { scores.clone() };
        let mut first = 0;
        for (s, shard) in held.shards.iter().enumerate() {
            let end = held.shards.get(s + 1).map_or(held.count, |next| next.first_segment);
            let at = (items_at + 4 * items * s) as u32;
            let params = ItemsParams {
                work: work as u32,
                width: width as u32,
                first: first as u32,
                documents: (end - first) as u32,
                blocks_at,
                items_at: at,
                offsets_at,
                records: (finish == Finish::Rows).into(),
            };
            first = end;
            let buffers = [keys, documents, &meta, &records];
            batch.dispatch(&kernels::only(&kernels::PLAID_ITEMS), &params, &buffers, work.div_ceil(64))?;
            let params = ForwardParams { work: items as u32, offsets_at, items_at: at, ..self.params(group) };
            self.dispatch(batch, group, shard, finish, params, &meta, &values, &winners)?;
        }
        if finish == Finish::Rows {
            let flags = if group.queries.factors.is_some() { Q_FACTORS } else { 0 };
            let params = SumParams { work: work as u32, flags, unused: [0; 2] };
            let factors = group.queries.factors.as_ref().unwrap_or(&self.nothing);
            let buffers = [&records, &values, &self.nothing, factors, &scores, &winners];
            batch.dispatch(&kernels::forward_sum(false), &params, &buffers, work)?;
        }
        Ok(scores)
    }
}
