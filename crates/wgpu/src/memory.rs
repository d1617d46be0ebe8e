//! Buffers: accounted for, within a budget, and kept for reuse where they are scratch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maxsim_core::{Error, Result};
use wgpu::BufferUsages;

use crate::device::Gpu;

/// Bytes of scratch buffers that are kept for reuse at most.
const KEPT: u64 = 256 << 20;

/// Memory of a device.
pub(crate) struct Memory {
    ledger: Arc<Mutex<Ledger>>,
}

struct Ledger {
    budget: u64,
    used: u64,
    /// Scratch buffers that nobody uses; their bytes are in `used`.
    kept: Vec<wgpu::Buffer>,
    kept_bytes: u64,
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer of the device; dropping the last clone gives it back.
#[derive(Clone)]
pub(crate) struct Buffer(Arc<Held>);

struct Held {
    raw: wgpu::Buffer,
    scratch: bool,
    ledger: Arc<Mutex<Ledger>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut ledger = lock(&self.ledger);
        let bytes = self.raw.size();
        // Whatever still reads it was submitted before anything that will write it.
        if self.scratch && ledger.kept_bytes + bytes <= KEPT {
            ledger.kept_bytes += bytes;
            ledger.kept.push(self.raw.clone());
        } else {
            ledger.used -= bytes;
        }
    }
}

impl Buffer {
    pub(crate) fn raw(&self) -> &wgpu::Buffer {
        &self.0.raw
    }
}

/// Storage that is written by the host and by kernels, and copied from.
const STORAGE: BufferUsages =
    BufferUsages::STORAGE.union(BufferUsages::COPY_DST).union(BufferUsages::COPY_SRC);
/// Parameters of dispatches.
const UNIFORM: BufferUsages = BufferUsages::UNIFORM.union(BufferUsages::COPY_DST);
/// Results on their way to the host.
const STAGING: BufferUsages = BufferUsages::MAP_READ.union(BufferUsages::COPY_DST);

impl Memory {
    pub(crate) fn new(budget: Option<u64>) -> Self {
        let budget = budget.unwrap_or(u64::MAX);
        Self { ledger: Arc::new(Mutex::new(Ledger { budget, used: 0, kept: Vec::new(), kept_bytes: 0 })) }
    }

    /// Bytes held, scratch kept for reuse included.
    pub(crate) fn used(&self) -> u64 {
        lock(&self.ledger).used
    }
}

impl Gpu {
    /// A buffer that lives as long as its documents.
    pub(crate) fn resident(&self, bytes: u64) -> Result<Buffer> {
        self.buffer(bytes.next_multiple_of(16), STORAGE, false)
    }

    /// Storage of one call; its contents are undefined.
    pub(crate) fn scratch(&self, bytes: u64) -> Result<Buffer> {
        self.buffer(size_class(bytes), STORAGE, true)
    }

    /// Uniform parameters of one call.
    pub(crate) fn uniform(&self, bytes: u64) -> Result<Buffer> {
        self.buffer(size_class(bytes), UNIFORM, true)
    }

    /// Where timestamps are resolved to.
    pub(crate) fn ticks(&self) -> Result<Buffer> {
        self.buffer(256, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC, true)
    }

    /// Memory that the host reads. It is not kept: mapping wants a buffer nobody else has.
    pub(crate) fn staging(&self, bytes: u64) -> Result<Buffer> {
        self.buffer(bytes, STAGING, false)
    }

    /// Storage of one call that holds `bytes`.
    pub(crate) fn scratch_with(&self, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.scratch(bytes.len() as u64)?;
        self.queue.write_buffer(buffer.raw(), 0, bytes);
        Ok(buffer)
    }

    fn buffer(&self, bytes: u64, usage: BufferUsages, scratch: bool) -> Result<Buffer> {
        // WebGPU has no empty bindings.
        let bytes = bytes.max(16);
        let mut ledger = lock(&self.memory.ledger);
        let found = |kept: &wgpu::Buffer| kept.size() == bytes && kept.usage() == usage;
        let reused = if scratch { ledger.kept.iter().position(found) } else { None };
        let raw = match reused {
            Some(at) => {
                ledger.kept_bytes -= bytes;
                ledger.kept.swap_remove(at)
            }
            None => {
                if ledger.used.saturating_add(bytes) > ledger.budget {
                    ledger.used -= ledger.kept_bytes;
                    ledger.kept_bytes = 0;
                    ledger.kept.clear();
                }
                if ledger.used.saturating_add(bytes) > ledger.budget {
                    return Err(Error::OutOfMemory { requested: bytes });
                }
                let raw = self.create(bytes, usage)?;
                ledger.used += bytes;
                raw
            }
        };
        Ok(Buffer(Arc::new(Held { raw, scratch, ledger: self.memory.ledger.clone() })))
    }

    fn create(&self, bytes: u64, usage: BufferUsages) -> Result<wgpu::Buffer> {
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        self.caught(bytes, "a buffer", || self.device.create_buffer(&descriptor))
    }

    /// Runs `make` and turns what it reports into an error. In browsers reports come later, with the submission's own.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn caught<T>(&self, requested: u64, kernel: &str, make: impl FnOnce() -> T) -> Result<T> {
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let made = make();
        for scope in [memory, internal, validation] {
            let mut report = std::pin::pin!(scope.pop());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(Some(error)) = report.as_mut().poll(&mut context) {
                self.faults.check_lost()?;
                return Err(crate::fault::typed(error, requested, kernel));
            }
        }
        Ok(made)
    }

    #[cfg(target_arch = "wasm32")]
    pub(crate) fn caught<T>(&self, _requested: u64, _kernel: &str, make: impl FnOnce() -> T) -> Result<T> {
        Ok(make())
    }
}

/// Sizes of scratch: powers of two up to 1 MiB, then eighths of them, so that calls of similar size share buffers.
fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let step = (bytes.next_power_of_two() / 16).max(256);
    if bytes <= 1 << 20 { bytes.next_power_of_two() } else { bytes.next_multiple_of(step) }
}
