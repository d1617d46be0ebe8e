//! The kernels' text, run on the host, against the float64 reference.
//!
//! Every case of the test kit's sweeps, for every family of kernels; what the emulator can and cannot see is told in
//! `kernels/emulator/runtime.hpp`.

mod calls;
mod forward;
mod golden;
mod head;
#[path = "../host/mod.rs"]
mod host;
mod invariance;
mod measure;
mod plaid;
mod residual;
mod shards;

use std::path::PathBuf;
use std::sync::Arc;

use maxsim_core::{Engine, Op, Output, Scores};
use maxsim_cuda::{CudaBackend, Path};

/// A backend over the emulator; compiled kernels are kept between runs.
fn backend(path: Path) -> CudaBackend {
    CudaBackend::emulated(path, &folder())
}

/// Where compiled kernels are kept.
fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    std::fs::create_dir_all(&folder).expect("cargo's folder for tests");
    folder
}

fn engine(path: Path) -> Engine {
    Engine::new(vec![Arc::new(backend(path))]).expect("one backend").silent()
}

fn score(engine: &Engine, op: &maxsim_core::Forward<'_>) -> Scores {
    match engine.run(&Op::Forward(op.clone())) {
        Ok(Output::Scores(scores)) => scores,
        other => panic!("{other:?}"),
    }
}

/// Families of kernels to test: the two that everything else is part of; `MAXSIM_CUDA_ARCH` names another.
fn paths() -> Vec<Path> {
    match std::env::var("MAXSIM_CUDA_ARCH") {
        Ok(name) => vec![name.parse().expect("a path")],
        Err(_) => vec![Path::Sm90, Path::Sm80],
    }
}

/// All families, unless one is named.
fn all_paths() -> Vec<Path> {
    if std::env::var_os("MAXSIM_CUDA_ARCH").is_some() { paths() } else { Path::ALL.to_vec() }
}
