//! `maxsim kernels`: CUDA kernels ahead of time.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use maxsim::cuda;

use crate::exit::Outcome;
use crate::output::Out;

/// Compile CUDA kernels for machines without NVRTC
#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(BuildArgs),
}

/// Compile a set of kernels into a folder
///
/// Needs NVRTC and no GPU. A machine that has only the driver finds them there if MAXSIM_CUDA_KERNELS names the folder, with the same
/// version of maxsim.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim kernels build --arch sm_90a --out kernels
  maxsim kernels build --arch sm_80 --arch sm_89 --dim 96,128 --out kernels
  MAXSIM_CUDA_KERNELS=kernels maxsim score --backend cuda --queries q.npy --documents d.npy")]
struct BuildArgs {
    /// Architecture, as NVRTC calls it: sm_80 (A100), sm_89 (L40S), sm_90a (H100, H200), … Can be given several times
    #[arg(long, value_name = "ARCH", required = true, value_delimiter = ',', num_args = 1)]
    arch: Vec<String>,
    /// Embedding dimensions that every tile is compiled for
    #[arg(long, value_name = "D,…", value_delimiter = ',', num_args = 1, default_value = "128", value_parser = clap::value_parser!(u32).range(1..=8192))]
    dim: Vec<u32>,
    /// Folder they are written to; what is there already stays
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs `maxsim kernels`.
pub(crate) fn run(args: &KernelsArgs) -> anyhow::Result<Outcome> {
    let Command::Build(args) = &args.command;
    // All architectures are known before the first takes minutes.
    let sets = args.arch.iter().map(|arch| Ok((arch, cuda::prebuilt(arch, &args.dim)?)));
    let mut out = Out::stdout();
    for (arch, units) in sets.collect::<maxsim::Result<Vec<_>>>()? {
        let bar = indicatif::ProgressBar::new(units.len() as u64);
        let compiled = cuda::jit::build(&args.out, arch, &units, |done| bar.set_position(done as u64));
        bar.finish_and_clear();
        writeln!(out, "{arch}: {} kernels, {} of them compiled now", units.len(), compiled?)?;
    }
    out.flush()?;
    Ok(Outcome::Success)
}
