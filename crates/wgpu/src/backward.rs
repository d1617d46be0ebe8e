//! Gradients of the scoring operator: winners from a forward run, unless they are given, then two gathers.

use std::sync::Arc;

use maxsim_core::{
    Backward, Cancel, DType, Documents, Error, Forward, Gradients, Output, Result, Sequences, Submission,
    Tokens,
};
use maxsim_shaders::kernels::Element;

use crate::device::Gpu;
use crate::forward::forward;
use crate::gradient::{Gathered, Places, Source, Winners, owned, sums, through_norm};
use crate::memory::Buffer;
use crate::plan::stored;
use crate::rows::{Compact, Held};
use crate::submit::Batch;

/// An operand on the device.
pub(crate) struct Operand {
    pub(crate) held: Held,
    factors: Vec<Option<Buffer>>,
    pub(crate) places: Places,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
}

impl Operand {
    /// Uploads `tokens`, in shards whose gradients fit a binding, and so do rows of `widest` bytes.
    pub(crate) fn tokens(
        gpu: &Arc<Gpu>,
        tokens: &Tokens<'_>,
        normalize: bool,
        widest: usize,
    ) -> Result<Self> {
        let compact = Compact::of(tokens.sequences());
        let widest = widest.max(16 * tokens.dim().div_ceil(4));
        let held = Held::upload_compact(gpu, tokens, &compact, false, widest)?;
        Self::new(gpu, held, tokens.sequences(), &compact, tokens.shape(), normalize)
    }

    fn new(
        gpu: &Arc<Gpu>,
        held: Held,
        sequences: &Sequences<'_>,
        compact: &Compact,
        shape: Vec<usize>,
        normalize: bool,
    ) -> Result<Self> {
        let factors = held.shards.iter().map(|shard| shard.factors(gpu, &held, normalize));
        let factors = factors.collect::<Result<_>>()?;
        let (places, dtype) = (Places::new(sequences, compact), held.dtype);
        Ok(Self { held, factors, places, shape, dtype })
    }

    pub(crate) fn sources(&self) -> Vec<Source<'_>> {
        let mut first = 0;
        let codec = self.held.codec().map(|codec| &codec.buffer);
        let element = if codec.is_some() { Element::Residual } else { stored(self.dtype) };
        let mut sources = Vec::with_capacity(self.held.shards.len());
        for (shard, factors) in self.held.shards.iter().zip(&self.factors) {
            let range = first..first + shard.count;
            first = range.end;
            let (rows, factors, stride) = (&shard.rows, factors.as_ref(), self.held.stride);
            sources.push(Source { element, rows, factors, codec, stride, range, index: None });
        }
        sources
    }
}

/// What is left to do once the winners are known.
struct Job {
    gpu: Arc<Gpu>,
    q: Operand,
    d: Operand,
    wants_q: bool,
    wants_d: bool,
    dim: usize,
}

/// Starts a validated operator. `Unified` and `Lowmem` are the same here: every row of a gradient has one owner.
pub(crate) fn backward(gpu: &Arc<Gpu>, op: &Backward<'_>, cancel: &Cancel) -> Result<Submission> {
    let scoring = &op.forward;
    let normalize = scoring.options.normalize;
    let q = Operand::tokens(gpu, &scoring.q, normalize, 0)?;
    let d = match &scoring.d {
        Documents::Tokens(d) => Operand::tokens(gpu, d, normalize, 0)?,
        Documents::Residual(d) => {
            let held = Held::upload_residual(gpu, d, false)?;
            let compact = Compact::of(d.sequences());
            Operand::new(gpu, held, d.sequences(), &compact, Vec::new(), normalize)?
        }
        _ => {
            return Err(Error::Unsupported {
                what: "gradients over documents on the device".into(),
                hint: "give documents in host memory".into(),
            });
        }
    };
    let (wants_q, wants_d) = (op.wants_q, op.wants_d && !scoring.d.is_residual());
    let job = Job { gpu: gpu.clone(), q, d, wants_q, wants_d, dim: scoring.q.dim() };
    let (pairing, grad) = (owned(&scoring.pairing), op.grad.to_vec());
    let given = op.argmax.cloned();
    let scored = match &given {
        Some(_) => None,
        None => {
            let mut scoring: Forward<'_> = scoring.clone();
            scoring.options.argmax = true;
            Some(forward(gpu, &scoring, cancel)?)
        }
    };
    let cancel = cancel.clone();
    Ok(Submission::pending(Box::pin(async move {
        let argmax = match (given, scored) {
            (Some(argmax), _) => argmax,
            (None, Some(scored)) => winners_of(scored.await?),
            (None, None) => unreachable!("one or the other"),
        };
        cancel.check()?;
        job.run(&Winners { pairing, grad, argmax }).await
    })))
}

/// The winners of a forward run that was asked for them.
pub(crate) fn winners_of(output: Output) -> maxsim_core::Argmax {
    match output {
        Output::Scores(scores) => scores.argmax.expect("asked for"),
        _ => unreachable!("a scoring operator"),
    }
}

impl Job {
    async fn run(self, winners: &Winners) -> Result<Output> {
        let (q, d) = (&self.q, &self.d);
        let mut batch = Batch::new(&self.gpu);
        let to_q = |emit: &mut dyn FnMut(u32, u32, f32)| {
            winners.each(&q.places, &d.places, emit);
        };
        let to_d = |emit: &mut dyn FnMut(u32, u32, f32)| {
            winners.each(&q.places, &d.places, |q, d, g| emit(d, q, g));
        };
        let mut placed = Vec::new();
        for (wanted, target, source, contributions) in [
            (self.wants_q, q, d, &to_q as &dyn Fn(&mut dyn FnMut(u32, u32, f32))),
            (self.wants_d, d, q, &to_d),
        ] {
            if !wanted {
                continue;
            }
            for part in target.sources() {
                let sums = sums(&mut batch, &source.sources(), part.range.clone(), self.dim, contributions)?;
                through_norm(&mut batch, &sums, &part, &sums.rows, self.dim)?;
                batch.read(&sums.values, 16 * u64::from(sums.width) * sums.rows.len() as u64);
                placed.push((std::ptr::eq(target, q), sums.rows, part.range.start));
            }
        }
        let read = batch.submit()?.finish().await?;
        let mut grad_q = self.wants_q.then(|| Gathered::new(q.shape.clone(), q.dtype));
        let mut grad_d = self.wants_d.then(|| Gathered::new(d.shape.clone(), d.dtype));
        for ((of_q, rows, first), read) in placed.into_iter().zip(&read) {
            let (grad, places) = if of_q { (&mut grad_q, &q.places) } else { (&mut grad_d, &d.places) };
            grad.as_mut().expect("wanted").put(read, &rows, first, places);
        }
        Ok(Output::Gradients(Gradients {
            q: grad_q.map(Gathered::tensor),
            d: grad_d.map(Gathered::tensor),
            ..Gradients::default()
        }))
    }
}
