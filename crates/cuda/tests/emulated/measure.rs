//! Recording and repeating work, memory, and the number of kernels.

use maxsim_core::{Backend, Backward, DType, Documents, Forward, Op, Options, Retrieve, RetrieveOptions};
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

/// Calls of one type and dimension, whatever their sizes, lengths, masks and options, take few kernels: nobody waits for a compiler
/// because a batch has another size.
#[test]
fn shapes_and_options_make_few_kernels() {
    let backend = backend(Path::Sm90);
    let mut random = Random::named("shapes");
    let mut loaded = Vec::new();
    for i in 0..200 {
        let family = Family::ALL[random.below(Family::ALL.len())];
        let longest = if random.chance(0.2) { 150 } else { 20 };
        let params = Params {
            queries: 1 + random.below(6),
            documents: 1 + random.below(6),
            query_len: 1 + random.below(longest),
            document_len: 1 + random.below(40),
            dim: 64,
            dtypes: (DType::BF16, DType::BF16),
            normalize: random.chance(0.5),
            holes: random.chance(0.5),
            ..Params::default()
        };
        let case = Case::generate("shapes", family, params, &mut random);
        let mut forward = case.op();
        forward.options.argmax = random.chance(0.5);
        let grad: Vec<f32> = (0..forward.pair_count()).map(|_| random.normal()).collect();
        let op = match random.below(4) {
            0 => Op::Backward(Backward::new(forward, &grad)),
            1 if family == Family::Dense => {
                let scoring = Options { argmax: false, ..forward.options };
                let options = RetrieveOptions { scoring, ..RetrieveOptions::top_k(1 + random.below(9)) };
                Op::Retrieve(Retrieve::new(forward.q, forward.d, options))
            }
            _ => Op::Forward(forward),
        };
        op.validate().unwrap();
        backend.submit(&op, &Default::default()).wait().unwrap_or_else(|error| panic!("call {i}: {error}"));
        loaded.push(backend.kernels_loaded());
    }
    println!(
        "kernels after 50, 100, 150 and 200 calls: {:?}",
        [loaded[49], loaded[99], loaded[149], loaded[199]]
    );
    // 16 for scoring (4 heights of tiles × winners × factors) and a few for gradients and selection.
    assert!(loaded[199] <= 32, "{} kernels", loaded[199]);
    assert!(loaded[199] - loaded[99] <= 4, "{} kernels in the second half", loaded[199] - loaded[99]);
}
