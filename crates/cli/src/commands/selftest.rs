//! `maxsim selftest`: stored cases, run on this machine.

use std::io::Write;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use maxsim_testkit::fixture;

use crate::exit::Outcome;
use crate::output::Out;
use crate::setup::Global;

/// Check results against a file of stored cases
///
/// Prints a line per operator, failures by name with their worst error, and at the end `N passed, N failed` (and
/// `, N skipped` if there are any). Exit code 0 only without failures,
/// and 1 too if every case was skipped: nothing was compared.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim selftest --cases lik_reference.safetensors
  maxsim selftest --cases lik_reference.safetensors --ops dense,kd,varlen --level generic
  maxsim selftest --cases lik_reference.safetensors --check scores,argmax --backend cpu --threads 1

A file of cases is a .safetensors file whose metadata has a key `cases`: JSON {case: {op, dtype, normalize, …}}; tensors
are named <case>/<tensor>. Tolerances are those of the library's specification.")]
pub(crate) struct SelftestArgs {
    /// File of cases (.safetensors)
    #[arg(long, value_name = "FILE")]
    cases: PathBuf,
    /// Only cases of these operators, as the file names them [default: all]
    #[arg(long, value_name = "OP,…", value_delimiter = ',', num_args = 1, value_parser = PossibleValuesParser::new(fixture::OPS))]
    ops: Vec<String>,
    /// Which stored results are compared [default: all]
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',', num_args = 1)]
    check: Vec<Check>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    /// Scores and, of retrieval, indices
    Scores,
    /// Winning document tokens
    Argmax,
    /// Gradients
    Grads,
    /// Quantised bytes and scales
    Quantized,
}

/// Runs `maxsim selftest`.
pub(crate) fn run(global: &Global, args: &SelftestArgs) -> anyhow::Result<Outcome> {
    let engine = global.engine()?;
    let asked = |check| args.check.is_empty() || args.check.contains(&check);
    let checks = fixture::Checks {
        scores: asked(Check::Scores),
        argmax: asked(Check::Argmax),
        grads: asked(Check::Grads),
        quantized: asked(Check::Quantized),
    };
    let ops = (!args.ops.is_empty()).then(|| args.ops.clone());
    let report = fixture::run(&args.cases, &engine, &fixture::Options { ops, checks })?;
    let mut out = Out::stdout();
    for line in report.summary_lines() {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{}", report.last_line())?;
    out.flush()?;
    let nothing = report.skipped() > 0 && report.passed() + report.failed() == 0;
    if nothing {
        // A stderr that is closed must not panic.
        let _ = writeln!(std::io::stderr(), "nothing was compared: every case was skipped");
    }
    Ok(if report.failed() == 0 && !nothing { Outcome::Success } else { Outcome::CheckFailed })
}
