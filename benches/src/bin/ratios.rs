//! Ratios the CPU backend is held to, each against a peer that takes turns with it in the same run.
//!
//! `cargo run --release -p maxsim-benches --bin ratios -- [--threads 1,2] [--level avx2] [--out FILE.json]`

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use maxsim::{
    Backward, Codec, CpuLevel, DataBuf, Engine, EngineBuilder, Forward, FromHidden, Options, Precision,
    Residual, ResidualLayout, ScaleMode, TensorRef, Tokens, quantize_int8,
};
use maxsim_benches::{Random, best_of_two};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "Ratios the CPU backend is held to, each against a peer in the same run")]
struct Arguments {
    /// Thread counts.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// SIMD level; the best there is by default.
    #[arg(long)]
    level: Option<String>,
    /// Seconds per row.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where to write the record.
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

/// One comparison: `ratio` is the peer's time over ours unless the name says otherwise.
struct Row {
    name: &'static str,
    ours: Duration,
    peer: Duration,
    ratio: f64,
    wanted: f64,
    at_most: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut records = Vec::new();
    for &threads in &arguments.threads {
        let mut builder = EngineBuilder::new().threads(threads).silent();
        if let Some(level) = &arguments.level {
            builder = builder.cpu_level(level.parse::<CpuLevel>()?);
        }
        let engine = builder.build()?;
        let info = engine.info();
        println!("\n{} · {} · {threads} thread(s)", info.device, info.level);
        let (device, level) = (info.device.clone(), info.level.clone());
        let mut emit = |row: Row| {
            let bound = if row.at_most { "≤" } else { "≥" };
            println!(
                "{:58} ours {:>9.3?}  peer {:>9.3?}  ratio {:5.2} (wanted {bound} {})",
                row.name, row.ours, row.peer, row.ratio, row.wanted
            );
            records.push(record(&row, threads, &device, &level));
        };
        let s = arguments.seconds;
        emit(head(&engine, threads, s)?);
        emit(backward(&engine, s)?);
        if threads == 1 {
            emit(residual(&engine, s)?);
        }
        sgemm_rows(&engine, threads, s, &mut emit)?;
    }
    if let Some(path) = arguments.out {
        let text = serde_json::to_string_pretty(&records)? + "\n";
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn record(row: &Row, threads: usize, device: &str, level: &str) -> Value {
    json!({
        "name": row.name, "threads": threads, "device": device, "level": level,
        "ours_us": row.ours.as_secs_f64() * 1e6, "peer_us": row.peer.as_secs_f64() * 1e6,
        "ratio": row.ratio, "wanted": row.wanted, "at_most": row.at_most,
    })
}

fn row(name: &'static str, (ours, peer): (f64, f64), ratio: f64, wanted: f64, at_most: bool) -> Row {
    Row {
        name,
        ours: Duration::from_secs_f64(ours),
        peer: Duration::from_secs_f64(peer),
        ratio,
        wanted,
        at_most,
    }
}

/// `out [m, n] = a [m, k] · b [n, k]ᵀ` by the crate `gemm`.
fn sgemm(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], out: &mut [f32], threads: usize) {
    assert!(a.len() == m * k && b.len() == n * k && out.len() == m * n);
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    // SAFETY: the extents were checked above; row-major operands, `b` read as its transpose.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Operations per second relative to a square sgemm in the same run.
fn sgemm_rows(engine: &Engine, threads: usize, seconds: f64, emit: &mut impl FnMut(Row)) -> Result<()> {
    const N: usize = 1024;
    let mut random = Random::new(1);
    let (a, b) = (random.vectors(N, N), random.vectors(N, N));
    let mut c = vec![0f32; N * N];
    let sgemm_flops = 2.0 * (N as f64).powi(3);
    let shapes: [(&str, &str, [usize; 5]); 5] = [
        (
            "f32 1×1000 32×300, rate / sgemm rate",
            "int8 1×1000 32×300, rate / sgemm rate",
            [1, 1000, 32, 300, 128],
        ),
        (
            "f32 1×1000 32×1024, rate / sgemm rate",
            "int8 1×1000 32×1024, rate / sgemm rate",
            [1, 1000, 32, 1024, 128],
        ),
        (
            "f32 1×100 32×180 d=96, rate / sgemm rate",
            "int8 1×100 32×180 d=96, rate / sgemm rate",
            [1, 100, 32, 180, 96],
        ),
        (
            "f32 1×50 1030×1030, rate / sgemm rate",
            "int8 1×50 1030×1030, rate / sgemm rate",
            [1, 50, 1030, 1030, 128],
        ),
        (
            "f32 32×32 32×300, rate / sgemm rate",
            "int8 32×32 32×300, rate / sgemm rate",
            [32, 32, 32, 300, 128],
        ),
    ];
    for (name, name_int8, [nq, nd, lq, ld, d]) in shapes {
        let (q, documents) = (random.vectors(nq * lq, d), random.vectors(nd * ld, d));
        let flops = 2.0 * (nq * nd * lq * ld * d) as f64;
        let times = best_of_two(
            seconds,
            || {
                let q = Tokens::padded(&q, &[nq, lq, d]).expect("shape");
                let documents = Tokens::padded(&documents, &[nd, ld, d]).expect("shape");
                engine.maxsim(q, documents, Options::default()).expect("scores");
            },
            || sgemm(N, N, N, &a, &b, &mut c, threads),
        );
        emit(row(name, times, flops / times.0 / (sgemm_flops / times.1), 0.75, false));
        let q8 = quantize_int8(&TensorRef::new(&q, &[nq, lq, d])?, ScaleMode::PerToken)?;
        let d8 = quantize_int8(&TensorRef::new(&documents, &[nd, ld, d])?, ScaleMode::PerToken)?;
        let times = best_of_two(
            seconds,
            || {
                let q = Tokens::padded(q8.values.data(), &[nq, lq, d]).expect("shape");
                let documents = Tokens::padded(d8.values.data(), &[nd, ld, d]).expect("shape");
                let q = q.with_scales(q8.scales()).expect("scales");
                let documents = documents.with_scales(d8.scales()).expect("scales");
                engine.maxsim(q, documents, Options::default()).expect("scores");
            },
            || sgemm(N, N, N, &a, &b, &mut c, threads),
        );
        emit(row(name_int8, times, flops / times.0 / (sgemm_flops / times.1), 1.35, false));
        if name.contains("32×300") {
            let f16 = DataBuf::from_f32(&documents, maxsim::DType::F16);
            let times = best_of_two(
                seconds,
                || {
                    let q = Tokens::padded(&q, &[nq, lq, d]).expect("shape");
                    let documents = Tokens::padded(&f16, &[nd, ld, d]).expect("shape");
                    engine.maxsim(q, documents, Options::default()).expect("scores");
                },
                || {
                    let q = Tokens::padded(&q, &[nq, lq, d]).expect("shape");
                    let documents = Tokens::padded(&documents, &[nd, ld, d]).expect("shape");
                    engine.maxsim(q, documents, Options::default()).expect("scores");
                },
            );
            let name = if nq == 1 {
                "f16 documents against f32, 1×1000 32×300"
            } else {
                "f16 documents against f32, 32×32 32×300"
            };
            emit(row(name, times, times.1 / times.0, 1.0, false));
        }
    }
    Ok(())
}

/// The fused head against sgemm into memory followed by scoring.
fn head(engine: &Engine, threads: usize, seconds: f64) -> Result<Row> {
    let (nq, nd, lq, ld, d_model, d) = (8, 128, 32, 1024, 768, 128);
    let mut random = Random::new(2);
    let (q, h, w) =
        (random.vectors(nq * lq, d), random.vectors(nd * ld, d_model), random.vectors(d, d_model));
    let mut projected = vec![0f32; nd * ld * d];
    let times = best_of_two(
        seconds,
        || {
            let op = FromHidden::new(
                Tokens::padded(&q, &[nq, lq, d]).expect("shape"),
                Tokens::padded(&h, &[nd, ld, d_model]).expect("shape"),
                TensorRef::new(&w, &[d, d_model]).expect("shape"),
                None,
            );
            engine.maxsim_from_hidden(op).expect("scores");
        },
        || {
            sgemm(nd * ld, d, d_model, &h, &w, &mut projected, threads);
            let q = Tokens::padded(&q, &[nq, lq, d]).expect("shape");
            let documents = Tokens::padded(&projected, &[nd, ld, d]).expect("shape");
            engine.maxsim(q, documents, Options::normalized()).expect("scores");
        },
    );
    Ok(row("fused head 8×128 32×1024 768→128 against sgemm + maxsim", times, times.1 / times.0, 1.1, false))
}

/// Backward (winners recomputed) against forward.
fn backward(engine: &Engine, seconds: f64) -> Result<Row> {
    let (nq, nd, lq, ld, d) = (32, 32, 32, 300, 128);
    let mut random = Random::new(3);
    let (q, documents) = (random.vectors(nq * lq, d), random.vectors(nd * ld, d));
    let grad: Vec<f32> = (0..nq * nd).map(|_| random.value()).collect();
    let op = || {
        Forward::maxsim(
            Tokens::padded(&q, &[nq, lq, d]).expect("shape"),
            Tokens::padded(&documents, &[nd, ld, d]).expect("shape"),
            Options::default(),
        )
    };
    let times = best_of_two(
        seconds,
        || drop(engine.backward(Backward::new(op(), &grad)).expect("gradients")),
        || drop(engine.run(&maxsim::Op::Forward(op())).expect("scores")),
    );
    Ok(row("backward 32×32 32×300, time / forward time", times, times.0 / times.1, 1.5, true))
}

/// The integer residual path against the crate `maxsim-lut`: 32 query tokens, d = 128, 4 bits, codes and norms given.
fn residual(engine: &Engine, seconds: f64) -> Result<Row> {
    let (nd, ld, lq, d, nbits, centroids_count) = (500, 120, 32, 128, 4, 1024);
    let mut random = Random::new(4);
    let centroids = random.vectors(centroids_count, d);
    let q = random.vectors(lq, d);
    let weights: Vec<f32> = (0..16).map(|b| (b as f32 - 7.5) / 60.0).collect();
    let codes: Vec<u32> = (0..nd * ld).map(|_| random.bits() % centroids_count as u32).collect();
    let bytes: Vec<u8> = (0..nd * ld * d / 2).map(|_| random.bits() as u8).collect();
    let offsets: Vec<u32> = (0..=nd).map(|i| (i * ld) as u32).collect();
    let inv_norms = vec![0.9f32; nd * ld];

    let lut = maxsim_lut::Lut::colbert(nbits, &weights).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let mut table = vec![0f32; centroids_count * lq];
    let mut out = vec![0f32; nd];
    let scores = |out: &mut Vec<f32>| {
        let codec = Codec::new(
            TensorRef::new(&centroids, &[centroids_count, d]).expect("shape"),
            &weights[..],
            nbits as u32,
            ResidualLayout::Plaid,
        );
        let documents = Residual::packed(codec.expect("codec"), &codes, &bytes, &offsets).expect("documents");
        let documents = documents.with_inv_norms(&inv_norms).expect("norms");
        let q = Tokens::padded(&q, &[lq, d]).expect("shape");
        // Queries are unit vectors already, and stored norms are used under `normalize` only.
        let options = Options { precision: Precision::Int8, ..Options::normalized() };
        *out = engine.maxsim_residual(q, documents, options).expect("scores").values;
    };
    let mut peer = |out: &mut Vec<f32>| {
        // The centroid term is part of both: one product per query and centroid.
        sgemm(centroids_count, lq, d, &centroids, &q, &mut table, 1);
        let prepared = maxsim_lut::PreparedQuery::new(&lut, &q, lq, d).expect("query");
        let scorer = maxsim_lut::Scorer::new(&lut, &prepared)
            .with_centroid_term(&table, centroids_count)
            .expect("table");
        let documents = (0..nd).map(|j| {
            let rows = j * ld..(j + 1) * ld;
            maxsim_lut::DocView::new(&bytes[rows.start * d / 2..rows.end * d / 2], ld, d / 2)
                .codes(maxsim_lut::Codes::U32(&codes[rows.clone()]))
                .inv_norms(&inv_norms[rows])
        });
        scorer.score_many(documents, out);
    };
    let mut ours_out = Vec::new();
    scores(&mut ours_out);
    peer(&mut out);
    // The same work on both sides, or the comparison means nothing.
    for (ours, peer) in ours_out.iter().zip(&out) {
        anyhow::ensure!((ours - peer).abs() < 0.02 * peer.abs().max(1.0), "{ours} {peer}");
    }
    let mut peer_out = out;
    let times = best_of_two(seconds, || scores(&mut ours_out), || peer(&mut peer_out));
    Ok(row("residual 4 bit integer path against maxsim-lut", times, times.1 / times.0, 1.0, false))
}
