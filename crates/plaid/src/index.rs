//! An index as readers see it: what one manifest says, for as long as they hold it.

use std::fmt;
use std::sync::Arc;

use maxsim_core::plaid::{Bitmap, Segment};
use maxsim_core::{Engine, Error, Hit, Op, Output, PlaidOptions, ResidentIndex, Result, Submission, Tokens};

use crate::codec::IndexCodec;
use crate::encoder::EncoderRecord;
use crate::ids::{DocumentId, IdKind};
use crate::metadata::{ColumnType, Filter, Row};
use crate::search::{Searched, hits};
use crate::store::files::{Stored, read_codec, read_segment};
use crate::store::manifest::{BUILDING, CURRENT, Manifest};
use crate::store::{Storage, Verify, corrupt};

/// How often opening starts over because a writer removed a file meanwhile. Each time a commit has to come in between.
const ATTEMPTS: usize = 100;

/// An index at one time, open for reading. Clones are cheap and share everything.
///
/// It never changes: what writers do shows in an index opened or [`refresh`](Self::refresh)ed later. Nobody waits for anybody:
/// writers replace the manifest in one step and never touch files that it mentioned; files that became superfluous are unlinked,
/// and live on until the last reader that mapped them is gone.
#[derive(Clone)]
pub struct Index {
    inner: Arc<Inner>,
    /// The documents on an engine's device.
    resident: Option<ResidentIndex>,
}

struct Inner {
    storage: Arc<dyn Storage>,
    verify: Verify,
    manifest: Manifest,
    codec: Arc<IndexCodec>,
    stored: Vec<Arc<Stored>>,
    live: Bitmap,
}

/// A found document.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchHit {
    /// Its id.
    pub id: DocumentId,
    /// Its position, which compaction changes.
    pub position: usize,
    /// Its score.
    pub score: f32,
    /// With `explain`, its winning token per query token, −1 where there is none; otherwise empty.
    pub winners: Vec<i32>,
}

/// Which documents a search is about. Documents have to be in all that is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection<'a> {
    /// Those whose metadata fit.
    pub filter: Option<&'a Filter>,
    /// Those of these ids. Ids that no document has are none.
    pub ids: Option<&'a [DocumentId]>,
}

/// Facts about an index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexInfo {
    /// Counts commits.
    pub generation: u64,
    /// Documents, without deleted ones.
    pub documents: usize,
    /// Documents that are deleted and not yet compacted away.
    pub deleted: usize,
    /// Tokens of all documents, deleted ones included.
    pub tokens: usize,
    /// Embedding dimension.
    pub dim: usize,
    /// Bits per dimension.
    pub nbits: u32,
    /// Number of centroids.
    pub centroids: usize,
    /// Kind of the ids.
    pub ids: IdKind,
    /// Names and types of metadata columns.
    pub columns: Vec<(String, ColumnType)>,
    /// What encoded the documents' texts, if whoever built the index said so.
    pub encoder: Option<EncoderRecord>,
    /// Number of segments.
    pub segments: usize,
    /// Bytes of the arrays that a search reads, without those of centroids.
    pub search_bytes: usize,
    /// Bytes of all files.
    pub file_bytes: u64,
}

impl IndexInfo {
    /// Bytes that a search reads per token: residual, code (4), inverse norm (2), and its share of inverted lists and offsets.
    pub fn bytes_per_token(&self) -> f64 {
        self.search_bytes as f64 / self.tokens.max(1) as f64
    }
}

impl Index {
    /// Opens the index in a directory, or in one file.
    ///
    /// # Errors
    /// `ERR_FORMAT` if there is none, `ERR_VERSION` if it is newer than this program, `ERR_CORRUPT` for damaged files, `ERR_IO`.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl Into<std::path::PathBuf>) -> Result<Self> {
        let path = path.into();
        if path.is_file() {
            return Self::open_in(crate::store::PackStorage::open(&path)?, Verify::default());
        }
        Self::open_in(crate::store::DirectoryStorage::new(path), Verify::default())
    }

    /// Opens the index that a storage keeps.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(storage: impl Storage + 'static, verify: Verify) -> Result<Self> {
        Self::load(Arc::new(storage), verify, None)
    }

    /// The index as it is now; files that both have in common are not read again.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn refresh(&self) -> Result<Self> {
        Self::load(self.inner.storage.clone(), self.inner.verify, Some(self))
    }

    /// The same index with its documents copied to the device of `engine`, where that searches on one: for searches with this engine
    /// that read nothing from the host. Otherwise the copy is made for every search. An index that was refreshed has to be uploaded
    /// again; searches with an engine on another kind of device are `ERR_VALUE`.
    ///
    /// # Errors
    /// The backend's, such as `ERR_MEMORY`.
    pub fn upload(&self, engine: &Engine) -> Result<Self> {
        let segments: Vec<&Segment> = self.segments().collect();
        let resident = Searched::all(self.codec(), &segments).upload(engine)?;
        Ok(Self { inner: self.inner.clone(), resident })
    }

    /// A writer may replace the manifest and remove files it no longer mentions while they are being opened: then another
    /// manifest is there, and opening starts over with that.
    pub(crate) fn load(storage: Arc<dyn Storage>, verify: Verify, known: Option<&Self>) -> Result<Self> {
        let mut failed: Option<(Manifest, Error)> = None;
        for _ in 0..ATTEMPTS {
            let manifest = read_current(&*storage)?;
            if let Some((before, error)) = failed
                && before == manifest
            {
                return Err(error);
            }
            match Self::from_manifest(storage.clone(), verify, manifest.clone(), known) {
                Ok(index) => return Ok(index),
                Err(error) => failed = Some((manifest, error)),
            }
        }
        let problem = "its files are replaced faster than they can be opened";
        Err(Error::io(storage.describe(), problem))
    }

    pub(crate) fn from_manifest(
        storage: Arc<dyn Storage>,
        verify: Verify,
        manifest: Manifest,
        known: Option<&Self>,
    ) -> Result<Self> {
        let codec = match known.filter(|known| known.inner.manifest.codec == manifest.codec) {
            Some(known) => known.inner.codec.clone(),
            None => Arc::new(read_codec(&*storage, &manifest.codec)?),
        };
        let mut stored = Vec::with_capacity(manifest.segments.len());
        for segment in &manifest.segments {
            let opened = known.and_then(|known| {
                let at = known.inner.manifest.segments.iter().position(|s| s.file == segment.file)?;
                Some(known.inner.stored[at].clone())
            });
            stored.push(match opened {
                Some(opened) => opened,
                None => Arc::new(read_segment(&*storage, segment, &codec, manifest.ids, verify)?),
            });
        }
        Ok(Self::new(storage, verify, manifest, codec, stored))
    }

    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        verify: Verify,
        manifest: Manifest,
        codec: Arc<IndexCodec>,
        stored: Vec<Arc<Stored>>,
    ) -> Self {
        let mut live = Bitmap::empty(0);
        for segment in &manifest.segments {
            let mut own = Bitmap::full(segment.documents);
            segment.deleted.iter().flat_map(Bitmap::iter).for_each(|document| own.remove(document));
            live.append(&own);
        }
        Self { inner: Arc::new(Inner { storage, verify, manifest, codec, stored, live }), resident: None }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.inner.storage
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    pub(crate) fn stored(&self) -> &[Arc<Stored>] {
        &self.inner.stored
    }

    pub(crate) fn shared_codec(&self) -> &Arc<IndexCodec> {
        &self.inner.codec
    }

    /// Centroids and buckets.
    pub fn codec(&self) -> &IndexCodec {
        &self.inner.codec
    }

    /// The documents, in the order of their positions.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Segment> {
        self.inner.stored.iter().map(|stored| &stored.segment)
    }

    /// Positions of documents that are not deleted.
    pub fn live(&self) -> &Bitmap {
        &self.inner.live
    }

    /// Number of documents that are not deleted.
    pub fn len(&self) -> usize {
        self.inner.live.count()
    }

    /// Whether it has no documents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts commits.
    pub fn generation(&self) -> u64 {
        self.inner.manifest.generation
    }

    /// What encoded the documents' texts, if whoever built the index said so.
    pub fn encoder(&self) -> Option<&EncoderRecord> {
        self.inner.manifest.encoder.as_ref()
    }

    /// Facts.
    pub fn info(&self) -> IndexInfo {
        let manifest = &self.inner.manifest;
        let files = manifest.segments.iter().map(|s| s.file.fingerprint.length);
        IndexInfo {
            generation: manifest.generation,
            documents: self.len(),
            deleted: self.inner.live.len() - self.len(),
            tokens: self.segments().map(Segment::tokens).sum(),
            dim: self.codec().dim(),
            nbits: self.codec().nbits(),
            centroids: self.codec().count(),
            ids: manifest.ids,
            columns: manifest.schema.columns().to_vec(),
            encoder: manifest.encoder.clone(),
            segments: manifest.segments.len(),
            search_bytes: self.segments().map(Segment::bytes).sum(),
            file_bytes: files.sum::<u64>()
                + manifest.codec.fingerprint.length
                + manifest.to_bytes().len() as u64,
        }
    }

    /// Segment and document within it of a position. Panics if there is no such position.
    fn locate(&self, position: usize) -> (&Stored, usize) {
        let mut rest = position;
        for stored in &self.inner.stored {
            if rest < stored.ids.len() {
                return (stored, rest);
            }
            rest -= stored.ids.len();
        }
        panic!("position {position} of {} documents", self.inner.live.len());
    }

    /// Id of the document at a position. Panics if there is no such position.
    pub fn id(&self, position: usize) -> DocumentId {
        let (stored, document) = self.locate(position);
        stored.ids.get(document)
    }

    /// Position of the document of this id.
    pub fn position(&self, id: &DocumentId) -> Option<usize> {
        let mut first = 0;
        for stored in &self.inner.stored {
            // A deleted document may have the id of a later one.
            if let Some(found) = stored.ids.find(id)
                && self.inner.live.contains(first + found)
            {
                return Some(first + found);
            }
            first += stored.ids.len();
        }
        None
    }

    /// Metadata of the document of this id, without nulls; `None` if there is no such document.
    pub fn metadata(&self, id: &DocumentId) -> Option<Row> {
        let (stored, document) = self.locate(self.position(id)?);
        Some(stored.columns.row(document))
    }

    /// Positions of the documents chosen.
    ///
    /// # Errors
    /// `ERR_VALUE` (argument `filter`) for a filter that does not fit the columns.
    pub fn select(&self, selection: Selection<'_>) -> Result<Bitmap> {
        let mut chosen = self.inner.live.clone();
        if let Some(filter) = selection.filter {
            filter.check(&self.inner.manifest.schema)?;
            let mut fitting = Bitmap::empty(0);
            self.inner.stored.iter().for_each(|stored| fitting.append(&filter.evaluate(&stored.columns)));
            chosen.intersect(&fitting);
        }
        if let Some(ids) = selection.ids {
            let found = ids.iter().filter_map(|id| self.position(id));
            chosen.intersect(&Bitmap::of(chosen.len(), found).expect("positions"));
        }
        Ok(chosen)
    }

    /// [`select`](Self::select); `None` if all documents are.
    pub(crate) fn chosen(&self, selection: Selection<'_>) -> Result<Option<Bitmap>> {
        match selection {
            Selection { filter: None, ids: None } => Ok(None),
            selection => self.select(selection).map(Some),
        }
    }

    /// Positions of documents that are not deleted; `None` if none is.
    pub(crate) fn deleted_from(&self) -> Option<&Bitmap> {
        (self.inner.live.count() < self.inner.live.len()).then_some(&self.inner.live)
    }

    /// The best documents of every query, best first; among equal scores, the one added first.
    ///
    /// # Errors
    /// As [`select`](Self::select) and [`Searched::search`], and the backend's.
    pub fn search(
        &self,
        engine: &Engine,
        q: Tokens<'_>,
        options: PlaidOptions,
        selection: Selection<'_>,
    ) -> Result<Vec<Vec<SearchHit>>> {
        self.named(self.submit(engine, q, options, selection)?.wait()?)
    }

    /// [`search`](Self::search) for callers that may only await. Inputs are read before the first suspension.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub async fn search_async(
        &self,
        engine: &Engine,
        q: Tokens<'_>,
        options: PlaidOptions,
        selection: Selection<'_>,
    ) -> Result<Vec<Vec<SearchHit>>> {
        self.named(self.submit(engine, q, options, selection)?.await?)
    }

    fn submit(
        &self,
        engine: &Engine,
        q: Tokens<'_>,
        options: PlaidOptions,
        selection: Selection<'_>,
    ) -> Result<Submission> {
        let subset = self.chosen(selection)?;
        let segments: Vec<&Segment> = self.segments().collect();
        let live = self.deleted_from();
        let resident = self.resident.as_ref();
        let searched =
            Searched { live, subset: subset.as_ref(), resident, ..Searched::all(self.codec(), &segments) };
        engine.submit(&Op::PlaidSearch(searched.operator(q, options)))
    }

    /// What was found, by ids.
    fn named(&self, found: Output) -> Result<Vec<Vec<SearchHit>>> {
        let hit = |hit: Hit| SearchHit {
            id: self.id(hit.document as usize),
            position: hit.document as usize,
            score: hit.score,
            winners: hit.winners,
        };
        Ok(hits(found).into_iter().map(|hits| hits.into_iter().map(hit).collect()).collect())
    }

    /// Compares everything that is stored with its checksum, and all parts with each other.
    ///
    /// # Errors
    /// `ERR_CORRUPT` for the first thing found wrong, `ERR_IO`.
    pub fn verify(&self) -> Result<()> {
        let (storage, manifest) = (&self.inner.storage, &self.inner.manifest);
        let what = storage.describe();
        let index = Self::from_manifest(storage.clone(), Verify::All, manifest.clone(), None)?;
        let mut ids = Vec::with_capacity(index.len());
        let mut first = 0;
        for stored in &index.inner.stored {
            let documents = 0..stored.ids.len();
            ids.extend(documents.filter(|d| index.inner.live.contains(first + d)).map(|d| stored.ids.get(d)));
            first += stored.ids.len();
            index.verify_lists(&stored.segment)?;
        }
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(corrupt(&what, format!("two documents have the id {}", pair[0]))),
            None => Ok(()),
        }
    }

    /// Inverted lists have to be those that the codes make.
    fn verify_lists(&self, segment: &Segment) -> Result<()> {
        let parts = segment.parts();
        let rebuilt = Segment::build(
            parts.offsets.to_vec(),
            parts.codes.to_vec(),
            parts.residuals.to_vec(),
            parts.inv_norms.to_vec(),
            &self.codec().as_codec(),
        )?;
        let (a, b) = (parts, rebuilt.parts());
        if *a.list_offsets != *b.list_offsets || *a.list_entries != *b.list_entries {
            return Err(corrupt(&self.inner.storage.describe(), "inverted lists are not those of the codes"));
        }
        Ok(())
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.generation();
        write!(
            f,
            "Index({}, generation {generation}, {} documents)",
            self.inner.storage.describe(),
            self.len()
        )
    }
}

/// The manifest.
///
/// # Errors
/// `ERR_FORMAT` if there is none.
pub(crate) fn read_current(storage: &dyn Storage) -> Result<Manifest> {
    if let Some(manifest) = Manifest::read(storage, CURRENT)? {
        return Ok(manifest);
    }
    let problem = match Manifest::read(storage, BUILDING) {
        Ok(Some(_)) => "a build of it was not finished; build it again with the same options to go on",
        _ => "no index (it has no manifest.mxi)",
    };
    Err(Error::format(storage.describe(), problem))
}
