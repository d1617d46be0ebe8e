//! `maxsim search`: the best documents per query.

use std::io::Write;

use clap::Args;
use maxsim::{Op, Options, Output, Retrieve, RetrieveOptions};
use serde::Serialize;

use super::plan::PlanInfo;
use super::score::{explain, lines};
use crate::exit::Outcome;
use crate::input::{Input, InputArgs, ScoringArgs};
use crate::matches::Match;
use crate::output::{Out, Style, beside, pad};
use crate::setup::{self, Global};

/// Find the best documents for each query
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim search \"refund policy\" --text docs/ --top-k 5 --explain
  maxsim search \"refund policy\" --text docs/ --model lightonai/GTE-ModernColBERT-v1
  maxsim search --query \"first\" --query \"second\" --text lines.txt --json
  maxsim search --queries q.npy --documents d.npy --top-k 100 --dtype f16
  maxsim search --queries q.npy --documents packed.npy --offsets cu_seqlens.npy --chunk 10000
  maxsim search --queries q.npy --documents d.safetensors --dtype residual --nbits 4 --layout plaid

With --json one object: shape [.., width], documents (how many), normalize, plan {backend, kernel, choices, notes} and
queries, a list of {query, text?, hits}; a hit is {rank, id, score, text?, source?}, with --explain also matches, a list
of {query_token, query_text?, document_token, document_text?, similarity}. Ids are numbers that count documents from 0;
rank counts from 1. A score of null is infinite.")]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    scoring: ScoringArgs,
    /// Results per query
    #[arg(long, default_value_t = 10, value_name = "K", value_parser = setup::positive())]
    top_k: usize,
    /// Highest scores first (the default)
    #[arg(long, conflicts_with = "smallest")]
    largest: bool,
    /// Lowest scores first
    #[arg(long)]
    smallest: bool,
    /// Documents scored at a time; bounds memory, never changes the result
    #[arg(long, value_name = "N", value_parser = setup::positive())]
    chunk: Option<usize>,
    /// Also say which document token answers which query token, and how it was computed
    #[arg(long)]
    explain: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    shape: &'a [usize],
    documents: usize,
    normalize: bool,
    plan: PlanInfo,
    queries: Vec<QueryReport<'a>>,
}

#[derive(Serialize)]
struct QueryReport<'a> {
    query: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    hits: Vec<Hit<'a>>,
}

#[derive(Serialize)]
struct Hit<'a> {
    rank: usize,
    id: u32,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<Vec<Match>>,
}

/// Runs `maxsim search`.
pub(crate) fn run(global: &Global, args: &SearchArgs) -> anyhow::Result<Outcome> {
    let engine = global.engine()?;
    let input = args.input.read(global)?;
    // Named last, the default would only be noise: `--smallest` decides.
    let largest = args.largest || !args.smallest;
    let normalize = args.scoring.normalize(true, &input);
    let (q, d) = (input.queries.operand.tokens()?, input.documents.operand.documents()?);
    let scoring = Options {
        normalize,
        argmax: args.explain,
        precision: args.scoring.precision,
        validate_finite: false,
    };
    let options =
        RetrieveOptions { chunk: args.chunk, largest, scoring, ..RetrieveOptions::top_k(args.top_k) };
    let op = Op::Retrieve(Retrieve::new(q.clone(), d.clone(), options));
    let plan = engine.explain(&op)?;
    let Output::TopK(found) = engine.run(&op)? else { unreachable!("retrieve returns hits") };

    let hit = |i: usize, rank: usize, id: u32, score: f32| {
        let text = input.documents.texts.as_ref().map(|texts| &texts[id as usize]);
        let argmax = found.argmax.as_ref().map(|argmax| argmax.pair(i * found.width() + rank));
        Hit {
            rank: rank + 1,
            id,
            score,
            text: text.map(|t| t.text.as_str()),
            source: text.map(|t| t.source.as_str()),
            matches: argmax.map(|argmax| explain(&input, (&q, i), (&d, id as usize), argmax, normalize)),
        }
    };
    let queries = (0..q.count())
        .map(|i| QueryReport {
            query: i,
            text: input.queries.texts.as_ref().map(|texts| texts[i].text.as_str()),
            hits: found.hits(i).enumerate().map(|(rank, (id, score))| hit(i, rank, id, score)).collect(),
        })
        .collect();
    let report =
        Report { shape: &found.shape, documents: d.count(), normalize, plan: (&plan).into(), queries };
    let mut out = Out::stdout();
    if args.json {
        out.json(&report)?;
    } else {
        if args.explain {
            writeln!(out, "{}", Style::stdout().dim(&plan.to_string()))?;
        }
        print(&report, &input, &mut out)?;
    }
    Ok(Outcome::Success)
}

fn print(report: &Report<'_>, input: &Input, out: &mut Out) -> std::io::Result<()> {
    let style = Style::stdout();
    let many = report.queries.len() > 1 || input.queries.texts.is_none();
    for query in &report.queries {
        if many {
            let name = query.text.map_or_else(|| format!("query {}", query.query), str::to_owned);
            writeln!(out, "{}", style.strong(&name))?;
        }
        // Unlike `{:>4}`, padding before the style does not count the style.
        let id_width = query.hits.iter().map(|hit| hit.id.to_string().len()).max().unwrap_or(0);
        for hit in &query.hits {
            let rank = style.dim(&format!("{:>4}", hit.rank));
            let id = style.hit(&pad(&hit.id.to_string(), id_width));
            let mut line = format!("{rank}  {:>9.4}  {id}", hit.score);
            if let (Some(source), Some(text)) = (hit.source, hit.text) {
                line += &beside(text, source, 17 + id_width, style);
            }
            writeln!(out, "{}", line.trim_end())?;
            for line in hit.matches.iter().flat_map(|m| lines(m, style, 6)) {
                writeln!(out, "{line}")?;
            }
        }
    }
    out.flush()
}
