//! A device with its memory and its loaded kernels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use maxsim_core::Result;

use crate::device::{Caps, Device, Function, Launch, Repeatable, Step, Unit};
use crate::memory::{Buffer, Pool, Recording};
use crate::operands::inverse_norms;

/// Bytes of workspace that an operator may use beside its inputs and outputs, where it can choose.
pub(crate) const WORKSPACE: usize = 64 << 20;

/// Bytes of a table that is kept for the next call that needs the same one, and of all that are.
const TABLE: usize = 64 << 10;
const TABLES: usize = 4 << 20;

type Tables = (HashMap<Vec<u8>, Arc<Buffer>>, usize);

pub(crate) struct Context {
    pub(crate) pool: Arc<Pool>,
    functions: Mutex<HashMap<Unit, Function>>,
    /// Small tables on the device by what they hold, and their bytes.
    tables: Mutex<Tables>,
    counters: Mutex<Option<Arc<Buffer>>>,
    /// Held by whoever records: one at a time.
    recorder: Mutex<()>,
}

impl Context {
    pub(crate) fn new(device: Arc<dyn Device>, budget: Option<u64>) -> Self {
        Self {
            pool: Pool::new(device, budget),
            functions: Mutex::default(),
            tables: Mutex::default(),
            counters: Mutex::default(),
            recorder: Mutex::default(),
        }
    }

    pub(crate) fn caps(&self) -> &Caps {
        self.pool.device().caps()
    }

    /// Kernels loaded so far.
    pub(crate) fn loaded(&self) -> usize {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// At least `count` numbers, zero for whichever kernel uses them next: kernels leave them as they found them. What is being
    /// recorded gets its own, since it might be repeated beside the queue.
    pub(crate) fn counters(&self, count: usize) -> Result<Arc<Buffer>> {
        let zeros = || -> Result<Arc<Buffer>> {
            let bytes = count.next_power_of_two().max(1 << 12) * 4;
            let buffer = Arc::new(self.pool.buffer(bytes)?);
            // Now and never again, so not for the record.
            // SAFETY: the whole of this buffer.
            unsafe { self.pool.device().fill(buffer.address(), 0, bytes)? };
            self.pool.keep(&buffer);
            Ok(buffer)
        };
        if self.pool.records() {
            return zeros();
        }
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        match &*counters {
            Some(buffer) if buffer.bytes() >= count * 4 => Ok(buffer.clone()),
            _ => Ok(counters.insert(zeros()?).clone()),
        }
    }

    fn function(&self, unit: &Unit) -> Result<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(unit) {
            return Ok(function.clone());
        }
        let function = self.pool.device().load(unit)?;
        functions.insert(unit.clone(), function.clone());
        Ok(function)
    }

    /// Gives a kernel to the queue. An empty grid is no launch.
    ///
    /// # Safety
    /// Every address in `params` is memory of this device, as large as the kernel uses it.
    pub(crate) unsafe fn launch<P: Pod>(
        &self,
        unit: &Unit,
        grid: [u32; 2],
        shared: u32,
        params: &P,
    ) -> Result<()> {
        assert_eq!(size_of::<P>(), unit.params, "{} takes other parameters", unit.kernel.name);
        if grid.contains(&0) {
            return Ok(());
        }
        let launch = Launch { grid, threads: unit.constant("kThreads") as u32, shared };
        let function = self.function(unit)?;
        let params = bytemuck::bytes_of(params);
        self.pool.note(|| Step::Launch { function: function.clone(), launch, params: params.to_vec() });
        // SAFETY: the caller's promise; the size of the parameters was checked when the kernel was compiled.
        unsafe { self.pool.device().launch(&function, launch, params) }
    }

    /// `data` on the device. What a call lays out depends on shapes alone, so the next call of the same shape finds it there: a
    /// copy takes the driver longer than a look into a table.
    pub(crate) fn table<T: Pod>(&self, data: &[T]) -> Result<Arc<Buffer>> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        if bytes.len() > TABLE || !self.pool.device().caches() {
            return self.pool.upload(data).map(Arc::new);
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = match tables.0.get(bytes) {
            Some(table) => table.clone(),
            None => {
                if tables.1 + bytes.len() > TABLES {
                    *tables = Default::default();
                }
                let table = Arc::new(self.pool.upload(data)?);
                tables.0.insert(bytes.to_vec(), table.clone());
                tables.1 += bytes.len();
                table
            }
        };
        self.pool.keep(&table);
        Ok(table)
    }

    /// Runs `run` and records what it gives to the queue. What it frees is kept for the recording, which has to be given back
    /// to the pool (`Pool::forget`).
    pub(crate) fn record<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<(T, Recording)> {
        /// Ends the recording also where `run` panics.
        struct Guard<'a>(&'a Pool);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                let mut recording = self.0.recorded();
                self.0.forget(&mut recording);
            }
        }
        let _alone = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.record();
        let guard = Guard(&self.pool);
        let result = run()?;
        std::mem::forget(guard);
        Ok((result, self.pool.recorded()))
    }

    /// Makes the launches and fills of a recording ready to be repeated, and its downloads if asked for.
    ///
    /// # Safety
    /// What the steps name stays as long as the result does: the recording and the results of what was run are kept.
    pub(crate) unsafe fn ready(
        &self,
        recording: &mut Recording,
        downloads: bool,
    ) -> Result<Box<dyn Repeatable>> {
        let mut steps = std::mem::take(&mut recording.steps);
        steps.retain(|step| downloads || !matches!(step, Step::Read { .. }));
        // SAFETY: the caller's promise.
        unsafe { self.pool.device().ready(Arc::new(steps)) }
    }

    /// Device time of what `run` gives to the queue beside copies: microseconds of each repetition, and the number of
    /// launches and fills. `clean`: with the cache full of what was read, so that nothing is written back meanwhile.
    pub(crate) fn time<T>(
        &self,
        repeats: usize,
        clean: bool,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<(Vec<f32>, usize)> {
        let flushed = if clean { self.pool.device().flushed() } else { 0 };
        let (read, mut reading) = self.record(|| self.read_all(flushed))?;
        let (kept, mut recording) = self.record(run)?;
        let count = recording.steps.iter().filter(|step| !matches!(step, Step::Read { .. })).count();
        // SAFETY: nothing that was freed meanwhile has been handed out, and what was not is in `read` and `kept`.
        let times = unsafe {
            let before = if flushed > 0 { Some(self.ready(&mut reading, false)) } else { None };
            before.transpose().and_then(|before| {
                let work = self.ready(&mut recording, false)?;
                self.pool.device().time(before.as_deref(), &*work, repeats)
            })
        };
        drop((read, kept));
        self.pool.forget(&mut reading);
        self.pool.forget(&mut recording);
        Ok((times?, count))
    }

    /// Reads so many bytes of memory, writes next to none.
    fn read_all(&self, bytes: usize) -> Result<Option<(Buffer, Buffer)>> {
        const ROW: usize = 4096;
        if bytes < ROW {
            return Ok(None);
        }
        let rows = self.pool.buffer(bytes)?;
        let norms = inverse_norms(self, &rows, ROW as u32, (bytes / ROW) as u32, ROW as u32 / 4)?;
        Ok(Some((rows, norms)))
    }
}

/// Gives steps to a device's queue one by one, where it has nothing better for it.
///
/// # Safety
/// As [`Repeatable::repeat`].
#[cfg(feature = "emulator")]
pub(crate) unsafe fn repeat(device: &dyn Device, steps: &[Step]) -> Result<()> {
    for step in steps {
        // SAFETY: the caller's promise.
        unsafe {
            match step {
                Step::Launch { function, launch, params } => device.launch(function, *launch, params)?,
                Step::Fill { to, byte, bytes } => device.fill(*to, *byte, *bytes)?,
                Step::Read { from, bytes, into } => {
                    let read = device.read(*from, *bytes)?;
                    read.block()?;
                    std::ptr::copy_nonoverlapping(read.bytes().as_ptr(), into.target(), *bytes);
                }
            }
        }
    }
    Ok(())
}
