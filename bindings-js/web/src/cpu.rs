//! The CPU's backend.

use std::sync::Arc;

use maxsim_core::{Engine, Result};
use maxsim_cpu::{CpuBackend, CpuOptions};

use crate::read::RawEngineOptions;

/// An engine on it.
pub(crate) fn engine(options: &RawEngineOptions) -> Result<Engine> {
    let threads = options.threads().map(maxsim_js::threads).transpose()?;
    let level = options.cpu_level().as_deref().map(str::parse).transpose()?;
    Engine::new(vec![Arc::new(CpuBackend::new(CpuOptions { level, threads })?)])
}
