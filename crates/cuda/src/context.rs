//! A device with its memory and its loaded kernels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use maxsim_core::Result;

use crate::device::{Caps, Device, Function, Launch, Unit};
use crate::memory::{Pool, Step};

/// Bytes of workspace that an operator may use beside its inputs and outputs, where it can choose.
pub(crate) const WORKSPACE: usize = 64 << 20;

pub(crate) struct Context {
    pub(crate) pool: Arc<Pool>,
    functions: Mutex<HashMap<Unit, Function>>,
}

impl Context {
    pub(crate) fn new(device: Arc<dyn Device>, budget: Option<u64>) -> Self {
        Self { pool: Pool::new(device, budget), functions: Mutex::default() }
    }

    pub(crate) fn caps(&self) -> &Caps {
        self.pool.device().caps()
    }

    /// Kernels loaded so far.
    pub(crate) fn loaded(&self) -> usize {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).len()
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

    /// Gives recorded work to the queue again.
    ///
    /// # Safety
    /// The memory it uses is still that of the recording.
    unsafe fn repeat(&self, steps: &[Step]) -> Result<()> {
        let device = self.pool.device();
        for step in steps {
            match step {
                Step::Launch { function, launch, params } => {
                    // SAFETY: the caller's promise.
                    unsafe { device.launch(function, *launch, params)? };
                }
                // SAFETY: the caller's promise.
                Step::Fill { to, byte, bytes } => unsafe { device.fill(*to, *byte, *bytes)? },
            }
        }
        Ok(())
    }

    /// Device time of what `run` gives to the queue beside copies: microseconds of each repetition, and the number of
    /// launches and fills. What `run` returns is kept until then, and so is what it frees.
    pub(crate) fn time<T>(
        &self,
        repeats: usize,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<(Vec<f32>, usize)> {
        self.pool.record();
        let result = run();
        let recording = self.pool.recorded();
        let times = result.and_then(|kept| {
            // SAFETY: nothing that was freed meanwhile has been handed out, and what was not is in `kept`.
            let times = self.pool.device().time(&|| unsafe { self.repeat(&recording.steps) }, repeats);
            drop(kept);
            times
        });
        let steps = recording.steps.len();
        self.pool.forget(recording);
        Ok((times?, steps))
    }
}
