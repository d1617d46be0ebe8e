//! `maxsim index verify`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::plaid::exchange::{Directory, Verdict};
use serde_json::json;

use super::opened::Opened;
use crate::exit::Outcome;
use crate::output::{Out, grouped};

/// Read all of an index and check that its parts agree
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 if something is wrong that can still be read, 3 if it cannot be read.")]
pub(crate) struct VerifyArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Problems that are printed; damage tends to be everywhere.
const SHOWN: usize = 20;

fn verdict(args: &VerifyArgs) -> anyhow::Result<Verdict> {
    if Directory::is_one(&args.index) {
        return Ok(Directory::open(&args.index)?.verify()?);
    }
    let index = match Opened::read(&args.index)? {
        Opened::Own(index) => index,
        Opened::Foreign(_) => unreachable!("read above"),
    };
    let problems = match index.verify() {
        Ok(()) => Vec::new(),
        Err(error @ maxsim::Error::Corrupt { .. }) => vec![error.to_string()],
        Err(error) => return Err(error.into()),
    };
    Ok(Verdict { problems, documents: index.len(), tokens: index.info().tokens })
}

/// Runs `maxsim index verify`.
pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let verdict = verdict(args)?;
    let mut out = Out::stdout();
    let ok = verdict.problems.is_empty();
    if args.json {
        out.json(&json!({
            "ok": ok,
            "documents": verdict.documents,
            "tokens": verdict.tokens,
            "problems": verdict.problems,
        }))?;
    } else {
        for problem in verdict.problems.iter().take(SHOWN) {
            writeln!(out, "{problem}")?;
        }
        if verdict.problems.len() > SHOWN {
            writeln!(out, "… and {} more", verdict.problems.len() - SHOWN)?;
        }
        if ok {
            let (documents, tokens) = (grouped(verdict.documents), grouped(verdict.tokens));
            writeln!(out, "ok: {documents} documents, {tokens} tokens")?;
        }
        out.flush()?;
    }
    Ok(if ok { Outcome::Success } else { Outcome::CheckFailed })
}
