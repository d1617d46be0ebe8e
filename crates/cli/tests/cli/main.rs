//! The `maxsim` command as its users see it: arguments in, text and exit codes out.

mod bench;
mod demo;
mod errors;
mod help;
mod index;
mod index_life;
mod index_text;
mod info;
mod model;
mod pipes;
mod residual;
mod score;
mod search;
mod selftest;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use maxsim_formats::{Array, ArrayData};
use serde_json::Value;

/// The command, without settings of whoever runs the tests.
fn maxsim<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maxsim"));
    for variable in [
        "MAXSIM_BACKEND",
        "MAXSIM_CPU_LEVEL",
        "MAXSIM_THREADS",
        "MAXSIM_DISABLE_GPU",
        "MAXSIM_CACHE_DIR",
        "MAXSIM_LOG",
        "COLUMNS",
    ] {
        command.env_remove(variable);
    }
    command.args(args);
    command
}

/// What the command prints with exit code 0.
fn stdout<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = maxsim(args).assert().success();
    String::from_utf8(output.get_output().stdout.clone()).expect("output is UTF-8")
}

/// The same, as one line of JSON.
fn json<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Value {
    let text = stdout(args);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("output is JSON")
}

/// Runs the command, which must end with `code` and say `message` on stderr.
fn fails<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>, code: i32, message: &str) {
    maxsim(args).assert().code(code).stderr(predicates::str::contains(message));
}

/// A directory of files for one test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Path as an argument.
    fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn npy(&self, name: &str, shape: &[usize], data: impl Into<ArrayData>) -> String {
        let array = Array::new(shape.to_vec(), data).expect("shape and data fit");
        maxsim_formats::write_npy(self.path(name), &array).expect("written");
        self.arg(name)
    }

    fn text(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a directory");
        std::fs::write(path, text).expect("written");
        self.arg(name)
    }
}
