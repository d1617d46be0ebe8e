//! What a backend is to the engine.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Codec, Documents, Op, Output};
use crate::plaid::Segment;
use crate::sequences::Sequences;
use crate::tokens::Tokens;

/// `Send + Sync` where threads exist; nothing in a browser, whose GPU objects belong to one thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSendSync: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + ?Sized> MaybeSendSync for T {}
/// `Send + Sync` where threads exist; nothing in a browser, whose GPU objects belong to one thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSendSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSendSync for T {}

/// Kind of backend, as users name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// CPU SIMD; always there.
    Cpu,
    /// WebGPU, Vulkan, Metal or DX12 through wgpu.
    Wgpu,
    /// NVIDIA GPUs through CUDA.
    Cuda,
}

impl BackendKind {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for BackendKind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "cuda" => Ok(Self::Cuda),
            other => Err(Error::value("backend", "one of auto, cpu, wgpu, cuda", format!("{other:?}"))),
        }
    }
}

/// Facts about a backend in use.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendInfo {
    /// Kind.
    pub kind: BackendKind,
    /// Device name, e.g. the CPU model or GPU.
    pub device: String,
    /// SIMD level, capability tier or architecture in use.
    pub level: String,
    /// Levels this machine can run, best first.
    pub levels: Vec<String>,
    /// Worker threads (CPU) or 0.
    pub threads: usize,
}

/// How an operator will be run: printable, decided before anything is launched.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Backend that runs it.
    pub backend: BackendKind,
    /// Kernel name, e.g. `forward/avx2`.
    pub kernel: String,
    /// Tile, threads and other choices, as `(name, value)`.
    pub choices: Vec<(&'static str, String)>,
    /// Reasons worth telling, e.g. why a backend was passed over.
    pub notes: Vec<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.backend, self.kernel)?;
        for (name, value) in &self.choices {
            write!(f, " {name}={value}")?;
        }
        for note in &self.notes {
            write!(f, " ({note})")?;
        }
        Ok(())
    }
}

/// Asks the caller whether to stop.
#[cfg(not(target_arch = "wasm32"))]
type Poll = Arc<dyn Fn() -> bool + Send + Sync>;
/// Asks the caller whether to stop.
#[cfg(target_arch = "wasm32")]
type Poll = Arc<dyn Fn() -> bool>;

/// A flag by which a caller stops work under way; cheap to clone.
#[derive(Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    poll: Option<Poll>,
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that is also set once `poll` says so, for callers that cannot set it while they wait, as on the only thread.
    /// Work may ask thousands of times a second.
    pub fn polling(poll: impl Fn() -> bool + MaybeSendSync + 'static) -> Self {
        Self { poll: Some(Arc::new(poll)), ..Self::default() }
    }

    /// Asks the work to stop; it returns `ERR_ABORTED` at its next check.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        if !self.flag.load(Ordering::Relaxed) && self.poll.as_ref().is_some_and(|poll| poll()) {
            self.cancel();
        }
        self.flag.load(Ordering::Relaxed)
    }

    /// `ERR_ABORTED` once cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Aborted) } else { Ok(()) }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, poll } = self;
        f.debug_struct("Cancel").field("flag", flag).field("polls", &poll.is_some()).finish()
    }
}

/// What is known of documents a backend holds.
#[derive(Debug, Clone)]
pub struct ResidentMeta {
    /// Backend that holds them.
    pub backend: BackendKind,
    /// How the token slots form documents.
    pub sequences: Sequences<'static>,
    /// Embedding dimension.
    pub dim: usize,
    /// Storage type.
    pub dtype: DType,
    /// Whether they are codes and packed residuals.
    pub residual: bool,
    /// Tokens that count.
    pub kept: usize,
    /// Bytes of one token as stored.
    pub token_bytes: usize,
    /// Bytes held on the device (host memory for the CPU).
    pub bytes: u64,
    /// Whether vectors were normalised before they were stored; `normalize` then leaves them as they are.
    pub normalized: bool,
    /// Whether they were checked to hold no NaN or infinity; on a device nobody looks any more.
    pub finite: bool,
}

/// Documents that a backend holds. Dropping the last clone frees them.
#[derive(Clone)]
pub struct Resident {
    meta: ResidentMeta,
    handle: Handle,
}

/// A backend's own representation of something.
#[cfg(not(target_arch = "wasm32"))]
type Handle = Arc<dyn Any + Send + Sync>;
/// A backend's own representation of something.
#[cfg(target_arch = "wasm32")]
type Handle = Arc<dyn Any>;

impl ResidentMeta {
    /// What can be read off the documents themselves; the backend fills in `bytes`.
    pub fn of(documents: &Documents<'_>, backend: BackendKind, normalized: bool) -> Self {
        Self {
            backend,
            sequences: documents.sequences().owned(),
            dim: documents.dim(),
            dtype: documents.dtype(),
            residual: documents.is_residual(),
            kept: documents.kept(),
            token_bytes: documents.token_bytes(),
            bytes: 0,
            normalized,
            finite: false,
        }
    }
}

impl Resident {
    /// Wraps a backend's own representation.
    pub fn new<T: Any + MaybeSendSync>(meta: ResidentMeta, handle: T) -> Self {
        Self { meta, handle: Arc::new(handle) }
    }

    /// The same, of which it is known whether they hold no NaN or infinity.
    pub(crate) fn checked(mut self, finite: bool) -> Self {
        self.meta.finite = finite;
        self
    }

    /// Facts about the documents.
    pub fn meta(&self) -> &ResidentMeta {
        &self.meta
    }

    /// The backend's representation, or an error when another kind of backend made it.
    pub fn handle<T: Any>(&self) -> Result<&T> {
        self.handle.downcast_ref().ok_or_else(|| {
            Error::value(
                "D",
                "documents uploaded by this engine",
                format!("documents held by {}", self.meta.backend),
            )
        })
    }
}

/// What is known of an index a backend holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMeta {
    /// Backend that holds it.
    pub backend: BackendKind,
    /// Embedding dimension.
    pub dim: usize,
    /// Number of centroids.
    pub centroids: usize,
    /// Number of documents.
    pub documents: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Bytes held on the device.
    pub bytes: u64,
}

impl IndexMeta {
    /// What can be read off the index itself; the backend fills in `bytes`.
    pub fn of(codec: &Codec<'_>, segments: &[&Segment], backend: BackendKind) -> Self {
        Self {
            backend,
            dim: codec.dim(),
            centroids: codec.count(),
            documents: segments.iter().map(|s| s.documents()).sum(),
            tokens: segments.iter().map(|s| s.tokens()).sum(),
            bytes: 0,
        }
    }
}

/// An index that a backend holds. Dropping the last clone frees it.
#[derive(Clone)]
pub struct ResidentIndex {
    meta: IndexMeta,
    handle: Handle,
}

impl ResidentIndex {
    /// Wraps a backend's own representation.
    pub fn new<T: Any + MaybeSendSync>(meta: IndexMeta, handle: T) -> Self {
        Self { meta, handle: Arc::new(handle) }
    }

    /// Facts about the index.
    pub fn meta(&self) -> &IndexMeta {
        &self.meta
    }

    /// The backend's representation, or an error when another kind of backend made it.
    pub fn handle<T: Any>(&self) -> Result<&T> {
        self.handle.downcast_ref().ok_or_else(|| {
            let got = format!("an index held by {}", self.meta.backend);
            Error::value("index", "an index uploaded by this engine", got)
        })
    }
}

impl fmt::Debug for ResidentIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResidentIndex").field(&self.meta).finish()
    }
}

impl fmt::Debug for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resident").field(&self.meta).finish()
    }
}

/// Future returned by [`Backend::submit`].
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Future returned by [`Backend::submit`].
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Work handed to a device; awaiting it reads the result back.
#[must_use = "a submission does nothing visible until it is awaited"]
pub struct Submission(BoxFuture<Result<Output>>);

impl Submission {
    /// Work that is already done.
    pub fn ready(output: Result<Output>) -> Self {
        Self(Box::pin(std::future::ready(output)))
    }

    /// Work whose result arrives later.
    pub fn pending(future: BoxFuture<Result<Output>>) -> Self {
        Self(future)
    }

    /// Blocks until the result is there.
    ///
    /// # Errors
    /// Those of the work. In WebAssembly, which may not block, `ERR_UNSUPPORTED` unless the result is there already.
    pub fn wait(self) -> Result<Output> {
        #[cfg(not(target_arch = "wasm32"))]
        {
            pollster::block_on(self.0)
        }
        #[cfg(target_arch = "wasm32")]
        {
            let mut future = self.0;
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match future.as_mut().poll(&mut context) {
                std::task::Poll::Ready(output) => output,
                std::task::Poll::Pending => Err(Error::Unsupported {
                    what: "waiting for a GPU in WebAssembly".into(),
                    hint: "await run_async()".into(),
                }),
            }
        }
    }
}

impl Future for Submission {
    type Output = Result<Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// A device that runs operators. Object-safe; it is only ever given validated operators.
pub trait Backend: MaybeSendSync {
    /// Facts for `maxsim info` and `explain()`.
    fn info(&self) -> &BackendInfo;

    /// How `op` would be run; `ERR_UNSUPPORTED` if it cannot be.
    fn plan(&self, op: &Op<'_>) -> Result<Plan>;

    /// Compiles what scoring and searching documents of type `d` with queries of type `q` may need, so that no call waits for
    /// it. Backends that compile nothing do nothing.
    fn prepare(&self, q: DType, d: DType) -> Result<()> {
        let _ = (q, d);
        Ok(())
    }

    /// Compiles what `op` may need; as [`prepare`](Self::prepare), for any operator.
    fn prepare_op(&self, op: &Op<'_>) -> Result<()> {
        let _ = op;
        Ok(())
    }

    /// Time the device spent on calls that finished since this was last asked; `None` where it is not measured.
    fn device_time(&self) -> Option<Duration> {
        None
    }

    /// The table of measured choices between kernels in use, as text that [`Engine`](crate::Engine)s are set up with; `None` where there is
    /// nothing to choose between.
    fn tuning(&self) -> Option<String> {
        None
    }

    /// Copies documents to the device. `normalized` records that the vectors have unit length already.
    fn upload(&self, documents: &Documents<'_>, normalized: bool) -> Result<Resident>;

    /// Copies documents to the device and does there what [`upload`](Self::upload) wants done before: normalised, then stored as
    /// `storage`, quantised with a scale per token if that is quantised. `None` where the backend leaves that to the host.
    ///
    /// The documents are not quantised, and finite where they are to be. What is stored has the bits that the host would give it.
    fn upload_as(&self, documents: &Tokens<'_>, normalize: bool, storage: DType) -> Option<Result<Resident>> {
        let _ = (documents, normalize, storage);
        None
    }

    /// Copies an index to the device. Backends that read host memory in place have no use for it and refuse.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` where the backend does not keep indexes.
    fn upload_index(&self, codec: &Codec<'_>, segments: &[&Segment]) -> Result<ResidentIndex> {
        let _ = (codec, segments);
        Err(Error::Unsupported {
            what: format!("keeping an index on {}", self.info().kind),
            hint: "search the index in host memory".into(),
        })
    }

    /// Starts `op`. Inputs may be reused as soon as this returns.
    ///
    /// GPU backends copy host inputs and return before the device is done. The CPU backend *is* the device: it computes
    /// here, on its own thread pool, and returns a finished submission.
    fn submit(&self, op: &Op<'_>, cancel: &Cancel) -> Submission;
}
