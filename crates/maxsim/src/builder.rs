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
/// `MAXSIM_THREADS`, `MAXSIM_WGPU_ADAPTER`, `MAXSIM_WGPU_TIER`, `MAXSIM_DISABLE_GPU`), else from the machine.
///
/// Without a choice of backend, an engine takes a real GPU if there is one, with the CPU for what the GPU cannot do; else the
/// CPU. NVIDIA GPUs are driven through CUDA where the build has `cuda` and driver and NVRTC are there (`MAXSIM_CUDA_ARCH` forces
/// older kernels), all others through `wgpu`. GPUs that a CPU stands behind are used only when asked for.
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
    #[cfg(feature = "wgpu")]
    wgpu: maxsim_wgpu::WgpuOptions,
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    memory_budget: Option<u64>,
    tuning: Option<String>,
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

    /// GPU to use: part of its name, in any case, or its number among [`wgpu_adapters`](crate::wgpu_adapters).
    #[cfg(feature = "wgpu")]
    pub fn wgpu_adapter(mut self, adapter: impl Into<String>) -> Self {
        self.wgpu.adapter = Some(adapter.into());
        self
    }

    /// Capability tier of the GPU.
    #[cfg(feature = "wgpu")]
    pub fn wgpu_tier(mut self, tier: maxsim_wgpu::Tier) -> Self {
        self.wgpu.tier = Some(tier);
        self
    }

    /// Measures the time the GPU spends, where it can: [`Engine::device_time`].
    #[cfg(feature = "wgpu")]
    pub fn device_timing(mut self) -> Self {
        self.wgpu.timing = true;
        self
    }

    /// Bytes of GPU memory that documents and scratch may take together.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = Some(bytes);
        self
    }

    /// Table of measured choices between kernels, as [`Engine::tuning`] or `maxsim tune` gives it. CUDA alone takes one; without it, it
    /// uses that of `MAXSIM_CUDA_TUNING`, else the one that is known of the GPU. Scores have the same bits whatever it says.
    pub fn tuning(mut self, table: impl Into<String>) -> Self {
        self.tuning = Some(table.into());
        self
    }

    /// No one-time warnings.
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Sets the backends up. Where waiting is impossible (WebAssembly), [`build_async`](Self::build_async) reaches GPUs.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` for a backend that this build or machine lacks and for a tuning table on another than CUDA, `ERR_VALUE` for a
    /// setting that cannot be, in the environment too, `ERR_FORMAT` and `ERR_VERSION` for a tuning table that cannot be read.
    pub fn build(self) -> Result<Engine> {
        #[cfg(not(target_arch = "wasm32"))]
        {
            pollster::block_on(self.build_async())
        }
        #[cfg(target_arch = "wasm32")]
        match self.kind()? {
            None | Some(BackendKind::Cpu) => self.engine(vec![self.cpu()?]),
            Some(other) => Err(Error::Unsupported {
                what: format!("waiting for backend {other} in WebAssembly"),
                hint: "await build_async()".into(),
            }),
        }
    }

    /// [`build`](Self::build) for callers that may only await.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub async fn build_async(self) -> Result<Engine> {
        // Told whatever GPU there is.
        #[cfg(feature = "cuda")]
        self.table()?;
        let backends = match self.kind()? {
            Some(BackendKind::Cpu) => vec![self.cpu()?],
            Some(BackendKind::Wgpu) => vec![self.wgpu().await?],
            #[cfg(feature = "cuda")]
            Some(BackendKind::Cuda) => vec![self.cuda()?],
            Some(other) => {
                let features = [
                    ("cpu", cfg!(feature = "cpu")),
                    ("wgpu", cfg!(feature = "wgpu")),
                    ("cuda", cfg!(feature = "cuda")),
                ];
                let built: Vec<&str> =
                    features.into_iter().filter_map(|(name, built)| built.then_some(name)).collect();
                return Err(Error::Unsupported {
                    what: format!("backend {other}"),
                    hint: format!("this build has {}", built.join(", ")),
                });
            }
            None => match (self.gpu().await, self.cpu()) {
                (Some(gpu), Ok(cpu)) => vec![gpu, cpu],
                (Some(gpu), Err(_)) => vec![gpu],
                (None, cpu) => vec![cpu?],
            },
        };
        self.engine(backends)
    }

    fn engine(&self, backends: Vec<Arc<dyn Backend>>) -> Result<Engine> {
        let engine = Engine::new(backends)?;
        if self.tuning.is_some() {
            // Refused by whoever would not use it.
            engine.tuning()?;
        }
        Ok(if self.silent { engine.silent() } else { engine })
    }

    /// The backend asked for.
    fn kind(&self) -> Result<Option<BackendKind>> {
        match (self.backend, setting("MAXSIM_BACKEND")) {
            (Some(kind), _) => Ok(Some(kind)),
            (None, Some(name)) if name != "auto" => Ok(Some(name.parse()?)),
            _ => Ok(None),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Result<Arc<dyn Backend>> {
        let options = maxsim_cuda::CudaOptions { budget: self.memory_budget, ..Default::default() };
        Ok(Arc::new(maxsim_cuda::CudaBackend::with_table(options, self.table()?)?))
    }

    #[cfg(feature = "cuda")]
    fn table(&self) -> Result<Option<maxsim_cuda::tuning::Table>> {
        self.tuning.as_deref().map(maxsim_cuda::tuning::Table::parse).transpose()
    }

    #[cfg(feature = "wgpu")]
    async fn wgpu(&self) -> Result<Arc<dyn Backend>> {
        let options = maxsim_wgpu::WgpuOptions { memory_budget: self.memory_budget, ..self.wgpu.clone() };
        Ok(Arc::new(maxsim_wgpu::WgpuBackend::new(options).await?))
    }

    #[cfg(not(feature = "wgpu"))]
    async fn wgpu(&self) -> Result<Arc<dyn Backend>> {
        Err(Error::Unsupported { what: "backend wgpu".into(), hint: "build with the feature `wgpu`".into() })
    }

    /// A GPU that is one, if there is any.
    async fn gpu(&self) -> Option<Arc<dyn Backend>> {
        match self.nvidia() {
            Some(backend) => Some(backend),
            None => self.hardware().await,
        }
    }

    /// An NVIDIA GPU with all that CUDA needs.
    #[cfg(feature = "cuda")]
    fn nvidia(&self) -> Option<Arc<dyn Backend>> {
        let node = std::path::Path::new("/dev/nvidiactl").exists();
        let disabled = setting("MAXSIM_DISABLE_GPU").is_some_and(|value| value != "0");
        if disabled || (cfg!(target_os = "linux") && !node) {
            return None;
        }
        match self.cuda() {
            Ok(backend) => Some(backend),
            Err(error) => {
                tracing::debug!("no CUDA: {error}");
                None
            }
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn nvidia(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// A GPU that is one, through wgpu.
    #[cfg(feature = "wgpu")]
    async fn hardware(&self) -> Option<Arc<dyn Backend>> {
        if !may_have_gpu() {
            return None;
        }
        let real = maxsim_wgpu::adapters().await.iter().any(|adapter| !adapter.is_software());
        if !real {
            return None;
        }
        match self.wgpu().await {
            Ok(backend) => Some(backend),
            Err(error) => {
                tracing::warn!("no GPU: {error}");
                None
            }
        }
    }

    #[cfg(not(feature = "wgpu"))]
    async fn hardware(&self) -> Option<Arc<dyn Backend>> {
        None
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

/// Whether it is worth asking graphics drivers for a GPU: they take a while to load, and some print to stderr on servers.
/// On Linux every GPU has a device node.
#[cfg(feature = "wgpu")]
fn may_have_gpu() -> bool {
    let nodes = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/mali0", "/dev/kgsl-3d0"];
    !cfg!(target_os = "linux") || nodes.iter().any(|node| std::path::Path::new(node).exists())
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
