//! The engines to test: every level of every backend this machine runs. What it does not run is a skip that says why.

use std::sync::Arc;

use maxsim_core::Engine;
use maxsim_cpu::{CpuBackend, CpuOptions, Level};

/// An engine and what to call it.
#[derive(Clone)]
pub struct Device {
    /// `backend/level/threads`.
    pub name: String,
    /// The engine; it does not warn.
    pub engine: Engine,
}

/// An engine on the CPU.
///
/// # Panics
/// If the machine does not run `level`.
pub fn cpu(level: Level, threads: usize) -> Device {
    let backend = CpuBackend::new(CpuOptions { level: Some(level), threads: Some(threads) })
        .expect("a level that is available");
    let engine = Engine::new(vec![Arc::new(backend)]).expect("one backend").silent();
    Device { name: format!("cpu/{level}/{threads}"), engine }
}

/// Every GPU tier of one adapter, and what cannot be tested with the reason.
///
/// The adapter is the one of `MAXSIM_WGPU_ADAPTER`, else the best; software ones do.
#[cfg(not(target_arch = "wasm32"))]
pub fn gpus() -> (Vec<Device>, Vec<String>) {
    use maxsim_wgpu::{Tier, WgpuBackend, WgpuOptions};
    let (mut devices, mut skipped) = (Vec::new(), Vec::new());
    for tier in Tier::ALL {
        let options = WgpuOptions { tier: Some(tier), ..WgpuOptions::default() };
        match pollster::block_on(WgpuBackend::new(options)) {
            Ok(backend) => {
                let engine = Engine::new(vec![Arc::new(backend)]).expect("one backend").silent();
                devices.push(Device { name: format!("wgpu/{tier}"), engine });
            }
            Err(error) => skipped.push(format!("wgpu/{tier}: {error}")),
        }
    }
    (devices, skipped)
}

/// The CPU's: every level with one thread and with two.
pub fn cpus() -> Vec<Device> {
    Level::available().flat_map(|level| [1, 2].map(|threads| cpu(level, threads))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generic_level_is_always_tested() {
        let names: Vec<String> = cpus().into_iter().map(|device| device.name).collect();
        assert!(
            names.contains(&"cpu/generic/1".into()) && names.contains(&"cpu/generic/2".into()),
            "{names:?}"
        );
    }
}
