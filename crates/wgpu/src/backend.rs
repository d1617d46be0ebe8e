//! The GPU as a [`Backend`].

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "store")]
use maxsim_core::Tokens;
use maxsim_core::{
    Backend, BackendInfo, BackendKind, Cancel, DType, Documents, Op, Plan, Resident, ResidentMeta, Result,
    Submission,
};
#[cfg(feature = "plaid")]
use maxsim_core::{Codec, IndexMeta, ResidentIndex, plaid::Segment};

#[cfg(feature = "residual")]
use crate::approx::approx_score;
#[cfg(feature = "gradients")]
use crate::backward::backward;
use crate::device::{Gpu, WgpuOptions};
use crate::forward::forward;
#[cfg(feature = "gradients")]
use crate::head::{from_hidden, from_hidden_backward};
#[cfg(feature = "plaid")]
use crate::plaid::{Index, plaid_search};
use crate::plan;
use crate::retrieve::retrieve;
use crate::rows::Held;
#[cfg(feature = "store")]
use crate::store::store;

/// Scores on a GPU through wgpu.
pub struct WgpuBackend {
    gpu: Arc<Gpu>,
    info: BackendInfo,
}

impl WgpuBackend {
    /// Opens the GPU. Browsers can only wait asynchronously; elsewhere `pollster::block_on` does.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` without an adapter, or for a tier it does not run; `ERR_VALUE` for an unknown adapter or tier.
    pub async fn new(options: WgpuOptions) -> Result<Self> {
        let (gpu, facts) = Gpu::open(&options).await?;
        let info = BackendInfo {
            kind: BackendKind::Wgpu,
            device: [&facts.name, " (", &facts.api, ")"].concat(),
            level: gpu.caps.tier.name().into(),
            levels: facts.tiers.iter().map(|tier| tier.name().into()).collect(),
            threads: 0,
        };
        Ok(Self { gpu: Arc::new(gpu), info })
    }

    /// Kernel variants compiled so far.
    pub fn compilations(&self) -> usize {
        self.gpu.pipelines.count()
    }

    /// Gives the device and all its memory back now. Later calls, of documents it held too, return `ERR_DEVICE_LOST`.
    pub fn destroy(&self) {
        self.gpu.device.destroy();
        // Elsewhere than in browsers, somebody has to ask before the loss is told.
        let _ = self.gpu.device.poll(wgpu::PollType::Poll);
    }

    /// Bytes of device memory held, scratch kept for reuse included.
    pub fn memory_used(&self) -> u64 {
        self.gpu.memory.used()
    }

    fn start(&self, op: &Op<'_>, cancel: &Cancel) -> Result<Submission> {
        match op {
            Op::Forward(op) => forward(&self.gpu, op, cancel),
            Op::Retrieve(op) => retrieve(&self.gpu, op, cancel),
            #[cfg(feature = "gradients")]
            Op::Backward(op) => backward(&self.gpu, op, cancel),
            #[cfg(feature = "gradients")]
            Op::FromHidden(op) => from_hidden(&self.gpu, op, cancel),
            #[cfg(feature = "gradients")]
            Op::FromHiddenBackward(op) => from_hidden_backward(&self.gpu, op, cancel),
            #[cfg(feature = "plaid")]
            Op::PlaidSearch(op) => plaid_search(&self.gpu, op, cancel),
            #[cfg(feature = "residual")]
            Op::ApproxScore(op) => approx_score(&self.gpu, op, cancel),
            other => Err(plan::unsupported(other)),
        }
    }
}

impl Backend for WgpuBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn plan(&self, op: &Op<'_>) -> Result<Plan> {
        self.gpu.faults.check_lost()?;
        plan::explain(op, &self.gpu.caps)
    }

    fn prepare(&self, q: DType, d: DType) -> Result<()> {
        self.gpu.faults.check_lost()?;
        plan::variants(q, d, &self.gpu.caps).iter().try_for_each(|v| self.gpu.pipeline(v).map(drop))
    }

    fn prepare_op(&self, op: &Op<'_>) -> Result<()> {
        self.gpu.faults.check_lost()?;
        plan::variants_of(op, &self.gpu.caps)?.iter().try_for_each(|v| self.gpu.pipeline(v).map(drop))
    }

    fn device_time(&self) -> Option<Duration> {
        Some(self.gpu.clock.as_ref()?.take())
    }

    fn upload(&self, documents: &Documents<'_>, normalized: bool) -> Result<Resident> {
        self.gpu.faults.check_lost()?;
        let held = match documents {
            Documents::Resident(resident) => return Ok((*resident).clone()),
            Documents::Tokens(tokens) => Held::upload(&self.gpu, tokens, true)?,
            #[cfg(feature = "residual")]
            Documents::Residual(residual) => Held::upload_residual(&self.gpu, residual, true)?,
            _ => {
                return Err(maxsim_core::Error::Unsupported {
                    what: "documents of a new kind on wgpu".into(),
                    hint: "use the cpu backend".into(),
                });
            }
        };
        let mut meta = ResidentMeta::of(documents, BackendKind::Wgpu, normalized);
        meta.bytes = held.bytes;
        Ok(Resident::new(meta, held))
    }

    #[cfg(feature = "store")]
    fn upload_as(&self, documents: &Tokens<'_>, normalize: bool, storage: DType) -> Option<Result<Resident>> {
        if !self.gpu.converts {
            return None;
        }
        Some(self.gpu.faults.check_lost().and_then(|()| store(&self.gpu, documents, normalize, storage)))
    }

    #[cfg(feature = "plaid")]
    fn upload_index(&self, codec: &Codec<'_>, segments: &[&Segment]) -> Result<ResidentIndex> {
        self.gpu.faults.check_lost()?;
        let index = Index::upload(&self.gpu, codec, segments, true)?;
        let mut meta = IndexMeta::of(codec, segments, BackendKind::Wgpu);
        meta.bytes = index.held.bytes;
        Ok(ResidentIndex::new(meta, Arc::new(index)))
    }

    fn submit(&self, op: &Op<'_>, cancel: &Cancel) -> Submission {
        self.start(op, cancel).unwrap_or_else(|error| Submission::ready(Err(error)))
    }
}
