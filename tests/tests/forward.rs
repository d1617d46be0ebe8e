//! The scoring operators against the float64 oracle: every shape, type and kind of value of `cases::forward`.

use maxsim::{DType, Options, Tokens, oracle};
use maxsim_testkit::cases::forward::{Case, Family, Params};
use maxsim_testkit::cases::{Random, Values};
use maxsim_testkit::compare;
use maxsim_tests::{check_family, devices, score};

#[test]
fn dense() {
    check_family(Family::Dense);
}

#[test]
fn kd() {
    check_family(Family::Kd);
}

#[test]
fn pairs() {
    check_family(Family::Pairs);
}

#[test]
fn varlen() {
    check_family(Family::Varlen);
}

#[test]
fn score_pairs() {
    check_family(Family::ScorePairs);
}

#[test]
fn padded() {
    check_family(Family::Padded);
}

fn check(case: &Case) {
    let op = case.op();
    let exact = oracle::forward(&op);
    for device in devices() {
        compare::forward(&op, &score(&device.engine, &op), &exact, case.tolerance(), case.exact_ties())
            .assert(format!("{} {}", device.name, case.name));
    }
}

/// Documents of 16,384 tokens, and one such query.
#[test]
fn long_sequences() {
    let mut random = Random::named("long_sequences");
    let long =
        Params { queries: 1, documents: 2, query_len: 3, document_len: 16_384, dim: 16, ..Params::default() };
    for family in [Family::Dense, Family::Varlen] {
        check(&Case::generate("long document", family, long, &mut random));
        let params = Params { query_len: 16_384, document_len: 3, ..long };
        check(&Case::generate("long query", family, params, &mut random));
    }
}

/// A query too large to be packed at once: more than a million values.
#[test]
fn large_queries() {
    let mut random = Random::named("large_queries");
    for family in [Family::Dense, Family::ScorePairs] {
        let params = Params {
            queries: 2,
            documents: 5,
            query_len: 513,
            document_len: 3,
            dim: 2560,
            ..Params::default()
        };
        check(&Case::generate("large query", family, params, &mut random));
    }
}

/// One scale for all documents, and one for all queries, with per-token scales on the other side.
#[test]
fn scales_of_both_kinds_mix() {
    let mut random = Random::named("scales");
    for dtype in [DType::I8, DType::E4M3] {
        for per_tensor in [[false, true], [true, false], [true, true]] {
            for normalize in [false, true] {
                let params = Params { dtypes: (dtype, dtype), normalize, ..Params::default() };
                let mut case = Case::generate("scales", Family::Dense, params, &mut random);
                if per_tensor[0] {
                    case.q = case.q.with_tensor_scale(0.02);
                }
                if per_tensor[1] {
                    case.d = case.d.with_tensor_scale(0.003);
                }
                check(&case);
            }
        }
    }
}

/// Norms whose squares overflow f32, and norms that vanish.
#[test]
fn extreme_norms_normalize() {
    let unit = [0.6f32, 0.8, 0.0, 0.0];
    let options = Options::normalized();
    for (scale, expected) in [(1e30f32, 1.0), (1e-5, 1.0), (1e-8, 1e-2), (1e-30, 1e-24), (0.0, 0.0)] {
        let d = unit.map(|x| x * scale);
        for device in devices() {
            let q = Tokens::padded(&unit, &[1, 4]).unwrap();
            let got = device.engine.maxsim(q, Tokens::padded(&d, &[1, 4]).unwrap(), options).unwrap();
            let error = (got.values[0] - expected).abs();
            assert!(error <= 1e-5 * expected, "{} norm {scale:e}: {:e}", device.name, got.values[0]);
        }
    }
}

/// What is asked for is returned, and asking for winners does not change a bit of the scores.
#[test]
fn winners_only_on_request() {
    let mut random = Random::named("winners");
    for family in Family::ALL {
        for values in [Values::Normal, Values::NonFinite] {
            let params = Params { values, document_len: 30, ..Params::default() };
            let mut case = Case::generate("winners", family, params, &mut random);
            for device in devices() {
                case.options.argmax = true;
                let with = score(&device.engine, &case.op());
                case.options.argmax = false;
                let without = score(&device.engine, &case.op());
                assert!(with.argmax.is_some() && without.argmax.is_none());
                compare::same_bits("scores", &with.shape, &without.values, &with.values)
                    .assert(format!("{} {}", device.name, case.name));
            }
        }
    }
}

/// Winners in words: the first of equals, none for NaN and −inf, +inf over all, none for masked rows.
#[test]
fn winners_of_special_similarities() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let q = [1.0f32];
    for (document, winner, value) in [
        (vec![1.0f32, 1.0, 1.0], 0, 1.0),
        (vec![0.5, 1.0, 1.0], 1, 1.0),
        (vec![-3.0, -1.0, -1.0, -2.0], 1, -1.0),
        (vec![nan, 0.5, nan], 1, 0.5),
        (vec![nan, nan], -1, 0.0),
        (vec![-inf, -inf], -1, 0.0),
        (vec![-inf, -5.0], 1, -5.0),
        (vec![nan, -inf], -1, 0.0),
        (vec![1.0, inf, inf], 1, inf),
        (vec![nan, -inf, inf], 2, inf),
        (vec![0.0, -0.0], 0, 0.0),
    ] {
        let options = Options::default().with_argmax();
        for device in devices() {
            let d = Tokens::padded(&document, &[1, document.len(), 1]).unwrap();
            let got = device.engine.maxsim(Tokens::padded(&q, &[1, 1, 1]).unwrap(), d, options).unwrap();
            assert_eq!(got.values, [value], "{} {document:?}", device.name);
            assert_eq!(got.argmax.unwrap().values, [winner], "{} {document:?}", device.name);
            // The same behind a long document's many tiles.
            let far: Vec<f32> = std::iter::repeat_n(nan, 333).chain(document.iter().copied()).collect();
            let d = Tokens::packed(&far, 1, vec![0, far.len()]).unwrap();
            let got = device.engine.maxsim(Tokens::padded(&q, &[1, 1, 1]).unwrap(), d, options).unwrap();
            assert_eq!(got.values, [value], "{} 333 NaN and {document:?}", device.name);
            let expected = if winner < 0 { -1 } else { winner + 333 };
            assert_eq!(got.argmax.unwrap().values, [expected], "{} 333 NaN and {document:?}", device.name);
        }
    }
}

/// A 2-D operand has no axis in the result, and the scores are the same bits.
#[test]
fn two_dimensional_operands() {
    let mut random = Random::named("2-D");
    let params = Params { queries: 1, documents: 1, holes: false, dim: 17, ..Params::default() };
    let case = Case::generate("2-D", Family::Dense, params, &mut random);
    let three = Params { documents: 3, ..params };
    let many = Case::generate("2-D", Family::Kd, three, &mut random);
    let (lq, ld, dim) = (params.query_len, params.document_len, params.dim);
    for device in devices() {
        let engine = &device.engine;
        let options = Options::default().with_argmax();
        let q = |shape: &[usize]| Tokens::padded(&case.q.data, shape).unwrap();
        let d = |shape: &[usize]| Tokens::padded(&case.d.data, shape).unwrap();
        let more = |shape: &[usize]| Tokens::padded(&many.d.data, shape).unwrap();
        let (q2, q3, d2, d3) = (&[lq, dim][..], &[1, lq, dim][..], &[ld, dim][..], &[1, ld, dim][..]);
        let full = engine.maxsim(q(q3), d(d3), options).unwrap();
        for (q_shape, d_shape, expected) in
            [(q3, d3, vec![1, 1]), (q2, d3, vec![1]), (q3, d2, vec![1]), (q2, d2, vec![])]
        {
            let got = engine.maxsim(q(q_shape), d(d_shape), options).unwrap();
            assert_eq!(got.shape, expected, "{q_shape:?} {d_shape:?}");
            let rows = [expected, vec![lq]].concat();
            assert_eq!(got.argmax.as_ref().unwrap().shape(), Some(&rows[..]));
            compare::same_bits("scores", &[1], &got.values, &full.values).assert(&device.name);
        }
        let pairs = engine.maxsim_pairs(q(q2), d(d2), options).unwrap();
        assert_eq!(pairs.shape, Vec::<usize>::new());
        compare::same_bits("pairs", &[1], &pairs.values, &full.values).assert(&device.name);

        let all = engine.maxsim(q(q3), more(&[3, ld, dim]), options).unwrap();
        let dropped = engine.maxsim(q(q2), more(&[3, ld, dim]), options).unwrap();
        let kd = engine.maxsim(q(q2), more(&[1, 3, ld, dim]), options).unwrap();
        assert_eq!((all.shape, dropped.shape, kd.shape), (vec![1, 3], vec![3], vec![3]));
        compare::same_bits("dropped axis", &[3], &dropped.values, &all.values).assert(&device.name);
        compare::same_bits("KD", &[3], &kd.values, &all.values).assert(&device.name);
    }
}
