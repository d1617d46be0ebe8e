//! Residual documents on every device, in f32 and as integers, against the float64 oracle.

use maxsim::{
    Codec, DType, DataBuf, Documents, Forward, Op, Options, Output, Precision, Residual, ResidualLayout,
    RetrieveOptions, Scales, Scores, TensorRef, Tokens, f16, oracle,
};
use maxsim_testkit::cases::Random;
use maxsim_testkit::devices::Device;
use maxsim_testkit::{compare, tolerance};
use maxsim_tests::{cpu_devices, devices};

/// Documents that own their parts.
struct Stored {
    centroids: DataBuf,
    dim: usize,
    weights: Vec<f32>,
    nbits: u32,
    layout: ResidualLayout,
    codes: Vec<u32>,
    residuals: Vec<u8>,
    shape: [usize; 2],
    lengths: Vec<u32>,
    inv_norms: Option<DataBuf>,
}

impl Stored {
    fn random(
        random: &mut Random,
        dim: usize,
        nbits: u32,
        layout: ResidualLayout,
        centroids: usize,
        shape: [usize; 2],
    ) -> Self {
        let unit = (dim as f32).sqrt().recip();
        let mut values: Vec<f32> = (0..centroids * dim).map(|_| random.normal()).collect();
        // As codecs are: unit centroids, and residuals that are small beside them. Tokens whose two parts cancel have no
        // accurate integer form (the stated bound says so).
        for centroid in values.chunks_exact_mut(dim) {
            let norm = centroid.iter().map(|x| x * x).sum::<f32>().sqrt();
            centroid.iter_mut().for_each(|x| *x /= norm);
        }
        let weight = |_| (0.3 * random.normal()).clamp(-0.6, 0.6) * unit;
        let mut weights: Vec<f32> = (0..1 << nbits).map(weight).collect();
        weights.sort_by(f32::total_cmp);
        let slots = shape[0] * shape[1];
        let width = (dim * nbits as usize).div_ceil(8);
        let mut lengths: Vec<u32> = (0..shape[0]).map(|_| random.below(shape[1] + 1) as u32).collect();
        if let [first, second, ..] = &mut lengths[..] {
            (*first, *second) = (0, shape[1] as u32);
        }
        Self {
            centroids: DataBuf::F32(values),
            dim,
            weights,
            nbits,
            layout,
            codes: (0..slots).map(|_| random.below(centroids) as u32).collect(),
            residuals: (0..slots * width).map(|_| random.bits() as u8).collect(),
            shape,
            lengths,
            inv_norms: None,
        }
    }

    /// Stores the inverse norms of the decoded tokens, as `dtype`.
    fn with_norms(mut self, dtype: DType) -> Self {
        let mut token = vec![0f32; self.dim];
        let documents = self.documents();
        let norms: Vec<f32> = (0..self.codes.len())
            .map(|row| {
                documents.codec().decode(self.codes[row] as usize, documents.residual(row), &mut token);
                token.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6).recip()
            })
            .collect();
        self.inv_norms = Some(DataBuf::from_f32(&norms, dtype));
        self
    }

    fn documents(&self) -> Residual<'_> {
        let count = self.centroids.len() / self.dim;
        let centroids = TensorRef::new(self.centroids.as_ref(), &[count, self.dim]).unwrap();
        let codec = Codec::new(centroids, &self.weights[..], self.nbits, self.layout).unwrap();
        let documents =
            Residual::padded(codec, &self.codes, &self.residuals, self.shape, &self.lengths).unwrap();
        match &self.inv_norms {
            Some(norms) => documents.with_inv_norms(norms.as_ref()).unwrap(),
            None => documents,
        }
    }
}

fn queries(random: &mut Random, count: usize, len: usize, dim: usize) -> Vec<f32> {
    let unit = (dim as f32).sqrt().recip();
    (0..count * len * dim).map(|_| random.normal() * unit).collect()
}

fn scores(device: &Device, op: &Forward<'_>) -> Scores {
    match device.engine.run(&Op::Forward(op.clone())).unwrap() {
        Output::Scores(scores) => scores,
        other => panic!("{other:?}"),
    }
}

const PRECISIONS: [Precision; 3] = [Precision::Default, Precision::Fast, Precision::Int8];

fn check(op: &Forward<'_>, context: &str) {
    let exact = oracle::forward(op);
    let t = tolerance::residual(op.q.dtype(), op.options.precision, op.q.dim());
    for device in devices() {
        compare::forward(op, &scores(device, op), &exact, t, false)
            .assert(format!("{} {context} {:?}", device.name, op.options));
    }
}

fn options(normalize: bool, precision: Precision) -> Options {
    Options { normalize, precision, argmax: true, ..Options::default() }
}

#[test]
fn every_width_layout_and_dimension() {
    let mut random = Random::named("every_width_layout_and_dimension");
    for dim in [1, 7, 16, 33, 40, 64, 96, 111, 128, 250, 320, 513] {
        for nbits in [1, 2, 4, 8] {
            for layout in [ResidualLayout::Plaid, ResidualLayout::Lik] {
                let plain = Stored::random(&mut random, dim, nbits, layout, 9, [4, 21]);
                let norms = [None, Some(DType::F32), Some(DType::F16)][random.below(3)];
                let stored = match norms {
                    Some(dtype) => plain.with_norms(dtype),
                    None => plain,
                };
                let q = queries(&mut random, 2, 5, dim);
                let mask: Vec<bool> = (0..10).map(|_| random.chance(0.8)).collect();
                for precision in PRECISIONS {
                    for normalize in [true, false] {
                        let q = Tokens::padded(&q, &[2, 5, dim]).unwrap().with_mask(&mask).unwrap();
                        let op = Forward::maxsim(q, stored.documents(), options(normalize, precision));
                        check(&op, &format!("d={dim} nbits={nbits} {layout:?} norms={norms:?}"));
                    }
                }
            }
        }
    }
}

#[test]
fn pairings_long_queries_and_other_types() {
    let mut random = Random::named("pairings_long_queries_and_other_types");
    let (dim, nbits) = (48, 4);
    for (centroids, dtype) in [(5, DType::F32), (300, DType::F16), (40, DType::BF16)] {
        let mut stored = Stored::random(&mut random, dim, nbits, ResidualLayout::Plaid, centroids, [6, 40]);
        stored.centroids = DataBuf::from_f32(&queries(&mut random, 1, centroids, dim), dtype);
        let stored = stored.with_norms(DType::F32);
        for (q_dtype, len) in [(DType::F32, 90), (DType::F16, 33), (DType::BF16, 1)] {
            let q = DataBuf::from_f32(&queries(&mut random, 3, len, dim), q_dtype);
            let tokens = || Tokens::padded(q.as_ref(), &[3, len, dim]).unwrap();
            for precision in PRECISIONS {
                let options = options(true, precision);
                let context = format!("{dtype} centroids, {q_dtype} query of {len}");
                check(&Forward::maxsim(tokens(), stored.documents(), options), &context);
                let (qi, di) = ([2u32, 0, 1, 0, 2, 2, 0], [5u32, 1, 1, 4, 0, 5, 0]);
                check(
                    &Forward::score_pairs(tokens(), stored.documents(), &qi, &di, options).unwrap(),
                    &context,
                );
                let one = Tokens::padded(q.as_ref(), &[3, len, dim]).unwrap();
                let mut grouped = Forward::maxsim(one, stored.documents(), options);
                grouped.pairing = maxsim::Pairing::Grouped { k: 2 };
                check(&grouped, &context);
            }
        }
    }
}

/// So many centroids that the panels of a long query do not share a pass; with tokens for all of them, and for few.
#[test]
fn long_queries_in_parts() {
    let mut random = Random::named("long_queries_in_parts");
    let mut stored = Stored::random(&mut random, 8, 2, ResidualLayout::Plaid, 20_000, [700, 32]);
    let q = queries(&mut random, 2, 100, 8);
    for fewest in [0, 30] {
        stored.lengths.iter_mut().for_each(|l| *l = (*l).max(fewest));
        let tokens = Tokens::padded(&q, &[2, 100, 8]).unwrap();
        check(&Forward::maxsim(tokens, stored.documents(), options(true, Precision::Int8)), "long");
    }
}

/// Scores depend on neither batch-mates nor chunking nor threads, bit for bit.
#[test]
fn the_same_bits_however_documents_are_grouped() {
    let mut random = Random::named("the_same_bits_however_documents_are_grouped");
    let (dim, count) = (64, 30);
    let stored = Stored::random(&mut random, dim, 4, ResidualLayout::Plaid, 50, [count, 12]);
    let q = queries(&mut random, 4, 40, dim);
    for precision in PRECISIONS {
        let scoring = options(true, precision);
        for device in devices() {
            let tokens = |i: std::ops::Range<usize>| {
                Tokens::padded(&q[i.start * 40 * dim..i.end * 40 * dim], &[i.len(), 40, dim]).unwrap()
            };
            let all = scores(device, &Forward::maxsim(tokens(0..4), stored.documents(), scoring));
            let resident = device.engine.residual_corpus(stored.documents()).unwrap();
            let held = resident.score(tokens(0..4), scoring).unwrap();
            compare::same_bits("resident", &all.shape, &held.values, &all.values).assert(&device.name);
            for i in 0..4 {
                let one = scores(device, &Forward::maxsim(tokens(i..i + 1), stored.documents(), scoring));
                let expected = &all.values[i * count..(i + 1) * count];
                compare::same_bits("one query", &[count], &one.values, expected).assert(&device.name);
            }
            let (qi, di): (Vec<u32>, Vec<u32>) = (0..50).map(|p| (p % 4, (p * 7) % count as u32)).unzip();
            let op = Forward::score_pairs(tokens(0..4), stored.documents(), &qi, &di, scoring).unwrap();
            let expected: Vec<f32> =
                qi.iter().zip(&di).map(|(&i, &j)| all.values[i as usize * count + j as usize]).collect();
            compare::same_bits("pairs", &[50], &scores(device, &op).values, &expected).assert(&device.name);
            let documents = Documents::from(stored.documents());
            for chunk in [None, Some(1), Some(7)] {
                let options = RetrieveOptions { chunk, scoring, ..RetrieveOptions::top_k(9) };
                let top = device.engine.retrieve(tokens(0..4), documents.clone(), options).unwrap();
                for i in 0..4 {
                    for (j, score) in top.hits(i) {
                        let expected = all.values[i * count + j as usize];
                        assert_eq!(score.to_bits(), expected.to_bits(), "{} {chunk:?}", device.name);
                    }
                }
            }
        }
    }
}

/// The bound that the integer path states, row by row: documents of one token show similarities.
#[test]
fn integer_error_stays_below_the_stated_bound() {
    let mut random = Random::named("integer_error_stays_below_the_stated_bound");
    for (dim, nbits) in [(16, 2), (128, 4), (513, 8), (96, 1)] {
        let stored = Stored::random(&mut random, dim, nbits, ResidualLayout::Plaid, 7, [60, 1]);
        let stored = Stored { lengths: vec![1; 60], ..stored };
        let mut q = queries(&mut random, 8, 1, dim);
        // Rows of very different size, and one element that dwarfs the others.
        for (i, row) in q.chunks_exact_mut(dim).enumerate() {
            row[i % dim] *= 50.0;
            row.iter_mut().for_each(|x| *x *= 10f32.powi(i as i32 - 3));
        }
        let largest_weight = stored.weights.iter().fold(0f32, |m, w| m.max(w.abs()));
        for normalize in [false, true] {
            let tokens = Tokens::padded(&q, &[8, 1, dim]).unwrap();
            let op = Forward::maxsim(tokens, stored.documents(), options(normalize, Precision::Int8));
            let exact = oracle::forward(&op);
            for device in devices() {
                let got = scores(device, &op);
                for (pair, (&got, &exact)) in got.values.iter().zip(&exact.values).enumerate() {
                    let (i, j) = op.pair(pair);
                    let row = &q[i * dim..(i + 1) * dim];
                    let largest = row.iter().fold(0f32, |m, x| m.max(x.abs()));
                    let norms = if normalize {
                        let mut token = vec![0f32; dim];
                        let documents = stored.documents();
                        documents.codec().decode(stored.codes[j] as usize, documents.residual(j), &mut token);
                        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
                        (norm(row) * norm(&token)).recip()
                    } else {
                        1.0
                    };
                    let bound = norms * dim as f32 * largest * largest_weight / 127.0;
                    let rounding = 1e-5 * exact.abs().max(f64::from(norms * largest));
                    assert!(
                        (f64::from(got) - exact).abs() <= f64::from(bound) + rounding,
                        "{} d={dim} {i},{j}: {got} {exact} {bound}",
                        device.name
                    );
                }
            }
        }
    }
}

#[test]
fn queries_that_are_not_finite() {
    let mut random = Random::named("queries_that_are_not_finite");
    let dim = 32;
    let stored = Stored::random(&mut random, dim, 4, ResidualLayout::Plaid, 6, [5, 9]);
    let mut q = queries(&mut random, 4, 3, dim);
    (q[3], q[3 * dim + 1], q[9 * dim]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    for precision in PRECISIONS {
        for normalize in [true, false] {
            let tokens = Tokens::padded(&q, &[4, 3, dim]).unwrap();
            check(&Forward::maxsim(tokens, stored.documents(), options(normalize, precision)), "not finite");
        }
    }
    // A centroid that holds NaN never wins; weights that are not finite leave the integer path.
    let mut broken = Stored { lengths: vec![9; 5], ..stored };
    let DataBuf::F32(centroids) = &mut broken.centroids else { unreachable!() };
    centroids[5] = f32::NAN;
    let q = queries(&mut random, 4, 3, dim);
    for weight in [0.1, f32::INFINITY] {
        broken.weights[0] = weight;
        for precision in PRECISIONS {
            let tokens = Tokens::padded(&q, &[4, 3, dim]).unwrap();
            check(&Forward::maxsim(tokens, broken.documents(), options(false, precision)), "broken codec");
        }
    }
}

#[test]
fn nothing_to_score() {
    let mut random = Random::named("nothing_to_score");
    for (centroids, queries, len, shape) in
        [(0, 2, 3, [4, 0]), (3, 2, 3, [0, 5]), (3, 0, 3, [2, 5]), (3, 2, 0, [2, 5]), (3, 2, 3, [1, 1])]
    {
        let mut stored = Stored::random(&mut random, 24, 2, ResidualLayout::Lik, centroids, shape);
        stored.lengths.fill(0);
        let q = vec![1f32; queries * len * 24];
        let tokens = || Tokens::padded(&q, &[queries, len, 24]).unwrap();
        for precision in PRECISIONS {
            check(&Forward::maxsim(tokens(), stored.documents(), options(true, precision)), "nothing");
            let none: [u32; 0] = [];
            let op =
                Forward::score_pairs(tokens(), stored.documents(), &none, &none, options(true, precision));
            check(&op.unwrap(), "no pairs");
        }
    }
}

#[test]
fn the_two_layouts_are_byte_reversals() {
    let mut random = Random::named("the_two_layouts_are_byte_reversals");
    for nbits in [1, 2, 4, 8] {
        let plaid = Stored::random(&mut random, 33, nbits, ResidualLayout::Plaid, 5, [4, 6]);
        let q = queries(&mut random, 2, 3, 33);
        let tokens = || Tokens::padded(&q, &[2, 3, 33]).unwrap();
        for precision in [Precision::Exact, Precision::Int8] {
            for device in devices() {
                let options = options(true, precision);
                let expected = scores(device, &Forward::maxsim(tokens(), plaid.documents(), options));
                let lik = Stored {
                    layout: ResidualLayout::Lik,
                    residuals: plaid.residuals.iter().map(|b| b.reverse_bits()).collect(),
                    centroids: plaid.centroids.clone(),
                    weights: plaid.weights.clone(),
                    codes: plaid.codes.clone(),
                    lengths: plaid.lengths.clone(),
                    inv_norms: None,
                    ..plaid
                };
                let got = scores(device, &Forward::maxsim(tokens(), lik.documents(), options));
                compare::same_bits("layouts", &got.shape, &got.values, &expected.values).assert(&device.name);
            }
        }
    }
}

/// The example every implementation agrees on: 2 bits, buckets 3 2 2 1 1 0 0 0 are bytes 11010110 10000000. A query of
/// powers of ten reads the buckets out one by one.
#[test]
fn buckets_of_the_reference_example() {
    let stored = Stored {
        centroids: DataBuf::F32(vec![0.0; 8]),
        dim: 8,
        weights: vec![0.0, 1.0, 2.0, 3.0],
        nbits: 2,
        layout: ResidualLayout::Plaid,
        codes: vec![0],
        residuals: vec![0b1101_0110, 0b1000_0000],
        shape: [1, 1],
        lengths: vec![1],
        inv_norms: None,
    };
    let mut q = vec![0f32; 64];
    (0..8).for_each(|k| q[k * 9] = 1.0);
    for (k, bucket) in [3.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0].into_iter().enumerate() {
        for device in devices() {
            for (precision, allowed) in [(Precision::Exact, 0.0), (Precision::Int8, 0.02)] {
                let row = Tokens::padded(&q[k * 8..(k + 1) * 8], &[1, 1, 8]).unwrap();
                let op = Forward::maxsim(row, stored.documents(), options(false, precision));
                let got = scores(device, &op).values[0];
                assert!((got - bucket).abs() <= allowed, "{} {k}: {got}, {bucket}", device.name);
            }
        }
    }
}

#[test]
fn what_int8_takes_and_what_runs_is_said() {
    let mut random = Random::named("what_int8_takes");
    let stored = Stored::random(&mut random, 16, 4, ResidualLayout::Plaid, 3, [2, 3]);
    let q = queries(&mut random, 1, 2, 16);
    let (ints, halves) = (DataBuf::I8(vec![1; 32]), DataBuf::F16(vec![f16::ONE; 32]));
    let q = Tokens::padded(&q, &[1, 2, 16]).unwrap();
    let halves = Tokens::padded(halves.as_ref(), &[1, 2, 16]).unwrap();
    let ints = Tokens::padded(ints.as_ref(), &[1, 2, 16]).unwrap();
    let ints = ints.with_scales(Scales::PerTensor(1.0)).unwrap();
    let int8 = options(false, Precision::Int8);
    for device in cpu_devices() {
        let level = device.engine.info().level.clone();
        let explain = |op: Forward<'_>| device.engine.explain(&Op::Forward(op)).map(|plan| plan.kernel);
        let residual = |precision| Forward::maxsim(q.clone(), stored.documents(), options(true, precision));
        assert_eq!(explain(residual(Precision::Int8)).unwrap(), format!("forward/{level}-residual-int8"));
        assert_eq!(explain(residual(Precision::Fast)).unwrap(), format!("forward/{level}-residual"));
        let op = Forward::maxsim(ints.clone(), ints.clone(), int8);
        assert_eq!(explain(op).unwrap(), format!("forward/{level}-int8"));
        for (q, d) in [(&q, &halves), (&q, &ints)] {
            let error = explain(Forward::maxsim(q.clone(), d.clone(), int8)).unwrap_err();
            assert_eq!(error.code().as_str(), "ERR_VALUE");
            assert!(error.to_string().contains("precision"), "{error}");
        }
    }
}
