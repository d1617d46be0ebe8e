//! Learning from a teacher: candidates should get the scores that a better scorer gives them.

use maxsim::{Backward, BackwardMethod, Engine, Forward, Options, Result, RetrieveOptions, Tensor, Tokens};

use super::{Batch, Config, Pairs, Projection, Task, log_softmax};

/// Candidates per query.
const CANDIDATES: usize = 8;

/// Queries with their candidates and what the teacher thinks of those.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    queries: Batch,
    /// `N · K` documents, those of a query behind one another.
    candidates: Batch,
    /// `[N, K]`.
    teacher: Vec<f32>,
}

impl Groups {
    /// The teacher is MaxSim over undisturbed vectors; it chooses the candidates, its best among all documents, as well as
    /// scoring them. They resemble each other: hard negatives.
    pub(crate) fn new(engine: &Engine, clean: &Pairs, disturbed: &Pairs) -> Result<Self> {
        let (q, d) = (clean.queries.tokens()?, clean.documents.tokens()?);
        let hits = engine.retrieve(q, d, RetrieveOptions::top_k(CANDIDATES))?;
        let candidates = disturbed.documents.gather(hits.indices.iter().map(|&id| id as usize));
        Ok(Self { queries: disturbed.queries.clone(), candidates, teacher: hits.scores })
    }

    /// The groups `ids`.
    fn gather(&self, ids: &[usize]) -> Self {
        let group = |&i: &usize| i * CANDIDATES..(i + 1) * CANDIDATES;
        Self {
            queries: self.queries.gather(ids.iter().copied()),
            candidates: self.candidates.gather(ids.iter().flat_map(group)),
            teacher: ids.iter().flat_map(|i| &self.teacher[group(i)]).copied().collect(),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// Mean divergence from the teacher on held-out groups, before and after.
    pub(crate) loss: [f64; 2],
    /// Share of held-out queries whose best candidate is the teacher's best, before and after.
    pub(crate) agreement: [f64; 2],
}

/// Trains a projection towards the teacher and measures it on groups it has not seen.
pub(crate) fn run(engine: &Engine, config: Config, seed: u64) -> Result<Report> {
    let mut task = Task::new(config, seed)?;
    let split = config.train;
    let train = Groups::new(engine, &task.clean.range(0..split), &task.train)?;
    let held_out = Groups::new(engine, &task.clean.range(split..split + config.held_out), &task.held_out)?;
    let trained = task.fit(|projection, ids| {
        let (loss, gradient, _) =
            loss_and_gradient(engine, projection, &train.gather(ids), config.temperature)?;
        Ok((loss, gradient))
    })?;
    let (loss_before, _, before) = loss_and_gradient(engine, &task.start, &held_out, config.temperature)?;
    let (loss_after, _, after) = loss_and_gradient(engine, &trained, &held_out, config.temperature)?;
    Ok(Report { loss: [loss_before, loss_after], agreement: [before, after] })
}

/// Mean over queries of `KL(softmax(teacher / temperature) ‖ softmax(student / temperature))` with the student's scores
/// `maxsim(norm(W·h_q), norm(W·h_d)) [N, K]`; its gradient with respect to `W`, which both sides share; and the share of
/// queries for which both put the same candidate first.
pub(crate) fn loss_and_gradient(
    engine: &Engine,
    projection: &Projection,
    groups: &Groups,
    temperature: f64,
) -> Result<(f64, Vec<f32>, f64)> {
    let (n, k, dim) = (groups.queries.count(), CANDIDATES, projection.shape[0]);
    let queries = projection.project(&groups.queries);
    let (candidates, longest, lengths) = projection.project(&groups.candidates).padded();
    // Four axes: every query is scored with its own K candidates.
    let d = Tokens::padded(&candidates, &[n, k, longest, dim])?.with_lengths(&lengths)?;
    let forward = Forward::maxsim(queries.tokens()?, d, Options::normalized().with_argmax());
    let scores = engine.maxsim(forward.q.clone(), forward.d.clone(), forward.options)?;

    let (mut loss, mut agreed) = (0.0, 0);
    let mut grad = Vec::with_capacity(n * k);
    for (student, teacher) in scores.values.chunks_exact(k).zip(groups.teacher.chunks_exact(k)) {
        let (log_s, log_t) = (log_softmax(student, temperature), log_softmax(teacher, temperature));
        // The teacher's candidates come in its order, so that its best is the first.
        agreed += usize::from(student.iter().all(|&s| s <= student[0]));
        for (s, t) in log_s.into_iter().zip(log_t) {
            loss += t.exp() * (t - s) / n as f64;
            grad.push(((s.exp() - t.exp()) / (n as f64 * temperature)) as f32);
        }
    }

    let mut backward = Backward::new(forward, &grad);
    backward.method = BackwardMethod::Lowmem;
    backward.argmax = scores.argmax.as_ref();
    let gradients = engine.backward(backward)?;
    // Normalisation is part of the operator: these are gradients of the projected tokens as they are.
    let values = |tensor: Option<Tensor>| tensor.expect("both are asked for").data().as_ref().to_f32();
    let mut grad_w = vec![0f32; projection.w.len()];
    projection.backward(&groups.queries.vectors, &values(gradients.q), &mut grad_w);
    for (i, grad) in values(gradients.d).chunks_exact(longest * dim).enumerate() {
        projection.backward(groups.candidates.sequence(i), grad, &mut grad_w);
    }
    Ok((loss, grad_w, agreed as f64 / n as f64))
}
