//! Criterion benchmarks, one group per operator: `cargo bench -p maxsim-benches`. For floors and gaps use `maxsim bench`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use maxsim::{Backward, Forward, FromHidden, Options, RetrieveOptions, TensorRef, Tokens};
use maxsim_benches::Random;

fn operators(c: &mut Criterion) {
    let engine = maxsim::EngineBuilder::new().silent().build().expect("the CPU is always there");
    let mut random = Random::new(1);
    let (nd, lq, ld, d) = (200, 32, 300, 128);
    let (q, documents) = (random.vectors(lq, d), random.vectors(nd * ld, d));
    let grad: Vec<f32> = (0..nd).map(|_| random.value()).collect();
    let q = || Tokens::padded(&q, &[1, lq, d]).expect("shape");
    let tokens = || Tokens::padded(&documents, &[nd, ld, d]).expect("shape");
    let forward = || Forward::maxsim(q(), tokens(), Options::default());
    let mut group = c.benchmark_group(format!("cpu/{}", engine.info().level));
    group.throughput(Throughput::Elements(forward().cost().flops)).sample_size(20);
    group.bench_function("forward", |b| b.iter(|| engine.maxsim(q(), tokens(), Options::default())));
    group.bench_function("retrieve", |b| {
        b.iter(|| engine.retrieve(q(), tokens(), RetrieveOptions::top_k(10)))
    });
    group.bench_function("backward", |b| b.iter(|| engine.backward(Backward::new(forward(), &grad))));
    let (h, w) = (random.vectors(20 * ld, 384), random.vectors(d, 384));
    group.bench_function("from_hidden", |b| {
        b.iter(|| {
            let h = Tokens::padded(&h, &[20, ld, 384]).expect("shape");
            let w = TensorRef::new(&w, &[d, 384]).expect("shape");
            engine.maxsim_from_hidden(FromHidden::new(q(), h, w, None))
        });
    });
    group.finish();
}

criterion_group!(benches, operators);
criterion_main!(benches);
