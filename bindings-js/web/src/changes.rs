//! PLAID indexes, built and changed: few pages do.

use js_sys::{Array, Function};
use maxsim_core::Result;
use maxsim_js::{Batch, OpenBuild};
use maxsim_plaid::Builder;
use maxsim_plaid::store::{Change, DeferredStorage};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::plaid::{Engines, IndexEngine, WasmFiles, WasmIndex, chosen, count, open, opened, values};
use crate::read::{RawBatch, RawBuildOptions, RawSelection, RawTokens, cancel};
use crate::write::{Plain, Returned, failure};

/// Bytes at which a segment of an index that is built here is full: a quarter of what it is elsewhere, since memory holds it
/// three times while it is written.
const SEGMENT_BYTES: usize = 1 << 26;

#[wasm_bindgen]
impl WasmFiles {
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

    /// All changes were made.
    pub fn made(&self) {
        self.storage.made();
    }

    /// They were not, and shall not be.
    pub fn revert(&self) {
        self.storage.revert();
    }
}

#[wasm_bindgen]
impl WasmIndex {
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

    /// Goes back to what the files hold, after a change that could not be kept.
    pub fn reset(&self) -> Result<(), JsValue> {
        self.open.reset(open(&self.storage).map_err(failure)?);
        Ok(())
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

#[wasm_bindgen]
impl IndexEngine {
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
