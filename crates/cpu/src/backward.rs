//! Gradients on the CPU. Winners are known or recomputed; what is left are two gathers without atomics.
//!
//! Every output row belongs to one task, which adds its parts in pair order: the bits depend on neither threads nor
//! method, so `Unified` and `Lowmem` are the same thing here.

use maxsim_core::{
    Argmax, Backward, Cancel, DataBuf, DataRef, Documents, Element, Error, Forward, Gradients, Result,
    Tensor, Tokens, bf16, f16,
};

use crate::arch::Kernels;
use crate::forward::forward;
use crate::norm::{EPSILON, inverse_norm};
use crate::threads::Threads;

/// Runs a validated operator.
pub(crate) fn backward(
    op: &Backward<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Gradients> {
    let recomputed = match op.argmax {
        Some(_) => None,
        None => {
            let mut op = op.forward.clone();
            op.options.argmax = true;
            forward(&op, kernels, threads, cancel)?.argmax
        }
    };
    let argmax = op.argmax.or(recomputed.as_ref()).expect("winners were given or recomputed");
    cancel.check()?;
    let job = Job { op: &op.forward, grad: op.grad, argmax, kernels };
    let q = if op.wants_q { Some(job.grad_q(threads, cancel)?) } else { None };
    let d = match &op.forward.d {
        Documents::Tokens(documents) if op.wants_d => Some(job.grad_d(documents, threads, cancel)?),
        _ => None,
    };
    Ok(Gradients { q, d, ..Gradients::default() })
}

struct Job<'a> {
    op: &'a Forward<'a>,
    grad: &'a [f32],
    argmax: &'a Argmax,
    kernels: &'static Kernels,
}

impl Job<'_> {
    /// `grad_Q[i,s] = Σ_j g[i,j] · D[j,t*]`.
    fn grad_q(&self, threads: &Threads, cancel: &Cancel) -> Result<Tensor> {
        let (q, dim) = (&self.op.q, self.op.q.dim());
        let pairs = pairs_by_query(self.op);
        per_sequence(q, threads, cancel, |i, out: &mut [f32]| {
            let mut document = vec![0f32; dim];
            for &pair in &pairs[i] {
                let (pair, g) = (pair as usize, self.grad[pair as usize]);
                let first = self.op.d.sequences().rows(self.op.pair(pair).1).start;
                let winners = self.argmax.pair(pair);
                for ((s, row), out) in q.rows(i).enumerate().zip(out.chunks_exact_mut(dim)) {
                    if winners[s] >= 0 && q.keeps(row) {
                        self.document_row(first + winners[s] as usize, &mut document)?;
                        add_scaled(out, g, &document);
                    }
                }
            }
            self.finish(q, i, out);
            Ok(())
        })
    }

    /// `grad_D[j,t] = Σ_{(i,s): t* = t} g[i,j] · Q[i,s]`.
    fn grad_d(&self, documents: &Tokens<'_>, threads: &Threads, cancel: &Cancel) -> Result<Tensor> {
        let (q, dim) = (&self.op.q, self.op.q.dim());
        let pairs = pairs_by_document(self.op);
        per_sequence(documents, threads, cancel, |j, out: &mut [f32]| {
            let mut query = vec![0f32; dim];
            for &pair in &pairs[j] {
                let (pair, g) = (pair as usize, self.grad[pair as usize]);
                let winners = self.argmax.pair(pair);
                for (s, row) in q.rows(self.op.pair(pair).0).enumerate() {
                    if winners[s] >= 0 && q.keeps(row) {
                        self.unit_row(q, row, &mut query);
                        let at = winners[s] as usize * dim;
                        add_scaled(&mut out[at..at + dim], g, &query);
                    }
                }
            }
            self.finish(documents, j, out);
            Ok(())
        })
    }

    /// A row as the similarity sees it: normalised if the operator normalises.
    fn unit_row(&self, tokens: &Tokens<'_>, row: usize, out: &mut [f32]) {
        let dim = tokens.dim();
        widen(tokens.data().slice(row * dim..(row + 1) * dim), out);
        if self.op.options.normalize {
            let factor = inverse_norm(out, 1.0, self.kernels);
            out.iter_mut().for_each(|x| *x *= factor);
        }
    }

    fn document_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match &self.op.d {
            Documents::Tokens(d) => self.unit_row(d, row, out),
            Documents::Residual(d) => {
                d.codec().decode(d.codes()[row] as usize, d.residual(row), out);
                if self.op.options.normalize {
                    let factor = match d.inv_norms() {
                        Some(stored) => stored.get(row),
                        None => inverse_norm(out, 1.0, self.kernels),
                    };
                    out.iter_mut().for_each(|x| *x *= factor);
                }
            }
            other => {
                return Err(Error::Unsupported {
                    what: format!("gradients over {other:?}"),
                    hint: "give documents in host memory".into(),
                });
            }
        }
        Ok(())
    }

    /// From gradients of normalised rows to gradients of the rows.
    fn finish(&self, tokens: &Tokens<'_>, sequence: usize, out: &mut [f32]) {
        if !self.op.options.normalize {
            return;
        }
        let dim = tokens.dim();
        let mut x = vec![0f32; dim];
        for (row, out) in tokens.rows(sequence).zip(out.chunks_exact_mut(dim)) {
            // Rows without a part are zero and stay so, whatever they hold.
            if out.iter().any(|&g| g != 0.0) {
                widen(tokens.data().slice(row * dim..(row + 1) * dim), &mut x);
                jacobian(&x, out);
            }
        }
    }
}

/// Turns the gradient of `x̂ = x / max(‖x‖, 1e-6)` into that of `x`: `(g − ⟨g, x̂⟩ x̂) / ‖x‖`, and 0 where `‖x‖ < 1e-6`.
///
/// The difference cancels where `g` points along `x`, so it is made in f64.
pub(crate) fn jacobian(x: &[f32], grad: &mut [f32]) {
    let norm = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm < f64::from(EPSILON) {
        grad.fill(0.0);
        return;
    }
    let along: f64 = x.iter().zip(&*grad).map(|(&x, &g)| f64::from(x) / norm * f64::from(g)).sum();
    for (g, &x) in grad.iter_mut().zip(x) {
        *g = ((f64::from(*g) - along * (f64::from(x) / norm)) / norm) as f32;
    }
}

/// `out += g · row`.
pub(crate) fn add_scaled(out: &mut [f32], g: f32, row: &[f32]) {
    for (out, &x) in out.iter_mut().zip(row) {
        *out += g * x;
    }
}

pub(crate) fn widen(from: DataRef<'_>, to: &mut [f32]) {
    maxsim_core::dispatch!(DataRef, from, |from| {
        for (x, y) in from.iter().zip(to) {
            *y = Element::to_f32(*x);
        }
    });
}

/// Pairs of every query, in pair order.
fn pairs_by_query(op: &Forward<'_>) -> Vec<Vec<u32>> {
    group(op, op.q.count(), |pair| op.pair(pair).0)
}

/// Pairs of every document, in pair order.
fn pairs_by_document(op: &Forward<'_>) -> Vec<Vec<u32>> {
    group(op, op.d.count(), |pair| op.pair(pair).1)
}

fn group(op: &Forward<'_>, count: usize, owner: impl Fn(usize) -> usize) -> Vec<Vec<u32>> {
    let mut pairs = vec![Vec::new(); count];
    for pair in 0..op.pair_count() {
        pairs[owner(pair)].push(pair as u32);
    }
    pairs
}

/// A tensor of `tokens`' shape and dtype whose sequences are computed in parallel, each in f32 and stored once. Slots that no
/// sequence covers are zero.
fn per_sequence(
    tokens: &Tokens<'_>,
    threads: &Threads,
    cancel: &Cancel,
    work: impl Fn(usize, &mut [f32]) -> Result<()> + maxsim_core::MaybeSendSync,
) -> Result<Tensor> {
    fn run<T: Element>(
        tokens: &Tokens<'_>,
        threads: &Threads,
        cancel: &Cancel,
        work: impl Fn(usize, &mut [f32]) -> Result<()> + maxsim_core::MaybeSendSync,
    ) -> Result<DataBuf> {
        let dim = tokens.dim();
        let mut out = vec![T::default(); tokens.data().len()];
        let mut pieces = Vec::with_capacity(tokens.count());
        let (mut rest, mut at) = (&mut out[..], 0);
        for i in 0..tokens.count() {
            let rows = tokens.rows(i);
            let (_, tail) = rest.split_at_mut((rows.start - at) * dim);
            let (piece, tail) = tail.split_at_mut(rows.len() * dim);
            pieces.push((i, piece));
            (rest, at) = (tail, rows.end);
        }
        threads.for_each(pieces, |(i, piece)| {
            cancel.check()?;
            let mut values = vec![0f32; piece.len()];
            work(i, &mut values)?;
            for (x, v) in piece.iter_mut().zip(values) {
                *x = T::from_f32(v);
            }
            Ok(())
        })?;
        Ok(T::buffer(out))
    }
    let data = match tokens.data() {
        DataRef::F32(_) => run::<f32>(tokens, threads, cancel, work)?,
        DataRef::F16(_) => run::<f16>(tokens, threads, cancel, work)?,
        DataRef::BF16(_) => run::<bf16>(tokens, threads, cancel, work)?,
        _ => unreachable!("validation refuses quantised operands"),
    };
    Tensor::new(data, tokens.shape())
}
