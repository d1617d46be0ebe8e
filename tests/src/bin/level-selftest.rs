//! Runs stored results at one CPU level, or measures that level: a program small enough to build for what is emulated here,
//! 64-bit Arm and `wasm32-wasip1` (which `tests/wasi.mjs` runs in Node).
//!
//! ```text
//! level-selftest FILE.safetensors LEVEL    report, last line `N passed, N failed`; exit status 1 if any failed
//! level-selftest --bench LEVEL             GFLOP/s of one query against 100 documents, on one thread
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use maxsim::{CpuLevel, Engine, Forward, Op, Options, ScaleMode, TensorRef, Tokens, quantize_int8};
use maxsim_formats::SafeTensors;
use maxsim_testkit::devices;
use maxsim_testkit::fixture::{self, Report};

const USAGE: &str = "usage: level-selftest FILE.safetensors LEVEL | --bench LEVEL";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [flag, level] if flag == "--bench" => engine(level).and_then(|engine| bench(&engine)),
        [file, level] => engine(level).and_then(|engine| selftest(file, &engine)),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

fn engine(level: &str) -> Result<Engine, String> {
    let level: CpuLevel = level.parse().map_err(|error| format!("{error}"))?;
    if !level.is_available() {
        let there: Vec<&str> = CpuLevel::available().map(CpuLevel::name).collect();
        return Err(format!("{level} does not run here; {} does", there.join(", ")));
    }
    Ok(devices::cpu(level, 1).engine)
}

/// Whether every case passed, and there was one.
fn selftest(file: &str, engine: &Engine) -> Result<bool, String> {
    // Read, not mapped: WASI has no mapping of files.
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let report: Report = SafeTensors::from_bytes(bytes)
        .and_then(|file| fixture::run_file(&file, engine, &fixture::Options::default()))
        .map_err(|error| format!("{file}: {error}"))?;
    for line in report.summary_lines() {
        println!("{line}");
    }
    println!("{}", report.last_line());
    Ok(report.failed() == 0 && report.passed() > 0)
}

/// Documents, their tokens, query tokens, dimension.
const SHAPE: [usize; 4] = [100, 300, 32, 128];

/// Prints the best and the median of the runs of one second for each element type.
fn bench(engine: &Engine) -> Result<bool, String> {
    let [docs, tokens, q_tokens, dim] = SHAPE;
    // Any numbers do: the time does not depend on them.
    let numbers = |count: usize| (0..count).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let (q, d) = (numbers(q_tokens * dim), numbers(docs * tokens * dim));
    let (q_shape, d_shape) = ([1, q_tokens, dim], [docs, tokens, dim]);
    let say = |error: maxsim::Error| error.to_string();

    let f32_op = || {
        let (q, d) = (Tokens::padded(&q, &q_shape)?, Tokens::padded(&d, &d_shape)?);
        Ok(Forward::maxsim(q, d, Options::default()))
    };
    measure("f32", engine, &f32_op().map_err(say)?)?;

    let int8 = |x: &[f32], shape: &[usize]| {
        TensorRef::new(x, shape).and_then(|x| quantize_int8(&x, ScaleMode::PerToken)).map_err(say)
    };
    let (q8, d8) = (int8(&q, &q_shape)?, int8(&d, &d_shape)?);
    let int8_op = || {
        let q = Tokens::padded(q8.values.data(), &q_shape)?.with_scales(q8.scales())?;
        let d = Tokens::padded(d8.values.data(), &d_shape)?.with_scales(d8.scales())?;
        Ok(Forward::maxsim(q, d, Options::default()))
    };
    measure("int8", engine, &int8_op().map_err(say)?)?;
    Ok(true)
}

fn measure(name: &str, engine: &Engine, op: &Forward<'_>) -> Result<(), String> {
    let op = Op::Forward(op.clone());
    let work = 2.0 * SHAPE.iter().product::<usize>() as f64;
    let (start, mut seconds) = (Instant::now(), Vec::new());
    // The first runs are slower: engines compile a module again, better, once it has run for a while.
    while start.elapsed() < Duration::from_secs(1) || seconds.len() < 5 {
        let run = Instant::now();
        engine.run(&op).map_err(|error| error.to_string())?;
        seconds.push(run.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let (best, median) = (seconds[0], seconds[seconds.len() / 2]);
    println!("{name}: best {:.1}, median {:.1} GFLOP/s", work / best / 1e9, work / median / 1e9);
    Ok(())
}
