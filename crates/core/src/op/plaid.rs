//! Search over a PLAID index: probe, gather, score roughly, score well.
//!
//! Santhanam et al., *PLAID: An Efficient Engine for Late Interaction Retrieval* (2022), with the two cuts of fast-plaid and
//! next-plaid.

use super::{Codec, Cost, Precision, check_query};
use crate::backend::ResidentIndex;
use crate::error::{Error, Result};
use crate::plaid::{Bitmap, Segment};
use crate::tokens::Tokens;

/// An index as an operand. Document numbers count through all segments, in their order.
#[derive(Debug, Clone)]
pub enum PlaidIndex<'a> {
    /// In host memory.
    Host {
        /// Centroids and buckets.
        codec: Codec<'a>,
        /// The documents.
        segments: Vec<&'a Segment>,
    },
    /// Held by a backend.
    Resident(&'a ResidentIndex),
}

impl PlaidIndex<'_> {
    /// Embedding dimension.
    pub fn dim(&self) -> usize {
        match self {
            Self::Host { codec, .. } => codec.dim(),
            Self::Resident(resident) => resident.meta().dim,
        }
    }

    /// Number of documents, deleted ones included.
    pub fn documents(&self) -> usize {
        match self {
            Self::Host { segments, .. } => segments.iter().map(|s| s.documents()).sum(),
            Self::Resident(resident) => resident.meta().documents,
        }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Host { segments, .. } => segments.iter().map(|s| s.tokens()).sum(),
            Self::Resident(resident) => resident.meta().tokens,
        }
    }

    /// Number of centroids.
    pub fn centroids(&self) -> usize {
        match self {
            Self::Host { codec, .. } => codec.count(),
            Self::Resident(resident) => resident.meta().centroids,
        }
    }
}

/// Options of [`PlaidSearch`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlaidOptions {
    /// Hits per query at most.
    pub top_k: usize,
    /// Centroids probed per query token.
    pub n_ivf_probe: usize,
    /// Documents that stay after the first cut by approximate score; a quarter of them is scored well. `None`: 4,096
    /// ([`N_FULL_SCORES`](Self::N_FULL_SCORES)), and where a query is not [settled](Self::settles) by them, as many as
    /// [`wider`](Self::wider) says.
    pub n_full_scores: Option<usize>,
    /// Probed centroids whose best similarity with a query token is below this are left out.
    pub centroid_score_threshold: Option<f32>,
    /// Score every allowed document: the reference that the other options approximate.
    pub exact: bool,
    /// Stop after the second stage: hits are the documents that are left, ascending, as many as there are, without scores (0)
    /// and winners. Needs no residuals ([`Segment::without_residuals`]). The CPU does this; other backends may refuse.
    pub candidates_only: bool,
    /// Divide query tokens by `max(‖x‖₂, 1e-6)`. Document tokens always are.
    pub normalize: bool,
    /// Also return the winning document token of every query token.
    pub explain: bool,
    /// `Exact`: f32 products throughout the last stage. Otherwise a backend may first narrow the documents down with
    /// cheaper arithmetic, as the operator's definition says.
    pub precision: Precision,
}

impl Default for PlaidOptions {
    fn default() -> Self {
        Self {
            top_k: 10,
            n_ivf_probe: 8,
            n_full_scores: None,
            centroid_score_threshold: None,
            exact: false,
            candidates_only: false,
            normalize: true,
            explain: false,
            precision: Precision::Default,
        }
    }
}

impl PlaidOptions {
    /// The defaults with `top_k` hits.
    pub fn top_k(top_k: usize) -> Self {
        Self { top_k, ..Self::default() }
    }

    /// [`n_full_scores`](Self::n_full_scores) unless it is given, to begin with.
    pub const N_FULL_SCORES: usize = 4096;

    /// How many times as many documents are scored for a query that the first ones do not settle.
    const WIDER: usize = 32;

    /// Documents that are scored well: `max(⌊n_full_scores / 4⌋, top_k)`.
    pub fn kept(&self) -> usize {
        (self.n_full_scores.unwrap_or(Self::N_FULL_SCORES) / 4).max(self.top_k)
    }

    /// Whether the hits of a query settle it, of which `behind` stand behind the best quarter of the documents that were scored
    /// well, in the order of their approximate scores: at most one in twenty of `top_k`. More of them say that approximate scores tell
    /// little about this query, and that there may be hits farther down than was looked.
    pub fn settles(&self, behind: usize) -> bool {
        behind <= self.top_k / 20
    }

    /// The options by which queries are searched again that were not settled: 32 times `n_full_scores`, so that up to 32,768
    /// documents are scored well, which smaller indexes are whole, and four times `n_ivf_probe`. `None` if `n_full_scores` was given.
    pub fn wider(&self) -> Option<Self> {
        let wider = Self {
            n_full_scores: Some(Self::N_FULL_SCORES * Self::WIDER),
            n_ivf_probe: self.n_ivf_probe.saturating_mul(4),
            ..*self
        };
        (self.n_full_scores.is_none() && !self.exact && !self.candidates_only).then_some(wider)
    }

    /// Documents whose scores are computed in f32 where cheaper arithmetic chose them: `max(4·top_k, 32)`.
    pub fn shortlist(&self) -> usize {
        self.top_k.saturating_mul(4).max(32)
    }

    /// Centroids to probe per query token: `n_ivf_probe`, more of them the fewer of the `live` documents a subset holds, so
    /// that as many of its documents are found: `⌈n_ivf_probe · live / allowed⌉`, at most `eligible`.
    pub fn probes(&self, live: usize, allowed: usize, eligible: usize) -> usize {
        let scaled = (self.n_ivf_probe as u128 * live as u128).div_ceil(allowed.max(1) as u128);
        usize::try_from(scaled).unwrap_or(usize::MAX).max(self.n_ivf_probe).min(eligible)
    }
}

/// The search operator.
///
/// A document is *allowed* if it is `live` and in the `subset`. Per query, with `S[c, s] = ⟨centroid c, query token s⟩` in
/// f32 (query tokens normalised if asked for; masked and NaN ones take no part anywhere):
///
/// 1. **Candidates.** All allowed documents, if `exact` or if no more than [`PlaidOptions::kept`] are allowed: probing could
///    only lose some. Otherwise every query token probes its best centroids by `S` (the lower number among equals):
///    [`n_ivf_probe`](PlaidOptions::n_ivf_probe) of all, or with a subset [`PlaidOptions::probes`] of those that are the
///    centroid of a token of an allowed document. Probed centroids with `max_s S[c, s]` below the threshold are dropped.
///    Candidates are the allowed documents in the inverted lists of the others.
/// 2. **Cut.** With more than `kept` candidates (and not `exact`), the `kept` best by approximate score stay:
///    `Σ_s max_t S[code_t, s]` over the document's tokens, score descending, then document ascending. The two cuts of
///    fast-plaid, `n_full_scores` and a quarter of it, order by the same score, so that only the second decides.
///    Backends may round `S` for this to `1/255` of the query's range of `S`.
/// 3. **Score** the documents that are left: `Σ_s max_t ⟨q_s, ê_t⟩` with `ê_t = (centroid + weights) · inverse norm`, as
///    [`Forward`](crate::Forward) over residual documents does, with its rules for ties, NaN and empty documents. Unless
///    [`Precision::Exact`] is asked for, a backend may choose the [`PlaidOptions::shortlist`] best with
///    [`Precision::Int8`]'s arithmetic; scores that are returned are always f32 ones.
/// 4. **Hits**: the `top_k` best, score descending, then document ascending. Fewer where fewer documents were candidates.
///
/// Where `n_full_scores` is not given, this is a first look: queries whose hits do not [settle](PlaidOptions::settles) them are named,
/// and [`Engine::plaid_search`](crate::Engine::plaid_search) searches those again by [`PlaidOptions::wider`] options. Queries that
/// did not probe are settled.
///
/// Nothing depends on how documents are divided into segments, on batch-mates or on threads.
#[derive(Debug, Clone)]
pub struct PlaidSearch<'a> {
    /// Queries.
    pub q: Tokens<'a>,
    /// The index.
    pub index: PlaidIndex<'a>,
    /// Documents that are not deleted; `None`: all.
    pub live: Option<&'a Bitmap>,
    /// Documents asked for; `None`: all.
    pub subset: Option<&'a Bitmap>,
    /// Options.
    pub options: PlaidOptions,
}

impl<'a> PlaidSearch<'a> {
    /// A search over all documents of an index in host memory.
    pub fn new(q: Tokens<'a>, codec: Codec<'a>, segments: Vec<&'a Segment>, options: PlaidOptions) -> Self {
        Self { q, index: PlaidIndex::Host { codec, segments }, live: None, subset: None, options }
    }

    /// Checks operands and options.
    ///
    /// # Errors
    /// `ERR_SHAPE` where dimensions, segments or bitmaps do not fit, `ERR_VALUE` for an option out of range, `ERR_LIMIT`
    /// from 2³² documents up.
    pub fn validate(&self) -> Result<()> {
        check_query(&self.q)?;
        if self.q.dim() != self.index.dim() {
            let got = format!("d = {}", self.q.dim());
            return Err(Error::shape("Q", format!("d = {} as in the index", self.index.dim()), got));
        }
        if let PlaidIndex::Host { codec, segments } = &self.index
            && let Some(at) = segments.iter().position(|segment| !segment.fits(codec))
        {
            return Err(Error::shape(
                "segments",
                "segments made for the codec",
                format!("another's at {at}"),
            ));
        }
        if let PlaidIndex::Host { segments, .. } = &self.index
            && !self.options.candidates_only
            && let Some(at) = segments.iter().position(|segment| !segment.has_residuals())
        {
            let got = format!("none at {at}");
            return Err(Error::value("segments", "segments with residuals, unless for candidates only", got));
        }
        let documents = self.index.documents();
        if documents > u32::MAX as usize {
            return Err(Error::Limit {
                argument: "documents".into(),
                limit: u32::MAX.to_string(),
                got: documents.to_string(),
            });
        }
        for (bitmap, argument) in [(self.live, "live"), (self.subset, "subset")] {
            if let Some(bitmap) = bitmap
                && bitmap.len() != documents
            {
                let got = format!("{} bits", bitmap.len());
                return Err(Error::shape(argument, format!("a bit for each of {documents} documents"), got));
            }
        }
        let options = &self.options;
        for (value, argument) in [
            (options.top_k, "top_k"),
            (options.n_ivf_probe, "n_ivf_probe"),
            (options.n_full_scores.unwrap_or(1), "n_full_scores"),
        ] {
            if value == 0 {
                return Err(Error::value(argument, "at least 1", "0"));
            }
        }
        if options.centroid_score_threshold.is_some_and(f32::is_nan) {
            return Err(Error::value("centroid_score_threshold", "a number", "NaN"));
        }
        Ok(())
    }

    /// Documents that are live, and those of them that are in the subset.
    pub fn counts(&self) -> (usize, usize) {
        let live = self.live.map_or(self.index.documents(), Bitmap::count);
        (live, self.allowed().map_or(live, |allowed| allowed.count()))
    }

    /// Live documents of the subset; `None`: all documents.
    pub fn allowed(&self) -> Option<Bitmap> {
        match (self.live, self.subset) {
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (Some(live), Some(subset)) => {
                let mut both = live.clone();
                both.intersect(subset);
                Some(both)
            }
        }
    }

    /// The least work: the centroid table and the documents that are scored well, of average length.
    pub fn cost(&self) -> Cost {
        let d = self.index.dim() as u64;
        let centroids = self.index.centroids() as u64;
        let documents = self.index.documents().max(1) as u64;
        let kept = if self.options.exact { documents } else { (self.options.kept() as u64).min(documents) };
        let tokens = self.index.tokens() as u64 * kept / documents;
        let flops = 2 * d * self.q.kept() as u64 * (centroids + tokens);
        Cost { flops, bytes: 4 * d * centroids + self.q.count() as u64 * tokens * d / 2 }
    }
}

/// A document that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Number of the document.
    pub document: u32,
    /// Its score.
    pub score: f32,
    /// With `explain`: the winning token of the document per query token slot, as [`Argmax`](crate::Argmax) gives it.
    /// Otherwise empty.
    pub winners: Vec<i32>,
}

/// What [`PlaidSearch`] returns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlaidHits {
    /// Per query its hits, best first.
    pub hits: Vec<Vec<Hit>>,
    /// Queries, ascending, that [`PlaidOptions::wider`] options should search again.
    pub unsettled: Vec<u32>,
}

impl From<Vec<Vec<Hit>>> for PlaidHits {
    /// Of queries that are settled.
    fn from(hits: Vec<Vec<Hit>>) -> Self {
        Self { hits, unsettled: Vec::new() }
    }
}
