//! What the backend needs of a device. The driver is one, the emulator another.

use std::any::Any;
use std::sync::Arc;

use maxsim_core::Result;
use maxsim_kernels::Kernel;

use crate::arch::Arch;
use crate::tuning::Table;

/// Facts about a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Caps {
    /// Name, e.g. `NVIDIA H200`.
    pub name: String,
    /// What kernels are compiled for.
    pub arch: Arch,
    /// Streaming multiprocessors.
    pub processors: u32,
    /// Shared memory a block can have, in bytes.
    pub shared_block: u32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_processor: u32,
    /// Global memory in bytes.
    pub memory: u64,
    /// What was measured on it.
    pub tuning: Arc<Table>,
}

/// A kernel in one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unit {
    /// The kernel.
    pub kernel: Kernel,
    /// Its constants, `kThreads` among them.
    pub config: Vec<(&'static str, i64)>,
    /// Blocks that have to fit on a multiprocessor together.
    pub min_blocks: u32,
    /// Size of its parameters.
    pub params: usize,
}

impl Unit {
    /// A constant of the configuration. Panics if there is none of that name.
    pub fn constant(&self, name: &str) -> i64 {
        self.config.iter().find(|(n, _)| *n == name).expect("a constant of this kernel").1
    }
}

/// Grid, block and shared memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) grid: [u32; 2],
    pub(crate) threads: u32,
    pub(crate) shared: u32,
}

/// A row-major matrix that the copy engine reads boxes of, 128-byte rows swizzled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TensorMap {
    pub(crate) address: u64,
    /// Bytes of an element: 1 or 2.
    pub(crate) element: u32,
    /// Elements of a row that exist; the rest of a box is zeros.
    pub(crate) columns: u64,
    pub(crate) rows: u64,
    /// Bytes from row to row, a multiple of 16.
    pub(crate) stride: u64,
    /// Rows of a box; its rows are 128 bytes.
    pub(crate) box_rows: u32,
}

/// A loaded kernel; what it is only the device that loaded it knows.
pub(crate) type Function = Arc<dyn Any + Send + Sync>;

/// Bytes that arrive on the host later.
pub(crate) trait Pending: Send + Sync {
    /// Waits for them.
    fn block(&self) -> Result<()>;
    /// The bytes; only after they arrived.
    fn bytes(&self) -> &[u8];
    /// Where they arrive: memory that stays as long as this does.
    fn target(&self) -> *mut u8;
}

/// A download, shared by whoever waits for it and a recording that repeats it.
pub(crate) type Reading = Arc<dyn Pending>;

/// Work given to the queue that can be given to it again.
pub(crate) enum Step {
    Launch { function: Function, launch: Launch, params: Vec<u8> },
    Fill { to: u64, byte: u8, bytes: usize },
    Read { from: u64, bytes: usize, into: Reading },
}

/// Work that a device has made ready to be repeated.
pub(crate) trait Repeatable: Send + Sync {
    /// Gives it to the device's queue, or to a stream of the caller's.
    ///
    /// # Safety
    /// Everything the steps name is still there, a stream is one of this device, and what was given out before is over or ahead
    /// in the same queue.
    unsafe fn repeat(&self, stream: Option<u64>) -> Result<()>;
}

/// A point in a device's queue.
pub(crate) trait Mark: Send + Sync {
    /// Waits for everything ahead of it.
    fn block(&self) -> Result<()>;
    /// Whether everything ahead of it is over.
    fn is_over(&self) -> Result<bool>;
    /// The driver's `CUevent`; 0 where there is no driver.
    fn raw(&self) -> u64;
}

/// A device with one queue: whatever is given to it happens in that order.
pub(crate) trait Device: Send + Sync {
    fn caps(&self) -> &Caps;
    /// Whether freed memory is kept for the next allocation.
    fn caches(&self) -> bool;
    /// Memory, not initialised.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// # Safety
    /// `address` came from [`alloc`](Self::alloc) of this device and is not used by anything given to the queue later.
    unsafe fn free(&self, address: u64, bytes: usize);
    /// # Safety
    /// `[to, to + from.len())` is memory of this device. `from` may be reused as soon as this returns.
    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()>;
    /// # Safety
    /// `[to, to + bytes)` is memory of this device.
    unsafe fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()>;
    /// # Safety
    /// `[from, from + bytes)` is memory of this device.
    unsafe fn read(&self, from: u64, bytes: usize) -> Result<Reading>;
    /// Makes `steps` ready to be repeated; nothing runs yet.
    ///
    /// # Safety
    /// Everything the steps name is memory of this device and stays as long as the result does.
    unsafe fn ready(&self, steps: Arc<Vec<Step>>) -> Result<Box<dyn Repeatable>>;
    /// A point behind everything given to the queue so far.
    fn mark(&self) -> Result<Box<dyn Mark>>;
    /// The queue waits for what `stream` was given so far, and what `stream` is given from now on waits for nothing.
    ///
    /// # Safety
    /// `stream` is a stream of this device.
    unsafe fn wait_for(&self, stream: u64) -> Result<()>;
    /// What `stream` is given from now on waits for what the queue was given so far.
    ///
    /// # Safety
    /// `stream` is a stream of this device.
    unsafe fn make_wait(&self, stream: u64) -> Result<()>;
    /// Refuses an address that is not `bytes` bytes of this device's memory.
    fn check_memory(&self, argument: &'static str, address: u64, bytes: usize) -> Result<()>;
    /// Compiles and loads.
    fn load(&self, unit: &Unit) -> Result<Function>;
    /// # Safety
    /// `params` is what the kernel takes, and every address in it is memory of this device that is large enough.
    unsafe fn launch(&self, function: &Function, launch: Launch, params: &[u8]) -> Result<()>;
    /// Bytes that are written before each repetition of [`time`](Self::time); 0: there is no cache to flush.
    fn flushed(&self) -> usize;
    /// Microseconds the device takes for `work`, `repeats` times, with the second-level cache flushed before each, and then `before`
    /// run.
    ///
    /// # Safety
    /// As [`Repeatable::repeat`].
    unsafe fn time(
        &self,
        before: Option<&dyn Repeatable>,
        work: &dyn Repeatable,
        repeats: usize,
    ) -> Result<Vec<f32>>;
    /// The bytes by which a kernel knows `map`.
    fn tensor_map(&self, map: &TensorMap) -> Result<[u64; 16]>;
}
