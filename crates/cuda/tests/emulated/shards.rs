//! One corpus on several logical devices.

use std::sync::Arc;

use maxsim_core::{Backend, CorpusOptions, DType, Engine, Options, SearchOptions, Tokens};
use maxsim_cuda::{Path, ShardedBackend};
use maxsim_testkit::cases::Random;

use crate::{backend, engine};

#[test]
fn shards_give_the_bits_of_one_device() {
    let mut random = Random::named("shards");
    let dim = 16;
    let lengths: Vec<u32> = (0..23).map(|_| random.below(30) as u32).collect();
    let mut offsets = vec![0u32];
    for length in &lengths {
        offsets.push(offsets[offsets.len() - 1] + length);
    }
    let mut values = |rows: usize| -> Vec<f32> { (0..rows * dim).map(|_| random.normal()).collect() };
    let (d, q) = (values(offsets[23] as usize), values(2 * 9));
    let documents = || Tokens::packed(&d, dim, &offsets).unwrap();
    let queries = || Tokens::padded(&q, &[2, 9, dim]).unwrap();
    let options = CorpusOptions { storage: Some(DType::F16), ..CorpusOptions::default() };
    let alone = engine(Path::Sm80).corpus(documents(), options).unwrap();
    let scoring = Options { argmax: true, ..Options::default() };
    for count in [1, 2, 3, 40] {
        let shards: Vec<Arc<dyn Backend>> = (0..count).map(|_| Arc::new(backend(Path::Sm80)) as _).collect();
        let sharded = Engine::new(vec![Arc::new(ShardedBackend::new(shards).unwrap())]).unwrap().silent();
        let corpus = sharded.corpus(documents(), options).unwrap();
        assert_eq!(
            corpus.score(queries(), scoring).unwrap(),
            alone.score(queries(), scoring).unwrap(),
            "{count}"
        );
        for top_k in [1, 7, 100] {
            let search = SearchOptions::top_k(top_k).with_explain();
            assert_eq!(
                corpus.search(queries(), search).unwrap(),
                alone.search(queries(), search).unwrap(),
                "{count}"
            );
        }
    }
    assert!(ShardedBackend::new(vec![]).is_err());
}
