//! `maxsim index compact`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::plaid::IndexWriter;

use crate::exit::Outcome;
use crate::output::{Out, bytes};

/// Bring an index into few files, without deleted documents
#[derive(Debug, Args)]
#[command(after_help = "\
Ids stay. Searches go on meanwhile; room for a second copy of what is rewritten is needed until they have let go of it.")]
pub(crate) struct CompactArgs {
    /// Directory of the index
    #[arg(value_name = "INDEX")]
    index: PathBuf,
}

/// Runs `maxsim index compact`.
pub(super) fn run(args: &CompactArgs) -> anyhow::Result<Outcome> {
    let mut writer = IndexWriter::open_without_engine(&args.index)?;
    let before = writer.index()?.info();
    writer.compact()?;
    let after = writer.index()?.info();
    let mut out = Out::stdout();
    let (was, is) = (bytes(before.file_bytes), bytes(after.file_bytes));
    writeln!(out, "{} segments of {was} became {} of {is}", before.segments, after.segments)?;
    out.flush()?;
    Ok(Outcome::Success)
}
