//! The projection head: hidden states are projected a wave of documents at a time into memory that stays in the second-level
//! cache, and scored from there. The projection of all documents is never in memory.

use std::ops::Range;
use std::sync::Arc;

use maxsim_core::{Documents, Forward, FromHidden, FromHiddenBackward, Gradients, Pairing, Result, Tokens};

use crate::backward::{Gather, Geometry, Operand, Returned, Target};
use crate::config::{self, HeadProducts, Kind, Stored};
use crate::context::Context;
use crate::device::{Reading, TensorMap, Unit};
use crate::forward::{Projection, Scoring, project, score};
use crate::memory::{Buffer, address};
use crate::operands::{Held, Queries, inverse_norms, stride};
use crate::params::{AddParams, CompactParams, HiddenParams, ProjectParams, UnitParams, WeightParams};

/// Bytes of projections in a wave: with what they become, they stay in the second-level cache of large GPUs, or nearly.
const WAVE: usize = 32 << 20;
/// The same where gradients are computed, which takes a dozen kernels for every wave.
const GRADIENT_WAVE: usize = 128 << 20;
/// Parts that sums over rows are made in.
const SEGMENTS: u32 = 20;

/// The projection, ready to be applied.
struct Head<'a> {
    context: &'a Context,
    op: &'a FromHidden<'a>,
    hidden: Held,
    weights: Queries,
    bias: Option<Buffer>,
    product: Kind,
    dim: u32,
    /// Kernel that projects and converts at once, and its shared memory.
    fused: Option<(Unit, u32)>,
}

/// A wave of projected documents.
struct Wave {
    documents: Range<u32>,
    /// f32 `[rows, stride]`, if anybody needs them.
    projected: Option<Buffer>,
    /// Inverse norms of the projected rows, if they are normalised and anybody needs them.
    norms: Option<Arc<Buffer>>,
    /// What is scored, if it was made at once.
    units: Option<Buffer>,
}

impl<'a> Head<'a> {
    fn new(context: &'a Context, op: &'a FromHidden<'a>) -> Result<Self> {
        let hidden = Held::new(context, &Documents::Tokens(op.h.clone()), false)?;
        let precision = op.options.precision;
        let product = config::product(context.caps().arch.path, op.w.dtype(), hidden.stored, precision);
        let w = Tokens::padded(op.w.data(), op.w.shape())?;
        let permuted = product.is_16_bit() && hidden.stored != Stored::Vectors(product);
        let weights = Queries::new(context, &w, product, permuted, false)?;
        let bias = op.b.as_ref().map(|b| context.pool.upload(&b.data().to_f32())).transpose()?;
        let dim = op.q.dim() as u32;
        let mut head = Self { context, op, hidden, weights, bias, product, dim, fused: None };
        let (stored, model) = (head.hidden.stored, head.hidden.dim);
        head.fused = config::head_project(context.caps(), product, stored, head.scored(), model, dim);
        Ok(head)
    }

    /// The kernels of its gradients on tensor cores.
    fn products(&self) -> Option<HeadProducts> {
        let (caps, weights) = (self.context.caps(), self.op.w.dtype());
        HeadProducts::choose(caps, self.product, self.hidden.stored, weights, self.dim)
    }

    /// Elements from projected row to projected row.
    fn columns(&self) -> u32 {
        self.dim.next_multiple_of(4)
    }

    /// Documents in waves of about so many projected elements, cut where documents end.
    fn waves(&self, elements: usize) -> Vec<Range<u32>> {
        let offsets = &self.hidden.packing.offsets;
        let most = (elements / self.columns() as usize) as u32;
        let mut waves: Vec<Range<u32>> = Vec::new();
        for j in 0..self.hidden.count() {
            match waves.last_mut() {
                Some(wave) if offsets[j as usize + 1] - offsets[wave.start as usize] <= most => {
                    wave.end = j + 1
                }
                _ => waves.push(j..j + 1),
            }
        }
        waves
    }

    fn rows(&self, documents: &Range<u32>) -> Range<u32> {
        let offsets = &self.hidden.packing.offsets;
        offsets[documents.start as usize]..offsets[documents.end as usize]
    }

    /// Bytes from row to row of what is scored.
    fn unit_stride(&self) -> u32 {
        stride(self.dim as usize * self.scored().size() as usize) as u32
    }

    /// `keep`: f32 rows and their norms are needed.
    fn project(&self, documents: Range<u32>, keep: bool) -> Result<Wave> {
        let (context, rows) = (self.context, self.rows(&documents));
        let (count, stride) = (rows.len() as u32, self.columns());
        if let Some(fused) = &self.fused {
            return self.project_at_once(fused, documents, keep);
        }
        let projected = context.pool.buffer(count as usize * stride as usize * 4)?;
        if stride != self.dim {
            projected.fill(0)?;
        }
        let Stored::Vectors(stored) = self.hidden.stored else { unreachable!("hidden states are vectors") };
        let projection = Projection {
            q: &self.weights.rows,
            q_stride: self.weights.stride,
            q_rows: 0..self.dim,
            d: self.hidden.rows.address() + u64::from(rows.start) * u64::from(self.hidden.stride),
            d_stride: self.hidden.stride,
            d_rows: count,
            product: self.product,
            stored,
            dim: self.hidden.dim,
            bias: self.bias.as_ref(),
        };
        project(context, &projection, &projected, stride)?;
        let norms = match self.op.options.normalize && count > 0 {
            true => Some(Arc::new(inverse_norms(context, &projected, 4 * stride, count, self.dim)?)),
            false => None,
        };
        Ok(Wave { documents, projected: Some(projected), norms, units: None })
    }

    fn project_at_once(
        &self,
        (unit, shared): &(Unit, u32),
        documents: Range<u32>,
        keep: bool,
    ) -> Result<Wave> {
        let (context, rows) = (self.context, self.rows(&documents));
        let (count, stride, unit_stride) = (rows.len() as u32, self.columns(), self.unit_stride());
        let buffer = |bytes: u32| context.pool.buffer(count as usize * bytes as usize);
        let units = buffer(unit_stride)?;
        let projected = if keep { Some(buffer(4 * stride)?) } else { None };
        let norms = if keep && self.op.options.normalize { Some(Arc::new(buffer(4)?)) } else { None };
        let map = |address: u64, stride: u32, rows: u32, box_rows: u32| {
            let element = self.product.size();
            let (columns, rows) = (u64::from(self.hidden.dim), u64::from(rows.max(1)));
            let stride = u64::from(stride);
            context.pool.device().tensor_map(&TensorMap { address, element, columns, rows, stride, box_rows })
        };
        let first = self.hidden.rows.address() + u64::from(rows.start) * u64::from(self.hidden.stride);
        let [hidden_rows, weight_rows] = config::PROJECT_ROWS;
        let params = ProjectParams {
            units: units.address(),
            projected: address(projected.as_ref()),
            norms: address(norms.as_deref()),
            bias: address(self.bias.as_ref()),
            rows: count,
            dim: self.dim,
            unit_stride,
            stride,
            normalize: self.op.options.normalize.into(),
            h: map(first, self.hidden.stride, count, hidden_rows)?,
            w: map(self.weights.rows.address(), self.weights.stride, self.dim, weight_rows)?,
            ..ProjectParams::default()
        };
        let grid = count.div_ceil(hidden_rows).min(context.caps().processors);
        // SAFETY: hidden states, results and norms are `count` rows, W and the bias `dim`.
        unsafe { context.launch(unit, [grid, 1], *shared, &params)? };
        Ok(Wave { documents, projected, norms, units: Some(units) })
    }

    /// The wave as documents to score.
    fn documents(&self, wave: &mut Wave) -> Result<Held> {
        let (context, rows) = (self.context, self.rows(&wave.documents));
        let count = rows.len() as u32;
        let packing = self.hidden.packing.part(wave.documents.clone());
        let kind = self.scored();
        let width = self.unit_stride();
        if let Some(units) = wave.units.take() {
            return Held::on_device(context, packing, kind, self.dim, units, width, None);
        }
        let unit = config::unit_rows(kind);
        let warps = unit.constant("kThreads") as u32 / 32;
        let units = context.pool.buffer(count as usize * width as usize)?;
        // f32 rows keep their norms beside them: nothing is rounded twice.
        let factors = if kind == Kind::F32 { None } else { wave.norms.as_deref() };
        let params = UnitParams {
            from: address(wave.projected.as_ref()),
            factors: address(factors),
            to: units.address(),
            count,
            dim: self.dim,
            from_stride: self.columns(),
            stride: width,
        };
        // SAFETY: projected rows and their norms are `count`, and so are those that are written.
        unsafe { context.launch(&unit, [count.div_ceil(warps), 1], 0, &params)? };
        let norms = if kind == Kind::F32 { wave.norms.clone() } else { None };
        Held::on_device(context, packing, kind, self.dim, units, width, norms)
    }

    /// Element type that projected rows are scored as: that of 16-bit queries and hidden states, where nothing can overflow.
    fn scored(&self) -> Kind {
        let (q, h) = (Kind::from(self.op.q.dtype()), Kind::from(self.op.h.dtype()));
        let holds = self.op.options.normalize || q == Kind::BF16;
        if q.is_16_bit() && h.is_16_bit() && holds && self.product != Kind::F32 { q } else { Kind::F32 }
    }

    fn scoring<'s>(&self, scoring: &'s Forward<'s>, held: &'s Held, documents: &Range<u32>) -> Scoring<'s> {
        Scoring {
            columns: self.hidden.count() as usize,
            column: i64::from(documents.start),
            // Queries come normalised, and so do the projected rows.
            normalize_q: false,
            normalize_d: false,
            ..Scoring::of(scoring, held)
        }
    }
}

/// Scores of a validated operator into `scores`, and winners into the buffer of `argmax`.
pub(crate) fn from_hidden(
    context: &Context,
    op: &FromHidden<'_>,
    scores: &Buffer,
    argmax: Option<(&Buffer, &dyn Fn(usize) -> usize)>,
) -> Result<()> {
    let head = Head::new(context, op)?;
    let forward = op.scoring();
    for documents in head.waves(WAVE / if head.fused.is_some() { 2 } else { 4 }) {
        let held = head.documents(&mut head.project(documents.clone(), false)?)?;
        score(context, &head.scoring(&forward, &held, &documents), scores, argmax)?;
    }
    Ok(())
}

/// Gradients on their way.
pub(crate) struct Arriving {
    q: Option<Returned>,
    q_dtype: maxsim_core::DType,
    h: Option<Returned>,
    /// `[dim, model + 1]`, the last column that of the bias.
    w: Option<(Reading, maxsim_core::DType)>,
    b: Option<maxsim_core::DType>,
    wants_w: bool,
    dim: usize,
    model: usize,
}

impl Arriving {
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let returned = [&self.q, &self.h].into_iter().flatten().filter_map(|r| r.pending.as_ref());
        returned.chain(self.w.as_ref().map(|w| &w.0)).cloned().collect()
    }

    pub(crate) fn finish(&self) -> Gradients {
        let mut gradients = Gradients {
            q: self.q.as_ref().map(|q| {
                let f32s = q.tensor();
                Gradients::rounded(f32s.data().as_ref().to_f32(), f32s.shape().to_vec(), self.q_dtype)
            }),
            h: self.h.as_ref().map(Returned::tensor),
            ..Gradients::default()
        };
        if let Some((pending, dtype)) = &self.w {
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(pending.bytes());
            let rows = || values.chunks_exact(self.model + 1);
            if self.wants_w {
                let w = rows().flat_map(|row| &row[..self.model]).copied().collect();
                gradients.w = Some(Gradients::rounded(w, vec![self.dim, self.model], *dtype));
            }
            if let Some(dtype) = self.b {
                let b = rows().map(|row| row[self.model]).collect();
                gradients.b = Some(Gradients::rounded(b, vec![self.dim], dtype));
            }
        }
        gradients
    }
}

/// Gradients of a validated operator, a wave of documents at a time, in document order.
pub(crate) fn from_hidden_backward(context: &Context, op: &FromHiddenBackward<'_>) -> Result<Arriving> {
    let (forward, wants) = (&op.forward, op.wants);
    let head = Head::new(context, forward)?;
    let pool = &context.pool;
    let (dim, model) = (head.dim, head.hidden.dim);
    let q_kind = Kind::from(forward.q.dtype());
    let queries = Queries::new(context, &forward.q, q_kind, false, false)?;
    let q_rows = queries.packing.rows();
    let q = Operand::vectors(q_kind, &queries.rows, queries.stride, dim, None);
    let columns = head.columns();
    let zeros = |bytes: usize| -> Result<Buffer> {
        let buffer = pool.buffer(bytes)?;
        buffer.fill(0)?;
        Ok(buffer)
    };
    let q_out = if wants.q { Some(zeros(q_rows as usize * columns as usize * 4)?) } else { None };
    let h_out = if wants.h { Some(zeros(head.hidden.rows.bytes())?) } else { None };
    let wants_b = wants.b && forward.b.is_some();
    let w_out = if wants.w || wants_b { Some(zeros(dim as usize * (model as usize + 1) * 4)?) } else { None };
    let products = head.products();
    let weights = match products {
        Some(_) => None,
        None => Some(pool.upload(&forward.w.data().to_f32())?),
    };
    let weights = match &weights {
        None => (head.weights.rows.address(), head.weights.stride),
        Some(weights) => (weights.address(), 4 * model),
    };
    let scoring = forward.scoring();
    let Stored::Vectors(h_kind) = head.hidden.stored else { unreachable!("hidden states are vectors") };
    let waves = if q_rows > 0 { head.waves(GRADIENT_WAVE / 4) } else { vec![] };
    for documents in waves {
        let mut wave = head.project(documents.clone(), true)?;
        let rows = head.rows(&documents);
        if rows.is_empty() {
            continue;
        }
        let held = head.documents(&mut wave)?;
        let packing = &held.packing;
        let geometry = Geometry::new(context, &Pairing::Cross, &queries.packing, packing)?;
        let part = Scoring {
            columns: packing.offsets.len() - 1,
            column: 0,
            packed_winners: true,
            ..head.scoring(&scoring, &held, &documents)
        };
        let winners = match op.argmax {
            Some(argmax) => {
                let all = &head.hidden.packing;
                geometry.given_winners(context, &scoring, &queries.packing, all, &documents, argmax)?
            }
            None => geometry.computed_winners(context, &part)?,
        };
        let grads: Vec<f32> = op
            .grad
            .chunks_exact(head.hidden.count() as usize)
            .flat_map(|row| &row[documents.start as usize..documents.end as usize])
            .copied()
            .collect();
        let grad = pool.upload(&grads)?;
        let gather = Gather { context, geometry: &geometry, winners: &winners, grad: &grad };
        let norms = wave.norms.as_deref();
        let rows_kept = wave.projected.as_ref().expect("asked for");
        let projected = Operand::vectors(Kind::F32, rows_kept, 4 * columns, dim, norms);
        if let Some(out) = &q_out {
            let target = Target { out, kind: Kind::F32, stride: 4 * columns, normalize: false, add: true };
            gather.queries(&projected, &q, q_rows, &target)?;
        }
        if h_out.is_none() && w_out.is_none() {
            continue;
        }
        let out = pool.buffer(rows.len() * dim as usize * 4)?;
        let normalize = forward.options.normalize;
        let target = Target { out: &out, kind: Kind::F32, stride: 4 * dim, normalize, add: false };
        gather.documents(&q, &projected, packing, &target, |local, ranges| {
            let first = u64::from(rows.start + local.start);
            let part = Winning::new(context, ranges, local.len() as u32, products)?;
            let grads = out.address() + u64::from(local.start) * u64::from(dim) * 4;
            if let Some(h_out) = &h_out {
                let to = h_out.address() + first * u64::from(head.hidden.stride);
                part.hidden(context, grads, weights, dim, model, h_kind, to, head.hidden.stride)?;
            }
            if let Some(w_out) = &w_out {
                let from = head.hidden.rows.address() + first * u64::from(head.hidden.stride);
                part.weights(context, grads, from, head.hidden.stride, h_kind, dim, model, w_out)?;
            }
            Ok(())
        })?;
    }
    let hidden = &head.hidden;
    Ok(Arriving {
        q: match &q_out {
            Some(out) => {
                Some(Returned::new(Some(out), &forward.q, &queries.packing, 4 * columns, Kind::F32)?)
            }
            None => None,
        },
        q_dtype: forward.q.dtype(),
        h: match &h_out {
            Some(out) => Some(Returned::new(Some(out), &forward.h, &hidden.packing, hidden.stride, h_kind)?),
            None => None,
        },
        w: match &w_out {
            Some(out) => Some((out.read(out.bytes())?, forward.w.dtype())),
            None => None,
        },
        b: forward.b.as_ref().filter(|_| wants_b).map(|b| b.dtype()),
        wants_w: wants.w,
        dim: dim as usize,
        model: model as usize,
    })
}

/// The rows of a run of documents that won something.
struct Winning {
    rows: Buffer,
    count: Buffer,
    /// Rows there are in all.
    most: u32,
    products: Option<HeadProducts>,
}

impl Winning {
    fn new(context: &Context, ranges: &Buffer, most: u32, products: Option<HeadProducts>) -> Result<Self> {
        let rows = context.pool.buffer(most as usize * 4)?;
        let count = context.pool.buffer(4)?;
        let (units, each) = config::head_compact();
        let blocks = most.div_ceil(each);
        let counts = context.pool.buffer(blocks as usize * 4)?;
        let params = CompactParams {
            ranges: ranges.address(),
            counts: counts.address(),
            rows: rows.address(),
            count: count.address(),
            total: most,
            unused: 0,
        };
        for unit in &units {
            let shared = unit.constant("kThreads") as u32 / 32 * 4;
            // SAFETY: there is a range for every row, room for every row, and for the count of every block.
            unsafe { context.launch(unit, [blocks, 1], shared, &params)? };
        }
        Ok(Self { rows, count, most, products })
    }

    /// `weights`: their address and the bytes from row to row, f32 unless `products` multiply them.
    #[allow(clippy::too_many_arguments, reason = "two matrices and a result")]
    fn hidden(
        &self,
        context: &Context,
        grads: u64,
        (weights, weight_stride): (u64, u32),
        dim: u32,
        model: u32,
        kind: Kind,
        out: u64,
        out_stride: u32,
    ) -> Result<()> {
        let params = HiddenParams {
            grads,
            weights,
            rows: self.rows.address(),
            count: self.count.address(),
            out,
            dim,
            model,
            out_stride,
            weight_stride,
        };
        if let Some(products) = self.products {
            let (unit, shared) = products.hidden();
            let columns = model.div_ceil(HeadProducts::COLUMNS);
            // Blocks keep their weights for all rows they take: no more of them than run at a time.
            let blocks = (2 * context.caps().processors).div_ceil(columns);
            let grid = [self.most.div_ceil(HeadProducts::ROWS[0]).min(blocks), columns];
            // SAFETY: gradients, weights and result have the rows and columns said.
            return unsafe { context.launch(&unit, grid, shared, &params) };
        }
        let unit = config::head_hidden(kind, model);
        let [rows, columns] =
            [unit.constant("kRows") as u32, (unit.constant("kThreads") * unit.constant("kWide")) as u32];
        let grid = [self.most.div_ceil(rows), model.div_ceil(columns)];
        // SAFETY: gradients, weights and result have the rows and columns said.
        unsafe { context.launch(&unit, grid, rows * 128 * 4, &params) }
    }

    #[allow(clippy::too_many_arguments, reason = "two matrices and a result")]
    fn weights(
        &self,
        context: &Context,
        grads: u64,
        hidden: u64,
        stride: u32,
        kind: Kind,
        dim: u32,
        model: u32,
        out: &Buffer,
    ) -> Result<()> {
        let count = dim * (model + 1);
        let partials = context.pool.buffer(SEGMENTS as usize * count as usize * 4)?;
        let params = WeightParams {
            grads,
            hidden,
            rows: self.rows.address(),
            count: self.count.address(),
            partials: partials.address(),
            dim,
            model,
            stride,
            segments: SEGMENTS,
        };
        let (unit, shared, blocks) = match self.products {
            Some(products) => {
                let (unit, shared) = products.weights();
                (unit, shared, model / HeadProducts::COLUMNS + 1)
            }
            None => {
                let unit = config::head_weights(kind);
                let columns = model / (2 * unit.constant("kThreads") as u32) + 1;
                (unit, 16 * 32 * 4, columns * dim.div_ceil(16))
            }
        };
        // SAFETY: gradients and hidden states have the rows and columns said, partial sums `count` per segment.
        unsafe { context.launch(&unit, [blocks, SEGMENTS], shared, &params)? };
        let add = config::head_add();
        let params =
            AddParams { partials: partials.address(), out: out.address(), count, segments: SEGMENTS };
        let grid = [count.div_ceil(add.constant("kThreads") as u32), 1];
        // SAFETY: as above; the result is `count` long.
        unsafe { context.launch(&add, grid, 0, &params) }
    }
}
