//! PLAID indexes that are read as searches need them.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use js_sys::{Function, Promise, Uint8Array};
use maxsim_core::{BoxFuture, Error, Result};
use maxsim_js::OpenRemoteIndex;
use maxsim_plaid::RemoteIndex;
use maxsim_plaid::store::Source;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use crate::plaid::{IndexEngine, chosen, hits, info, rows};
use crate::read::{RawIds, RawIndexSearch, RawTokens, cancel};
use crate::write::{Returned, failure};

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
    pub fn metadata(&self, which: &RawIds) -> JsValue {
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
