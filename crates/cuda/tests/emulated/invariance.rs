//! A score depends on its query and its document alone, bit for bit: whatever tile they share, whatever else is scored.

use maxsim_core::{DType, Forward, Options};
use maxsim_testkit::cases::{Batch, Layout, Random, Spec, Values};
use maxsim_testkit::compare;

use crate::{engine, paths, score};

fn packed(random: &mut Random, lengths: &[u32], dtype: DType, dim: usize, query: bool) -> Batch {
    let mut offsets = vec![0];
    for length in lengths {
        offsets.push(offsets[offsets.len() - 1] + length);
    }
    let layout = Layout::Packed { offsets };
    Batch::generate(random, &Spec { layout, dim, dtype, values: Values::Normal, query, keep: None })
}

/// Queries from one row to more than a tile, documents from none to several tiles: all together, and every pair on its own.
#[test]
fn batch_mates_do_not_show() {
    let mut random = Random::named("cuda invariance");
    for (dtype, dim) in
        [(DType::BF16, 40), (DType::F32, 24), (DType::I8, 48), (DType::E4M3, 32), (DType::F16, 144)]
    {
        let q = packed(&mut random, &[5, 32, 0, 70, 300], dtype, dim, true);
        let d = packed(&mut random, &[3, 0, 150, 64, 129, 1], dtype, dim, false);
        for normalize in [false, true] {
            let options = Options { normalize, argmax: true, ..Options::default() };
            let together = Forward::maxsim(q.tokens(), d.tokens(), options);
            for path in paths() {
                let engine = engine(path);
                let all = score(&engine, &together);
                let winners = all.argmax.as_ref().expect("asked for");
                for i in 0..q.count() {
                    for j in 0..d.count() {
                        let (one, other) = (q.select(&[i]), d.select(&[j]));
                        let alone = score(&engine, &Forward::maxsim(one.tokens(), other.tokens(), options));
                        let pair = i * d.count() + j;
                        let context = format!("{path} {dtype} normalize={normalize} query {i} document {j}");
                        compare::same_bits("score", &[1], &alone.values, &all.values[pair..=pair])
                            .assert(&context);
                        assert_eq!(alone.argmax.expect("asked for").values, winners.pair(pair), "{context}");
                    }
                }
            }
        }
    }
}

/// The same pairs as a cross product and as a list in another order.
#[test]
fn lists_and_cross_products_agree() {
    let mut random = Random::named("cuda lists");
    let q = packed(&mut random, &[32, 9, 200], DType::BF16, 64, true);
    let d = packed(&mut random, &[40, 131, 7, 260], DType::BF16, 64, false);
    for path in paths() {
        let engine = engine(path);
        let all = score(&engine, &Forward::maxsim(q.tokens(), d.tokens(), Options::default()));
        let order = random.order(24);
        let q_idx: Vec<u32> = order.iter().map(|&p| (p % 12 / 4) as u32).collect();
        let d_idx: Vec<u32> = order.iter().map(|&p| (p % 4) as u32).collect();
        let expected: Vec<f32> = order.iter().map(|&p| all.values[p % 12]).collect();
        let list = Forward::score_pairs(q.tokens(), d.tokens(), q_idx, d_idx, Options::default()).unwrap();
        compare::same_bits("scores", &[24], &score(&engine, &list).values, &expected).assert(path);
    }
}

/// Chunks of documents do not change hits.
#[test]
fn chunks_do_not_show() {
    use maxsim_core::RetrieveOptions;
    let mut random = Random::named("cuda chunks");
    let q = packed(&mut random, &[32, 9], DType::F16, 32, true);
    let lengths: Vec<u32> = (0..40).map(|_| random.below(20) as u32).collect();
    let d = packed(&mut random, &lengths, DType::F16, 32, false);
    for path in paths() {
        let engine = engine(path);
        for (top_k, largest) in [(5, true), (5, false), (40, true), (100, true)] {
            let options = |chunk| RetrieveOptions { chunk, largest, ..RetrieveOptions::top_k(top_k) };
            let whole = engine.retrieve(q.tokens(), d.tokens(), options(None)).unwrap();
            for chunk in [1, 7, 39] {
                let chunked = engine.retrieve(q.tokens(), d.tokens(), options(Some(chunk))).unwrap();
                assert_eq!(chunked, whole, "{path} top {top_k} in chunks of {chunk}");
            }
        }
    }
}
