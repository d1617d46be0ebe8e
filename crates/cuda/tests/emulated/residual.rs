//! Compressed documents: parts of 16 bits are to hold what f32 does, whatever the size of the numbers.

use maxsim_core::{
    Codec, DType, DataBuf, Forward, Options, Precision, Residual, ResidualLayout, TensorRef, Tokens, oracle,
};
use maxsim_testkit::cases::Random;
use maxsim_testkit::{compare, tolerance};

use crate::{engine, paths, score};

const LENGTHS: [u32; 4] = [19, 0, 33, 16];
const SHAPE: [usize; 2] = [4, 33];
const CENTROIDS: usize = 9;

/// Scores of queries of 5, 40 and 0 tokens, with winners, as float64 has them; `q_size` and `d_size` are the sizes of vectors.
fn check(random: &mut Random, (nbits, dim): (u32, usize), dtype: DType, [q_size, d_size]: [f32; 2]) {
    let mut vectors = |count: usize, size: f32| -> Vec<f32> {
        let unit = size * (dim as f32).sqrt().recip();
        (0..count * dim).map(|_| random.normal() * unit).collect()
    };
    let q = DataBuf::from_f32(&vectors(45, q_size), dtype);
    let centroids = vectors(CENTROIDS, d_size);
    let weights = &vectors((1 << nbits) / dim + 1, 0.3 * d_size)[..1 << nbits];
    let shape = [CENTROIDS, dim];
    let centroids = TensorRef::new(&centroids, &shape).unwrap();
    let layout = [ResidualLayout::Plaid, ResidualLayout::Lik][random.below(2)];
    let codec = Codec::new(centroids, weights, nbits, layout).unwrap();
    let slots = SHAPE[0] * SHAPE[1];
    let codes: Vec<u32> = (0..slots).map(|_| random.below(CENTROIDS) as u32).collect();
    let residuals: Vec<u8> = (0..slots * codec.residual_bytes()).map(|_| random.bits() as u8).collect();
    let documents = Residual::padded(codec, &codes, &residuals, SHAPE, &LENGTHS).unwrap();
    let q = Tokens::packed(q.as_ref(), dim, &[0, 5, 45, 45]).unwrap();
    for (normalize, precision) in
        [(false, Precision::Default), (true, Precision::Default), (true, Precision::Exact)]
    {
        let options = Options { normalize, precision, argmax: true, ..Options::default() };
        let op = Forward::maxsim(q.clone(), documents.clone(), options);
        let exact = oracle::forward(&op);
        let largest = exact.values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        assert!(largest > 0.0);
        for path in paths() {
            let got = score(&engine(path), &op);
            let context = format!("{path} {nbits} bits, d={dim}, {dtype:?}, {q_size}, {d_size}, {normalize}");
            // Relative to the scores, also where they are far below 1.
            // Exactly: no more than the sums are off, whatever the queries' type.
            let exactly = if precision == Precision::Exact { DType::F32 } else { dtype };
            let t = tolerance::residual(exactly, precision, dim) * largest;
            for (got, exact) in got.values.iter().zip(&exact.values) {
                assert!((f64::from(*got) - exact).abs() <= t, "{context}: {got}, expected {exact}");
            }
            if [q_size, d_size] == [1.0; 2] {
                compare::forward(&op, &got, &exact, t / largest, false).assert(context);
            }
        }
    }
}

#[test]
fn every_width() {
    let mut random = Random::named("cuda residual");
    for nbits in [1, 2, 4, 8] {
        for dim in [16, 48, 64, 128] {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                check(&mut random, (nbits, dim), dtype, [1.0; 2]);
            }
        }
    }
}

#[test]
fn numbers_of_any_size() {
    let mut random = Random::named("cuda residual sizes");
    for sizes in [[1e-9, 1.0], [1.0, 1e-7], [1e9, 1e-9], [1e-12, 1e12], [1e18, 1e10], [1e-12, 1e-12]] {
        for (nbits, dim) in [(2, 64), (4, 128)] {
            check(&mut random, (nbits, dim), DType::F32, sizes);
        }
    }
}
