//! The scoring operator: which query rows share a tile, and which documents each tile meets.

use std::ops::Range;

use maxsim_core::{Forward, Pairing, Precision, Result, Tokens};

use crate::config::{self, Kind, Problem, Scorer, Stored, TileConfig, Use};
use crate::context::{Context, WORKSPACE};
use crate::device::TensorMap;
use crate::memory::{Buffer, address};
use crate::operands::{FACTORS_ALIGN, Held, Packing, Queries};
use crate::params::{ForwardParams, Job, Piece, Slot, SumParams, WarpgroupParams};

/// Rows whose maxima are added up as one tree.
const BLOCK: u32 = 32;
/// Rows that slots begin at multiples of.
const SLOT_ALIGN: u32 = 8;

/// Where the winners of a pair are: its query's token `s` in document `j` at `base + j · stride + s`.
#[derive(Debug, Clone, Copy, Default)]
struct Winners {
    base: i64,
    stride: i64,
}

/// A query and what it is scored with.
#[derive(Debug, Clone)]
struct Work {
    query: u32,
    documents: Range<u32>,
    /// Score of document `j` at `score + j`.
    score: i64,
    winners: Winners,
}

/// Scores to compute.
#[derive(Clone)]
pub(crate) struct Scoring<'a> {
    pub(crate) q: &'a Tokens<'a>,
    /// Where the queries' elements are, if on the device.
    pub(crate) q_address: Option<u64>,
    pub(crate) held: &'a Held,
    pub(crate) pairing: &'a Pairing<'a>,
    /// Documents that take part, of a cross product.
    pub(crate) documents: Range<u32>,
    /// Row length of a cross product's scores, and the place of document 0 in a row.
    pub(crate) columns: usize,
    pub(crate) column: i64,
    /// Winners are counted in packed rows, of queries and of documents, and lie behind one another as `Geometry` has it.
    pub(crate) packed_winners: bool,
    pub(crate) normalize_q: bool,
    pub(crate) normalize_d: bool,
    pub(crate) precision: Precision,
}

impl<'a> Scoring<'a> {
    pub(crate) fn of(op: &'a Forward<'a>, held: &'a Held) -> Self {
        Self {
            q: &op.q,
            q_address: None,
            held,
            pairing: &op.pairing,
            documents: 0..held.count(),
            columns: held.count() as usize,
            column: 0,
            packed_winners: false,
            normalize_q: op.options.normalize,
            normalize_d: op.options.normalize,
            precision: op.options.precision,
        }
    }

    pub(crate) fn product(&self, context: &Context) -> Kind {
        config::product(context.caps().arch.path, self.q.dtype(), self.held.stored, self.precision)
    }

    /// Queries of the group and their documents. `argmax`: first winner of every pair.
    fn work(
        &self,
        packing: &Packing,
        group: &Range<u32>,
        argmax: Option<&dyn Fn(usize) -> usize>,
    ) -> Vec<Work> {
        let extent = |query: u32| match self.packed_winners {
            true => i64::from(packing.rows_of(query)),
            false => self.q.extent(query as usize) as i64,
        };
        // Pairs of one query with documents that follow each other follow each other too.
        let winners = |query: u32, pair: usize, j: u32| match argmax {
            Some(first) => {
                let stride = extent(query);
                Winners { base: first(pair) as i64 - i64::from(j) * stride, stride }
            }
            None => Winners::default(),
        };
        match self.pairing {
            Pairing::Cross => {
                let of = |query: u32| {
                    let score = (query as usize * self.columns) as i64 + self.column;
                    let first = self.documents.start;
                    let pair = (score + i64::from(first)) as usize;
                    Work {
                        query,
                        documents: self.documents.clone(),
                        score,
                        winners: winners(query, pair, first),
                    }
                };
                if self.documents.is_empty() { vec![] } else { group.clone().map(of).collect() }
            }
            Pairing::Grouped { k } => {
                let k = *k as u32;
                let of = |query: u32| {
                    let documents = query * k..(query + 1) * k;
                    let winners = winners(query, documents.start as usize, documents.start);
                    Work { query, documents, score: 0, winners }
                };
                if k == 0 { vec![] } else { group.clone().map(of).collect() }
            }
            Pairing::List { q, d } => (0..q.len())
                .filter(|&pair| group.contains(&q[pair]))
                .map(|pair| Work {
                    query: q[pair],
                    documents: d[pair]..d[pair] + 1,
                    score: pair as i64 - i64::from(d[pair]),
                    winners: winners(q[pair], pair, d[pair]),
                })
                .collect(),
        }
    }
}

/// Query rows in tiles, and who meets whom.
#[derive(Default)]
struct Layout {
    slots: Vec<Slot>,
    starts: Vec<u32>,
    tiles: Vec<u32>,
    jobs: Jobs,
    filled: u32,
}

/// Which tile meets which documents.
#[derive(Default)]
pub(crate) enum Jobs {
    /// All tiles the same documents.
    #[default]
    Product,
    Listed(Vec<Job>),
    /// A list that is on the device, and its length.
    Made(Buffer, u32),
}

impl Layout {
    fn new() -> Self {
        Self::of(0)
    }

    /// One with room for so many slots.
    fn of(slots: usize) -> Self {
        let mut tiles = Vec::with_capacity(slots + 1);
        tiles.push(0);
        Self { slots: Vec::with_capacity(slots), starts: Vec::with_capacity(slots), tiles, ..Self::default() }
    }

    fn close_tile(&mut self) {
        if self.filled > 0 {
            self.tiles.push(self.slots.len() as u32);
            self.filled = 0;
        }
    }

    fn tile_count(&self) -> u32 {
        self.tiles.len() as u32 - 1
    }

    /// Puts a query's rows into tiles of `height` rows; one that does not fit into the open tile begins the next.
    fn place(&mut self, packing: &Packing, work: &Work, partial: i64, height: u32) {
        let start = packing.offsets[work.query as usize];
        let rows = packing.offsets[work.query as usize + 1] - start;
        if self.filled + rows.min(height) > height {
            self.close_tile();
        }
        let mut row = 0;
        while row < rows {
            let here = (rows - row).min(height);
            self.slots.push(Slot {
                row: start + row,
                rows: here,
                tile_row: self.filled,
                block: row / BLOCK,
                score: work.score,
                partial,
                argmax: work.winners.base,
                argmax_stride: work.winners.stride,
            });
            self.starts.push(start);
            self.filled += here.next_multiple_of(SLOT_ALIGN);
            row += here;
            if self.filled >= height {
                self.close_tile();
            }
        }
    }
}

/// Whether some query might have no row that counts.
pub(crate) fn may_be_empty(q: &Tokens<'_>) -> bool {
    q.mask().is_some() || (0..q.count()).any(|i| q.rows(i).is_empty())
}

/// Computes scores into `scores`, and winners into the buffer of `argmax`, whose function says where a pair's begin.
///
/// Queries without a row and rows without a winner are left out: `scores` has to hold 0 where [`may_be_empty`] says so, and
/// `argmax` −1 everywhere.
pub(crate) fn score(
    context: &Context,
    scoring: &Scoring<'_>,
    scores: &Buffer,
    argmax: Option<(&Buffer, &dyn Fn(usize) -> usize)>,
) -> Result<()> {
    let held = scoring.held;
    let product = scoring.product(context);
    let d_factors = held.factors(context, scoring.normalize_d)?;
    let problem = Problem {
        product,
        stored: held.stored,
        dim: held.dim,
        rows: 0,
        listed: !matches!(scoring.pairing, Pairing::Cross),
        scaled: d_factors.is_some(),
        precision: scoring.precision,
        purpose: Use::Scores { argmax: argmax.is_some() },
    };
    // What queries look like does not depend on the size of the tile.
    let permuted = TileConfig::choose(context.caps(), &problem).permuted();
    let queries = Queries::of(context, scoring.q, scoring.q_address, product, permuted, scoring.normalize_q)?;
    let exact = exact_queries(context, scoring, product)?;
    let d_factors = address(d_factors.as_deref());
    let shared = Shared { context, scoring, queries: &queries, exact: exact.as_ref(), d_factors, scores };
    let groups = match &held.residual {
        None => std::iter::once(0..scoring.q.count() as u32).collect(),
        Some(residual) => shared.groups(WORKSPACE / 4 / residual.centroid_count.max(1) as usize, usize::MAX),
    };
    for group in groups {
        let table = held.residual.as_ref().map(|_| shared.table(&group)).transpose()?;
        shared.run(&problem, &group, table.as_ref(), argmax)?;
    }
    Ok(())
}

/// Queries in f32, for the table of residual documents, where they are multiplied as something else.
pub(crate) fn exact_queries(
    context: &Context,
    scoring: &Scoring<'_>,
    product: Kind,
) -> Result<Option<Queries>> {
    let wanted = scoring.held.residual.is_some() && product != Kind::F32;
    wanted.then(|| Queries::of(context, scoring.q, scoring.q_address, Kind::F32, false, false)).transpose()
}

/// What all launches of a scoring have in common.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) context: &'a Context,
    pub(crate) scoring: &'a Scoring<'a>,
    pub(crate) queries: &'a Queries,
    /// The same in f32 where they are multiplied as something else.
    pub(crate) exact: Option<&'a Queries>,
    pub(crate) d_factors: u64,
    pub(crate) scores: &'a Buffer,
}

/// Similarities of a group of query rows with all centroids: f32 `[centroids, stride]`.
pub(crate) struct Table {
    pub(crate) values: Buffer,
    pub(crate) stride: u32,
    pub(crate) first_row: u32,
}

/// Where query rows lie, for those who list what meets them.
pub(crate) struct Tiles<'a> {
    /// Query of every tile, counted from the group's first: the only one where queries lie apart, else the last.
    pub(crate) owners: &'a [u32],
    /// Document rows of a product.
    pub(crate) columns: u32,
    /// Jobs that run at a time.
    pub(crate) workers: u32,
}

impl Shared<'_> {
    pub(crate) fn rows_of(&self, queries: &Range<u32>) -> u32 {
        let offsets = &self.queries.packing.offsets;
        offsets[queries.end as usize] - offsets[queries.start as usize]
    }

    /// Queries in groups of at most so many rows and queries, at least one.
    pub(crate) fn groups(&self, rows: usize, queries: usize) -> Vec<Range<u32>> {
        let count = self.scoring.q.count() as u32;
        let mut groups: Vec<Range<u32>> = Vec::new();
        for query in 0..count {
            match groups.last_mut() {
                Some(group)
                    if self.rows_of(&(group.start..query + 1)) as usize <= rows && group.len() < queries =>
                {
                    group.end = query + 1;
                }
                _ => groups.push(query..query + 1),
            }
        }
        groups
    }

    pub(crate) fn table(&self, group: &Range<u32>) -> Result<Table> {
        let residual = self.scoring.held.residual.as_ref().expect("residual documents");
        // Rows are read 16 bytes at a time, and the last one's end is read over by less than a tile.
        let stride = self.rows_of(group).max(1).next_multiple_of(4);
        let rows = residual.centroid_count as usize * stride as usize;
        let values = self.context.pool.buffer((rows + 32) * 4)?;
        let exact = self.exact.unwrap_or(self.queries);
        let first_row = exact.packing.offsets[group.start as usize];
        let projection = Projection {
            q: &exact.rows,
            q_stride: exact.stride,
            q_rows: first_row..first_row + self.rows_of(group),
            d: residual.table_rows.address(),
            d_stride: residual.table_stride,
            d_rows: residual.centroid_count,
            product: Kind::F32,
            stored: Kind::F32,
            dim: self.scoring.held.dim,
            bias: None,
        };
        project(self.context, &projection, &values, stride)?;
        Ok(Table { values, stride, first_row })
    }

    /// A group's scores `[queries, width]` of documents that `jobs` lists, its slots counting documents by their place in that
    /// list. Queries that lie `apart` share no tile.
    pub(crate) fn listed(
        &self,
        problem: &Problem,
        group: &Range<u32>,
        table: &Table,
        width: usize,
        apart: bool,
        jobs: impl FnOnce(Tiles<'_>) -> Result<Jobs>,
    ) -> Result<()> {
        let packing = &self.queries.packing;
        let rows = group.clone().map(|query| packing.rows_of(query).next_multiple_of(SLOT_ALIGN));
        let together = if apart { rows.max().unwrap_or(0) } else { rows.fold(0, u32::saturating_add) };
        let config = Scorer::choose(self.context.caps(), &Problem { rows: together, ..*problem });
        let mut layout = Layout::new();
        let mut owners = Vec::new();
        for (i, query) in (0u32..).zip(group.clone()) {
            let first = i64::from(i) * width as i64;
            let work = Work { query, documents: 0..0, score: first, winners: Winners::default() };
            layout.place(packing, &work, first, config.rows());
            if apart {
                layout.close_tile();
            }
            owners.resize(layout.tile_count() as usize, i);
        }
        layout.close_tile();
        owners.resize(layout.tile_count() as usize, group.len() as u32 - 1);
        if owners.is_empty() {
            return Ok(());
        }
        let caps = self.context.caps();
        let workers = caps.processors * config.blocks(caps) * config.jobs();
        layout.jobs = jobs(Tiles { owners: &owners, columns: config.columns(), workers })?;
        let stride = self.sums_stride(group, &config);
        let launcher = Launcher { shared: self, config: &config, table: Some(table), argmax: None, stride };
        launcher.launch(&layout, &(0..0), group.len() * width, |partials| SumParams {
            partials,
            score_stride: width as i64,
            documents: width as u32,
            first_query: group.start,
            ..SumParams::default()
        })
    }

    /// Blocks of 32 rows of a group's longest query, if it does not fit into a tile; else 0.
    fn sums_stride(&self, group: &Range<u32>, config: &Scorer) -> u32 {
        let longest = group.clone().map(|q| self.queries.packing.rows_of(q)).max().unwrap_or(0);
        if longest > config.rows() { longest.div_ceil(BLOCK) } else { 0 }
    }

    fn run(
        &self,
        problem: &Problem,
        group: &Range<u32>,
        table: Option<&Table>,
        argmax: Option<(&Buffer, &dyn Fn(usize) -> usize)>,
    ) -> Result<()> {
        let scoring = self.scoring;
        let work = scoring.work(&self.queries.packing, group, argmax.map(|(_, first)| first));
        let rows = |work: &Work| self.queries.packing.rows_of(work.query).next_multiple_of(SLOT_ALIGN);
        let cross = matches!(scoring.pairing, Pairing::Cross);
        let together = match scoring.pairing {
            Pairing::Cross => work.iter().map(rows).fold(0, u32::saturating_add),
            Pairing::Grouped { .. } => work.iter().map(rows).max().unwrap_or(0),
            Pairing::List { .. } => {
                let documents = scoring.held.count().max(1) as usize;
                let mean = work.iter().map(rows).fold(0, u32::saturating_add) as usize
                    / documents.min(work.len().max(1));
                (mean as u32).max(work.iter().map(rows).max().unwrap_or(0))
            }
        };
        let config = Scorer::choose(self.context.caps(), &Problem { rows: together, ..*problem });
        let stride = self.sums_stride(group, &config);
        // Sums of blocks are kept for as many pairs as the workspace holds.
        let most = if stride == 0 { usize::MAX } else { (WORKSPACE / 4 / stride as usize).max(1) };
        let launch = Launcher { shared: self, config: &config, table, argmax: argmax.map(|a| a.0), stride };
        if cross {
            let width = (most / work.len().max(1)).clamp(1, u32::MAX as usize) as u32;
            let mut first = scoring.documents.start;
            while first < scoring.documents.end {
                let documents = first..scoring.documents.end.min(first.saturating_add(width));
                launch.cross(&work, &documents)?;
                first = documents.end;
            }
        } else {
            for work in pieces(work, most) {
                launch.listed(&work)?;
            }
        }
        Ok(())
    }
}

/// Runs of work of at most `most` pairs; what is longer alone is cut.
fn pieces(work: Vec<Work>, most: usize) -> Vec<Vec<Work>> {
    if work.iter().map(|work| work.documents.len()).sum::<usize>() <= most {
        return vec![work];
    }
    let mut pieces: Vec<Vec<Work>> = Vec::new();
    let mut room = 0;
    for work in &work {
        let mut documents = work.documents.clone();
        while !documents.is_empty() {
            if room == 0 {
                pieces.push(Vec::new());
                room = most;
            }
            let here = documents.len().min(room) as u32;
            let part = documents.start..documents.start + here;
            documents.start += here;
            room -= here as usize;
            pieces.last_mut().expect("just made").push(Work { documents: part, ..work.clone() });
        }
    }
    pieces
}

/// The order of work by its first document, stable. Counts instead of comparing: lists are long and hosts are waited for.
fn by_documents(work: &[Work]) -> Vec<u32> {
    let first = |w: u32| work[w as usize].documents.start as usize;
    let all = 0..work.len() as u32;
    if work.is_sorted_by_key(|work| work.documents.start) {
        return all.collect();
    }
    let documents = all.clone().map(first).max().map_or(0, |last| last + 1);
    let mut places = vec![0u32; documents + 1];
    for w in all.clone() {
        places[first(w) + 1] += 1;
    }
    for j in 0..documents {
        places[j + 1] += places[j];
    }
    let mut order = vec![0; work.len()];
    for w in all {
        let place = &mut places[first(w)];
        order[*place as usize] = w;
        *place += 1;
    }
    order
}

/// Launches tiles of one configuration.
struct Launcher<'a> {
    shared: &'a Shared<'a>,
    config: &'a Scorer,
    table: Option<&'a Table>,
    argmax: Option<&'a Buffer>,
    /// Blocks of 32 rows of the longest query, where queries do not fit into tiles; else 0.
    stride: u32,
}

impl Launcher<'_> {
    /// All of `work` with `documents`.
    fn cross(&self, work: &[Work], documents: &Range<u32>) -> Result<()> {
        let packing = &self.shared.queries.packing;
        let mut layout = Layout::new();
        for (i, work) in work.iter().enumerate() {
            let partial = (i * documents.len()) as i64 - i64::from(documents.start);
            layout.place(packing, work, partial, self.config.rows());
        }
        layout.close_tile();
        let pairs = work.len() * documents.len();
        self.launch(&layout, documents, pairs, |partials| SumParams {
            partials,
            first_score: work.first().map_or(0, |w| w.score + i64::from(documents.start)),
            score_stride: self.shared.scoring.columns as i64,
            documents: documents.len() as u32,
            first_query: work.first().map_or(0, |w| w.query),
            ..SumParams::default()
        })
    }

    /// Every query with its own documents. Queries of the same document share tiles.
    fn listed(&self, work: &[Work]) -> Result<()> {
        let packing = &self.shared.queries.packing;
        let mut layout = Layout::of(work.len());
        let mut firsts = Vec::with_capacity(work.len());
        let mut pairs = 0usize;
        for work in work {
            firsts.push(pairs as i64);
            pairs += work.documents.len();
        }
        let most = self.job_rows(work);
        let mut jobs = Vec::with_capacity(work.len());
        let order = by_documents(work);
        let mut at = 0;
        while at < order.len() {
            let documents = work[order[at] as usize].documents.clone();
            let same = order[at..].iter().take_while(|&&w| work[w as usize].documents == documents).count();
            let first_tile = layout.tile_count();
            for w in order[at..at + same].iter().map(|&w| w as usize) {
                let partial = firsts[w] - i64::from(documents.start);
                layout.place(packing, &work[w], partial, self.config.rows());
            }
            layout.close_tile();
            for tile in first_tile..layout.tile_count() {
                self.cut(&documents, most, |part| {
                    jobs.push(Job { tile, document_begin: part.start, document_end: part.end, shift: 0 });
                });
            }
            at += same;
        }
        layout.jobs = Jobs::Listed(jobs);
        let each = |of: &dyn Fn(&Work, u32) -> u32| -> Vec<u32> {
            work.iter().flat_map(|w| w.documents.clone().map(move |j| of(w, j))).collect()
        };
        let sums = if self.stride > 0 {
            let context = self.shared.context;
            let targets = each(&|w, j| (w.score + i64::from(j)) as u32);
            Some((context.table(&each(&|w, _| w.query))?, context.table(&targets)?))
        } else {
            None
        };
        self.launch(&layout, &(0..0), pairs, |partials| SumParams {
            partials,
            queries: address(sums.as_ref().map(|s| &*s.0)),
            targets: address(sums.as_ref().map(|s| &*s.1)),
            documents: u32::MAX,
            ..SumParams::default()
        })
    }

    /// Jobs as the warpgroup kernel takes them.
    fn pieces(&self, jobs: &[Job]) -> Vec<Piece> {
        let offsets = &self.shared.scoring.held.packing.offsets;
        let piece = |job: &Job| {
            let row = offsets[job.document_begin as usize];
            Piece {
                tile: job.tile,
                row: row - row % FACTORS_ALIGN,
                row_end: offsets[job.document_end as usize],
                document: job.document_begin,
                document_end: job.document_end,
                ..Piece::default()
            }
        };
        jobs.iter().map(piece).collect()
    }

    /// Document rows of a job, so that the jobs of all queries together are about as many as run at a time, or a multiple.
    fn job_rows(&self, work: &[Work]) -> u32 {
        let caps = self.shared.context.caps();
        let offsets = &self.shared.scoring.held.packing.offsets;
        let rows =
            |work: &Work| offsets[work.documents.end as usize] - offsets[work.documents.start as usize];
        let longest = work.iter().map(rows).max().unwrap_or(0);
        // Blocks that take the next job that is left are all busy to the end where there are several for each.
        let each = if let Scorer::Warpgroup(_) = self.config { 4 } else { 1 };
        let workers = (each * caps.processors * self.config.blocks(caps) * self.config.jobs()) as usize;
        let pieces = work.len().div_ceil(workers).max(1) * workers / work.len().max(1);
        longest.div_ceil(pieces.clamp(1, u32::MAX as usize) as u32).max(each * self.config.columns())
    }

    /// Cuts the documents of one query into jobs of about `most` rows.
    fn cut(&self, documents: &Range<u32>, most: u32, mut job: impl FnMut(Range<u32>)) {
        let offsets = &self.shared.scoring.held.packing.offsets;
        let mut first = documents.start;
        for j in documents.clone() {
            if offsets[j as usize + 1] - offsets[first as usize] > most && j > first {
                job(first..j);
                first = j;
            }
        }
        job(first..documents.end);
    }

    fn launch(
        &self,
        layout: &Layout,
        documents: &Range<u32>,
        pairs: usize,
        sums: impl FnOnce(u64) -> SumParams,
    ) -> Result<()> {
        let Shared { context, scoring, queries, d_factors, scores, .. } = *self.shared;
        let (pool, held, config) = (&context.pool, scoring.held, self.config);
        if layout.tile_count() == 0 || pairs == 0 {
            return Ok(());
        }
        let argmax = self.argmax.is_some();
        let single = layout.slots.len() == 1 && matches!(config, Scorer::Warpgroup(_));
        let slots = match single {
            true => None,
            false => Some((context.table(&layout.slots)?, context.table(&layout.tiles)?)),
        };
        let starts = if argmax { Some(context.table(&layout.starts)?) } else { None };
        let uploaded = match &layout.jobs {
            Jobs::Listed(jobs) => {
                let list = match config {
                    Scorer::Warpgroup(_) => context.table(&self.pieces(jobs))?,
                    _ => context.table(jobs)?,
                };
                Some((list, jobs.len() as u32))
            }
            _ => None,
        };
        let job_list = match &layout.jobs {
            Jobs::Product => None,
            Jobs::Listed(_) => uploaded.as_ref().map(|(list, count)| (&**list, *count)),
            Jobs::Made(list, count) => Some((list, *count)),
        };
        let partials =
            if self.stride > 0 { Some(pool.buffer(pairs * self.stride as usize * 4)?) } else { None };
        let resident = context.caps().processors * config.blocks(context.caps());
        // Jobs that run at a time.
        let workers = resident * config.jobs();
        let offsets = &held.packing.offsets;
        let mut pieces = Pieces { single: single.then(|| layout.slots[0]), ..Pieces::default() };
        let mut split = None;
        let (jobs, chunks) = match (job_list, config) {
            (Some((_, count)), _) => {
                pieces.shared = count > resident;
                (count, None)
            }
            (None, Scorer::Warpgroup(_)) => {
                let made = held.split(context, documents, layout.tile_count(), workers)?;
                pieces.shared = made.1.shared && made.1.pieces.len() as u32 > resident;
                pieces.address = made.0.address();
                let count = made.1.pieces.len() as u32 * layout.tile_count();
                split = Some(made);
                (count, None)
            }
            (None, _) => {
                let rows = offsets[documents.end as usize] - offsets[documents.start as usize];
                let rows = chunk_rows(rows, layout.tile_count(), workers, config.columns());
                let (table, count) = held.chunks(context, documents, rows)?;
                (count * layout.tile_count(), Some(table))
            }
        };
        let chunk_rows = split.as_ref().map_or(0, |s| s.1.chunk_rows);
        let (counters, parts) = if chunk_rows > 0 {
            let parts = pool.buffer(jobs as usize * 2 * config.rows() as usize * 8)?;
            (Some(context.counters(1 + jobs as usize)?), Some(parts))
        } else if pieces.shared {
            (Some(context.counters(1)?), None)
        } else {
            (None, None)
        };
        pieces.counters = address(counters.as_deref());
        pieces.parts = address(parts.as_ref());
        pieces.row_begin = split.as_ref().map_or(0, |s| s.1.row_begin);
        let residual = held.residual.as_ref();
        let params = ForwardParams {
            q: queries.rows.address(),
            d: held.rows.address(),
            q_factors: address(queries.factors.as_ref()),
            d_factors,
            d_offsets: held.offsets.address(),
            q_ids: if scoring.packed_winners { 0 } else { address(queries.ids.as_ref()) },
            d_ids: if scoring.packed_winners { 0 } else { address(held.ids.as_ref()) },
            q_starts: address(starts.as_deref()),
            slots: address(slots.as_ref().map(|s| &*s.0)),
            tiles: address(slots.as_ref().map(|s| &*s.1)),
            job_list: address(job_list.map(|(list, _)| list)),
            chunk_documents: address(chunks.as_deref()),
            table: address(self.table.map(|t| &t.values)),
            codes: residual.map_or(0, |r| r.codes.address()),
            weights: residual.map_or(0, |r| r.weights.address()),
            bias: 0,
            scores: scores.address(),
            partials: address(partials.as_ref()),
            argmax: address(self.argmax),
            q_stride: queries.stride,
            d_stride: held.stride,
            chunks: config.chunks(held.dim),
            jobs,
            tile_count: layout.tile_count(),
            chunk_rows,
            row_end: held.packing.rows(),
            partial_stride: self.stride,
            table_stride: self.table.map_or(0, |t| t.stride),
            out_stride: 0,
            centroids: residual.map_or(0, |r| r.centroid_count),
            q_base: self.table.map_or(0, |t| t.first_row),
            weight_scale: residual.map_or(1.0, |r| r.weight_scale),
            unused: 0,
        };
        let grid = [jobs.div_ceil(config.jobs()).min(resident), 1];
        let operands = Operands {
            q: (queries.rows.address(), queries.stride, queries.packing.rows()),
            d: (held.rows.address(), held.stride, held.packing.rows()),
        };
        // SAFETY: every buffer is as long as the counts in the parameters say; factors have slack for whole tiles.
        unsafe { launch_scorer(context, config, grid, &params, &pieces, &operands)? };
        if let Some(partials) = &partials {
            let blocks: Vec<u32> =
                queries.packing.offsets.windows(2).map(|w| (w[1] - w[0]).div_ceil(BLOCK)).collect();
            let blocks = context.table(&blocks)?;
            let params = SumParams {
                blocks: blocks.address(),
                scores: scores.address(),
                pairs: pairs as u64,
                stride: self.stride,
                ..sums(partials.address())
            };
            let unit = config::forward_sum();
            let threads = unit.constant("kThreads") as usize;
            // SAFETY: as above.
            unsafe { context.launch(&unit, [pairs.div_ceil(threads) as u32, 1], 0, &params)? };
        }
        Ok(())
    }
}

/// What the warpgroup kernel knows about its pieces beside [`ForwardParams`].
#[derive(Default)]
struct Pieces {
    /// Those of a cross product; a list is in `ForwardParams`.
    address: u64,
    single: Option<Slot>,
    shared: bool,
    counters: u64,
    parts: u64,
    row_begin: u32,
}

/// Address, bytes from row to row, and number of query and document rows.
struct Operands {
    q: (u64, u32, u32),
    d: (u64, u32, u32),
}

/// Launches whichever kernel `config` is of.
///
/// # Safety
/// As [`Context::launch`].
unsafe fn launch_scorer(
    context: &Context,
    config: &Scorer,
    grid: [u32; 2],
    params: &ForwardParams,
    pieces: &Pieces,
    operands: &Operands,
) -> Result<()> {
    let (unit, shared) = (config.unit(), config.shared());
    let Scorer::Warpgroup(warpgroup) = config else {
        // SAFETY: the caller's promise.
        return unsafe { context.launch(&unit, grid, shared, params) };
    };
    let map = |(address, stride, rows): (u64, u32, u32), box_rows: u32| {
        let element = warpgroup.kind.size();
        context.pool.device().tensor_map(&TensorMap {
            address,
            element,
            columns: u64::from(stride / element),
            rows: u64::from(rows.max(1)),
            stride: u64::from(stride),
            box_rows,
        })
    };
    let listed = params.job_list != 0;
    let params = WarpgroupParams {
        base: *params,
        only: pieces.single.unwrap_or_default(),
        pieces: if listed { params.job_list } else { pieces.address },
        counters: pieces.counters,
        parts: pieces.parts,
        row_begin: pieces.row_begin,
        single: pieces.single.is_some().into(),
        listed: listed.into(),
        shared: pieces.shared.into(),
        q: map(operands.q, SLOT_ALIGN)?,
        d: map(operands.d, config.columns())?,
        part: map(operands.d, crate::pieces::PART)?,
        ..WarpgroupParams::default()
    };
    // SAFETY: the caller's promise.
    unsafe { context.launch(&unit, grid, shared, &params) }
}

/// Document rows of a chunk: every block that runs at a time gets one, so that all end together; where there are more tiles of
/// queries than blocks, enough that the last round is short.
fn chunk_rows(rows: u32, tiles: u32, resident: u32, columns: u32) -> u32 {
    let chunks = if tiles <= resident { resident / tiles } else { (4 * resident).div_ceil(tiles) };
    rows.div_ceil(chunks).max(columns)
}

/// `out[row, column] = ⟨d row, q row⟩ (+ bias)`, f32 `[d_rows, stride]`.
pub(crate) struct Projection<'a> {
    pub(crate) q: &'a Buffer,
    pub(crate) q_stride: u32,
    pub(crate) q_rows: Range<u32>,
    pub(crate) d: u64,
    pub(crate) d_stride: u32,
    pub(crate) d_rows: u32,
    pub(crate) product: Kind,
    pub(crate) stored: Kind,
    pub(crate) dim: u32,
    pub(crate) bias: Option<&'a Buffer>,
}

/// Runs a projection.
pub(crate) fn project(
    context: &Context,
    projection: &Projection<'_>,
    out: &Buffer,
    stride: u32,
) -> Result<()> {
    let rows = projection.q_rows.len() as u32;
    let problem = Problem {
        product: projection.product,
        stored: Stored::Vectors(projection.stored),
        dim: projection.dim,
        rows,
        listed: false,
        scaled: false,
        precision: Precision::Default,
        purpose: Use::Store,
    };
    let config = Scorer::choose(context.caps(), &problem);
    let mut layout = Layout::new();
    for row in projection.q_rows.clone().step_by(config.rows() as usize) {
        let here = (projection.q_rows.end - row).min(config.rows());
        layout.slots.push(Slot { row, rows: here, ..Slot::default() });
        layout.filled = here;
        layout.close_tile();
    }
    if layout.tile_count() == 0 || projection.d_rows == 0 {
        return Ok(());
    }
    let resident = context.caps().processors * config.blocks(context.caps());
    let chunk = chunk_rows(projection.d_rows, layout.tile_count(), resident, config.columns());
    let jobs = projection.d_rows.div_ceil(chunk) * layout.tile_count();
    let slots = context.table(&layout.slots)?;
    let tiles = context.table(&layout.tiles)?;
    let params = ForwardParams {
        q: projection.q.address(),
        d: projection.d,
        slots: slots.address(),
        tiles: tiles.address(),
        bias: address(projection.bias),
        scores: out.address(),
        q_stride: projection.q_stride,
        d_stride: projection.d_stride,
        chunks: config.chunks(projection.dim),
        jobs,
        tile_count: layout.tile_count(),
        chunk_rows: chunk,
        row_end: projection.d_rows,
        out_stride: stride,
        q_base: projection.q_rows.start,
        ..ForwardParams::default()
    };
    assert!(out.bytes() >= projection.d_rows as usize * stride as usize * 4);
    let operands = Operands {
        q: (projection.q.address(), projection.q_stride, projection.q_rows.end),
        d: (projection.d, projection.d_stride, projection.d_rows),
    };
    // SAFETY: the operands are as long as said; the result was just checked.
    unsafe {
        launch_scorer(context, &config, [jobs.min(resident), 1], &params, &Pieces::default(), &operands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_ordered_by_documents() {
        for (pairs, documents) in [(0u32, 1u32), (1, 1), (500, 7), (300, 1000)] {
            let work = |i: u32| {
                let first = i.wrapping_mul(2_654_435_761) % documents;
                Work { query: i, documents: first..first + 1, score: 0, winners: Winners::default() }
            };
            let work: Vec<Work> = (0..pairs).map(work).collect();
            let mut expected: Vec<u32> = (0..pairs).collect();
            expected.sort_by_key(|&w| work[w as usize].documents.start);
            assert_eq!(by_documents(&work), expected);
        }
    }
}
