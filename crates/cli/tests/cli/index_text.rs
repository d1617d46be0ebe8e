//! Indexes of text: built, added to, searched.

use serde_json::{Value, json};

use crate::{Files, fails, json, maxsim, stdout};

const LINES: &str = "bread and butter\na vessel that sails the sea\n\na dog barks at the cat\n";

fn best(hits: &Value) -> (&Value, &Value, &Value) {
    (&hits[0][0]["id"], &hits[0][0]["text"], &hits[0][0]["source"])
}

#[test]
fn text_goes_in_and_is_found() {
    let files = Files::new();
    let lines = files.text("lines.txt", LINES);
    let index = files.arg("docs.index");
    let report = json(["index", "build", &index, "--text", &lines, "--json"]);
    assert_eq!((&report["documents"], &report["dim"]), (&json!(3), &json!(128)));
    let found = json(["index", "search", &index, "--query", "ship", "--json"]);
    let vessel = json!("a vessel that sails the sea");
    assert_eq!(best(&found), (&json!(1), &vessel, &json!("lines.txt:2")));

    let more = files.text("more.txt", "a tall building with many floors\n");
    stdout(["index", "add", &index, "--text", &more]);
    let found = json(["index", "search", &index, "--query", "bread", "--query", "ship", "--json", "--exact"]);
    let added = found[0].as_array().unwrap().iter().find(|hit| hit["id"] == 3).unwrap();
    assert_eq!(
        (&added["source"], &added["text"]),
        (&json!("more.txt:1"), &json!("a tall building with many floors"))
    );
    assert_eq!((&found[0][0]["source"], &found[1][0]["text"]), (&json!("lines.txt:1"), &vessel));
    let shown = stdout(["index", "search", &index, "--query", "ship", "--top-k", "1"]);
    assert!(shown.contains("ship") && shown.contains("lines.txt:2  a vessel"), "{shown}");
    // Columns of the metadata, as any.
    let filtered =
        json(["index", "search", &index, "--query", "ship", "--filter", "source = 'more.txt:1'", "--json"]);
    assert_eq!(filtered[0].as_array().unwrap().len(), 1);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let files = Files::new();
    let lines = files.text("lines.txt", LINES);
    let vectors = files.npy("d.npy", &[1, 1, 2], vec![1.0f32, 0.0]);
    let index = files.arg("docs.index");
    let build = |extra: &[&str]| {
        [&["index", "build", &index][..], extra].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    for extra in [
        &[][..],
        &["--text", &lines, "--documents", &vectors],
        &["--text", &lines, "--lengths", &vectors],
        &["--documents", &vectors, "--max-tokens", "4"],
    ] {
        maxsim(build(extra)).assert().code(2);
    }
    fails(build(&["--documents", &vectors, "--model", "org/model"]), 2, "--model encodes --text");
    fails(build(&["--text", &files.arg("missing.txt")]), 5, "missing.txt");
    for args in [
        &["index", "search", &index][..],
        &["index", "search", &index, "--query", "a", "--queries", &vectors],
        &["index", "search", &index, "--queries", &vectors, "--model", "org/model"],
    ] {
        maxsim(args).assert().code(2);
    }
}
