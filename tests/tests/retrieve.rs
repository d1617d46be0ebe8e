//! `retrieve` and resident documents.

use maxsim::{
    Corpus, CorpusOptions, DType, DataBuf, Forward, Options, Retrieve, RetrieveOptions, Scorer,
    SearchOptions, Tokens, TopK, oracle,
};
use maxsim_testkit::cases::forward::{Case, Family, Params, cases};
use maxsim_testkit::cases::{Random, Values};
use maxsim_testkit::compare;
use maxsim_tests::{devices, score};

/// Every dense and packed case: any direction, order and chunk, against exact scores.
#[test]
fn against_the_oracle() {
    for family in [Family::Dense, Family::Varlen] {
        for (i, case) in cases(family).into_iter().enumerate() {
            let scoring = Options { argmax: false, ..case.options };
            let exact = oracle::forward(&Forward::maxsim(case.q.tokens(), case.d.tokens(), scoring));
            let options = RetrieveOptions {
                top_k: [1, 2, 5, 100][i % 4],
                chunk: [None, Some(1), Some(2), Some(64)][i / 4 % 4],
                largest: i % 3 != 0,
                sorted: i % 5 != 0,
                scoring,
            };
            let (queries, documents) = (case.q.count(), case.d.count());
            for device in devices() {
                let got = device.engine.retrieve(case.q.tokens(), case.d.tokens(), options).unwrap();
                assert_eq!(got.shape, [queries, options.top_k.min(documents)]);
                compare::top_k(
                    &got,
                    &exact.values,
                    queries,
                    options.largest,
                    options.sorted,
                    case.tolerance(),
                )
                .assert(format!("{} {} {options:?}", device.name, case.name));
            }
        }
    }
}

fn batch(name: &str, values: Values, documents: usize) -> Case {
    let params = Params { queries: 3, documents, values, document_len: 4, dim: 16, ..Params::default() };
    Case::generate(name, Family::Varlen, params, &mut Random::named(name))
}

/// A hit's score has the bits that `maxsim` gives, for any chunk; scores that are equal come by index.
#[test]
fn chunks_change_nothing() {
    for values in [Values::Normal, Values::Integers, Values::Repeated, Values::NonFinite] {
        let case = batch("chunks", values, 57);
        for device in devices() {
            for largest in [true, false] {
                for normalize in [true, false] {
                    let scoring = Options { normalize, ..Options::default() };
                    let all = device.engine.maxsim(case.q.tokens(), case.d.tokens(), scoring).unwrap();
                    for top_k in [1, 10, 57, 1000, usize::MAX] {
                        let options = RetrieveOptions { largest, scoring, ..RetrieveOptions::top_k(top_k) };
                        let expected = ranking(&all.values, 57, &options);
                        for chunk in [None, Some(1), Some(7), Some(57), Some(1000), Some(usize::MAX)] {
                            let options = RetrieveOptions { chunk, ..options };
                            let got =
                                device.engine.retrieve(case.q.tokens(), case.d.tokens(), options).unwrap();
                            let context = format!("{} {values:?} {options:?}", device.name);
                            assert_eq!(got.indices, expected.0, "{context}");
                            compare::same_bits("scores", &got.shape, &got.scores, &expected.1)
                                .assert(context);
                        }
                    }
                }
            }
        }
    }
}

/// Documents and scores in the order that `retrieve` promises: by score, then by index.
fn ranking(scores: &[f32], documents: usize, options: &RetrieveOptions) -> (Vec<u32>, Vec<f32>) {
    let mut result = (Vec::new(), Vec::new());
    for row in scores.chunks(documents) {
        let mut order: Vec<usize> = (0..documents).collect();
        // Stable: equal scores stay in index order.
        order.sort_by(|&a, &b| {
            let ascending = row[a].partial_cmp(&row[b]).expect("scores are never NaN");
            if options.largest { ascending.reverse() } else { ascending }
        });
        for j in order.into_iter().take(options.top_k) {
            result.0.push(j as u32);
            result.1.push(row[j]);
        }
    }
    result
}

/// `sorted = false` returns the same set.
#[test]
fn unsorted_is_the_same_set() {
    for values in [Values::Normal, Values::Integers] {
        let case = batch("unsorted", values, 57);
        for device in devices() {
            for (chunk, largest) in [(None, true), (Some(5), true), (None, false), (Some(5), false)] {
                let sorted = RetrieveOptions { chunk, largest, ..RetrieveOptions::top_k(9) };
                let unsorted = RetrieveOptions { sorted: false, ..sorted };
                let sets = [sorted, unsorted].map(|options| {
                    let got = device.engine.retrieve(case.q.tokens(), case.d.tokens(), options).unwrap();
                    (0..3)
                        .map(|i| {
                            let mut hits: Vec<(u32, u32)> =
                                got.hits(i).map(|(id, score)| (id, score.to_bits())).collect();
                            hits.sort_unstable();
                            hits
                        })
                        .collect::<Vec<_>>()
                });
                assert_eq!(sets[0], sets[1], "{} {values:?} chunk {chunk:?}", device.name);
            }
        }
    }
}

/// The default normalises; an empty document ranks at 0, above negative scores and below positive ones.
#[test]
fn defaults_and_empty_documents() {
    assert!(RetrieveOptions::top_k(1).scoring.normalize);
    let q = [2.0f32, 0.0];
    // A negative document, an empty one, a positive one.
    let d = [-3.0f32, 0.0, 0.0, 5.0, 5.0, 0.0];
    for device in devices() {
        let q = Tokens::padded(&q, &[1, 2]).unwrap();
        let d = Tokens::packed(&d, 2, &[0u32, 1, 1, 3]).unwrap();
        let top = device.engine.retrieve(q.clone(), d.clone(), RetrieveOptions::top_k(3)).unwrap();
        assert_eq!((top.indices, top.scores), (vec![2, 1, 0], vec![1.0, 0.0, -1.0]), "{}", device.name);
        assert_eq!(top.shape, [3], "a 2-D query has no axis");
        let scorer = Scorer::new(device.engine.clone());
        assert_eq!(scorer.retrieve(q, d, 3).unwrap().indices, [2, 1, 0]);
    }
}

/// Winners of every hit, in the order of the hits.
#[test]
fn hits_are_explained() {
    for values in [Values::Normal, Values::Repeated, Values::NonFinite] {
        let case = batch("explain", values, 20);
        let scoring = Options::default().with_argmax();
        for device in devices() {
            for chunk in [None, Some(3)] {
                let options = RetrieveOptions { chunk, scoring, ..RetrieveOptions::top_k(6) };
                let got = device.engine.retrieve(case.q.tokens(), case.d.tokens(), options).unwrap();
                let all = score(&device.engine, &Forward::maxsim(case.q.tokens(), case.d.tokens(), scoring));
                let (own, all) = (got.argmax.as_ref().unwrap(), all.argmax.as_ref().unwrap());
                for (hit, &document) in got.indices.iter().enumerate() {
                    let pair = hit / got.width() * 20 + document as usize;
                    assert_eq!(own.pair(hit), all.pair(pair), "{} {values:?} hit {hit}", device.name);
                }
            }
        }
    }
}

/// Documents of every type, padded and packed, give what the same vectors give elsewhere.
#[test]
fn quantized_documents() {
    let mut random = Random::named("quantized documents");
    for dtype in [DType::I8, DType::E4M3] {
        for family in [Family::Dense, Family::Varlen] {
            let params = Params { documents: 30, dtypes: (DType::F32, dtype), dim: 48, ..Params::default() };
            let case = Case::generate("quantized", family, params, &mut random);
            let options = RetrieveOptions { scoring: Options::default(), ..RetrieveOptions::top_k(8) };
            let op = Retrieve::new(case.q.tokens(), case.d.tokens(), options);
            let exact = oracle::forward(&op.forward);
            for device in devices() {
                let got = device.engine.retrieve(case.q.tokens(), case.d.tokens(), options).unwrap();
                compare::top_k(&got, &exact.values, 2, true, true, case.tolerance())
                    .assert(format!("{} {dtype} {family:?}", device.name));
            }
        }
    }
}

fn same(context: &str, got: &TopK, expected: &TopK) {
    assert_eq!((&got.shape, &got.indices), (&expected.shape, &expected.indices), "{context}");
    compare::same_bits("scores", &got.shape, &got.scores, &expected.scores).assert(context);
    assert_eq!(got.argmax, expected.argmax, "{context}");
}

/// Documents kept as they are: searching them is `retrieve`, scoring them is `maxsim`, bit for bit.
#[test]
fn a_corpus_is_its_documents() {
    let mut random = Random::named("corpus");
    for dtype in DType::ALL {
        for family in [Family::Dense, Family::Varlen] {
            let params = Params { documents: 40, dtypes: (DType::F32, dtype), ..Params::default() };
            let case = Case::generate("corpus", family, params, &mut random);
            for device in devices() {
                let context = format!("{} {dtype} {family:?}", device.name);
                let options = CorpusOptions { normalize: false, ..CorpusOptions::default() };
                let corpus = device.engine.corpus(case.d.tokens(), options).unwrap();
                assert_eq!((corpus.count(), corpus.dim(), corpus.dtype()), (40, 33, dtype));
                assert!(corpus.bytes() >= (case.d.tokens().kept() * 33 * dtype.size()) as u64, "{context}");
                let scoring = Options::default().with_argmax();
                let expected = RetrieveOptions { scoring, ..RetrieveOptions::top_k(7) };
                let expected = device.engine.retrieve(case.q.tokens(), case.d.tokens(), expected).unwrap();
                let got = corpus.search(case.q.tokens(), SearchOptions::top_k(7).with_explain()).unwrap();
                same(&context, &got, &expected);
                let scores = corpus.score(case.q.tokens(), scoring).unwrap();
                assert_eq!(scores, device.engine.maxsim(case.q.tokens(), case.d.tokens(), scoring).unwrap());
            }
        }
    }
}

/// Normalising at ingestion rounds once more, so this is the same within tolerance and not bit for bit.
#[test]
fn a_normalised_corpus() {
    let mut random = Random::named("normalised corpus");
    for values in [Values::Uneven, Values::Zeros, Values::Tiny, Values::Integers] {
        let params = Params { documents: 40, values, ..Params::default() };
        let case = Case::generate("corpus", Family::Varlen, params, &mut random);
        let exact =
            oracle::forward(&Forward::maxsim(case.q.tokens(), case.d.tokens(), Options::normalized()));
        for device in devices() {
            let corpus = device.engine.corpus(case.d.tokens(), CorpusOptions::default()).unwrap();
            let got = corpus.search(case.q.tokens(), SearchOptions::top_k(40)).unwrap();
            compare::top_k(&got, &exact.values, 2, true, true, case.tolerance())
                .assert(format!("{} {values:?}", device.name));
        }
    }
}

/// Documents stored in another type are the documents converted first.
#[test]
fn a_converted_corpus() {
    let mut random = Random::named("converted corpus");
    for (from, to) in [(DType::F32, DType::F16), (DType::F32, DType::BF16), (DType::BF16, DType::F32)] {
        let params = Params { documents: 20, dtypes: (DType::F32, from), ..Params::default() };
        let case = Case::generate("corpus", Family::Varlen, params, &mut random);
        let mut converted = case.d.clone();
        converted.data = DataBuf::from_f32(&case.d.data.as_ref().to_f32(), to);
        for device in devices() {
            let options = CorpusOptions { normalize: false, storage: Some(to), validate_finite: true };
            let corpus: Corpus = device.engine.corpus(case.d.tokens(), options).unwrap();
            assert_eq!(corpus.dtype(), to);
            let got = corpus.score(case.q.tokens(), Options::default()).unwrap();
            let expected =
                device.engine.maxsim(case.q.tokens(), converted.tokens(), Options::default()).unwrap();
            compare::same_bits("scores", &got.shape, &got.values, &expected.values)
                .assert(format!("{} {from} as {to}", device.name));
        }
    }
}
