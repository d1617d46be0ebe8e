//! Files of stored results: every operator, with winners and gradients where they hold them.

use std::path::{Path as FilePath, PathBuf};

use maxsim_testkit::fixture::{self, Options, Outcome};

use crate::{engine, paths};

fn check(file: &FilePath) {
    for path in paths() {
        let report = fixture::run(file, &engine(path), &Options::default()).expect("a readable file");
        let problems: Vec<String> = report
            .cases
            .iter()
            .filter(|case| case.outcome != Outcome::Passed)
            .map(|case| format!("{path} {}: {:?}", case.name, case.outcome))
            .collect();
        assert!(!report.cases.is_empty());
        assert!(
            problems.is_empty(),
            "{} of {}:\n{}",
            problems.len(),
            report.cases.len(),
            problems.join("\n")
        );
    }
}

/// The selection in `tests/golden`, and whole files where `MAXSIM_FIXTURES` names their folder.
#[test]
fn stored_results() {
    let selection = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let folders = [Some(selection), std::env::var_os("MAXSIM_FIXTURES").map(PathBuf::from)];
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in folders.iter().flatten() {
        let entries = std::fs::read_dir(folder).expect("a folder of files");
        files.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    files.retain(|file| file.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        check(&file);
    }
}
