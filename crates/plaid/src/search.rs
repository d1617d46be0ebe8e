//! Searching segments.

use maxsim_core::plaid::{Bitmap, Segment};
use maxsim_core::{
    Engine, ErrorCode, Hit, Output, PlaidIndex, PlaidOptions, PlaidSearch, ResidentIndex, Result, Tokens,
};

use crate::codec::IndexCodec;

/// Documents to search: segments with a codec, all of them or those a bitmap holds. Numbers of documents count through all
/// segments in order.
#[derive(Debug, Clone, Copy)]
pub struct Searched<'a> {
    /// Codec of the segments.
    pub codec: &'a IndexCodec,
    /// The documents.
    pub segments: &'a [&'a Segment],
    /// Documents that are not deleted; `None`: all.
    pub live: Option<&'a Bitmap>,
    /// Documents asked for; `None`: all. Where a subset is small, more centroids are probed, so that recall stays.
    pub subset: Option<&'a Bitmap>,
    /// The same documents as the engine's device holds them (see [`upload`](Self::upload)); `None`: they are copied there for every
    /// search, if there is such a device.
    pub resident: Option<&'a ResidentIndex>,
}

impl<'a> Searched<'a> {
    /// All documents of some segments.
    pub fn all(codec: &'a IndexCodec, segments: &'a [&'a Segment]) -> Self {
        Self { codec, segments, live: None, subset: None, resident: None }
    }

    /// Copies all documents, deleted ones included, to the engine's device, for searches that then read nothing from host memory.
    /// `None` where the engine searches host memory.
    ///
    /// # Errors
    /// The backend's, such as `ERR_MEMORY`.
    pub fn upload(&self, engine: &Engine) -> Result<Option<ResidentIndex>> {
        match engine.upload_index(&self.codec.as_codec(), self.segments) {
            Ok(resident) => Ok(Some(resident)),
            Err(error) if error.code() == ErrorCode::Unsupported => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The best documents of every query, best first; what is computed is written at [`PlaidSearch`].
    ///
    /// # Errors
    /// As [`PlaidSearch::validate`], and the backend's.
    pub fn search(&self, engine: &Engine, q: Tokens<'_>, options: PlaidOptions) -> Result<Vec<Vec<Hit>>> {
        engine.plaid_search(self.operator(q, options))
    }

    /// The search as an operator.
    pub(crate) fn operator<'b>(&self, q: Tokens<'b>, options: PlaidOptions) -> PlaidSearch<'b>
    where
        'a: 'b,
    {
        let index = match self.resident {
            Some(resident) => PlaidIndex::Resident(resident),
            None => PlaidIndex::Host { codec: self.codec.as_codec(), segments: self.segments.to_vec() },
        };
        PlaidSearch { q, index, live: self.live, subset: self.subset, options }
    }
}

/// What a search found.
pub(crate) fn hits(output: Output) -> Vec<Vec<Hit>> {
    match output {
        Output::Hits(found) => found.hits,
        other => unreachable!("plaid_search returned {other:?}"),
    }
}
