//! `plaid_search`: every stage against the float64 oracle, and what must not change an answer.

use maxsim::plaid::{Bitmap, CodecParts, Encoded, IndexCodec, Searched, Segment};
use maxsim::{
    DataBuf, Error, Hit, Op, Options, Output, PlaidIndex, PlaidOptions, PlaidSearch, Precision, Tokens, f16,
    oracle,
};
use maxsim_testkit::cases::Random;
use maxsim_testkit::devices::Device;
use maxsim_tests::devices;

/// An index whose codes and residuals are random: searching does not mind.
struct Index {
    codec: IndexCodec,
    lengths: Vec<u32>,
    encoded: Encoded,
    queries: Vec<f32>,
}

const QUERIES: usize = 5;
const QUERY_LEN: usize = 7;

impl Index {
    fn new(name: &str, nbits: u32, dim: usize, centroids: usize, documents: usize) -> Self {
        let mut random = Random::named(name);
        let mut unit = |count: usize| {
            let mut values: Vec<f32> = (0..count * dim).map(|_| random.normal()).collect();
            for vector in values.chunks_mut(dim) {
                let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                vector.iter_mut().for_each(|x| *x /= norm);
            }
            values
        };
        let (values, queries) = (unit(centroids), unit(QUERIES * QUERY_LEN));
        let buckets = 1usize << nbits;
        let step = 0.4 / buckets as f32;
        let at = |i: f32| (i - buckets as f32 / 2.0) * step;
        let codec = IndexCodec::new(CodecParts {
            centroids: match dim % 2 {
                0 => DataBuf::F16(values.iter().map(|&x| f16::from_f32(x)).collect()).into(),
                _ => DataBuf::F32(values).into(),
            },
            dim,
            nbits,
            bucket_cutoffs: (1..buckets).map(|i| at(i as f32)).collect(),
            bucket_weights: (0..buckets).map(|i| at(i as f32 + 0.5)).collect(),
            avg_residual: vec![0.1; dim],
            cluster_threshold: 0.5,
        })
        .unwrap();
        // Some documents are empty, some repeat a centroid.
        let lengths: Vec<u32> = (0..documents).map(|_| random.below(9) as u32).collect();
        let tokens = lengths.iter().sum::<u32>() as usize;
        let codes: Vec<u32> = (0..tokens).map(|_| random.below(centroids) as u32).collect();
        let residuals: Vec<u8> = (0..tokens * codec.residual_bytes()).map(|_| random.bits() as u8).collect();
        let inv_norms = codec.inverse_norms(&codes, &residuals);
        Self { codec, lengths, encoded: Encoded { codes, residuals, inv_norms }, queries }
    }

    fn q(&self) -> Tokens<'_> {
        Tokens::padded(&self.queries, &[QUERIES, QUERY_LEN, self.codec.dim()]).unwrap()
    }

    /// Documents `keep` in segments of `count` documents each.
    fn segments(&self, count: usize, keep: impl Fn(usize) -> bool) -> Vec<Segment> {
        let width = self.codec.residual_bytes();
        let mut first = 0;
        let documents: Vec<(usize, usize)> = self
            .lengths
            .iter()
            .map(|&length| {
                first += length as usize;
                (first - length as usize, first)
            })
            .collect();
        let kept: Vec<(usize, usize)> =
            documents.into_iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, rows)| rows).collect();
        kept.chunks(count)
            .map(|documents| {
                let (mut offsets, mut encoded) = (vec![0], Encoded::default());
                for &(from, to) in documents {
                    encoded.codes.extend(&self.encoded.codes[from..to]);
                    encoded.residuals.extend(&self.encoded.residuals[from * width..to * width]);
                    encoded.inv_norms.extend(&self.encoded.inv_norms[from..to]);
                    offsets.push(encoded.codes.len() as u32);
                }
                self.codec.segment(offsets, encoded).unwrap()
            })
            .collect()
    }

    fn op<'a>(&'a self, segments: &'a [Segment], options: PlaidOptions) -> PlaidSearch<'a> {
        PlaidSearch::new(self.q(), self.codec.as_codec(), segments.iter().collect(), options)
    }
}

/// The hits, or `None` where the backend has no such operator.
fn run(device: &Device, op: &PlaidSearch<'_>) -> Option<Vec<Vec<Hit>>> {
    match device.engine.plaid_search(op.clone()) {
        Ok(hits) => Some(hits),
        Err(Error::Unsupported { .. }) if !device.name.starts_with("cpu") => None,
        Err(error) => panic!("{}: {error}", device.name),
    }
}

/// Order and scores, except that documents whose scores are equal to rounding may change places.
fn assert_close(context: &str, got: &[Vec<Hit>], expected: &[Vec<Hit>]) {
    const TOLERANCE: f32 = 1e-4;
    assert_eq!(got.len(), expected.len(), "{context}");
    for (query, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.len(), expected.len(), "{context}, query {query}: number of hits");
        for (rank, (g, e)) in got.iter().zip(expected).enumerate() {
            let here = format!("{context}, query {query}, rank {rank}: {g:?}, expected {e:?}");
            assert!((g.score - e.score).abs() <= TOLERANCE, "{here}");
            let near = expected.iter().filter(|other| (other.score - g.score).abs() <= TOLERANCE);
            // The last rank may be shared with documents that did not make it.
            let last = rank + 1 == got.len();
            assert!(last || near.map(|hit| hit.document).any(|document| document == g.document), "{here}");
        }
        assert!(
            got.windows(2)
                .all(|w| w[0].score > w[1].score
                    || (w[0].score == w[1].score && w[0].document < w[1].document)),
            "{context}, query {query}: order"
        );
    }
}

fn indexes() -> Vec<(String, Index)> {
    let shapes = [(1, 16, 8, 60), (2, 64, 24, 150), (4, 33, 40, 150), (8, 20, 30, 90), (4, 128, 100, 220)];
    shapes
        .into_iter()
        .map(|(nbits, dim, centroids, documents)| {
            let name = format!("{nbits} bit, d {dim}, {centroids} centroids, {documents} documents");
            let index = Index::new(&name, nbits, dim, centroids, documents);
            (name, index)
        })
        .collect()
}

/// Everything scored; few documents, which are all scored; probing without a cut.
#[test]
fn against_the_oracle() {
    for (name, index) in indexes() {
        let documents = index.lengths.len();
        let segments = index.segments(documents.div_ceil(3), |_| true);
        let options = PlaidOptions { top_k: 6, precision: Precision::Exact, ..PlaidOptions::default() };
        // Of `n_full_scores` a quarter is kept: less than all documents, so that centroids are probed, more than are found.
        let probing = PlaidOptions { n_ivf_probe: 2, n_full_scores: Some(4 * (documents - 1)), ..options };
        for (what, options) in [
            ("exact", PlaidOptions { exact: true, ..options }),
            ("all few", options),
            ("probing", probing),
            ("integers", PlaidOptions { precision: Precision::Default, top_k: 30, ..probing }),
            ("threshold", PlaidOptions { centroid_score_threshold: Some(0.35), ..probing }),
            ("one probe", PlaidOptions { n_ivf_probe: 1, ..probing }),
            ("all probed", PlaidOptions { n_ivf_probe: 10_000, ..probing }),
            ("raw queries", PlaidOptions { normalize: false, ..probing }),
            ("candidates", PlaidOptions { candidates_only: true, ..probing }),
            ("all candidates", PlaidOptions { candidates_only: true, exact: true, ..probing }),
        ] {
            let op = index.op(&segments, options);
            let expected = oracle::plaid_search(&op).hits;
            for device in devices() {
                if let Some(got) = run(device, &op) {
                    assert_close(&format!("{} {name} {what}", device.name), &got, &expected);
                }
            }
        }
    }
}

/// The same with documents deleted and with subsets, large, small and empty.
#[test]
fn only_allowed_documents_are_found() {
    for (name, index) in indexes() {
        let documents = index.lengths.len();
        let segments = index.segments(documents.div_ceil(2), |_| true);
        let live = Bitmap::of(documents, (0..documents).filter(|d| d % 7 != 3)).unwrap();
        for every in [1, 2, 5, 1000] {
            let subset = Bitmap::of(documents, (1..documents).step_by(every)).unwrap();
            for kept in [1, 10, 1000] {
                let options = PlaidOptions {
                    top_k: kept.min(5),
                    n_ivf_probe: 1,
                    n_full_scores: Some(4 * kept),
                    precision: Precision::Exact,
                    ..PlaidOptions::default()
                };
                let mut op = index.op(&segments, options);
                (op.live, op.subset) = (Some(&live), Some(&subset));
                let expected = oracle::plaid_search(&op).hits;
                let exhaustive =
                    PlaidSearch { options: PlaidOptions { exact: true, ..options }, ..op.clone() };
                let exhaustive = oracle::plaid_search(&exhaustive).hits;
                for device in devices() {
                    let Some(got) = run(device, &op) else { continue };
                    let context = format!("{} {name} every {every}, {kept} kept", device.name);
                    let mut hits = got.iter().flatten();
                    assert!(
                        hits.all(|hit| live.contains(hit.document as usize)
                            && subset.contains(hit.document as usize)),
                        "{context}"
                    );
                    if kept == 1000 {
                        assert_close(&context, &got, &exhaustive);
                    }
                    let counts = |found: &[Vec<Hit>]| found.iter().map(Vec::len).collect::<Vec<_>>();
                    assert_eq!(counts(&got), counts(&expected), "{context}");
                }
            }
        }
        let nothing = Bitmap::empty(documents);
        for exact in [true, false] {
            let mut op = index.op(&segments, PlaidOptions { exact, ..PlaidOptions::default() });
            op.subset = Some(&nothing);
            for device in devices() {
                if let Some(got) = run(device, &op) {
                    assert_eq!(got, vec![vec![]; QUERIES], "{} {name}", device.name);
                }
            }
        }
    }
}

/// Centroids and queries along the axes make every approximate score a whole number: ties everywhere, at the cut too.
#[test]
fn cuts_are_decided_by_score_then_number() {
    const DIM: usize = 8;
    let mut index = Index::new("axes", 4, DIM, DIM, 64);
    let axes: Vec<f32> = (0..DIM * DIM).map(|i| f32::from(u8::from(i % (DIM + 1) == 0))).collect();
    let parts = CodecParts { centroids: DataBuf::F32(axes.clone()).into(), ..index.codec.parts().clone() };
    index.codec = IndexCodec::new(parts).unwrap();
    index.encoded.inv_norms = index.codec.inverse_norms(&index.encoded.codes, &index.encoded.residuals);
    index.queries = (0..QUERIES * QUERY_LEN).flat_map(|i| axes[i % DIM * DIM..][..DIM].to_vec()).collect();
    let segments = index.segments(10, |_| true);
    for kept in [3, 5, 11, 20] {
        let options = PlaidOptions {
            top_k: 3,
            n_ivf_probe: 1,
            n_full_scores: Some(4 * kept),
            precision: Precision::Exact,
            ..PlaidOptions::default()
        };
        let op = index.op(&segments, options);
        let expected = oracle::plaid_search(&op).hits;
        for device in devices() {
            if let Some(got) = run(device, &op) {
                assert_close(&format!("{} {kept} kept", device.name), &got, &expected);
            }
        }
    }
}

/// Where approximate scores tell little, the first look says so and a wider one decides; where they tell enough, it does.
#[test]
fn unsettled_queries_are_searched_again() {
    for (residuals, settled) in [(0.02, true), (4.0, false)] {
        let mut index = Index::new("unsettled", 4, 16, 64, 1500);
        let parts = index.codec.parts().clone();
        let scaled = |values: &[f32]| values.iter().map(|x| x * residuals).collect::<Vec<f32>>();
        index.codec = IndexCodec::new(CodecParts {
            bucket_cutoffs: scaled(&parts.bucket_cutoffs),
            bucket_weights: scaled(&parts.bucket_weights),
            ..parts
        })
        .unwrap();
        index.encoded.inv_norms = index.codec.inverse_norms(&index.encoded.codes, &index.encoded.residuals);
        let segments = index.segments(700, |_| true);
        let op = index.op(&segments, PlaidOptions { n_ivf_probe: 32, ..PlaidOptions::default() });
        let found = oracle::plaid_search(&op);
        let all: Vec<u32> = (0..QUERIES as u32).collect();
        assert_eq!(found.unsettled, if settled { vec![] } else { all }, "{residuals}");
        let wider = op.options.wider().unwrap();
        let expected = match settled {
            true => found.hits,
            false => oracle::plaid_search(&PlaidSearch { options: wider, ..op.clone() }).hits,
        };
        for device in devices() {
            let Some(got) = run(device, &op) else { continue };
            assert_close(&format!("{} {residuals}", device.name), &got, &expected);
            let first = device.engine.run(&Op::PlaidSearch(op.clone())).unwrap();
            let Output::Hits(first) = first else { panic!("{}: {first:?}", device.name) };
            assert_eq!(first.unsettled, found.unsettled, "{} {residuals}", device.name);
        }
    }
}

/// Segments, batch-mates, threads, levels and compaction: the same documents, bit for bit where the device is the same.
#[test]
fn nothing_else_changes_an_answer() {
    for (name, index) in indexes() {
        let documents = index.lengths.len();
        let options =
            PlaidOptions { top_k: 4, n_ivf_probe: 2, n_full_scores: Some(40), ..PlaidOptions::default() };
        let one = index.segments(documents, |_| true);
        let gone = |document: usize| document % 5 == 2;
        let live = Bitmap::of(documents, (0..documents).filter(|&d| !gone(d))).unwrap();
        let compacted = index.segments(documents, |document| !gone(document));
        let left: Vec<u32> = live.iter().map(|d| d as u32).collect();
        for device in devices() {
            let Some(all) = run(device, &index.op(&one, options)) else { continue };
            for count in [1, 7, 64] {
                let segments = index.segments(count, |_| true);
                let got = run(device, &index.op(&segments, options)).unwrap();
                assert_eq!(got, all, "{} {name}, segments of {count}", device.name);
            }
            for (i, hits) in all.iter().enumerate() {
                let q = index.q();
                let op = PlaidSearch { q: q.slice(i..i + 1), ..index.op(&one, options) };
                assert_eq!(&run(device, &op).unwrap()[0], hits, "{} {name}, alone", device.name);
            }
            let mut op = index.op(&one, options);
            op.live = Some(&live);
            let deleted = run(device, &op).unwrap();
            let mut renumbered = run(device, &index.op(&compacted, options)).unwrap();
            renumbered.iter_mut().flatten().for_each(|hit| hit.document = left[hit.document as usize]);
            assert_eq!(deleted, renumbered, "{} {name}, compacted", device.name);
        }
    }
}

/// A hit's score has the bits of `maxsim_residual`, its winners are that operator's.
#[test]
fn scores_and_winners_are_those_of_scoring() {
    for (name, index) in indexes() {
        let segments = index.segments(1000, |_| true);
        let codec = index.codec.as_codec();
        for device in devices() {
            let options = PlaidOptions { explain: true, ..PlaidOptions::top_k(9) };
            let Some(hits) = run(device, &index.op(&segments, options)) else { continue };
            let all = device
                .engine
                .maxsim_residual(index.q(), segments[0].residual(&codec), Options::normalized().with_argmax())
                .unwrap();
            let argmax = all.argmax.unwrap();
            for (i, hits) in hits.iter().enumerate() {
                assert_eq!(hits.len(), 9);
                for hit in hits {
                    let pair = i * index.lengths.len() + hit.document as usize;
                    assert_eq!(hit.score, all.values[pair], "{} {name}", device.name);
                    assert_eq!(hit.winners, argmax.pair(pair), "{} {name}", device.name);
                }
            }
        }
    }
}

/// Masked and non-finite query tokens take no part; a query of nothing else finds documents of score 0.
#[test]
fn odd_queries() {
    let mut index = Index::new("odd", 4, 32, 20, 120);
    let segments = index.segments(50, |_| true);
    let dim = index.codec.dim();
    let mut mask = [true; QUERIES * QUERY_LEN];
    for row in [0, 3, 8, 9, 33] {
        // What is masked is not looked at.
        index.queries[row * dim] = f32::NAN;
        mask[row] = false;
    }
    mask[2 * QUERY_LEN..3 * QUERY_LEN].fill(false);
    // Not masked, and no winner either.
    index.queries[4 * QUERY_LEN * dim + 3] = f32::NAN;
    let options = PlaidOptions {
        top_k: 5,
        n_ivf_probe: 2,
        n_full_scores: Some(4 * 100),
        precision: Precision::Exact,
        ..PlaidOptions::default()
    };
    for exact in [false, true] {
        let mut op = index.op(&segments, PlaidOptions { exact, ..options });
        op.q = index.q().with_mask(&mask[..]).unwrap();
        let expected = oracle::plaid_search(&op).hits;
        for device in devices() {
            if let Some(got) = run(device, &op) {
                assert_close(&format!("{} exact {exact}", device.name), &got, &expected);
            }
        }
    }
}

/// Nothing to search, nothing to search for, and more asked for than there is.
#[test]
fn empties() {
    let index = Index::new("empties", 2, 16, 10, 30);
    let (none, some) = (index.segments(10, |_| false), index.segments(10, |_| true));
    let empty_documents = vec![index.codec.segment(vec![0, 0, 0], Encoded::default()).unwrap()];
    for device in devices() {
        for options in [PlaidOptions::default(), PlaidOptions { exact: true, ..PlaidOptions::default() }] {
            let Some(got) = run(device, &index.op(&none, options)) else { continue };
            assert_eq!(got, vec![vec![]; QUERIES]);
            let got = run(device, &index.op(&empty_documents, options)).unwrap();
            for hits in got {
                assert_eq!(
                    hits.iter().map(|h| (h.document, h.score)).collect::<Vec<_>>(),
                    [(0, 0.0), (1, 0.0)]
                );
            }
            let nobody = Tokens::padded(&[] as &[f32], &[0, 4, 16]).unwrap();
            assert!(run(device, &PlaidSearch { q: nobody, ..index.op(&some, options) }).unwrap().is_empty());
            let wordless = Tokens::padded(&[] as &[f32], &[2, 0, 16]).unwrap();
            let got = run(device, &PlaidSearch { q: wordless, ..index.op(&some, options) }).unwrap();
            assert!(got.len() == 2 && got.iter().flatten().all(|hit| hit.score == 0.0));
            let most = PlaidOptions {
                top_k: usize::MAX,
                n_full_scores: Some(usize::MAX),
                n_ivf_probe: usize::MAX,
                ..options
            };
            let got = run(device, &index.op(&some, most)).unwrap();
            assert!(got.iter().all(|hits| hits.len() == 30));
        }
    }
}

/// What does not fit is refused by name.
#[test]
fn errors_say_what_is_wrong() {
    let index = Index::new("errors", 2, 16, 10, 30);
    let other = Index::new("other", 4, 16, 10, 30);
    let segments = index.segments(30, |_| true);
    let engine = &devices()[0].engine;
    let short = Bitmap::full(29);
    let good = index.op(&segments, PlaidOptions::default());
    let with = |options: PlaidOptions| PlaidSearch { options, ..good.clone() };
    let defaults = PlaidOptions::default();
    let wrong_dim = vec![0f32; 8];
    let cases = [
        ("top_k", with(PlaidOptions { top_k: 0, ..defaults })),
        ("n_ivf_probe", with(PlaidOptions { n_ivf_probe: 0, ..defaults })),
        ("n_full_scores", with(PlaidOptions { n_full_scores: Some(0), ..defaults })),
        (
            "centroid_score_threshold",
            with(PlaidOptions { centroid_score_threshold: Some(f32::NAN), ..defaults }),
        ),
        ("live", PlaidSearch { live: Some(&short), ..good.clone() }),
        ("subset", PlaidSearch { subset: Some(&short), ..good.clone() }),
        ("Q", PlaidSearch { q: Tokens::padded(&wrong_dim, &[1, 8]).unwrap(), ..good.clone() }),
        (
            "segments",
            PlaidSearch {
                index: PlaidIndex::Host {
                    codec: other.codec.as_codec(),
                    segments: segments.iter().collect(),
                },
                ..good.clone()
            },
        ),
    ];
    for (argument, op) in cases {
        let error = engine.plaid_search(op).unwrap_err();
        assert_eq!(error.argument(), Some(argument), "{error}");
    }
    let segments: Vec<&Segment> = segments.iter().collect();
    let found =
        Searched::all(&index.codec, &segments).search(engine, index.q(), PlaidOptions::top_k(3)).unwrap();
    assert!(found.iter().all(|hits| hits.len() == 3));
}
