//! `plaid_approx_score` on every device against the float64 oracle.

use maxsim::{ApproxScore, DType, DataBuf, TensorRef, oracle};
use maxsim_testkit::cases::Random;
use maxsim_testkit::{compare, tolerance};
use maxsim_tests::devices;

#[test]
fn every_query_length_and_type() {
    let mut random = Random::named("approx_score");
    for width in [0, 1, 3, 4, 5, 8, 15, 16, 17, 32, 33, 47, 64, 65, 130] {
        for dtype in [DType::F32, DType::F16] {
            let centroids = 20;
            let mut table: Vec<f32> = (0..centroids * width).map(|_| random.normal()).collect();
            for x in &mut table {
                if random.chance(0.1) {
                    *x = [f32::NAN, f32::NEG_INFINITY][random.below(2)];
                } else if random.chance(0.001) {
                    *x = f32::INFINITY;
                }
            }
            let table = DataBuf::from_f32(&table, dtype);
            let shape = [70, 13];
            let mut lengths: Vec<u32> = (0..shape[0]).map(|_| random.below(14) as u32).collect();
            lengths[0] = 0;
            // What lies behind a length is not looked at.
            let codes: Vec<u32> = (0..shape[0] * shape[1])
                .map(|slot| match slot % shape[1] < lengths[slot / shape[1]] as usize {
                    true => random.below(centroids) as u32,
                    false => 1_000_000,
                })
                .collect();
            let tensor = || TensorRef::new(table.as_ref(), &[centroids, width]).unwrap();
            let op = ApproxScore::new(tensor(), &codes, shape, &lengths).unwrap();
            let exact = oracle::plaid_approx_score(&op);
            let t = tolerance::scores(DType::F32, DType::F32, Default::default(), width);
            for device in devices() {
                let context = format!("{} Lq={width} {dtype}", device.name);
                let got = device.engine.plaid_approx_score(op.clone()).unwrap();
                assert_eq!(got.shape, [shape[0]]);
                compare::scores("scores", &got.shape, &got.values, &exact, t).assert(&context);
                // Packed, the same bits.
                let kept: Vec<u32> = (0..shape[0])
                    .flat_map(|j| codes[j * shape[1]..].iter().copied().take(lengths[j] as usize))
                    .collect();
                let mut offsets = vec![0u32];
                offsets.extend(lengths.iter().scan(0, |end, l| {
                    *end += l;
                    Some(*end)
                }));
                let packed = ApproxScore::packed(tensor(), &kept, &offsets).unwrap();
                let packed = device.engine.plaid_approx_score(packed).unwrap();
                compare::same_bits("packed", &got.shape, &packed.values, &got.values).assert(&context);
            }
        }
    }
}
