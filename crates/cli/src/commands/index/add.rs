//! `maxsim index add`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use maxsim::plaid::{DocumentId, DocumentSource, IndexWriter};

use super::documents::DocumentArgs;
use crate::exit::Outcome;
use crate::output::{self, Out, grouped};
use crate::setup::Global;

/// Add documents to an index: all of them, or on error none
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim index add wiki.index --documents new.npy
  maxsim index add wiki.index --documents new.npy --ids ids.txt --update")]
pub(crate) struct AddArgs {
    /// Directory of the index
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    #[command(flatten)]
    documents: DocumentArgs,
    /// Replace documents whose ids are there already; otherwise that is an error
    #[arg(long, requires = "ids")]
    update: bool,
}

/// Runs `maxsim index add`.
pub(super) fn run(global: &Global, args: &AddArgs) -> anyhow::Result<Outcome> {
    let mut writer = IndexWriter::open_without_engine(&args.index)?;
    let mut documents = args.documents.open(global, writer.id_kind(), writer.encoder())?;
    writer.set_engine(&global.engine()?);
    let bar = output::progress(documents.count(), "encoding");
    let mut replaced = 0;
    for batch in documents.pass(0)? {
        let batch = batch?;
        let ids: Option<&[DocumentId]> = batch.ids.as_deref();
        if let (true, Some(ids)) = (args.update, ids) {
            replaced += writer.delete(ids)?;
        }
        writer.add(&batch.documents.as_tokens(), ids, &batch.metadata)?;
        bar.inc(batch.documents.as_tokens().count() as u64);
    }
    writer.commit()?;
    bar.finish_and_clear();
    let mut out = Out::stdout();
    let added = grouped(documents.count());
    let note = if replaced > 0 {
        format!(", {} of them in place of others", grouped(replaced))
    } else {
        String::new()
    };
    writeln!(out, "{added} documents added{note}; {} in all", grouped(writer.len()))?;
    out.flush()?;
    Ok(Outcome::Success)
}
