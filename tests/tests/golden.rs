//! Stored results of other implementations: the selection in `golden/`, and whole files where `MAXSIM_FIXTURES` names a
//! directory of them.

use std::path::{Path, PathBuf};

use maxsim_testkit::fixture::{self, Checks, OPS, Options, Outcome, Report};
use maxsim_tests::devices;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    files
}

/// Runs every file on every device and fails with all that failed.
fn run_all(directory: &Path) {
    let files = files(directory);
    assert!(!files.is_empty(), "no .safetensors file in {directory:?}");
    let mut failures = Vec::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().display();
        for device in devices() {
            let report = run(file, &device.engine);
            println!("{} {name}: {}", device.name, report.last_line());
            for line in report.summary_lines() {
                println!("  {line}");
            }
            let failed = report.cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_)));
            failures.extend(failed.map(|case| format!("{} {name}: {case:?}", device.name)));
            assert!(report.passed() > 0, "{} {name}: nothing was compared", device.name);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn run(file: &Path, engine: &maxsim::Engine) -> Report {
    fixture::run(file, engine, &Options { ops: None, checks: Checks::ALL }).unwrap()
}

#[test]
fn the_selection() {
    run_all(&golden());
}

/// Every operator and element type is there; otherwise the selection would test less than it says.
#[test]
fn the_selection_covers_every_operator() {
    let mut ops: Vec<String> = Vec::new();
    let mut size = 0;
    for file in files(&golden()) {
        size += std::fs::metadata(&file).unwrap().len();
        ops.extend(run(&file, &devices()[0].engine).cases.into_iter().map(|case| case.op));
    }
    for op in OPS {
        assert!(ops.iter().any(|found| found == op), "no case of {op}");
    }
    assert!(size <= 3_000_000, "{size} bytes are too many to keep in the repository");
}

/// The whole files. Without them this is a skip, and says so.
#[test]
fn whole_files() {
    match std::env::var_os("MAXSIM_FIXTURES") {
        Some(directory) => run_all(Path::new(&directory)),
        None => println!("1 skipped: MAXSIM_FIXTURES names no directory of whole fixture files"),
    }
}
