//! `maxsim index`: PLAID indexes. One file per verb.

mod add;
mod build;
mod compact;
mod delete;
mod documents;
mod export;
mod import;
mod info;
mod opened;
mod pack;
mod search;
mod texts;
mod verify;

use clap::{Args, Subcommand};

use crate::exit::Outcome;
use crate::setup::Global;

/// Build, change, search, exchange and look into PLAID indexes
#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(build::BuildArgs),
    Add(add::AddArgs),
    Delete(delete::DeleteArgs),
    Compact(compact::CompactArgs),
    Pack(pack::PackArgs),
    Search(search::SearchArgs),
    Info(info::InfoArgs),
    Verify(verify::VerifyArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
}

/// Runs `maxsim index`.
pub(crate) fn run(global: &Global, args: &IndexArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Build(args) => build::run(global, args),
        Verb::Add(args) => add::run(global, args),
        Verb::Delete(args) => delete::run(args),
        Verb::Compact(args) => compact::run(args),
        Verb::Pack(args) => pack::run(args),
        Verb::Search(args) => search::run(global, args),
        Verb::Info(args) => info::run(args),
        Verb::Verify(args) => verify::run(args),
        Verb::Import(args) => import::run(global, args),
        Verb::Export(args) => export::run(args),
    }
}
