//! Learning from pairs: every query should score its own document above the others of the batch.

use maxsim::{Engine, FromHidden, FromHiddenBackward, HeadGradients, Result};

use super::{Batch, Config, Found, Pairs, Projection, Task, find, log_softmax};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// Mean loss over the held-out pairs in one batch, before and after.
    pub(crate) loss: [f64; 2],
    /// Held-out queries over held-out documents, before and after.
    pub(crate) found: [Found; 2],
    /// The same with undisturbed vectors, as they are.
    pub(crate) undisturbed: Found,
}

/// Trains a projection of hidden states and measures it on pairs it has not seen.
pub(crate) fn run(engine: &Engine, config: Config, seed: u64) -> Result<Report> {
    let mut task = Task::new(config, seed)?;
    let train = task.train.clone();
    let trained = task.fit(|projection, ids| {
        let batch = |side: &Batch| side.gather(ids.iter().copied());
        let pairs = Pairs { queries: batch(&train.queries), documents: batch(&train.documents) };
        loss_and_gradient(engine, projection, &pairs, config.temperature)
    })?;
    let loss = |p: &Projection| -> Result<f64> {
        Ok(loss_and_gradient(engine, p, &task.held_out, config.temperature)?.0)
    };
    let found = |p: &Projection| find(engine, &task.held_out, Some(p));
    Ok(Report {
        loss: [loss(&task.start)?, loss(&trained)?],
        found: [found(&task.start)?, found(&trained)?],
        undisturbed: find(engine, &task.clean.range(config.train..config.train + config.held_out), None)?,
    })
}

/// Mean over queries of `−log softmax_j(S[i, j] / temperature)[i]`, `S = maxsim(norm(W·h_q), norm(W·h_d))`, and its gradient
/// with respect to `W`, which both sides share.
pub(crate) fn loss_and_gradient(
    engine: &Engine,
    projection: &Projection,
    pairs: &Pairs,
    temperature: f64,
) -> Result<(f64, Vec<f32>)> {
    let dim = projection.shape[0];
    let count = pairs.queries.count();

    // Queries are few: they are projected and normalised here. Documents go through the fused head as hidden states.
    let mut queries = projection.project(&pairs.queries);
    let lengths: Vec<f32> = queries
        .vectors
        .chunks_exact_mut(dim)
        .map(|p| {
            let length = p.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
            p.iter_mut().for_each(|x| *x /= length);
            length
        })
        .collect();
    let mut head = FromHidden::new(queries.tokens()?, pairs.documents.tokens()?, projection.tensor()?, None);
    head.options.argmax = true; // The backward pass asks who won; known, that need not be computed again.
    let scores = engine.maxsim_from_hidden(head.clone())?;

    // d loss / d S = (softmax − 1 on the diagonal) / (queries · temperature).
    let mut loss = 0.0;
    let mut grad = Vec::with_capacity(count * count);
    for (i, row) in scores.values.chunks_exact(count).enumerate() {
        let log_p = log_softmax(row, temperature);
        loss -= log_p[i] / count as f64;
        let part = |(j, log_p): (usize, f64)| log_p.exp() - if i == j { 1.0 } else { 0.0 };
        grad.extend(log_p.into_iter().enumerate().map(|p| (part(p) / (count as f64 * temperature)) as f32));
    }

    let mut backward = FromHiddenBackward::new(head, &grad);
    backward.argmax = scores.argmax.as_ref();
    backward.wants = HeadGradients { q: true, h: false, w: true, b: false };
    let gradients = engine.maxsim_from_hidden_backward(backward)?;
    let values = |tensor: Option<maxsim::Tensor>| tensor.expect("asked for").data().as_ref().to_f32();
    // The documents' part in W came through the head. The queries' part: from q̂ = p / ‖p‖ to p, then from p = W·h to W.
    let (mut grad_w, mut grad_q) = (values(gradients.w), values(gradients.q));
    for ((g, q), length) in grad_q.chunks_exact_mut(dim).zip(queries.vectors.chunks_exact(dim)).zip(lengths) {
        let along: f32 = g.iter().zip(q).map(|(g, q)| g * q).sum();
        g.iter_mut().zip(q).for_each(|(g, q)| *g = (*g - along * q) / length);
    }
    projection.backward(&pairs.queries.vectors, &grad_q, &mut grad_w);
    Ok((loss, grad_w))
}
