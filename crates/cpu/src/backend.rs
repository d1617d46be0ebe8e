//! The CPU as a [`Backend`].

use maxsim_core::{
    Backend, BackendInfo, BackendKind, Cancel, Documents, Forward, Op, Output, PlaidIndex, PlaidSearch, Plan,
    Precision, Resident, Result, Submission,
};

use crate::approx::approx_score;
use crate::arch::{Kernels, kernels};
use crate::backward::backward;
use crate::documents::{self, RESIDUAL};
use crate::forward::forward;
use crate::head::{from_hidden, from_hidden_backward};
use crate::integer::is_int8;
use crate::level::Level;
use crate::plaid::plaid_search;
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
            Op::Backward(op) if GRADIENTS => {
                backward(op, self.kernels, &self.threads, cancel).map(Output::Gradients)
            }
            Op::Retrieve(op) if CORPORA => {
                retrieve(op, self.kernels, &self.threads, cancel).map(Output::TopK)
            }
            Op::FromHidden(op) if GRADIENTS => {
                from_hidden(op, self.kernels, &self.threads, cancel).map(Output::Scores)
            }
            Op::FromHiddenBackward(op) if GRADIENTS => {
                from_hidden_backward(op, self.kernels, &self.threads, cancel).map(Output::Gradients)
            }
            Op::ApproxScore(op) if RESIDUAL => {
                approx_score(op, self.kernels, &self.threads, cancel).map(Output::Scores)
            }
            Op::PlaidSearch(op) if PLAID => {
                plaid_search(op, self.kernels, &self.threads, cancel).map(Output::Hits)
            }
            other => Err(unsupported(other)),
        }
    }
}

/// What a page's module may be built without.
const CORPORA: bool = cfg!(feature = "corpora");
const GRADIENTS: bool = cfg!(feature = "gradients");
const PLAID: bool = cfg!(feature = "plaid");

fn unsupported(op: &Op<'_>) -> maxsim_core::Error {
    maxsim_core::Error::Unsupported {
        what: format!("{} on the CPU", op.name()),
        hint: "use another backend".into(),
    }
}

/// Which kernels a scoring operator runs, as a suffix of their name, and what they read.
fn operands(op: &Forward<'_>) -> (&'static str, String) {
    let (q, d) = (op.q.dtype(), op.d.dtype());
    match (op.d.is_residual(), op.options.precision) {
        (true, Precision::Int8) => ("-residual-int8", format!("{q} as int8 × packed residuals as int8")),
        (true, _) => ("-residual", format!("{q}×residuals as f32")),
        (false, _) if is_int8(op) => ("-int8", format!("{q}×{d}")),
        (false, _) => ("", format!("{q}×{d} as f32")),
    }
}

/// The same of a search over an index.
fn plaid_operands(op: &PlaidSearch<'_>) -> Result<(&'static str, String)> {
    let PlaidIndex::Host { codec, .. } = &op.index else {
        return Err(maxsim_core::Error::Unsupported {
            what: "an index that a device holds, on the CPU".into(),
            hint: "give the index in host memory".into(),
        });
    };
    let form = if op.options.precision == Precision::Exact || op.options.exact { "" } else { "-int8" };
    Ok((form, format!("{}×{} bit residuals", op.q.dtype(), codec.nbits())))
}

impl Backend for CpuBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn plan(&self, op: &Op<'_>) -> Result<Plan> {
        let scoring = match op {
            Op::Forward(op) => Some(op),
            Op::Backward(op) if GRADIENTS => Some(&op.forward),
            Op::Retrieve(op) if CORPORA => Some(&op.forward),
            _ => None,
        };
        let (form, operands) = match (op, scoring) {
            (_, Some(op)) => operands(op),
            (Op::FromHidden(op), _) if GRADIENTS => ("", format!("{}×{} as f32", op.q.dtype(), op.h.dtype())),
            (Op::FromHiddenBackward(op), _) if GRADIENTS => {
                ("", format!("{}×{} as f32", op.forward.q.dtype(), op.forward.h.dtype()))
            }
            (Op::ApproxScore(op), _) if RESIDUAL => ("", format!("{} table", op.table().dtype())),
            (Op::PlaidSearch(op), _) if PLAID => plaid_operands(op)?,
            (other, _) => return Err(unsupported(other)),
        };
        let wide = self.kernels.vectors * self.kernels.lanes;
        Ok(Plan {
            backend: BackendKind::Cpu,
            kernel: format!("{}/{}{form}", op.name(), self.kernels.level),
            choices: vec![
                ("tile", format!("{wide} query tokens × {} document tokens", self.kernels.rows)),
                ("operands", operands),
                ("threads", self.threads.count().to_string()),
            ],
            notes: vec![],
        })
    }

    fn upload(&self, documents: &Documents<'_>, normalized: bool) -> Result<Resident> {
        if !CORPORA {
            return Err(maxsim_core::Error::Unsupported {
                what: "keeping documents".into(),
                hint: "this module is for indexes".into(),
            });
        }
        documents::upload(self, self.kernels, documents, normalized)
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
