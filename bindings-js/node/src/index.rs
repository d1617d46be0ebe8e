//! Indexes on disk.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use maxsim::plaid::store::DirectoryStorage;
use maxsim::plaid::{
    BuildOptions, Builder, DocumentId, Filter, IdKind, Index, IndexWriter, Row, SearchHit, Selection,
    TrainOptions, Value,
};
use maxsim::{Engine, Error, PlaidOptions, Result};
use napi::bindgen_prelude::{BigInt, BigUint64Array, Env, Float32Array, Int32Array, Uint32Array};
use napi_derive::napi;

use crate::engine::{NativeCancel, NativeEngine};
use crate::input::RawTokens;
use crate::job::{Promised, promise, promise_as};

/// `RawIds` of `native.ts`.
#[napi(object)]
pub struct RawIds {
    pub numbers: Option<BigUint64Array>,
    pub texts: Option<Vec<String>>,
}

/// `RawValue` of `native.ts`.
#[napi(object)]
pub struct RawValue {
    pub name: String,
    pub bool: Option<bool>,
    pub int: Option<BigInt>,
    pub float: Option<f64>,
    pub text: Option<String>,
}

/// `RawBatch` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawBatch {
    pub documents: RawTokens,
    pub ids: Option<RawIds>,
    pub metadata: Option<Vec<Vec<RawValue>>>,
}

/// `RawBuildOptions` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawBuildOptions {
    pub ids: Option<String>,
    pub nbits: Option<i64>,
    pub centroids: Option<i64>,
    pub iterations: Option<i64>,
    pub seed: Option<i64>,
    pub replace: Option<bool>,
    pub source: Option<String>,
}

/// `RawIndexSearch` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawIndexSearch {
    pub top_k: i64,
    pub n_ivf_probe: Option<i64>,
    pub n_full_scores: Option<i64>,
    pub centroid_score_threshold: Option<f64>,
    pub exact: Option<bool>,
    pub normalize: Option<bool>,
    pub explain: Option<bool>,
    pub precision: Option<String>,
    pub which: RawSelection,
}

/// `RawSelection` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawSelection {
    pub filter: Option<String>,
    pub parameters: Option<Vec<RawValue>>,
    pub ids: Option<RawIds>,
}

/// `RawHits` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawHits {
    pub ids: RawIds,
    pub scores: Float32Array,
    pub offsets: Uint32Array,
    pub winners: Option<Int32Array>,
}

/// `RawCount` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawCount {
    pub count: f64,
}

/// `RawRows` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawRows {
    pub rows: Vec<Option<Vec<RawValue>>>,
}

/// `IndexInfo` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawIndexInfo {
    pub generation: f64,
    pub documents: i64,
    pub deleted: i64,
    pub tokens: i64,
    pub dim: i64,
    pub nbits: i64,
    pub centroids: i64,
    pub ids: String,
    pub columns: Vec<RawColumn>,
    pub segments: i64,
    pub bytes_per_token: f64,
    pub file_bytes: f64,
}

/// A column of metadata.
#[napi(object, object_from_js = false)]
pub struct RawColumn {
    pub name: String,
    pub r#type: String,
}

/// Ids that crossed over; numbers are copied, since the array may change while a call runs.
fn ids(raw: Option<RawIds>) -> Option<Vec<DocumentId>> {
    let raw = raw?;
    Some(match (raw.numbers, raw.texts) {
        (Some(numbers), _) => numbers.iter().copied().map(DocumentId::Number).collect(),
        (None, texts) => texts.unwrap_or_default().into_iter().map(DocumentId::Text).collect(),
    })
}

fn raw_ids(ids: Vec<DocumentId>, kind: IdKind) -> RawIds {
    let (mut numbers, mut texts) = (Vec::new(), Vec::new());
    for id in ids {
        match id {
            DocumentId::Number(id) => numbers.push(id),
            DocumentId::Text(id) => texts.push(id),
        }
    }
    match kind {
        IdKind::Number => RawIds { numbers: Some(numbers.into()), texts: None },
        IdKind::Text => RawIds { numbers: None, texts: Some(texts) },
    }
}

fn value(raw: RawValue) -> (String, Value) {
    let value = match raw {
        RawValue { bool: Some(x), .. } => Value::Bool(x),
        // TypeScript has checked that it fits.
        RawValue { int: Some(x), .. } => Value::Int(x.get_i64().0),
        RawValue { float: Some(x), .. } => Value::Float(x),
        RawValue { text: Some(x), .. } => Value::Text(x),
        _ => Value::Null,
    };
    (raw.name, value)
}

fn raw_value((name, value): (String, Value)) -> RawValue {
    let mut raw = RawValue { name, bool: None, int: None, float: None, text: None };
    match value {
        Value::Null => {}
        Value::Bool(x) => raw.bool = Some(x),
        Value::Int(x) => raw.int = Some(x.into()),
        Value::Float(x) => raw.float = Some(x),
        Value::Text(x) => raw.text = Some(x),
    }
    raw
}

fn rows(raw: Option<Vec<Vec<RawValue>>>) -> Vec<Row> {
    raw.unwrap_or_default().into_iter().map(|row| row.into_iter().map(value).collect()).collect()
}

struct Batch {
    documents: maxsim_js::RawTokens,
    ids: Option<Vec<DocumentId>>,
    metadata: Vec<Row>,
}

impl TryFrom<RawBatch> for Batch {
    type Error = napi::Error;

    fn try_from(raw: RawBatch) -> napi::Result<Self> {
        Ok(Self { documents: raw.documents.try_into()?, ids: ids(raw.ids), metadata: rows(raw.metadata) })
    }
}

/// Documents of an index by filter, by ids, or both.
struct Chosen {
    filter: Option<(String, Vec<Value>)>,
    ids: Option<Vec<DocumentId>>,
}

impl From<RawSelection> for Chosen {
    fn from(raw: RawSelection) -> Self {
        let parameters = raw.parameters.unwrap_or_default().into_iter().map(|raw| value(raw).1);
        Self { filter: raw.filter.map(|filter| (filter, parameters.collect())), ids: ids(raw.ids) }
    }
}

impl Chosen {
    fn filter(&self) -> Result<Option<Filter>> {
        self.filter.as_ref().map(|(text, parameters)| Filter::parse(text, parameters)).transpose()
    }
}

/// Sizes are non-negative integers by TypeScript's check; which are too small is for Rust to say.
fn size(value: Option<i64>, default: usize) -> usize {
    value.map_or(default, |value| usize::try_from(value).unwrap_or(usize::MAX))
}

fn js(error: Error) -> Error {
    error.map_argument(|argument| maxsim_js::camel(argument).into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn disposed() -> Error {
    Error::Disposed { what: "index".into() }
}

struct Shared {
    engine: Engine,
    path: PathBuf,
    /// What searches see; `None` once disposed.
    index: Mutex<Option<Index>>,
    /// Opened by the first change.
    writer: Mutex<Option<IndexWriter>>,
}

impl Shared {
    fn index(&self) -> Result<Index> {
        lock(&self.index).clone().ok_or_else(disposed)
    }

    /// A change, committed; on error nothing of it is left.
    fn change<T>(&self, engine: &Engine, work: impl FnOnce(&mut IndexWriter) -> Result<T>) -> Result<T> {
        let mut slot = lock(&self.writer);
        self.index()?;
        let writer = match &mut *slot {
            Some(writer) => writer,
            None => slot.insert(IndexWriter::open(engine, &self.path)?),
        };
        writer.set_engine(engine);
        let result = work(writer).and_then(|result| writer.commit().map(|_| result));
        if result.is_err() && writer.rollback().is_err() {
            *slot = None;
        }
        let result = result?;
        self.refresh()?;
        Ok(result)
    }

    fn refresh(&self) -> Result<()> {
        let newer = self.index()?.refresh()?;
        let mut index = lock(&self.index);
        // Disposed meanwhile, or overtaken by a later change.
        if index.as_ref().is_some_and(|index| index.generation() <= newer.generation()) {
            *index = Some(newer);
        }
        Ok(())
    }
}

/// `NativeIndex` of `native.ts`.
#[napi]
pub struct NativeIndex(Arc<Shared>);

impl NativeIndex {
    fn new(engine: Engine, path: PathBuf, index: Index) -> Self {
        let (index, writer) = (Mutex::new(Some(index)), Mutex::new(None));
        Self(Arc::new(Shared { engine, path, index, writer }))
    }

    fn engine(&self, cancel: Option<&NativeCancel>) -> Engine {
        self.0.engine.with_cancel(crate::engine::flag(cancel))
    }
}

#[napi]
impl NativeIndex {
    /// Facts.
    #[napi(catch_unwind)]
    pub fn info(&self) -> napi::Result<RawIndexInfo> {
        let index = self.0.index().map_err(|error| napi::Error::from_reason(error.to_string()))?;
        let info = index.info();
        let column = |(name, column): (String, maxsim::plaid::ColumnType)| RawColumn {
            name,
            r#type: column.to_string(),
        };
        Ok(RawIndexInfo {
            generation: info.generation as f64,
            documents: info.documents as i64,
            deleted: info.deleted as i64,
            tokens: info.tokens as i64,
            dim: info.dim as i64,
            nbits: i64::from(info.nbits),
            centroids: info.centroids as i64,
            ids: info.ids.to_string(),
            bytes_per_token: info.bytes_per_token(),
            columns: info.columns.into_iter().map(column).collect(),
            segments: info.segments as i64,
            file_bytes: info.file_bytes as f64,
        })
    }

    /// The best documents of every query.
    #[napi(catch_unwind)]
    pub fn search(
        &self,
        q: RawTokens,
        options: RawIndexSearch,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawHits>> {
        let q: maxsim_js::RawTokens = q.try_into()?;
        let (shared, engine) = (self.0.clone(), self.engine(cancel));
        let defaults = PlaidOptions::default();
        let precision = options.precision.map(|precision| precision.parse()).transpose();
        let precision = precision.map_err(|error: Error| napi::Error::from_reason(error.to_string()))?;
        let search = PlaidOptions {
            top_k: size(Some(options.top_k), 0),
            n_ivf_probe: size(options.n_ivf_probe, defaults.n_ivf_probe),
            n_full_scores: size(options.n_full_scores, defaults.n_full_scores),
            centroid_score_threshold: options.centroid_score_threshold.map(|x| x as f32),
            exact: options.exact.unwrap_or(defaults.exact),
            normalize: options.normalize.unwrap_or(defaults.normalize),
            explain: options.explain.unwrap_or(defaults.explain),
            precision: precision.unwrap_or(defaults.precision),
        };
        let chosen = Chosen::from(options.which);
        Ok(promise(move || {
            let index = shared.index()?;
            let filter = chosen.filter()?;
            let selection = Selection { filter: filter.as_ref(), ids: chosen.ids.as_deref() };
            let found = index.search(&engine, q.tokens()?, search, selection).map_err(|error| {
                js(error.map_argument(|argument| {
                    if argument == "Q" { "query".into() } else { argument.to_owned().into() }
                }))
            })?;
            Ok(hits(found, index.info().ids, search.explain))
        }))
    }

    /// Adds documents and commits; gives how many were replaced.
    #[napi(catch_unwind)]
    pub fn add(
        &self,
        batch: RawBatch,
        replace: bool,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawCount>> {
        let batch = Batch::try_from(batch)?;
        let (shared, engine) = (self.0.clone(), self.engine(cancel));
        Ok(promise(move || {
            shared.change(&engine, |writer| {
                let replaced = match &batch.ids {
                    Some(ids) if replace => writer.delete(ids).map_err(js)?,
                    _ => 0,
                };
                writer.add(&batch.documents.tokens()?, batch.ids.as_deref(), &batch.metadata).map_err(js)?;
                Ok(RawCount { count: replaced as f64 })
            })
        }))
    }

    /// Deletes documents and commits; gives how many there were.
    #[napi(catch_unwind)]
    pub fn delete(&self, which: RawSelection, cancel: Option<&NativeCancel>) -> Promised<RawCount> {
        let chosen = Chosen::from(which);
        let (shared, engine) = (self.0.clone(), self.engine(cancel));
        promise(move || {
            shared.change(&engine, |writer| {
                let deleted = match chosen.filter()? {
                    None => writer.delete(chosen.ids.as_deref().unwrap_or_default())?,
                    Some(filter) => {
                        let index = writer.index()?;
                        let selection = Selection { filter: Some(&filter), ids: chosen.ids.as_deref() };
                        let found = index.select(selection)?;
                        let ids: Vec<DocumentId> = found.iter().map(|position| index.id(position)).collect();
                        writer.delete(&ids)?
                    }
                };
                Ok(RawCount { count: deleted as f64 })
            })
        })
    }

    /// Brings the index into few files, without deleted documents.
    #[napi(catch_unwind)]
    pub fn compact(&self, cancel: Option<&NativeCancel>) -> Promised<RawCount> {
        let (shared, engine) = (self.0.clone(), self.engine(cancel));
        promise(move || {
            shared.change(&engine, |writer| writer.compact().map(|_| RawCount { count: writer.len() as f64 }))
        })
    }

    /// Sees what other writers did.
    #[napi(catch_unwind)]
    pub fn refresh(&self) -> Promised<RawCount> {
        let shared = self.0.clone();
        promise(move || {
            shared.refresh()?;
            Ok(RawCount { count: shared.index()?.len() as f64 })
        })
    }

    /// Compares everything with its checksum.
    #[napi(catch_unwind)]
    pub fn verify(&self) -> Promised<RawCount> {
        let shared = self.0.clone();
        promise(move || {
            let index = shared.index()?;
            index.verify()?;
            Ok(RawCount { count: index.len() as f64 })
        })
    }

    /// Metadata of the documents of these ids; empty lists for none.
    #[napi(catch_unwind)]
    pub fn metadata(&self, which: RawIds) -> Promised<RawRows> {
        let (shared, ids) = (self.0.clone(), ids(Some(which)).unwrap_or_default());
        promise(move || {
            let index = shared.index()?;
            let row = |id| Some(index.metadata(id)?.into_iter().map(raw_value).collect());
            Ok(RawRows { rows: ids.iter().map(row).collect() })
        })
    }

    /// Lets go of files and the writer lock; calls under way keep them until they are done.
    #[napi(catch_unwind)]
    pub fn dispose(&self) {
        lock(&self.0.index).take();
        // A change under way holds the writer; it finds the index disposed when it ends, and the lock goes with it.
        if let Ok(mut writer) = self.0.writer.try_lock() {
            writer.take();
        }
    }
}

fn hits(found: Vec<Vec<SearchHit>>, kind: IdKind, explain: bool) -> RawHits {
    let mut offsets = vec![0u32];
    let (mut ids, mut scores, mut winners) = (Vec::new(), Vec::new(), Vec::new());
    for hit in found {
        for hit in hit {
            ids.push(hit.id);
            scores.push(hit.score);
            winners.extend(hit.winners);
        }
        offsets.push(ids.len() as u32);
    }
    RawHits {
        ids: raw_ids(ids, kind),
        scores: scores.into(),
        offsets: offsets.into(),
        winners: explain.then(|| winners.into()),
    }
}

#[napi]
impl NativeEngine {
    /// Opens an index.
    #[napi(catch_unwind)]
    pub fn open_index(&self, path: String) -> Promised<(Engine, PathBuf, Index), NativeIndex> {
        let engine = self.get(None);
        promise_as(
            move || {
                let (engine, path) = (engine.clone()?, PathBuf::from(&path));
                let index = Index::open(&path)?;
                Ok((engine, path, index))
            },
            |_: Env, (engine, path, index)| NativeIndex::new(engine, path, index),
        )
    }

    /// Begins a build, or goes on with one.
    #[napi(catch_unwind)]
    pub fn create_build(
        &self,
        path: String,
        options: RawBuildOptions,
    ) -> napi::Result<Promised<Build, NativeBuild>> {
        let engine = self.get(None);
        let defaults = TrainOptions::default();
        let build = BuildOptions {
            ids: if options.ids.as_deref() == Some("text") { IdKind::Text } else { IdKind::Number },
            replace: options.replace.unwrap_or(false),
            train: TrainOptions {
                nbits: options.nbits.map_or(defaults.nbits, |nbits| u32::try_from(nbits).unwrap_or(0)),
                centroids: options.centroids.map(|centroids| size(Some(centroids), 0)),
                iterations: size(options.iterations, defaults.iterations),
                seed: options.seed.map_or(defaults.seed, |seed| seed as u64),
                ..defaults
            },
            source: options.source.unwrap_or_default(),
            ..BuildOptions::default()
        };
        Ok(promise_as(
            move || {
                let (engine, path) = (engine.clone()?, PathBuf::from(&path));
                let builder = Builder::new(&engine, DirectoryStorage::new(&path), build.clone())?;
                Ok(Build { engine, path, builder })
            },
            |_, build| NativeBuild(Arc::new(Mutex::new(Some(build)))),
        ))
    }
}

/// A build under way.
pub struct Build {
    engine: Engine,
    path: PathBuf,
    builder: Builder,
}

/// `NativeBuild` of `native.ts`: called one after the other.
#[napi]
pub struct NativeBuild(Arc<Mutex<Option<Build>>>);

/// How far a build is.
#[napi(object, object_from_js = false)]
pub struct RawBuildState {
    pub trained: bool,
    pub documents: f64,
    pub tokens: f64,
    pub done: f64,
}

impl NativeBuild {
    fn step(
        &self,
        cancel: Option<&NativeCancel>,
        work: impl Fn(&mut Builder) -> Result<()> + Send + 'static,
    ) -> Promised<RawBuildState> {
        let (slot, cancel) = (self.0.clone(), crate::engine::flag(cancel));
        promise(move || {
            let mut slot = lock(&slot);
            let build = slot.as_mut().ok_or_else(|| Error::Disposed { what: "build".into() })?;
            build.builder.set_engine(&build.engine.with_cancel(cancel.clone()));
            work(&mut build.builder).map_err(js)?;
            let builder = &build.builder;
            Ok(RawBuildState {
                trained: builder.is_trained(),
                documents: builder.documents() as f64,
                tokens: builder.tokens() as f64,
                done: builder.done() as f64,
            })
        })
    }
}

#[napi]
impl NativeBuild {
    /// Where it stands.
    #[napi(catch_unwind)]
    pub fn state(&self) -> Promised<RawBuildState> {
        self.step(None, |_| Ok(()))
    }

    /// First pass.
    #[napi(catch_unwind)]
    pub fn sample(
        &self,
        documents: RawTokens,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawBuildState>> {
        let documents: maxsim_js::RawTokens = documents.try_into()?;
        Ok(self.step(cancel, move |builder| builder.sample(&documents.tokens()?)))
    }

    /// Between the passes.
    #[napi(catch_unwind)]
    pub fn train(&self, cancel: Option<&NativeCancel>) -> Promised<RawBuildState> {
        self.step(cancel, |builder| builder.train(&mut |_| ()))
    }

    /// Second pass.
    #[napi(catch_unwind)]
    pub fn add(
        &self,
        batch: RawBatch,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawBuildState>> {
        let batch = Batch::try_from(batch)?;
        Ok(self.step(cancel, move |builder| {
            builder.add(&batch.documents.tokens()?, batch.ids.as_deref(), &batch.metadata)
        }))
    }

    /// Makes it an index.
    #[napi(catch_unwind)]
    pub fn finish(&self) -> Promised<(Engine, PathBuf, Index), NativeIndex> {
        let slot = self.0.clone();
        promise_as(
            move || {
                let build = lock(&slot).take().ok_or_else(|| Error::Disposed { what: "build".into() })?;
                let Build { engine, path, builder } = build;
                Ok((engine, path, builder.finish().map_err(js)?))
            },
            |_, (engine, path, index)| NativeIndex::new(engine, path, index),
        )
    }

    /// Lets go of it; what is finished of it is gone on with by the next build of the same options.
    #[napi(catch_unwind)]
    pub fn dispose(&self) {
        lock(&self.0).take();
    }
}
