//! The commands, one file each.

mod bench;
mod demo;
mod index;
mod info;
mod kernels;
mod plan;
mod score;
mod search;
mod selftest;
mod tune;

use clap::{Parser, Subcommand};

use crate::exit::Outcome;
use crate::setup::{self, Global};

/// Late-interaction (ColBERT) scoring and search.
///
/// score(query, document) = Σ over query tokens of the best similarity with any document token.
#[derive(Debug, Parser)]
#[command(name = "maxsim", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  maxsim demo \"fear of closed spaces\"
  maxsim search \"refund policy\" --text docs/ --top-k 5
  maxsim score --queries q.npy --documents d.npy --json
  maxsim index search wiki.plaid --queries q.npy --top-k 10

Exit codes: 0 ok, 1 a check failed, 2 usage, 3 input, 4 backend, 5 I/O.
Environment: MAXSIM_BACKEND, MAXSIM_CPU_LEVEL, MAXSIM_THREADS, MAXSIM_CACHE_DIR, MAXSIM_LOG, NO_COLOR.";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Search(search::SearchArgs),
    Score(score::ScoreArgs),
    Index(index::IndexArgs),
    Info(info::InfoArgs),
    Bench(bench::BenchArgs),
    Selftest(selftest::SelftestArgs),
    Kernels(kernels::KernelsArgs),
    Tune(tune::TuneArgs),
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Outcome> {
    setup::logging()?;
    match cli.command {
        Command::Demo(args) => demo::run(&cli.global, &args),
        Command::Search(args) => search::run(&cli.global, &args),
        Command::Score(args) => score::run(&cli.global, &args),
        Command::Index(args) => index::run(&cli.global, &args),
        Command::Info(args) => info::run(&cli.global, &args),
        Command::Bench(args) => bench::run(&cli.global, &args),
        Command::Selftest(args) => selftest::run(&cli.global, &args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Tune(args) => tune::run(&args),
    }
}
