//! Choosing a backend.

use std::sync::Arc;

use maxsim_core::{Backend, BackendKind, Engine, Error, Result};

/// An engine on the best backend there is.
///
/// # Errors
/// As [`EngineBuilder::build`].
pub fn engine() -> Result<Engine> {
    EngineBuilder::new().build()
}

/// Settings of an engine. What is not set comes from the environment (`MAXSIM_BACKEND`, `MAXSIM_CPU_LEVEL`,
/// `MAXSIM_THREADS`, `MAXSIM_DISABLE_GPU`), else from the machine.
///
/// ```
/// let engine = maxsim::EngineBuilder::new().threads(2).build()?;
/// assert_eq!(engine.info().threads, 2);
/// # Ok::<(), maxsim::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct EngineBuilder {
    backend: Option<BackendKind>,
    threads: Option<usize>,
    #[cfg(feature = "cpu")]
    cpu_level: Option<maxsim_cpu::Level>,
    silent: bool,
}

impl EngineBuilder {
    /// Automatic choices everywhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses this backend and no other; what it cannot do is an error instead of moving on.
    pub fn backend(mut self, kind: BackendKind) -> Self {
        self.backend = Some(kind);
        self
    }

    /// CPU threads.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// SIMD level of the CPU backend.
    #[cfg(feature = "cpu")]
    pub fn cpu_level(mut self, level: maxsim_cpu::Level) -> Self {
        self.cpu_level = Some(level);
        self
    }

    /// No one-time warnings.
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Sets the backends up.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` for a backend that this build or machine lacks, `ERR_VALUE` for a setting that cannot be,
    /// in the environment too.
    pub fn build(self) -> Result<Engine> {
        let kind = match (self.backend, setting("MAXSIM_BACKEND")) {
            (Some(kind), _) => Some(kind),
            (None, Some(name)) if name != "auto" => Some(name.parse()?),
            _ => None,
        };
        let backend = match kind {
            None | Some(BackendKind::Cpu) => self.cpu()?,
            Some(other) => {
                return Err(Error::Unsupported {
                    what: format!("backend {other}"),
                    hint: "this build has cpu".into(),
                });
            }
        };
        let engine = Engine::new(vec![backend])?;
        Ok(if self.silent { engine.silent() } else { engine })
    }

    #[cfg(feature = "cpu")]
    fn cpu(&self) -> Result<Arc<dyn Backend>> {
        let threads =
            match (self.threads, setting("MAXSIM_THREADS")) {
                (Some(threads), _) => Some(threads),
                (None, Some(text)) => Some(text.parse().map_err(|_| {
                    Error::value("MAXSIM_THREADS", "a number of threads", format!("{text:?}"))
                })?),
                _ => None,
            };
        let options = maxsim_cpu::CpuOptions { level: self.cpu_level, threads };
        Ok(Arc::new(maxsim_cpu::CpuBackend::new(options)?))
    }

    #[cfg(not(feature = "cpu"))]
    fn cpu(&self) -> Result<Arc<dyn Backend>> {
        Err(Error::Unsupported { what: "backend cpu".into(), hint: "build with the feature `cpu`".into() })
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
