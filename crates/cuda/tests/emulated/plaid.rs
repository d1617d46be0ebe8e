//! Search over a PLAID index: every stage against the float64 oracle, and what must not change an answer.

use maxsim_core::plaid::{Bitmap, Segment};
use maxsim_core::{
    Codec, DType, DataBuf, Documents, Engine, Forward, Hit, Options, PlaidIndex, PlaidOptions, PlaidSearch,
    ResidualLayout, TensorRef, Tokens, f16, oracle,
};
use maxsim_testkit::cases::Random;

use crate::{engine, paths, score};

/// An index whose codes and residuals are random: searching does not mind.
struct Index {
    nbits: u32,
    dim: usize,
    centroids: Vec<f32>,
    weights: Vec<f32>,
    lengths: Vec<u32>,
    codes: Vec<u32>,
    residuals: Vec<u8>,
}

fn unit_vectors(random: &mut Random, count: usize, dim: usize) -> Vec<f32> {
    let mut values: Vec<f32> = (0..count * dim).map(|_| random.normal()).collect();
    for vector in values.chunks_mut(dim) {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    values
}

impl Index {
    fn new(random: &mut Random, nbits: u32, dim: usize, centroids: usize, documents: usize) -> Self {
        let buckets = 1 << nbits;
        // Some documents are empty, some repeat a centroid.
        let lengths: Vec<u32> = (0..documents).map(|_| random.below(9) as u32).collect();
        let tokens = lengths.iter().sum::<u32>() as usize;
        let width = (dim * nbits as usize).div_ceil(8);
        Self {
            nbits,
            dim,
            centroids: unit_vectors(random, centroids, dim),
            weights: (0..buckets).map(|i| (i as f32 + 0.5) * 0.4 / buckets as f32 - 0.2).collect(),
            lengths,
            codes: (0..tokens).map(|_| random.below(centroids) as u32).collect(),
            residuals: (0..tokens * width).map(|_| random.bits() as u8).collect(),
        }
    }

    fn shape(&self) -> [usize; 2] {
        [self.centroids.len() / self.dim, self.dim]
    }

    fn codec<'a>(&'a self, shape: &'a [usize; 2]) -> Codec<'a> {
        let centroids = TensorRef::new(&self.centroids, shape).unwrap();
        Codec::new(centroids, &self.weights[..], self.nbits, ResidualLayout::Plaid).unwrap()
    }

    /// Segments of `count` documents each.
    fn segments(&self, codec: &Codec<'_>, count: usize) -> Vec<Segment> {
        let width = codec.residual_bytes();
        let mut decoded = vec![0f32; self.dim];
        let mut first = 0;
        let mut segments = Vec::new();
        for lengths in self.lengths.chunks(count) {
            let mut offsets = vec![0u32];
            for length in lengths {
                offsets.push(offsets[offsets.len() - 1] + length);
            }
            let tokens = first..first + offsets[lengths.len()] as usize;
            first = tokens.end;
            let norms = tokens.clone().map(|t| {
                codec.decode(
                    self.codes[t] as usize,
                    &self.residuals[t * width..(t + 1) * width],
                    &mut decoded,
                );
                let norm = decoded.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
                f16::from_f64(1.0 / norm.max(1e-6))
            });
            let norms = norms.collect();
            let residuals = self.residuals[tokens.start * width..tokens.end * width].to_vec();
            let codes = self.codes[tokens].to_vec();
            segments.push(Segment::build(offsets, codes, residuals, norms, codec).unwrap());
        }
        segments
    }
}

fn search(engine: &Engine, op: &PlaidSearch<'_>) -> Vec<Vec<Hit>> {
    engine.plaid_search(op.clone()).unwrap()
}

/// The same documents in the same order: random scores are not equal to rounding.
fn assert_close(context: &str, got: &[Vec<Hit>], expected: &[Vec<Hit>]) {
    assert_eq!(got.len(), expected.len(), "{context}");
    for (query, (got, expected)) in got.iter().zip(expected).enumerate() {
        let documents = |hits: &[Hit]| hits.iter().map(|hit| hit.document).collect::<Vec<_>>();
        assert_eq!(documents(got), documents(expected), "{context}, query {query}");
        for (g, e) in got.iter().zip(expected) {
            assert!((g.score - e.score).abs() <= 1e-4, "{context}, query {query}: {g:?}, expected {e:?}");
        }
    }
}

/// Queries of 5, none, 32 and `longest` tokens.
fn queries(random: &mut Random, longest: u32, dim: usize, dtype: DType) -> (DataBuf, Vec<u32>) {
    let offsets = vec![0, 5, 5, 37, 37 + longest];
    (DataBuf::from_f32(&unit_vectors(random, 37 + longest as usize, dim), dtype), offsets)
}

#[test]
fn searches_are_the_oracles() {
    let mut random = Random::named("cuda plaid");
    for (nbits, dim, centroids, documents, dtype) in [
        (4, 33, 40, 150, DType::F32),
        (2, 64, 24, 70, DType::F16),
        (4, 32, 30, 70, DType::BF16),
        (1, 16, 8, 40, DType::F32),
        (8, 20, 30, 50, DType::F32),
    ] {
        let index = Index::new(&mut random, nbits, dim, centroids, documents);
        let shape = index.shape();
        let codec = index.codec(&shape);
        let segments = index.segments(&codec, documents.div_ceil(3));
        let live = Bitmap::of(documents, (0..documents).filter(|d| d % 7 != 3)).unwrap();
        let subset = Bitmap::of(documents, (1..documents).step_by(3)).unwrap();
        // Longer than a tile: sums of blocks.
        let (data, offsets) = queries(&mut random, 140, dim, dtype);
        let q = Tokens::packed(data.as_ref(), dim, &offsets).unwrap();
        let options = PlaidOptions { top_k: 6, ..PlaidOptions::default() };
        let cut = PlaidOptions { n_ivf_probe: 2, n_full_scores: Some(48), ..options };
        let cases = [
            ("exact", PlaidOptions { exact: true, ..options }, None, None),
            ("exact, some", PlaidOptions { exact: true, ..options }, Some(&live), Some(&subset)),
            ("few", options, Some(&live), None),
            ("cut", cut, None, None),
            (
                "no cut",
                PlaidOptions { n_full_scores: Some(4 * (documents - 1)), n_ivf_probe: 1, ..cut },
                None,
                None,
            ),
            ("deleted", cut, Some(&live), None),
            ("subset", cut, Some(&live), Some(&subset)),
            ("threshold", PlaidOptions { centroid_score_threshold: Some(0.35), ..cut }, None, None),
            ("all probed", PlaidOptions { n_ivf_probe: 10_000, ..cut }, None, None),
            ("raw", PlaidOptions { normalize: false, ..cut }, None, None),
        ];
        for path in paths() {
            let engine = engine(path);
            let resident = engine.upload_index(&codec, &segments.iter().collect::<Vec<_>>()).unwrap();
            for (what, options, live, subset) in cases {
                let op = PlaidSearch::new(q.clone(), codec.clone(), segments.iter().collect(), options);
                let op = PlaidSearch { live, subset, ..op };
                let there = PlaidSearch { index: PlaidIndex::Resident(&resident), ..op.clone() };
                let context = format!("{path} {nbits} bit, d {dim}, {dtype}, {what}");
                assert_close(&context, &search(&engine, &there), &oracle::plaid_search(&op).hits);
            }
        }
    }
}

/// Masked and non-finite query tokens take no part; nothing to search (for) finds nothing.
#[test]
fn odd_queries_and_indexes() {
    let mut random = Random::named("cuda plaid odd");
    let index = Index::new(&mut random, 4, 32, 20, 60);
    let shape = index.shape();
    let codec = index.codec(&shape);
    let segments = index.segments(&codec, 25);
    let mut data = unit_vectors(&mut random, 4 * 6, 32);
    let mut mask = [true; 4 * 6];
    for row in [0, 3, 8] {
        data[row * 32] = f32::NAN;
        mask[row] = false;
    }
    mask[12..18].fill(false);
    data[19 * 32 + 3] = f32::NAN;
    let q = Tokens::padded(&data, &[4, 6, 32]).unwrap().with_mask(&mask[..]).unwrap();
    let options =
        PlaidOptions { top_k: 5, n_ivf_probe: 2, n_full_scores: Some(40), ..PlaidOptions::default() };
    let engine = engine(paths()[0]);
    for exact in [false, true] {
        let options = PlaidOptions { exact, ..options };
        let op = PlaidSearch::new(q.clone(), codec.clone(), segments.iter().collect(), options);
        let expected = oracle::plaid_search(&op).hits;
        let got = search(&engine, &op);
        for query in [0, 1, 3] {
            assert_close(
                &format!("exact {exact}, query {query}"),
                &got[query..=query],
                &expected[query..=query],
            );
        }
        // A query without a token finds nothing by probing, and everything at score 0 without.
        let nothing: Vec<(u32, f32)> = got[2].iter().map(|hit| (hit.document, hit.score)).collect();
        let all = (0..5).map(|document| (document, 0.0)).collect();
        assert_eq!(nothing, if exact { all } else { vec![] });

        let nobody = Tokens::padded(&[] as &[f32], &[0, 4, 32]).unwrap();
        assert!(search(&engine, &PlaidSearch { q: nobody, ..op.clone() }).is_empty());
        let none = Bitmap::empty(60);
        assert_eq!(search(&engine, &PlaidSearch { subset: Some(&none), ..op.clone() }), vec![vec![]; 4]);
        let op = PlaidSearch::new(q.clone(), codec.clone(), vec![], options);
        assert_eq!(search(&engine, &op), vec![vec![]; 4]);
    }
}

/// Segments and batch-mates do not show, bit for bit; scores and winners are those of scoring.
#[test]
fn nothing_else_changes_an_answer() {
    let mut random = Random::named("cuda plaid bits");
    let index = Index::new(&mut random, 4, 32, 40, 120);
    let shape = index.shape();
    let codec = index.codec(&shape);
    let whole = index.segments(&codec, 120);
    let cut = PlaidOptions { top_k: 4, n_ivf_probe: 2, n_full_scores: Some(40), ..PlaidOptions::default() };
    for (path, dtype) in paths().into_iter().flat_map(|path| [(path, DType::F32), (path, DType::F16)]) {
        let (data, offsets) = queries(&mut random, 12, 32, dtype);
        let q = Tokens::packed(data.as_ref(), 32, &offsets).unwrap();
        let engine = engine(path);
        let scored = Forward::maxsim(
            q.clone(),
            Documents::Residual(whole[0].residual(&codec)),
            Options::normalized().with_argmax(),
        );
        let scored = score(&engine, &scored);
        let winners = scored.argmax.unwrap();
        for exact in [false, true] {
            let options = PlaidOptions { explain: true, exact, ..cut };
            let op = PlaidSearch::new(q.clone(), codec.clone(), whole.iter().collect(), options);
            let all = search(&engine, &op);
            for (i, hits) in all.iter().enumerate() {
                assert_eq!(hits.len(), if i == 1 && !exact { 0 } else { 4 }, "{path} {dtype} query {i}");
                for hit in hits {
                    let pair = i * 120 + hit.document as usize;
                    assert_eq!(hit.score, scored.values[pair], "{path} {dtype} query {i}");
                    assert_eq!(hit.winners, winners.pair(pair), "{path} {dtype} query {i}");
                }
                let alone = PlaidSearch { q: q.slice(i..i + 1), ..op.clone() };
                assert_eq!(&search(&engine, &alone)[0], hits, "{path} {dtype} query {i} alone");
            }
            let segments = index.segments(&codec, 7);
            let op = PlaidSearch::new(q.clone(), codec.clone(), segments.iter().collect(), options);
            assert_eq!(search(&engine, &op), all, "{path} {dtype} segments");
        }
    }
}
