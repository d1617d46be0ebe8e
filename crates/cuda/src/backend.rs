//! CUDA as a [`Backend`].

use std::sync::Arc;

use maxsim_core::{
    Argmax, Backend, BackendInfo, BackendKind, Cancel, Documents, Error, Forward, Op, Output, Plan, Resident,
    ResidentMeta, Result, Scores, Submission,
};

use crate::arch::Path;
use crate::context::Context;
use crate::device::{Device, Pending};
use crate::forward::{Scoring, score};
use crate::memory::Buffer;
use crate::operands::Held;

/// How to set a GPU up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CudaOptions {
    /// Which GPU, as the driver counts them.
    pub device: usize,
    /// Kernels to use; `None`: `MAXSIM_CUDA_ARCH`, else the best for the GPU.
    pub path: Option<Path>,
    /// Device memory that may be used, in bytes; `None`: all of it.
    pub budget: Option<u64>,
}

/// Scores on an NVIDIA GPU.
pub struct CudaBackend {
    context: Arc<Context>,
    info: BackendInfo,
}

impl CudaBackend {
    /// Runs the kernels of `path` on the host, for tests; `folder` keeps what was compiled.
    #[cfg(feature = "emulator")]
    pub fn emulated(path: Path, folder: &std::path::Path) -> Self {
        Self::on(Arc::new(crate::emulator::Emulator::new(path, folder)), None)
    }

    fn on(device: Arc<dyn Device>, budget: Option<u64>) -> Self {
        let caps = device.caps();
        let path = caps.arch.path;
        let info = BackendInfo {
            kind: BackendKind::Cuda,
            device: caps.name.clone(),
            level: path.name().into(),
            levels: Path::ALL.iter().filter(|p| **p <= path).map(|p| p.name().into()).collect(),
            threads: 0,
        };
        Self { context: Arc::new(Context::new(device, budget)), info }
    }

    /// Bytes of device memory in use, and the most that ever were.
    pub fn memory(&self) -> (u64, u64) {
        self.context.pool.used()
    }

    /// Kernels compiled or loaded so far.
    pub fn kernels_loaded(&self) -> usize {
        self.context.loaded()
    }

    fn run(&self, op: &Op<'_>) -> Result<Submission> {
        match op {
            Op::Forward(op) => self.forward(op),
            other => Err(unsupported(other)),
        }
    }

    fn forward(&self, op: &Forward<'_>) -> Result<Submission> {
        let held = open(&self.context, &op.d)?;
        let pool = &self.context.pool;
        let scores = pool.buffer(op.pair_count() * 4)?;
        let layout = op.options.argmax.then(|| op.empty_argmax());
        let argmax = layout.as_ref().map(|layout| winners(&self.context, layout)).transpose()?;
        let first = |pair: usize| layout.as_ref().map_or(0, |layout| layout.range(pair).start);
        let scoring = Scoring::of(op, &held);
        score(&self.context, &scoring, &scores, argmax.as_ref().map(|a| (a, &first as &dyn Fn(usize) -> usize)))?;
        let scores = scores.read(op.pair_count() * 4)?;
        let argmax = argmax.map(|argmax| argmax.read(argmax.bytes())).transpose()?;
        let shape = op.output_shape();
        Ok(later([Some(scores), argmax], move |[scores, argmax]| {
            let argmax = layout.map(|mut layout| {
                layout.values = cast(argmax);
                layout
            });
            Output::Scores(Scores { values: cast(scores), shape, argmax })
        }))
    }
}

/// A buffer for winners, −1 everywhere.
fn winners(context: &Context, layout: &Argmax) -> Result<Buffer> {
    let buffer = context.pool.buffer(layout.values.len() * 4)?;
    buffer.fill(0xff)?;
    Ok(buffer)
}

fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// A submission that waits for what is read back, and makes the result of it.
fn later<const N: usize>(
    pending: [Option<Box<dyn Pending>>; N],
    make: impl FnOnce([&[u8]; N]) -> Output + Send + 'static,
) -> Submission {
    Submission::pending(Box::pin(async move {
        for pending in pending.iter().flatten() {
            pending.block()?;
        }
        Ok(make(std::array::from_fn(|i| pending[i].as_ref().map_or(&[][..], |p| p.bytes()))))
    }))
}

/// Documents on the device, uploaded if they are not there yet.
fn open<'a>(context: &Context, documents: &'a Documents<'_>) -> Result<Opened<'a>> {
    match documents {
        Documents::Resident(resident) => Ok(Opened::Resident(resident.handle()?)),
        host => Ok(Opened::Uploaded(Box::new(Held::new(context, host, false)?))),
    }
}

/// Documents of an operator.
enum Opened<'a> {
    Resident(&'a Held),
    Uploaded(Box<Held>),
}

impl std::ops::Deref for Opened<'_> {
    type Target = Held;

    fn deref(&self) -> &Held {
        match self {
            Self::Resident(held) => held,
            Self::Uploaded(held) => held,
        }
    }
}

fn unsupported(op: &Op<'_>) -> Error {
    Error::Unsupported { what: format!("{} on CUDA", op.name()), hint: "use another backend".into() }
}

impl Backend for CudaBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn plan(&self, op: &Op<'_>) -> Result<Plan> {
        match op {
            Op::Forward(_) => {}
            other => return Err(unsupported(other)),
        }
        Ok(Plan {
            backend: BackendKind::Cuda,
            kernel: format!("{}/{}", op.name(), self.info.level),
            choices: vec![],
            notes: vec![],
        })
    }

    fn upload(&self, documents: &Documents<'_>, normalized: bool) -> Result<Resident> {
        if let Documents::Resident(resident) = documents {
            return Ok((*resident).clone());
        }
        let held = Held::new(&self.context, documents, normalized)?;
        let mut meta = ResidentMeta::of(documents, BackendKind::Cuda, normalized);
        meta.bytes = held.bytes();
        Ok(Resident::new(meta, held))
    }

    fn submit(&self, op: &Op<'_>, cancel: &Cancel) -> Submission {
        match cancel.check().and_then(|()| self.run(op)) {
            Ok(submission) => submission,
            Err(error) => Submission::ready(Err(error)),
        }
    }
}
