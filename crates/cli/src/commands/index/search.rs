//! `maxsim index search`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::{ArgGroup, Args};
use maxsim::plaid::{DocumentId, Filter, SearchHit};
use maxsim::{PlaidOptions, Precision};
use serde::Serialize;

use super::opened::{JsonId, Opened};
use crate::exit::{Outcome, Usage};
use crate::input::{encode_queries, read_queries};
use crate::model::ModelArgs;
use crate::output::{Out, Style, beside, columns, pad};
use crate::setup::{self, Global};

/// Find the best documents of an index for each query
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("any queries").args(["queries", "query"]).required(true), after_help = "\
Examples:
  maxsim index search docs.index --query \"refund policy\"
  maxsim index search wiki.plaid --queries q.npy --top-k 10
  maxsim index search wiki.plaid --queries q.npy --top-k 10 --n-ivf-probe 16 --n-full-scores 8192 --json
  maxsim index search wiki.plaid --queries q.npy --exact

With --json one list per query of {id, score} objects, best first; with --explain a hit also has winners, the document
token that answered each query token (-1: none). Of an index built from text, a hit also has text and source. With --repeat
the lists are the field results of an object, next to device, load_seconds and the seconds of each search.")]
pub(crate) struct SearchArgs {
    /// The index, a directory or one file; directories of fast-plaid and next-plaid are read as they are
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Query vectors: .npy or .safetensors, [Lq, d] or [Nq, Lq, d], or [T, d] with --query-offsets
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with = "query")]
    queries: Option<String>,
    /// Query as text; may be repeated. The encoder is the one that the index was built with: --model is needed only if its
    /// folder is elsewhere now, or if the index was built from vectors
    #[arg(long, value_name = "TEXT")]
    query: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Offsets of packed queries [Nq + 1]
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with_all = ["query_lengths", "query"])]
    query_offsets: Option<String>,
    /// Lengths of padded queries [Nq]
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with = "query")]
    query_lengths: Option<String>,
    /// Results per query
    #[arg(long, default_value_t = 10, value_name = "K", value_parser = setup::positive())]
    top_k: usize,
    /// Documents that stay after the approximate score; a quarter of them is scored well [default: 4096, and more for queries
    /// whose results those do not settle]
    #[arg(long, value_name = "N", value_parser = setup::positive())]
    n_full_scores: Option<usize>,
    /// Centroids probed per query token
    #[arg(long, default_value_t = 8, value_name = "P", value_parser = setup::positive())]
    n_ivf_probe: usize,
    /// Leave out probed centroids whose best similarity with a query token is below this
    #[arg(long, value_name = "SIMILARITY", allow_negative_numbers = true)]
    centroid_score_threshold: Option<f32>,
    /// Search only these documents: their ids, separated by commas
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    subset: Option<Vec<String>>,
    /// Search only documents whose metadata fit, such as "year >= 2020 AND lang IN ('de', 'en')"
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Score every document: slow, and the reference
    #[arg(long)]
    exact: bool,
    /// How exact the last stage is
    #[arg(long, default_value = "default", value_name = "PRECISION", value_parser = setup::precision())]
    precision: Precision,
    /// Take query vectors as they are instead of normalising them, as is done with text
    #[arg(long)]
    no_normalize: bool,
    /// Also say which document token answers which query token
    #[arg(long)]
    explain: bool,
    /// Search N more times, and report how long that takes: searching alone, with the index loaded and on the device
    #[arg(long, value_name = "N", value_parser = setup::positive())]
    repeat: Option<usize>,
    /// Print one list per query
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct HitReport<'a> {
    id: JsonId<'a>,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    winners: Option<&'a [i32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

impl<'a> HitReport<'a> {
    fn new(hit: &'a SearchHit, index: &Opened, explain: bool) -> Self {
        let winners = explain.then_some(&hit.winners[..]);
        let (text, source) = index.text(&hit.id).unzip();
        Self { id: JsonId(&hit.id), score: hit.score, winners, text, source }
    }
}

/// What `--repeat` reports.
#[derive(Serialize)]
struct Timed {
    device: String,
    /// From the index on disk to where it is searched.
    load_seconds: f64,
    /// Of every search after the first.
    seconds: Vec<f64>,
}

#[derive(Serialize)]
struct TimedReport<'a> {
    results: Vec<Vec<HitReport<'a>>>,
    #[serde(flatten)]
    timed: &'a Timed,
}

/// Runs `maxsim index search`.
pub(super) fn run(global: &Global, args: &SearchArgs) -> anyhow::Result<Outcome> {
    if let (Some(file), true) = (&args.queries, args.model.is_given()) {
        let problem = format!("--model encodes --query, and queries are the vectors in {file}");
        return Err(Usage::new(problem).into());
    }
    let started = Instant::now();
    let index = Opened::read(&args.index)?;
    let opened = started.elapsed();
    let queries = match &args.queries {
        Some(file) => read_queries(file, args.query_offsets.as_deref(), args.query_lengths.as_deref())?,
        None => {
            let texts: Vec<&str> = args.query.iter().map(String::as_str).collect();
            let encoders = args.model.load_for(index.encoder(), global, None)?;
            encode_queries(&texts, &*encoders.queries)?.0.operand
        }
    };
    let engine = global.engine()?;
    let started = Instant::now();
    let index = index.upload(&engine)?;
    let load_seconds = (opened + started.elapsed()).as_secs_f64();
    let filter = args.filter.as_deref().map(|filter| Filter::parse(filter, &[])).transpose()?;
    let options = PlaidOptions {
        top_k: args.top_k,
        n_ivf_probe: args.n_ivf_probe,
        n_full_scores: args.n_full_scores,
        centroid_score_threshold: args.centroid_score_threshold,
        exact: args.exact,
        candidates_only: false,
        // Text queries are as long as their tokens are important.
        normalize: !args.no_normalize && args.queries.is_some(),
        explain: args.explain,
        precision: args.precision,
    };
    let q = queries.tokens()?;
    let search = || index.search(&engine, q.clone(), options, filter.as_ref(), args.subset.as_deref());
    let found = search()?;
    let seconds = |_| {
        let started = Instant::now();
        search()?;
        Ok(started.elapsed().as_secs_f64())
    };
    let seconds = args.repeat.map(|repeat| (0..repeat).map(seconds).collect::<anyhow::Result<Vec<_>>>());
    let timed = seconds.transpose()?.map(|seconds| Timed {
        device: engine.info().device.clone(),
        load_seconds,
        seconds,
    });

    let mut out = Out::stdout();
    if args.json {
        let results: Vec<Vec<HitReport<'_>>> = found
            .iter()
            .map(|hits| hits.iter().map(|hit| HitReport::new(hit, &index, args.explain)).collect())
            .collect();
        match &timed {
            Some(timed) => out.json(&TimedReport { results, timed })?,
            None => out.json(&results)?,
        }
    } else {
        print(&found, &index, args, &mut out)?;
        if let Some(Timed { device, mut seconds, .. }) = timed {
            seconds.sort_by(f64::total_cmp);
            let (times, count, median) = (seconds.len(), found.len(), seconds[seconds.len() / 2]);
            let (each, rate) = (median * 1e3, count as f64 / median);
            writeln!(out, "{times} × {count} queries on {device}: {each:.2} ms, {rate:.0} queries/s")?;
            out.flush()?;
        }
    }
    Ok(Outcome::Success)
}

fn print(found: &[Vec<SearchHit>], index: &Opened, args: &SearchArgs, out: &mut Out) -> std::io::Result<()> {
    let style = Style::stdout();
    for (query, hits) in found.iter().enumerate() {
        let name = args.query.get(query).cloned().unwrap_or_else(|| format!("query {query}"));
        writeln!(out, "{}", style.strong(&name))?;
        let ids: Vec<String> = hits.iter().map(|hit| text(&hit.id)).collect();
        let width = ids.iter().map(|id| columns(id)).max().unwrap_or(0);
        for (rank, (hit, id)) in hits.iter().zip(ids).enumerate() {
            let place = style.dim(&format!("{:>4}", rank + 1));
            let mut line = format!("{place}  {:>9.4}  {}", hit.score, style.hit(&pad(&id, width)));
            if let Some((text, source)) = index.text(&hit.id) {
                line += &beside(&text, &source, 17 + width, style);
            }
            writeln!(out, "{}", line.trim_end())?;
            if !hit.winners.is_empty() {
                let winners: Vec<String> = hit.winners.iter().map(i32::to_string).collect();
                writeln!(out, "      {}", style.dim(&format!("tokens {}", winners.join(" "))))?;
            }
        }
    }
    out.flush()
}

fn text(id: &DocumentId) -> String {
    match id {
        DocumentId::Number(id) => id.to_string(),
        DocumentId::Text(id) => id.clone(),
    }
}
