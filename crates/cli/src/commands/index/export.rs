//! `maxsim index export`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::plaid::exchange;

use super::opened::{JsonId, Opened};
use crate::exit::Outcome;
use crate::output::{Out, grouped};

/// Write an index as a directory that fast-plaid and next-plaid load
#[derive(Debug, Args)]
#[command(after_help = "\
These formats number documents by their position. Deleted documents are left out; --ids says which document is where.

Example:
  maxsim index export wiki.index their.plaid --ids ids.json")]
pub(crate) struct ExportArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    from: PathBuf,
    /// Directory to write; it must not exist or be empty
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Also write the documents' ids, a JSON list in the order of their positions
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

/// Runs `maxsim index export`.
pub(super) fn run(args: &ExportArgs) -> anyhow::Result<Outcome> {
    let index = Opened::read(&args.from)?;
    let documents = exchange::write(&args.to, index.codec(), &index.segments(), index.live())?;
    if let Some(file) = &args.ids {
        let ids: Vec<_> = match &index {
            Opened::Own(index) => index.live().iter().map(|position| index.id(position)).collect(),
            Opened::Foreign(_) => (0..documents as u64).map(Into::into).collect(),
        };
        let text = serde_json::to_string(&ids.iter().map(JsonId).collect::<Vec<_>>())?;
        std::fs::write(file, text).map_err(|error| maxsim::Error::io(file.display().to_string(), error))?;
    }
    let mut out = Out::stdout();
    writeln!(out, "{} documents in {}", grouped(documents), args.to.display())?;
    out.flush()?;
    Ok(Outcome::Success)
}
