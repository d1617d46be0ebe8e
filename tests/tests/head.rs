//! The fused projection head, forward and backward, against the float64 oracle.

use maxsim::{
    DType, DataBuf, FromHidden, FromHiddenBackward, HeadGradients, Op, Options, Output, Scores, Tensor,
    TensorRef, Tokens, oracle,
};
use maxsim_testkit::cases::Random;
use maxsim_testkit::{compare, tolerance};
use maxsim_tests::devices;

struct Case {
    q: DataBuf,
    h: DataBuf,
    w: DataBuf,
    b: Option<DataBuf>,
    q_mask: Vec<bool>,
    lengths: Vec<u32>,
    shape: [usize; 6],
    normalize: bool,
}

impl Case {
    /// `shape`: Nq, Nd, Lq, Ld, d, d_model.
    fn new(shape: [usize; 6], dtype: DType, normalize: bool, bias: bool) -> Self {
        let [nq, nd, lq, ld, d, d_model] = shape;
        let mut random = Random::named(&format!("{shape:?} {dtype}"));
        let mut values = |n: usize, scale: f32| {
            let values: Vec<f32> = (0..n).map(|_| scale * random.normal()).collect();
            DataBuf::from_f32(&values, dtype)
        };
        let (q, h) = (values(nq * lq * d, 0.3), values(nd * ld * d_model, 1.0));
        let (w, b) = (values(d * d_model, 0.2), bias.then(|| values(d, 0.5)));
        let q_mask = (0..nq * lq).map(|_| random.chance(0.8)).collect();
        let lengths = (0..nd).map(|j| if j == 1 { 0 } else { random.below(ld + 1) as u32 }).collect();
        Self { q, h, w, b, q_mask, lengths, shape, normalize }
    }

    fn op(&self) -> FromHidden<'_> {
        let [nq, nd, lq, ld, d, d_model] = self.shape;
        let q = Tokens::padded(&self.q, &[nq, lq, d]).and_then(|q| q.with_mask(&self.q_mask)).expect("q");
        let h = Tokens::padded(&self.h, &[nd, ld, d_model]).and_then(|h| h.with_lengths(&self.lengths));
        let w = TensorRef::new(&self.w, &[d, d_model]).expect("w");
        let b = self.b.as_ref().map(|b| TensorRef::new(b, &[d]).expect("b"));
        let mut op = FromHidden::new(q, h.expect("h"), w, b);
        op.options = Options { normalize: self.normalize, argmax: true, ..Options::default() };
        op
    }
}

fn run(engine: &maxsim::Engine, op: &FromHidden<'_>) -> Scores {
    match engine.run(&Op::FromHidden(op.clone())).expect("scores") {
        Output::Scores(scores) => scores,
        other => panic!("{other:?}"),
    }
}

const SHAPES: [[usize; 6]; 7] = [
    [2, 3, 5, 7, 16, 24],
    [1, 4, 9, 33, 33, 7],
    [3, 2, 1, 12, 1, 1],
    [2, 5, 17, 40, 96, 130],
    [2, 2, 0, 3, 8, 4],
    [0, 3, 2, 3, 8, 4],
    [1, 9, 32, 30, 128, 384],
];

fn cases() -> impl Iterator<Item = Case> {
    SHAPES.into_iter().flat_map(|shape| {
        [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(move |dtype| {
            [(true, true), (false, false), (true, false)]
                .map(|(normalize, bias)| Case::new(shape, dtype, normalize, bias))
        })
    })
}

#[test]
fn scores_and_winners() {
    for case in cases() {
        let op = case.op();
        let exact = oracle::from_hidden(&op);
        for device in devices() {
            let got = run(&device.engine, &op);
            assert_eq!(got.shape, [case.shape[0], case.shape[1]]);
            let t = tolerance::from_hidden(case.h.dtype(), case.shape[4]);
            let context = format!("{} {:?} {}", device.name, case.shape, case.h.dtype());
            compare::scores("scores", &got.shape, &got.values, &exact.values, t).assert(&context);
            let winners = got.argmax.expect("asked for");
            compare::argmax("argmax", &op.scoring(), &winners, &exact.argmax.values, &exact.rows, t)
                .assert(&context);
        }
    }
}

#[test]
fn gradients() {
    for case in cases() {
        let op = case.op();
        let mut random = Random::named("grad");
        let grad: Vec<f32> = (0..case.shape[0] * case.shape[1]).map(|_| random.normal()).collect();
        let mut first: Option<Vec<Vec<u32>>> = None;
        for device in devices() {
            let winners = run(&device.engine, &op).argmax;
            let backward =
                FromHiddenBackward { argmax: winners.as_ref(), ..FromHiddenBackward::new(op.clone(), &grad) };
            let exact = oracle::from_hidden_backward(&backward);
            let got = device.engine.maxsim_from_hidden_backward(backward).expect("gradients");
            assert_eq!(got.b.is_some(), case.b.is_some());
            let context = format!("{} {:?} {}", device.name, case.shape, case.h.dtype());
            let values = |t: &Tensor| t.data().as_ref().to_f32();
            for (name, got, exact) in [
                ("grad_Q", &got.q, &exact.q),
                ("grad_H", &got.h, &exact.h),
                ("grad_W", &got.w, &exact.w),
                ("grad_b", &got.b, &exact.b),
            ] {
                if let Some(got) = got {
                    assert_eq!(got.dtype(), case.h.dtype());
                    compare::gradient(name, got.shape(), &values(got), exact, got.dtype()).assert(&context);
                }
            }
            // Threads do not show: devices() lists every level of the CPU with one thread and then with two.
            if !device.name.starts_with("cpu") {
                continue;
            }
            let all = [&got.q, &got.h, &got.w, &got.b].into_iter().flatten();
            let bits: Vec<Vec<u32>> = all.map(|t| values(t).iter().map(|x| x.to_bits()).collect()).collect();
            match first.take() {
                Some(one_thread) => assert_eq!(one_thread, bits, "{context}"),
                None => first = Some(bits),
            }
        }
    }
}

#[test]
fn only_what_is_wanted_is_returned() {
    let case = Case::new(SHAPES[0], DType::F32, true, true);
    let grad = vec![1.0; 6];
    let none = HeadGradients { q: false, h: false, w: false, b: false };
    let engine = &devices()[0].engine;
    for wants in [
        HeadGradients { q: true, ..none },
        HeadGradients { h: true, ..none },
        HeadGradients { w: true, ..none },
        HeadGradients { b: true, ..none },
    ] {
        let op = FromHiddenBackward { wants, ..FromHiddenBackward::new(case.op(), &grad) };
        let got = engine.maxsim_from_hidden_backward(op).expect("gradients");
        let has = [got.q.is_some(), got.h.is_some(), got.w.is_some(), got.b.is_some()];
        assert_eq!(has, [wants.q, wants.h, wants.w, wants.b]);
    }
}

#[test]
fn bad_input_is_refused() {
    let case = Case::new([2, 3, 5, 7, 16, 24], DType::F32, true, true);
    let engine = &devices()[0].engine;
    let refusal = |change: &dyn Fn(&mut FromHidden<'_>)| {
        let mut op = case.op();
        change(&mut op);
        let error = engine.maxsim_from_hidden(op).expect_err("bad input");
        (error.code().as_str(), error.argument().unwrap_or_default().to_owned())
    };
    static WIDE: [f32; 32 * 24] = [0.0; 32 * 24];
    let w = |shape: &[usize]| TensorRef::new(&WIDE[..shape.iter().product()], shape).expect("shape");
    assert_eq!(refusal(&|op| op.w = w(&[15, 24])), ("ERR_SHAPE", "W".into()));
    assert_eq!(refusal(&|op| op.w = w(&[16, 23])), ("ERR_SHAPE", "H".into()));
    assert_eq!(refusal(&|op| op.w = w(&[16])), ("ERR_SHAPE", "W".into()));
    assert_eq!(refusal(&|op| op.b = Some(w(&[15]))), ("ERR_SHAPE", "b".into()));
    let error =
        engine.maxsim_from_hidden_backward(FromHiddenBackward::new(case.op(), &[1.0])).expect_err("short");
    assert_eq!((error.code().as_str(), error.argument()), ("ERR_SHAPE", Some("grad")));
}
