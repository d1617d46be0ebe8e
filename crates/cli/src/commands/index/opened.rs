//! An index of whatever format: our own (a directory or one file), or a directory of fast-plaid or next-plaid.

use std::path::Path;

use anyhow::Context;
use maxsim::plaid::exchange::Directory;
use maxsim::plaid::{
    Bitmap, DocumentId, EncoderRecord, Filter, IdKind, Index, IndexCodec, SearchHit, Searched, Segment,
    Selection, Value,
};
use maxsim::{Engine, Error, PlaidOptions, ResidentIndex, Tokens};
use serde::{Serialize, Serializer};

use super::texts::{SOURCE, TEXT};
use crate::exit::Usage;

/// Tokens of a segment that is read from a foreign directory.
const SEGMENT: usize = 1 << 24;

/// An index that can be searched.
pub(super) enum Opened {
    /// Ours.
    Own(Index),
    /// Another program's, in memory.
    Foreign(Foreign),
}

/// Another program's index, in memory.
pub(super) struct Foreign {
    /// The program.
    pub(super) format: &'static str,
    pub(super) codec: IndexCodec,
    pub(super) segments: Vec<Segment>,
    /// The documents on an engine's device.
    resident: Option<ResidentIndex>,
}

impl Opened {
    /// Reads the index in a directory or file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        // What is neither gets the error of opening our own format, unless it looks like the others'.
        if !Directory::is_one(path) && !path.join("centroids.pt").exists() {
            return Ok(Self::Own(Index::open(path)?));
        }
        let directory = Directory::open(path)?;
        let segments = directory.segments(SEGMENT).collect::<maxsim::Result<_>>()?;
        let codec = directory.codec().clone();
        Ok(Self::Foreign(Foreign { format: directory.written_by(), codec, segments, resident: None }))
    }

    /// Copies the documents to the engine's device, if it searches on one.
    pub(super) fn upload(self, engine: &Engine) -> maxsim::Result<Self> {
        Ok(match self {
            Self::Own(index) => Self::Own(index.upload(engine)?),
            Self::Foreign(foreign) => {
                let segments: Vec<&Segment> = foreign.segments.iter().collect();
                let resident = Searched::all(&foreign.codec, &segments).upload(engine)?;
                Self::Foreign(Foreign { resident, ..foreign })
            }
        })
    }

    /// Codec of the documents.
    pub(super) fn codec(&self) -> &IndexCodec {
        match self {
            Self::Own(index) => index.codec(),
            Self::Foreign(foreign) => &foreign.codec,
        }
    }

    /// What encoded the documents' texts, if the index knows.
    pub(super) fn encoder(&self) -> Option<&EncoderRecord> {
        match self {
            Self::Own(index) => index.encoder(),
            Self::Foreign(_) => None,
        }
    }

    /// The documents.
    pub(super) fn segments(&self) -> Vec<&Segment> {
        match self {
            Self::Own(index) => index.segments().collect(),
            Self::Foreign(foreign) => foreign.segments.iter().collect(),
        }
    }

    /// The text of a document and where it came from, if the index was built from text.
    pub(super) fn text(&self, id: &DocumentId) -> Option<(String, String)> {
        let Self::Own(index) = self else { return None };
        let row = index.metadata(id)?;
        let column = |wanted: &str| {
            row.iter().find_map(|(name, value)| match value {
                Value::Text(text) if name == wanted => Some(text.clone()),
                _ => None,
            })
        };
        Some((column(TEXT)?, column(SOURCE).unwrap_or_default()))
    }

    /// Documents that are not deleted; `None`: all.
    pub(super) fn live(&self) -> Option<&Bitmap> {
        match self {
            Self::Own(index) => Some(index.live()),
            Self::Foreign(_) => None,
        }
    }

    /// Searches the documents that `filter` and `subset` (ids, as written by the user) leave.
    pub(super) fn search(
        &self,
        engine: &Engine,
        q: Tokens<'_>,
        options: PlaidOptions,
        filter: Option<&Filter>,
        subset: Option<&[String]>,
    ) -> anyhow::Result<Vec<Vec<SearchHit>>> {
        match self {
            Self::Own(index) => {
                let kind = index.info().ids;
                let ids =
                    subset.map(|ids| ids.iter().map(|id| kind.parse(id)).collect::<Result<Vec<_>, _>>());
                let ids = ids.transpose().context("--subset")?;
                let selection = Selection { filter, ids: ids.as_deref() };
                Ok(index.search(engine, q, options, selection)?)
            }
            Self::Foreign(foreign) => {
                if filter.is_some() {
                    let format = foreign.format;
                    return Err(Usage::new(format!(
                        "--filter: indexes of {format} are read without metadata"
                    ))
                    .into());
                }
                foreign.search(engine, q, options, subset)
            }
        }
    }
}

impl Foreign {
    fn search(
        &self,
        engine: &Engine,
        q: Tokens<'_>,
        options: PlaidOptions,
        subset: Option<&[String]>,
    ) -> anyhow::Result<Vec<Vec<SearchHit>>> {
        let segments: Vec<&Segment> = self.segments.iter().collect();
        let documents = segments.iter().map(|segment| segment.documents()).sum();
        let subset = subset.map(|ids| {
            let mut chosen = Bitmap::empty(documents);
            for id in ids {
                // As with our own ids: one that no document has is none.
                if let DocumentId::Number(id) = IdKind::Number.parse(id)?
                    && id < documents as u64
                {
                    chosen.insert(id as usize);
                }
            }
            Ok::<_, Error>(chosen)
        });
        let subset = subset.transpose().context("--subset")?;
        let (subset, resident) = (subset.as_ref(), self.resident.as_ref());
        let searched = Searched { subset, resident, ..Searched::all(&self.codec, &segments) };
        let found = searched.search(engine, q, options)?;
        let hit = |hit: maxsim::Hit| SearchHit {
            id: u64::from(hit.document).into(),
            position: hit.document as usize,
            score: hit.score,
            winners: hit.winners,
        };
        Ok(found.into_iter().map(|hits| hits.into_iter().map(hit).collect()).collect())
    }
}

/// An id in JSON: numbers that JavaScript cannot tell apart are text.
pub(super) struct JsonId<'a>(pub(super) &'a DocumentId);

impl Serialize for JsonId<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            DocumentId::Number(id) if *id <= 1 << 53 => serializer.serialize_u64(*id),
            DocumentId::Number(id) => serializer.serialize_str(&id.to_string()),
            DocumentId::Text(id) => serializer.serialize_str(id),
        }
    }
}
