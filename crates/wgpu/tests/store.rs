//! Corpora that the device normalises, converts and quantises: every element and scale as the host makes them. Without an
//! adapter, tests print a skip.

use std::sync::Arc;

use maxsim_core::{CorpusOptions, DType, DataBuf, Engine, Options, Tokens};
use maxsim_testkit::cases::Random;
use maxsim_wgpu::{WgpuBackend, WgpuOptions};

/// Engines whose corpora the device converts, whole and in shards, and one whose corpora the host does.
fn engines() -> Option<([Engine; 2], Engine)> {
    let open = |options| match pollster::block_on(WgpuBackend::new(options)) {
        Ok(backend) => Some(Engine::new(vec![Arc::new(backend)]).unwrap().silent()),
        Err(error) => {
            println!("1 skipped: {error}");
            None
        }
    };
    let [by_host, whole] =
        [false, true].map(|convert| WgpuOptions { convert: Some(convert), ..WgpuOptions::default() });
    let split = WgpuOptions { max_binding: Some(16 << 10), max_workgroups: Some(40), ..whole.clone() };
    Some(([open(whole)?, open(split)?], open(by_host)?))
}

/// Every element of documents of one token, times its scale: similarities with unit vectors, which are exact.
fn elements(engine: &Engine, tokens: Tokens<'_>, options: CorpusOptions) -> Vec<u32> {
    let corpus = engine.corpus(tokens, options).unwrap();
    assert_eq!(corpus.dtype(), options.storage.unwrap());
    let dim = corpus.dim();
    let mut unit = vec![0f32; dim * dim];
    unit.iter_mut().step_by(dim + 1).for_each(|x| *x = 1.0);
    let q = Tokens::padded(&unit, &[dim, 1, dim]).unwrap();
    // Stored as they are: no norms at search time.
    let scores = engine.maxsim(q, corpus.documents(), Options::default()).unwrap();
    // 0 and -0, which the sum over one row makes equal.
    scores.values.iter().map(|x| if *x == 0.0 { 0 } else { x.to_bits() }).collect()
}

/// Vectors of every magnitude, with zeros, subnormal numbers, ties and elements that differ by hundreds of powers of two.
fn vectors(random: &mut Random, rows: usize, dim: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(rows * dim);
    for row in 0..rows {
        let magnitude = match row % 6 {
            0 => 1.0,
            1 => 10f32.powi((row % 70) as i32 - 36),
            2 => f32::MIN_POSITIVE,
            3 => 1e-6,
            4 => 0.03,
            _ => 1e17,
        };
        for k in 0..dim {
            let x = random.normal() * magnitude;
            values.push(match (row + 3 * k) % 17 {
                0 if row % 5 == 0 => 0.0,
                1 if row % 5 == 1 => f32::from_bits(random.bits() as u32 & 0x007f_ffff),
                2 => x * 2f32.powi(-(random.below(60) as i32)),
                // Few bits: halves and quarters are ties when they are rounded.
                3 | 4 => f32::from_bits(x.to_bits() & 0xffff_0000),
                5 => (x * 8.0).round() / 8.0,
                _ => x,
            });
        }
    }
    values
}

#[test]
fn bits_of_the_host() {
    let Some((devices, host)) = engines() else { return };
    let mut random = Random::named("stored corpora");
    for dim in [1, 7, 24, 33] {
        let rows = 300;
        let values = vectors(&mut random, rows, dim);
        for from in [DType::F32, DType::F16, DType::BF16] {
            // What f16 cannot hold would be infinite.
            let scaled: Vec<f32> =
                values.iter().map(|x| if from == DType::F16 { x.clamp(-6e4, 6e4) } else { *x }).collect();
            let data = DataBuf::from_f32(&scaled, from);
            for storage in DType::ALL {
                for normalize in [true, false] {
                    if !normalize && storage == from {
                        continue;
                    }
                    let options = CorpusOptions { normalize, storage: Some(storage), validate_finite: false };
                    let tokens = || Tokens::padded(&data, &[rows, 1, dim]).unwrap();
                    let expected = elements(&host, tokens(), options);
                    for (i, device) in devices.iter().enumerate() {
                        let got = elements(device, tokens(), options);
                        let wrong = got.iter().zip(&expected).position(|(a, b)| a != b);
                        if let Some(at) = wrong {
                            let (k, row) = (at / rows, at % rows);
                            panic!(
                                "device {i}, d = {dim}, {from} to {storage}, normalize {normalize}: element {k} of row {row} ({:e}) \
                                 is {:e}, not {:e}",
                                scaled[row * dim + k],
                                f32::from_bits(got[at]),
                                f32::from_bits(expected[at])
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Masks and lengths leave rows out; documents of several tokens and segments; what is not finite.
#[test]
fn documents_of_all_kinds() {
    let Some((devices, host)) = engines() else { return };
    let mut random = Random::named("stored documents");
    let (documents, longest, dim) = (9, 30, 20);
    let mut values = vectors(&mut random, documents * longest, dim);
    let lengths: Vec<u32> = (0..documents).map(|_| random.below(longest + 1) as u32).collect();
    let q = vectors(&mut random, 6, dim);
    let q = || Tokens::padded(&q, &[6, dim]).unwrap();
    for finite in [true, false] {
        if !finite {
            (values[5], values[longest * dim + 3]) = (f32::NAN, f32::INFINITY);
        }
        let tokens =
            || Tokens::padded(&values, &[documents, longest, dim]).unwrap().with_lengths(&lengths).unwrap();
        for storage in DType::ALL {
            let options = CorpusOptions { storage: Some(storage), ..CorpusOptions::default() };
            let expected = host.corpus(tokens(), options).map(|corpus| corpus.score(q(), Options::default()));
            for device in &devices {
                let got =
                    device.corpus(tokens(), options).map(|corpus| corpus.score(q(), Options::default()));
                match (&expected, got) {
                    (Ok(expected), Ok(got)) => {
                        assert_eq!(expected.as_ref().unwrap(), &got.unwrap(), "{storage}")
                    }
                    (Err(expected), Err(got)) => assert_eq!(expected.code(), got.code(), "{storage}"),
                    _ => panic!("{storage}: one refuses, the other does not"),
                }
            }
        }
    }
}
