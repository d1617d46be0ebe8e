//! The engines to test: every level of every backend this machine runs.

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

/// All of them: every CPU level with one thread and with two.
pub fn devices() -> Vec<Device> {
    Level::available().flat_map(|level| [1, 2].map(|threads| cpu(level, threads))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generic_level_is_always_tested() {
        let names: Vec<String> = devices().into_iter().map(|device| device.name).collect();
        assert!(
            names.contains(&"cpu/generic/1".into()) && names.contains(&"cpu/generic/2".into()),
            "{names:?}"
        );
    }
}
