//! The fused projection head. Hidden states are projected slab by slab into a workspace of bounded size, scored there, and
//! forgotten; gradients project the winning rows alone.

use std::ops::Range;
use std::sync::Arc;

use maxsim_core::{
    Cancel, DType, Error, Forward, FromHidden, FromHiddenBackward, Gradients, HeadGradients, Output, Pairing,
    Result, Scores, Submission,
};
use maxsim_shaders::kernels::Element;

use crate::backward::{Operand, winners_of};
use crate::device::Gpu;
use crate::gradient::{Contributions, Gathered, Source, Sums, Winners, sums, through_norm};
use crate::matmul::{ADD, BIAS, MatmulParams, matmul};
use crate::memory::Buffer;
use crate::passes::{Job, Opened, PASS, Passes};
use crate::plan::{ForwardPlan, Stored, stored};
use crate::rows::{Compact, Held, RowsParams, prepare};
use crate::submit::Batch;

/// `W` and `b` on the device, as f32 and padded with zeros to vectors of four both ways.
struct Projection {
    w: Buffer,
    /// `Wᵀ`, for gradients.
    transposed: Option<Buffer>,
    bias: Buffer,
    has_bias: bool,
    d: usize,
    d_model: usize,
}

impl Projection {
    fn new(gpu: &Gpu, op: &FromHidden<'_>, transposed: bool) -> Result<Self> {
        let (d, d_model) = (op.q.dim(), op.h.dim());
        let (rows, columns) = (d.next_multiple_of(4), d_model.next_multiple_of(4));
        let bytes = 4 * (rows * columns) as u64;
        if bytes > gpu.caps.max_binding {
            return Err(Error::Limit {
                argument: "W".into(),
                limit: format!("{} bytes as f32 on this device", gpu.caps.max_binding),
                got: bytes.to_string(),
            });
        }
        let values = op.w.data().to_f32();
        let at = |c: usize, m: usize| if c < d && m < d_model { values[c * d_model + m] } else { 0.0 };
        let by_row: Vec<f32> = (0..rows).flat_map(|c| (0..columns).map(move |m| at(c, m))).collect();
        let by_column = || (0..columns).flat_map(|m| (0..rows).map(move |c| at(c, m))).collect::<Vec<f32>>();
        let transposed =
            transposed.then(|| gpu.scratch_with(bytemuck::cast_slice(&by_column()))).transpose()?;
        let mut bias = op.b.as_ref().map_or_else(Vec::new, |b| b.data().to_f32());
        bias.resize(rows, 0.0);
        Ok(Self {
            w: gpu.scratch_with(bytemuck::cast_slice(&by_row))?,
            transposed,
            bias: gpu.scratch_with(bytemuck::cast_slice(&bias))?,
            has_bias: op.b.is_some(),
            d,
            d_model,
        })
    }

    /// Vectors of four of a projected row, and of a hidden state.
    fn widths(&self) -> (u32, u32) {
        (self.d.div_ceil(4) as u32, self.d_model.div_ceil(4) as u32)
    }

    /// Bytes of the wider of the two; hidden states may come from a kernel that writes vectors in pairs.
    fn widest(&self) -> usize {
        let (d, d_model) = self.widths();
        16 * d.max(d_model.next_multiple_of(2)) as usize
    }

    /// Records `hidden · Wᵀ + b` of `rows` f32 rows of `stride` vectors.
    fn project(&self, batch: &mut Batch, hidden: &Buffer, stride: u32, rows: u32) -> Result<Buffer> {
        let (width, hidden_width) = self.widths();
        let out = batch.gpu().scratch(16 * u64::from(width) * u64::from(rows))?;
        let params = MatmulParams {
            m: rows,
            n: 4 * width,
            k: 4 * hidden_width,
            a_stride: stride,
            b_stride: hidden_width,
            c_stride: 4 * width,
            flags: if self.has_bias { BIAS } else { 0 },
            ..Default::default()
        };
        matmul(batch, false, params, [hidden, &self.w, &self.bias, &out])?;
        Ok(out)
    }
}

/// Starts a validated operator.
pub(crate) fn from_hidden(gpu: &Arc<Gpu>, op: &FromHidden<'_>, cancel: &Cancel) -> Result<Submission> {
    let scoring = op.scoring();
    let mut scores = Scores {
        values: vec![0.0; scoring.pair_count()],
        shape: scoring.output_shape(),
        argmax: op.options.argmax.then(|| scoring.empty_argmax()),
    };
    let documents = op.h.count();
    if scoring.pair_count() == 0 {
        return Ok(Submission::ready(Ok(Output::Scores(scores))));
    }
    let projection = Projection::new(gpu, op, false)?;
    let most = PASS.min(gpu.caps.max_binding) as usize / projection.widest();
    let mut all = Vec::new();
    let mut first = 0;
    while first < documents {
        cancel.check()?;
        let slab = first..slab_end(op, first, most);
        let h = op.h.slice(slab.clone());
        let held = projected(gpu, &projection, &h)?;
        let mut forward = Forward::maxsim(op.q.clone(), h.clone().flattened(), op.options);
        forward.pairing = Pairing::Cross;
        let plan = ForwardPlan::over(
            &forward.q,
            Stored::As(Element::F32),
            false,
            forward.options.argmax,
            &gpu.caps,
        )?;
        // Queries come normalised; the option is about projected document tokens.
        let mut job =
            Job::over(gpu, plan, Opened::Own(held), (op.q.dim(), h.kept()), [false, op.options.normalize])?;
        job.columns = (first, documents);
        // Slabs are as many submissions as they need, all at once: hidden states are the caller's to change afterwards.
        let mut passes = Passes::of(&job, &forward)?;
        while let Some(pass) = passes.next(&job, cancel)? {
            all.push(pass);
        }
        first = slab.end;
    }
    Ok(Submission::pending(Box::pin(async move {
        for (pending, placed) in all {
            let read = pending.finish().await?;
            placed.place(&read, &mut scores.values, scores.argmax.as_mut());
        }
        Ok(Output::Scores(scores))
    })))
}

/// The end of a run of documents of about `most` rows, at least one document.
fn slab_end(op: &FromHidden<'_>, first: usize, most: usize) -> usize {
    let mut rows = 0;
    let fits = |&j: &usize| {
        rows += op.h.rows(j).len();
        rows <= most
    };
    (first + (first..op.h.count()).take_while(fits).count()).max(first + 1)
}

/// Documents of projected rows.
fn projected(gpu: &Arc<Gpu>, projection: &Projection, h: &maxsim_core::Tokens<'_>) -> Result<Held> {
    let mut batch = Batch::new(gpu);
    let (width, _) = projection.widths();
    let compact = Compact::of(h.sequences());
    let hidden_states = Held::upload_compact(gpu, h, &compact, false, projection.widest())?;
    let held = hidden_states.replaced(width, |shard, held| {
        let (mut hidden, mut stride) = (shard.rows.clone(), held.stride);
        if held.dtype != DType::F32 {
            stride *= stored(held.dtype).parts();
            hidden = gpu.scratch(16 * u64::from(stride) * u64::from(shard.count))?;
            let params =
                RowsParams { rows: shard.count, stride: held.stride, wide_stride: stride, scaled: 0 };
            prepare(&mut batch, held.dtype, &shard.rows, &params, &hidden, false)?;
        }
        projection.project(&mut batch, &hidden, stride, shard.count)
    })?;
    batch.submit()?;
    Ok(held)
}

/// What is left to do once the winners are known.
struct HeadJob {
    gpu: Arc<Gpu>,
    projection: Projection,
    q: Operand,
    h: Operand,
    normalize: bool,
    wants: HeadGradients,
    /// Types of `W` and `b`.
    dtypes: [DType; 2],
}

/// Starts the gradients of a validated operator.
pub(crate) fn from_hidden_backward(
    gpu: &Arc<Gpu>,
    op: &FromHiddenBackward<'_>,
    cancel: &Cancel,
) -> Result<Submission> {
    let forward = &op.forward;
    let given = op.argmax.cloned();
    let scored = match &given {
        Some(_) => None,
        None => {
            let mut forward = forward.clone();
            forward.options.argmax = true;
            Some(from_hidden(gpu, &forward, cancel)?)
        }
    };
    let projection = Projection::new(gpu, forward, true)?;
    let job = HeadJob {
        gpu: gpu.clone(),
        q: Operand::tokens(gpu, &forward.q, false, 0)?,
        h: Operand::tokens(gpu, &forward.h, false, projection.widest())?,
        projection,
        normalize: forward.options.normalize,
        wants: HeadGradients { b: op.wants.b && forward.b.is_some(), ..op.wants },
        dtypes: [forward.w.dtype(), forward.b.as_ref().map_or(DType::F32, |b| b.dtype())],
    };
    let grad = op.grad.to_vec();
    let cancel = cancel.clone();
    Ok(Submission::pending(Box::pin(async move {
        let argmax = match (given, scored) {
            (Some(argmax), _) => argmax,
            (None, Some(scored)) => winners_of(scored.await?),
            (None, None) => unreachable!("one or the other"),
        };
        cancel.check()?;
        job.run(&Winners { pairing: Pairing::Cross, grad, argmax }).await
    })))
}

/// Winning rows of a shard of hidden states.
struct Won {
    /// Which rows of the shard won, ascending, and their place in the buffers by row of the shard.
    rows: Vec<u32>,
    place: Vec<u32>,
    range: Range<u32>,
    /// Projections, before normalisation, and factors that normalise them.
    projected: Buffer,
    factors: Option<Buffer>,
}

impl Won {
    fn source(&self, stride: u32) -> Source<'_> {
        Source {
            element: Element::F32,
            rows: &self.projected,
            factors: self.factors.as_ref(),
            codec: None,
            stride,
            range: self.range.clone(),
            index: Some(&self.place),
        }
    }
}

impl HeadJob {
    async fn run(self, winners: &Winners) -> Result<Output> {
        let (read, made) = self.record(winners)?;
        let read = read.finish().await?;
        let mut read = read.into_iter();
        let (q, h) = (&self.q, &self.h);
        let mut gathered = |operand: &Operand, parts: &[(Vec<u32>, u32)]| {
            let mut grad = Gathered::new(operand.shape.clone(), operand.dtype);
            for ((rows, first), read) in parts.iter().zip(&mut read) {
                grad.put(&read, rows, *first, &operand.places);
            }
            grad.tensor()
        };
        let (d, d_model) = (self.projection.d, self.projection.d_model);
        let grad_q = made.q.map(|parts| gathered(q, &parts));
        let grad_h = made.h.map(|parts| gathered(h, &parts));
        let mut dense = |shape: Vec<usize>, dtype| {
            let values = read.next().expect("it was asked for").into_iter().map(f32::from_bits).collect();
            Gradients::rounded(values, shape, dtype)
        };
        let grad_w = self.wants.w.then(|| dense(vec![d, d_model], self.dtypes[0]));
        let grad_b = self.wants.b.then(|| dense(vec![d], self.dtypes[1]));
        Ok(Output::Gradients(Gradients { q: grad_q, d: None, h: grad_h, w: grad_w, b: grad_b }))
    }

    fn record(&self, winners: &Winners) -> Result<(crate::submit::Pending, Made)> {
        let Self { gpu, projection, q, h, .. } = self;
        let (d, d_model) = (projection.d, projection.d_model);
        let (width, hidden_width) = projection.widths();
        let mut batch = Batch::new(gpu);
        let to_q = |emit: &mut dyn FnMut(u32, u32, f32)| {
            winners.each(&q.places, &h.places, emit);
        };
        let to_h = |emit: &mut dyn FnMut(u32, u32, f32)| {
            winners.each(&q.places, &h.places, |q, h, g| emit(h, q, g));
        };
        let grad_w = gpu.scratch_with(&vec![0; if self.wants.w { 4 * d * d_model } else { 0 }])?;
        let grad_b = gpu.scratch_with(&vec![0; if self.wants.b { 4 * d } else { 0 }])?;
        let ones = gpu.scratch_with(bytemuck::cast_slice(&[1f32; 4]))?;
        let nothing = gpu.scratch(0)?;
        let mut all: Vec<Won> = Vec::new();
        let mut hidden_grads: Vec<(Buffer, u64)> = Vec::new();
        for part in h.sources() {
            // Gradients of the projected rows that won, and those rows once more.
            let grads = sums(&mut batch, &q.sources(), part.range.clone(), d, &to_h)?;
            let count = grads.rows.len() as u32;
            let rows = grads.rows.clone();
            let copies: Contributions<'_> = &|emit| {
                (0u32..).zip(&rows).for_each(|(at, &row)| emit(at, part.range.start + row, 1.0));
            };
            let hidden = sums(&mut batch, std::slice::from_ref(&part), 0..count, d_model, copies)?;
            let projected = projection.project(&mut batch, &hidden.values, hidden.width, count)?;
            let mut factors = None;
            if self.normalize {
                let to = gpu.scratch(4 * u64::from(count))?;
                let params = RowsParams { rows: count, stride: width, wide_stride: 0, scaled: 0 };
                prepare(&mut batch, DType::F32, &projected, &params, &to, true)?;
                factors = Some(to);
            }
            let mut place = vec![0; part.range.len()];
            (0u32..).zip(&rows).for_each(|(at, &row)| place[row as usize] = at);
            let won = Won { rows, place, range: part.range.clone(), projected, factors };
            let identity: Vec<u32> = (0..count).collect();
            through_norm(&mut batch, &grads, &won.source(width), &identity, d)?;
            self.reduce(&mut batch, &grads, &hidden, [&grad_w, &grad_b, &ones, &nothing])?;
            if let (true, Some(transposed)) = (self.wants.h, &projection.transposed) {
                let bytes = 16 * u64::from(hidden_width) * u64::from(count);
                let out = gpu.scratch(bytes)?;
                let params = MatmulParams {
                    m: count,
                    n: 4 * hidden_width,
                    k: 4 * width,
                    a_stride: width,
                    b_stride: width,
                    c_stride: 4 * hidden_width,
                    ..Default::default()
                };
                matmul(&mut batch, false, params, [&grads.values, transposed, &nothing, &out])?;
                hidden_grads.push((out, bytes));
            }
            all.push(won);
        }
        let mut made = Made::default();
        if self.wants.q {
            let sources: Vec<Source<'_>> = all.iter().map(|won| won.source(width)).collect();
            let mut parts = Vec::new();
            for part in q.sources() {
                let grads = sums(&mut batch, &sources, part.range.clone(), d, &to_q)?;
                batch.read(&grads.values, 16 * u64::from(width) * grads.rows.len() as u64);
                parts.push((grads.rows, part.range.start));
            }
            made.q = Some(parts);
        }
        if self.wants.h {
            hidden_grads.iter().for_each(|(grads, bytes)| batch.read(grads, *bytes));
            made.h = Some(all.into_iter().map(|won| (won.rows, won.range.start)).collect());
        }
        if self.wants.w {
            batch.read(&grad_w, 4 * (d * d_model) as u64);
        }
        if self.wants.b {
            batch.read(&grad_b, 4 * d as u64);
        }
        Ok((batch.submit()?, made))
    }

    /// Adds the part of some rows to the gradients of `W` and `b`.
    fn reduce(
        &self,
        batch: &mut Batch,
        grads: &Sums,
        hidden: &Sums,
        [grad_w, grad_b, ones, nothing]: [&Buffer; 4],
    ) -> Result<()> {
        let params = MatmulParams {
            m: self.projection.d as u32,
            k: grads.rows.len() as u32,
            a_stride: grads.width,
            flags: ADD,
            ..Default::default()
        };
        if self.wants.w {
            let n = self.projection.d_model as u32;
            let params = MatmulParams { n, b_stride: hidden.width, c_stride: n, ..params };
            matmul(batch, true, params, [&grads.values, &hidden.values, nothing, grad_w])?;
        }
        if self.wants.b {
            // One row of ones, again and again.
            let params = MatmulParams { n: 1, b_stride: 0, c_stride: 1, ..params };
            matmul(batch, true, params, [&grads.values, ones, nothing, grad_b])?;
        }
        Ok(())
    }
}

/// Rows that were asked for, by shard: rows of the shard, first row of the shard.
#[derive(Default)]
struct Made {
    q: Option<Vec<(Vec<u32>, u32)>>,
    h: Option<Vec<(Vec<u32>, u32)>>,
}
