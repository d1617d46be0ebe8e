//! PLAID indexes, opened and searched. Files are in this module's memory; JavaScript brings them and keeps them, since only it can
//! await a file system.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use js_sys::{Array, BigUint64Array, Float32Array, Function, Int32Array, Uint8Array, Uint32Array};
use maxsim_core::{Engine, Error, Result};
use maxsim_js::{Chosen, OpenIndex, RawHits, RawIds, RawValue};
use maxsim_plaid::store::{Aligned, DeferredStorage, PackStorage, Storage, Verify};
use maxsim_plaid::{ColumnType, EncoderRecord, Index, IndexInfo, IndexWriter};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use crate::read::{RawEngineOptions, RawIds as JsIds, RawIndexSearch, RawSelection, RawTokens, cancel};
use crate::write::{Plain, Returned, failure, strings};

/// The files of an index: `WasmFiles` of `lib/module.ts`.
#[wasm_bindgen]
pub struct WasmFiles {
    pub(crate) storage: DeferredStorage,
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

    /// A copy of a part of a file, or of all behind `start`.
    pub fn read(&self, name: &str, start: f64, end: Option<f64>) -> Option<Uint8Array> {
        let file = self.storage.open(name).ok()?;
        let bytes = (*file).as_ref();
        bytes.get(start as usize..end.map_or(bytes.len(), |end| end as usize)).map(Uint8Array::from)
    }
}

/// Name under which a file that holds a whole index is read.
const PACK: &str = "pack";

/// `WasmIndex` of `lib/module.ts`.
#[wasm_bindgen]
pub struct WasmIndex {
    pub(crate) open: Rc<OpenIndex>,
    #[cfg(feature = "plaid-all")]
    pub(crate) storage: DeferredStorage,
}

/// Everything is compared with its checksums: all of it was just read anyway.
pub(crate) fn open(storage: &DeferredStorage) -> Result<Index> {
    Index::open_in(storage.clone(), Verify::All)
}

pub(crate) fn count(result: Result<usize>) -> Returned {
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

    /// Sees files that were read since.
    pub fn refresh(&self) -> Returned {
        count(self.open.refresh())
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

pub(crate) fn opened(engines: &Engines, storage: &DeferredStorage, index: Index) -> WasmIndex {
    let open = OpenIndex::new(engines.changing().clone(), index, writer(storage));
    #[cfg(all(feature = "plaid", feature = "plaid-gpu"))]
    let open = open.searching_with(engines.gpu.clone(), engines.fallback());
    WasmIndex {
        open: Rc::new(open),
        #[cfg(feature = "plaid-all")]
        storage: storage.clone(),
    }
}

/// How the writer of an index is opened.
#[cfg(feature = "plaid-all")]
fn writer(storage: &DeferredStorage) -> impl Fn(&Engine) -> Result<IndexWriter> + use<> {
    let storage = storage.clone();
    move |engine| IndexWriter::open_in(engine, storage.clone())
}

/// Not here.
#[cfg(not(feature = "plaid-all"))]
fn writer(_: &DeferredStorage) -> impl Fn(&Engine) -> Result<IndexWriter> + use<> {
    |_| Err(Error::Unsupported { what: "changing an index".into(), hint: "another module does that".into() })
}

/// Training, encoding and reading by and by are done on the CPU, in steps that have no need to wait; searches may be the GPU's.
#[derive(Clone)]
pub(crate) struct Engines {
    #[cfg(feature = "plaid")]
    pub(crate) cpu: Engine,
    #[cfg(feature = "plaid-gpu")]
    gpu: Engine,
    /// Whether the CPU may take over, and whether that is told.
    #[cfg(all(feature = "plaid", feature = "plaid-gpu"))]
    either: Option<bool>,
}

impl Engines {
    /// What searches compute with that nothing else was said of, and changes.
    fn changing(&self) -> &Engine {
        #[cfg(feature = "plaid")]
        let engine = &self.cpu;
        #[cfg(not(feature = "plaid"))]
        let engine = &self.gpu;
        engine
    }

    #[cfg(all(feature = "plaid", feature = "plaid-gpu"))]
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
pub struct IndexEngine(pub(crate) Engines);

/// Sets engines up.
#[wasm_bindgen(js_name = createEngine)]
pub async fn create_engine(options: RawEngineOptions) -> Result<IndexEngine, JsValue> {
    let quiet = |engine: Engine| if options.silent() == Some(true) { engine.silent() } else { engine };
    Ok(IndexEngine(Engines {
        #[cfg(feature = "plaid")]
        cpu: quiet(crate::cpu::engine(&options).map_err(failure)?),
        #[cfg(feature = "plaid-gpu")]
        gpu: quiet(crate::gpu::engine(&options).await.map_err(failure)?),
        #[cfg(all(feature = "plaid", feature = "plaid-gpu"))]
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
}

pub(crate) fn values(row: &Array) -> Vec<RawValue> {
    use wasm_bindgen::JsCast;
    row.iter().map(|cell| cell.unchecked_ref::<crate::read::RawValue>().read()).collect()
}

pub(crate) fn chosen(raw: &RawSelection) -> Chosen {
    let parameters = raw.parameters().map(|parameters| values(&parameters));
    Chosen::new(raw.filter(), parameters, raw.ids().map(|ids| ids.read()))
}

/// `IndexInfo`.
pub(crate) fn info(info: &IndexInfo) -> JsValue {
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
pub(crate) fn hits(raw: RawHits) -> JsValue {
    Plain::new()
        .with("ids", ids(raw.ids))
        .with("scores", Float32Array::from(raw.scores.as_slice()))
        .with("offsets", Uint32Array::from(raw.offsets.as_slice()))
        .with_some("winners", raw.winners, |winners| Int32Array::from(winners.as_slice()).into())
        .into()
}

/// `RawRows` of `native.ts`.
pub(crate) fn rows(found: Vec<Option<Vec<RawValue>>>) -> JsValue {
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
