//! One engine used from several threads, and calls that are stopped.

use std::time::{Duration, Instant};

use maxsim::{Cancel, CorpusOptions, CpuLevel, Forward, Options, RetrieveOptions, SearchOptions, Tokens};
use maxsim_testkit::cases::Random;
use maxsim_testkit::cases::forward::{Case, Family, Params};
use maxsim_testkit::devices;
use maxsim_tests::score;

/// Different calls at the same time on one engine give what they give alone.
#[test]
fn calls_do_not_disturb_each_other() {
    let mut random = Random::named("concurrency");
    let cases: Vec<Case> = [1, 3, 17]
        .into_iter()
        .flat_map(|queries| {
            let params = Params {
                queries,
                documents: 30,
                query_len: 20,
                document_len: 40,
                dim: 48,
                ..Params::default()
            };
            [Family::Dense, Family::Varlen, Family::ScorePairs]
                .map(|family| Case::generate("concurrent", family, params, &mut random))
        })
        .collect();
    for device in maxsim_tests::devices() {
        let alone: Vec<_> = cases.iter().map(|case| score(&device.engine, &case.op())).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (engine, cases, alone) = (device.engine.clone(), &cases, &alone);
                scope.spawn(move || {
                    for turn in 0..2 * cases.len() {
                        let i = (turn + thread) % cases.len();
                        assert_eq!(score(&engine, &cases[i].op()), alone[i], "{}", cases[i].name);
                    }
                });
            }
        });
    }
}

/// A corpus is shared by threads, and outlives the engine it came from.
#[test]
fn a_corpus_is_shared() {
    let params = Params { documents: 50, ..Params::default() };
    let case = Case::generate("shared", Family::Varlen, params, &mut Random::named("shared"));
    for device in maxsim_tests::devices() {
        let engine = device.engine.clone();
        let corpus = engine.corpus(case.d.tokens(), CorpusOptions::default()).unwrap();
        drop(engine);
        let search = || corpus.search(case.q.tokens(), SearchOptions::top_k(5)).unwrap();
        let alone = search();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| assert_eq!(search(), alone)));
            }
        });
    }
}

/// Once cancelled, every call stops at once; other handles of the engine go on.
#[test]
fn a_cancelled_handle_does_nothing() {
    let case = Case::generate("cancel", Family::Dense, Params::default(), &mut Random::named("cancel"));
    let (q, d) = (case.q.tokens(), case.d.tokens());
    for device in maxsim_tests::devices() {
        let cancel = Cancel::new();
        let engine = device.engine.with_cancel(cancel.clone());
        let corpus = engine.corpus(d.clone(), CorpusOptions::default()).unwrap();
        assert!(engine.maxsim(q.clone(), d.clone(), Options::default()).is_ok());
        cancel.cancel();
        let results = [
            engine.maxsim(q.clone(), d.clone(), Options::default()).map(drop),
            engine.score_pairs(q.clone(), d.clone(), &[0u32], &[0u32], Options::default()).map(drop),
            engine.retrieve(q.clone(), d.clone(), RetrieveOptions::top_k(1)).map(drop),
            corpus.search(q.clone(), SearchOptions::top_k(1)).map(drop),
            corpus.score(q.clone(), Options::default()).map(drop),
        ];
        for result in results {
            assert_eq!(result.unwrap_err().code().as_str(), "ERR_ABORTED");
        }
        assert!(device.engine.maxsim(q.clone(), d.clone(), Options::default()).is_ok());
        assert!(corpus.with_cancel(Cancel::new()).search(q.clone(), SearchOptions::top_k(1)).is_ok());
    }
}

/// Work under way stops long before it would be done.
#[test]
fn work_under_way_is_stopped() {
    let (dim, q_len, d_len, documents) = (128, 32, 64, 2000);
    let q = vec![0.01f32; 64 * q_len * dim];
    let d = vec![0.01f32; documents * d_len * dim];
    for threads in [1, 2] {
        // The slowest level, so that there is time to stop it.
        let device = devices::cpu(CpuLevel::Generic, threads);
        let op = |queries: usize| {
            let q = Tokens::padded(&q[..queries * q_len * dim], &[queries, q_len, dim]).unwrap();
            Forward::maxsim(q, Tokens::padded(&d, &[documents, d_len, dim]).unwrap(), Options::default())
        };
        let start = Instant::now();
        score(&device.engine, &op(1));
        let whole = start.elapsed() * 64;

        let cancel = Cancel::new();
        let engine = device.engine.with_cancel(cancel.clone());
        let delay = whole / 20;
        let start = Instant::now();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(delay);
                cancel.cancel();
            });
            engine.run(&maxsim::Op::Forward(op(64)))
        });
        let took = start.elapsed();
        assert_eq!(result.unwrap_err().code().as_str(), "ERR_ABORTED");
        // Generous: other work may slow the machine down, but never by the nineteen twentieths that were left.
        assert!(took < whole / 2 + Duration::from_millis(200), "{took:?} of {whole:?}");
    }
}
