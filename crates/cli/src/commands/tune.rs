//! `maxsim tune`: measures what kernels can be chosen between.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::cuda::tuning::{Table, classes};
use maxsim::{Backend, CudaBackend, CudaOptions};

use crate::exit::Outcome;
use crate::output::Out;
use crate::setup::positive;

/// Measure CUDA kernels on this machine's GPU and write a table of the fastest
///
/// The bits of scores do not depend on what a table says. MAXSIM_CUDA_TUNING names the table to use; without it, that of the GPU which
/// comes with maxsim is, if there is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim tune --out h200.json
  maxsim tune --dim 96,128 --documents 5000 --out table.json
  MAXSIM_CUDA_TUNING=table.json maxsim score --backend cuda --queries q.npy --documents d.npy")]
pub(crate) struct TuneArgs {
    /// File that the table is written to [default: only shown]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Embedding dimensions
    #[arg(long, value_name = "D,…", value_delimiter = ',', num_args = 1, default_value = "128", value_parser = clap::value_parser!(u32).range(1..=8192))]
    dim: Vec<u32>,
    /// Documents of 300 tokens that queries are scored with
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive())]
    documents: usize,
    /// Repetitions of every measurement
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive())]
    repeats: usize,
    /// Which GPU, as the driver counts them
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
}

/// Runs `maxsim tune`.
pub(crate) fn run(args: &TuneArgs) -> anyhow::Result<Outcome> {
    let options = CudaOptions { device: args.device, ..CudaOptions::default() };
    let make = |table| CudaBackend::with_table(options, Some(table));
    let mut table = Table::of(&make(Table::default())?.info().device);
    let mut out = Out::stdout();
    writeln!(out, "{}: microseconds by query rows of a tile", table.device)?;
    for class in classes(&args.dim) {
        let entry = CudaBackend::tune(&make, &class, args.documents, 300, args.repeats)?;
        let times: Vec<String> =
            entry.microseconds.iter().map(|(tile, us)| format!("{tile}: {us:.1}")).collect();
        let flags = [(class.argmax, " winners"), (class.scaled, " factors")];
        let flags: String = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        let name = format!("{}×{} d={} rows={}{flags}", class.q, class.d, class.dim, class.rows);
        writeln!(out, "{name:<44} {} → {}", times.join("  "), entry.tile)?;
        out.flush()?;
        // One tile is no choice.
        if entry.microseconds.len() > 1 {
            table.entries.push(entry);
        }
    }
    match &args.out {
        Some(file) => std::fs::write(file, table.text())
            .map_err(|e| maxsim::Error::io(file.display().to_string(), e))?,
        None => write!(out, "{}", table.text())?,
    }
    out.flush()?;
    Ok(Outcome::Success)
}
