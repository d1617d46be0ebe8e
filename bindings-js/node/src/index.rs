//! Indexes on disk.

use std::path::PathBuf;
use std::sync::Arc;

use maxsim::Cancel;
use maxsim::plaid::store::{DeferredStorage, DirectoryStorage, PackStorage, Verify, shared};
use maxsim::plaid::{Builder, ColumnType, EncoderRecord, Index, IndexWriter, SEGMENT_BYTES};
use maxsim_js::{Batch, Chosen, OpenBuild, OpenIndex};
use napi::bindgen_prelude::{
    BigInt, BigUint64Array, Either, Env, Float32Array, Int32Array, Uint8Array, Uint32Array,
};
use napi_derive::napi;

use crate::engine::{NativeCancel, NativeEngine, flag};
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
    pub encoder: Option<RawEncoderIdentity>,
}

/// `EncoderIdentity` of `native.ts`.
#[napi(object)]
pub struct RawEncoderIdentity {
    pub name: String,
    pub location: Option<String>,
    pub fingerprint: BigInt,
}

impl From<EncoderRecord> for RawEncoderIdentity {
    fn from(EncoderRecord { name, location, fingerprint }: EncoderRecord) -> Self {
        let location = Some(location).filter(|location| !location.is_empty());
        Self { name, location, fingerprint: fingerprint.into() }
    }
}

impl From<RawEncoderIdentity> for EncoderRecord {
    fn from(RawEncoderIdentity { name, location, fingerprint }: RawEncoderIdentity) -> Self {
        // TypeScript has checked that it fits.
        Self { name, location: location.unwrap_or_default(), fingerprint: fingerprint.get_u64().1 }
    }
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

/// `RawBytes` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawBytes {
    pub bytes: Uint8Array,
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
    pub encoder: Option<RawEncoderIdentity>,
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

/// How far a build is.
#[napi(object, object_from_js = false)]
pub struct RawBuildState {
    pub trained: bool,
    pub documents: f64,
    pub tokens: f64,
    pub done: f64,
}

impl From<RawIds> for maxsim_js::RawIds {
    /// Numbers are copied, since the array may change while a call runs.
    fn from(raw: RawIds) -> Self {
        Self { numbers: raw.numbers.map(|numbers| numbers.to_vec()), texts: raw.texts }
    }
}

impl From<maxsim_js::RawIds> for RawIds {
    fn from(raw: maxsim_js::RawIds) -> Self {
        Self { numbers: raw.numbers.map(Into::into), texts: raw.texts }
    }
}

impl From<RawValue> for maxsim_js::RawValue {
    fn from(RawValue { name, bool, int, float, text }: RawValue) -> Self {
        // TypeScript has checked that integers fit.
        Self { name, bool, int: int.map(|int| int.get_i64().0), float, text }
    }
}

impl From<maxsim_js::RawValue> for RawValue {
    fn from(maxsim_js::RawValue { name, bool, int, float, text }: maxsim_js::RawValue) -> Self {
        Self { name, bool, int: int.map(Into::into), float, text }
    }
}

fn values(raw: Vec<RawValue>) -> Vec<maxsim_js::RawValue> {
    raw.into_iter().map(Into::into).collect()
}

fn batch(raw: RawBatch) -> napi::Result<Batch> {
    let metadata = raw.metadata.map(|rows| rows.into_iter().map(values).collect());
    Ok(Batch::new(raw.documents.try_into()?, raw.ids.map(Into::into), metadata))
}

fn chosen(raw: RawSelection) -> Chosen {
    Chosen::new(raw.filter, raw.parameters.map(values), raw.ids.map(Into::into))
}

/// Sizes are non-negative integers by TypeScript's check; which are too small is for Rust to say.
fn size(value: i64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn count(count: usize) -> RawCount {
    RawCount { count: count as f64 }
}

/// An index that a directory keeps, or the file at this path.
fn in_directory(engine: &maxsim::Engine, path: PathBuf, index: Index) -> OpenIndex {
    OpenIndex::new(engine.clone(), index, move |engine| IndexWriter::open(engine, &path))
}

/// `NativeIndex` of `native.ts`.
#[napi]
pub struct NativeIndex(Arc<OpenIndex>);

#[napi]
impl NativeIndex {
    /// Facts.
    #[napi(catch_unwind)]
    pub fn info(&self) -> napi::Result<RawIndexInfo> {
        let index = self.0.index().map_err(|error| napi::Error::from_reason(error.to_string()))?;
        let info = index.info();
        let column = |(name, column): (String, ColumnType)| RawColumn { name, r#type: column.to_string() };
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
            encoder: info.encoder.map(Into::into),
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
        let (open, cancel) = (self.0.clone(), flag(cancel));
        let search = maxsim_js::RawIndexSearch {
            top_k: size(options.top_k),
            n_ivf_probe: options.n_ivf_probe.map(size),
            n_full_scores: options.n_full_scores.map(size),
            centroid_score_threshold: options.centroid_score_threshold,
            exact: options.exact,
            normalize: options.normalize,
            explain: options.explain,
            precision: options.precision,
        };
        let chosen = chosen(options.which);
        Ok(promise(move || {
            let found = open.search(&cancel, &q, &search, &chosen)?;
            Ok(RawHits {
                ids: found.ids.into(),
                scores: found.scores.into(),
                offsets: found.offsets.into(),
                winners: found.winners.map(Into::into),
            })
        }))
    }

    /// Adds documents and commits; gives how many were replaced.
    #[napi(catch_unwind)]
    pub fn add(
        &self,
        documents: RawBatch,
        replace: bool,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawCount>> {
        let documents = batch(documents)?;
        let (open, cancel) = (self.0.clone(), flag(cancel));
        Ok(promise(move || open.add(&cancel, &documents, replace).map(count)))
    }

    /// Deletes documents and commits; gives how many there were.
    #[napi(catch_unwind)]
    pub fn delete(&self, which: RawSelection, cancel: Option<&NativeCancel>) -> Promised<RawCount> {
        let (open, cancel, chosen) = (self.0.clone(), flag(cancel), chosen(which));
        promise(move || open.delete(&cancel, &chosen).map(count))
    }

    /// Brings the index into few files, without deleted documents.
    #[napi(catch_unwind)]
    pub fn compact(&self, cancel: Option<&NativeCancel>) -> Promised<RawCount> {
        let (open, cancel) = (self.0.clone(), flag(cancel));
        promise(move || open.compact(&cancel).map(count))
    }

    /// Sees what other writers did.
    #[napi(catch_unwind)]
    pub fn refresh(&self) -> Promised<RawCount> {
        let open = self.0.clone();
        promise(move || open.refresh().map(count))
    }

    /// Compares everything with its checksum.
    #[napi(catch_unwind)]
    pub fn verify(&self) -> Promised<RawCount> {
        let open = self.0.clone();
        promise(move || open.verify().map(count))
    }

    /// The index in one file.
    #[napi(catch_unwind)]
    pub fn pack(&self) -> Promised<Vec<u8>, RawBytes> {
        let open = self.0.clone();
        promise_as(move || open.pack(), |_: Env, bytes| RawBytes { bytes: bytes.into() })
    }

    /// Metadata of the documents of these ids; nulls for those that are not there.
    #[napi(catch_unwind)]
    pub fn metadata(&self, which: RawIds) -> Promised<RawRows> {
        let (open, ids) = (self.0.clone(), maxsim_js::RawIds::from(which));
        promise(move || {
            let rows = open.metadata(&ids)?.into_iter();
            let row = |row: Vec<maxsim_js::RawValue>| row.into_iter().map(Into::into).collect();
            Ok(RawRows { rows: rows.map(|found| found.map(row)).collect() })
        })
    }

    /// Lets go of files and the writer lock; calls under way keep them until they are done.
    #[napi(catch_unwind)]
    pub fn dispose(&self) {
        self.0.dispose();
    }
}

#[napi]
impl NativeEngine {
    /// Opens the index in a directory or file, or one that is at hand in one piece.
    #[napi(catch_unwind)]
    pub fn open_index(
        &self,
        source: Either<String, Uint8Array>,
        // Files are mapped: nothing is read before it is needed.
        _lazy: bool,
    ) -> Promised<OpenIndex, NativeIndex> {
        let engine = self.get(None);
        // Copied: the array may change while the index is open.
        let source = match source {
            Either::A(path) => Ok(PathBuf::from(path)),
            Either::B(bytes) => Err(shared(&bytes)),
        };
        promise_as(
            move || {
                let engine = engine.clone()?;
                match &source {
                    Ok(path) => Ok(in_directory(&engine, path.clone(), Index::open(path)?)),
                    Err(bytes) => {
                        let storage =
                            DeferredStorage::unpacked(&PackStorage::new(bytes.clone(), "the given bytes")?);
                        let index = Index::open_in(storage.clone(), Verify::All)?;
                        let writer = move |engine: &_| IndexWriter::open_in(engine, storage.clone());
                        Ok(OpenIndex::new(engine, index, writer))
                    }
                }
            },
            |_: Env, open| NativeIndex(Arc::new(open)),
        )
    }

    /// Begins a build, or goes on with one.
    #[napi(catch_unwind)]
    pub fn create_build(&self, path: String, options: RawBuildOptions) -> Promised<Build, NativeBuild> {
        let engine = self.get(None);
        let raw = maxsim_js::RawBuildOptions {
            ids: options.ids,
            nbits: options.nbits.map(size),
            centroids: options.centroids.map(size),
            iterations: options.iterations.map(size),
            seed: options.seed.map(|seed| seed as u64),
            replace: options.replace,
            source: options.source,
            encoder: options.encoder.map(Into::into),
        };
        let (path, options) = (PathBuf::from(path), raw.options(SEGMENT_BYTES));
        promise_as(
            move || {
                let engine = engine.clone()?;
                let builder = Builder::new(&engine, DirectoryStorage::new(&path), options.clone())?;
                Ok(Build { path: path.clone(), open: OpenBuild::new(engine, builder) })
            },
            |_, build| NativeBuild(Arc::new(build)),
        )
    }
}

/// A build under way.
pub struct Build {
    path: PathBuf,
    open: OpenBuild,
}

/// `NativeBuild` of `native.ts`: called one after the other.
#[napi]
pub struct NativeBuild(Arc<Build>);

impl NativeBuild {
    fn step(
        &self,
        cancel: Option<&NativeCancel>,
        work: impl Fn(&OpenBuild, &Cancel) -> maxsim::Result<maxsim_js::RawBuildState> + Send + 'static,
    ) -> Promised<RawBuildState> {
        let (build, cancel) = (self.0.clone(), flag(cancel));
        promise(move || {
            let state = work(&build.open, &cancel)?;
            Ok(RawBuildState {
                trained: state.trained,
                documents: state.documents as f64,
                tokens: state.tokens as f64,
                done: state.done as f64,
            })
        })
    }
}

#[napi]
impl NativeBuild {
    /// Where it stands.
    #[napi(catch_unwind)]
    pub fn state(&self) -> Promised<RawBuildState> {
        self.step(None, |open, _| open.state())
    }

    /// First pass.
    #[napi(catch_unwind)]
    pub fn sample(
        &self,
        documents: RawTokens,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawBuildState>> {
        let documents: maxsim_js::RawTokens = documents.try_into()?;
        Ok(self.step(cancel, move |open, cancel| open.sample(cancel, &documents)))
    }

    /// Between the passes.
    #[napi(catch_unwind)]
    pub fn train(&self, cancel: Option<&NativeCancel>) -> Promised<RawBuildState> {
        self.step(cancel, OpenBuild::train)
    }

    /// Second pass.
    #[napi(catch_unwind)]
    pub fn add(
        &self,
        documents: RawBatch,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Promised<RawBuildState>> {
        let documents = batch(documents)?;
        Ok(self.step(cancel, move |open, cancel| open.add(cancel, &documents)))
    }

    /// Makes it an index.
    #[napi(catch_unwind)]
    pub fn finish(&self) -> Promised<OpenIndex, NativeIndex> {
        let build = self.0.clone();
        promise_as(
            move || {
                let (engine, index) = build.open.finish()?;
                Ok(in_directory(&engine, build.path.clone(), index))
            },
            |_, open| NativeIndex(Arc::new(open)),
        )
    }

    /// Lets go of it; what is finished of it is gone on with by the next build of the same options.
    #[napi(catch_unwind)]
    pub fn dispose(&self) {
        self.0.open.dispose();
    }
}
