//! Training steps that learn: a projection of token vectors, fitted through the gradients of MaxSim.
//!
//! `cargo run --release -p maxsim --example train`. What is learned, and why it is hard, stands in `training/mod.rs`.

mod training;

use std::time::Instant;

use training::{Config, contrastive, distillation};

fn main() -> maxsim::Result<()> {
    let engine = maxsim::engine()?;
    let config = Config {
        train: 4000,
        held_out: 500,
        dim: 64,
        batch: 64,
        steps: 400,
        learning_rate: 3e-3,
        temperature: 0.5,
    };

    let start = Instant::now();
    let report = contrastive::run(&engine, config, 1)?;
    let [before, after] = report.found;
    println!("In-batch negatives, {} steps of {} pairs, {:.1?}", config.steps, config.batch, start.elapsed());
    println!("  held out     loss  recall@1    MRR");
    println!("  before   {:8.3}  {:8.3}  {:5.3}", report.loss[0], before.recall_at_1, before.mrr);
    println!("  after    {:8.3}  {:8.3}  {:5.3}", report.loss[1], after.recall_at_1, after.mrr);
    println!("  without disturbance {:6.3}  {:5.3}", report.undisturbed.recall_at_1, report.undisturbed.mrr);

    let start = Instant::now();
    let config = Config { train: 2000, batch: 32, steps: 300, ..config };
    let report = distillation::run(&engine, config, 2)?;
    println!("Distillation, {} steps of {} queries, {:.1?}", config.steps, config.batch, start.elapsed());
    println!("  held out     loss  teacher's best first");
    println!("  before   {:8.3}  {:8.3}", report.loss[0], report.agreement[0]);
    println!("  after    {:8.3}  {:8.3}", report.loss[1], report.agreement[1]);
    Ok(())
}
