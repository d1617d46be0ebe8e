//! `maxsim index delete`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgGroup, Args};
use maxsim::Error;
use maxsim::plaid::{Filter, IndexWriter, Selection};

use crate::exit::Outcome;
use crate::output::{Out, grouped};

/// Delete documents from an index
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true), after_help = "\
Examples:
  maxsim index delete wiki.index --id 3,17
  maxsim index delete wiki.index --filter \"year < 1990\"

Ids that no document has are passed over. Room is gained by `maxsim index compact`.")]
pub(crate) struct DeleteArgs {
    /// Directory of the index
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Ids, separated by commas
    #[arg(long, value_name = "ID,…", value_delimiter = ',', group = "which")]
    id: Vec<String>,
    /// Ids, one per line
    #[arg(long, value_name = "FILE", group = "which")]
    ids: Option<PathBuf>,
    /// Documents whose metadata fit
    #[arg(long, value_name = "EXPRESSION", group = "which")]
    filter: Option<String>,
}

/// Runs `maxsim index delete`.
pub(super) fn run(args: &DeleteArgs) -> anyhow::Result<Outcome> {
    let mut writer = IndexWriter::open_without_engine(&args.index)?;
    let kind = writer.id_kind();
    let parse = |text: &str| kind.parse(text);
    let mut ids = args.id.iter().map(|id| parse(id)).collect::<maxsim::Result<Vec<_>>>().context("--id")?;
    if let Some(path) = &args.ids {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(&name, error))?;
        let parsed = text.lines().map(parse).collect::<maxsim::Result<Vec<_>>>();
        ids.extend(parsed.with_context(|| name)?);
    }
    if let Some(filter) = &args.filter {
        let filter = Filter::parse(filter, &[])?;
        let index = writer.index()?;
        let chosen = index.select(Selection { filter: Some(&filter), ids: None })?;
        ids.extend(chosen.iter().map(|position| index.id(position)));
    }
    let deleted = writer.delete(&ids)?;
    writer.commit()?;
    let mut out = Out::stdout();
    writeln!(out, "{} documents deleted; {} are left", grouped(deleted), grouped(writer.len()))?;
    out.flush()?;
    Ok(Outcome::Success)
}
