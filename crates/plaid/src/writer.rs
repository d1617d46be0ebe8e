//! Changes to an index: documents are added and deleted, and a commit makes all of that visible and durable at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maxsim_core::plaid::Bitmap;
use maxsim_core::{Engine, Error, Result, TensorRef, Tokens};

use crate::codec::{Encoded, IndexCodec};
use crate::encoder::EncoderRecord;
use crate::ids::{self, DocumentId, IdKind, IdTable};
use crate::index::{Index, read_current};
use crate::metadata::{ColumnsBuilder, Row, Schema};
use crate::store::files::{Stored, read_segment, write_codec, write_segment};
use crate::store::manifest::{BUILDING, BuildState, CURRENT, Manifest, Unpublished, free_number, is_ours};
use crate::store::{Guard, Storage, Verify};
use crate::times::{BuildTimes, timed};

/// Bytes of codes, residuals and norms at which a segment is full (a quarter of a GiB).
pub const SEGMENT_BYTES: usize = 1 << 28;
/// Tokens converted and encoded at a time.
const ENCODE_TOKENS: usize = 1 << 15;
/// Bytes of a token besides its residual: code and inverse norm.
const TOKEN_BYTES: usize = 6;

/// The one writer of an index.
///
/// [`add`](Self::add) and [`delete`](Self::delete) show nowhere before [`commit`](Self::commit), and are forgotten if that never
/// comes. When `commit` returns, what was done survives the death of the process and of the machine; when the process dies before,
/// the index is as the last commit left it. Deleting and adding an id before one commit replaces a document.
///
/// The writer holds a lock that dies with its process; readers take none.
pub struct IndexWriter {
    /// What encodes; deleting and compacting do without.
    engine: Option<Engine>,
    storage: Arc<dyn Storage>,
    _guard: Guard,
    /// [`CURRENT`], or [`BUILDING`] while an index is being built.
    name: &'static str,
    committed: Manifest,
    /// Whether `committed` is in place: not yet that of a new index.
    published: bool,
    /// What the next commit will say, but for what is pending.
    next: Manifest,
    codec: Arc<IndexCodec>,
    /// Contents of `next.segments`.
    stored: Vec<Arc<Stored>>,
    pending: Pending,
    segment_bytes: usize,
    times: BuildTimes,
    /// What became of a commit of which it is not known whether it came about.
    broken: Option<Error>,
}

/// Documents that are encoded, not yet in a segment.
#[derive(Default)]
struct Pending {
    ids: Vec<DocumentId>,
    positions: HashMap<DocumentId, usize>,
    rows: Vec<Row>,
    lengths: Vec<u32>,
    encoded: Encoded,
    deleted: HashSet<usize>,
}

/// What a new index is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateOptions {
    /// Kind of the ids.
    pub ids: IdKind,
    /// Replace an index that is there. Otherwise that is an error.
    pub replace: bool,
}

impl Default for CreateOptions {
    /// Numbers, and nothing is replaced.
    fn default() -> Self {
        Self { ids: IdKind::Number, replace: false }
    }
}

impl IndexWriter {
    /// Opens the index in a directory for writing.
    ///
    /// # Errors
    /// `ERR_LOCKED` if another writer has it, `ERR_IO` if the directory cannot be written to, and as [`Index::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(engine: &Engine, path: impl Into<std::path::PathBuf>) -> Result<Self> {
        Self::open_in(engine, crate::store::DirectoryStorage::new(path))
    }

    /// Opens the index that a storage keeps.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(engine: &Engine, storage: impl Storage + 'static) -> Result<Self> {
        Self::open_over(Some(engine), Arc::new(storage))
    }

    /// [`open`](Self::open) for deleting and compacting, which need no engine; adding documents does
    /// ([`set_engine`](Self::set_engine)).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_without_engine(path: impl Into<std::path::PathBuf>) -> Result<Self> {
        Self::open_over(None, Arc::new(crate::store::DirectoryStorage::new(path)))
    }

    fn open_over(engine: Option<&Engine>, storage: Arc<dyn Storage>) -> Result<Self> {
        // Before the lock, which would make the directory of an index that there is not.
        read_current(&*storage)?;
        let guard = lock(&*storage)?;
        let index = Index::load(storage, Verify::default(), None)?;
        let writer = Self::over(engine, guard, &index, CURRENT);
        writer.collect_garbage();
        Ok(writer)
    }

    /// A new index without documents, for which tokens are encoded with `codec`.
    ///
    /// # Errors
    /// `ERR_VALUE` if there is an index and `replace` is not set, and as [`open`](Self::open).
    pub fn create_in(
        engine: &Engine,
        storage: impl Storage + 'static,
        codec: IndexCodec,
        options: CreateOptions,
    ) -> Result<Self> {
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let guard = lock(&*storage)?;
        let mut writer = Self::begin(engine, storage, guard, codec, options, CURRENT)?;
        writer.commit()?;
        Ok(writer)
    }

    /// [`create_in`](Self::create_in) without a commit: an index that is replaced is there until the first one.
    pub(crate) fn begin(
        engine: &Engine,
        storage: Arc<dyn Storage>,
        guard: Guard,
        codec: IndexCodec,
        options: CreateOptions,
        name: &'static str,
    ) -> Result<Self> {
        let (generation, next_file) = free_numbers(&*storage, options.replace)?;
        let file = write_codec(&*storage, next_file, &codec)?;
        let manifest = Manifest {
            generation,
            ids: options.ids,
            next_id: 0,
            next_file: next_file + 1,
            codec: file,
            segments: Vec::new(),
            schema: Schema::default(),
            encoder: None,
            build: None,
        };
        let index = Index::new(storage, Verify::default(), manifest, Arc::new(codec), Vec::new());
        Ok(Self { published: false, ..Self::over(Some(engine), guard, &index, name) })
    }

    pub(crate) fn over(engine: Option<&Engine>, guard: Guard, index: &Index, name: &'static str) -> Self {
        Self {
            engine: engine.cloned(),
            storage: index.storage().clone(),
            _guard: guard,
            name,
            committed: index.manifest().clone(),
            published: true,
            next: index.manifest().clone(),
            codec: index.shared_codec().clone(),
            stored: index.stored().to_vec(),
            pending: Pending::default(),
            segment_bytes: SEGMENT_BYTES,
            times: BuildTimes::default(),
            broken: None,
        }
    }

    /// Closes segments at this many bytes of codes, residuals and norms instead of [`SEGMENT_BYTES`]. Bounds the memory that the
    /// writer needs: about three times as much.
    pub fn with_segment_bytes(self, segment_bytes: usize) -> Self {
        Self { segment_bytes, ..self }
    }

    /// Where the time went.
    pub(crate) fn times(&mut self) -> &mut BuildTimes {
        &mut self.times
    }

    /// Encodes with another engine from now on, for instance with one that is stopped by another `Cancel`.
    pub fn set_engine(&mut self, engine: &Engine) {
        self.engine = Some(engine.clone());
    }

    /// What encodes the documents' texts, as the index remembers it from the next commit on.
    pub fn set_encoder(&mut self, encoder: Option<EncoderRecord>) {
        self.next.encoder = encoder;
    }

    /// What encoded the documents' texts, if whoever built the index said so.
    pub fn encoder(&self) -> Option<&EncoderRecord> {
        self.next.encoder.as_ref()
    }

    /// What the last commit left.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn index(&self) -> Result<Index> {
        Index::load(self.storage.clone(), Verify::default(), None)
    }

    /// Centroids and buckets.
    pub fn codec(&self) -> &IndexCodec {
        &self.codec
    }

    /// Kind of the ids.
    pub fn id_kind(&self) -> IdKind {
        self.next.ids
    }

    /// Documents that there will be after the next commit.
    pub fn len(&self) -> usize {
        let flushed: usize = self.next.segments.iter().map(|s| s.live()).sum();
        flushed + self.pending.ids.len() - self.pending.deleted.len()
    }

    /// Whether there will be no documents after the next commit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check_usable(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Adds documents, their token vectors normalised: all, or on error none. `ids`, one per document; without them they are numbered on, from 0 in a new index.
    /// `metadata`, one row per document or none at all.
    ///
    /// # Errors
    /// `ERR_VALUE` or `ERR_INDEX` for an id that is there already or is of another kind (argument `ids`) and for metadata that do
    /// not fit their columns, `ERR_SHAPE` for another dimension or number, `ERR_NON_FINITE` (argument `documents`), and the
    /// engine's. `ERR_IO` if a full segment could not be written.
    pub fn add(
        &mut self,
        documents: &Tokens<'_>,
        ids: Option<&[DocumentId]>,
        metadata: &[Row],
    ) -> Result<()> {
        self.check_usable()?;
        let count = documents.count();
        if documents.dim() != self.codec.dim() {
            let expected = format!("d = {} as in the index", self.codec.dim());
            return Err(Error::shape("documents", expected, format!("d = {}", documents.dim())));
        }
        if !metadata.is_empty() && metadata.len() != count {
            let got = format!("{} rows", metadata.len());
            return Err(Error::shape("metadata", format!("a row for each of {count} documents"), got));
        }
        let (ids, next_id) = self.ids(ids, count)?;
        let mut schema = self.next.schema.clone();
        schema.extend(metadata)?;
        documents.check_finite("documents")?;
        let encoded = self.encode(documents)?;
        // Before anything is added, so that a disk that is full adds nothing.
        self.make_room(encoded.codes.len())?;
        self.next.next_id = next_id;
        self.next.schema = schema;
        let Encoded { codes, residuals, inv_norms } = &encoded;
        let lengths =
            (0..count).map(|i| documents.rows(i).filter(|&row| documents.keeps(row)).count() as u32);
        self.append(ids, metadata, lengths, EncodedRef { codes, residuals, inv_norms });
        Ok(())
    }

    /// Adds documents that are encoded already, as a segment of another index with the same codec has them.
    ///
    /// # Errors
    /// As [`add`](Self::add); `ERR_SHAPE` for a segment of another codec.
    pub fn add_segment(
        &mut self,
        segment: &crate::Segment,
        ids: Option<&[DocumentId]>,
        metadata: &[Row],
    ) -> Result<()> {
        self.check_usable()?;
        let count = segment.documents();
        if !segment.fits(&self.codec.as_codec()) {
            return Err(Error::shape(
                "segment",
                format!("made with {:?}", self.codec.as_codec()),
                "another codec's",
            ));
        }
        if !metadata.is_empty() && metadata.len() != count {
            let got = format!("{} rows", metadata.len());
            return Err(Error::shape("metadata", format!("a row for each of {count} documents"), got));
        }
        let (ids, next_id) = self.ids(ids, count)?;
        let mut schema = self.next.schema.clone();
        schema.extend(metadata)?;
        // Documents added before come before.
        self.flush()?;
        self.next.next_id = next_id;
        self.next.schema = schema;
        let mut columns = ColumnsBuilder::default();
        (0..count).for_each(|i| columns.push(&self.next.schema, metadata.get(i).map_or(&[], |row| &row[..])));
        let ids = IdTable::new(&ids, self.next.ids);
        self.push_segment(&Stored { segment: segment.clone(), ids, columns: columns.finish() })
    }

    /// Checked ids for `count` new documents, and the id that is free then.
    fn ids(&self, ids: Option<&[DocumentId]>, count: usize) -> Result<(Vec<DocumentId>, u64)> {
        let mut next_id = self.next.next_id;
        let Some(ids) = ids else {
            if self.next.ids == IdKind::Text {
                return Err(Error::value("ids", "a text per document, as all ids of the index", "none"));
            }
            let end = next_id.checked_add(count as u64).ok_or_else(|| {
                let got = format!("{next_id} as the next one");
                Error::value("ids", "numbers: there are no free ones to number on with", got)
            })?;
            return Ok(((next_id..end).map(DocumentId::Number).collect(), end));
        };
        if ids.len() != count {
            let got = format!("{} ids", ids.len());
            return Err(Error::shape("ids", format!("one for each of {count} documents"), got));
        }
        ids::check(ids, self.next.ids)?;
        let mut batch = HashSet::with_capacity(ids.len());
        for (i, id) in ids.iter().enumerate() {
            if !batch.insert(id) || self.find(id).is_some() {
                return Err(Error::index(
                    "ids",
                    i,
                    "an id that no other document has",
                    format!("{id} again"),
                ));
            }
            if let DocumentId::Number(number) = id {
                next_id = next_id.max(number.saturating_add(1));
            }
        }
        Ok((ids.to_vec(), next_id))
    }

    /// Kept tokens as codes and residuals.
    fn encode(&mut self, documents: &Tokens<'_>) -> Result<Encoded> {
        let dim = self.codec.dim();
        let rows: Vec<usize> = documents.sequences().kept_rows().collect();
        let engine = self.engine.clone().ok_or_else(|| Error::Unsupported {
            what: "adding documents by a writer without an engine".into(),
            hint: "give it one with set_engine".into(),
        })?;
        let mut encoded = Encoded::default();
        for rows in rows.chunks(ENCODE_TOKENS) {
            let values = timed(&mut self.times.converting, || documents.vectors(rows));
            let x = TensorRef::new(&values, &[rows.len(), dim])?;
            let part = self.codec.encode_timed(&engine, &x, &mut self.times)?;
            encoded.codes.extend(part.codes);
            encoded.residuals.extend(part.residuals);
            encoded.inv_norms.extend(part.inv_norms);
        }
        Ok(encoded)
    }

    fn append(
        &mut self,
        ids: Vec<DocumentId>,
        metadata: &[Row],
        lengths: impl Iterator<Item = u32>,
        encoded: EncodedRef<'_>,
    ) {
        let pending = &mut self.pending;
        for (i, id) in ids.into_iter().enumerate() {
            pending.positions.insert(id.clone(), pending.ids.len());
            pending.ids.push(id);
            pending.rows.push(metadata.get(i).cloned().unwrap_or_default());
        }
        pending.lengths.extend(lengths);
        pending.encoded.codes.extend_from_slice(encoded.codes);
        pending.encoded.residuals.extend_from_slice(encoded.residuals);
        pending.encoded.inv_norms.extend_from_slice(encoded.inv_norms);
    }

    /// Where the document of this id is, if it is not deleted.
    fn find(&self, id: &DocumentId) -> Option<Place> {
        if let Some(&at) = self.pending.positions.get(id) {
            return Some(Place::Pending(at));
        }
        let segments = self.stored.iter().zip(&self.next.segments).enumerate();
        for (segment, (stored, reference)) in segments {
            if let Some(document) = stored.ids.find(id)
                && !reference.deleted.as_ref().is_some_and(|deleted| deleted.contains(document))
            {
                return Some(Place::Stored { segment, document });
            }
        }
        None
    }

    /// Whether there will be a document of this id after the next commit.
    pub fn contains(&self, id: &DocumentId) -> bool {
        self.find(id).is_some()
    }

    /// Deletes the documents of these ids; says how many there were. Ids that no document has are passed over.
    ///
    /// # Errors
    /// `ERR_INDEX` (argument `ids`) for an id of another kind; then nothing is deleted.
    pub fn delete(&mut self, ids: &[DocumentId]) -> Result<usize> {
        self.check_usable()?;
        ids::check(ids, self.next.ids)?;
        let mut deleted = 0;
        for id in ids {
            match self.find(id) {
                None => continue,
                Some(Place::Pending(at)) => {
                    self.pending.positions.remove(id);
                    self.pending.deleted.insert(at);
                }
                Some(Place::Stored { segment, document }) => {
                    let segment = &mut self.next.segments[segment];
                    segment.deleted.get_or_insert_with(|| Bitmap::empty(segment.documents)).insert(document);
                }
            }
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Makes everything since the last commit visible and durable; gives the new generation. Without changes it does nothing.
    ///
    /// Small segments at the end are merged on the way, as long as a segment has at most twice the tokens of those behind it: there
    /// are then about as many segments as the number of tokens has binary digits, however small the commits are.
    ///
    /// # Errors
    /// `ERR_IO`, most of all for a full disk. Nothing is lost then: `commit` can be called again. Only if it cannot be known whether
    /// the commit came about (the directory could not be synchronised) does the writer refuse all further work: open a new one
    /// and look.
    pub fn commit(&mut self) -> Result<u64> {
        self.check_usable()?;
        self.flush()?;
        self.drop_empty();
        match self.merge_tail() {
            // Merging takes room that the commit itself may not need.
            Ok(()) | Err(Error::Io { .. }) => self.publish(),
            Err(error) => Err(error),
        }
    }

    /// Lets go of segments all of whose documents are deleted.
    fn drop_empty(&mut self) {
        let mut live = self.next.segments.iter().map(|s| s.live() > 0).collect::<Vec<_>>().into_iter();
        self.stored.retain(|_| live.next().expect("as many as segments"));
        self.next.segments.retain(|s| s.live() > 0);
    }

    pub(crate) fn publish(&mut self) -> Result<u64> {
        if self.published && self.next == self.committed {
            return Ok(self.committed.generation);
        }
        self.next.generation = self.committed.generation + 1;
        match self.next.publish(&*self.storage, self.name) {
            Ok(()) => {}
            Err(Unpublished::Clean(error)) => {
                self.next.generation = self.committed.generation;
                return Err(error);
            }
            Err(Unpublished::Unknown(error)) => {
                self.broken = Some(error.clone());
                return Err(error);
            }
        }
        self.committed = self.next.clone();
        self.published = true;
        self.collect_garbage();
        Ok(self.committed.generation)
    }

    /// Writes what is pending and notes how far a build is: a new process goes on from there.
    pub(crate) fn checkpoint(&mut self, mut build: BuildState) -> Result<()> {
        self.check_usable()?;
        self.flush()?;
        build.done = self.next.segments.iter().map(|s| s.documents as u64).sum();
        self.next.build = Some(build);
        self.publish().map(drop)
    }

    /// Makes the index that was built the one that readers see.
    pub(crate) fn finish_build(&mut self) -> Result<()> {
        self.check_usable()?;
        self.flush()?;
        self.next.build = None;
        self.name = CURRENT;
        self.publish().map(drop)
    }

    /// Forgets everything since the last commit.
    ///
    /// # Errors
    /// `ERR_CORRUPT` or `ERR_IO` if the segments of the last commit cannot be opened again.
    pub fn rollback(&mut self) -> Result<()> {
        self.check_usable()?;
        let manifest = self.committed.clone();
        let storage = self.storage.clone();
        let index = Index::from_manifest(storage, Verify::default(), manifest, None)?;
        self.stored = index.stored().to_vec();
        // Numbers of files are not given twice, so that no file is mistaken for another.
        self.next = Manifest { next_file: self.next.next_file, ..self.committed.clone() };
        self.pending = Pending::default();
        self.collect_garbage();
        Ok(())
    }

    /// Whether the segment would be more than full with as many tokens more.
    pub(crate) fn is_full(&self, tokens: usize) -> bool {
        let tokens = self.pending.encoded.codes.len() + tokens;
        !self.pending.ids.is_empty()
            && tokens * (self.codec.residual_bytes() + TOKEN_BYTES) > self.segment_bytes
    }

    fn make_room(&mut self, tokens: usize) -> Result<()> {
        if self.is_full(tokens) { self.flush() } else { Ok(()) }
    }

    /// Writes pending documents to a segment, which the next commit will mention.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut writing = self.times.writing;
        let result = timed(&mut writing, || self.flush_pending());
        self.times.writing = writing;
        result
    }

    fn flush_pending(&mut self) -> Result<()> {
        self.pending.drop_deleted(self.codec.residual_bytes());
        if self.pending.ids.is_empty() {
            return Ok(());
        }
        let pending = &mut self.pending;
        let mut offsets = vec![0u32];
        for length in &pending.lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        let mut columns = ColumnsBuilder::default();
        pending.rows.iter().for_each(|row| columns.push(&self.next.schema, row));
        let stored = Stored {
            segment: self.codec.segment(offsets, std::mem::take(&mut pending.encoded))?,
            ids: IdTable::new(&pending.ids, self.next.ids),
            columns: columns.finish(),
        };
        match self.push_segment(&stored) {
            Ok(()) => {
                self.pending = Pending::default();
                Ok(())
            }
            Err(error) => {
                // Nothing is lost: there may be room later.
                let parts = stored.segment.parts();
                self.pending.encoded = Encoded {
                    codes: parts.codes.to_vec(),
                    residuals: parts.residuals.to_vec(),
                    inv_norms: parts.inv_norms.to_vec(),
                };
                Err(error)
            }
        }
    }

    /// Writes a segment and puts it behind the others.
    fn push_segment(&mut self, stored: &Stored) -> Result<()> {
        let number = self.next.next_file;
        let reference = write_segment(&*self.storage, number, stored)?;
        // What is in memory is let go of: the file's map takes its place.
        let opened = read_segment(&*self.storage, &reference, &self.codec, self.next.ids, Verify::Structure)?;
        self.next.next_file = number + 1;
        self.next.segments.push(reference);
        self.stored.push(Arc::new(opened));
        Ok(())
    }

    fn segment_size(&self, at: usize) -> usize {
        self.stored[at].segment.bytes()
    }

    fn merge_tail(&mut self) -> Result<()> {
        let Some(mut first) = self.stored.len().checked_sub(1) else { return Ok(()) };
        let mut total = self.segment_size(first);
        while first > 0 {
            let size = self.segment_size(first - 1);
            if size > 2 * total || size + total > self.segment_bytes {
                break;
            }
            total += size;
            first -= 1;
        }
        if first + 1 < self.stored.len() { self.rewrite(first) } else { Ok(()) }
    }

    /// Brings the documents into as few segments as they fit into, without deleted ones, and commits. Positions change, ids do not.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and `ERR_CORRUPT` if a checksum of what is copied does not match.
    pub fn compact(&mut self) -> Result<u64> {
        self.check_usable()?;
        self.flush()?;
        self.drop_empty();
        let full = |at: usize, writer: &Self| 2 * writer.segment_size(at) > writer.segment_bytes;
        let clean = |at: usize, writer: &Self| writer.next.segments[at].deleted.is_none();
        // Segments at the beginning that are full and have lost nothing stay as they are.
        let first = (0..self.stored.len()).find(|&at| !full(at, self) || !clean(at, self));
        if let Some(first) = first
            && (first + 1 < self.stored.len() || !clean(first, self))
        {
            self.rewrite(first)?;
        }
        self.publish()
    }

    /// Copies the documents of the segments from `first` on, in their order, into new segments in their place.
    fn rewrite(&mut self, first: usize) -> Result<()> {
        debug_assert!(self.pending.ids.is_empty());
        let saved = (self.next.segments.clone(), self.stored.clone());
        let old: Vec<_> = self.next.segments.drain(first..).zip(self.stored.drain(first..)).collect();
        let result = old.into_iter().try_for_each(|(reference, _)| {
            self.engine.as_ref().map_or(Ok(()), |engine| engine.cancel().check())?;
            // Read again and compared with all checksums: a damaged residual must not get a new, valid one.
            let old = read_segment(&*self.storage, &reference, &self.codec, self.next.ids, Verify::All)?;
            self.copy(&old, reference.deleted.as_ref())
        });
        let result = result.and_then(|()| self.flush());
        if result.is_err() {
            self.pending = Pending::default();
            (self.next.segments, self.stored) = saved;
        }
        result
    }

    fn copy(&mut self, from: &Stored, deleted: Option<&Bitmap>) -> Result<()> {
        let (parts, width) = (from.segment.parts(), self.codec.residual_bytes());
        for document in 0..from.segment.documents() {
            if deleted.is_some_and(|deleted| deleted.contains(document)) {
                continue;
            }
            let rows = from.segment.rows(document);
            let length = rows.len() as u32;
            self.make_room(rows.len())?;
            let encoded = EncodedRef {
                codes: &parts.codes[rows.clone()],
                residuals: &parts.residuals[rows.start * width..rows.end * width],
                inv_norms: &parts.inv_norms[rows],
            };
            let row = [from.columns.row(document)];
            self.append(vec![from.ids.get(document)], &row, std::iter::once(length), encoded);
        }
        Ok(())
    }

    /// Removes files of the index that neither manifest speaks of. A failure leaves them for the next time: Windows does not remove
    /// what someone has open.
    fn collect_garbage(&self) {
        let (Ok(names), Ok(current), Ok(building)) = (
            self.storage.names(),
            Manifest::read(&*self.storage, CURRENT),
            Manifest::read(&*self.storage, BUILDING),
        ) else {
            return;
        };
        // The manifest of the build that made this index: a crash kept it from being removed.
        let finished = |building: &Manifest| current.as_ref().is_some_and(|c| c.codec == building.codec);
        let building = building.filter(|building| {
            let finished = finished(building);
            if finished {
                let _ = self.storage.remove(BUILDING);
            }
            !finished
        });
        let manifests = [current.as_ref(), building.as_ref(), Some(&self.next)];
        let needed: HashSet<String> = manifests
            .into_iter()
            .flatten()
            .flat_map(|m| std::iter::once(m.codec.name()).chain(m.segments.iter().map(|s| s.file.name())))
            .collect();
        for name in names.iter().filter(|name| is_ours(name) && !needed.contains(*name)) {
            let _ = self.storage.remove(name);
        }
    }
}

/// Encoded tokens where they lie.
struct EncodedRef<'a> {
    codes: &'a [u32],
    residuals: &'a [u8],
    inv_norms: &'a [maxsim_core::f16],
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Pending(usize),
    Stored { segment: usize, document: usize },
}

impl Pending {
    fn drop_deleted(&mut self, width: usize) {
        if self.deleted.is_empty() {
            return;
        }
        let before = std::mem::take(self);
        let mut first = 0;
        let documents = before.ids.into_iter().zip(before.rows).zip(before.lengths).enumerate();
        for (document, ((id, row), length)) in documents {
            let rows = first..first + length as usize;
            first = rows.end;
            if before.deleted.contains(&document) {
                continue;
            }
            self.positions.insert(id.clone(), self.ids.len());
            self.ids.push(id);
            self.rows.push(row);
            self.lengths.push(length);
            let (from, to) = (&before.encoded, &mut self.encoded);
            to.codes.extend_from_slice(&from.codes[rows.clone()]);
            to.residuals.extend_from_slice(&from.residuals[rows.start * width..rows.end * width]);
            to.inv_norms.extend_from_slice(&from.inv_norms[rows]);
        }
    }
}

/// Takes the writer lock.
pub(crate) fn lock(storage: &dyn Storage) -> Result<Guard> {
    storage.lock().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { what: storage.describe() },
        _ => Error::io(storage.describe(), error),
    })
}

/// Generation that is free, and number of a file: above those of every manifest that is there.
///
/// # Errors
/// `ERR_VALUE` if there is an index and it is not to be replaced.
pub(crate) fn free_numbers(storage: &dyn Storage, replace: bool) -> Result<(u64, u64)> {
    let names = storage.names().map_err(|error| Error::io(storage.describe(), error))?;
    // A damaged manifest does not tell its numbers; files that readers have open must not be written to all the same.
    let mut numbers = (0, free_number(&names));
    for (name, obstacle) in [(CURRENT, true), (BUILDING, false)] {
        let manifest = match Manifest::read(storage, name) {
            Ok(manifest) => manifest,
            Err(_) if replace || !obstacle => None,
            Err(error) => return Err(error),
        };
        if let Some(manifest) = manifest {
            if obstacle && !replace {
                let got = format!("{}, which has one", storage.describe());
                return Err(Error::value("path", "a place without an index", got));
            }
            numbers = (numbers.0.max(manifest.generation), numbers.1.max(manifest.next_file));
        }
    }
    Ok(numbers)
}
