//! What devices limit, refuse and lose: on the adapter this machine has, software or not. Without one, tests print a skip.

use std::sync::Arc;
use std::time::Duration;

use maxsim_core::{
    CorpusOptions, DType, Engine, Error, Forward, Op, Options, Output, RetrieveOptions, Scores,
    SearchOptions, Tokens, oracle,
};
use maxsim_testkit::cases::Random;
use maxsim_testkit::cases::forward::{Case, Family, Params};
use maxsim_testkit::compare;
use maxsim_wgpu::{Tier, WgpuBackend, WgpuOptions};

/// A device and an engine on it.
fn open(options: WgpuOptions) -> Option<(Arc<WgpuBackend>, Engine)> {
    match pollster::block_on(WgpuBackend::new(options)) {
        Ok(backend) => {
            let backend = Arc::new(backend);
            let engine = Engine::new(vec![backend.clone()]).unwrap().silent();
            Some((backend, engine))
        }
        Err(error) => {
            println!("1 skipped: {error}");
            None
        }
    }
}

fn score(engine: &Engine, op: &Forward<'_>) -> Scores {
    match engine.run(&Op::Forward(op.clone())) {
        Ok(Output::Scores(scores)) => scores,
        other => panic!("{other:?}"),
    }
}

fn code<T>(result: maxsim_core::Result<T>) -> &'static str {
    result.err().map_or("ok", |error| error.code().as_str())
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * i % 23) as f32 - 11.0) * 0.125).collect()
}

/// Bindings of a few KiB and forty workgroups per dimension: corpora, queries and results are split, and no bit changes.
#[test]
fn small_limits_split_work() {
    let Some((_, whole)) = open(WgpuOptions::default()) else { return };
    let small =
        WgpuOptions { max_binding: Some(24 << 10), max_workgroups: Some(40), ..WgpuOptions::default() };
    let (_, split) = open(small).unwrap();
    let mut random = Random::named("small limits");
    for family in Family::ALL {
        for (dtype, argmax) in [(DType::F32, false), (DType::F16, true), (DType::I8, true)] {
            let params = Params {
                queries: 3,
                documents: 9,
                query_len: 40,
                document_len: 70,
                dim: 24,
                dtypes: (dtype, dtype),
                normalize: argmax,
                ..Params::default()
            };
            let mut case = Case::generate("split", family, params, &mut random);
            case.options.argmax = argmax;
            let (a, b) = (score(&whole, &case.op()), score(&split, &case.op()));
            compare::same_bits("scores", &a.shape, &b.values, &a.values)
                .assert(format!("{family:?} {dtype}"));
            assert_eq!(a.argmax, b.argmax, "{family:?} {dtype}");
        }
    }
}

/// A document that is larger than a binding is torn apart; a token that is cannot be.
#[test]
fn small_limits_tear_documents() {
    let Some((_, whole)) = open(WgpuOptions::default()) else { return };
    let small = WgpuOptions { max_binding: Some(24 << 10), ..WgpuOptions::default() };
    let (_, split) = open(small).unwrap();
    let (q, d) = (values(3 * 32), values(500 * 32));
    let op = Forward::maxsim(
        Tokens::padded(&q, &[3, 32]).unwrap(),
        Tokens::padded(&d, &[1, 500, 32]).unwrap(),
        Options::normalized().with_argmax(),
    );
    let (a, b) = (score(&whole, &op), score(&split, &op));
    assert_eq!((&a.values, &a.argmax), (&b.values, &b.argmax));
    compare::forward(&op, &b, &oracle::forward(&op), 1e-5, false).assert("torn document");
    let long = values(8000);
    let token = || Tokens::padded(&long, &[1, 8000]).unwrap();
    assert_eq!(code(split.maxsim(token(), token(), Options::default())), "ERR_LIMIT");
    assert_eq!(code(whole.maxsim(token(), token(), Options::default())), "ok");
}

/// Retrieval in pieces: few results (sorted again and again), many (merged), more than two runs fit a binding.
#[test]
fn small_limits_split_retrieval() {
    let Some((_, whole)) = open(WgpuOptions::default()) else { return };
    let small = WgpuOptions { max_binding: Some(24 << 10), ..WgpuOptions::default() };
    let (_, split) = open(small).unwrap();
    let (q, d) = (values(3 * 5 * 8), values(3000 * 2 * 8));
    let (q, d) = (Tokens::padded(&q, &[3, 5, 8]).unwrap(), Tokens::padded(&d, &[3000, 2, 8]).unwrap());
    for top_k in [1, 10, 300, 1500, 3000] {
        let mut options = RetrieveOptions::top_k(top_k);
        options.scoring.argmax = top_k == 10;
        let (a, b) =
            (whole.retrieve(q.clone(), d.clone(), options), split.retrieve(q.clone(), d.clone(), options));
        assert_eq!(a.unwrap(), b.unwrap(), "top {top_k}");
    }
    let d = values(4000);
    let d = Tokens::padded(&d, &[4000, 1, 1]).unwrap();
    let q = Tokens::padded(&[1.0f32], &[1, 1]).unwrap();
    assert_eq!(code(split.retrieve(q, d, RetrieveOptions::top_k(4000))), "ERR_LIMIT");
}

/// More documents than workgroups of one dimension.
#[test]
fn more_documents_than_workgroups() {
    let Some((_, engine)) = open(WgpuOptions::default()) else { return };
    let documents = 66_000;
    let d: Vec<f32> = (0..documents).map(|j| (j % 1013) as f32).collect();
    let q = Tokens::padded(&[2.0f32], &[1, 1]).unwrap();
    let d = Tokens::padded(&d, &[documents, 1, 1]).unwrap();
    let scores = engine.maxsim(q, d, Options::default()).unwrap();
    assert!(scores.values.iter().enumerate().all(|(j, &s)| s == 2.0 * (j % 1013) as f32));
}

/// Beyond the budget is an error that says how much was wanted, and the engine goes on.
#[test]
fn budget() {
    let options = WgpuOptions { memory_budget: Some(1 << 20), ..WgpuOptions::default() };
    let Some((backend, engine)) = open(options) else { return };
    let (small, large) = (values(10 * 8 * 16), values(1000 * 32 * 16));
    let q = || Tokens::padded(&small[..8 * 16], &[8, 16]).unwrap();
    let upload =
        |data: &[f32], shape| engine.corpus(Tokens::padded(data, shape).unwrap(), CorpusOptions::default());
    let corpus = upload(&small, &[10, 8, 16]).unwrap();
    let before = corpus.search(q(), SearchOptions::top_k(3)).unwrap();
    for _ in 0..2 {
        match upload(&large, &[1000, 32, 16]).map(drop) {
            Err(Error::OutOfMemory { requested }) => assert!(requested >= 1000 * 32 * 16 * 4),
            other => panic!("{other:?}"),
        }
        assert_eq!(corpus.search(q(), SearchOptions::top_k(3)).unwrap(), before);
    }
    assert!(backend.memory_used() <= 1 << 20);
    // What is freed can be used again.
    for _ in 0..20 {
        upload(&large[..200 * 32 * 16], &[200, 32, 16]).unwrap();
    }
}

/// 200 calls of random shapes and options compile no more than the variants of their types; after `prepare_for`, none.
#[test]
fn compilations_are_bounded() {
    let (q_type, d_type) = (DType::F16, DType::BF16);
    for prepared in [false, true] {
        let Some((backend, engine)) = open(WgpuOptions::default()) else { return };
        if prepared {
            engine.prepare_for(q_type, d_type).unwrap();
        }
        let before = backend.compilations();
        let mut random = Random::named("compilations");
        for _ in 0..200 {
            let params = Params {
                queries: random.below(4),
                documents: random.below(6),
                query_len: [1, 5, 20, 40, 140][random.below(5)],
                document_len: random.below(40),
                dim: 1 + random.below(40),
                dtypes: (q_type, d_type),
                normalize: random.chance(0.5),
                ..Params::default()
            };
            let family = Family::ALL[random.below(6)];
            let mut case = Case::generate("compilations", family, params, &mut random);
            case.options.argmax = random.chance(0.5);
            score(&engine, &case.op());
            if family == Family::Varlen {
                let mut options = RetrieveOptions::top_k(1 + random.below(8));
                options.chunk = random.chance(0.5).then_some(2);
                options.scoring = case.options;
                engine.retrieve(case.q.tokens(), case.d.tokens(), options).unwrap();
            }
        }
        let compiled = backend.compilations() - before;
        println!("{before} prepared, {compiled} compiled by 200 calls");
        assert!(before <= 16 && compiled <= if prepared { 0 } else { 16 }, "{before} {compiled}");
    }
}

/// A lost device is an error of every call, whoever holds what; a new engine works.
#[test]
fn a_lost_device() {
    let Some((backend, engine)) = open(WgpuOptions::default()) else { return };
    let data = values(4 * 6 * 16);
    let tokens = || Tokens::padded(&data, &[4, 6, 16]).unwrap();
    let corpus = engine.corpus(tokens(), CorpusOptions::default()).unwrap();
    let alone = engine.maxsim(tokens(), tokens(), Options::default()).unwrap();
    backend.destroy();
    assert_eq!(code(engine.maxsim(tokens(), tokens(), Options::default())), "ERR_DEVICE_LOST");
    assert_eq!(code(corpus.search(tokens(), SearchOptions::top_k(2))), "ERR_DEVICE_LOST");
    assert_eq!(code(engine.corpus(tokens(), CorpusOptions::default())), "ERR_DEVICE_LOST");
    drop(corpus);
    let (_, again) = open(WgpuOptions::default()).unwrap();
    assert_eq!(again.maxsim(tokens(), tokens(), Options::default()).unwrap(), alone);
}

/// Tiers and adapters that are not there are named.
#[test]
fn what_is_not_there() {
    let Some((_, engine)) = open(WgpuOptions::default()) else { return };
    let nobody = WgpuOptions { adapter: Some("no such adapter".into()), ..WgpuOptions::default() };
    let error = pollster::block_on(WgpuBackend::new(nobody)).map(drop).unwrap_err();
    assert_eq!((error.code().as_str(), error.argument()), ("ERR_VALUE", Some("adapter")));
    let missing = Tier::ALL.into_iter().find(|tier| !engine.info().levels.contains(&tier.name().to_owned()));
    if let Some(tier) = missing {
        let options = WgpuOptions { tier: Some(tier), ..WgpuOptions::default() };
        let error = pollster::block_on(WgpuBackend::new(options)).map(drop).unwrap_err();
        assert_eq!(error.code().as_str(), "ERR_UNSUPPORTED");
        assert!(error.to_string().contains("portable"), "{error}");
    }
}

/// Plans name kernel, tile and tier; the device's own time is told when it was asked for.
#[test]
fn plans_and_times() {
    let Some((_, engine)) = open(WgpuOptions { timing: true, ..WgpuOptions::default() }) else { return };
    let data = values(4 * 6 * 16);
    let tokens = || Tokens::padded(&data, &[4, 6, 16]).unwrap();
    let op = Op::Forward(Forward::maxsim(tokens(), tokens(), Options::default()));
    let plan = engine.explain(&op).unwrap();
    assert_eq!(plan.kernel, format!("forward/{}", engine.info().level));
    for name in ["kernel", "tile", "operands"] {
        assert!(plan.choices.iter().any(|(choice, _)| *choice == name), "{plan}");
    }
    engine.run(&op).unwrap();
    if let Some(time) = engine.device_time() {
        assert!(time > Duration::ZERO);
        assert_eq!(engine.device_time(), Some(Duration::ZERO), "nothing ran since");
    }
    let (_, untimed) = open(WgpuOptions::default()).unwrap();
    untimed.run(&op).unwrap();
    assert_eq!(untimed.device_time(), None);
}
