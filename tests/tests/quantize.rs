//! Quantisers: every bit of fp8, int8 and residual codes, what they refuse, and what scores lose by them.

use maxsim::{
    Codec, DataBuf, E4M3, Element, Engine, Error, Forward, Options, Quantized, Residual, ResidualCodes,
    ResidualLayout, Result, ScaleMode, Scales, Tensor, TensorRef, Tokens, bf16, decode_residual, dequantize,
    f16, pack_residuals, quantize_fp8, quantize_int8,
};
use maxsim_testkit::cases::Random;
use maxsim_tests::{cpu_devices as devices, score};

const MODES: [ScaleMode; 2] = [ScaleMode::PerTensor, ScaleMode::PerToken];

type Quantizer = fn(&TensorRef<'_>, ScaleMode) -> Result<Quantized>;
/// Name, quantiser, largest stored value.
const QUANTIZERS: [(&str, Quantizer, f32); 2] =
    [("fp8", quantize_fp8, 448.0), ("int8", quantize_int8, 127.0)];

fn row(x: &[f32]) -> TensorRef<'_> {
    TensorRef::new(x, &[1, x.len()]).unwrap()
}

fn bytes(values: &Tensor) -> Vec<u8> {
    match values.data() {
        DataBuf::E4M3(x) => x.iter().map(|x| x.0).collect(),
        DataBuf::I8(x) => x.iter().map(|&x| x as u8).collect(),
        other => panic!("quantised to {}", other.dtype().name()),
    }
}

/// Bytes of one vector whose largest magnitude makes the scale 1.
fn unscaled(quantize: Quantizer, x: &[f32]) -> Vec<u8> {
    let got = quantize(&row(x), ScaleMode::PerToken).unwrap();
    assert_eq!(got.scales, [1.0]);
    bytes(&got.values)
}

/// Value of a non-negative e4m3 byte, from the format's definition.
fn e4m3(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(byte >> 3), f64::from(byte & 7));
    match exponent {
        0 => mantissa * 2f64.powi(-9),
        e => (1.0 + mantissa / 8.0) * 2f64.powi(e - 7),
    }
}

#[test]
fn fp8_edges() {
    let tiny = 2f32.powi(-9);
    let cases: &[(f32, u8)] = &[
        (448.0, 0x7e),
        (-448.0, 0xfe),
        (0.0, 0x00),
        (-0.0, 0x80),
        (1.0, 0x38),
        (-1.5, 0xbc),
        // Halfway between 16 and 18, 18 and 20: to the even mantissa.
        (17.0, 0x58),
        (19.0, 0x5a),
        (-17.0, 0xd8),
        (-19.0, 0xda),
        // Halfway from one power of two to the next.
        (15.5, 0x58),
        (432.0, 0x7e),
        (431.9, 0x7d),
        // Subnormals count in steps of 2^-9; the last one borders on the smallest normal number.
        (tiny, 0x01),
        (0.5 * tiny, 0x00),
        (-0.5 * tiny, 0x80),
        ((0.5 * tiny).next_up(), 0x01),
        (1.5 * tiny, 0x02),
        (2.5 * tiny, 0x02),
        (7.0 * tiny, 0x07),
        (7.5 * tiny, 0x08),
        (8.0 * tiny, 0x08),
        // f32's own subnormals and smallest normal number.
        (f32::from_bits(1), 0x00),
        (-f32::from_bits(1), 0x80),
        (f32::MIN_POSITIVE, 0x00),
    ];
    let (x, expected): (Vec<f32>, Vec<u8>) = cases.iter().copied().unzip();
    for ((x, expected), got) in x.iter().zip(expected).zip(unscaled(quantize_fp8, &x)) {
        assert_eq!(got, expected, "{x:e} became {got:#04x}, not {expected:#04x}");
    }
}

/// Between any two neighbours: the half goes to the even one, what is next to it to its own side.
#[test]
fn fp8_rounds_every_interval_to_nearest_even() {
    for low in 0..0x7eu8 {
        let half = ((e4m3(low) + e4m3(low + 1)) / 2.0) as f32;
        let even = low + (low & 1);
        for (x, expected) in [(half, even), (half.next_down(), low), (half.next_up(), low + 1)] {
            let got = unscaled(quantize_fp8, &[448.0, x, -x]);
            assert_eq!(got, [0x7e, expected, expected | 0x80], "{x:e} between {low:#04x} and the next");
        }
    }
}

#[test]
fn int8_edges() {
    let cases: &[(f32, i8)] = &[
        (127.0, 127),
        (-127.0, -127),
        (0.0, 0),
        (-0.0, 0),
        (0.5, 0),
        (-0.5, 0),
        (0.5f32.next_up(), 1),
        (1.5, 2),
        (2.5, 2),
        (-1.5, -2),
        (-2.5, -2),
        (126.5, 126),
        (-126.5, -126),
        (126.5f32.next_up(), 127),
        (f32::from_bits(1), 0),
    ];
    let (x, expected): (Vec<f32>, Vec<i8>) = cases.iter().copied().unzip();
    for ((x, expected), got) in x.iter().zip(expected).zip(unscaled(quantize_int8, &x)) {
        assert_eq!(got as i8, expected, "{x:e}");
    }
}

/// Scales and bytes of random vectors of every magnitude, against the definition in float64. The largest element becomes the
/// largest stored value: dividing by the rounded scale must neither overshoot into NaN nor to -128.
#[test]
fn random_vectors_follow_the_definition() {
    let mut random = Random::named("quantised vectors");
    for (name, quantize, largest) in QUANTIZERS {
        for i in 0..200 {
            let magnitude = 10f32.powi(i % 40 - 5);
            let x: Vec<f32> = (0..33).map(|_| random.normal() * magnitude).collect();
            let got = quantize(&row(&x), ScaleMode::PerToken).unwrap();
            let most = x.iter().fold(0f32, |most, v| most.max(v.abs()));
            let scale = most.max(1e-6) / largest;
            assert_eq!(got.scales, [scale], "{name}");
            for (&x, byte) in x.iter().zip(bytes(&got.values)) {
                // What f32 division gives: both operands have half of f64's digits at most, so rounding twice is rounding once.
                let ratio = f64::from((f64::from(x) / f64::from(scale)) as f32);
                let (stored, step) = match name {
                    "fp8" => {
                        let magnitude = byte & 0x7f;
                        assert!(magnitude < 0x7f, "{x:e} became NaN");
                        let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
                        let up = e4m3((magnitude + 1).min(0x7e)) - e4m3(magnitude);
                        let down = e4m3(magnitude) - e4m3(magnitude.saturating_sub(1));
                        (sign * e4m3(magnitude), if ratio.abs() > e4m3(magnitude) { up } else { down })
                    }
                    _ => (f64::from(byte as i8), 1.0),
                };
                assert!(stored.abs() <= f64::from(largest), "{name}: {x:e} became {stored}");
                // Where there is no larger value, the largest one stands for it.
                let beyond = (ratio.abs() - f64::from(largest)).max(0.0);
                assert!(beyond <= 1e-4 * f64::from(largest), "{name}: {ratio}");
                let error = (stored - ratio).abs() - beyond;
                assert!(error <= step / 2.0, "{name}: {x:e} / {scale:e} = {ratio} became {stored}");
                if x.abs() == most {
                    assert_eq!(stored.abs(), f64::from(largest), "{name}: the largest, {x:e}");
                }
            }
        }
    }
}

#[test]
fn small_vectors_have_the_smallest_scale() {
    for (name, quantize, largest) in QUANTIZERS {
        for mode in MODES {
            for x in [[0.0; 4], [f32::from_bits(1); 4], [1e-40; 4], [-0.0; 4]] {
                let got = quantize(&row(&x), mode).unwrap();
                assert_eq!(got.scales, [1e-6 / largest], "{name} of {x:?}");
                assert!(bytes(&got.values).iter().all(|&byte| byte & 0x7f == 0), "{name} of {x:?}");
            }
            // From the threshold on, the largest element uses the whole range.
            let got = quantize(&row(&[1e-6, 0.5e-6]), mode).unwrap();
            assert_eq!(got.scales, [1e-6 / largest], "{name}");
            assert_eq!(got.values.as_ref().data().get(0), largest, "{name}");
        }
    }
}

#[test]
fn half_precision_is_widened_first() {
    let mut random = Random::named("quantised half precision");
    let x: Vec<f32> = (0..60).map(|i| random.normal() * 2f32.powi(i % 12 - 20)).collect();
    let halves: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
    let brains: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    for (name, quantize, _) in QUANTIZERS {
        for mode in MODES {
            let (f, b) = (wide(&halves), wide(&brains));
            let shape = [3, 4, 5];
            let same = |narrow: &TensorRef<'_>, wide: &[f32]| {
                let expected = quantize(&TensorRef::new(wide, &shape).unwrap(), mode).unwrap();
                assert_eq!(quantize(narrow, mode).unwrap(), expected, "{name} {mode:?}");
            };
            same(&TensorRef::new(&halves, &shape).unwrap(), &f);
            same(&TensorRef::new(&brains, &shape).unwrap(), &b);
        }
    }
}

fn wide<T: Element>(x: &[T]) -> Vec<f32> {
    x.iter().map(|&x| x.to_f32()).collect()
}

#[test]
fn shapes_and_scales() {
    let x: Vec<f32> = (0..24).map(|i| i as f32 - 7.0).collect();
    for (name, quantize, largest) in QUANTIZERS {
        for shape in [&[24][..], &[6, 4], &[2, 3, 4], &[1, 2, 3, 4], &[24, 1]] {
            let t = TensorRef::new(&x, shape).unwrap();
            let dim = *shape.last().unwrap();
            let token = quantize(&t, ScaleMode::PerToken).unwrap();
            assert_eq!(token.values.shape(), shape, "{name}");
            let expected: Vec<f32> = x
                .chunks(dim)
                .map(|v| v.iter().fold(1e-6f32, |most, x| most.max(x.abs())) / largest)
                .collect();
            assert_eq!(token.scales, expected, "{name} {shape:?}");
            let tensor = quantize(&t, ScaleMode::PerTensor).unwrap();
            assert_eq!(tensor.values.shape(), shape, "{name}");
            assert_eq!(tensor.scales, [16.0 / largest], "{name} {shape:?}");
            for quantized in [token, tensor] {
                let stored = TensorRef::new(quantized.values.data(), shape).unwrap();
                let back = dequantize(&stored, quantized.scales()).unwrap();
                let DataBuf::F32(back) = back.into_data() else { panic!("dequantised to another type") };
                for (i, &back) in back.iter().enumerate() {
                    let scale = *quantized.scales.get(i / dim).unwrap_or(&quantized.scales[0]);
                    assert_eq!(back, stored.data().get(i) * scale, "{name} {shape:?}, element {i}");
                    // e4m3's 3 bits of mantissa; half a step of int8 is less where it matters, 16/254.
                    assert!((back - x[i]).abs() <= (x[i].abs() / 16.0).max(16.0 / 254.0), "{name} {i}");
                }
            }
        }
        // No vectors: no scales of vectors, and the one of the tensor.
        let none = TensorRef::new(&[0f32; 0], &[0, 4]).unwrap();
        assert!(quantize(&none, ScaleMode::PerToken).unwrap().scales.is_empty());
        assert_eq!(quantize(&none, ScaleMode::PerTensor).unwrap().scales, [1e-6 / largest]);
    }
}

fn refusal<T>(result: Result<T>) -> (&'static str, String) {
    let error = result.err().expect("an error");
    (error.code().as_str(), error.argument().unwrap_or_default().to_owned())
}

#[test]
fn what_is_not_finite_is_refused_with_its_position() {
    for (name, quantize, _) in QUANTIZERS {
        for mode in MODES {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for position in [0, 7, 23] {
                    let mut x = [1f32; 24];
                    x[position] = bad;
                    // The first one counts.
                    x[23] = bad;
                    let error = quantize(&TensorRef::new(&x, &[2, 3, 4]).unwrap(), mode).unwrap_err();
                    match &error {
                        Error::NonFinite { argument, position: at, got } => {
                            assert_eq!((argument.as_ref(), *at), ("x", position), "{name}");
                            assert_eq!(got.to_bits(), bad.to_bits(), "{name}");
                        }
                        other => panic!("{name} of {bad}: {other:?}"),
                    }
                    assert_eq!(error.code().as_str(), "ERR_NON_FINITE");
                }
            }
        }
        let half = [f16::ONE, f16::INFINITY];
        let error = quantize(&TensorRef::new(&half, &[1, 2]).unwrap(), ScaleMode::PerToken).unwrap_err();
        assert!(matches!(error, Error::NonFinite { position: 1, .. }), "{name}: {error:?}");
    }
}

#[test]
fn what_has_no_vectors_is_refused() {
    for (name, quantize, _) in QUANTIZERS {
        for mode in MODES {
            let refused = |t: TensorRef<'_>| refusal(quantize(&t, mode));
            let shape = ("ERR_SHAPE", "x".to_owned());
            assert_eq!(refused(TensorRef::new(&[1f32], &[]).unwrap()), shape, "{name}");
            assert_eq!(refused(TensorRef::new(&[0f32; 0], &[3, 0]).unwrap()), shape, "{name}");
            let dtype = ("ERR_DTYPE", "x".to_owned());
            assert_eq!(refused(TensorRef::new(&[1i8, 2], &[1, 2]).unwrap()), dtype, "{name}");
            assert_eq!(refused(TensorRef::new(&[E4M3(8)], &[1, 1]).unwrap()), dtype, "{name}");
        }
    }
}

#[test]
fn scales_that_no_quantiser_makes_are_refused() {
    let x = [1i8; 8];
    let x = TensorRef::new(&x, &[2, 4]).unwrap();
    for bad in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
        let scales = ("ERR_VALUE", "scales".to_owned());
        assert_eq!(refusal(dequantize(&x, Scales::PerTensor(bad))), scales, "{bad}");
        assert_eq!(refusal(dequantize(&x, Scales::PerToken(&[1.0, bad]))), scales, "{bad}");
    }
    assert_eq!(refusal(dequantize(&x, Scales::PerToken(&[1.0]))), ("ERR_SHAPE", "scales".to_owned()));
}

/// Vectors of norm 1.
fn unit_vectors(random: &mut Random, count: usize, dim: usize) -> Vec<f32> {
    let mut x: Vec<f32> = (0..count * dim).map(|_| random.normal()).collect();
    for vector in x.chunks_mut(dim) {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    x
}

/// Both operands quantised: scores stay within 5e-2 (fp8) and 2e-2 (int8) of the unquantised ones.
#[test]
fn scores_of_quantised_vectors_are_close() {
    let mut random = Random::named("quantised scores");
    for dim in [48, 128] {
        let (q_shape, d_shape) = ([3, 8, dim], [5, 40, dim]);
        let (q, d) = (unit_vectors(&mut random, 24, dim), unit_vectors(&mut random, 200, dim));
        for device in devices() {
            let exact = {
                let (q, d) = (Tokens::padded(&q, &q_shape).unwrap(), Tokens::padded(&d, &d_shape).unwrap());
                score(&device.engine, &Forward::maxsim(q, d, Options::default())).values
            };
            for ((name, quantize, _), bound) in QUANTIZERS.into_iter().zip([5e-2, 2e-2]) {
                for mode in MODES {
                    let q8 = quantize(&TensorRef::new(&q, &q_shape).unwrap(), mode).unwrap();
                    let d8 = quantize(&TensorRef::new(&d, &d_shape).unwrap(), mode).unwrap();
                    let (q8, d8) = (tokens(&q8, &q_shape), tokens(&d8, &d_shape));
                    let op = Forward::maxsim(q8, d8, Options::default());
                    let got = score(&device.engine, &op).values;
                    assert_eq!(got.len(), exact.len());
                    let worst = got.iter().zip(&exact).map(|(g, e)| ((g - e) / e).abs()).fold(0.0, f32::max);
                    assert!(worst <= bound, "{} {name} {mode:?}: {worst}", device.name);
                    assert!(worst > 0.0, "{} {name} {mode:?}: nothing was quantised", device.name);
                }
            }
        }
    }
}

fn tokens<'a>(x: &'a Quantized, shape: &[usize]) -> Tokens<'a> {
    Tokens::padded(x.values.data(), shape).unwrap().with_scales(x.scales()).unwrap()
}

// --- residuals ------------------------------------------------------------------------------------------------------

const LAYOUTS: [ResidualLayout; 2] = [ResidualLayout::Plaid, ResidualLayout::Lik];
const NBITS: [u32; 4] = [1, 2, 4, 8];

/// Vectors near centroids, and tables made of their residuals.
struct Sample {
    dim: usize,
    x: Vec<f32>,
    centroids: Vec<f32>,
    /// All residual components to the right centroids, sorted.
    components: Vec<f32>,
}

const TOKENS: usize = 90;
/// Not a multiple of any tile.
const CENTROIDS: usize = 37;

impl Sample {
    fn new(dim: usize) -> Self {
        let mut random = Random::named(&format!("residuals of dimension {dim}"));
        let centroids = unit_vectors(&mut random, CENTROIDS, dim);
        let noise = unit_vectors(&mut random, TOKENS, dim);
        let x: Vec<f32> = noise
            .chunks(dim)
            .flat_map(|noise| {
                let centre = random.below(CENTROIDS) * dim;
                let vector = noise.iter().zip(&centroids[centre..]).map(|(n, c)| c + 0.5 * n);
                let vector: Vec<f32> = vector.collect();
                let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                vector.into_iter().map(move |x| x / norm)
            })
            .collect();
        let mut sample = Self { dim, x, centroids, components: Vec::new() };
        let residuals = sample.nearest(&sample.centroids).into_iter().enumerate().flat_map(|(t, code)| {
            (0..dim).map(move |f| (t * dim + f, code as usize * dim + f)).collect::<Vec<_>>()
        });
        sample.components = residuals.map(|(x, c)| sample.x[x] - sample.centroids[c]).collect();
        sample.components.sort_by(f32::total_cmp);
        sample
    }

    fn quantile(&self, q: f64) -> f32 {
        let at = q * (self.components.len() - 1) as f64;
        let (low, high) = (self.components[at.floor() as usize], self.components[at.ceil() as usize]);
        low + (high - low) * at.fract() as f32
    }

    /// Cutoffs and weights, as PLAID takes them.
    fn tables(&self, nbits: u32) -> (Vec<f32>, Vec<f32>) {
        let n = 1 << nbits;
        let cutoffs = (1..n).map(|i| self.quantile(f64::from(i) / f64::from(n))).collect();
        let weights = (0..n).map(|i| self.quantile((f64::from(i) + 0.5) / f64::from(n))).collect();
        (cutoffs, weights)
    }

    /// Largest inner product in float64, lowest index among equals.
    fn nearest(&self, centroids: &[f32]) -> Vec<u32> {
        let product =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let nearest = |x: &[f32]| {
            let mut best = (f64::NEG_INFINITY, 0);
            for (c, centroid) in centroids.chunks(self.dim).enumerate() {
                let similarity = product(x, centroid);
                if similarity > best.0 {
                    best = (similarity, c as u32);
                }
            }
            best.1
        };
        self.x.chunks(self.dim).map(nearest).collect()
    }

    fn encode(&self, engine: &Engine, cutoffs: &[f32], codec: &Codec<'_>) -> ResidualCodes {
        let x = TensorRef::new(&self.x, &[TOKENS, self.dim]).unwrap();
        engine.quantize_residual(&x, cutoffs, codec).unwrap()
    }
}

/// The stream of ColBERTv2: of each bucket the least significant bit first, into bytes from the most significant bit on.
fn plaid_stream(buckets: &[usize], nbits: u32) -> Vec<u8> {
    let mut bytes = vec![0; (buckets.len() * nbits as usize).div_ceil(8)];
    let bits = buckets.iter().flat_map(|&bucket| (0..nbits).map(move |t| bucket >> t & 1));
    for (i, bit) in bits.enumerate() {
        bytes[i / 8] |= (bit as u8) << (7 - i % 8);
    }
    bytes
}

fn decode(codec: Codec<'_>, codes: &ResidualCodes, normalize: bool) -> Vec<f32> {
    let offsets = [0, codes.codes.len() as u32];
    let documents = Residual::packed(codec, &codes.codes, &codes.residuals, &offsets).unwrap();
    match decode_residual(&documents, normalize).into_data() {
        DataBuf::F32(decoded) => decoded,
        other => panic!("decoded to {}", other.dtype().name()),
    }
}

/// Codes, bytes and norms of both layouts on every device against the definition, and the error of what is decoded.
#[test]
fn residuals_round_trip() {
    // 37: every number of bits but 8 leaves some unused.
    for dim in [37, 64] {
        let sample = Sample::new(dim);
        let codes = sample.nearest(&sample.centroids);
        let centroids = TensorRef::new(&sample.centroids, &[CENTROIDS, dim]).unwrap();
        for device in devices() {
            let mut errors = Vec::new();
            for nbits in NBITS {
                let (cutoffs, weights) = sample.tables(nbits);
                // The definition: how many cutoffs are below the residual.
                let residuals = sample
                    .x
                    .iter()
                    .enumerate()
                    .map(|(i, x)| x - sample.centroids[codes[i / dim] as usize * dim + i % dim]);
                let buckets: Vec<usize> =
                    residuals.map(|r| cutoffs.iter().filter(|&&cutoff| cutoff < r).count()).collect();
                let stream: Vec<u8> =
                    buckets.chunks(dim).flat_map(|buckets| plaid_stream(buckets, nbits)).collect();
                let decoded: Vec<f32> = buckets
                    .iter()
                    .enumerate()
                    .map(|(i, &b)| sample.centroids[codes[i / dim] as usize * dim + i % dim] + weights[b])
                    .collect();
                for layout in LAYOUTS {
                    let what = format!("{} {layout:?}, {nbits} bits of {dim}", device.name);
                    let codec = Codec::new(centroids.clone(), &weights[..], nbits, layout).unwrap();
                    let got = sample.encode(&device.engine, &cutoffs, &codec);
                    assert_eq!(got.codes, codes, "{what}");
                    let mut expected = stream.clone();
                    if layout == ResidualLayout::Lik {
                        expected.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
                    }
                    assert_eq!(got.residuals, expected, "{what}");
                    assert_eq!(decode(codec.clone(), &got, false), decoded, "{what}");
                    for (norm, vector) in got.inv_norms.iter().zip(decoded.chunks(dim)) {
                        let exact = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                        assert!((f64::from(*norm) * exact - 1.0).abs() < 1e-6, "{what}");
                    }
                    let unit = decode(codec, &got, true);
                    for ((unit, raw), norm) in unit.chunks(dim).zip(decoded.chunks(dim)).zip(&got.inv_norms) {
                        assert!(unit.iter().zip(raw).all(|(u, r)| *u == r * norm), "{what}");
                    }
                }
                let squares = decoded.iter().zip(&sample.x).map(|(a, b)| f64::from(a - b).powi(2));
                errors.push((squares.sum::<f64>() / TOKENS as f64).sqrt());
            }
            // The distance to a unit vector: 2, 4 and 8 bits quarter it, about, with every doubling.
            assert!(errors.windows(2).all(|e| e[1] < 0.7 * e[0]), "{}: {errors:?}", device.name);
            assert!(errors[3] < 0.02, "{}: {errors:?}", device.name);
        }
    }
}

/// Centroids that occur twice, far enough apart to meet in different tiles: the first one counts.
#[test]
fn among_equal_centroids_the_first_counts() {
    let sample = Sample::new(16);
    let twice = [&sample.centroids[..], &sample.centroids].concat();
    let (cutoffs, weights) = sample.tables(2);
    let expected = sample.nearest(&sample.centroids);
    assert_eq!(sample.nearest(&twice), expected);
    // All equal: the very first.
    let same: Vec<f32> = (0..CENTROIDS).flat_map(|_| sample.centroids[..16].to_vec()).collect();
    for device in devices() {
        let codes = |centroids: &[f32]| {
            let centroids = TensorRef::new(centroids, &[centroids.len() / 16, 16]).unwrap();
            let codec = Codec::new(centroids, &weights[..], 2, ResidualLayout::Plaid).unwrap();
            sample.encode(&device.engine, &cutoffs, &codec).codes
        };
        assert_eq!(codes(&twice), expected, "{}", device.name);
        assert_eq!(codes(&same), [0; TOKENS], "{}", device.name);
    }
}

#[test]
fn half_precision_centroids_and_vectors() {
    let sample = Sample::new(24);
    let halves: Vec<f16> = sample.centroids.iter().map(|&c| f16::from_f32(c)).collect();
    let rounded: Vec<bf16> = sample.x.iter().map(|&x| bf16::from_f32(x)).collect();
    let wide_x = Sample { x: wide(&rounded), centroids: wide(&halves), ..sample };
    let (cutoffs, weights) = wide_x.tables(4);
    let codec = |centroids| Codec::new(centroids, &weights[..], 4, ResidualLayout::Plaid).unwrap();
    let shape = [CENTROIDS, 24];
    for device in devices() {
        let wide = codec(TensorRef::new(&wide_x.centroids, &shape).unwrap());
        let expected = wide_x.encode(&device.engine, &cutoffs, &wide);
        assert_eq!(expected.codes, wide_x.nearest(&wide_x.centroids), "{}", device.name);
        let narrow = codec(TensorRef::new(&halves, &shape).unwrap());
        let x = TensorRef::new(&rounded, &[TOKENS, 24]).unwrap();
        let got = device.engine.quantize_residual(&x, &cutoffs, &narrow).unwrap();
        assert_eq!(got, expected, "{}", device.name);
    }
}

/// The example of the format: buckets 3, 2, 2, 1, 1, 0, 0, 0 of 2 bits.
#[test]
fn the_bytes_of_the_example() {
    let zero = [0f32; 8];
    let (cutoffs, weights) = ([-0.5, 0.0, 0.5], [-0.75, -0.25, 0.25, 0.75]);
    // -0.5 and 0 are cutoffs, and equality is not below.
    let x = [1.0, 0.25, 0.5, 0.0, -0.25, -0.5, -1.0, -7.0];
    for (layout, bytes) in [
        (ResidualLayout::Plaid, [0b1101_0110, 0b1000_0000]),
        (ResidualLayout::Lik, [0b0110_1011, 0b0000_0001]),
    ] {
        let centroids = TensorRef::new(&zero, &[1, 8]).unwrap();
        let codec = Codec::new(centroids, &weights[..], 2, layout).unwrap();
        let got = pack_residuals(&row(&x), vec![0], &cutoffs, &codec).unwrap();
        assert_eq!(got.residuals, bytes, "{layout:?}");
        let expected = [0.75, 0.25, 0.25, -0.25, -0.25, -0.75, -0.75, -0.75];
        assert_eq!(decode(codec.clone(), &got, false), expected, "{layout:?}");
        for device in devices() {
            let got = device.engine.quantize_residual(&row(&x), &cutoffs, &codec).unwrap();
            assert_eq!(got.residuals, bytes, "{} {layout:?}", device.name);
        }
    }
}

#[test]
fn residual_operands_that_do_not_fit() {
    let (x, centroids) = ([0.5f32; 12], [0.25f32; 8]);
    let (cutoffs, weights) = ([-0.5, 0.0, 0.5], [-0.75, -0.25, 0.25, 0.75]);
    let engine = &devices()[0].engine;
    let codec = |data: &'static [f32], shape: &[usize]| {
        Codec::new(TensorRef::new(data, shape).unwrap(), weights.to_vec(), 2, ResidualLayout::Plaid).unwrap()
    };
    let good =
        Codec::new(TensorRef::new(&centroids, &[2, 4]).unwrap(), weights.to_vec(), 2, ResidualLayout::Plaid)
            .unwrap();
    let refused = |x: &TensorRef<'_>, cutoffs: &[f32], codec: &Codec<'_>| {
        refusal(engine.quantize_residual(x, cutoffs, codec))
    };
    let t = TensorRef::new(&x, &[3, 4]).unwrap();
    assert_eq!(engine.quantize_residual(&t, &cutoffs, &good).unwrap().codes, [0; 3]);
    let is = |code, argument: &str| (code, argument.to_owned());
    assert_eq!(refused(&TensorRef::new(&x, &[4, 3]).unwrap(), &cutoffs, &good), is("ERR_SHAPE", "x"));
    assert_eq!(refused(&TensorRef::new(&x, &[3, 1, 4]).unwrap(), &cutoffs, &good), is("ERR_SHAPE", "x"));
    assert_eq!(refused(&t, &cutoffs[..2], &good), is("ERR_SHAPE", "cutoffs"));
    assert_eq!(refused(&t, &[0.0, -0.5, 0.5], &good), is("ERR_VALUE", "cutoffs"));
    assert_eq!(refused(&t, &[0.0, f32::NAN, 0.5], &good), is("ERR_VALUE", "cutoffs"));
    assert_eq!(refused(&t, &cutoffs, &codec(&[], &[0, 4])), is("ERR_SHAPE", "centroids"));
    static NAN: [f32; 8] = [0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0];
    let error = engine.quantize_residual(&t, &cutoffs, &codec(&NAN, &[2, 4])).unwrap_err();
    assert!(matches!(&error, Error::NonFinite { argument, position: 5, .. } if argument == "centroids"));
    let mut bad = x;
    bad[6] = f32::NEG_INFINITY;
    let error = engine.quantize_residual(&TensorRef::new(&bad, &[3, 4]).unwrap(), &cutoffs, &good);
    assert!(matches!(error.unwrap_err(), Error::NonFinite { argument, position: 6, .. } if argument == "x"));
    let quantized = TensorRef::new(&[1i8; 12], &[3, 4]).unwrap();
    assert_eq!(refusal(pack_residuals(&quantized, vec![0; 3], &cutoffs, &good)), is("ERR_DTYPE", "x"));
    // Codes that someone else chose.
    assert_eq!(refusal(pack_residuals(&t, vec![0, 1], &cutoffs, &good)), is("ERR_SHAPE", "codes"));
    let error = pack_residuals(&t, vec![0, 1, 2], &cutoffs, &good).unwrap_err();
    assert!(matches!(error, Error::Index { position: 2, .. }), "{error:?}");
    // Nothing to encode needs no centroid.
    let none = TensorRef::new(&[0f32; 0], &[0, 4]).unwrap();
    for codec in [good, codec(&[], &[0, 4])] {
        let got = engine.quantize_residual(&none, &cutoffs, &codec).unwrap();
        assert_eq!(got, ResidualCodes { codes: vec![], residuals: vec![], inv_norms: vec![] });
    }
}

#[test]
fn codecs_that_do_not_fit() {
    let centroids = [0.25f32; 8];
    let new = |shape: &[usize], weights: usize, nbits| {
        let centroids = TensorRef::new(&centroids, shape).unwrap();
        refusal(Codec::new(centroids, vec![0.0; weights], nbits, ResidualLayout::Lik))
    };
    let is = |code, argument: &str| (code, argument.to_owned());
    for nbits in [0, 3, 5, 6, 7, 9, 16, u32::MAX] {
        assert_eq!(new(&[2, 4], 8, nbits), is("ERR_VALUE", "nbits"), "{nbits}");
    }
    assert_eq!(new(&[2, 4], 8, 2), is("ERR_SHAPE", "bucket_weights"));
    assert_eq!(new(&[8], 4, 2), is("ERR_SHAPE", "centroids"));
    assert_eq!(new(&[2, 2, 2], 4, 2), is("ERR_SHAPE", "centroids"));
    let quantized = TensorRef::new(&[1i8; 8], &[2, 4]).unwrap();
    let codec = Codec::new(quantized, vec![0.0; 4], 2, ResidualLayout::Lik);
    assert_eq!(refusal(codec), is("ERR_DTYPE", "centroids"));
}
