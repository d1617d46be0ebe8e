//! `maxsim search`.

use serde_json::{Value, json};

use crate::{Files, json, stdout};

fn ids(report: &Value) -> Vec<u64> {
    let hits = report["queries"][0]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["id"].as_u64().expect("ids are numbers")).collect()
}

/// A query along the first axis and five documents of one token each.
fn vectors(files: &Files) -> [String; 4] {
    let q = files.npy("q.npy", &[1, 1, 2], vec![2.0f32, 0.0]);
    let d = files.npy("d.npy", &[5, 1, 2], vec![1.0f32, 1.0, 1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
    ["--queries".into(), q, "--documents".into(), d]
}

fn search(input: &[String], extra: &[&str]) -> Value {
    let args = ["search", "--json"].into_iter().chain(input.iter().map(String::as_str));
    json(args.chain(extra.iter().copied()))
}

#[test]
fn hits_come_in_order_of_score_then_id() {
    let files = Files::new();
    let input = vectors(&files);
    let report = search(&input, &[]);
    // Normalised by default, so that 0 and 4 are equals.
    assert_eq!(ids(&report), [1, 0, 4, 3, 2]);
    assert_eq!(report["shape"], json!([1, 5]), "no more than there are");
    assert_eq!((&report["normalize"], &report["documents"]), (&json!(true), &json!(5)));
    let hit = &report["queries"][0]["hits"][0];
    assert_eq!((&hit["rank"], &hit["id"], &hit["score"]), (&json!(1), &json!(1), &json!(1.0)));
    assert_eq!(ids(&search(&input, &["--no-normalize"])), [4, 0, 1, 3, 2]);
    assert_eq!(ids(&search(&input, &["--smallest"])), [2, 3, 0, 4, 1]);
    assert_eq!(ids(&search(&input, &["--largest", "--top-k", "2"])), [1, 0]);
}

#[test]
fn chunks_and_threads_change_nothing() {
    let files = Files::new();
    let input = vectors(&files);
    let whole = search(&input, &["--top-k", "3"]);
    for extra in [&["--chunk", "1"][..], &["--chunk", "2"], &["--threads", "1"]] {
        let part = search(&input, &[&["--top-k", "3"], extra].concat());
        assert_eq!(part["queries"], whole["queries"], "{extra:?}");
    }
}

#[test]
fn explanations_name_winners_and_kernel() {
    let files = Files::new();
    let input = vectors(&files);
    let report = search(&input, &["--explain", "--level", "generic"]);
    assert_eq!(report["plan"]["kernel"], "retrieve/generic");
    let best = &report["queries"][0]["hits"][0];
    assert_eq!(best["matches"], json!([{"query_token": 0, "document_token": 0, "similarity": 1.0}]));
    assert!(search(&input, &[])["queries"][0]["hits"][0].get("matches").is_none());
}

#[test]
fn lines_of_text_are_found_by_meaning() {
    let files = Files::new();
    let lines =
        files.text("lines.txt", "bread and butter\n\na vessel that sails the sea\na dog barks at the cat\n");
    let report =
        json(["search", "--json", "--explain", "--query", "ship", "--query", "puppy", "--text", &lines]);
    assert_eq!(report["documents"], 3, "the empty line does not count");
    assert_eq!(report["normalize"], false, "weights of query tokens are kept");
    let best = |query: usize| &report["queries"][query]["hits"][0];
    assert_eq!(
        (&best(0)["id"], &best(0)["text"], &best(0)["source"]),
        (&json!(1), &json!("a vessel that sails the sea"), &json!("lines.txt:3"))
    );
    assert_eq!((&best(1)["id"], &report["queries"][1]["text"]), (&json!(2), &json!("puppy")));
    assert_eq!(best(0)["matches"][0]["query_text"], "ship");
    assert!(best(0)["matches"][0]["document_text"].is_string());
    let text = stdout(["search", "--query", "ship", "--text", &lines, "--top-k", "1"]);
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("lines.txt:3") && text.contains("a vessel that sails the sea"), "{text}");
}

#[test]
fn quantised_text_ranks_like_text() {
    let files = Files::new();
    let lines =
        files.text("lines.txt", "bread and butter\na vessel that sails the sea\na dog barks at the cat\n");
    let report = |extra: &[&str]| {
        let report = json([&["search", "--json", "--query", "ship", "--text", &lines][..], extra].concat());
        (ids(&report), report["queries"][0]["hits"][0]["score"].as_f64().expect("a score"))
    };
    let (order, score) = report(&[]);
    for (dtype, tolerance) in [("int8", 2e-2), ("fp8", 5e-2)] {
        let (quantised, close) = report(&["--dtype", dtype]);
        assert_eq!(quantised, order, "{dtype}");
        assert!(close != score && (close - score).abs() <= tolerance * score, "{dtype}: {close} {score}");
    }
}

#[test]
fn directories_are_read_recursively_in_order() {
    let files = Files::new();
    files.text("docs/b.md", "a vessel that sails the sea");
    files.text("docs/a/z.txt", "bread and butter");
    files.text("docs/ignored.rs", "ship ship ship");
    let report = json(["search", "--json", "--query", "ship", "--text", &files.arg("docs")]);
    let hits = report["queries"][0]["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 2);
    assert_eq!((&hits[0]["id"], &hits[0]["source"]), (&json!(1), &json!("b.md")));
}

#[test]
fn long_documents_count_to_their_end_unless_cut() {
    let files = Files::new();
    let lines = files.text("long.txt", format!("{} submarine\n", "filler ".repeat(600)));
    let score = |extra: &[&str]| {
        let args = [&["search", "--json", "--query", "submarine", "--text", &lines][..], extra].concat();
        json(args)["queries"][0]["hits"][0]["score"].as_f64().unwrap()
    };
    let (whole, cut) = (score(&[]), score(&["--max-tokens", "512"]));
    assert!(whole > 1.5 * cut.abs(), "{whole} {cut}");
}
