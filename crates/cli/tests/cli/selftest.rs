//! `maxsim selftest`.

use std::collections::BTreeMap;

use maxsim_formats::{Array, write_safetensors};

use crate::{Files, fails, maxsim};

/// A file with dense cases: name, stored score and stored winner of the query token (1, 0) and the document tokens
/// (3, 0), (1, 1), whose score is 3 and whose winner 0.
fn cases(files: &Files, list: &[(&str, &str, f32, i32)]) -> String {
    let q = Array::new(vec![1, 1, 2], vec![1.0f32, 0.0]).unwrap();
    let d = Array::new(vec![1, 2, 2], vec![3.0f32, 0.0, 1.0, 1.0]).unwrap();
    let mut tensors = Vec::new();
    let mut metadata = serde_json::Map::new();
    for &(name, op, score, winner) in list {
        metadata.insert(name.into(), serde_json::json!({"op": op}));
        tensors.push((format!("{name}/Q"), q.clone()));
        tensors.push((format!("{name}/D"), d.clone()));
        tensors.push((format!("{name}/scores"), Array::new(vec![1, 1], vec![score]).unwrap()));
        tensors.push((format!("{name}/argmax"), Array::new(vec![1, 1, 1], vec![winner]).unwrap()));
    }
    let tensors: Vec<(&str, &Array)> = tensors.iter().map(|(name, array)| (name.as_str(), array)).collect();
    let metadata = BTreeMap::from([("cases".to_owned(), serde_json::Value::from(metadata).to_string())]);
    write_safetensors(files.path("cases.safetensors"), &tensors, &metadata).unwrap();
    files.arg("cases.safetensors")
}

/// Exit code, stdout, and its last line.
fn run(cases: &str, extra: &[&str]) -> (Option<i32>, String, String) {
    let output = maxsim(["selftest", "--cases", cases]).args(extra).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap_or_default().to_owned();
    (output.status.code(), text, last)
}

#[test]
fn the_last_line_counts_and_the_exit_code_agrees() {
    let files = Files::new();
    let good = cases(&files, &[("a", "dense", 3.0, 0), ("b", "dense", 3.0, 0)]);
    let (code, text, last) = run(&good, &[]);
    assert_eq!((code, last.as_str()), (Some(0), "2 passed, 0 failed"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("dense: ")), "a line per operator: {text}");
}

#[test]
fn failures_are_named_and_exit_1() {
    let files = Files::new();
    let bad = cases(&files, &[("fine", "dense", 3.0, 0), ("off-by-one", "dense", 4.0, 0)]);
    let (code, text, last) = run(&bad, &[]);
    assert_eq!((code, last.as_str()), (Some(1), "1 passed, 1 failed"));
    assert!(text.lines().any(|line| line.contains("off-by-one") && line.contains("scores")), "{text}");
}

#[test]
fn skips_are_counted_only_where_there_are_any() {
    let files = Files::new();
    let some = cases(&files, &[("a", "dense", 3.0, 0), ("b", "an operator of the future", 3.0, 0)]);
    let (code, text, last) = run(&some, &[]);
    assert_eq!((code, last.as_str()), (Some(0), "1 passed, 0 failed, 1 skipped"), "{text}");
}

#[test]
fn a_run_that_compared_nothing_is_no_success() {
    let files = Files::new();
    let unknown = cases(&files, &[("a", "an operator of the future", 3.0, 0)]);
    let (code, _, last) = run(&unknown, &[]);
    assert_eq!((code, last.as_str()), (Some(1), "0 passed, 0 failed, 1 skipped"));
    fails(["selftest", "--cases", &unknown], 1, "nothing was compared: every case was skipped");
}

#[test]
fn ops_and_checks_choose_what_is_compared() {
    let files = Files::new();
    let wrong_winner = cases(&files, &[("a", "dense", 3.0, 1)]);
    assert_eq!(run(&wrong_winner, &[]).0, Some(1));
    assert_eq!(run(&wrong_winner, &["--check", "argmax"]).0, Some(1));
    assert_eq!(run(&wrong_winner, &["--check", "scores"]).0, Some(0));
    assert_eq!(run(&wrong_winner, &["--check", "scores,argmax"]).0, Some(1));
    let (code, _, last) = run(&wrong_winner, &["--ops", "kd,varlen"]);
    assert_eq!((code, last.as_str()), (Some(0), "0 passed, 0 failed"));
    let (_, _, last) = run(&wrong_winner, &["--ops", "kd,dense", "--check", "scores"]);
    assert_eq!(last, "1 passed, 0 failed");
}

#[test]
fn every_level_and_backend_can_be_asked_for() {
    let files = Files::new();
    let good = cases(&files, &[("a", "dense", 3.0, 0)]);
    let levels = crate::json(["info", "--json"])["cpu_levels"].clone();
    for level in levels.as_array().unwrap() {
        let extra = ["--level", level.as_str().unwrap(), "--threads", "1", "--backend", "cpu"];
        assert_eq!(run(&good, &extra).2, "1 passed, 0 failed", "{level}");
    }
    fails(["selftest", "--cases", &good, "--backend", "cuda"], 4, "error[ERR_UNSUPPORTED]");
}

#[test]
fn files_without_cases_are_errors() {
    let files = Files::new();
    let text = files.text("text.safetensors", "nothing of the kind");
    fails(["selftest", "--cases", &text], 3, "error[ERR_FORMAT]");
    let array = Array::new(vec![1], vec![0.0f32]).unwrap();
    write_safetensors(files.path("plain.safetensors"), &[("x", &array)], &BTreeMap::new()).unwrap();
    fails(["selftest", "--cases", &files.arg("plain.safetensors")], 3, "error[ERR_FORMAT]");
}
