//! PLAID indexes: what is done to one, whatever keeps its files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use maxsim_core::{Cancel, Engine, Error, ErrorCode, MaybeSendSync, PlaidOptions, Result};
use maxsim_plaid::store::pack;
use maxsim_plaid::{
    BuildOptions, Builder, DocumentId, EncoderRecord, Filter, IdKind, Index, IndexWriter, RemoteIndex, Row,
    SearchHit, Selection, TrainOptions, Value,
};

use crate::input::RawTokens;
use crate::operation::camel;

/// `RawIds` of `native.ts`.
#[derive(Clone, Default)]
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawIds {
    pub numbers: Option<Vec<u64>>,
    pub texts: Option<Vec<String>>,
}

impl RawIds {
    fn new(ids: Vec<DocumentId>, kind: IdKind) -> Self {
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for id in ids {
            match id {
                DocumentId::Number(id) => numbers.push(id),
                DocumentId::Text(id) => texts.push(id),
            }
        }
        match kind {
            IdKind::Number => Self { numbers: Some(numbers), texts: None },
            IdKind::Text => Self { numbers: None, texts: Some(texts) },
        }
    }

    fn ids(self) -> Vec<DocumentId> {
        match (self.numbers, self.texts) {
            (Some(numbers), _) => numbers.into_iter().map(DocumentId::Number).collect(),
            (None, texts) => texts.unwrap_or_default().into_iter().map(DocumentId::Text).collect(),
        }
    }
}

/// `RawValue` of `native.ts`.
#[derive(Default)]
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawValue {
    pub name: String,
    pub bool: Option<bool>,
    pub int: Option<i64>,
    pub float: Option<f64>,
    pub text: Option<String>,
}

impl RawValue {
    fn named(self) -> (String, Value) {
        let value = match self {
            Self { bool: Some(x), .. } => Value::Bool(x),
            Self { int: Some(x), .. } => Value::Int(x),
            Self { float: Some(x), .. } => Value::Float(x),
            Self { text: Some(x), .. } => Value::Text(x),
            _ => Value::Null,
        };
        (self.name, value)
    }

    fn new((name, value): (String, Value)) -> Self {
        let mut raw = Self { name, ..Self::default() };
        match value {
            Value::Null => {}
            Value::Bool(x) => raw.bool = Some(x),
            Value::Int(x) => raw.int = Some(x),
            Value::Float(x) => raw.float = Some(x),
            Value::Text(x) => raw.text = Some(x),
        }
        raw
    }
}

/// `RawBatch` of `native.ts`, read: documents with ids and metadata.
pub struct Batch {
    documents: RawTokens,
    ids: Option<Vec<DocumentId>>,
    metadata: Vec<Row>,
}

impl Batch {
    /// The fields of a batch.
    pub fn new(documents: RawTokens, ids: Option<RawIds>, metadata: Option<Vec<Vec<RawValue>>>) -> Self {
        let rows = metadata.unwrap_or_default().into_iter();
        let rows = rows.map(|row| row.into_iter().map(RawValue::named).collect());
        Self { documents, ids: ids.map(RawIds::ids), metadata: rows.collect() }
    }
}

/// `RawSelection` of `native.ts`, read: documents of an index by filter, by ids, or both.
pub struct Chosen {
    filter: Option<(String, Vec<Value>)>,
    ids: Option<Vec<DocumentId>>,
}

impl Chosen {
    /// The fields of a selection.
    pub fn new(filter: Option<String>, parameters: Option<Vec<RawValue>>, ids: Option<RawIds>) -> Self {
        let parameters = parameters.unwrap_or_default().into_iter().map(|raw| raw.named().1);
        Self { filter: filter.map(|filter| (filter, parameters.collect())), ids: ids.map(RawIds::ids) }
    }

    fn filter(&self) -> Result<Option<Filter>> {
        self.filter.as_ref().map(|(text, parameters)| Filter::parse(text, parameters)).transpose()
    }
}

/// `RawIndexSearch` of `native.ts` without `which`. Which sizes are too small is for the engine to say.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawIndexSearch {
    pub top_k: usize,
    pub n_ivf_probe: Option<usize>,
    pub n_full_scores: Option<usize>,
    pub centroid_score_threshold: Option<f64>,
    pub exact: Option<bool>,
    pub normalize: Option<bool>,
    pub explain: Option<bool>,
    pub precision: Option<String>,
}

impl RawIndexSearch {
    fn options(&self) -> Result<PlaidOptions> {
        let defaults = PlaidOptions::default();
        Ok(PlaidOptions {
            top_k: self.top_k,
            n_ivf_probe: self.n_ivf_probe.unwrap_or(defaults.n_ivf_probe),
            n_full_scores: self.n_full_scores.or(defaults.n_full_scores),
            centroid_score_threshold: self.centroid_score_threshold.map(|x| x as f32),
            exact: self.exact.unwrap_or(defaults.exact),
            candidates_only: false,
            normalize: self.normalize.unwrap_or(defaults.normalize),
            explain: self.explain.unwrap_or(defaults.explain),
            precision: self.precision.as_deref().map(str::parse).transpose()?.unwrap_or(defaults.precision),
        })
    }
}

/// `RawHits` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawHits {
    pub ids: RawIds,
    pub scores: Vec<f32>,
    pub offsets: Vec<u32>,
    pub winners: Option<Vec<i32>>,
}

impl RawHits {
    fn new(found: Vec<Vec<SearchHit>>, kind: IdKind, explain: bool) -> Self {
        let mut offsets = vec![0u32];
        let (mut ids, mut scores, mut winners) = (Vec::new(), Vec::new(), Vec::new());
        for hits in found {
            for hit in hits {
                ids.push(hit.id);
                scores.push(hit.score);
                winners.extend(hit.winners);
            }
            offsets.push(ids.len() as u32);
        }
        let ids = RawIds::new(ids, kind);
        Self { ids, scores, offsets, winners: explain.then_some(winners) }
    }
}

/// Metadata of the documents of these ids.
fn rows(index: &Index, ids: &RawIds) -> Vec<Option<Vec<RawValue>>> {
    let row = |id: &DocumentId| Some(index.metadata(id)?.into_iter().map(RawValue::new).collect());
    ids.clone().ids().iter().map(row).collect()
}

/// `RawBuildOptions` of `native.ts`.
#[derive(Default)]
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawBuildOptions {
    pub ids: Option<String>,
    pub nbits: Option<usize>,
    pub centroids: Option<usize>,
    pub iterations: Option<usize>,
    pub seed: Option<u64>,
    pub replace: Option<bool>,
    pub source: Option<String>,
    pub encoder: Option<EncoderRecord>,
}

impl RawBuildOptions {
    /// Options of a build whose segments are full at `segment_bytes`.
    pub fn options(self, segment_bytes: usize) -> BuildOptions {
        let defaults = TrainOptions::default();
        BuildOptions {
            ids: if self.ids.as_deref() == Some("text") { IdKind::Text } else { IdKind::Number },
            replace: self.replace.unwrap_or(false),
            train: TrainOptions {
                nbits: self.nbits.map_or(defaults.nbits, |nbits| u32::try_from(nbits).unwrap_or(0)),
                centroids: self.centroids,
                iterations: self.iterations.unwrap_or(defaults.iterations),
                seed: self.seed.unwrap_or(defaults.seed),
                ..defaults
            },
            segment_bytes,
            encoder: self.encoder,
            source: self.source.unwrap_or_default(),
        }
    }
}

/// `RawBuildState` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawBuildState {
    pub trained: bool,
    pub documents: u64,
    pub tokens: u64,
    pub done: u64,
}

/// An error of an index, its argument spelled as in JavaScript.
fn js(error: Error) -> Error {
    error.map_argument(|argument| match argument {
        "Q" => "query".into(),
        other => camel(other).into(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn disposed(what: &str) -> Error {
    Error::Disposed { what: what.into() }
}

/// Opens the writer of an index.
pub trait OpenWriter: Fn(&Engine) -> Result<IndexWriter> + MaybeSendSync {}
impl<T: Fn(&Engine) -> Result<IndexWriter> + MaybeSendSync> OpenWriter for T {}

/// Hears why searches are left to the engine of changes.
pub trait OnFallback: Fn(&Error) + MaybeSendSync {}
impl<T: Fn(&Error) + MaybeSendSync> OnFallback for T {}

/// Whether another device may do what failed so.
fn is_of_device(error: &Error) -> bool {
    use ErrorCode::{Compile, DeviceLost, Limit, OutOfMemory, Unsupported};
    [Compile, DeviceLost, Limit, OutOfMemory, Unsupported].contains(&error.code())
}

/// An index that is open: the one that searches see, and its writer.
pub struct OpenIndex {
    /// What changes compute with.
    engine: Engine,
    /// What searches compute with …
    searching: Engine,
    /// … until that fails, if something else is to do then.
    fallback: Option<Box<dyn OnFallback>>,
    fell_back: AtomicBool,
    /// What searches see; `None` once disposed.
    index: Mutex<Option<Index>>,
    /// The same on the engine's device, since the first search of it.
    uploaded: Mutex<Option<Index>>,
    /// Opened by the first change.
    writer: Mutex<Option<IndexWriter>>,
    open_writer: Box<dyn OpenWriter>,
}

impl OpenIndex {
    /// `open_writer` is called by the first change.
    pub fn new(engine: Engine, index: Index, open_writer: impl OpenWriter + 'static) -> Self {
        let (index, uploaded, writer) = (Mutex::new(Some(index)), Mutex::default(), Mutex::default());
        Self {
            searching: engine.clone(),
            fallback: None,
            fell_back: AtomicBool::new(false),
            engine,
            index,
            uploaded,
            writer,
            open_writer: Box::new(open_writer),
        }
    }

    /// The same, whose [`search_async`](Self::search_async) computes with another engine. With a `fallback`, searches that its device
    /// cannot do, and all after them, are left to the first engine; it is told once.
    pub fn searching_with(self, searching: Engine, fallback: Option<Box<dyn OnFallback>>) -> Self {
        Self { searching, fallback, ..self }
    }

    /// The index as searches see it.
    ///
    /// # Errors
    /// `ERR_DISPOSED`.
    pub fn index(&self) -> Result<Index> {
        lock(&self.index).clone().ok_or_else(|| disposed("index"))
    }

    /// The same on the engine's device, if that has room for it.
    fn uploaded(&self) -> Result<Index> {
        let mut uploaded = lock(&self.uploaded);
        let index = self.index()?;
        if let Some(uploaded) = uploaded.as_ref().filter(|older| older.generation() == index.generation()) {
            return Ok(uploaded.clone());
        }
        // Before, so that the device need not hold both.
        *uploaded = None;
        let index = index.upload(&self.searching).unwrap_or(index);
        // Disposed meanwhile.
        self.index()?;
        Ok(uploaded.insert(index).clone())
    }

    /// The best documents of every query.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn search(
        &self,
        cancel: &Cancel,
        q: &RawTokens,
        options: &RawIndexSearch,
        chosen: &Chosen,
    ) -> Result<RawHits> {
        let (index, engine) = (self.uploaded()?, self.searching.with_cancel(cancel.clone()));
        let (filter, options) = (chosen.filter()?, options.options()?);
        let selection = Selection { filter: filter.as_ref(), ids: chosen.ids.as_deref() };
        let found = index.search(&engine, q.tokens()?, options, selection).map_err(js)?;
        Ok(RawHits::new(found, index.info().ids, options.explain))
    }

    /// [`search`](Self::search) for those who may only await.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub async fn search_async(
        &self,
        cancel: &Cancel,
        q: &RawTokens,
        options: &RawIndexSearch,
        chosen: &Chosen,
    ) -> Result<RawHits> {
        let with = async |index: Result<Index>, engine: &Engine| {
            let (index, engine) = (index?, engine.with_cancel(cancel.clone()));
            let (filter, options) = (chosen.filter()?, options.options()?);
            let selection = Selection { filter: filter.as_ref(), ids: chosen.ids.as_deref() };
            let found = index.search_async(&engine, q.tokens()?, options, selection).await.map_err(js)?;
            Ok(RawHits::new(found, index.info().ids, options.explain))
        };
        if !self.fell_back.load(Ordering::Relaxed) {
            let found = with(self.uploaded(), &self.searching).await;
            let Some((fallback, error)) = self.fallback.as_ref().zip(found.as_ref().err()) else {
                return found;
            };
            if !is_of_device(error) {
                return found;
            }
            if !self.fell_back.swap(true, Ordering::Relaxed) {
                fallback(error);
            }
            lock(&self.uploaded).take();
        }
        with(self.index(), &self.engine).await
    }

    /// Adds documents and commits; gives how many were replaced.
    ///
    /// # Errors
    /// As [`IndexWriter::add`], and those of opening the writer.
    pub fn add(&self, cancel: &Cancel, batch: &Batch, replace: bool) -> Result<usize> {
        self.change(cancel, |writer| {
            let replaced = match &batch.ids {
                Some(ids) if replace => writer.delete(ids)?,
                _ => 0,
            };
            writer.add(&batch.documents.tokens()?, batch.ids.as_deref(), &batch.metadata).map_err(js)?;
            Ok(replaced)
        })
    }

    /// Deletes documents and commits; gives how many there were.
    ///
    /// # Errors
    /// As [`IndexWriter::delete`] and [`Index::select`], and those of opening the writer.
    pub fn delete(&self, cancel: &Cancel, chosen: &Chosen) -> Result<usize> {
        self.change(cancel, |writer| match chosen.filter()? {
            None => writer.delete(chosen.ids.as_deref().unwrap_or_default()),
            Some(filter) => {
                let index = writer.index()?;
                let selection = Selection { filter: Some(&filter), ids: chosen.ids.as_deref() };
                let found = index.select(selection)?;
                let ids: Vec<DocumentId> = found.iter().map(|position| index.id(position)).collect();
                writer.delete(&ids)
            }
        })
    }

    /// Brings the index into few files, without deleted documents; gives how many there are.
    ///
    /// # Errors
    /// As [`IndexWriter::compact`], and those of opening the writer.
    pub fn compact(&self, cancel: &Cancel) -> Result<usize> {
        self.change(cancel, |writer| writer.compact().map(|_| writer.len()))
    }

    /// A change, committed; on error nothing of it is left.
    fn change<T>(&self, cancel: &Cancel, work: impl FnOnce(&mut IndexWriter) -> Result<T>) -> Result<T> {
        let engine = self.engine.with_cancel(cancel.clone());
        let mut slot = lock(&self.writer);
        self.index()?;
        let writer = match &mut *slot {
            Some(writer) => writer,
            None => slot.insert((self.open_writer)(&engine)?),
        };
        writer.set_engine(&engine);
        let result = work(writer).and_then(|result| writer.commit().map(|_| result));
        if result.is_err() && writer.rollback().is_err() {
            *slot = None;
        }
        let result = result.map_err(js)?;
        self.refresh()?;
        Ok(result)
    }

    /// Sees what other writers did; gives how many documents there are.
    ///
    /// # Errors
    /// As [`Index::refresh`].
    pub fn refresh(&self) -> Result<usize> {
        let newer = self.index()?.refresh()?;
        let count = newer.len();
        let mut index = lock(&self.index);
        // Disposed meanwhile, or overtaken by a later change.
        if index.as_ref().is_some_and(|index| index.generation() <= newer.generation()) {
            *index = Some(newer);
        }
        Ok(count)
    }

    /// Starts over from another index, such as an older one: the next change opens the writer anew.
    pub fn reset(&self, index: Index) {
        lock(&self.writer).take();
        let mut slot = lock(&self.index);
        if slot.is_some() {
            *slot = Some(index);
        }
        drop(slot);
        // The next change may come to the same generation by other documents.
        lock(&self.uploaded).take();
    }

    /// Compares everything with its checksum; gives how many documents there are.
    ///
    /// # Errors
    /// As [`Index::verify`].
    pub fn verify(&self) -> Result<usize> {
        let index = self.index()?;
        index.verify()?;
        Ok(index.len())
    }

    /// Metadata of the documents of these ids; `None` for those that are not there.
    ///
    /// # Errors
    /// `ERR_DISPOSED`.
    pub fn metadata(&self, ids: &RawIds) -> Result<Vec<Option<Vec<RawValue>>>> {
        Ok(rows(&self.index()?, ids))
    }

    /// The index in one file.
    ///
    /// # Errors
    /// As [`pack`].
    pub fn pack(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        pack(&self.index()?, &mut bytes)?;
        Ok(bytes)
    }

    /// Lets go of files and the writer lock; calls under way keep them until they are done.
    pub fn dispose(&self) {
        lock(&self.index).take();
        // A search that is uploading finds the index disposed when it is done.
        if let Ok(mut uploaded) = self.uploaded.try_lock() {
            uploaded.take();
        }
        // A change under way holds the writer; it finds the index disposed when it ends, and the lock goes with it.
        if let Ok(mut writer) = self.writer.try_lock() {
            writer.take();
        }
    }
}

/// An index whose residuals are read as searches need them.
pub struct OpenRemoteIndex {
    engine: Engine,
    index: RemoteIndex,
}

impl OpenRemoteIndex {
    /// `index`, searched with `engine`.
    pub fn new(engine: Engine, index: RemoteIndex) -> Self {
        Self { engine, index }
    }

    /// Everything but searches.
    pub fn index(&self) -> &Index {
        self.index.index()
    }

    /// The best documents of every query.
    ///
    /// # Errors
    /// As [`RemoteIndex::search`].
    pub async fn search(
        &self,
        cancel: &Cancel,
        q: &RawTokens,
        options: &RawIndexSearch,
        chosen: &Chosen,
    ) -> Result<RawHits> {
        let engine = self.engine.with_cancel(cancel.clone());
        let (filter, options) = (chosen.filter()?, options.options()?);
        let selection = Selection { filter: filter.as_ref(), ids: chosen.ids.as_deref() };
        let found = self.index.search(&engine, q.tokens()?, options, selection).await.map_err(js)?;
        Ok(RawHits::new(found, self.index().info().ids, options.explain))
    }

    /// Metadata of the documents of these ids; `None` for those that are not there.
    pub fn metadata(&self, ids: &RawIds) -> Vec<Option<Vec<RawValue>>> {
        rows(self.index(), ids)
    }
}

/// A build under way: its methods are called one after the other.
pub struct OpenBuild {
    engine: Engine,
    builder: Mutex<Option<Builder>>,
}

impl OpenBuild {
    /// `builder` computes with `engine`.
    pub fn new(engine: Engine, builder: Builder) -> Self {
        Self { engine, builder: Mutex::new(Some(builder)) }
    }

    fn step(&self, cancel: &Cancel, work: impl FnOnce(&mut Builder) -> Result<()>) -> Result<RawBuildState> {
        let mut slot = lock(&self.builder);
        let builder = slot.as_mut().ok_or_else(|| disposed("build"))?;
        builder.set_engine(&self.engine.with_cancel(cancel.clone()));
        work(builder).map_err(js)?;
        Ok(RawBuildState {
            trained: builder.is_trained(),
            documents: builder.documents(),
            tokens: builder.tokens(),
            done: builder.done(),
        })
    }

    /// Where it stands.
    ///
    /// # Errors
    /// `ERR_DISPOSED`.
    pub fn state(&self) -> Result<RawBuildState> {
        self.step(&Cancel::new(), |_| Ok(()))
    }

    /// First pass.
    ///
    /// # Errors
    /// As [`Builder::sample`].
    pub fn sample(&self, cancel: &Cancel, documents: &RawTokens) -> Result<RawBuildState> {
        self.step(cancel, |builder| builder.sample(&documents.tokens()?))
    }

    /// Between the passes.
    ///
    /// # Errors
    /// As [`Builder::train`].
    pub fn train(&self, cancel: &Cancel) -> Result<RawBuildState> {
        self.step(cancel, |builder| builder.train(&mut |_| ()))
    }

    /// Second pass.
    ///
    /// # Errors
    /// As [`Builder::add`].
    pub fn add(&self, cancel: &Cancel, batch: &Batch) -> Result<RawBuildState> {
        self.step(cancel, |builder| {
            builder.add(&batch.documents.tokens()?, batch.ids.as_deref(), &batch.metadata)
        })
    }

    /// The index.
    ///
    /// # Errors
    /// As [`Builder::finish`].
    pub fn finish(&self) -> Result<(Engine, Index)> {
        let builder = lock(&self.builder).take().ok_or_else(|| disposed("build"))?;
        Ok((self.engine.clone(), builder.finish().map_err(js)?))
    }

    /// Lets go of it; what is finished of it is gone on with by the next build of the same options.
    pub fn dispose(&self) {
        lock(&self.builder).take();
    }
}
