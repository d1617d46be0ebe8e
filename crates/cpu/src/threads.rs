//! The thread pool: rayon natively, the calling thread in WebAssembly.

use maxsim_core::{Error, MaybeSendSync, Result};

/// Runs tasks in parallel, each with scratch memory of its thread.
pub(crate) struct Threads {
    #[cfg(not(target_arch = "wasm32"))]
    pool: rayon::ThreadPool,
}

impl Threads {
    /// A pool of `count` threads; `None`: one per available core.
    pub(crate) fn new(count: Option<usize>) -> Result<Self> {
        if count == Some(0) {
            return Err(Error::value("threads", "at least 1", "0"));
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(count.unwrap_or(0))
                .thread_name(|i| format!("maxsim-{i}"))
                .build()
                .map_err(|error| Error::io("thread pool", error))?;
            Ok(Self { pool })
        }
        #[cfg(target_arch = "wasm32")]
        Ok(Self {})
    }

    /// Number of threads.
    pub(crate) fn count(&self) -> usize {
        #[cfg(not(target_arch = "wasm32"))]
        {
            self.pool.current_num_threads()
        }
        #[cfg(target_arch = "wasm32")]
        1
    }

    /// Calls `work(scratch, task)` for every task below `tasks`; the first error stops the rest.
    pub(crate) fn run<S>(
        &self,
        tasks: usize,
        scratch: impl Fn() -> S + MaybeSendSync,
        work: impl Fn(&mut S, usize) -> Result<()> + MaybeSendSync,
    ) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if tasks > 1 && self.count() > 1 {
            use rayon::prelude::*;
            return self.pool.install(|| {
                (0..tasks)
                    .into_par_iter()
                    .with_max_len(1)
                    .try_for_each_init(&scratch, |s, task| work(s, task))
            });
        }
        let mut s = scratch();
        (0..tasks).try_for_each(|task| work(&mut s, task))
    }

    /// Calls `work` for every item; items are owned, so each may be a piece of the output.
    pub(crate) fn for_each<T: Send>(
        &self,
        items: Vec<T>,
        work: impl Fn(T) -> Result<()> + MaybeSendSync,
    ) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if items.len() > 1 && self.count() > 1 {
            use rayon::prelude::*;
            return self.pool.install(|| items.into_par_iter().try_for_each(work));
        }
        items.into_iter().try_for_each(work)
    }

    /// [`run`](Self::run) with a result per task, in task order.
    pub(crate) fn map<S, T: Send>(
        &self,
        tasks: usize,
        scratch: impl Fn() -> S + MaybeSendSync,
        work: impl Fn(&mut S, usize) -> Result<T> + MaybeSendSync,
    ) -> Result<Vec<T>> {
        #[cfg(not(target_arch = "wasm32"))]
        if tasks > 1 && self.count() > 1 {
            use rayon::prelude::*;
            return self.pool.install(|| {
                (0..tasks)
                    .into_par_iter()
                    .with_max_len(1)
                    .map_init(&scratch, |s, task| work(s, task))
                    .collect()
            });
        }
        let mut s = scratch();
        (0..tasks).map(|task| work(&mut s, task)).collect()
    }
}
