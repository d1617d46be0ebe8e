//! Documents that an engine keeps.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use maxsim::{Corpus, Error, Result};
use napi::bindgen_prelude::{Env, ObjectFinalize};
use napi_derive::napi;

/// Where a corpus is until it is disposed, by itself or with its engine. Calls under way hold clones of their own.
pub(crate) type Slot = Arc<Mutex<Option<Corpus>>>;

/// Empties a slot.
pub(crate) fn clear(slot: &Slot) {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// `NativeCorpus` of `native.ts`.
#[napi(custom_finalize)]
pub struct NativeCorpus {
    slot: Slot,
    count: usize,
    dim: usize,
    dtype: &'static str,
    bytes: u64,
    /// Whether the garbage collector counts `bytes`.
    weighs: Cell<bool>,
}

impl NativeCorpus {
    pub(crate) fn new(env: Env, (corpus, slot): (Corpus, Slot)) -> Self {
        let this = Self {
            slot,
            count: corpus.count(),
            dim: corpus.dim(),
            dtype: corpus.dtype().name(),
            bytes: corpus.bytes(),
            weighs: Cell::new(false),
        };
        this.weigh(env, true);
        this
    }

    pub(crate) fn get(&self) -> Result<Corpus> {
        let corpus = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        corpus.clone().ok_or_else(|| Error::Disposed { what: "corpus".into() })
    }

    /// Tells the garbage collector of memory it cannot see, so that forgotten corpora are found in time. A hint, so
    /// that a refusal does not matter.
    fn weigh(&self, env: Env, weighs: bool) {
        if self.weighs.replace(weighs) != weighs {
            let bytes = i64::try_from(self.bytes).unwrap_or(i64::MAX);
            let _ = env.adjust_external_memory(if weighs { bytes } else { -bytes });
        }
    }
}

#[napi]
impl NativeCorpus {
    #[napi(getter)]
    pub fn count(&self) -> i64 {
        self.count as i64
    }

    #[napi(getter)]
    pub fn dim(&self) -> i64 {
        self.dim as i64
    }

    #[napi(getter)]
    pub fn dtype(&self) -> &'static str {
        self.dtype
    }

    #[napi(getter)]
    pub fn bytes(&self) -> i64 {
        self.bytes as i64
    }

    #[napi(catch_unwind)]
    pub fn dispose(&self, env: Env) {
        clear(&self.slot);
        self.weigh(env, false);
    }
}

impl ObjectFinalize for NativeCorpus {
    fn finalize(self, env: Env) -> napi::Result<()> {
        clear(&self.slot);
        self.weigh(env, false);
        Ok(())
    }
}
