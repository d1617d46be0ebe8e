//! `maxsim index import`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::plaid::exchange::{Directory, import};
use maxsim::plaid::store::DirectoryStorage;

use crate::exit::Outcome;
use crate::output::{Out, grouped};
use crate::setup::Global;

/// Turn a directory of fast-plaid or next-plaid into an index of our own
#[derive(Debug, Args)]
#[command(after_help = "\
Codes and residuals stay as they are. Ids are the documents' numbers there. Not taken over: metadata.db, and buffers of
raw embeddings.

Example:
  maxsim index import their.plaid wiki.index")]
pub(crate) struct ImportArgs {
    /// Directory to read
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// Directory of the new index
    #[arg(value_name = "INDEX")]
    to: PathBuf,
    /// Replace an index that is there
    #[arg(long)]
    replace: bool,
}

/// Runs `maxsim index import`.
pub(super) fn run(global: &Global, args: &ImportArgs) -> anyhow::Result<Outcome> {
    let directory = Directory::open(&args.from)?;
    let index = import(&global.engine()?, &directory, DirectoryStorage::new(&args.to), args.replace)?;
    let mut out = Out::stdout();
    writeln!(out, "{} documents in {}", grouped(index.len()), args.to.display())?;
    out.flush()?;
    Ok(Outcome::Success)
}
