//! The CPU as a [`Backend`].

use maxsim_core::{
    Backend, BackendInfo, BackendKind, Cancel, Documents, Op, Output, Plan, Resident, Result, Submission,
};

use crate::arch::{Kernels, kernels};
use crate::backward::backward;
use crate::documents;
use crate::forward::forward;
use crate::head::{from_hidden, from_hidden_backward};
use crate::level::Level;
use crate::retrieve::retrieve;
use crate::threads::Threads;

/// How to set the CPU up. The defaults use the best level and every core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuOptions {
    /// SIMD level; `None`: `MAXSIM_CPU_LEVEL`, else the best this machine runs.
    pub level: Option<Level>,
    /// Threads; `None`: one per core the process may use.
    pub threads: Option<usize>,
}

/// Scores on the CPU.
pub struct CpuBackend {
    kernels: &'static Kernels,
    threads: Threads,
    info: BackendInfo,
}

impl CpuBackend {
    /// Sets up the thread pool and chooses kernels.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` for a level this machine does not run, `ERR_VALUE` for zero threads or a bad `MAXSIM_CPU_LEVEL`,
    /// `ERR_IO` if threads cannot be started.
    pub fn new(options: CpuOptions) -> Result<Self> {
        let level = Level::choose(options.level)?;
        let kernels = kernels(level).expect("choose() returns levels that are available");
        let threads = Threads::new(options.threads)?;
        let info = BackendInfo {
            kind: BackendKind::Cpu,
            device: device_name(),
            level: level.name().into(),
            levels: Level::available().map(|l| l.name().into()).collect(),
            threads: threads.count(),
        };
        Ok(Self { kernels, threads, info })
    }

    fn run(&self, op: &Op<'_>, cancel: &Cancel) -> Result<Output> {
        match op {
            Op::Forward(op) => forward(op, self.kernels, &self.threads, cancel).map(Output::Scores),
            Op::Backward(op) => backward(op, self.kernels, &self.threads, cancel).map(Output::Gradients),
            Op::Retrieve(op) => retrieve(op, self.kernels, &self.threads, cancel).map(Output::TopK),
            Op::FromHidden(op) => from_hidden(op, self.kernels, &self.threads, cancel).map(Output::Scores),
            Op::FromHiddenBackward(op) => {
                from_hidden_backward(op, self.kernels, &self.threads, cancel).map(Output::Gradients)
            }
            other => Err(unsupported(other)),
        }
    }
}

fn unsupported(op: &Op<'_>) -> maxsim_core::Error {
    maxsim_core::Error::Unsupported {
        what: format!("{} on the CPU", op.name()),
        hint: "use another backend".into(),
    }
}

impl Backend for CpuBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn plan(&self, op: &Op<'_>) -> Result<Plan> {
        let (q, d) = match op {
            Op::Forward(op) => (op.q.dtype(), op.d.dtype()),
            Op::Backward(op) => (op.forward.q.dtype(), op.forward.d.dtype()),
            Op::Retrieve(op) => (op.forward.q.dtype(), op.forward.d.dtype()),
            Op::FromHidden(op) => (op.q.dtype(), op.h.dtype()),
            Op::FromHiddenBackward(op) => (op.forward.q.dtype(), op.forward.h.dtype()),
            other => return Err(unsupported(other)),
        };
        let wide = self.kernels.vectors * self.kernels.lanes;
        Ok(Plan {
            backend: BackendKind::Cpu,
            kernel: format!("{}/{}", op.name(), self.kernels.level),
            choices: vec![
                ("tile", format!("{wide} query tokens × {} document tokens", self.kernels.rows)),
                ("operands", format!("{q}×{d} as f32")),
                ("threads", self.threads.count().to_string()),
            ],
            notes: vec![],
        })
    }

    fn upload(&self, documents: &Documents<'_>, normalized: bool) -> Result<Resident> {
        documents::upload(self, documents, normalized)
    }

    fn submit(&self, op: &Op<'_>, cancel: &Cancel) -> Submission {
        Submission::ready(self.run(op, cancel))
    }
}

#[cfg(target_os = "linux")]
fn device_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

#[cfg(not(target_os = "linux"))]
fn device_name() -> String {
    std::env::consts::ARCH.into()
}
