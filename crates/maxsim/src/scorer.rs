//! Options bundled with an engine, for code that scores the same way many times.

use maxsim_core::{Documents, Engine, Error, Options, Result, RetrieveOptions, Scores, Tokens, TopK};

/// Scores with fixed options; `normalize` is true unless set otherwise.
///
/// ```
/// use maxsim::{Scorer, Tokens};
/// let scorer = Scorer::new(maxsim::engine()?).mask_pad_token(0);
/// let q = [1.0f32, 0.0, 0.0, 1.0];
/// let d = [0.0f32, 2.0, 5.0, 5.0];
/// // Query ids 7 and 9, document ids 8 and 0: the last token is padding.
/// let scores = scorer.forward_with_ids(
///     Tokens::padded(&q, &[1, 2, 2])?, &[7, 9],
///     Tokens::padded(&d, &[1, 2, 2])?, &[8, 0],
/// )?;
/// assert_eq!(scores.values, [1.0]);
/// # Ok::<(), maxsim::Error>(())
/// ```
#[derive(Clone)]
pub struct Scorer {
    engine: Engine,
    options: Options,
    pad_token: Option<i64>,
}

impl Scorer {
    /// Scoring with normalised tokens on `engine`.
    pub fn new(engine: Engine) -> Self {
        Self { engine, options: Options::normalized(), pad_token: None }
    }

    /// Whether tokens are normalised.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.options.normalize = normalize;
        self
    }

    /// All scoring options at once.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Token id that [`forward_with_ids`](Self::forward_with_ids) masks out.
    pub fn mask_pad_token(mut self, id: i64) -> Self {
        self.pad_token = Some(id);
        self
    }

    /// `maxsim` with these options.
    ///
    /// # Errors
    /// As [`Engine::maxsim`].
    pub fn forward<'a>(&self, q: Tokens<'a>, d: impl Into<Documents<'a>>) -> Result<Scores> {
        self.engine.maxsim(q, d, self.options)
    }

    /// Scores of one query with its candidates: `q [Lq, d]`, `d [N, Ld, d]` or packed, `→ [N]`.
    ///
    /// # Errors
    /// As [`Engine::maxsim`].
    pub fn score<'a>(&self, q: Tokens<'a>, d: impl Into<Documents<'a>>) -> Result<Vec<f32>> {
        if q.count() != 1 {
            return Err(Error::shape("Q", "one query", format!("{} queries", q.count())));
        }
        Ok(self.forward(q, d)?.values)
    }

    /// `maxsim` where tokens whose id is the pad token do not count. Ids have one entry per token slot; they replace a mask.
    ///
    /// # Errors
    /// `ERR_VALUE` (argument `mask_pad_token`) if no pad token is set, `ERR_SHAPE` for another number of ids, and as
    /// [`Engine::maxsim`].
    pub fn forward_with_ids(
        &self,
        q: Tokens<'_>,
        q_ids: &[i64],
        d: Tokens<'_>,
        d_ids: &[i64],
    ) -> Result<Scores> {
        let Some(pad) = self.pad_token else {
            return Err(Error::value("mask_pad_token", "a token id", "none"));
        };
        let q_mask: Vec<bool> = q_ids.iter().map(|&id| id != pad).collect();
        let d_mask: Vec<bool> = d_ids.iter().map(|&id| id != pad).collect();
        let q = q.with_mask(&q_mask).map_err(|e| e.map_argument(|_| "q_ids".into()))?;
        let d = d.with_mask(&d_mask).map_err(|e| e.map_argument(|_| "d_ids".into()))?;
        self.engine.maxsim(q, d, self.options)
    }

    /// `retrieve` with these options.
    ///
    /// # Errors
    /// As [`Engine::retrieve`].
    pub fn retrieve<'a>(&self, q: Tokens<'a>, d: impl Into<Documents<'a>>, top_k: usize) -> Result<TopK> {
        let options = RetrieveOptions { scoring: self.options, ..RetrieveOptions::top_k(top_k) };
        self.engine.retrieve(q, d, options)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}
