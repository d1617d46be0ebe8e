//! `maxsim index pack`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use maxsim::Error;
use maxsim::plaid::{Index, store};
use tempfile::NamedTempFile;

use crate::exit::Outcome;
use crate::output::{Out, bytes};

/// Write an index as one file, which every command reads and a web server can serve
#[derive(Debug, Args)]
#[command(after_help = "\
The file is as large as the index's directory; compact it first to leave deleted documents out. It cannot be added to.

Example:
  maxsim index pack wiki.index wiki.mxi")]
pub(crate) struct PackArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    from: PathBuf,
    /// The file; one that is there is replaced
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

/// Runs `maxsim index pack`.
pub(super) fn run(args: &PackArgs) -> anyhow::Result<Outcome> {
    let index = Index::open(&args.from)?;
    let fail = |error: std::io::Error| Error::io(args.to.display().to_string(), error);
    let directory = match args.to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Whole under its name, or not there.
    let mut file = BufWriter::new(temporary(directory).map_err(fail)?);
    store::pack(&index, &mut file)?;
    let file = file.into_inner().map_err(|error| fail(error.into_error()))?;
    file.as_file().sync_all().map_err(fail)?;
    let length = file.as_file().metadata().map_err(fail)?.len();
    file.persist(&args.to).map_err(|error| fail(error.error))?;
    let mut out = Out::stdout();
    writeln!(out, "{} in {}", bytes(length), args.to.display())?;
    out.flush()?;
    Ok(Outcome::Success)
}

/// A file for everybody, as far as the umask lets them: a web server is to read it.
fn temporary(directory: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}
