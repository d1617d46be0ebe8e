//! The engine: one entry point per operator over whatever backend was chosen.

mod corpus;

pub use corpus::{Corpus, CorpusOptions, SearchOptions, normalize};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::{Backend, BackendInfo, BackendKind, Cancel, Plan, ResidentIndex, Submission};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ints::Integers;
use crate::op::{
    ApproxScore, Backward, Codec, Documents, Forward, FromHidden, FromHiddenBackward, Gradients, Hit, Op,
    Options, Output, PlaidHits, PlaidSearch, Residual, ResidualCodes, Retrieve, RetrieveOptions, Scores,
    TopK, pack_padded,
};
use crate::plaid::Segment;
use crate::tensor::TensorRef;
use crate::tokens::Tokens;

struct Inner {
    backends: Vec<Arc<dyn Backend>>,
    /// The backend was asked for by name: no moving on to another one.
    pinned: bool,
    warnings: bool,
    warned_unnormalized: AtomicBool,
    warned_fallback: AtomicBool,
}

/// Runs operators. Cheap to clone; clones share backends.
///
/// Most people get one from `maxsim::Engine::auto()`; [`Engine::new`] is for those who bring their own backends.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    cancel: Cancel,
}

impl Engine {
    /// An engine over `backends`, best first. With several, an operator that one cannot run moves to the next.
    ///
    /// # Errors
    /// `ERR_VALUE` if there are none.
    pub fn new(backends: Vec<Arc<dyn Backend>>) -> Result<Self> {
        if backends.is_empty() {
            return Err(Error::value("backends", "at least one backend", "none"));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                pinned: backends.len() == 1,
                backends,
                warnings: true,
                warned_unnormalized: AtomicBool::new(false),
                warned_fallback: AtomicBool::new(false),
            }),
            cancel: Cancel::new(),
        })
    }

    /// The same engine without its one-time warnings.
    pub fn silent(self) -> Self {
        Self {
            inner: Arc::new(Inner {
                backends: self.inner.backends.clone(),
                pinned: self.inner.pinned,
                warnings: false,
                warned_unnormalized: AtomicBool::new(true),
                warned_fallback: AtomicBool::new(true),
            }),
            cancel: self.cancel,
        }
    }

    /// The same engine with its calls stopped by `cancel`: they return `ERR_ABORTED` at their next check.
    pub fn with_cancel(&self, cancel: Cancel) -> Self {
        Self { inner: self.inner.clone(), cancel }
    }

    /// What stops this engine's calls.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Facts about the preferred backend.
    pub fn info(&self) -> &BackendInfo {
        self.inner.backends[0].info()
    }

    /// Facts about all backends, in order of preference.
    pub fn backends(&self) -> impl Iterator<Item = &BackendInfo> {
        self.inner.backends.iter().map(|b| b.info())
    }

    /// Compiles what scoring and searching documents of type `d` with queries of type `q` may need, of any shape and with any
    /// options, so that no call waits for a compiler.
    ///
    /// # Errors
    /// The preferred backend's.
    pub fn prepare_for(&self, q: DType, d: DType) -> Result<()> {
        self.inner.backends[0].prepare(q, d)
    }

    /// Compiles what `op` may need, so that calls like it do not wait for a compiler: any operator, gradients, the fused head and
    /// PLAID search too. Runs nothing.
    ///
    /// # Errors
    /// Those of validation, `ERR_UNSUPPORTED` when no backend can run it, and the backend's.
    pub fn prepare_like(&self, op: &Op<'_>) -> Result<()> {
        op.validate()?;
        self.choose(op)?.0.prepare_op(op)
    }

    /// Time the preferred backend's device spent on calls that finished since this was last asked; `None` where it is not
    /// measured (`EngineBuilder::device_timing`).
    pub fn device_time(&self) -> Option<std::time::Duration> {
        self.inner.backends[0].device_time()
    }

    /// The preferred backend's tuning table, for `EngineBuilder::tuning`.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` where there are no kernels to choose between.
    pub fn tuning(&self) -> Result<String> {
        let backend = &self.inner.backends[0];
        backend.tuning().ok_or_else(|| Error::Unsupported {
            what: format!("a tuning table on {}", backend.info().kind),
            hint: "CUDA alone has kernels to choose between".into(),
        })
    }

    /// How `op` would be run.
    ///
    /// # Errors
    /// Those of validation, and `ERR_UNSUPPORTED` when no backend can.
    pub fn explain(&self, op: &Op<'_>) -> Result<Plan> {
        op.validate()?;
        Ok(self.choose(op)?.1)
    }

    fn choose(&self, op: &Op<'_>) -> Result<(&Arc<dyn Backend>, Plan)> {
        let mut refusals: Vec<(BackendKind, Error)> = Vec::new();
        for backend in &self.inner.backends {
            match backend.plan(op) {
                Ok(mut plan) => {
                    plan.notes.extend(refusals.iter().map(|(kind, error)| format!("not {kind}: {error}")));
                    if let Some((kind, error)) = refusals.first()
                        && !self.inner.warned_fallback.swap(true, Ordering::Relaxed)
                    {
                        tracing::warn!("{} runs on {}: {kind} cannot ({error})", op.name(), plan.backend);
                    }
                    return Ok((backend, plan));
                }
                Err(
                    error @ (Error::Unsupported { .. } | Error::Compile { .. } | Error::DeviceLost { .. }),
                ) if !self.inner.pinned => {
                    refusals.push((backend.info().kind, error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(refusals.swap_remove(0).1)
    }

    /// Validates, chooses a backend and runs `op`.
    ///
    /// # Errors
    /// Those of validation and of the backend.
    pub fn run(&self, op: &Op<'_>) -> Result<Output> {
        self.submit(op)?.wait()
    }

    /// [`run`](Self::run) for callers that may only await. Inputs are read before the first suspension.
    ///
    /// # Errors
    /// Those of validation and of the backend.
    pub async fn run_async(&self, op: &Op<'_>) -> Result<Output> {
        self.submit(op)?.await
    }

    /// Validates, chooses a backend and starts `op`: the inputs are not needed any more once this returns.
    ///
    /// # Errors
    /// Those of validation, and of choosing a backend; those of the work come with the submission.
    pub fn submit(&self, op: &Op<'_>) -> Result<Submission> {
        Ok(self.prepare(op)?.submit(op, &self.cancel))
    }

    fn prepare(&self, op: &Op<'_>) -> Result<&Arc<dyn Backend>> {
        self.cancel.check()?;
        op.validate()?;
        self.warn_if_unnormalized(op);
        Ok(self.choose(op)?.0)
    }

    fn warn_if_unnormalized(&self, op: &Op<'_>) {
        let forward = match op {
            Op::Forward(op) => op,
            Op::Retrieve(op) => &op.forward,
            // Training warns in its forward pass; the fused head takes queries as they are.
            _ => return,
        };
        if forward.options.normalize
            || !self.inner.warnings
            || self.inner.warned_unnormalized.load(Ordering::Relaxed)
        {
            return;
        }
        let d = match &forward.d {
            Documents::Tokens(d) => Some(d),
            _ => None,
        };
        for (tokens, name) in [(Some(&forward.q), "Q"), (d, "D")] {
            if let Some(norm) = tokens.and_then(unusual_norm)
                && !self.inner.warned_unnormalized.swap(true, Ordering::Relaxed)
            {
                // In whole numbers: formatting floats takes code that web pages would download for nothing else.
                let norm = norm.round() as u64;
                tracing::warn!(
                    "{name} holds token vectors of norm {norm} and normalize is false; \
                     late-interaction models expect unit vectors"
                );
            }
        }
    }

    /// `maxsim`: `Q [Nq,Lq,d] × D [Nd,Ld,d] → [Nq,Nd]`; `D [Nq,K,Ld,d] → [Nq,K]`; packed operands (`maxsim_varlen`) too.
    ///
    /// Score `(i, j)` is `Σ_s max_t ⟨Q[i,s], D[j,t]⟩` over kept tokens, in f32 (Khattab & Zaharia 2020). A query token
    /// without a kept document token adds 0; NaN similarities never win.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_VALUE`, `ERR_NON_FINITE` (under `validate_finite`), and the backend's.
    pub fn maxsim<'a>(&self, q: Tokens<'a>, d: impl Into<Documents<'a>>, options: Options) -> Result<Scores> {
        self.scores(Forward::maxsim(q, d, options))
    }

    /// `maxsim_pairs`: query `i` with document `i`, `[B,Lq,d] × [B,Ld,d] → [B]`.
    ///
    /// # Errors
    /// As [`maxsim`](Self::maxsim).
    pub fn maxsim_pairs<'a>(
        &self,
        q: Tokens<'a>,
        d: impl Into<Documents<'a>>,
        options: Options,
    ) -> Result<Scores> {
        self.scores(Forward::pairs(q, d, options))
    }

    /// `maxsim_varlen`: every packed query with every packed document, `→ [Nq,Nd]`.
    ///
    /// # Errors
    /// As [`maxsim`](Self::maxsim).
    pub fn maxsim_varlen<'a>(
        &self,
        q: Tokens<'a>,
        d: impl Into<Documents<'a>>,
        options: Options,
    ) -> Result<Scores> {
        self.scores(Forward::maxsim(q, d, options))
    }

    /// `score_pairs`: the listed pairs only, `→ [P]`; order kept, duplicates allowed.
    ///
    /// # Errors
    /// As [`maxsim`](Self::maxsim), and `ERR_INDEX` for an index out of range.
    pub fn score_pairs<'a>(
        &self,
        q: Tokens<'a>,
        d: impl Into<Documents<'a>>,
        pair_q_idx: impl Integers<'a>,
        pair_d_idx: impl Integers<'a>,
        options: Options,
    ) -> Result<Scores> {
        self.scores(Forward::score_pairs(q, d, pair_q_idx, pair_d_idx, options)?)
    }

    /// `maxsim_padded`: `queries [B,Lq,d]`, `documents [B,K,Ld,d]`, both with prefix lengths, `→ [B,K]`.
    ///
    /// # Errors
    /// As [`maxsim`](Self::maxsim).
    pub fn maxsim_padded(
        &self,
        queries: Tokens<'_>,
        documents: Tokens<'_>,
        options: Options,
    ) -> Result<Scores> {
        if !matches!(documents.axes(), crate::sequences::Axes::Grid(..)) {
            return Err(Error::shape(
                "documents",
                "rank 4 [B, K, Ld, d]",
                format!("{:?}", documents.shape()),
            ));
        }
        self.scores(Forward::maxsim(queries, documents, options))
    }

    /// `pack_padded`: see [`pack_padded`].
    ///
    /// # Errors
    /// As [`pack_padded`].
    pub fn pack_padded(
        &self,
        queries: &Tokens<'_>,
        documents: &Tokens<'_>,
    ) -> Result<crate::op::PackedPairs> {
        pack_padded(queries, documents)
    }

    /// `retrieve`: the `top_k` best documents of every query, `→ [Nq, min(top_k, Nd)]`.
    ///
    /// # Errors
    /// As [`maxsim`](Self::maxsim), and `ERR_VALUE` for `top_k = 0` or `chunk = 0`.
    pub fn retrieve<'a>(
        &self,
        q: Tokens<'a>,
        d: impl Into<Documents<'a>>,
        options: RetrieveOptions,
    ) -> Result<TopK> {
        match self.run(&Op::Retrieve(Retrieve::new(q, d, options)))? {
            Output::TopK(top_k) => Ok(top_k),
            _ => unreachable!("retrieve returns no such output"),
        }
    }

    /// `maxsim_residual`, `maxsim_residual_varlen`: queries with codes and packed residuals, `→ [Nq,Nd]`. Queries and
    /// decoded tokens are normalised under `options.normalize`, which PLAID indexes want true.
    ///
    /// # Errors
    /// As [`maxsim`](Self::maxsim).
    pub fn maxsim_residual<'a>(&self, q: Tokens<'a>, d: Residual<'a>, options: Options) -> Result<Scores> {
        self.scores(Forward::maxsim(q, d, options))
    }

    /// Gradients of a scoring operator, in its operands' shapes and dtypes. For each query token, only the winning
    /// document token has a part in them.
    ///
    /// # Errors
    /// As [`Backward::validate`], and the backend's.
    pub fn backward(&self, op: Backward<'_>) -> Result<Gradients> {
        self.gradients(&Op::Backward(op))
    }

    /// `maxsim_from_hidden`: `≡ maxsim(Q, norm(H·Wᵀ + b))`, `→ [Nq,Nd]`, without the projection in memory.
    ///
    /// # Errors
    /// As [`FromHidden::validate`], and the backend's.
    pub fn maxsim_from_hidden(&self, op: FromHidden<'_>) -> Result<Scores> {
        match self.run(&Op::FromHidden(op))? {
            Output::Scores(scores) => Ok(scores),
            _ => unreachable!("from_hidden returns no such output"),
        }
    }

    /// Gradients of [`maxsim_from_hidden`](Self::maxsim_from_hidden).
    ///
    /// # Errors
    /// As [`FromHiddenBackward::validate`], and the backend's.
    pub fn maxsim_from_hidden_backward(&self, op: FromHiddenBackward<'_>) -> Result<Gradients> {
        self.gradients(&Op::FromHiddenBackward(op))
    }

    /// `plaid_approx_score`: `Σ_s max_t query_centroid_scores[codes[t], s]` per document, `→ [B]`.
    ///
    /// # Errors
    /// The backend's; operands were checked when `op` was made.
    pub fn plaid_approx_score(&self, op: ApproxScore<'_>) -> Result<Scores> {
        match self.run(&Op::ApproxScore(op))? {
            Output::Scores(scores) => Ok(scores),
            _ => unreachable!("plaid_approx_score returns no such output"),
        }
    }

    /// Search over a PLAID index: the hits of every query, best first. Where the options leave
    /// [`n_full_scores`](crate::PlaidOptions::n_full_scores) open, queries that are not settled are searched again, more widely.
    ///
    /// # Errors
    /// As [`PlaidSearch::validate`], and the backend's.
    pub fn plaid_search(&self, op: PlaidSearch<'_>) -> Result<Vec<Vec<Hit>>> {
        let found = |op: PlaidSearch<'_>| match self.run(&Op::PlaidSearch(op))? {
            Output::Hits(found) => Ok(found),
            _ => unreachable!("plaid_search returns no such output"),
        };
        let PlaidHits { mut hits, unsettled } = found(op.clone())?;
        if let Some(options) = op.options.wider() {
            // Neighbours are searched together.
            for run in unsettled.chunk_by(|a, b| a + 1 == *b) {
                let queries = run[0] as usize..run[0] as usize + run.len();
                let again = PlaidSearch { q: op.q.slice(queries.clone()), options, ..op.clone() };
                for (hits, wider) in hits[queries].iter_mut().zip(found(again)?.hits) {
                    *hits = wider;
                }
            }
        }
        Ok(hits)
    }

    /// Copies an index to the preferred backend, for searches that then read nothing from the host.
    ///
    /// # Errors
    /// The backend's; `ERR_UNSUPPORTED` from the CPU, which searches indexes where they are.
    pub fn upload_index(&self, codec: &Codec<'_>, segments: &[&Segment]) -> Result<ResidentIndex> {
        self.cancel.check()?;
        self.inner.backends[0].upload_index(codec, segments)
    }

    /// `quantize_residual`: the nearest centroid of every vector of `x [T, d]` (largest inner product, lowest index among
    /// equals) and its packed residual. `cutoffs [2^nbits − 1]` ascending. Feed unit vectors.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_VALUE`, `ERR_NON_FINITE` for operands that do not fit, and the backend's.
    pub fn quantize_residual(
        &self,
        x: &TensorRef<'_>,
        cutoffs: &[f32],
        codec: &Codec<'_>,
    ) -> Result<ResidualCodes> {
        crate::op::check_encode(x, cutoffs, codec)?;
        crate::op::pack_residuals(x, self.nearest_centroids(x, codec)?, cutoffs, codec)
    }

    /// The first half of [`quantize_residual`](Self::quantize_residual): the nearest centroid of every vector of `x [T, d]`. The
    /// second is [`pack_residuals`](crate::pack_residuals), for callers that have several threads for it.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_NON_FINITE` for operands that do not fit, and the backend's.
    pub fn nearest_centroids(&self, x: &TensorRef<'_>, codec: &Codec<'_>) -> Result<Vec<u32>> {
        self.submit_encode(x, codec)?.map(Submission::wait).transpose().map(codes)
    }

    /// [`quantize_residual`](Self::quantize_residual) for callers that may only await.
    ///
    /// # Errors
    /// As [`quantize_residual`](Self::quantize_residual).
    pub async fn quantize_residual_async(
        &self,
        x: &TensorRef<'_>,
        cutoffs: &[f32],
        codec: &Codec<'_>,
    ) -> Result<ResidualCodes> {
        crate::op::check_encode(x, cutoffs, codec)?;
        let winners = match self.submit_encode(x, codec)? {
            Some(submission) => Some(submission.await?),
            None => None,
        };
        crate::op::pack_residuals(x, codes(winners), cutoffs, codec)
    }

    /// Starts the search for the nearest centroids: one query of T tokens against one document of C, whose winners are the
    /// codes. Nothing to do for no vectors.
    fn submit_encode(&self, x: &TensorRef<'_>, codec: &Codec<'_>) -> Result<Option<Submission>> {
        crate::op::check_vectors(x, codec)?;
        x.check_finite("x")?;
        codec.centroids().check_finite("centroids")?;
        if x.shape()[0] == 0 {
            return Ok(None);
        }
        let q = Tokens::padded(x.data(), x.shape())?;
        let d = Tokens::padded(codec.centroids().data(), codec.centroids().shape())?;
        let op = Op::Forward(Forward::maxsim(q, d, Options { argmax: true, ..Options::default() }));
        self.cancel.check()?;
        op.validate()?;
        // Not prepare(): centroids are not expected to be unit vectors.
        Ok(Some(self.choose(&op)?.0.submit(&op, &self.cancel)))
    }

    fn gradients(&self, op: &Op<'_>) -> Result<Gradients> {
        match self.run(op)? {
            Output::Gradients(gradients) => Ok(gradients),
            _ => unreachable!("{} returns no such output", op.name()),
        }
    }

    fn scores(&self, op: Forward<'_>) -> Result<Scores> {
        match self.run(&Op::Forward(op))? {
            Output::Scores(scores) => Ok(scores),
            _ => unreachable!("forward returns no such output"),
        }
    }
}

/// Centroids of vectors, given what `submit_encode` started.
fn codes(winners: Option<Output>) -> Vec<u32> {
    match winners {
        None => Vec::new(),
        Some(Output::Scores(scores)) => {
            let winners = scores.argmax.expect("asked for").values;
            // -1 is a vector whose every similarity overflowed to -inf; any centroid represents it equally badly.
            winners.into_iter().map(|w| w.max(0) as u32).collect()
        }
        Some(_) => unreachable!("forward returns no such output"),
    }
}

/// A norm far from 1 among the first few kept tokens, if there is one.
fn unusual_norm(tokens: &Tokens<'_>) -> Option<f32> {
    if tokens.dtype() == DType::E4M3 || tokens.dtype() == DType::I8 {
        return None;
    }
    let rows = (0..tokens.count().min(4)).flat_map(|i| tokens.rows(i).take(4));
    rows.filter(|&row| tokens.keeps(row)).find_map(|row| {
        let norm = tokens.vector(row).iter().map(|x| x * x).sum::<f32>().sqrt();
        // Query weights stretch vectors a little on purpose; a factor of 4 is nobody's intention.
        (norm > 4.0).then_some(norm)
    })
}
