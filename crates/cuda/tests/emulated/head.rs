//! Gradients of the projection head, on tensor cores and without.

use maxsim_core::{
    DType, DataBuf, FromHidden, FromHiddenBackward, Options, Tensor, TensorRef, Tokens, oracle,
};
use maxsim_testkit::cases::Random;
use maxsim_testkit::compare;

use crate::{engine, paths};

/// Gradients of `[Nq, Nd, Lq, Ld, d, d_model]` times `size`, as float64 has them.
fn check([nq, nd, lq, ld, d, model]: [usize; 6], dtype: DType, normalize: bool, size: f32) {
    let mut random = Random::named(&format!("{nq} {nd} {lq} {ld} {d} {model} {dtype}"));
    let mut values = |count: usize, scale: f32| {
        let values: Vec<f32> = (0..count).map(|_| scale * random.normal()).collect();
        DataBuf::from_f32(&values, dtype)
    };
    let (q, h) = (values(nq * lq * d, 0.3), values(nd * ld * model, 1.0));
    let (w, b) = (values(d * model, 0.2), values(d, 0.5));
    let lengths: Vec<u32> = (0..nd).map(|j| if j == 1 { 0 } else { random.below(ld + 1) as u32 }).collect();
    let grad: Vec<f32> = (0..nq * nd).map(|_| size * random.normal()).collect();
    let q = Tokens::padded(&q, &[nq, lq, d]).unwrap();
    let h = Tokens::padded(&h, &[nd, ld, model]).unwrap().with_lengths(&lengths).unwrap();
    let mut op = FromHidden::new(q, h, TensorRef::new(&w, &[d, model]).unwrap(), None);
    op.b = Some(TensorRef::new(&b, &[d]).unwrap());
    op.options = Options { normalize, ..Options::default() };
    for path in paths() {
        let engine = engine(path);
        let op = FromHiddenBackward::new(op.clone(), &grad);
        // Winners among near equals are the device's.
        let scored = Options { argmax: true, ..op.forward.options };
        let scored = FromHidden { options: scored, ..op.forward.clone() };
        let winners = engine.maxsim_from_hidden(scored).unwrap().argmax;
        let op = FromHiddenBackward { argmax: winners.as_ref(), ..op };
        let exact = oracle::from_hidden_backward(&op);
        let got = engine.maxsim_from_hidden_backward(op).unwrap();
        let values = |t: &Tensor| t.data().as_ref().to_f32();
        for (name, got, exact) in [
            ("grad_Q", &got.q, &exact.q),
            ("grad_H", &got.h, &exact.h),
            ("grad_W", &got.w, &exact.w),
            ("grad_b", &got.b, &exact.b),
        ] {
            let got = got.as_ref().expect("all gradients");
            let context = format!("{path} d={d} d_model={model} {dtype} {normalize}");
            compare::gradient(name, got.shape(), &values(got), exact, got.dtype()).assert(context);
        }
    }
}

#[test]
fn gradients_on_tensor_cores() {
    // More rows than a block takes at a time, columns in two blocks, widths that end inside of a tile.
    for shape in
        [[2, 3, 40, 90, 128, 130], [3, 2, 5, 30, 48, 8], [1, 4, 33, 50, 96, 257], [2, 2, 9, 12, 4, 127]]
    {
        for dtype in [DType::F16, DType::BF16] {
            check(shape, dtype, true, 1.0);
        }
    }
    check([2, 3, 17, 40, 64, 72], DType::BF16, false, 1.0);
    // Far outside of what f16 can hold.
    check([2, 3, 17, 40, 64, 72], DType::BF16, true, 1e-12);
    check([2, 3, 17, 40, 64, 72], DType::BF16, true, 1e12);
}

#[test]
fn gradients_elsewhere() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        check([2, 3, 9, 20, 33, 20], dtype, true, 1.0);
    }
}
