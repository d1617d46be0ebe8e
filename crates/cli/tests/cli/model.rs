//! `--model`: text by ColBERT models.

#[cfg(feature = "colbert")]
use serde_json::json;

use crate::{Files, fails};
#[cfg(feature = "colbert")]
use crate::{json, stdout};

/// A model with random weights; the tests of its crate hold its vectors to their reference.
pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../encode/tests/models/bert");

const LINES: &str = "a vessel, that sails\nthe surface of water\n\nship ship ship\n";

#[cfg(feature = "colbert")]
#[test]
fn text_is_encoded_by_the_model() {
    let files = Files::new();
    let lines = files.text("lines.txt", LINES);
    let report =
        json(["search", "ship", "--text", &lines, "--model", TINY, "--json", "--explain", "--top-k", "3"]);
    assert_eq!((&report["shape"], &report["normalize"]), (&json!([1, 3]), &json!(false)));
    let hit = &report["queries"][0]["hits"][0];
    let matches = hit["matches"].as_array().unwrap();
    // As many rows as the model says, whatever the query.
    let query: Vec<&str> = matches.iter().map(|m| m["query_text"].as_str().unwrap()).collect();
    assert_eq!(query[..5], ["[CLS]", "[Q]", "ship", "[SEP]", "[MASK]"]);
    assert_eq!(query.len(), 12);
    let sum: f64 = matches.iter().map(|m| m["similarity"].as_f64().unwrap()).sum();
    assert!((sum - hit["score"].as_f64().unwrap()).abs() < 1e-4, "{sum} {hit}");
    assert!(matches.iter().all(|m| m["similarity"].as_f64().unwrap() <= 1.0 + 1e-5));
    // Every row of every document has a text; punctuation has no row.
    let report = json(["score", "ship", "--text", &lines, "--model", TINY, "--json", "--explain"]);
    let shown = report["matches"].to_string();
    assert!(shown.contains("[D]") && !shown.contains("\",\"similarity\":null"), "{shown}");

    // The same text, the same score: both sides are encoded alike wherever the query stands.
    let one = stdout(["score", "ship", "--text", &lines, "--model", TINY]);
    let other = stdout(["score", "--query", "ship", "--text", &lines, "--model", TINY]);
    assert_eq!(one, other);
    assert_ne!(one, stdout(["score", "ship", "--text", &lines]), "the built-in encoder scores differently");
    assert_ne!(one, stdout(["score", "ship", "--text", &lines, "--model", TINY, "--max-tokens", "4"]));
}

#[cfg(feature = "colbert")]
#[test]
fn models_that_cannot_be_had_say_why() {
    let files = Files::new();
    let lines = files.text("lines.txt", LINES);
    let search = |model: &str| ["search", "ship", "--text", &lines, "--model", model].map(str::to_owned);
    let empty = files.path("empty");
    std::fs::create_dir(&empty).unwrap();
    fails(search(&files.arg("empty")), 3, "no config.json");
    fails(search("./missing"), 3, "a folder that exists, or the id of a model");
    let mut offline = crate::maxsim(search("org/missing"));
    offline.env("HF_HOME", files.path("hub")).env("HF_HUB_OFFLINE", "1");
    offline.assert().code(5).stderr(predicates::str::contains("HF_HUB_OFFLINE forbids"));
    let mut long = search(TINY).to_vec();
    long.extend(["--max-tokens".to_owned(), "41".to_owned()]);
    fails(long, 3, "document_length: expected at most 40");
}

#[cfg(not(feature = "colbert"))]
#[test]
fn without_the_feature_it_says_how_to_get_it() {
    let files = Files::new();
    let lines = files.text("lines.txt", LINES);
    fails(
        ["search", "ship", "--text", &lines, "--model", TINY],
        4,
        "cargo install maxsim-cli --features colbert",
    );
}

#[test]
fn a_model_without_text_is_a_mistake() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 1, 2], vec![1.0f32, 0.0]);
    fails(["score", "--queries", &q, "--documents", &q, "--model", TINY], 2, "--model encodes text");
    for args in
        [&["score", "ship", "--queries", &q, "--documents", &q][..], &["search", "a", "b", "--text", &q]]
    {
        crate::maxsim(args).assert().code(2);
    }
}
