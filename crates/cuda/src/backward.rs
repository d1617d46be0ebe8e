//! Gradients: winners grouped by the document row that won, then two gathers. No atomics: `Unified` and `Lowmem` are the same.

use std::ops::Range;

use maxsim_core::{Argmax, Backward, Documents, Error, Forward, Gradients, Pairing, Result, Tensor, Tokens};
use maxsim_kernels::{Kernel, kernels};

use crate::config::{self, Kind, Stored};
use crate::context::{Context, WORKSPACE};
use crate::device::Reading;
use crate::forward::{Scoring, score};
use crate::memory::{Buffer, address};
use crate::operands::{Held, Packing, Queries, scatter};
use crate::params::{GatherParams, GroupParams, Pairs, Rows, TakeWinnersParams};

/// Which pairs there are, and where their winners lie: `backward/pairs.cuh`.
pub(crate) struct Geometry {
    params: Pairs,
    /// First winner of every pair.
    firsts: Vec<u64>,
    /// First entry of every document, and the number of all.
    entries: Vec<u64>,
    winners: usize,
    /// Query of every pair.
    queries: Vec<u32>,
    _held: Vec<Buffer>,
}

impl Geometry {
    pub(crate) fn new(context: &Context, pairing: &Pairing<'_>, q: &Packing, d: &Packing) -> Result<Self> {
        let (queries, documents) = (q.offsets.len() as u32 - 1, d.offsets.len() as u32 - 1);
        let pool = &context.pool;
        let (mut held, mut lists) = (Vec::new(), [0; 7]);
        let mut hold = |buffer: Buffer| {
            let address = buffer.address();
            held.push(buffer);
            address
        };
        let q_offsets = hold(pool.upload(&q.offsets)?);
        let d_offsets = hold(pool.upload(&d.offsets)?);
        // Query and document of every pair.
        let pairs: Vec<(u32, u32)> = match pairing {
            Pairing::Cross => (0..queries).flat_map(|i| (0..documents).map(move |j| (i, j))).collect(),
            Pairing::Grouped { k } => (0..queries * *k as u32).map(|p| (p / *k as u32, p)).collect(),
            Pairing::List { q, d } => q.iter().copied().zip(d.iter().copied()).collect(),
        };
        let mut firsts = Vec::with_capacity(pairs.len());
        let mut winners = 0u64;
        let mut entries = vec![0u64; documents as usize + 1];
        for &(i, j) in &pairs {
            firsts.push(winners);
            winners += u64::from(q.rows_of(i));
            entries[j as usize + 1] += u64::from(q.rows_of(i));
        }
        for j in 0..documents as usize {
            entries[j + 1] += entries[j];
        }
        if let Pairing::List { q, d } = pairing {
            let by = |owners: &[u32], count: u32| {
                let mut at = vec![0u32; count as usize + 1];
                owners.iter().for_each(|&owner| at[owner as usize + 1] += 1);
                for i in 0..count as usize {
                    at[i + 1] += at[i];
                }
                let mut order: Vec<u32> = (0..owners.len() as u32).collect();
                order.sort_by_key(|&pair| owners[pair as usize]);
                (order, at)
            };
            let (by_query, by_query_at) = by(q, queries);
            let (by_document, by_document_at) = by(d, documents);
            lists = [
                hold(pool.upload(q)?),
                hold(pool.upload(d)?),
                hold(pool.upload(&firsts)?),
                hold(pool.upload(&by_query)?),
                hold(pool.upload(&by_query_at)?),
                hold(pool.upload(&by_document)?),
                hold(pool.upload(&by_document_at)?),
            ];
        }
        let [list_q, list_d, list_first, by_query, by_query_at, by_document, by_document_at] = lists;
        let params = Pairs {
            q_offsets,
            d_offsets,
            list_q,
            list_d,
            list_first,
            by_query,
            by_query_at,
            by_document,
            by_document_at,
            pairing: match pairing {
                Pairing::Cross => 0,
                Pairing::Grouped { .. } => 1,
                Pairing::List { .. } => 2,
            },
            documents,
            k: if let Pairing::Grouped { k } = pairing { *k as u32 } else { 0 },
            queries,
        };
        let queries = pairs.iter().map(|pair| pair.0).collect();
        Ok(Self { params, firsts, entries, winners: winners as usize, queries, _held: held })
    }

    /// Given winners as the kernels want them. The geometry is that of `documents` of `d` alone.
    pub(crate) fn given_winners(
        &self,
        context: &Context,
        op: &Forward<'_>,
        q: &Packing,
        d: &Packing,
        documents: &Range<u32>,
        argmax: &Argmax,
    ) -> Result<Buffer> {
        let mut winners = Vec::with_capacity(self.winners);
        for pair in 0..op.pair_count() {
            let (i, j) = op.pair(pair);
            if !documents.contains(&(j as u32)) {
                continue;
            }
            let values = argmax.pair(pair);
            let (q_first, d_first) = (q.offsets[i] as usize, d.offsets[j] as usize);
            for s in 0..q.rows_of(i as u32) as usize {
                let token = q.ids.as_ref().map_or(s, |ids| ids[q_first + s] as usize);
                let winner = values[token];
                winners.push(match &d.ids {
                    Some(ids) if winner >= 0 => {
                        let ids = &ids[d_first..d.offsets[j + 1] as usize];
                        // What is masked cannot have won.
                        ids.binary_search(&winner).map_or(-1, |at| at as i32)
                    }
                    _ => winner,
                });
            }
        }
        context.pool.upload(&winners)
    }

    /// Winners at an address of the device, as [`Forward::empty_argmax`] lays them out, as the kernels want them.
    fn taken_winners(
        &self,
        context: &Context,
        q: &Tokens<'_>,
        queries: &Queries,
        held: &Held,
        from: u64,
    ) -> Result<Buffer> {
        let pool = &context.pool;
        let winners = pool.buffer(self.winners * 4)?;
        // Pairs of padded queries have equal rows; those of others begin where the ones before them end.
        let firsts = match q.padded_len() {
            Some(_) => None,
            None => {
                let mut firsts = Vec::with_capacity(self.queries.len());
                let mut end = 0u64;
                for &query in &self.queries {
                    firsts.push(end);
                    end += q.extent(query as usize) as u64;
                }
                Some(pool.upload(&firsts)?)
            }
        };
        let params = TakeWinnersParams {
            pairs: self.params,
            from,
            firsts: address(firsts.as_ref()),
            q_ids: address(queries.ids.as_ref()),
            d_ids: address(held.ids.as_ref()),
            to: winners.address(),
            count: self.firsts.len() as u32,
            slots: q.padded_len().unwrap_or(0) as u32,
        };
        let unit = config::take_winners();
        let warps = unit.constant("kThreads") as u32 / 32;
        // SAFETY: the tensor has the winners of all pairs, and there is room for those of packed rows.
        unsafe { context.launch(&unit, [params.count.div_ceil(warps), 1], 0, &params)? };
        Ok(winners)
    }

    /// Winners computed by `scoring`.
    pub(crate) fn computed_winners(&self, context: &Context, scoring: &Scoring<'_>) -> Result<Buffer> {
        let winners = context.pool.buffer(self.winners * 4)?;
        winners.fill(0xff)?;
        let scores = context.pool.buffer(self.firsts.len() * 4)?;
        let scoring = Scoring { packed_winners: true, ..scoring.clone() };
        score(context, &scoring, &scores, Some((&winners, &|pair| self.firsts[pair] as usize)))?;
        Ok(winners)
    }

    /// Pairs of a document; of a list, the mean.
    fn pairs_of_document(&self) -> u32 {
        self.firsts.len().div_ceil(self.params.documents.max(1) as usize) as u32
    }

    /// Documents in runs whose entries fit into the workspace.
    fn runs(&self) -> Vec<Range<u32>> {
        let most = (WORKSPACE / 8) as u64;
        let mut runs: Vec<Range<u32>> = Vec::new();
        for j in 0..self.params.documents {
            match runs.last_mut() {
                Some(run) if self.entries[j as usize + 1] - self.entries[run.start as usize] <= most => {
                    run.end = j + 1
                }
                _ => runs.push(j..j + 1),
            }
        }
        runs
    }
}

/// Rows to add up, or whose norm to differentiate.
pub(crate) struct Operand {
    pub(crate) stored: Stored,
    pub(crate) rows: Rows,
}

impl Operand {
    pub(crate) fn vectors(
        kind: Kind,
        rows: &Buffer,
        stride: u32,
        dim: u32,
        factors: Option<&Buffer>,
    ) -> Self {
        let rows = Rows { rows: rows.address(), factors: address(factors), stride, dim, ..Rows::default() };
        Self { stored: Stored::Vectors(kind), rows }
    }

    fn kind(&self) -> Kind {
        match self.stored {
            Stored::Vectors(kind) => kind,
            Stored::Residual { .. } => Kind::F32,
        }
    }
}

/// Everything gathers have in common.
pub(crate) struct Gather<'a> {
    pub(crate) context: &'a Context,
    pub(crate) geometry: &'a Geometry,
    pub(crate) winners: &'a Buffer,
    pub(crate) grad: &'a Buffer,
}

/// Where a gradient goes.
pub(crate) struct Target<'a> {
    pub(crate) out: &'a Buffer,
    pub(crate) kind: Kind,
    pub(crate) stride: u32,
    pub(crate) normalize: bool,
    pub(crate) add: bool,
}

impl Gather<'_> {
    /// Gradients of all query rows.
    pub(crate) fn queries(
        &self,
        source: &Operand,
        own: &Operand,
        rows: u32,
        target: &Target<'_>,
    ) -> Result<()> {
        let params = GatherParams { row_count: rows, ..self.params(source, own, target) };
        self.launch(kernels::BACKWARD_QUERIES, source, own, target, &params)
    }

    /// Gradients of all document rows. `each`: called with a run's first row, its rows and their ranges.
    pub(crate) fn documents(
        &self,
        source: &Operand,
        own: &Operand,
        d: &Packing,
        target: &Target<'_>,
        mut each: impl FnMut(Range<u32>, &Buffer) -> Result<()>,
    ) -> Result<()> {
        let (context, geometry) = (self.context, self.geometry);
        for run in geometry.runs() {
            let at = |j: u32| geometry.entries[j as usize];
            let firsts: Vec<u64> = run.clone().map(|j| at(j) - at(run.start)).collect();
            let rows = d.offsets[run.start as usize]..d.offsets[run.end as usize];
            let count = rows.len();
            if count == 0 {
                continue;
            }
            let firsts = context.pool.upload(&firsts)?;
            let entries = context.pool.buffer((at(run.end) - at(run.start)) as usize * 8)?;
            let ranges = context.pool.buffer(count * 8)?;
            let longest = run.clone().map(|j| d.rows_of(j)).max().unwrap_or(0);
            let (unit, shared, local) =
                config::backward_group(context.caps(), longest, geometry.pairs_of_document());
            let counts = if local { None } else { Some(context.pool.buffer(count * 4)?) };
            let group = GroupParams {
                pairs: geometry.params,
                winners: self.winners.address(),
                grad: self.grad.address(),
                firsts: firsts.address(),
                entries: entries.address(),
                ranges: ranges.address(),
                counts: address(counts.as_ref()),
                document_begin: run.start,
                document_count: run.len() as u32,
            };
            // SAFETY: entries and ranges have room for the run's winners and rows; the rest is as the geometry has it.
            unsafe { context.launch(&unit, [run.len() as u32, 1], shared, &group)? };
            let params = GatherParams {
                entries: entries.address(),
                ranges: ranges.address(),
                out: target.out.address() + u64::from(rows.start) * u64::from(target.stride),
                row_begin: rows.start,
                row_count: count as u32,
                ..self.params(source, own, target)
            };
            self.launch(kernels::BACKWARD_DOCUMENTS, source, own, target, &params)?;
            each(rows, &ranges)?;
        }
        Ok(())
    }

    fn params(&self, source: &Operand, own: &Operand, target: &Target<'_>) -> GatherParams {
        GatherParams {
            pairs: self.geometry.params,
            winners: self.winners.address(),
            grad: self.grad.address(),
            source: source.rows,
            own: own.rows,
            out: target.out.address(),
            out_stride: target.stride,
            normalize: target.normalize.into(),
            ..GatherParams::default()
        }
    }

    fn launch(
        &self,
        kernel: Kernel,
        source: &Operand,
        own: &Operand,
        target: &Target<'_>,
        params: &GatherParams,
    ) -> Result<()> {
        let dim = own.rows.dim;
        let unit =
            config::gather(kernel, source.stored, own.kind(), target.kind, dim, params.row_count, target.add)
                .ok_or_else(|| Error::Limit {
                    argument: "d".into(),
                    limit: "32768 for gradients on CUDA".into(),
                    got: dim.to_string(),
                })?;
        let warps = unit.constant("kWarps");
        let rows = (unit.constant("kThreads") / (32 * warps) * unit.constant("kEach")) as u32;
        let shared = if warps > 1 { 8 * warps as u32 } else { 0 };
        // SAFETY: operands, winners and gradients are as long as the geometry says, the result as its rows are.
        unsafe { self.context.launch(&unit, [params.row_count.div_ceil(rows), 1], shared, params) }
    }
}

/// A gradient on its way back: bytes, and how to make a tensor of them.
pub(crate) struct Returned {
    pub(crate) pending: Option<Reading>,
    packing: Packing,
    stride: usize,
    dim: usize,
    slots: usize,
    kind: Kind,
    shape: Vec<usize>,
}

impl Returned {
    pub(crate) fn new(
        out: Option<&Buffer>,
        tokens: &Tokens<'_>,
        packing: &Packing,
        stride: u32,
        kind: Kind,
    ) -> Result<Self> {
        let bytes = packing.rows() as usize * stride as usize;
        Ok(Self {
            pending: out.map(|out| out.read(bytes)).transpose()?,
            packing: packing.clone(),
            stride: stride as usize,
            dim: tokens.dim(),
            slots: tokens.slots(),
            kind,
            shape: tokens.shape(),
        })
    }

    /// The gradient; zeros where nothing was computed.
    pub(crate) fn tensor(&self) -> Tensor {
        let bytes = self.pending.as_ref().map_or(&[][..], |p| p.bytes());
        let data = scatter(&self.packing, bytes, self.stride, self.dim, self.slots, self.kind.dtype());
        Tensor::new(data, self.shape.clone()).expect("a gradient has its operand's shape")
    }
}

/// Gradients on their way.
pub(crate) struct Arriving {
    pub(crate) q: Option<Returned>,
    pub(crate) d: Option<Returned>,
}

impl Arriving {
    pub(crate) fn finish(&self) -> Gradients {
        Gradients {
            q: self.q.as_ref().map(Returned::tensor),
            d: self.d.as_ref().map(Returned::tensor),
            ..Gradients::default()
        }
    }
}

/// A forward pass that is to be differentiated: its operands, before anybody said where gradients go.
pub(crate) struct Differentiation<'a> {
    context: &'a Context,
    forward: &'a Forward<'a>,
    held: &'a Held,
    /// Where the queries' elements are, if on the device.
    q_address: Option<u64>,
    pub(crate) queries: Queries,
}

/// Winners of a forward pass.
pub(crate) enum Winners<'a> {
    /// Found again.
    Computed,
    Host(&'a Argmax),
    /// At an address of the device, as [`Forward::empty_argmax`] lays them out.
    Device(u64),
}

impl<'a> Differentiation<'a> {
    pub(crate) fn new(
        context: &'a Context,
        forward: &'a Forward<'a>,
        held: &'a Held,
        q_address: Option<u64>,
    ) -> Result<Self> {
        let (kind, normalize) = (forward.q.dtype().into(), forward.options.normalize);
        let queries = Queries::of(context, &forward.q, q_address, kind, false, normalize)?;
        Ok(Self { context, forward, held, q_address, queries })
    }

    /// Whether anything can have won; else all gradients are 0, and there is nothing to launch.
    pub(crate) fn has_winners(&self) -> bool {
        self.queries.packing.rows() > 0 && self.held.packing.rows() > 0 && self.forward.pair_count() > 0
    }

    /// Gradients of the rows of queries and documents, laid out as the rows are. `grad`: of the scores.
    pub(crate) fn run(
        &self,
        winners: &Winners<'_>,
        grad: &Buffer,
        q_out: Option<&Buffer>,
        d_out: Option<&Buffer>,
    ) -> Result<()> {
        let Self { context, forward, held, queries, .. } = self;
        let normalize = forward.options.normalize;
        let geometry = Geometry::new(context, &forward.pairing, &queries.packing, &held.packing)?;
        let winners = match winners {
            Winners::Host(argmax) => {
                let (q, d) = (&queries.packing, &held.packing);
                geometry.given_winners(context, forward, q, d, &(0..held.count()), argmax)?
            }
            Winners::Device(address) => {
                geometry.taken_winners(context, &forward.q, queries, held, *address)?
            }
            Winners::Computed => {
                let scoring = Scoring { q_address: self.q_address, ..Scoring::of(forward, held) };
                geometry.computed_winners(context, &scoring)?
            }
        };
        let gather = Gather { context, geometry: &geometry, winners: &winners, grad };
        let factors = held.factors(context, normalize)?;
        let q_kind = Kind::from(forward.q.dtype());
        let q = Operand::vectors(q_kind, &queries.rows, queries.stride, held.dim, queries.factors.as_ref());
        let d = held.operand(factors.as_deref());
        if let Some(out) = q_out {
            let target = Target { out, kind: q_kind, stride: queries.stride, normalize, add: false };
            gather.queries(&d, &q, queries.packing.rows(), &target)?;
        }
        if let Some(out) = d_out {
            let target = Target { out, kind: d.kind(), stride: held.stride, normalize, add: false };
            gather.documents(&q, &d, &held.packing, &target, |_, _| Ok(()))?;
        }
        Ok(())
    }
}

/// Runs a validated operator.
pub(crate) fn backward(context: &Context, op: &Backward<'_>, held: &Held) -> Result<Arriving> {
    let forward = &op.forward;
    let task = Differentiation::new(context, forward, held, None)?;
    let queries = &task.queries;
    let documents = match &forward.d {
        Documents::Tokens(tokens) if op.wants_d => Some(tokens),
        _ => None,
    };
    let (mut q_out, mut d_out) = (None, None);
    if task.has_winners() {
        let room =
            |wanted: bool, rows: &Buffer| wanted.then(|| context.pool.buffer(rows.bytes())).transpose();
        q_out = room(op.wants_q, &queries.rows)?;
        d_out = room(documents.is_some(), &held.rows)?;
        let winners = op.argmax.map_or(Winners::Computed, Winners::Host);
        task.run(&winners, &context.pool.upload(op.grad)?, q_out.as_ref(), d_out.as_ref())?;
    }
    let returned = |out: &Option<Buffer>, tokens: &Tokens<'_>, packing: &Packing, stride: u32| {
        Returned::new(out.as_ref(), tokens, packing, stride, tokens.dtype().into())
    };
    Ok(Arriving {
        q: op.wants_q.then(|| returned(&q_out, &forward.q, &queries.packing, queries.stride)).transpose()?,
        d: documents.map(|tokens| returned(&d_out, tokens, &held.packing, held.stride)).transpose()?,
    })
}
