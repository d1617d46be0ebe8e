//! Operators on a device whose bindings are far too small for their operands: everything is split, and nothing changes but the
//! order in which gradients are added up. Without an adapter, tests print a skip.

use std::sync::Arc;

use maxsim_core::plaid::{Bitmap, Segment};
use maxsim_core::{
    ApproxScore, Backward, Codec, DType, DataBuf, Engine, Forward, FromHidden, FromHiddenBackward, Op,
    Options, Output, PlaidIndex, PlaidOptions, PlaidSearch, Residual, ResidualLayout, Retrieve,
    RetrieveOptions, Scores, Tensor, TensorRef, Tokens, f16, oracle,
};
use maxsim_testkit::cases::Random;
use maxsim_testkit::cases::forward::{Case, Family, Params};
use maxsim_testkit::compare;
use maxsim_wgpu::{WgpuBackend, WgpuOptions};

/// An engine as the device is, and one with small bindings and few workgroups per dimension.
fn engines() -> Option<[Engine; 2]> {
    let small =
        WgpuOptions { max_binding: Some(32 << 10), max_workgroups: Some(100), ..WgpuOptions::default() };
    let open = |options| match pollster::block_on(WgpuBackend::new(options)) {
        Ok(backend) => Some(Engine::new(vec![Arc::new(backend)]).unwrap().silent()),
        Err(error) => {
            println!("1 skipped: {error}");
            None
        }
    };
    Some([open(WgpuOptions::default())?, open(small)?])
}

fn score(engine: &Engine, op: Op<'_>) -> Scores {
    match engine.run(&op) {
        Ok(Output::Scores(scores)) => scores,
        other => panic!("{other:?}"),
    }
}

fn normal(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.normal()).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.data().as_ref().to_f32()
}

#[test]
fn gradients() {
    let Some(engines) = engines() else { return };
    let mut random = Random::named("small gradients");
    for family in Family::ALL {
        for (dtype, normalize) in [(DType::F32, true), (DType::BF16, false)] {
            let params = Params {
                queries: 5,
                documents: 9,
                query_len: 40,
                document_len: 70,
                dim: 24,
                dtypes: (dtype, dtype),
                normalize,
                ..Params::default()
            };
            let case = Case::generate("small gradients", family, params, &mut random);
            let op = case.op();
            let grad = normal(&mut random, op.pair_count());
            for engine in &engines {
                let mut scoring = op.clone();
                scoring.options.argmax = true;
                let argmax = score(engine, Op::Forward(scoring)).argmax;
                let backward = Backward { argmax: argmax.as_ref(), ..Backward::new(op.clone(), &grad) };
                let exact = oracle::backward(&backward);
                let got = engine.backward(backward).unwrap();
                for (name, got, exact) in [("grad_Q", got.q, exact.q), ("grad_D", got.d, exact.d)] {
                    let got = got.unwrap();
                    compare::gradient(name, got.shape(), &values(&got), &exact, dtype)
                        .assert(format!("{family:?} {dtype}"));
                }
            }
        }
    }
}

#[test]
fn the_fused_head() {
    let Some([whole, split]) = engines() else { return };
    let mut random = Random::named("small head");
    let [nq, nd, lq, ld, d, d_model] = [3, 8, 9, 50, 20, 30];
    for dtype in [DType::F32, DType::F16] {
        let mut tensor = |count: usize, scale: f32| {
            let values: Vec<f32> = normal(&mut random, count).iter().map(|x| x * scale).collect();
            DataBuf::from_f32(&values, dtype)
        };
        let (q, h) = (tensor(nq * lq * d, 0.3), tensor(nd * ld * d_model, 1.0));
        let (w, b) = (tensor(d * d_model, 0.2), tensor(d, 0.5));
        let mut op = FromHidden::new(
            Tokens::padded(&q, &[nq, lq, d]).unwrap(),
            Tokens::padded(&h, &[nd, ld, d_model]).unwrap(),
            TensorRef::new(&w, &[d, d_model]).unwrap(),
            Some(TensorRef::new(&b, &[d]).unwrap()),
        );
        op.options.argmax = true;
        let one = score(&whole, Op::FromHidden(op.clone()));
        assert_eq!(one, score(&split, Op::FromHidden(op.clone())));
        let grad = normal(&mut random, nq * nd);
        let backward =
            FromHiddenBackward { argmax: one.argmax.as_ref(), ..FromHiddenBackward::new(op, &grad) };
        let exact = oracle::from_hidden_backward(&backward);
        let got = split.maxsim_from_hidden_backward(backward).unwrap();
        for (name, got, exact) in [
            ("grad_Q", got.q, exact.q),
            ("grad_H", got.h, exact.h),
            ("grad_W", got.w, exact.w),
            ("grad_b", got.b, exact.b),
        ] {
            let got = got.unwrap();
            compare::gradient(name, got.shape(), &values(&got), &exact, dtype).assert(dtype);
        }
    }
}

const DIM: usize = 40;
const NBITS: u32 = 2;
const CENTROIDS: usize = 24;

/// Centroids, weights and documents of a made-up index.
struct Made {
    centroids: Vec<f32>,
    lengths: Vec<u32>,
    codes: Vec<u32>,
    residuals: Vec<u8>,
}

impl Made {
    fn new(random: &mut Random, lengths: Vec<u32>) -> Self {
        let tokens = lengths.iter().sum::<u32>() as usize;
        Self {
            centroids: normal(&mut Random::named("centroids"), CENTROIDS * DIM),
            codes: (0..tokens).map(|_| random.below(CENTROIDS) as u32).collect(),
            residuals: (0..tokens * DIM / 4).map(|_| random.bits() as u8).collect(),
            lengths,
        }
    }

    fn codec(&self) -> Codec<'_> {
        let centroids = TensorRef::new(&self.centroids, &[CENTROIDS, DIM]).unwrap();
        Codec::new(centroids, vec![-0.4, -0.1, 0.1, 0.4], NBITS, ResidualLayout::Plaid).unwrap()
    }

    fn offsets(&self) -> Vec<u32> {
        let ends = self.lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    }

    fn segment(&self) -> Segment {
        let mut token = [0f32; DIM];
        let width = DIM / 4;
        let inverse = |row: usize| {
            let residual = &self.residuals[row * width..(row + 1) * width];
            self.codec().decode(self.codes[row] as usize, residual, &mut token);
            f16::from_f32(token.iter().map(|x| x * x).sum::<f32>().sqrt().recip())
        };
        let norms = (0..self.codes.len()).map(inverse).collect();
        let codes = self.codes.clone();
        Segment::build(self.offsets(), codes, self.residuals.clone(), norms, &self.codec()).unwrap()
    }
}

/// Lengths up to 12, of `count` documents.
fn lengths(random: &mut Random, count: usize) -> Vec<u32> {
    (0..count).map(|_| random.below(13) as u32).collect()
}

#[test]
fn residual_documents() {
    let Some([whole, split]) = engines() else { return };
    let mut random = Random::named("small residuals");
    // The longest document does not fit a binding of the small device.
    let mut of = lengths(&mut random, 20);
    of.push(1500);
    let made = Made::new(&mut random, of);
    let offsets = made.offsets();
    let documents = || Residual::packed(made.codec(), &made.codes, &made.residuals, &offsets).unwrap();
    let q = normal(&mut random, 3 * 70 * DIM);
    let q = || Tokens::padded(&q, &[3, 70, DIM]).unwrap();
    for normalize in [true, false] {
        let options = Options { normalize, argmax: true, ..Options::default() };
        let op = Forward::maxsim(q(), documents(), options);
        let one = score(&whole, Op::Forward(op.clone()));
        compare::forward(&op, &one, &oracle::forward(&op), 1e-5, false).assert("residuals");
        assert_eq!(one, score(&split, Op::Forward(op.clone())));
        let resident = split.residual_corpus(documents()).unwrap();
        assert_eq!(one, split.maxsim(q(), resident.documents(), options).unwrap());
        let grad = normal(&mut random, op.pair_count());
        let backward = Backward { argmax: one.argmax.as_ref(), ..Backward::new(op, &grad) };
        let exact = oracle::backward(&backward);
        let got = split.backward(backward).unwrap().q.unwrap();
        compare::gradient("grad_Q", got.shape(), &values(&got), &exact.q, DType::F32).assert("residuals");
    }
    // Approximate scores: more documents, codes and query tokens than fit.
    let lengths = vec![7u32; 900];
    let codes: Vec<u32> = (0..900 * 7).map(|_| random.below(CENTROIDS) as u32).collect();
    let table = normal(&mut random, CENTROIDS * 350);
    let table = TensorRef::new(&table, &[CENTROIDS, 350]).unwrap();
    let op = ApproxScore::new(table, &codes, [900, 7], &lengths).unwrap();
    let one = score(&whole, Op::ApproxScore(op.clone()));
    let exact = oracle::plaid_approx_score(&op);
    compare::scores("approx", &one.shape, &one.values, &exact, 1e-5).assert("approximate scores");
    assert_eq!(one, score(&split, Op::ApproxScore(op)));
}

/// In host memory and held by the device, whole and in shards.
#[test]
fn an_index() {
    let Some([whole, split]) = engines() else { return };
    let mut random = Random::named("small index");
    let (first, second) = (lengths(&mut random, 300), lengths(&mut random, 80));
    let made = Made::new(&mut random, first);
    let segments = [made.segment(), Made::new(&mut random, second).segment()];
    let segments: Vec<&Segment> = segments.iter().collect();
    let (codec, total) = (made.codec(), 380);
    let live = Bitmap::of(total, (0..total).filter(|d| d % 7 != 3)).unwrap();
    let subset = Bitmap::of(total, (0..total).filter(|d| d % 3 != 1)).unwrap();
    let held = [&whole, &split].map(|engine| engine.upload_index(&codec, &segments).unwrap());
    assert!(held[0].meta().bytes > 0 && held[0].meta().documents == total);
    let options = PlaidOptions { top_k: 5, n_ivf_probe: 2, explain: true, ..PlaidOptions::default() };
    let probing = PlaidOptions { n_full_scores: Some(160), ..options };
    // Queries that fit a block of rows, and queries that do not.
    for len in [6, 150] {
        let q = normal(&mut random, 2 * len * DIM);
        let q = Tokens::padded(&q, &[2, len, DIM]).unwrap();
        for (what, options, live, subset) in [
            ("everything", options, None, None),
            ("exact", PlaidOptions { exact: true, ..options }, Some(&live), None),
            ("probing", probing, None, None),
            ("some", PlaidOptions { n_full_scores: Some(120), ..options }, Some(&live), Some(&subset)),
            ("threshold", PlaidOptions { centroid_score_threshold: Some(0.25), ..probing }, None, None),
        ] {
            let mut op = PlaidSearch::new(q.clone(), codec.clone(), segments.clone(), options);
            (op.live, op.subset) = (live, subset);
            let context = format!("{what}, queries of {len}");
            let one = whole.plaid_search(op.clone()).unwrap();
            for (got, exact) in one.iter().zip(oracle::plaid_search(&op).hits) {
                assert_eq!(got.len(), exact.len(), "{context}");
                for (got, exact) in got.iter().zip(exact) {
                    let close = (got.score - exact.score).abs() <= 1e-5 * exact.score.abs().max(1.0);
                    assert!(close, "{context}: {} {}", got.score, exact.score);
                }
            }
            assert_eq!(one, split.plaid_search(op.clone()).unwrap(), "{context}");
            for (engine, held) in [&whole, &split].into_iter().zip(&held) {
                op.index = PlaidIndex::Resident(held);
                assert_eq!(one, engine.plaid_search(op.clone()).unwrap(), "{context}, held");
            }
        }
    }
}

/// Similarities with centroids that do not fit a binding together: a table for every few query rows.
#[test]
fn tables_in_parts() {
    let Some([whole, split]) = engines() else { return };
    let mut random = Random::named("tables in parts");
    let (dim, count) = (8, 300);
    for nbits in [1, 2, 4, 8] {
        let lengths = [9u32, 0, 130, 64, 1];
        let tokens = lengths.iter().sum::<u32>() as usize;
        let offsets: Vec<u32> = [0, 9, 9, 139, 203, 204].into();
        let centroids = normal(&mut random, count * dim);
        let centroids = TensorRef::new(&centroids, &[count, dim]).unwrap();
        let mut weights = normal(&mut random, 1 << nbits);
        weights.sort_by(f32::total_cmp);
        let codec = Codec::new(centroids, weights, nbits, ResidualLayout::Plaid).unwrap();
        let codes: Vec<u32> = (0..tokens).map(|_| random.below(count) as u32).collect();
        let width = codec.residual_bytes();
        let residuals: Vec<u8> = (0..tokens * width).map(|_| random.bits() as u8).collect();
        let documents = || Residual::packed(codec.clone(), &codes, &residuals, &offsets).unwrap();
        for (queries, len) in [(2, 75), (7, 5)] {
            let q = normal(&mut random, queries * len * dim);
            let q = || Tokens::padded(&q, &[queries, len, dim]).unwrap();
            let options = Options { normalize: true, argmax: true, ..Options::default() };
            let pairs: Vec<u32> = (0..12).map(|_| random.below(queries) as u32).collect();
            let others: Vec<u32> = (0..12).map(|_| random.below(lengths.len()) as u32).collect();
            for op in [
                Forward::maxsim(q(), documents(), options),
                Forward::score_pairs(q(), documents(), pairs, others, options).unwrap(),
            ] {
                let one = score(&whole, Op::Forward(op.clone()));
                let context = format!("{nbits} bits, {queries} queries of {len}");
                compare::forward(&op, &one, &oracle::forward(&op), 1e-5, false).assert(&context);
                assert_eq!(one, score(&split, Op::Forward(op)), "{context}");
            }
        }
    }
}

/// Running an operator compiles nothing that `prepare_like` has not, and `explain` names what was compiled.
#[test]
fn prepared_operators() {
    let mut random = Random::named("prepared operators");
    let [n, l, d_model] = [4, 20, 24];
    let data = |random: &mut Random, count: usize, dtype| DataBuf::from_f32(&normal(random, count), dtype);
    let q = data(&mut random, n * l * DIM, DType::F16);
    let d = data(&mut random, n * l * DIM, DType::BF16);
    let q = || Tokens::padded(&q, &[n, l, DIM]).unwrap();
    let d = || Tokens::padded(&d, &[n, l, DIM]).unwrap();
    let options = Options { normalize: true, ..Options::default() };
    let (grad, one_each) = (normal(&mut random, n * n), normal(&mut random, n));

    let hidden = data(&mut random, n * l * d_model, DType::F16);
    let w = normal(&mut random, DIM * d_model);
    let head = FromHidden::new(
        q(),
        Tokens::padded(&hidden, &[n, l, d_model]).unwrap(),
        TensorRef::new(&w, &[DIM, d_model]).unwrap(),
        None,
    );

    let of = lengths(&mut random, 200);
    let made = Made::new(&mut random, of);
    let offsets = made.offsets();
    let documents = || Residual::packed(made.codec(), &made.codes, &made.residuals, &offsets).unwrap();
    let segment = made.segment();
    let subset = Bitmap::of(200, (0..200).filter(|d| d % 3 != 1)).unwrap();
    let probing =
        PlaidOptions { top_k: 5, n_full_scores: Some(80), explain: true, ..PlaidOptions::default() };
    let mut search = PlaidSearch::new(q(), made.codec(), vec![&segment], probing);
    search.subset = Some(&subset);

    let table = normal(&mut random, CENTROIDS * 9);
    let table = TensorRef::new(&table, &[CENTROIDS, 9]).unwrap();
    let mut top = RetrieveOptions::top_k(2);
    top.scoring.argmax = true;
    for op in [
        Op::Forward(Forward::maxsim(q(), d(), options)),
        Op::Forward(Forward::pairs(q(), d(), options.with_argmax())),
        Op::Forward(Forward::maxsim(q(), documents(), options)),
        Op::Retrieve(Retrieve::new(q(), d(), top)),
        Op::Backward(Backward::new(Forward::maxsim(q(), d(), options), &grad)),
        Op::Backward(Backward::new(Forward::pairs(q(), d(), Options::default()), &one_each)),
        Op::FromHidden(head.clone()),
        Op::FromHiddenBackward(FromHiddenBackward::new(head, &grad)),
        Op::ApproxScore(ApproxScore::packed(table, &made.codes, &offsets).unwrap()),
        Op::PlaidSearch(search),
    ] {
        let Ok(backend) = pollster::block_on(WgpuBackend::new(WgpuOptions::default())) else { return };
        let backend = Arc::new(backend);
        let engine = Engine::new(vec![backend.clone()]).unwrap().silent();
        engine.prepare_like(&op).unwrap();
        let prepared = backend.compilations();
        engine.run(&op).unwrap();
        assert_eq!(backend.compilations(), prepared, "{}", op.name());
        let plan = engine.explain(&op).unwrap();
        let (_, kernels) = plan.choices.iter().find(|(name, _)| *name == "kernels").unwrap();
        assert!((1..=prepared).contains(&kernels.split(' ').count()), "{}: {kernels}", op.name());
    }
}
