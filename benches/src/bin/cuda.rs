//! Operators on an NVIDIA GPU: checked against float64 on samples, then timed. Prints a line of JSON about the device, then one
//! for every case as soon as it is done.
//!
//! `benches/peers/h200.py` runs this beside other implementations and prints one table.

use std::process::ExitCode;

use clap::Parser;
use maxsim::{
    ApproxScore, Backend, Backward, Codec, CudaBackend, CudaOptions, DType, DataBuf, DataRef, Documents,
    Forward, FromHidden, FromHiddenBackward, Op, Options, Output, Resident, Residual, ResidualLayout,
    Retrieve, RetrieveOptions, ScaleMode, TensorRef, Tokens, quantize_fp8, quantize_int8,
};
use maxsim_benches::Random;
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// Repetitions of every measurement
    #[arg(long, default_value_t = 30)]
    repeats: usize,
    /// Only cases whose name contains one of these, separated by commas
    #[arg(long, default_value = "")]
    only: String,
    /// No case of more bytes than this on the device
    #[arg(long, default_value_t = 16 << 30)]
    most_bytes: usize,
}

/// What is scored: `nq × nd` sequences of `lq` and `ld` tokens of dimension `d`.
#[derive(Clone, Copy)]
struct Shape {
    nq: usize,
    nd: usize,
    lq: usize,
    ld: usize,
    d: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Forward,
    Normalize,
    /// A prefix mask with lengths from a tenth of `ld` to all of it.
    Ragged,
    /// Packed documents of those lengths.
    Packed,
    Kd,
    Pairs,
    /// So many random pairs.
    List(usize),
    Fp8,
    Int8,
    TopK(usize),
    Backward,
    KdBackward,
    /// `d_model`.
    Head(usize),
    HeadBackward(usize),
    /// Bits, over this many centroids.
    Residual(u32, usize),
    Approx(usize),
}

/// Name, work and shape: the rows of the tables that are to be reached.
fn cases() -> Vec<(&'static str, Work, Shape)> {
    use Work::*;
    let shape = |nq, nd, lq, ld, d| Shape { nq, nd, lq, ld, d };
    vec![
        ("1x1000 32x300", Forward, shape(1, 1000, 32, 300, 128)),
        ("1x1000 32x1024", Forward, shape(1, 1000, 32, 1024, 128)),
        ("1x1000 128x1024", Forward, shape(1, 1000, 128, 1024, 128)),
        ("1x10000 32x300", Forward, shape(1, 10_000, 32, 300, 128)),
        ("1x50000 32x300", Forward, shape(1, 50_000, 32, 300, 128)),
        ("32x32 32x300", Forward, shape(32, 32, 32, 300, 128)),
        ("128x128 32x300", Forward, shape(128, 128, 32, 300, 128)),
        ("32x10000 32x300", Forward, shape(32, 10_000, 32, 300, 128)),
        ("1x500 1024x1024", Forward, shape(1, 500, 1024, 1024, 128)),
        ("32x32 1024x1024", Forward, shape(32, 32, 1024, 1024, 128)),
        ("1x1000 32x300 d512", Forward, shape(1, 1000, 32, 300, 512)),
        ("1x500 32x300 d1024", Forward, shape(1, 500, 32, 300, 1024)),
        ("1x4000 32x2048 d48", Forward, shape(1, 4000, 32, 2048, 48)),
        ("ragged 1x10000 32x300", Ragged, shape(1, 10_000, 32, 300, 128)),
        ("normalize 1x10000 32x300", Normalize, shape(1, 10_000, 32, 300, 128)),
        ("packed 1x10000 30..300", Packed, shape(1, 10_000, 32, 300, 128)),
        ("list 64k of 64x10000", List(65_536), shape(64, 10_000, 32, 300, 128)),
        ("kd 64x32 32x300", Kd, shape(64, 32, 32, 300, 128)),
        ("pairs 5000 32x300", Pairs, shape(5000, 5000, 32, 300, 128)),
        ("1x32 32x16384", Forward, shape(1, 32, 32, 16_384, 128)),
        ("1x16 32x64", Forward, shape(1, 16, 32, 64, 128)),
        ("top100 32x10000 32x128", TopK(100), shape(32, 10_000, 32, 128, 128)),
        ("top100 1x100000 32x128", TopK(100), shape(1, 100_000, 32, 128, 128)),
        ("fp8 1x8000 32x256", Fp8, shape(1, 8000, 32, 256, 128)),
        ("fp8 1x50000 32x300", Fp8, shape(1, 50_000, 32, 300, 128)),
        ("fp8 1x500 1024x1024", Fp8, shape(1, 500, 1024, 1024, 128)),
        ("fp8 128x128 32x300", Fp8, shape(128, 128, 32, 300, 128)),
        ("int8 1x8000 32x256", Int8, shape(1, 8000, 32, 256, 128)),
        ("int8 128x128 32x300", Int8, shape(128, 128, 32, 300, 128)),
        ("backward 256x256 32x300", Backward, shape(256, 256, 32, 300, 128)),
        ("backward 32x32 32x300", Backward, shape(32, 32, 32, 300, 128)),
        ("backward 128x128 32x1030", Backward, shape(128, 128, 32, 1030, 128)),
        ("backward kd 256x16 32x1030", KdBackward, shape(256, 16, 32, 1030, 128)),
        ("backward 64x64 1030x1030", Backward, shape(64, 64, 1030, 1030, 128)),
        ("head 8x512 32x2048", Head(768), shape(8, 512, 32, 2048, 128)),
        ("head backward 8x512 32x2048", HeadBackward(768), shape(8, 512, 32, 2048, 128)),
        ("residual 2bit 10000x300", Residual(2, 16_384), shape(1, 10_000, 32, 300, 128)),
        ("residual 4bit 10000x512", Residual(4, 16_384), shape(1, 10_000, 32, 512, 128)),
        ("approx 10000x300", Approx(16_384), shape(1, 10_000, 32, 300, 128)),
    ]
}

/// Unit vectors: some different ones, repeated in another order every time round.
fn vectors(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let distinct = rows.min((8 << 20) / dim);
    let base = random.vectors(distinct, dim);
    let mut out = Vec::with_capacity(rows * dim);
    while out.len() < rows * dim {
        let row = random.bits() as usize % distinct;
        out.extend_from_slice(&base[row * dim..(row + 1) * dim]);
    }
    out
}

fn stored(values: &[f32], dtype: DType) -> DataBuf {
    DataBuf::from_f32(values, dtype)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Similarity of two token vectors in float64, as operands hold them.
fn dot(q: &Tokens<'_>, d: &Tokens<'_>, i: usize, j: usize, normalize: bool) -> f64 {
    let value = |t: &Tokens<'_>, row: usize| -> Vec<f64> {
        let scale = t.scales().map_or(1.0, |s| f64::from(s.get(row)));
        let x: Vec<f64> = t.vector(row).into_iter().map(|x| f64::from(x) * scale).collect();
        let norm = if normalize { x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-6) } else { 1.0 };
        x.into_iter().map(|x| x / norm).collect()
    };
    value(q, i).iter().zip(value(d, j)).map(|(a, b)| a * b).sum()
}

/// Largest error of some scores of `op`, as a share of `max(1, |score|)`.
fn worst_error(op: &Forward<'_>, d: &Tokens<'_>, scores: &[f32]) -> f64 {
    let mut random = Random::new(99);
    let samples = (40_000_000 / (op.q.max_extent() * d.max_extent() * d.dim()).max(1)).clamp(1, 24);
    let mut worst = 0f64;
    for _ in 0..samples.min(scores.len()) {
        let pair = random.bits() as usize % scores.len();
        let (i, j) = op.pair(pair);
        let score: f64 =
            op.q.rows(i)
                .map(|q_row| {
                    let rows = d.rows(j).filter(|&row| d.keeps(row));
                    let best = rows.map(|row| dot(&op.q, d, q_row, row, op.options.normalize));
                    best.fold(f64::NEG_INFINITY, f64::max)
                })
                .filter(|best| best.is_finite())
                .sum();
        let error = (score - f64::from(scores[pair])).abs() / score.abs().max(1.0);
        worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
    }
    worst
}

/// The same of one normalised query with compressed documents.
fn worst_residual_error(q: &Tokens<'_>, d: &Residual<'_>, scores: &[f32]) -> f64 {
    let unit = |x: Vec<f64>| -> Vec<f64> {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-6);
        x.into_iter().map(|x| x / norm).collect()
    };
    let queries: Vec<Vec<f64>> =
        q.rows(0).map(|row| unit(q.vector(row).into_iter().map(f64::from).collect())).collect();
    let (codec, width) = (d.codec(), d.codec().residual_bytes());
    let mut random = Random::new(98);
    let mut worst = 0f64;
    for _ in 0..24 {
        let j = random.bits() as usize % scores.len();
        let mut best = vec![f64::NEG_INFINITY; queries.len()];
        for row in d.sequences().rows(j) {
            let mut token = vec![0f32; codec.dim()];
            codec.decode(d.codes()[row] as usize, &d.residuals()[row * width..(row + 1) * width], &mut token);
            let token = unit(token.into_iter().map(f64::from).collect());
            for (best, q) in best.iter_mut().zip(&queries) {
                *best = best.max(q.iter().zip(&token).map(|(a, b)| a * b).sum());
            }
        }
        let score: f64 = best.iter().sum();
        let error = (score - f64::from(scores[j])).abs() / score.abs().max(1.0);
        worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
    }
    worst
}

struct Bench {
    backend: CudaBackend,
    repeats: usize,
}

impl Bench {
    fn measure(&self, op: &Op<'_>) -> anyhow::Result<serde_json::Value> {
        op.validate()?;
        let plan = self.backend.plan(op)?.to_string();
        let measured = self.backend.measure(op, self.repeats)?;
        let cost = op.cost();
        Ok(json!({
            "plan": plan,
            "gpu_us": median(&measured.gpu_us),
            "gpu_us_min": measured.gpu_us.iter().copied().fold(f64::INFINITY, f64::min),
            "gpu_clean_us": median(&measured.gpu_clean_us),
            "wall_us": median(&measured.wall_us),
            "peak_bytes": measured.peak_bytes,
            "launches": measured.launches,
            "flops": cost.flops,
            "bytes": cost.bytes,
        }))
    }

    fn upload(&self, documents: Tokens<'_>) -> anyhow::Result<Resident> {
        Ok(self.backend.upload(&Documents::Tokens(documents), false)?)
    }

    /// Times a scoring operator and checks some of its scores.
    fn scores(&self, op: Forward<'_>, d: &Tokens<'_>, tolerance: f64) -> anyhow::Result<serde_json::Value> {
        let Output::Scores(scores) =
            self.backend.submit(&Op::Forward(op.clone()), &Default::default()).wait()?
        else {
            anyhow::bail!("forward returned no scores");
        };
        let error = worst_error(&op, d, &scores.values);
        let mut result = self.measure(&Op::Forward(op.clone()))?;
        result["error"] = json!(error);
        result["correct"] = json!(error <= tolerance);
        if op.q.scales().is_none() {
            let (wall_us, same) = self.resident(&op, &scores.values)?;
            result["wall_resident_us"] = json!(wall_us);
            result["correct"] = json!(error <= tolerance && same);
        }
        Ok(result)
    }

    /// Microseconds of a call whose queries and scores lie on the device, until the device is done, and whether they are the same
    /// scores.
    fn resident(&self, op: &Forward<'_>, scores: &[f32]) -> anyhow::Result<(f64, bool)> {
        let backend = &self.backend;
        let DataRef::BF16(q) = op.q.data() else { anyhow::bail!("queries are bf16 here") };
        let bytes: Vec<u8> = q.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
        let (q_memory, out_memory) = (backend.allocate(bytes.len())?, backend.allocate(scores.len() * 4)?);
        q_memory.write(&bytes)?;
        // SAFETY: the memory is this backend's, as long as the tensors are used, and nothing else uses it.
        let q = unsafe { backend.borrow(q_memory.address(), &[op.q.slots(), op.q.dim()], op.q.dtype())? };
        // SAFETY: as above.
        let mut out = unsafe { backend.borrow(out_memory.address(), &[scores.len()], DType::F32)? };
        let mut wall_us = Vec::new();
        for _ in 0..self.repeats + 3 {
            let started = std::time::Instant::now();
            backend.score_into(op, Some(&q), &mut out, None)?;
            let event = backend.event()?;
            while !event.is_over()? {
                std::hint::spin_loop();
            }
            wall_us.push(started.elapsed().as_secs_f64() * 1e6);
        }
        let got = out_memory.read()?;
        let same = scores.iter().zip(got.chunks_exact(4)).all(|(score, got)| score.to_le_bytes() == *got);
        Ok((median(&wall_us[3..]), same))
    }

    fn run(&self, work: Work, shape: Shape) -> anyhow::Result<serde_json::Value> {
        let Shape { nq, nd, lq, ld, d } = shape;
        let q32 = vectors(nq * lq, d, 1);
        let q_data = stored(&q32, DType::BF16);
        let q = Tokens::padded(&q_data, &[nq, lq, d])?;
        let documents = if matches!(work, Work::Kd | Work::KdBackward) { nq * nd } else { nd };
        let mut random = Random::new(5);
        let lengths: Vec<u32> =
            (0..documents).map(|_| (ld / 10 + random.bits() as usize % (ld - ld / 10 + 1)) as u32).collect();
        let options = Options { normalize: work == Work::Normalize, ..Options::default() };
        match work {
            Work::Head(model) | Work::HeadBackward(model) => {
                let h_data = stored(&vectors(nd * ld, model, 2), DType::BF16);
                let h = Tokens::padded(&h_data, &[nd, ld, model])?;
                let w_data = stored(&vectors(d, model, 3), DType::BF16);
                let w = TensorRef::new(&w_data, &[d, model])?;
                let op = FromHidden::new(q, h, w, None);
                if let Work::Head(_) = work {
                    return self.measure(&Op::FromHidden(op));
                }
                let grad = vec![1.0; nq * nd];
                return self.measure(&Op::FromHiddenBackward(FromHiddenBackward::new(op, &grad)));
            }
            Work::Residual(bits, centroids) => {
                let centroid_data = vectors(centroids, d, 2);
                let weights: Vec<f32> =
                    (0..1 << bits).map(|b| (b as f32 + 0.5) * 0.2 / (1 << bits) as f32 - 0.1).collect();
                let tensor = TensorRef::new(&centroid_data, &[centroids, d])?;
                let codec = Codec::new(tensor, weights, bits, ResidualLayout::Plaid)?;
                let codes: Vec<u32> = (0..nd * ld).map(|_| random.bits() % centroids as u32).collect();
                let bytes: Vec<u8> =
                    (0..nd * ld * codec.residual_bytes()).map(|_| random.bits() as u8).collect();
                let offsets: Vec<u32> = (0..=nd as u32).map(|j| j * ld as u32).collect();
                let residual = Residual::packed(codec, codes, &bytes, offsets)?;
                let resident = self.backend.upload(&Documents::Residual(residual.clone()), false)?;
                let op = Op::Forward(Forward::maxsim(q.clone(), &resident, Options::normalized()));
                let Output::Scores(scores) = self.backend.submit(&op, &Default::default()).wait()? else {
                    anyhow::bail!("forward returned no scores");
                };
                let error = worst_residual_error(&q, &residual, &scores.values);
                let mut result = self.measure(&op)?;
                result["error"] = json!(error);
                result["correct"] = json!(error <= 1e-4);
                return Ok(result);
            }
            Work::Approx(centroids) => {
                let table = stored(&vectors(centroids, lq, 2), DType::F16);
                let codes: Vec<u32> = (0..nd * ld).map(|_| random.bits() % centroids as u32).collect();
                let offsets: Vec<u32> = (0..=nd as u32).map(|j| j * ld as u32).collect();
                let op = ApproxScore::packed(TensorRef::new(&table, &[centroids, lq])?, codes, offsets)?;
                return self.measure(&Op::ApproxScore(op));
            }
            _ => {}
        }
        let d32 = vectors(documents * ld, d, 2);
        if let Work::Fp8 | Work::Int8 = work {
            let quantize = if work == Work::Fp8 { quantize_fp8 } else { quantize_int8 };
            let q8 = quantize(&TensorRef::new(&q32, &[nq * lq, d])?, ScaleMode::PerToken)?;
            let d8 = quantize(&TensorRef::new(&d32, &[nd * ld, d])?, ScaleMode::PerToken)?;
            drop(d32);
            let q = Tokens::padded(q8.values.data(), &[nq, lq, d])?.with_scales(q8.scales())?;
            let d = Tokens::padded(d8.values.data(), &[nd, ld, d])?.with_scales(d8.scales())?;
            let resident = self.upload(d.clone())?;
            let tolerance = if work == Work::Fp8 { 1e-3 } else { 1e-4 };
            return self.scores(Forward::maxsim(q, &resident, options), &d, tolerance);
        }
        let d_data = stored(&d32, DType::BF16);
        drop(d32);
        let padded = Tokens::padded(&d_data, &[documents, ld, d])?;
        match work {
            Work::Ragged | Work::Packed => {
                // Both hold the same tokens on the device; what differs is how they came there.
                let tokens = padded.with_lengths(&lengths)?;
                let resident = self.upload(tokens.clone())?;
                self.scores(Forward::maxsim(q, &resident, options), &tokens, 1e-4)
            }
            Work::Kd => {
                let tokens = Tokens::padded(&d_data, &[nq, nd, ld, d])?;
                let resident = self.upload(tokens.clone())?;
                self.scores(Forward::maxsim(q, &resident, options), &tokens, 1e-4)
            }
            Work::Pairs => {
                let resident = self.upload(padded.clone())?;
                self.scores(Forward::pairs(q, &resident, options), &padded, 1e-4)
            }
            Work::List(count) => {
                let resident = self.upload(padded.clone())?;
                let mut index =
                    |below: usize| -> Vec<u32> { (0..count).map(|_| random.bits() % below as u32).collect() };
                let (q_idx, d_idx) = (index(nq), index(nd));
                self.scores(Forward::score_pairs(q, &resident, q_idx, d_idx, options)?, &padded, 1e-4)
            }
            Work::TopK(k) => {
                let resident = self.upload(padded)?;
                let options = RetrieveOptions { scoring: options, ..RetrieveOptions::top_k(k) };
                self.measure(&Op::Retrieve(Retrieve::new(q, &resident, options)))
            }
            Work::Backward | Work::KdBackward => {
                let tokens =
                    if work == Work::Backward { padded } else { Tokens::padded(&d_data, &[nq, nd, ld, d])? };
                let forward = Forward::maxsim(q, tokens, options);
                let grad = vec![1.0; forward.pair_count()];
                self.measure(&Op::Backward(Backward::new(forward, &grad)))
            }
            _ => {
                let resident = self.upload(padded.clone())?;
                self.scores(Forward::maxsim(q, &resident, options), &padded, 1e-4)
            }
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let backend = CudaBackend::new(CudaOptions::default())?;
    eprintln!("{} {}", backend.info().device, backend.info().level);
    let bench = Bench { backend, repeats: args.repeats };
    let info = bench.backend.info();
    println!("{}", json!({ "device": info.device, "level": info.level }));
    let mut failed = false;
    for (name, work, shape) in cases() {
        let width = if let Work::Head(model) | Work::HeadBackward(model) = work { model } else { shape.d };
        let grouped = if matches!(work, Work::Kd | Work::KdBackward) { shape.nq } else { 1 };
        if !args.only.split(',').any(|part| name.contains(part))
            || 2 * grouped * shape.nd * shape.ld * width > args.most_bytes
        {
            continue;
        }
        let started = std::time::Instant::now();
        // One case that fails is a result; the others are wanted all the same.
        let mut result =
            bench.run(work, shape).unwrap_or_else(|error| json!({ "failed": error.to_string() }));
        result["name"] = json!(name);
        failed |= result.get("failed").is_some() || result.get("correct") == Some(&json!(false));
        eprintln!("{name}: {} us ({:.1} s in all)", result["gpu_us"], started.elapsed().as_secs_f64());
        println!("{result}");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
