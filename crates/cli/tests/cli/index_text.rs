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
fn an_index_remembers_its_encoder() {
    let files = Files::new();
    let lines = files.text("lines.txt", LINES);
    let index = files.arg("docs.index");
    stdout(["index", "build", &index, "--text", &lines, "--max-tokens", "3"]);
    let encoder = |index: &str| json(["index", "info", index, "--json"])["encoder"].clone();
    let built_in = encoder(&index);
    assert_eq!((&built_in["name"], &built_in["location"]), (&json!("static-en-128"), &json!("")));
    assert_eq!(built_in["fingerprint"].as_str().unwrap().len(), 16);
    let shown = stdout(["index", "info", &index]);
    assert!(shown.contains("\nencoder     static-en-128 (fingerprint "), "{shown}");
    // Whatever becomes of it. Limits of texts do not make another encoder.
    let more = files.text("more.txt", "a tall building\na small house\n");
    stdout(["index", "add", &index, "--text", &more]);
    stdout(["index", "delete", &index, "--id", "3"]);
    stdout(["index", "compact", &index]);
    assert_eq!(encoder(&index), built_in);
    let pack = files.arg("docs.mxi");
    stdout(["index", "pack", &index, &pack]);
    assert_eq!(encoder(&pack), built_in);
    // Vectors come from nobody knows where.
    let vectors = files.npy("d.npy", &[1, 2, 2], vec![1.0f32, 0.0, 0.0, 1.0]);
    let other = files.arg("vectors.index");
    stdout(["index", "build", &other, "--documents", &vectors]);
    assert_eq!(encoder(&other), Value::Null);
}

#[cfg(feature = "colbert")]
#[test]
fn another_encoder_is_refused() {
    use crate::model::TINY;

    let files = Files::new();
    let lines = files.text("lines.txt", LINES);
    let index = files.arg("docs.index");
    stdout(["index", "build", &index, "--text", &lines, "--model", TINY, "--threads", "1"]);
    let encoder = json(["index", "info", &index, "--json"])["encoder"].clone();
    assert_eq!(encoder["name"], json!("bert"));
    // Its folder is known wherever one stands, and so is that it is the same model elsewhere.
    let search = |extra: &[&str]| {
        let args = [&["index", "search", &index, "--query", "ship", "--json"][..], extra].concat();
        args.iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let mut elsewhere = maxsim(search(&[]));
    let found = elsewhere.current_dir(files.path("")).assert().success().get_output().stdout.clone();
    let moved = files.path("moved");
    std::fs::create_dir_all(moved.join("1_Dense")).unwrap();
    std::fs::create_dir_all(moved.join("2_Dense")).unwrap();
    for from in [TINY.to_owned(), format!("{TINY}/1_Dense"), format!("{TINY}/2_Dense")] {
        for entry in std::fs::read_dir(&from).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            let below = entry.path().strip_prefix(TINY).unwrap().to_owned();
            std::fs::copy(entry.path(), moved.join(below)).unwrap();
        }
    }
    let copy = files.arg("moved");
    assert_eq!(stdout(search(&["--model", &copy])).as_bytes(), found);

    let modern = TINY.replace("/bert", "/modernbert");
    let both = |args: Vec<String>| {
        let stderr = maxsim(args).assert().code(3).get_output().stderr.clone();
        let stderr = String::from_utf8(stderr).unwrap();
        let own = format!("expected bert of {}", encoder["location"].as_str().unwrap());
        assert!(
            stderr.starts_with("error[ERR_VALUE]: --model: encoder: ") && stderr.contains(&own),
            "{stderr}"
        );
        assert!(stderr.contains("got modernbert of "), "{stderr}");
    };
    both(search(&["--model", &modern]));
    both(["index", "add", &index, "--text", &lines, "--model", &modern].map(str::to_owned).into());

    // A model that is gone: what it was, and what to do.
    stdout(["index", "build", &index, "--text", &lines, "--model", &copy, "--replace"]);
    std::fs::remove_dir_all(&moved).unwrap();
    fails(search(&[]), 3, "the index was built with moved of ");
    fails(search(&[]), 3, "--model says where that is now");
    stdout(search(&["--model", TINY]));
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
