//! Recording and repeating work, memory, and the number of kernels.

use maxsim_core::{Backend, DType, Documents, Forward, Op, Options};
use maxsim_cuda::Path;
use maxsim_testkit::cases::forward::{Case, Family, Params};
use maxsim_testkit::cases::{Random, Values};

use crate::backend;

/// What is recorded can be repeated: on the emulator it runs the kernels again, on memory that is still theirs.
#[test]
fn work_is_repeated() {
    let backend = backend(Path::Sm80);
    let params = Params { dtypes: (DType::F16, DType::F16), dim: 32, ..Params::default() };
    let case = Case::generate("measure", Family::Dense, params, &mut Random::named("measure"));
    let op = Op::Forward(case.op());
    let measured = backend.measure(&op, 3).unwrap();
    assert_eq!((measured.gpu_us.len(), measured.gpu_clean_us.len(), measured.wall_us.len()), (3, 3, 3));
    assert!(measured.launches >= 1);
    assert!(measured.peak_bytes > 0);
    assert_eq!(backend.memory().0, 0, "everything was given back");
}

/// Documents stay on the device until their handle goes.
#[test]
fn residency_is_accounted() {
    let backend = backend(Path::Sm80);
    let params =
        Params { dtypes: (DType::F16, DType::F16), dim: 32, values: Values::Normal, ..Params::default() };
    let case = Case::generate("resident", Family::Dense, params, &mut Random::named("resident"));
    let resident = backend.upload(&Documents::Tokens(case.d.tokens()), false).unwrap();
    let held = backend.memory().0;
    assert!(held >= resident.meta().bytes && resident.meta().bytes > 0);
    let op = Op::Forward(Forward::maxsim(case.q.tokens(), &resident, Options::default()));
    backend.submit(&op, &Default::default()).wait().unwrap();
    assert_eq!(backend.kernels_loaded(), 1, "sizes and lengths do not make kernels");
    drop(op);
    drop(resident);
    assert!(backend.memory().0 < held);
}
