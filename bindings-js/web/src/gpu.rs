//! The GPU's backend.

use std::sync::Arc;

use maxsim_core::{Engine, Result};
use maxsim_wgpu::{WgpuBackend, WgpuOptions};

use crate::read::RawEngineOptions;

/// An engine on it.
pub(crate) async fn engine(options: &RawEngineOptions) -> Result<Engine> {
    // The GPU has no use for them, but that they are wrong should not depend on who computes.
    options.threads().map(maxsim_js::threads).transpose()?;
    let gpu = WgpuOptions {
        tier: options.gpu_tier().map(|tier| tier.parse()).transpose()?,
        memory_budget: options.gpu_memory().map(|bytes| bytes as u64),
        ..WgpuOptions::default()
    };
    Engine::new(vec![Arc::new(WgpuBackend::new(gpu).await?)])
}
