//! int8 queries and documents on every CPU level: sums are exact.

use maxsim_core::{Forward, Op, Options, Output, Scales, Scores, Tokens, oracle};
use maxsim_testkit::cases::Random;
use maxsim_testkit::devices::{Device, cpus as devices};
use maxsim_testkit::{compare, tolerance};

fn scores(device: &Device, op: &Forward<'_>) -> Scores {
    match device.engine.run(&Op::Forward(op.clone())).unwrap() {
        Output::Scores(scores) => scores,
        other => panic!("{other:?}"),
    }
}

fn bytes(random: &mut Random, count: usize) -> Vec<i8> {
    // −128 is no quantiser's output, but a byte that callers can bring.
    (0..count).map(|_| random.bits() as i8).collect()
}

fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

/// With scales of 1 a score is a sum of integers, which f32 holds where they are small enough.
#[test]
fn similarities_are_the_integers_they_should_be() {
    let mut random = Random::named("similarities_are_the_integers");
    for dim in [1, 2, 3, 4, 5, 7, 16, 33, 63, 64, 65, 96, 111, 128, 250, 513] {
        for (queries, len, documents, document_len) in
            [(1, 1, 3, 1), (2, 9, 2, 13), (1, 33, 5, 50), (9, 4, 2, 3)]
        {
            let q = bytes(&mut random, queries * len * dim);
            let d = bytes(&mut random, documents * document_len * dim);
            let tokens = |data, shape: &[usize]| {
                Tokens::padded(data, shape).unwrap().with_scales(Scales::PerTensor(1.0)).unwrap()
            };
            let op = Forward::maxsim(
                tokens(&q, &[queries, len, dim]),
                tokens(&d, &[documents, document_len, dim]),
                Options::default().with_argmax(),
            );
            for device in devices() {
                let got = scores(&device, &op);
                let argmax = got.argmax.unwrap();
                for pair in 0..op.pair_count() {
                    let (i, j) = op.pair(pair);
                    let mut sum = 0f64;
                    for s in 0..len {
                        let row = &q[(i * len + s) * dim..][..dim];
                        let similarity = |t: usize| dot(row, &d[(j * document_len + t) * dim..][..dim]);
                        // The first of the largest.
                        let winner = (0..document_len).rev().max_by_key(|&t| similarity(t)).unwrap();
                        sum += f64::from(similarity(winner));
                        assert_eq!(argmax.pair(pair)[s], winner as i32, "{} d={dim}", device.name);
                    }
                    assert_eq!(got.values[pair], sum as f32, "{} d={dim} pair {pair}", device.name);
                }
            }
        }
    }
}

/// No step on the way saturates.
#[test]
fn extremes() {
    for dim in [128, 2560, 70_000] {
        for (a, b) in [(127i8, 127i8), (127, -127), (-127, -127), (-128, -128), (127, -128), (-128, 127)] {
            let (q, d) = (vec![a; 17 * dim], vec![b; 5 * dim]);
            let tokens = |data, len| {
                Tokens::padded(data, &[len, dim]).unwrap().with_scales(Scales::PerTensor(1.0)).unwrap()
            };
            let op = Forward::maxsim(tokens(&q, 17), tokens(&d, 5), Options::default());
            let similarity = (i64::from(a) * i64::from(b) * dim as i64) as f32;
            let expected = (f64::from(similarity) * 17.0) as f32;
            for device in devices() {
                assert_eq!(scores(&device, &op).values, [expected], "{} d={dim} {a}·{b}", device.name);
            }
        }
    }
}

#[test]
fn masks_lengths_scales_and_normalisation() {
    let mut random = Random::named("masks_lengths_scales_and_normalisation");
    for dim in [7, 64, 130] {
        for trial in 0..12 {
            let (nq, lq, nd, ld) =
                (1 + random.below(3), 1 + random.below(40), 1 + random.below(6), 1 + random.below(30));
            let mut q = bytes(&mut random, nq * lq * dim);
            let d = bytes(&mut random, nd * ld * dim);
            q[..dim].fill(0);
            let q_scales: Vec<f32> = (0..nq * lq).map(|_| random.normal().abs() * 0.01 + 1e-4).collect();
            let d_scales: Vec<f32> = (0..nd * ld).map(|_| random.normal().abs() * 0.01 + 1e-4).collect();
            let q_mask: Vec<bool> = (0..nq * lq).map(|_| random.chance(0.8)).collect();
            let d_mask: Vec<bool> = (0..nd * ld).map(|_| random.chance(0.7)).collect();
            let lengths: Vec<u32> = (0..nd).map(|_| random.below(ld + 1) as u32).collect();
            let mut documents = Tokens::padded(&d, &[nd, ld, dim]).unwrap();
            if trial % 2 == 0 {
                documents = documents.with_mask(&d_mask).unwrap();
            }
            if trial % 3 == 0 {
                documents = documents.with_lengths(&lengths).unwrap();
            }
            let d_scales = if trial % 4 == 0 { Scales::PerTensor(0.02) } else { Scales::PerToken(&d_scales) };
            let documents = documents.with_scales(d_scales).unwrap();
            let queries = Tokens::padded(&q, &[nq, lq, dim]).unwrap();
            let queries =
                queries.with_mask(&q_mask).unwrap().with_scales(Scales::PerToken(&q_scales)).unwrap();
            for normalize in [false, true] {
                let options = Options { normalize, argmax: true, ..Options::default() };
                let op = Forward::maxsim(queries.clone(), documents.clone(), options);
                let exact = oracle::forward(&op);
                let t = tolerance::scores(op.q.dtype(), op.d.dtype(), options.precision, dim);
                for device in devices() {
                    compare::forward(&op, &scores(&device, &op), &exact, t, false)
                        .assert(format!("{} d={dim} trial {trial}", device.name));
                }
            }
        }
    }
}
