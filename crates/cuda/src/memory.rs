//! Device memory: buffers that free themselves, kept for reuse, within a budget.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use bytemuck::Pod;
use maxsim_core::{Error, Result};

use crate::config::Kind;
use crate::device::{Device, Reading, Step};

#[derive(Default)]
struct State {
    /// Freed memory by size.
    free: BTreeMap<usize, Vec<u64>>,
    /// Bytes in buffers.
    used: u64,
    /// Bytes in `free`.
    kept: u64,
    /// Most bytes in buffers so far.
    peak: u64,
    /// Work that is to be repeated later, if it is being recorded.
    recording: Option<Recording>,
}

/// What one thread gives to the queue, and the memory that takes: nothing it frees meanwhile is handed out again.
pub(crate) struct Recording {
    thread: ThreadId,
    pub(crate) steps: Vec<Step>,
    freed: Vec<(usize, u64)>,
    /// Memory that others own as well, and might give up.
    shared: Vec<Arc<Buffer>>,
    pub(crate) queries: Vec<QueryRows>,
}

/// Query rows that a recording reads: others can take their place.
pub(crate) struct QueryRows {
    pub(crate) address: u64,
    pub(crate) product: Kind,
    pub(crate) permuted: bool,
}

impl State {
    /// The recording, if it is this thread's.
    fn recording(&mut self) -> Option<&mut Recording> {
        self.recording.as_mut().filter(|recording| recording.thread == std::thread::current().id())
    }
}

/// Where buffers come from.
pub(crate) struct Pool {
    device: Arc<dyn Device>,
    budget: Option<u64>,
    state: Mutex<State>,
}

impl Pool {
    pub(crate) fn new(device: Arc<dyn Device>, budget: Option<u64>) -> Arc<Self> {
        Arc::new(Self { device, budget, state: Mutex::default() })
    }

    pub(crate) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Records from now on what this thread tells `note`. One thread at a time.
    pub(crate) fn record(&self) {
        self.state().recording = Some(Recording {
            thread: std::thread::current().id(),
            steps: Vec::new(),
            freed: Vec::new(),
            shared: Vec::new(),
            queries: Vec::new(),
        });
    }

    /// Whether this thread records.
    pub(crate) fn records(&self) -> bool {
        self.state().recording().is_some()
    }

    pub(crate) fn note(&self, step: impl FnOnce() -> Step) {
        if let Some(recording) = self.state().recording() {
            recording.steps.push(step());
        }
    }

    /// Keeps `buffer` as long as what is being recorded.
    pub(crate) fn keep(&self, buffer: &Arc<Buffer>) {
        if let Some(recording) = self.state().recording() {
            recording.shared.push(buffer.clone());
        }
    }

    pub(crate) fn note_queries(&self, rows: QueryRows) {
        if let Some(recording) = self.state().recording() {
            recording.queries.push(rows);
        }
    }

    /// Ends what this thread records.
    pub(crate) fn recorded(&self) -> Recording {
        self.state().recording.take().expect("this thread records")
    }

    /// Gives back what a recording kept.
    pub(crate) fn forget(&self, recording: &mut Recording) {
        let mut state = self.state();
        for (size, address) in recording.freed.drain(..) {
            self.give_back(&mut state, size, address);
        }
        drop(state);
        recording.shared.clear();
    }

    fn give_back(&self, state: &mut State, size: usize, address: u64) {
        if self.device.caches() {
            state.kept += size as u64;
            state.free.entry(size).or_default().push(address);
        } else {
            // SAFETY: it was allocated with this size, and no buffer holds it any more.
            unsafe { self.device.free(address, size) };
        }
    }

    /// Forgets the most bytes there were.
    pub(crate) fn reset_peak(&self) {
        let mut state = self.state();
        state.peak = state.used;
    }

    /// Bytes in buffers now, and the most there ever were.
    pub(crate) fn used(&self) -> (u64, u64) {
        let state = self.state();
        (state.used, state.peak)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for `bytes` bytes, not initialised. Work in the queue may still use what memory that is reused held before;
    /// work given to the queue from now on comes after it.
    pub(crate) fn buffer(self: &Arc<Self>, bytes: usize) -> Result<Buffer> {
        let size = if self.device.caches() { size_class(bytes) } else { bytes.max(1) };
        let mut state = self.state();
        let fits = |state: &State, budget: u64| state.used + size as u64 <= budget;
        if !self.budget.is_none_or(|budget| fits(&state, budget)) {
            return Err(Error::OutOfMemory { requested: bytes as u64 });
        }
        let kept = state.free.get_mut(&size).and_then(Vec::pop);
        let address = match kept {
            Some(address) => {
                state.kept -= size as u64;
                address
            }
            None => match self.device.alloc(size) {
                Err(Error::OutOfMemory { .. }) if state.kept > 0 => {
                    self.release(&mut state);
                    self.device.alloc(size)?
                }
                result => result?,
            },
        };
        state.used += size as u64;
        state.peak = state.peak.max(state.used);
        Ok(Buffer { pool: self.clone(), address, bytes, size, owned: true })
    }

    /// Memory that someone else owns.
    ///
    /// # Safety
    /// `[address, address + bytes)` is memory of this device for as long as the buffer and what the queue does with it.
    pub(crate) unsafe fn borrowed(self: &Arc<Self>, address: u64, bytes: usize) -> Buffer {
        Buffer { pool: self.clone(), address, bytes, size: 0, owned: false }
    }

    /// A buffer that holds `data`.
    pub(crate) fn upload<T: Pod>(self: &Arc<Self>, data: &[T]) -> Result<Buffer> {
        let buffer = self.buffer(size_of_val(data))?;
        buffer.write(0, bytemuck::cast_slice(data))?;
        Ok(buffer)
    }

    fn release(&self, state: &mut State) {
        for (size, addresses) in std::mem::take(&mut state.free) {
            for address in addresses {
                // SAFETY: it was allocated with this size, and no buffer holds it any more.
                unsafe { self.device.free(address, size) };
            }
        }
        state.kept = 0;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.state());
        self.release(&mut state);
    }
}

/// Sizes that memory is handed out in: at most a quarter is wasted, and buffers of similar sizes can follow each other.
fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(512);
    let step = (bytes.next_power_of_two() / 8).max(512);
    bytes.next_multiple_of(step)
}

/// Memory of a device.
pub(crate) struct Buffer {
    pool: Arc<Pool>,
    address: u64,
    bytes: usize,
    size: usize,
    owned: bool,
}

impl Buffer {
    /// Address on the device.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `data` to byte `at`.
    pub(crate) fn write(&self, at: usize, data: &[u8]) -> Result<()> {
        assert!(at + data.len() <= self.bytes);
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: within this buffer, as just checked.
        unsafe { self.pool.device.write(self.address + at as u64, data) }
    }

    /// Sets every byte.
    pub(crate) fn fill(&self, byte: u8) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.pool.note(|| Step::Fill { to: self.address, byte, bytes: self.bytes });
        // SAFETY: the whole of this buffer.
        unsafe { self.pool.device.fill(self.address, byte, self.bytes) }
    }

    /// The first `bytes` bytes, later.
    pub(crate) fn read(&self, bytes: usize) -> Result<Reading> {
        assert!(bytes <= self.bytes);
        // SAFETY: within this buffer, as just checked.
        let reading = unsafe { self.pool.device.read(self.address, bytes) }?;
        self.pool.note(|| Step::Read { from: self.address, bytes, into: reading.clone() });
        Ok(reading)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let mut state = self.pool.state();
        state.used -= self.size as u64;
        match state.recording() {
            Some(recording) => recording.freed.push((self.size, self.address)),
            None => self.pool.give_back(&mut state, self.size, self.address),
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

/// Address of an optional buffer; 0 is the kernels' null.
pub(crate) fn address(buffer: Option<&Buffer>) -> u64 {
    buffer.map_or(0, Buffer::address)
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn classes_hold_what_they_are_for_and_waste_little() {
        for bytes in [0, 1, 511, 512, 513, 4096, 5000, 1 << 20, (1 << 20) + 1, 768_000_000] {
            let class = size_class(bytes);
            assert!(class >= bytes && class <= bytes + bytes / 4 + 512, "{bytes}: {class}");
            assert_eq!(size_class(class), class, "{bytes}");
        }
    }
}
