//! `maxsim score`.

use std::collections::BTreeMap;

use maxsim::{E4M3, bf16, f16};
use maxsim_formats::{Array, write_safetensors};

use crate::{Files, json, stdout};

/// Two queries of two tokens.
const Q: [f32; 8] = [1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, -1.0];
/// Two documents of two tokens.
const D: [f32; 8] = [3.0, 1.0, 0.0, 2.0, -1.0, 0.0, 0.5, 4.0];

#[test]
fn scores_are_those_worked_out_by_hand() {
    let files = Files::new();
    let q = files.npy("q.npy", &[2, 2, 2], Q.to_vec());
    let d = files.npy("d.npy", &[2, 2, 2], D.to_vec());
    let report = json(["score", "--queries", &q, "--documents", &d, "--json"]);
    assert_eq!(report["shape"], serde_json::json!([2, 2]));
    // Query 0: 3 + 2 and 0.5 + 4; query 1: 6 - 1 and 1 + 0.
    assert_eq!(report["scores"], serde_json::json!([5.0, 4.5, 5.0, 1.0]));
    assert_eq!(report["normalize"], false);
    assert_eq!(report["dtype"], serde_json::json!({"queries": "f32", "documents": "f32"}));
    assert_eq!(report["plan"]["backend"], "cpu");
    assert!(report.get("matches").is_none());
    let text = stdout(["score", "--queries", &q, "--documents", &d]);
    assert_eq!(text, "0\t0\t5\n0\t1\t4.5\n1\t0\t5\n1\t1\t1\n");
}

#[test]
fn packed_lengths_and_masks_say_the_same() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2, 2], Q[..4].to_vec());
    // Documents of one and two tokens; what stands in the padding would win if it counted.
    let d = files.npy("d.npy", &[2, 2, 2], vec![3.0f32, 1.0, 9.0, 9.0, -1.0, 0.0, 0.5, 4.0]);
    let packed = files.npy("p.npy", &[3, 2], vec![3.0f32, 1.0, -1.0, 0.0, 0.5, 4.0]);
    let offsets = files.npy("o.npy", &[3], vec![0i64, 1, 3]);
    let lengths = files.npy("l.npy", &[2], vec![1u8, 2]);
    let mask = files.npy("m.npy", &[2, 2], vec![true, false, true, true]);
    let expected = serde_json::json!([4.0, 4.5]);
    for input in [
        &["--documents", &packed, "--offsets", &offsets],
        &["--documents", &d, "--lengths", &lengths],
        &["--documents", &d, "--mask", &mask],
    ] {
        let report = json([&["score", "--json", "--queries", &q][..], input].concat());
        assert_eq!(report["scores"], expected, "{input:?}");
    }
    let q_offsets = files.npy("qo.npy", &[2], vec![0u32, 3]);
    let report = json([
        "score",
        "--json",
        "--queries",
        &packed,
        "--query-offsets",
        &q_offsets,
        "--documents",
        &d,
        "--lengths",
        &lengths,
    ]);
    assert_eq!(report["shape"], serde_json::json!([1, 2]));
}

#[test]
fn ranks_decide_the_shape() {
    let files = Files::new();
    let q2 = files.npy("q2.npy", &[2, 2], Q[..4].to_vec());
    let q3 = files.npy("q3.npy", &[2, 2, 2], Q.to_vec());
    let d2 = files.npy("d2.npy", &[2, 2], D[..4].to_vec());
    let d4 = files.npy("d4.npy", &[2, 1, 2, 2], D.to_vec());
    let shape =
        |q: &str, d: &str| json(["score", "--json", "--queries", q, "--documents", d])["shape"].clone();
    assert_eq!(shape(&q2, &d2), serde_json::json!([]));
    assert_eq!(shape(&q3, &d2), serde_json::json!([2]));
    assert_eq!(shape(&q3, &d4), serde_json::json!([2, 1]));
    let own = json(["score", "--json", "--queries", &q3, "--documents", &d4]);
    assert_eq!(own["scores"], serde_json::json!([5.0, 1.0]), "each query with its own documents");
}

#[test]
fn nothing_in_gives_nothing_out() {
    let files = Files::new();
    let q = files.npy("q.npy", &[2, 2, 2], Q.to_vec());
    let none = files.npy("none.npy", &[0, 2, 2], Vec::<f32>::new());
    let report = json(["score", "--json", "--queries", &q, "--documents", &none]);
    assert_eq!((&report["shape"], &report["scores"]), (&serde_json::json!([2, 0]), &serde_json::json!([])));
    assert_eq!(stdout(["score", "--queries", &none, "--documents", &q]), "");
}

#[test]
fn normalize_and_dtype_are_applied() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2], vec![3.0f32, 4.0]);
    let d = files.npy("d.npy", &[1, 2], vec![1.001f32, 0.0]);
    let score = |extra: &[&str]| {
        let report = json([&["score", "--json", "--queries", &q, "--documents", &d][..], extra].concat());
        report["scores"][0].as_f64().unwrap() as f32
    };
    assert!((score(&[]) - 3.003).abs() < 1e-5);
    assert!((score(&["--normalize"]) - 0.6).abs() < 1e-6);
    assert!((score(&["--normalize", "--no-normalize"]) - 3.003).abs() < 1e-5, "the last one counts");
    assert_eq!(score(&["--dtype", "f16"]), 3.0 * f16::from_f32(1.001).to_f32());
    assert_eq!(score(&["--dtype", "bf16"]), 3.0 * bf16::from_f32(1.001).to_f32());
}

#[test]
fn quantised_documents_need_their_scales() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2], vec![1.0f32, 1.0]);
    let int8 = files.npy("i8.npy", &[2, 2], vec![3i8, 4, -1, 100]);
    let fp8 = files.npy("fp8.npy", &[2, 2], [3.0, 4.0, -1.0, 96.0].map(|x| E4M3::from_f32(x).0).to_vec());
    let scales = files.npy("s.npy", &[2], vec![1.0f32, 0.01]);
    let one = files.npy("one.npy", &[1], vec![0.5f32]);
    let score = |d: &str, scales: &str| {
        json(["score", "--json", "--queries", &q, "--documents", d, "--scales", scales])["scores"][0].clone()
    };
    assert_eq!(score(&int8, &scales), 7.0);
    assert_eq!(score(&int8, &one), 49.5);
    assert_eq!(score(&fp8, &scales), 7.0);
    crate::fails(["score", "--queries", &q, "--documents", &int8], 3, "scale_D");
    crate::fails(
        ["score", "--queries", &q, "--documents", &int8, "--scales", &one, "--dtype", "f16"],
        3,
        "ERR_DTYPE",
    );
}

#[test]
fn both_sides_are_quantised_by_token() {
    let files = Files::new();
    let report = |q: &[f32], d: &[f32], extra: &[&str]| {
        let q = files.npy("q.npy", &[1, q.len() / 2, 2], q.to_vec());
        let d = files.npy("d.npy", &[1, d.len() / 2, 2], d.to_vec());
        json([&["score", "--json", "--queries", &q, "--documents", &d][..], extra].concat())
    };
    // Scales are 2 and 1: 100.8 becomes 50 · 2, 50.4 becomes 50.
    let (q, d) = ([254.0, 100.8], [127.0, 50.4]);
    for precision in ["default", "exact", "int8"] {
        let int8 = report(&q, &d, &["--dtype", "int8", "--precision", precision]);
        assert_eq!(int8["scores"], serde_json::json!([37258.0]), "{precision}");
        assert_eq!(int8["dtype"], serde_json::json!({"queries": "int8", "documents": "int8"}));
    }
    // 17 lies between 16 and 18, the even one wins; 34 is 17 · 2.
    let fp8 = report(&[896.0, 34.0], &[448.0, 17.0], &["--dtype", "fp8"]);
    assert_eq!(fp8["scores"][0], 448.0 * 896.0 + 16.0 * 32.0);
    assert_eq!(fp8["dtype"], serde_json::json!({"queries": "fp8", "documents": "fp8"}));
    // A scale per token: beside a long token, the short one keeps its digits.
    let mixed = report(&[1.0, 0.0, 0.0, 1.0], &[1e6, 0.0, 0.0, 0.5], &["--dtype", "int8"]);
    assert!((mixed["scores"][0].as_f64().unwrap() - 1_000_000.5).abs() < 0.1, "{mixed}");
    // Normalised after quantising.
    let unit = report(&q, &d, &["--dtype", "int8", "--normalize"]);
    assert!((unit["scores"][0].as_f64().unwrap() - 1.0).abs() < 1e-4, "{unit}");
}

#[test]
fn quantising_asks_for_finite_tokens_where_they_count() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2], vec![127.0f32, 0.0]);
    let d = files.npy("d.npy", &[1, 2, 2], vec![127.0f32, 5.0, f32::NAN, f32::INFINITY]);
    let length = files.npy("l.npy", &[1], vec![1u8]);
    let input = ["score", "--json", "--queries", &q, "--documents", &d, "--dtype", "int8"];
    let report = json([&input[..], &["--lengths", &length]].concat());
    assert_eq!(report["scores"], serde_json::json!([16129.0]));
    crate::fails(input, 3, "error[ERR_NON_FINITE]: --dtype: documents[2]");
    let swapped = ["score", "--queries", &d, "--documents", &q, "--dtype", "fp8"];
    crate::fails(swapped, 3, "error[ERR_NON_FINITE]: --dtype: queries[2]");
    // What is quantised already stays as it is, or is refused.
    let int8 = files.npy("i8.npy", &[1, 2], vec![3i8, 4]);
    let one = files.npy("one.npy", &[1], vec![0.5f32]);
    let input = ["score", "--json", "--queries", &q, "--documents", &int8, "--scales", &one, "--dtype"];
    let report = json([&input[..], &["int8"]].concat());
    assert_eq!(report["scores"][0], 127.0 * 3.0 * 0.5);
    crate::fails([&input[..], &["fp8"]].concat(), 3, "ERR_DTYPE");
}

#[test]
fn precisions_agree_on_vectors_of_any_type() {
    let files = Files::new();
    let q = files.npy("q.npy", &[2, 2, 2], Q.to_vec());
    let d = files.npy("d.npy", &[2, 2, 2], D.to_vec());
    for dtype in ["f32", "f16", "bf16"] {
        for precision in ["default", "exact", "fast"] {
            let input = ["score", "--json", "--queries", &q, "--documents", &d];
            let report = json([&input[..], &["--dtype", dtype, "--precision", precision]].concat());
            // All numbers are small integers or halves.
            assert_eq!(report["scores"], serde_json::json!([5.0, 4.5, 5.0, 1.0]), "{dtype} {precision}");
        }
    }
}

#[test]
fn tensors_are_found_by_name() {
    let files = Files::new();
    let q = Array::new(vec![2, 2], Q[..4].to_vec()).unwrap();
    let d = Array::new(vec![2, 2, 2], D.to_vec()).unwrap();
    write_safetensors(files.path("both.safetensors"), &[("a/Q", &q), ("D", &d)], &BTreeMap::new()).unwrap();
    write_safetensors(files.path("one.safetensors"), &[("anything", &q)], &BTreeMap::new()).unwrap();
    let (both, one) = (files.arg("both.safetensors"), files.arg("one.safetensors"));
    let (q_in, d_in) = (format!("{both}:a/Q"), format!("{both}:D"));
    for q in [&q_in, &one] {
        let report = json(["score", "--json", "--queries", q, "--documents", &d_in]);
        assert_eq!(report["scores"], serde_json::json!([5.0, 4.5]));
    }
    crate::fails(["score", "--queries", &one, "--documents", &both], 3, "it holds D, a/Q");
    crate::fails(["score", "--queries", &one, "--documents", &format!("{both}:X")], 3, "no tensor \"X\"");
}

#[test]
fn explanations_name_the_winners_and_add_up() {
    let files = Files::new();
    let q = files.npy("q.npy", &[2, 2, 2], Q.to_vec());
    let d = files.npy("d.npy", &[2, 2, 2], D.to_vec());
    let mask = files.npy("m.npy", &[2, 2], vec![1u8, 1, 1, 0]);
    for normalize in ["--normalize", "--no-normalize"] {
        let report = json([
            "score",
            "--json",
            "--explain",
            "--queries",
            &q,
            "--documents",
            &d,
            "--query-mask",
            &mask,
            normalize,
        ]);
        for (pair, matches) in report["matches"].as_array().unwrap().iter().enumerate() {
            let sum: f64 = matches.as_array().unwrap().iter().filter_map(|m| m["similarity"].as_f64()).sum();
            let score = report["scores"][pair].as_f64().unwrap();
            assert!((sum - score).abs() < 1e-5, "{normalize} {pair}: {sum} {score}");
        }
        // A masked query token matches nothing.
        assert!(report["matches"][2][1]["document_token"].is_null());
    }
    let text = stdout(["score", "--explain", "--queries", &q, "--documents", &d]);
    assert!(text.starts_with("cpu:forward/"), "{text}");
    assert!(text.contains("\n    q0     q1\n    d0     d1\n    3.000  2.000\n"), "{text}");
}

#[test]
fn infinite_scores_are_null_in_json() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 1], vec![1.0f32]);
    let d = files.npy("d.npy", &[1, 1], vec![f32::INFINITY]);
    assert!(json(["score", "--json", "--queries", &q, "--documents", &d])["scores"][0].is_null());
    assert_eq!(stdout(["score", "--queries", &q, "--documents", &d]), "0\t0\tinf\n");
}
