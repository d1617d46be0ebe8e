//! `maxsim index info`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::plaid::Segment;
use serde::Serialize;

use super::opened::Opened;
use crate::exit::Outcome;
use crate::output::{Out, bytes, grouped};

/// Say what an index holds and how much memory it takes
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Directory of the index
    #[arg(value_name = "DIR")]
    index: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    format: &'static str,
    documents: usize,
    tokens: usize,
    dim: usize,
    nbits: u32,
    centroids: usize,
    segments: usize,
    /// In memory, without the centroids.
    bytes: usize,
    bytes_per_token: f64,
    centroid_bytes: usize,
}

/// Runs `maxsim index info`.
pub(super) fn run(args: &InfoArgs) -> anyhow::Result<Outcome> {
    let index = Opened::read(&args.index)?;
    let held: usize = index.segments.iter().map(Segment::bytes).sum();
    let report = Report {
        format: index.format,
        documents: index.documents(),
        tokens: index.tokens(),
        dim: index.codec.dim(),
        nbits: index.codec.nbits(),
        centroids: index.codec.count(),
        segments: index.segments.len(),
        bytes: held,
        bytes_per_token: held as f64 / index.tokens().max(1) as f64,
        centroid_bytes: index.codec.count() * index.codec.dim() * index.codec.dtype().size(),
    };
    let mut out = Out::stdout();
    if args.json {
        out.json(&report)?;
        return Ok(Outcome::Success);
    }
    writeln!(out, "format      {}", report.format)?;
    writeln!(out, "documents   {}", grouped(report.documents))?;
    writeln!(out, "tokens      {}", grouped(report.tokens))?;
    writeln!(out, "vectors     {} dimensions at {} bit", report.dim, report.nbits)?;
    let centroids = bytes(report.centroid_bytes as u64);
    writeln!(out, "centroids   {}, {centroids}", grouped(report.centroids))?;
    writeln!(out, "memory      {}, {:.2} bytes a token", bytes(held as u64), report.bytes_per_token)?;
    out.flush()?;
    Ok(Outcome::Success)
}
