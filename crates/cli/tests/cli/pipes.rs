//! Readers that go away.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::Files;

/// Runs the command, reads one line of its stdout and closes the pipe: exit code and stderr.
fn head_1(args: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_maxsim"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).expect("a line");
    assert!(line.ends_with('\n'), "{line:?}");
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).expect("stderr");
    (child.wait().expect("ended").code(), stderr)
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let files = Files::new();
    // 90,000 lines: more than any pipe holds.
    let q = files.npy("q.npy", &[300, 1, 2], vec![0.5f32; 600]);
    let (code, stderr) = head_1(&["score", "--queries", &q, "--documents", &q]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_failed_check_stays_failed_when_nobody_reads() {
    let files = Files::new();
    let row = |nd: usize, us: f64| serde_json::json!({"op": "forward", "shape": {"nd": nd}, "dtype": "f32", "backend": "cpu", "wall_us": us});
    let record =
        |us: f64| serde_json::Value::from((0..3000).map(|nd| row(nd, us)).collect::<Vec<_>>()).to_string();
    let (old, new) = (files.text("old.json", record(1.0)), files.text("new.json", record(2.0)));
    let (code, stderr) = head_1(&["bench", "compare", &old, &new]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
}
