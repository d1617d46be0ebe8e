//! Gradients of every scoring form against the float64 oracle, and what they promise whatever the device.

use maxsim::{
    Argmax, Backward, BackwardMethod, CorpusOptions, DType, DataBuf, Forward, Gradients, Options, Tensor,
    Tokens, oracle,
};
use maxsim_testkit::cases::forward::{Case, Family, Params, cases};
use maxsim_testkit::cases::{Random, Values};
use maxsim_testkit::compare;
use maxsim_tests::{devices, score};

/// One gradient per score.
fn grad_of(op: &Forward<'_>, name: &str) -> Vec<f32> {
    let mut random = Random::named(name);
    (0..op.pair_count()).map(|_| random.normal()).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.data().as_ref().to_f32()
}

fn bits(gradients: &Gradients) -> Vec<Vec<u32>> {
    let all = [&gradients.q, &gradients.d];
    all.into_iter().flatten().map(|t| values(t).iter().map(|x| x.to_bits()).collect()).collect()
}

fn check(case: &Case) {
    let op = case.op();
    let grad = grad_of(&op, &case.name);
    for device in devices() {
        let argmax: Argmax = score(&device.engine, &op).argmax.expect("cases ask for winners");
        // The winners of the run itself: where two tokens tie within rounding, both gradients are right.
        let given = Backward { argmax: Some(&argmax), ..Backward::new(op.clone(), &grad) };
        let exact = oracle::backward(&given);
        let got = device.engine.backward(given).expect("gradients");
        let context = format!("{} {}", device.name, case.name);
        for (name, got, exact, tokens) in
            [("grad_Q", &got.q, &exact.q, case.q.tokens()), ("grad_D", &got.d, &exact.d, case.d.tokens())]
        {
            let got = got.as_ref().expect("asked for");
            assert_eq!((got.shape(), got.dtype()), (&tokens.shape()[..], tokens.dtype()), "{context} {name}");
            // Vectors near zero have gradients that f16 cannot hold under `normalize`.
            if got.dtype() == DType::F16 && exact.iter().any(|g| g.abs() > 65504.0) {
                continue;
            }
            compare::gradient(name, got.shape(), &values(got), exact, got.dtype()).assert(&context);
        }
        // Winners recomputed are the same winners, and no method shows in the bits.
        for method in [BackwardMethod::Auto, BackwardMethod::Unified, BackwardMethod::Lowmem] {
            let recomputed = Backward { method, ..Backward::new(op.clone(), &grad) };
            let again = device.engine.backward(recomputed).expect("gradients");
            assert_eq!(bits(&got), bits(&again), "{context} {method:?}");
        }
    }
}

fn check_family(family: Family) {
    let differentiable = |case: &Case| {
        let (q, d) = case.params.dtypes;
        !q.is_quantized() && !d.is_quantized() && case.params.values.is_finite()
    };
    for case in cases(family).iter().filter(|case| differentiable(case)) {
        check(case);
    }
}

#[test]
fn dense() {
    check_family(Family::Dense);
}

#[test]
fn kd() {
    check_family(Family::Kd);
}

#[test]
fn pairs() {
    check_family(Family::Pairs);
}

#[test]
fn varlen() {
    check_family(Family::Varlen);
}

#[test]
fn score_pairs() {
    check_family(Family::ScorePairs);
}

#[test]
fn padded() {
    check_family(Family::Padded);
}

/// KD is the diagonal of the cross product: gradients of the cross product whose other scores have no gradient.
#[test]
fn kd_is_the_diagonal_of_cross() {
    let params = Params { queries: 3, documents: 4, normalize: true, ..Params::default() };
    let case = Case::generate("diagonal", Family::Kd, params, &mut Random::named("diagonal"));
    let grad = grad_of(&case.op(), "diagonal");
    let mut sparse = vec![0f32; 3 * 12];
    for (pair, &g) in grad.iter().enumerate() {
        sparse[pair / 4 * 12 + pair] = g;
    }
    for device in devices() {
        let kd = device.engine.backward(Backward::new(case.op(), &grad)).expect("gradients");
        let cross = Forward::maxsim(case.q.tokens(), case.d.tokens().flattened(), case.options);
        let cross = device.engine.backward(Backward::new(cross, &sparse)).expect("gradients");
        assert_eq!(
            values(&kd.q.expect("asked for")),
            values(&cross.q.expect("asked for")),
            "{}",
            device.name
        );
        assert_eq!(
            values(&kd.d.expect("asked for")),
            values(&cross.d.expect("asked for")),
            "{}",
            device.name
        );
    }
}

/// Only the first of equal document tokens has a part in the gradient.
#[test]
fn duplicates_give_to_the_first_only() {
    let (q, d) = ([1f32, 0.0], [0f32, 1.0, 2.0, 0.0, 2.0, 0.0]);
    for device in devices() {
        let op = Forward::maxsim(
            Tokens::padded(&q, &[1, 1, 2]).expect("shape"),
            Tokens::padded(&d, &[1, 3, 2]).expect("shape"),
            Options::default(),
        );
        let gradients = device.engine.backward(Backward::new(op, &[3.0])).expect("gradients");
        assert_eq!(values(&gradients.q.expect("asked for")), [6.0, 0.0]);
        assert_eq!(
            values(&gradients.d.expect("asked for")),
            [0.0, 0.0, 3.0, 0.0, 0.0, 0.0],
            "{}",
            device.name
        );
    }
}

/// A vector shorter than 1e-6 has a gradient of exactly 0 under `normalize`; what cannot win has none either.
#[test]
fn zero_norms_and_losers_have_no_gradient() {
    let q = [0f32, 0.0, 1.0, 0.0];
    let d = [5e-7f32, 0.0, 0.0, 1e-7];
    for device in devices() {
        let op = Forward::maxsim(
            Tokens::padded(&q, &[1, 2, 2]).expect("shape"),
            Tokens::padded(&d, &[1, 2, 2]).expect("shape"),
            Options::normalized(),
        );
        let gradients = device.engine.backward(Backward::new(op, &[1.0])).expect("gradients");
        assert!(values(&gradients.d.expect("asked for")).iter().all(|&g| g == 0.0), "{}", device.name);
        assert_eq!(values(&gradients.q.expect("asked for"))[..2], [0.0, 0.0], "{}", device.name);
    }
    let nan = [f32::NAN; 4];
    for device in devices() {
        let op = Forward::maxsim(
            Tokens::padded(&q, &[1, 2, 2]).expect("shape"),
            Tokens::padded(&nan, &[1, 2, 2]).expect("shape"),
            Options::default(),
        );
        let gradients = device.engine.backward(Backward::new(op, &[1.0])).expect("gradients");
        for gradient in [gradients.q, gradients.d] {
            assert!(values(&gradient.expect("asked for")).iter().all(|&g| g == 0.0), "{}", device.name);
        }
    }
}

/// The same bits whatever the number of threads.
#[test]
fn threads_do_not_show() {
    let params =
        Params { queries: 9, documents: 13, query_len: 17, document_len: 40, dim: 48, ..Params::default() };
    for values in [Values::Normal, Values::Repeated] {
        let case = Case::generate("threads", Family::Dense, Params { values, ..params }, &mut Random::new(3));
        let grad = grad_of(&case.op(), "threads");
        for level in maxsim::CpuLevel::available() {
            let mut all = [1, 2, 3].map(|threads| {
                let engine = maxsim::EngineBuilder::new().cpu_level(level).threads(threads).silent().build();
                let engine = engine.expect("an available level");
                bits(&engine.backward(Backward::new(case.op(), &grad)).expect("gradients"))
            });
            let first = all[0].clone();
            assert!(all.iter_mut().all(|bits| *bits == first), "{level}");
        }
    }
}

#[test]
fn bad_input_is_refused() {
    let (q, d) = (vec![1f32; 2 * 3 * 4], vec![1f32; 3 * 5 * 4]);
    let op = || {
        Forward::maxsim(
            Tokens::padded(&q, &[2, 3, 4]).expect("shape"),
            Tokens::padded(&d, &[3, 5, 4]).expect("shape"),
            Options::default(),
        )
    };
    let int8 = DataBuf::I8(vec![1; 24]);
    for device in devices() {
        let engine = &device.engine;
        let refusal = |backward: Backward<'_>| {
            let error = engine.backward(backward).expect_err("bad input");
            (error.code().as_str(), error.argument().unwrap_or_default().to_owned())
        };
        assert_eq!(refusal(Backward::new(op(), &[1.0; 5])), ("ERR_SHAPE", "grad".into()));
        let mut argmax = op().empty_argmax();
        argmax.values[7] = 5;
        let beyond = Backward { argmax: Some(&argmax), ..Backward::new(op(), &[1.0; 6]) };
        assert_eq!(refusal(beyond), ("ERR_INDEX", "argmax".into()));
        argmax.values.pop();
        let short = Backward { argmax: Some(&argmax), ..Backward::new(op(), &[1.0; 6]) };
        assert_eq!(refusal(short), ("ERR_SHAPE", "argmax".into()));
        let mut quantized = op();
        let scaled = Tokens::padded(&int8, &[2, 3, 4]).expect("shape");
        quantized.q = scaled.with_scales(maxsim::Scales::PerTensor(1.0)).expect("scales");
        assert_eq!(refusal(Backward::new(quantized, &[1.0; 6])), ("ERR_DTYPE", "Q".into()));
        let tokens = Tokens::padded(&d, &[3, 5, 4]).expect("shape");
        let corpus = engine.corpus(tokens, CorpusOptions::default()).expect("a corpus");
        let q = Tokens::padded(&q, &[2, 3, 4]).expect("shape");
        let kept = Forward::maxsim(q, corpus.documents(), Options::default());
        let error = engine.backward(Backward::new(kept, &[1.0; 6])).expect_err("documents of a corpus");
        assert_eq!(error.code().as_str(), "ERR_UNSUPPORTED");
        assert!(error.to_string().contains("corpus") && error.to_string().contains("vectors"), "{error}");
    }
}
