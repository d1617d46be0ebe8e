//! Fused projection head: hidden states are projected block by block, scored while they are in cache, and forgotten.

use maxsim_core::{
    Cancel, Forward, FromHidden, FromHiddenBackward, Gradients, Result, Scores, TensorRef, Tokens,
};

use crate::arch::Kernels;
use crate::backward::{add_scaled, jacobian, widen};
use crate::documents::Reader;
use crate::forward::{Reading, forward_reader};
use crate::kernel::project::Projection;
use crate::norm::inverse_norm;
use crate::threads::Threads;

/// Dimensions of a slab: 16 KiB of an AVX2 panel, 32 KiB of an AVX-512 one.
const SLAB: usize = 256;

/// Rows of hidden states that are projected together; they pass each slab of `W` while it is in the first-level cache.
pub(crate) const HEAD_ROWS: usize = 48;

/// `W` and `b` in the kernels' form.
pub(crate) struct Head {
    /// Output dimension.
    pub(crate) dim: usize,
    /// Input dimension.
    d_model: usize,
    /// Panels of output columns behind one another, each `[d_model][width]`.
    panels: Vec<f32>,
    /// Per panel: first column and vectors.
    places: Vec<(usize, usize)>,
    /// Bias, zero where there is none, padded to whole vectors.
    bias: Vec<f32>,
}

impl Head {
    pub(crate) fn new(w: &TensorRef<'_>, b: Option<&TensorRef<'_>>, kernels: &Kernels) -> Self {
        let (dim, d_model) = (w.shape()[0], w.shape()[1]);
        let widest = kernels.vectors * kernels.lanes;
        let mut head = Self { dim, d_model, panels: Vec::new(), places: Vec::new(), bias: Vec::new() };
        for column in (0..dim).step_by(widest) {
            let here = widest.min(dim - column);
            let vectors = here.div_ceil(kernels.lanes);
            let width = vectors * kernels.lanes;
            head.places.push((column, vectors));
            let at = head.panels.len();
            head.panels.resize(at + d_model * width, 0.0);
            for c in 0..here {
                let row = w.data().slice((column + c) * d_model..(column + c + 1) * d_model);
                crate::pack::transpose_any(row, &mut head.panels[at..], width, c);
            }
        }
        head.bias = b.map_or_else(Vec::new, |b| b.data().to_f32());
        head.bias.resize(dim.next_multiple_of(kernels.lanes), 0.0);
        head
    }

    /// `out = rows · Wᵀ + b`, `[count, dim]`. `wide` is memory for rows padded to whole vectors.
    pub(crate) fn project(&self, rows: &[f32], wide: &mut Vec<f32>, out: &mut Vec<f32>, kernels: &Kernels) {
        let count = rows.len() / self.d_model;
        let stride = self.bias.len();
        let target = if stride == self.dim { &mut *out } else { &mut *wide };
        target.resize(count * stride, 0.0);
        for first in (0..self.d_model).step_by(SLAB) {
            let slab = SLAB.min(self.d_model - first);
            let mut at = 0;
            for &(column, vectors) in &self.places {
                let width = vectors * kernels.lanes;
                let panel = &self.panels[at..at + self.d_model * width];
                at += panel.len();
                let panel = &panel[first * width..(first + slab) * width];
                let bias = &self.bias[column..column + width];
                let mut job = Projection::new(
                    kernels.lanes,
                    panel,
                    vectors,
                    rows,
                    self.d_model,
                    first,
                    bias,
                    target,
                    stride,
                    column,
                );
                // SAFETY: `kernels` exist only for levels this machine runs.
                unsafe { (kernels.project)(&mut job) };
            }
        }
        if stride != self.dim {
            out.clear();
            out.extend(wide.chunks_exact(stride).flat_map(|row| &row[..self.dim]));
        }
    }
}

/// Runs a validated operator.
pub(crate) fn from_hidden(
    op: &FromHidden<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let head = Head::new(&op.w, op.b.as_ref(), kernels);
    run(op, &head, op.options.argmax, kernels, threads, cancel)
}

fn run(
    op: &FromHidden<'_>,
    head: &Head,
    argmax: bool,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Scores> {
    let mut forward: Forward<'_> = op.scoring();
    // Queries come normalised; the option is about projected document tokens, which the reader sees to.
    forward.options.normalize = false;
    forward.options.argmax = argmax;
    let reader = Reader::new(&op.h, op.options.normalize, kernels, usize::MAX).with_head(head);
    forward_reader(&forward, Reading::Floats(reader), kernels, threads, cancel)
}

/// f32 values of winning rows held at a time (2 MiB).
const WAVE: usize = 512 << 10;

/// Gradients of a validated operator. Only winning rows of `H` are projected again.
pub(crate) fn from_hidden_backward(
    op: &FromHiddenBackward<'_>,
    kernels: &'static Kernels,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Gradients> {
    let forward = &op.forward;
    let head = Head::new(&forward.w, forward.b.as_ref(), kernels);
    let recomputed = match op.argmax {
        Some(_) => None,
        None => run(forward, &head, true, kernels, threads, cancel)?.argmax,
    };
    let argmax = op.argmax.or(recomputed.as_ref()).expect("winners were given or recomputed");
    let (q, h) = (&forward.q, &forward.h);
    let (d, d_model, documents) = (head.dim, head.d_model, h.count());
    let w = forward.w.data().to_f32();
    let owners = row_owners(q);
    // Winner and score gradient of query token (i, s) in document j.
    let winner = |i: usize, s: usize, j: usize| {
        let pair = i * documents + j;
        (argmax.values[argmax.range(pair).start + s], op.grad[pair])
    };

    let mut grad_q = op.wants.q.then(|| vec![0f32; q.data().len()]);
    let mut grad_h = op.wants.h.then(|| vec![0f32; h.data().len()]);
    let mut grad_w = op.wants.w.then(|| vec![0f32; d * d_model]);
    let mut grad_b = (op.wants.b && forward.b.is_some()).then(|| vec![0f32; d]);

    // Documents in waves whose winning rows fit in bounded memory. Everything is added in document order, so neither waves
    // nor threads show in the bits.
    let query_tokens: usize = (0..q.count()).map(|i| q.rows(i).len()).sum();
    let size = |j: usize| h.rows(j).len().min(query_tokens) * (d + d_model);
    let mut first = 0;
    while first < documents {
        let mut last = first + 1;
        let mut values = size(first);
        while last < documents && values + size(last) <= WAVE {
            values += size(last);
            last += 1;
        }
        let wave = threads.map(
            last - first,
            || (),
            |(), task| {
                cancel.check()?;
                let j = first + task;
                let winner = |i, s| winner(i, s, j);
                Ok(WinningRows::new(&head, q, h, j, forward.options.normalize, kernels, &winner))
            },
        )?;
        if let Some(grad_q) = &mut grad_q {
            let rows: Vec<(usize, &mut [f32])> = grad_q.chunks_exact_mut(d).enumerate().collect();
            threads.for_each(rows, |(row, out)| {
                let Some((i, s)) = owners[row].filter(|_| q.keeps(row)) else { return Ok(()) };
                for (task, document) in wave.iter().enumerate() {
                    let (t, g) = winner(i, s, first + task);
                    if t >= 0 {
                        add_scaled(out, g, document.unit(t, d));
                    }
                }
                Ok(())
            })?;
        }
        if let Some(grad_h) = &mut grad_h {
            // grad_H = grad_P · W, one winning row at a time.
            let (mut rest, mut at, mut rows) = (&mut grad_h[..], 0, Vec::new());
            for document in &wave {
                for (&row, g) in document.rows.iter().zip(document.grad.chunks_exact(d)) {
                    let (_, tail) = rest.split_at_mut((row - at) * d_model);
                    let (out, tail) = tail.split_at_mut(d_model);
                    rows.push((out, g));
                    (rest, at) = (tail, row + 1);
                }
            }
            threads.for_each(rows, |(out, g)| {
                for (&g, w) in g.iter().zip(w.chunks_exact(d_model)) {
                    add_scaled(out, g, w);
                }
                Ok(())
            })?;
        }
        if let Some(grad_w) = &mut grad_w {
            let rows: Vec<(usize, &mut [f32])> = grad_w.chunks_exact_mut(d_model).enumerate().collect();
            threads.for_each(rows, |(c, out)| {
                for document in &wave {
                    for (g, hidden) in
                        document.grad.chunks_exact(d).zip(document.hidden.chunks_exact(d_model))
                    {
                        add_scaled(out, g[c], hidden);
                    }
                }
                Ok(())
            })?;
        }
        if let Some(grad_b) = &mut grad_b {
            for g in wave.iter().flat_map(|document| document.grad.chunks_exact(d)) {
                add_scaled(grad_b, 1.0, g);
            }
        }
        first = last;
    }
    let round = |values: Option<Vec<f32>>, shape: Vec<usize>, dtype| {
        values.map(|values| Gradients::rounded(values, shape, dtype))
    };
    Ok(Gradients {
        q: round(grad_q, q.shape(), q.dtype()),
        d: None,
        h: round(grad_h, h.shape(), h.dtype()),
        w: round(grad_w, vec![d, d_model], forward.w.dtype()),
        b: forward.b.as_ref().and_then(|b| round(grad_b, vec![d], b.dtype())),
    })
}

/// Which query and token every row of `q` is; `None` behind a length.
fn row_owners(q: &Tokens<'_>) -> Vec<Option<(usize, usize)>> {
    let mut owners = vec![None; q.slots()];
    for i in 0..q.count() {
        for (s, row) in q.rows(i).enumerate() {
            owners[row] = Some((i, s));
        }
    }
    owners
}

/// The rows of one document that won something.
struct WinningRows {
    /// Rows of `H`, ascending.
    rows: Vec<usize>,
    /// Their hidden states `[n, d_model]`.
    hidden: Vec<f32>,
    /// Their projected (and normalised) vectors `[n, d]`.
    projected: Vec<f32>,
    /// Gradients with respect to the projection before normalisation `[n, d]`.
    grad: Vec<f32>,
    /// Place of every token of the document in the lists above.
    place: Vec<u32>,
}

impl WinningRows {
    /// `winner(i, s)`: winning token of query token `(i, s)` in document `j`, and the gradient of that pair's score.
    fn new(
        head: &Head,
        q: &Tokens<'_>,
        h: &Tokens<'_>,
        j: usize,
        normalize: bool,
        kernels: &Kernels,
        winner: &impl Fn(usize, usize) -> (i32, f32),
    ) -> Self {
        const NOWHERE: u32 = u32::MAX;
        let (d, d_model) = (head.dim, head.d_model);
        let first = h.rows(j).start;
        let query_tokens =
            || (0..q.count()).flat_map(|i| q.rows(i).enumerate().map(move |(s, row)| (i, s, row)));
        let mut place = vec![NOWHERE; h.rows(j).len()];
        for (i, s, _) in query_tokens() {
            let (t, _) = winner(i, s);
            if t >= 0 {
                place[t as usize] = 0;
            }
        }
        let (mut rows, mut hidden) = (Vec::new(), Vec::new());
        for (t, place) in place.iter_mut().enumerate().filter(|(_, place)| **place != NOWHERE) {
            *place = rows.len() as u32;
            let row = first + t;
            rows.push(row);
            hidden.extend(h.data().slice(row * d_model..(row + 1) * d_model).to_f32());
        }
        let (mut wide, mut projected) = (Vec::new(), Vec::new());
        head.project(&hidden, &mut wide, &mut projected, kernels);
        let mut grad = vec![0f32; rows.len() * d];
        let mut query = vec![0f32; d];
        for (i, s, row) in query_tokens() {
            let (t, g) = winner(i, s);
            if t >= 0 && q.keeps(row) {
                let at = place[t as usize] as usize * d;
                widen(q.data().slice(row * d..(row + 1) * d), &mut query);
                add_scaled(&mut grad[at..at + d], g, &query);
            }
        }
        if normalize {
            for (row, grad) in projected.chunks_exact_mut(d).zip(grad.chunks_exact_mut(d)) {
                jacobian(row, grad);
                let factor = inverse_norm(row, 1.0, kernels);
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
        Self { rows, hidden, projected, grad, place }
    }

    /// The projected (and normalised) vector of a winning token.
    fn unit(&self, token: i32, d: usize) -> &[f32] {
        let place = self.place[token as usize] as usize;
        &self.projected[place * d..(place + 1) * d]
    }
}
