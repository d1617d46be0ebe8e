//! What the emulator's tests check beside kernels, on a GPU: `cargo test -p maxsim-cuda --test hardware -- --ignored`, or the test
//! program alone where there is no cargo. Tests are ignored by default, as most machines have no such GPU.

#[path = "host/mod.rs"]
mod host;

use maxsim_core::{Backend, DType, Documents, Error, Forward, Op, Options, Tokens};
use maxsim_cuda::{CudaBackend, CudaOptions};

fn backend() -> CudaBackend {
    CudaBackend::new(CudaOptions::default()).expect("an NVIDIA GPU with driver and NVRTC")
}

macro_rules! on_a_gpu {
    ($($name:ident),*) => {$(
        #[test]
        #[ignore = "needs an NVIDIA GPU"]
        fn $name() {
            host::$name(&backend());
        }
    )*};
}

on_a_gpu!(graphs, batches, interop, training, foreign_winners, wrong_memory, conversion, out_of_memory);

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn shards() {
    host::shards(&backend);
}

/// Documents on every GPU of the machine, and memory of one that is handed to another.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn several_gpus() {
    let count = CudaBackend::device_count().unwrap();
    if count < 2 {
        println!("one GPU: nothing to compare");
        return;
    }
    let on = |device| CudaBackend::new(CudaOptions { device, ..CudaOptions::default() }).unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    host::shards(&|| on(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % count));
    let (one, other) = (on(0), on(1));
    let memory = other.allocate(1024).unwrap();
    // SAFETY: nothing is done with what is made.
    let error = unsafe { one.borrow(memory.address(), &[16], DType::F32) }.unwrap_err();
    assert!(matches!(&error, Error::Value { got, .. } if got.contains("GPU 1")), "{error}");
}

/// A budget is kept, and what does not fit is an error after which everything works.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn budgets() {
    let backend = CudaBackend::new(CudaOptions { budget: Some(8 << 20), ..CudaOptions::default() }).unwrap();
    let data = vec![0.5f32; 4 << 20];
    let large = Tokens::padded(&data, &[1 << 10, 32, 128]).unwrap();
    let error = backend.upload(&Documents::Tokens(large), false).unwrap_err();
    assert_eq!(error.code().as_str(), "ERR_OUT_OF_MEMORY");
    let small = || Tokens::padded(&data[..1 << 16], &[4, 128, 128]).unwrap();
    let op = Op::Forward(Forward::maxsim(small(), small(), Options::default()));
    backend.submit(&op, &Default::default()).wait().unwrap();
}
