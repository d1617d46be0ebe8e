//! `maxsim index info`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::plaid::Bitmap;
use serde::Serialize;

use super::opened::Opened;
use crate::exit::Outcome;
use crate::output::{Out, bytes, grouped};

/// Say what an index holds and how much memory it takes
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    format: &'static str,
    /// Without deleted ones.
    documents: usize,
    /// Deleted, and not yet compacted away.
    deleted: usize,
    tokens: usize,
    dim: usize,
    nbits: u32,
    centroids: usize,
    segments: usize,
    /// In memory, without the centroids.
    bytes: usize,
    bytes_per_token: f64,
    centroid_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<Column>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoder: Option<EncoderReport>,
}

#[derive(Serialize)]
struct EncoderReport {
    name: String,
    /// Empty: built into the command.
    location: String,
    fingerprint: String,
}

#[derive(Serialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Runs `maxsim index info`.
pub(super) fn run(args: &InfoArgs) -> anyhow::Result<Outcome> {
    let index = Opened::read(&args.index)?;
    let (segments, codec) = (index.segments(), index.codec());
    let held: usize = segments.iter().map(|segment| segment.bytes()).sum();
    let tokens: usize = segments.iter().map(|segment| segment.tokens()).sum();
    let all: usize = segments.iter().map(|segment| segment.documents()).sum();
    let documents = index.live().map_or(all, Bitmap::count);
    let (format, own) = match &index {
        Opened::Own(index) => ("maxsim", Some(index.info())),
        Opened::Foreign(foreign) => (foreign.format, None),
    };
    let report = Report {
        format,
        documents,
        deleted: all - documents,
        tokens,
        dim: codec.dim(),
        nbits: codec.nbits(),
        centroids: codec.count(),
        segments: segments.len(),
        bytes: held,
        bytes_per_token: held as f64 / tokens.max(1) as f64,
        centroid_bytes: codec.count() * codec.dim() * codec.dtype().size(),
        generation: own.as_ref().map(|info| info.generation),
        encoder: index.encoder().map(|encoder| EncoderReport {
            name: encoder.name.clone(),
            location: encoder.location.clone(),
            fingerprint: format!("{:016x}", encoder.fingerprint),
        }),
        ids: own.as_ref().map(|info| info.ids.to_string()),
        columns: own.map(|info| {
            info.columns.into_iter().map(|(name, kind)| Column { name, kind: kind.to_string() }).collect()
        }),
    };
    let mut out = Out::stdout();
    if args.json {
        out.json(&report)?;
        return Ok(Outcome::Success);
    }
    writeln!(out, "format      {}", report.format)?;
    let deleted = if report.deleted > 0 {
        format!(" ({} more deleted)", grouped(report.deleted))
    } else {
        String::new()
    };
    writeln!(out, "documents   {}{deleted}, {} segments", grouped(report.documents), report.segments)?;
    writeln!(out, "tokens      {}", grouped(report.tokens))?;
    writeln!(out, "vectors     {} dimensions at {} bit", report.dim, report.nbits)?;
    let centroids = bytes(report.centroid_bytes as u64);
    writeln!(out, "centroids   {}, {centroids}", grouped(report.centroids))?;
    writeln!(out, "memory      {}, {:.2} bytes a token", bytes(held as u64), report.bytes_per_token)?;
    if let Some(ids) = &report.ids {
        writeln!(out, "ids         {ids}")?;
    }
    if let Some(encoder) = index.encoder() {
        writeln!(out, "encoder     {encoder}")?;
    }
    for column in report.columns.iter().flatten() {
        writeln!(out, "column      {} ({})", column.name, column.kind)?;
    }
    out.flush()?;
    Ok(Outcome::Success)
}
