//! `maxsim score`: every score, not just the best.

use std::io::Write;

use clap::Args;
use maxsim::{Forward, Op, Options, Output};
use serde::Serialize;

use super::plan::PlanInfo;
use crate::exit::Outcome;
use crate::input::{Input, InputArgs, ScoringArgs};
use crate::matches::{Match, Texts, matches, table};
use crate::output::{Out, Style, width};
use crate::setup::Global;

/// Score queries against documents
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim score --queries q.npy --documents d.npy
  maxsim score --queries a.safetensors:Q --documents a.safetensors:D --lengths a.safetensors:len
  maxsim score --queries q.npy --documents packed.npy --offsets cu_seqlens.npy --normalize --json
  maxsim score --queries q.npy --documents d.npy --dtype int8 --precision int8
  maxsim score --queries q.npy --documents d.safetensors --dtype residual --nbits 2 --layout plaid
  maxsim score --query \"ships under water\" --text lines.txt --explain

Without --json: query, document and score per line, separated by tabs. Documents [Nq, K, Ld, d] are scored with their
own query only, and numbered 0 to K - 1.

With --json one object: shape (of scores), scores (row-major), normalize, dtype {queries, documents}, plan {backend,
kernel, choices, notes}; with --explain also matches, per score a list of {query_token, query_text?, document_token,
document_text?, similarity}. A document_token of null matched nothing; a score of null is infinite.")]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    scoring: ScoringArgs,
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
    scores: &'a [f32],
    normalize: bool,
    dtype: Dtypes,
    plan: PlanInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<Vec<Vec<Match>>>,
}

#[derive(Serialize)]
struct Dtypes {
    queries: &'static str,
    documents: &'static str,
}

/// Runs `maxsim score`.
pub(crate) fn run(global: &Global, args: &ScoreArgs) -> anyhow::Result<Outcome> {
    let engine = global.engine()?;
    let input = args.input.read(global)?;
    let normalize = args.scoring.normalize(false, &input);
    let (q, d) = (input.queries.operand.tokens()?, input.documents.operand.documents()?);
    let options = Options {
        normalize,
        argmax: args.explain,
        precision: args.scoring.precision,
        validate_finite: false,
    };
    let forward = Forward::maxsim(q.clone(), d.clone(), options);
    let op = Op::Forward(forward.clone());
    let plan = engine.explain(&op)?;
    let Output::Scores(scores) = engine.run(&op)? else { unreachable!("forward returns scores") };

    let explained = |pair: usize| {
        let argmax = scores.argmax.as_ref()?.pair(pair);
        let (i, j) = forward.pair(pair);
        Some(explain(&input, (&q, i), (&d, j), argmax, normalize))
    };
    let mut out = Out::stdout();
    if args.json {
        let dtype = Dtypes { queries: q.dtype().name(), documents: input.documents.operand.storage() };
        let matches = args.explain.then(|| (0..scores.values.len()).filter_map(explained).collect());
        let (shape, scores) = (&scores.shape[..], &scores.values[..]);
        out.json(&Report { shape, scores, normalize, dtype, plan: (&plan).into(), matches })?;
        return Ok(Outcome::Success);
    }
    let style = Style::stdout();
    if args.explain {
        writeln!(out, "{}", style.dim(&plan.to_string()))?;
    }
    // Pairs are row-major, so a row is as long as one query has documents.
    let row = scores.values.len() / q.count().max(1);
    for (pair, score) in scores.values.iter().enumerate() {
        writeln!(out, "{}\t{}\t{score}", pair / row, pair % row)?;
        for line in explained(pair).iter().flat_map(|m| lines(m, style, 4)) {
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(Outcome::Success)
}

/// Matches with the texts of the input.
pub(super) fn explain(
    input: &Input,
    q: (&maxsim::Tokens<'_>, usize),
    d: (&maxsim::Documents<'_>, usize),
    argmax: &[i32],
    normalize: bool,
) -> Vec<Match> {
    let (query, document) = (input.query_tokens(q.1), input.document_tokens(d.1));
    matches(q, d, argmax, normalize, Texts { query: query.as_deref(), document: document.as_deref() })
}

/// Matches for reading.
pub(super) fn lines(matches: &[Match], style: Style, indent: usize) -> Vec<String> {
    table(matches, |m| m.similarity.unwrap_or(0.0), style, indent, width())
}
