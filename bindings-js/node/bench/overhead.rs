//! Time of one small call in Rust, for `overhead.mjs`: one query of 8 tokens, one document of 16, d = 32.

use std::time::Instant;

use maxsim::{EngineBuilder, Options, Tokens};

fn main() -> maxsim::Result<()> {
    let engine = EngineBuilder::new().threads(1).silent().build()?;
    let q: Vec<f32> = (0..8 * 32).map(|x| (x as f32).sin() / 4.0).collect();
    let d: Vec<f32> = (0..16 * 32).map(|x| (x as f32).cos() / 4.0).collect();
    let call =
        || engine.maxsim(Tokens::padded(&q, &[8, 32])?, Tokens::padded(&d, &[16, 32])?, Options::default());
    let calls = 20_000;
    for _ in 0..calls {
        std::hint::black_box(call()?);
    }
    let start = Instant::now();
    for _ in 0..calls {
        std::hint::black_box(call()?);
    }
    println!("{}", start.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
    Ok(())
}
