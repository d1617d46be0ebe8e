//! A score depends on its query and its document alone, bit for bit: not on batch-mates, padding, order, chunks, threads or
//! the operator that asked for it.

use maxsim::{DType, Forward, Options, RetrieveOptions, Scores};
use maxsim_testkit::cases::forward::{Case, Family, Params};
use maxsim_testkit::cases::{Arrangement, Batch, Random, Values};
use maxsim_testkit::compare;
use maxsim_testkit::devices;
use maxsim_tests::score;
use proptest::prelude::*;

/// A batch of packed queries and documents, described so that proptest can shrink it.
#[derive(Debug, Clone)]
struct Input {
    seed: u64,
    params: Params,
}

impl Input {
    fn case(&self) -> Case {
        Case::generate("input", Family::Varlen, self.params, &mut Random::new(self.seed))
    }
}

fn inputs() -> impl Strategy<Value = Input> {
    let sizes = (1usize..4, 1usize..9, 0usize..70, 0usize..40, 1usize..140);
    let kinds = (
        proptest::sample::select(DType::ALL.to_vec()),
        proptest::sample::select(DType::ALL.to_vec()),
        proptest::sample::select(vec![Values::Normal, Values::Uneven, Values::Repeated, Values::NonFinite]),
        any::<bool>(),
    );
    (any::<u64>(), sizes, kinds).prop_map(|(seed, sizes, (q, d, values, normalize))| {
        let (queries, documents, query_len, document_len, dim) = sizes;
        // Quantised types cannot hold what is not finite.
        let values = if q.is_quantized() || d.is_quantized() { Values::Uneven } else { values };
        let params = Params {
            queries,
            documents,
            query_len,
            document_len,
            dim,
            dtypes: (q, d),
            values,
            normalize,
            holes: true,
        };
        Input { seed, params }
    })
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

/// Winners and scores of the cross product.
fn cross(engine: &maxsim::Engine, q: &Batch, d: &Batch, options: Options) -> Scores {
    score(engine, &Forward::maxsim(q.tokens(), d.tokens(), options))
}

/// Fails unless pair `(i, j)` of `got` is pair `of(i, j)` of `full`, in bits of the score and in winners.
fn check_pairs(
    context: &str,
    got: &Scores,
    full: &Scores,
    shape: [usize; 2],
    of: impl Fn(usize, usize) -> usize,
) -> Result<(), TestCaseError> {
    for i in 0..shape[0] {
        for j in 0..shape[1] {
            let (own, other) = (i * shape[1] + j, of(i, j));
            let (a, b) = (got.values[own], full.values[other]);
            prop_assert!(a.to_bits() == b.to_bits(), "{context}: pair {i},{j}: {a:e} {b:e}");
            if let (Some(a), Some(b)) = (&got.argmax, &full.argmax) {
                let (a, b) = (a.pair(own), b.pair(other));
                // Padding adds rows without a winner behind the others.
                let common = a.len().min(b.len());
                prop_assert_eq!(&a[..common], &b[..common], "{}: winners of pair {},{}", context, i, j);
                prop_assert!(
                    a[common..].iter().chain(&b[common..]).all(|&w| w == -1),
                    "{context}: padding wins"
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    /// Any selection of the documents and of the queries, repeats included, in any order.
    #[test]
    fn batch_mates_and_order(input in inputs(), seed in any::<u64>()) {
        let case = input.case();
        let (queries, documents) = (input.params.queries, input.params.documents);
        let mut random = Random::new(seed);
        let rows: Vec<usize> = (0..1 + random.below(3)).map(|_| random.below(queries)).collect();
        let columns: Vec<usize> = (0..1 + random.below(12)).map(|_| random.below(documents)).collect();
        let permutation = random.order(documents);
        let every: Vec<usize> = (0..queries).collect();
        for device in maxsim_tests::devices() {
            let full = cross(&device.engine, &case.q, &case.d, case.options);
            for (rows, columns) in [(&rows, &columns), (&every, &permutation)] {
                let got = cross(&device.engine, &case.q.select(rows), &case.d.select(columns), case.options);
                let shape = [rows.len(), columns.len()];
                check_pairs(&device.name, &got, &full, shape, |i, j| rows[i] * documents + columns[j])?;
            }
        }
    }

    /// Packed, padded by lengths, padded by a mask; by any amount, on either side.
    #[test]
    fn padding(input in inputs(), more in (0usize..50, 0usize..50)) {
        let case = input.case();
        let (q_len, d_len) = (input.params.query_len + more.0, input.params.document_len + more.1);
        let shape = [input.params.queries, input.params.documents];
        let arrangements = |batch: &Batch, len: usize| {
            [Arrangement::Packed, Arrangement::Lengths(len), Arrangement::Masked(len)]
                .map(|arrangement| batch.arranged(&batch.sequences(), arrangement))
        };
        let (queries, documents) = (arrangements(&case.q, q_len), arrangements(&case.d, d_len));
        for device in maxsim_tests::devices() {
            let full = cross(&device.engine, &case.q, &case.d, case.options);
            for (a, q) in queries.iter().enumerate() {
                for (b, d) in documents.iter().enumerate() {
                    let got = cross(&device.engine, q, d, case.options);
                    let context = format!("{} arrangements {a} {b}", device.name);
                    check_pairs(&context, &got, &full, shape, |i, j| i * shape[1] + j)?;
                }
            }
        }
    }

    /// Pair lists, KD, pairs and padded reranking give the cross product's bits.
    #[test]
    fn operators(input in inputs(), seed in any::<u64>()) {
        let case = input.case();
        let [queries, documents] = [input.params.queries, input.params.documents];
        let mut random = Random::new(seed);
        let list: Vec<(usize, usize)> =
            (0..20).map(|_| (random.below(queries), random.below(documents))).collect();
        let (q_idx, d_idx): (Vec<usize>, Vec<usize>) = list.iter().copied().unzip();
        // Every query with every document, as candidates of its own.
        let repeated: Vec<usize> = (0..queries).flat_map(|_| 0..documents).collect();
        let len = input.params.document_len;
        let kd = case.d.select(&repeated);
        let kd = kd.arranged(&kd.sequences(), Arrangement::Lengths(len));
        for device in maxsim_tests::devices() {
            let engine = &device.engine;
            let full = cross(engine, &case.q, &case.d, case.options);

            let op = Forward::score_pairs(case.q.tokens(), case.d.tokens(), &q_idx, &d_idx, case.options);
            let got = score(engine, &op.unwrap());
            check_pairs(&device.name, &got, &full, [1, list.len()], |_, p| list[p].0 * documents + list[p].1)?;

            let (pair_q, pair_d) = (case.q.select(&q_idx), case.d.select(&d_idx));
            let got = score(engine, &Forward::pairs(pair_q.tokens(), pair_d.tokens(), case.options));
            check_pairs(&device.name, &got, &full, [1, list.len()], |_, p| list[p].0 * documents + list[p].1)?;

            let mut grid = kd.clone();
            if let maxsim_testkit::cases::Layout::Padded { shape, .. } = &mut grid.layout {
                *shape = vec![queries, documents, len];
            }
            let got = score(engine, &Forward::maxsim(case.q.tokens(), grid.tokens(), case.options));
            prop_assert_eq!(&got.shape, &[queries, documents]);
            check_pairs(&device.name, &got, &full, [queries, documents], |i, j| i * documents + j)?;
        }
    }

    /// Sub-batches of a corpus scored one after another, and any chunk of `retrieve`.
    #[test]
    fn sub_batches_and_chunks(input in inputs(), cut in 0usize..9, chunk in 1usize..9) {
        let case = input.case();
        let documents = input.params.documents;
        let cut = cut.min(documents);
        let options = Options { argmax: false, ..case.options };
        for device in maxsim_tests::devices() {
            let full = cross(&device.engine, &case.q, &case.d, options);
            let d = case.d.tokens();
            for range in [0..cut, cut..documents] {
                let part = d.slice(range.clone());
                let got = score(&device.engine, &Forward::maxsim(case.q.tokens(), part, options));
                let shape = [input.params.queries, range.len()];
                check_pairs(&device.name, &got, &full, shape, |i, j| i * documents + range.start + j)?;
            }
            let options = RetrieveOptions { chunk: Some(chunk), scoring: options, ..RetrieveOptions::top_k(documents) };
            let got = device.engine.retrieve(case.q.tokens(), d.clone(), options).unwrap();
            for i in 0..input.params.queries {
                for (document, value) in got.hits(i) {
                    let expected = full.values[i * documents + document as usize];
                    prop_assert_eq!(value.to_bits(), expected.to_bits(), "{}", &device.name);
                }
            }
        }
    }

    /// One thread or two, of every level, and the same call again.
    #[test]
    fn threads_and_repetition(input in inputs()) {
        let case = input.case();
        for pair in maxsim_tests::cpu_devices().chunks(2) {
            let results: Vec<Scores> =
                pair.iter().chain(pair).map(|device| cross(&device.engine, &case.q, &case.d, case.options)).collect();
            for other in &results[1..] {
                let same = compare::same_bits("scores", &other.shape, &other.values, &results[0].values);
                prop_assert!(same.passed(), "{} {}: {}", &pair[0].name, &pair[1].name, same.text());
                prop_assert_eq!(&other.argmax, &results[0].argmax);
            }
        }
    }
}

/// `threads_and_repetition` compares neighbours in the list of devices.
#[test]
fn devices_come_in_pairs_of_one_level() {
    for pair in maxsim_tests::cpu_devices().chunks(2) {
        let [one, two] = pair else { panic!("an odd device: {}", pair[0].name) };
        let (a, b) = (one.engine.info(), two.engine.info());
        assert_eq!((&a.level, a.threads, b.threads), (&b.level, 1, 2));
    }
}

/// Queries too large for one pass, alone and in company, with few documents and with many: all the ways a backend may share
/// the work out.
#[test]
fn large_queries() {
    let mut random = Random::named("large queries");
    let params =
        Params { queries: 3, documents: 20, query_len: 700, document_len: 2, dim: 1600, ..Params::default() };
    let case = Case::generate("large", Family::Varlen, params, &mut random);
    for level in [maxsim::CpuLevel::available().next().unwrap(), maxsim::CpuLevel::Generic] {
        let full = cross(&devices::cpu(level, 1).engine, &case.q, &case.d, case.options);
        for threads in [1, 2, 3, 7] {
            let device = devices::cpu(level, threads);
            for (rows, columns) in
                [(vec![0, 1, 2], (0..20).collect()), (vec![2], vec![7]), (vec![1, 2], vec![3, 0])]
            {
                let columns: Vec<usize> = columns;
                let got =
                    cross(&device.engine, &case.q.select(&rows), &case.d.select(&columns), case.options);
                let shape = [rows.len(), columns.len()];
                check_pairs(&device.name, &got, &full, shape, |i, j| rows[i] * 20 + columns[j]).unwrap();
            }
        }
    }
}
