//! `maxsim index build`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use maxsim::plaid::store::DirectoryStorage;
use maxsim::plaid::{BuildOptions, BuildTimes, IdKind, Progress, TrainOptions, build_timed};
use serde::Serialize;

use super::documents::DocumentArgs;
use crate::alloc;
use crate::exit::Outcome;
use crate::output::{self, Out, bytes, grouped};
use crate::setup::{self, Global};

/// Build an index of token vectors, or of text
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim index build wiki.index --documents d.npy
  maxsim index build docs.index --text docs/ --model lightonai/GTE-ModernColBERT-v1
  maxsim index build wiki.index --documents packed.npy --offsets cu_seqlens.npy --nbits 2 --metadata rows.jsonl

Documents are gone through twice, in memory that does not grow with their number. A build that was killed goes on where it
was when the same command is given again. An index that is replaced is there until the new one is.")]
pub(crate) struct BuildArgs {
    /// Directory of the new index
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    #[command(flatten)]
    documents: DocumentArgs,
    /// Ids are texts, not numbers
    #[arg(long, requires = "ids")]
    text_ids: bool,
    /// Bits per dimension of residuals
    #[arg(long, default_value = "4", value_name = "N", value_parser = setup::nbits())]
    nbits: u32,
    /// Number of centroids [default: 2^⌊log2(16·√tokens)⌋]
    #[arg(long, value_name = "K", value_parser = setup::positive())]
    centroids: Option<usize>,
    /// Iterations of k-means
    #[arg(long, default_value_t = TrainOptions::default().iterations, value_name = "N")]
    iterations: usize,
    /// Tokens that k-means sees per centroid at most
    #[arg(long, default_value_t = TrainOptions::default().points_per_centroid, value_name = "N",
        value_parser = setup::positive())]
    points_per_centroid: usize,
    /// Seed of the sample and of k-means
    #[arg(long, default_value_t = TrainOptions::default().seed, value_name = "SEED")]
    seed: u64,
    /// Replace an index that is there
    #[arg(long)]
    replace: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    documents: usize,
    tokens: usize,
    dim: usize,
    nbits: u32,
    centroids: usize,
    segments: usize,
    bytes: u64,
    bytes_per_token: f64,
    seconds: f64,
    /// Most bytes allocated at a time; maps of files are not counted.
    peak_bytes: usize,
    phases: Phases,
}

/// Where the seconds went.
#[derive(Serialize)]
struct Phases {
    /// Both passes: what is read of the files; texts are encoded meanwhile.
    reading: f64,
    sampling: f64,
    rounding: f64,
    clustering: f64,
    averaging: f64,
    buckets: f64,
    converting: f64,
    assigning: f64,
    packing: f64,
    writing: f64,
}

impl Phases {
    fn new(total: f64, times: &BuildTimes) -> Self {
        let mut phases = Self {
            reading: 0.0,
            sampling: times.sampling.as_secs_f64(),
            rounding: times.rounding.as_secs_f64(),
            clustering: times.clustering.as_secs_f64(),
            averaging: times.averaging.as_secs_f64(),
            buckets: times.buckets.as_secs_f64(),
            converting: times.converting.as_secs_f64(),
            assigning: times.assigning.as_secs_f64(),
            packing: times.packing.as_secs_f64(),
            writing: times.writing.as_secs_f64(),
        };
        phases.reading = total - phases.all().map(|(_, seconds)| seconds).sum::<f64>();
        phases
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("reading", self.reading),
            ("sampling", self.sampling),
            ("rounding", self.rounding),
            ("clustering", self.clustering),
            ("averaging", self.averaging),
            ("buckets", self.buckets),
            ("converting", self.converting),
            ("assigning", self.assigning),
            ("packing", self.packing),
            ("writing", self.writing),
        ]
        .into_iter()
    }
}

/// Runs `maxsim index build`.
pub(super) fn run(global: &Global, args: &BuildArgs) -> anyhow::Result<Outcome> {
    let ids = if args.text_ids { IdKind::Text } else { IdKind::Number };
    let mut documents = args.documents.open(global, ids, None)?;
    let engine = global.engine()?;
    let options = BuildOptions {
        ids,
        replace: args.replace,
        train: TrainOptions {
            nbits: args.nbits,
            centroids: args.centroids,
            iterations: args.iterations,
            points_per_centroid: args.points_per_centroid,
            seed: args.seed,
        },
        encoder: documents.encoder().cloned(),
        source: args.documents.fingerprint(&documents)?,
        ..BuildOptions::default()
    };
    let bar = output::progress(documents.count(), "reading");
    let mut show = |progress| {
        let (what, done, total) = match progress {
            Progress::Sampling { documents, .. } => ("reading", documents, None),
            Progress::Training { done, total } => ("training", done, Some(total)),
            Progress::Encoding { done, total } => ("encoding", done, Some(total)),
        };
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_message(what);
        bar.set_position(done);
    };
    let started = Instant::now();
    let storage = DirectoryStorage::new(&args.index);
    let (built, peak) =
        alloc::peak_during(|| build_timed(&engine, storage, &mut documents, options, &mut show));
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let (index, times) = built?;
    let info = index.info();
    let report = Report {
        documents: info.documents,
        tokens: info.tokens,
        dim: info.dim,
        nbits: info.nbits,
        centroids: info.centroids,
        segments: info.segments,
        bytes: info.file_bytes,
        bytes_per_token: info.bytes_per_token(),
        seconds,
        peak_bytes: peak,
        phases: Phases::new(seconds, &times),
    };
    let mut out = Out::stdout();
    if args.json {
        out.json(&report)?;
        return Ok(Outcome::Success);
    }
    let (documents, tokens) = (grouped(report.documents), grouped(report.tokens));
    writeln!(out, "{documents} documents, {tokens} tokens in {}", bytes(report.bytes))?;
    writeln!(out, "{:.2} bytes a token, {} centroids", report.bytes_per_token, grouped(report.centroids))?;
    writeln!(out, "{seconds:.1} s, {} of memory at most", bytes(peak as u64))?;
    let phases: Vec<String> = report.phases.all().map(|(name, s)| format!("{name} {s:.1}")).collect();
    writeln!(out, "seconds: {}", phases.join(", "))?;
    out.flush()?;
    Ok(Outcome::Success)
}
