//! PLAID indexes. Files are in this module's memory; JavaScript brings them and keeps them, since only it can await a file system.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use js_sys::{Array, BigUint64Array, Float32Array, Function, Int32Array, Promise, Uint8Array, Uint32Array};
use maxsim_core::{BoxFuture, Engine, Error, Result};
use maxsim_js::{Batch, Chosen, OpenBuild, OpenIndex, OpenRemoteIndex, RawHits, RawIds, RawValue};
use maxsim_plaid::store::{Aligned, Change, DeferredStorage, PackStorage, Source, Storage, Verify};
use maxsim_plaid::{Builder, ColumnType, EncoderRecord, Index, IndexInfo, IndexWriter, RemoteIndex};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use crate::read::{
    RawBatch, RawBuildOptions, RawEngineOptions, RawIds as JsIds, RawIndexSearch, RawSelection, RawTokens,
    cancel,
};
use crate::write::{Plain, Returned, failure, strings};

/// Bytes at which a segment of an index that is built here is full: a quarter of what it is elsewhere, since memory holds it
/// three times while it is written.
const SEGMENT_BYTES: usize = 1 << 26;

/// The files of an index: `WasmFiles` of `lib/module.ts`.
#[wasm_bindgen]
pub struct WasmFiles {
    storage: DeferredStorage,
    /// Files that are being read.
    reading: RefCell<BTreeMap<String, Aligned>>,
}

#[wasm_bindgen]
impl WasmFiles {
    /// No files; `name` is for errors.
    #[wasm_bindgen(constructor)]
    pub fn new(name: &str) -> Self {
        Self { storage: DeferredStorage::new(name), reading: RefCell::default() }
    }

    /// The files of an index in one file.
    pub fn unpack(name: &str, file: &WasmFiles) -> Result<WasmFiles, JsValue> {
        let unpack = || {
            let bytes = file.storage.open(PACK).map_err(|error| Error::io(name, error))?;
            Ok(DeferredStorage::unpacked(&PackStorage::new(bytes, name)?))
        };
        Ok(Self { storage: unpack().map_err(failure)?, reading: RefCell::default() })
    }

    /// Makes room for a file that is about to be read.
    pub fn begin(&self, name: String, length: f64) {
        self.reading.borrow_mut().insert(name, Aligned::zeroed(length as usize));
    }

    /// Takes a part of it; whether there was room.
    pub fn fill(&self, name: &str, offset: f64, bytes: &Uint8Array) -> bool {
        let mut reading = self.reading.borrow_mut();
        let start = offset as usize;
        let room = reading
            .get_mut(name)
            .and_then(|file| file.as_mut().get_mut(start..start.checked_add(bytes.length() as usize)?));
        room.map(|room| bytes.copy_to(room)).is_some()
    }

    /// The file is whole.
    pub fn end(&self, name: &str) {
        if let Some(file) = self.reading.borrow_mut().remove(name) {
            self.storage.load(name, Arc::new(file));
        }
    }

    /// Lets go of a file.
    pub fn forget(&self, name: &str) {
        self.storage.forget(name);
    }

    /// Names of all files.
    pub fn names(&self) -> Array {
        strings(self.storage.names().unwrap_or_default())
    }

    /// `[{ name, length }]` of what a manifest relies on.
    pub fn needed(&self, manifest: &str) -> Returned {
        let needed = self.storage.needed(manifest).map_err(failure)?.into_iter();
        let file = |(name, length): (String, u64)| {
            JsValue::from(Plain::new().with("name", name).with("length", length as f64))
        };
        Ok(needed.map(file).collect::<Array>().into())
    }

    /// `[{ name, length }]` of what is to be written, in this order; files to be removed have no length.
    pub fn changes(&self) -> Array {
        let change = |change| match change {
            Change::Write(name, bytes) => {
                Plain::new().with("name", name).with("length", (*bytes).as_ref().len() as f64)
            }
            Change::Remove(name) => Plain::new().with("name", name),
        };
        self.storage.changes().into_iter().map(|to_do| JsValue::from(change(to_do))).collect()
    }

    /// A copy of a part of a file.
    pub fn read(&self, name: &str, start: f64, end: f64) -> Option<Uint8Array> {
        let file = self.storage.open(name).ok()?;
        (*file).as_ref().get(start as usize..end as usize).map(Uint8Array::from)
    }

    /// All changes were made.
    pub fn made(&self) {
        self.storage.made();
    }

    /// They were not, and shall not be.
    pub fn revert(&self) {
        self.storage.revert();
    }
}

/// Name under which a file that holds a whole index is read.
const PACK: &str = "pack";

/// `WasmIndex` of `lib/module.ts`.
#[wasm_bindgen]
pub struct WasmIndex {
    open: Rc<OpenIndex>,
    storage: DeferredStorage,
}

/// Everything is compared with its checksums: all of it was just read anyway.
fn open(storage: &DeferredStorage) -> Result<Index> {
    Index::open_in(storage.clone(), Verify::All)
}

fn count(result: Result<usize>) -> Returned {
    result.map(|count| Plain::new().with("count", count as f64).into()).map_err(failure)
}

#[wasm_bindgen]
impl WasmIndex {
    /// `IndexInfo`.
    pub fn info(&self) -> Returned {
        Ok(info(&self.open.index().map_err(failure)?.info()))
    }

    /// A Promise of `RawHits`.
    pub fn search(&self, q: &RawTokens, options: &RawIndexSearch, poll: Option<Function>) -> Returned {
        let (open, cancel) = (self.open.clone(), cancel(poll));
        let (q, chosen) = (q.read().map_err(failure)?, chosen(&options.which()));
        let options = options.read();
        let found =
            async move { open.search_async(&cancel, &q, &options, &chosen).await.map(hits).map_err(failure) };
        Ok(future_to_promise(found).into())
    }

    /// Adds documents; `RawCount` of those replaced.
    pub fn add(&self, documents: &RawBatch, replace: bool, poll: Option<Function>) -> Returned {
        count(batch(documents).and_then(|documents| self.open.add(&cancel(poll), &documents, replace)))
    }

    /// Deletes documents.
    #[wasm_bindgen(js_name = delete)]
    pub fn delete(&self, which: &RawSelection, poll: Option<Function>) -> Returned {
        count(self.open.delete(&cancel(poll), &chosen(which)))
    }

    /// Brings the index into few files.
    pub fn compact(&self, poll: Option<Function>) -> Returned {
        count(self.open.compact(&cancel(poll)))
    }

    /// Sees files that were read since.
    pub fn refresh(&self) -> Returned {
        count(self.open.refresh())
    }

    /// Goes back to what the files hold, after a change that could not be kept.
    pub fn reset(&self) -> Result<(), JsValue> {
        self.open.reset(open(&self.storage).map_err(failure)?);
        Ok(())
    }

    /// Compares everything with its checksum.
    pub fn verify(&self) -> Returned {
        count(self.open.verify())
    }

    /// `RawBytes`: the index in one file.
    pub fn pack(&self) -> Returned {
        let bytes = self.open.pack().map_err(failure)?;
        Ok(Plain::new().with("bytes", Uint8Array::from(bytes.as_slice())).into())
    }

    /// `RawRows` of the documents of these ids.
    pub fn metadata(&self, which: &JsIds) -> Returned {
        self.open.metadata(&which.read()).map(rows).map_err(failure)
    }
}

/// `WasmBuild` of `lib/module.ts`.
#[wasm_bindgen]
pub struct WasmBuild {
    engines: Engines,
    open: OpenBuild,
    storage: DeferredStorage,
}

fn state(result: Result<maxsim_js::RawBuildState>) -> Returned {
    let state = result.map_err(failure)?;
    Ok(Plain::new()
        .with("trained", state.trained)
        .with("documents", state.documents as f64)
        .with("tokens", state.tokens as f64)
        .with("done", state.done as f64)
        .into())
}

#[wasm_bindgen]
impl WasmBuild {
    /// `RawBuildState`.
    pub fn state(&self) -> Returned {
        state(self.open.state())
    }

    /// First pass.
    pub fn sample(&self, documents: &RawTokens, poll: Option<Function>) -> Returned {
        state(documents.read().and_then(|documents| self.open.sample(&cancel(poll), &documents)))
    }

    /// Between the passes.
    pub fn train(&self, poll: Option<Function>) -> Returned {
        state(self.open.train(&cancel(poll)))
    }

    /// Second pass.
    pub fn add(&self, documents: &RawBatch, poll: Option<Function>) -> Returned {
        state(batch(documents).and_then(|documents| self.open.add(&cancel(poll), &documents)))
    }

    /// Makes it an index.
    pub fn finish(&self) -> Result<WasmIndex, JsValue> {
        let (_, index) = self.open.finish().map_err(failure)?;
        Ok(opened(&self.engines, &self.storage, index))
    }
}

fn opened(engines: &Engines, storage: &DeferredStorage, index: Index) -> WasmIndex {
    let of_writer = storage.clone();
    let writer = move |engine: &_| IndexWriter::open_in(engine, of_writer.clone());
    let open = OpenIndex::new(engines.cpu.clone(), index, writer);
    #[cfg(feature = "plaid-gpu")]
    let open = open.searching_with(engines.gpu.clone(), engines.fallback());
    WasmIndex { open: Rc::new(open), storage: storage.clone() }
}

/// Training, encoding and reading by and by are done on the CPU, in steps that have no need to wait; searches may be the GPU's.
#[derive(Clone)]
struct Engines {
    cpu: Engine,
    #[cfg(feature = "plaid-gpu")]
    gpu: Engine,
    /// Whether the CPU may take over, and whether that is told.
    #[cfg(feature = "plaid-gpu")]
    either: Option<bool>,
}

#[cfg(feature = "plaid-gpu")]
impl Engines {
    fn fallback(&self) -> Option<Box<dyn maxsim_js::OnFallback>> {
        let told = self.either?;
        Some(Box::new(move |error: &Error| {
            if told {
                tracing::warn!("the CPU searches an index that wgpu cannot: {error}");
            }
        }))
    }
}

/// What computes: `IndexEngine` of `lib/module.ts`.
#[wasm_bindgen]
pub struct IndexEngine(Engines);

/// Sets engines up.
#[wasm_bindgen(js_name = createEngine)]
pub async fn create_engine(options: RawEngineOptions) -> Result<IndexEngine, JsValue> {
    let quiet = |engine: Engine| if options.silent() == Some(true) { engine.silent() } else { engine };
    let cpu = quiet(crate::cpu::engine(&options).map_err(failure)?);
    Ok(IndexEngine(Engines {
        cpu,
        #[cfg(feature = "plaid-gpu")]
        gpu: quiet(crate::gpu::engine(&options).await.map_err(failure)?),
        #[cfg(feature = "plaid-gpu")]
        either: options.backend().is_none().then_some(options.silent() != Some(true)),
    }))
}

#[wasm_bindgen]
impl IndexEngine {
    /// Opens the index that files make.
    #[wasm_bindgen(js_name = openIndex)]
    pub fn open_index(&self, files: &WasmFiles) -> Result<WasmIndex, JsValue> {
        let index = open(&files.storage).map_err(failure)?;
        Ok(opened(&self.0, &files.storage, index))
    }

    /// Begins a build, or goes on with one.
    #[wasm_bindgen(js_name = createBuild)]
    pub fn create_build(&self, files: &WasmFiles, options: &RawBuildOptions) -> Result<WasmBuild, JsValue> {
        let storage = files.storage.clone();
        let options = options.read().options(SEGMENT_BYTES);
        let builder = Builder::new(&self.0.cpu, storage.clone(), options).map_err(failure)?;
        let open = OpenBuild::new(self.0.cpu.clone(), builder);
        Ok(WasmBuild { engines: self.0.clone(), open, storage })
    }
}

fn batch(raw: &RawBatch) -> Result<Batch> {
    let rows = raw.metadata().map(|rows| rows.into_iter().map(|row| values(&row)).collect());
    Ok(Batch::new(raw.documents().read()?, raw.ids().map(|ids| ids.read()), rows))
}

fn values(row: &Array) -> Vec<RawValue> {
    use wasm_bindgen::JsCast;
    row.iter().map(|cell| cell.unchecked_ref::<crate::read::RawValue>().read()).collect()
}

fn chosen(raw: &RawSelection) -> Chosen {
    let parameters = raw.parameters().map(|parameters| values(&parameters));
    Chosen::new(raw.filter(), parameters, raw.ids().map(|ids| ids.read()))
}

/// `IndexInfo`.
fn info(info: &IndexInfo) -> JsValue {
    let column = |(name, kind): &(String, ColumnType)| {
        JsValue::from(Plain::new().with("name", name).with("type", kind.to_string()))
    };
    Plain::new()
        .with("generation", info.generation as f64)
        .with("documents", info.documents as f64)
        .with("deleted", info.deleted as f64)
        .with("tokens", info.tokens as f64)
        .with("dim", info.dim as f64)
        .with("nbits", info.nbits)
        .with("centroids", info.centroids as f64)
        .with("ids", info.ids.to_string())
        .with("columns", info.columns.iter().map(column).collect::<Array>())
        .with_some("encoder", info.encoder.as_ref(), encoder)
        .with("segments", info.segments as f64)
        .with("bytesPerToken", info.bytes_per_token())
        .with("fileBytes", info.file_bytes as f64)
        .into()
}

/// `EncoderIdentity`.
fn encoder(record: &EncoderRecord) -> JsValue {
    let location = Some(record.location.as_str()).filter(|location| !location.is_empty());
    Plain::new()
        .with("name", record.name.as_str())
        .with_some("location", location, Into::into)
        .with("fingerprint", record.fingerprint)
        .into()
}

/// `RawHits` of `native.ts`.
fn hits(raw: RawHits) -> JsValue {
    Plain::new()
        .with("ids", ids(raw.ids))
        .with("scores", Float32Array::from(raw.scores.as_slice()))
        .with("offsets", Uint32Array::from(raw.offsets.as_slice()))
        .with_some("winners", raw.winners, |winners| Int32Array::from(winners.as_slice()).into())
        .into()
}

/// `RawRows` of `native.ts`.
fn rows(found: Vec<Option<Vec<RawValue>>>) -> JsValue {
    let row = |row: Vec<RawValue>| JsValue::from(row.into_iter().map(value).collect::<Array>());
    let rows: Array = found.into_iter().map(|found| found.map_or(JsValue::NULL, row)).collect();
    Plain::new().with("rows", rows).into()
}

/// `RawIds` of `native.ts`.
fn ids(raw: RawIds) -> JsValue {
    Plain::new()
        .with_some("numbers", raw.numbers, |numbers| BigUint64Array::from(numbers.as_slice()).into())
        .with_some("texts", raw.texts, |texts| strings(texts).into())
        .into()
}

/// `RawValue` of `native.ts`.
fn value(raw: RawValue) -> JsValue {
    Plain::new()
        .with("name", raw.name)
        .with_some("bool", raw.bool, Into::into)
        .with_some("int", raw.int, Into::into)
        .with_some("float", raw.float, Into::into)
        .with_some("text", raw.text, Into::into)
        .into()
}

/// A file that JavaScript reads: `read(start, end)` promises its bytes.
struct JsSource {
    name: String,
    size: u64,
    read: Function,
}

impl Source for JsSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<Result<Vec<u8>>> {
        let promise =
            self.read.call2(&JsValue::NULL, &(range.start as f64).into(), &(range.end as f64).into());
        let name = self.name.clone();
        Box::pin(async move {
            let bytes = match promise {
                Ok(promise) => JsFuture::from(Promise::from(promise)).await,
                Err(error) => Err(error),
            };
            match bytes {
                Ok(bytes) => Ok(Uint8Array::from(bytes).to_vec()),
                Err(problem) => Err(Error::io(name, problem.as_string().unwrap_or_default())),
            }
        })
    }
}

/// An index whose residuals are read as searches need them: `WasmRemoteIndex` of `lib/module.ts`.
#[wasm_bindgen]
pub struct WasmRemoteIndex(Rc<OpenRemoteIndex>);

#[wasm_bindgen]
impl WasmRemoteIndex {
    /// `IndexInfo`.
    pub fn info(&self) -> JsValue {
        info(&self.0.index().info())
    }

    /// A Promise of `RawHits`.
    pub fn search(&self, q: &RawTokens, options: &RawIndexSearch, poll: Option<Function>) -> Returned {
        let (open, cancel) = (self.0.clone(), cancel(poll));
        let (q, chosen) = (q.read().map_err(failure)?, chosen(&options.which()));
        let options = options.read();
        let found =
            async move { open.search(&cancel, &q, &options, &chosen).await.map(hits).map_err(failure) };
        Ok(future_to_promise(found).into())
    }

    /// `RawRows` of the documents of these ids.
    pub fn metadata(&self, which: &JsIds) -> JsValue {
        rows(self.0.metadata(&which.read()))
    }
}

#[wasm_bindgen]
impl IndexEngine {
    /// A Promise of the index in a file of `size` bytes that `read(start, end)` reads, without its residuals. `progress` is told bytes
    /// read and to be read; what it throws ends this.
    #[wasm_bindgen(js_name = openRemoteIndex)]
    pub async fn open_remote_index(
        &self,
        name: String,
        size: f64,
        read: Function,
        progress: Function,
    ) -> Result<WasmRemoteIndex, JsValue> {
        let engine = self.0.cpu.clone();
        let source = Arc::new(JsSource { name, size: size as u64, read });
        let mut told = |done: u64, total: u64| {
            let told = progress.call2(&JsValue::NULL, &(done as f64).into(), &(total as f64).into());
            told.map(drop).map_err(|_| Error::Aborted)
        };
        let index = RemoteIndex::open(source, &mut told).await.map_err(failure)?;
        Ok(WasmRemoteIndex(Rc::new(OpenRemoteIndex::new(engine, index))))
    }
}
