//! `maxsim bench` and `maxsim bench compare`.

use serde_json::{Value, json};

use crate::{Files, fails, json, maxsim};

const SMALL: [&str; 11] = ["bench", "--json", "--nq", "2", "--nd", "5", "--lq", "4", "--ld", "6", "--reps=2"];

fn small(extra: &[&str]) -> Value {
    json([&SMALL, extra].concat())
}

#[test]
fn one_object_with_every_field() {
    let row = small(&["--level", "generic", "--threads", "1", "--dim", "16"]);
    assert_eq!(row["op"], "forward");
    assert_eq!(row["shape"], json!({"nq": 2, "nd": 5, "lq": 4, "ld": 6, "dim": 16}));
    assert_eq!((&row["dtype"], &row["backend"]), (&json!("f32"), &json!("cpu")));
    assert_eq!(row["kernel"], "forward/generic");
    assert_eq!((&row["threads"], &row["reps"]), (&json!(1), &json!(2)));
    assert_eq!((&row["normalize"], &row["precision"]), (&json!(false), &json!("default")));
    assert!(row["device"].is_string());
    assert!(row["gpu_us"].is_null(), "the CPU has no clock of its own");
    let number = |field: &str| row[field].as_f64().unwrap_or_else(|| panic!("{field} in {row}"));
    assert!(number("min_us") > 0.0 && number("wall_us") >= number("min_us"));
    let flops = 2.0 * (2 * 5 * 4 * 6 * 16) as f64;
    assert!((number("gflops") * number("wall_us") * 1e3 / flops - 1.0).abs() < 1e-6);
    assert!(number("floor_us") > 0.0 && row["machine"]["flops_per_s"].as_f64().unwrap() > 1e8);
}

#[test]
fn every_operator_of_this_build_runs() {
    for (extra, shape) in [
        (&["--op", "retrieve", "--top-k", "3", "--chunk", "2"][..], json!({"top_k": 3, "chunk": 2})),
        (&["--op", "varlen", "--ragged", "1"], json!({"ragged": 1})),
        (&["--op", "score_pairs", "--pairs", "7"], json!({"pairs": 7})),
        (&["--op", "forward", "--k-docs", "3", "--normalize"], json!({"k_docs": 3, "nd": 6})),
        (&["--op", "forward", "--dtype", "bf16", "--resident"], json!({"resident": true})),
        (&["--op", "residual", "--centroids", "9", "--resident"], json!({"resident": true})),
        (&["--op", "fp8"], json!({})),
        (&["--op", "int8", "--ragged", "0"], json!({"ragged": 0})),
    ] {
        let row = small(extra);
        for (name, value) in shape.as_object().unwrap() {
            assert_eq!(&row["shape"][name], value, "{extra:?}");
        }
        assert!(row["wall_us"].as_f64().unwrap() > 0.0);
        let dtype = match extra[1] {
            op @ ("fp8" | "int8") => op,
            _ => extra.iter().find(|arg| **arg == "bf16").map_or("f32", |_| "bf16"),
        };
        assert_eq!(row["dtype"], dtype);
    }
}

#[test]
fn operators_run_or_are_said_to_be_missing() {
    for op in ["fwd_bwd", "from_hidden", "residual", "approx"] {
        let sizes = ["--nq", "1", "--nd", "5", "--lq", "4", "--ld", "6", "--centroids", "9", "--reps", "2"];
        let output = maxsim(["bench", "--json", "--op", op]).args(sizes).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => {
                let row: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(row["op"], op);
            }
            Some(4) => assert!(stderr.starts_with("error[ERR_UNSUPPORTED]: "), "{op}: {stderr}"),
            code => panic!("{op}: {code:?} {stderr}"),
        }
    }
}

#[test]
fn memory_is_far_below_the_similarities_and_above_nothing() {
    let shape = ["--nq", "8", "--nd", "64", "--lq", "32", "--ld", "64", "--dim", "32", "--reps", "1"];
    let row = json([&["bench", "--json"][..], &shape].concat());
    let similarities = 4 * 8 * 64 * 32 * 64;
    let peak = row["peak_bytes"].as_u64().unwrap();
    assert!(peak > 0 && peak < similarities / 4, "{peak} of {similarities}");
}

#[test]
fn without_json_there_is_a_line_to_read() {
    let text = crate::stdout(SMALL.into_iter().filter(|arg| *arg != "--json"));
    assert!(text.starts_with("forward 2×4 queries, 5×6 documents, d=128 f32 on forward/"), "{text}");
    assert!(text.contains("GFLOP/s") && text.contains("floor "), "{text}");
}

#[test]
fn impossible_sizes_are_errors() {
    let huge = usize::MAX.to_string();
    fails(["bench", "--nd", &huge, "--reps", "1"], 3, "error[ERR_LIMIT]");
    fails(["bench", "--op", "varlen", "--nd", "4294967296", "--reps", "1"], 3, "error[ERR_LIMIT]");
    fails(["bench", "--op", "approx", "--nq", "2"], 2, "--nq is 1");
}

fn row(op: &str, us: f64) -> Value {
    json!({
        "op": op, "shape": {"nq": 1, "nd": 2}, "dtype": "f32", "backend": "cpu", "device": "a", "wall_us": us,
        "gpu_us": null, "peak_bytes": 100, "threads": 2,
    })
}

fn compare(old: Value, new: Value, extra: &[&str]) -> (Option<i32>, String) {
    let files = Files::new();
    let (old, new) = (files.text("old.json", old.to_string()), files.text("new.json", new.to_string()));
    let output = maxsim([&["bench", "compare", &old, &new][..], extra].concat()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_row_slower_than_the_tolerance_fails() {
    let old = json!([row("forward", 100.0), row("retrieve", 100.0)]);
    let (code, text) = compare(old.clone(), json!([row("retrieve", 50.0), row("forward", 109.0)]), &[]);
    assert_eq!(code, Some(0), "{text}");
    let line = |op: &str| text.lines().find(|line| line.contains(op)).unwrap().to_owned();
    assert!(line("forward").contains("1.09") && line("retrieve").contains("0.50"), "{text}");
    assert!(line("retrieve").contains("faster"), "{text}");
    let (code, text) = compare(old.clone(), json!([row("forward", 111.0), row("retrieve", 100.0)]), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.lines().any(|line| line.contains("SLOWER") && line.contains("forward")), "{text}");
    assert!(text.ends_with("2 compared, 1 slower than 10 % allow\n"), "{text}");
    let new = json!([row("forward", 111.0)]);
    assert_eq!(compare(old.clone(), new.clone(), &["--tolerance", "12"]).0, Some(0));
    assert_eq!(compare(old, json!([row("forward", 102.0)]), &["--tolerance", "1"]).0, Some(1));
}

#[test]
fn device_time_counts_where_both_have_it() {
    let with = |gpu: Value, wall: f64| {
        let mut row = row("forward", wall);
        row["gpu_us"] = gpu;
        row
    };
    assert_eq!(compare(with(json!(10.0), 100.0), with(json!(20.0), 100.0), &[]).0, Some(1));
    assert_eq!(compare(with(json!(10.0), 100.0), with(json!(10.0), 200.0), &[]).0, Some(0));
    assert_eq!(compare(with(json!(10.0), 100.0), with(Value::Null, 200.0), &[]).0, Some(1));
}

#[test]
fn rows_that_measure_something_else_are_not_compared() {
    let other = |field: &str, value: Value| {
        let mut row = row("forward", 1000.0);
        row[field] = value;
        row
    };
    let old = json!([row("forward", 100.0), row("retrieve", 1.0)]);
    for changed in [
        other("shape", json!({"nq": 1, "nd": 3})),
        other("dtype", json!("f16")),
        other("threads", json!(4)),
        other("normalize", json!(true)),
    ] {
        let (code, text) = compare(old.clone(), json!([changed, row("retrieve", 1.0)]), &[]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("only in old") && text.contains("only in new"), "{text}");
    }
    // A row that lost its time is worse than a slow one.
    assert_eq!(compare(row("forward", 1.0), other("wall_us", Value::Null), &[]).0, Some(1));
}

#[test]
fn records_that_cannot_be_compared_are_errors() {
    assert_eq!(compare(row("forward", 1.0), row("retrieve", 1.0), &[]).0, Some(3), "nothing in common");
    assert_eq!(compare(json!([]), json!([]), &[]).0, Some(3));
    assert_eq!(compare(json!({"op": "forward"}), row("forward", 1.0), &[]).0, Some(3));
    assert_eq!(
        compare(json!([row("forward", 1.0), row("forward", 2.0)]), row("forward", 1.0), &[]).0,
        Some(3)
    );
    let files = Files::new();
    let broken = files.text("broken.json", "[{");
    fails(["bench", "compare", &broken, &broken], 3, "error[ERR_FORMAT]");
}

#[test]
fn what_bench_prints_can_be_compared() {
    let files = Files::new();
    let one = files.text("one.json", format!("{}\n{}\n", small(&[]), small(&["--op", "retrieve"])));
    maxsim(["bench", "compare", &one, &one])
        .assert()
        .success()
        .stdout(predicates::str::contains("2 compared"));
}
