//! `maxsim index build`, `add`, `delete` and `compact`.

use maxsim::plaid::{DocumentId, Index, Value};
use serde_json::json;

use crate::{Files, fails, json, maxsim, stdout};

/// Token vectors of 8 dimensions that are all different: document `i` has `i % 3 + 1` of them.
fn packed(files: &Files, name: &str, documents: std::ops::Range<u32>) -> [String; 4] {
    let mut data = Vec::new();
    let mut offsets = vec![0u32];
    for i in documents {
        for token in 0..=i % 3 {
            data.extend((0..8).map(|k| ((i * 31 + token * 17 + k * 7) as f32 * 0.37).sin()));
        }
        offsets.push((data.len() / 8) as u32);
    }
    let (tokens, count) = (data.len() / 8, offsets.len());
    let d = files.npy(&format!("{name}.npy"), &[tokens, 8], data);
    let o = files.npy(&format!("{name}.offsets.npy"), &[count], offsets);
    ["--documents".into(), d, "--offsets".into(), o]
}

fn index<'a>(verb: &'a str, index: &'a str, rest: &'a [&'a str]) -> Vec<&'a str> {
    [&["index", verb, index], rest].concat()
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn ids(path: &str) -> Vec<DocumentId> {
    let index = Index::open(path).unwrap();
    index.verify().unwrap();
    index.live().iter().map(|position| index.id(position)).collect()
}

#[test]
fn an_index_is_built_and_changed() {
    let files = Files::new();
    let path = files.arg("new.index");
    let documents = packed(&files, "d", 0..200);
    let documents = strs(&documents);
    let rows: String =
        (0..200).map(|i| format!("{{\"year\": {}, \"title\": \"no {i}\"}}\n", 1900 + i)).collect();
    let metadata = files.text("rows.jsonl", rows);
    let with = ["--metadata", &metadata, "--centroids", "16", "--json"];
    let report = json(index("build", &path, &[&documents[..], &with].concat()));
    assert_eq!((&report["documents"], &report["tokens"]), (&json!(200), &json!(399)));
    assert_eq!((&report["nbits"], &report["centroids"]), (&json!(4), &json!(16)));
    assert!(report["peak_bytes"].as_u64().unwrap() > 1000);
    let opened = Index::open(&path).unwrap();
    let row = opened.metadata(&7.into()).unwrap();
    assert!(row.contains(&("year".into(), Value::Int(1907))) && row.len() == 2);

    fails(index("build", &path, &documents), 3, "a place without an index");
    let more = packed(&files, "more", 200..210);
    let more = strs(&more);
    let text = stdout(index("add", &path, &more));
    assert_eq!(text, "10 documents added; 210 in all\n");
    assert_eq!(ids(&path), (0..210u64).map(DocumentId::from).collect::<Vec<_>>());
    let listed = files.text("ids.txt", (205..215).map(|i| format!("{i}\n")).collect::<String>());
    let with_ids = [&more[..], &["--ids", &listed]].concat();
    fails(
        index("add", &path, &with_ids),
        3,
        "ids[0]: expected an id that no other document has, got 205 again",
    );
    assert_eq!(ids(&path).len(), 210, "nothing of it was added");
    let text = stdout(index("add", &path, &[&with_ids[..], &["--update"]].concat()));
    assert_eq!(text, "10 documents added, 5 of them in place of others; 215 in all\n");

    let text =
        stdout(index("delete", &path, &["--id", "0,1,999", "--filter", "year >= 1990 OR title = 'no 5'"]));
    assert_eq!(text, "113 documents deleted; 102 are left\n");
    fails(index("delete", &path, &["--filter", "age > 3"]), 3, "a column of the index (title, year)");
    fails(index("delete", &path, &["--id", "x"]), 3, "expected a number");
    fails(index("delete", &path, &[]), 2, "required");
    let text = stdout(index("compact", &path, &[]));
    assert!(text.contains("became 1 of"), "{text}");
    let left = ids(&path);
    assert_eq!(left.len(), 102);
    assert_eq!(Index::open(&path).unwrap().info().deleted, 0);
    let packed = files.arg("one.mxi");
    stdout(index("pack", &path, &[&packed]));
    assert_eq!(ids(&packed), left);
    fails(index("add", &packed, &more), 5, "one.mxi");
    for gone in [0u64, 1, 5, 90, 150, 199] {
        assert!(!left.contains(&gone.into()), "{gone}");
    }
}

#[test]
fn ids_may_be_texts_and_documents_padded() {
    let files = Files::new();
    let path = files.arg("new.index");
    let d = files.npy("d.npy", &[40, 3, 8], (0..960).map(|i| (i as f32).sin()).collect::<Vec<_>>());
    let lengths = files.npy("lengths.npy", &[40], (0..40).map(|i| i % 4).collect::<Vec<i64>>());
    let listed = files.text("ids.txt", (0..40).map(|i| format!("doc/{i}\n")).collect::<String>());
    let documents = ["--documents", &d, "--lengths", &lengths];
    let args = [&documents[..], &["--ids", &listed, "--text-ids", "--nbits", "2"]].concat();
    stdout(index("build", &path, &args));
    assert_eq!(ids(&path)[39], "doc/39".into());
    assert_eq!(Index::open(&path).unwrap().info().tokens, 60);
    fails(index("add", &path, &documents), 3, "ids: expected a file of texts");
    stdout(index("delete", &path, &["--ids", &listed]));
    assert!(ids(&path).is_empty());
}

#[test]
fn files_that_do_not_fit_are_refused_by_name() {
    let files = Files::new();
    let path = files.arg("new.index");
    let documents = packed(&files, "d", 0..20);
    let documents = strs(&documents);
    let short = files.text("short.txt", "1\n2\n");
    let refused = |rest: &[&str], message: &str| {
        fails(index("build", &path, &[&documents[..], rest].concat()), 3, message);
    };
    refused(&["--ids", &short], "short.txt: 2 lines for 20 documents");
    let long = files.text("long.txt", (0..21).map(|i| format!("{i}\n")).collect::<String>());
    refused(&["--ids", &long], "long.txt: more than 20 lines");
    let words = files.text("words.txt", "1\nx\n");
    refused(&["--ids", &words], "words.txt: line 2: id: expected a number below 2⁶⁴, got \"x\"");
    let rows = files.text("rows.jsonl", "{\"a\": 1}\n{\"a\": [1]}\n");
    refused(
        &["--metadata", &rows],
        "rows.jsonl: line 2: \"a\": expected a number, a text, true, false or null",
    );
    fails(index("build", &path, &documents[..2]), 3, "rank 3 [Nd, L, d], or [T, d] with --offsets");
    fails(index("add", &path, &documents), 3, "no index");
    fails(index("compact", &files.arg("d.npy"), &[]), 5, "d.npy");
}

#[cfg(unix)]
#[test]
fn a_killed_build_is_gone_on_with() {
    use std::process::{Command, Stdio};

    let files = Files::new();
    let path = files.arg("new.index");
    let values: Vec<f32> = (0..3000 * 8 * 64).map(|i| ((i % 7919) as f32 * 0.61).sin()).collect();
    let d = files.npy("d.npy", &[3000, 8, 64], values);
    let rest = ["--documents", &d, "--centroids", "512"];
    let args = index("build", &path, &rest);
    let mut kills = 0;
    while !std::path::Path::new(&path).join("building.mxi").exists() || kills < 3 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_maxsim"))
            .args(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100 << kills));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if std::path::Path::new(&path).join("manifest.mxi").exists() || kills > 8 {
            break;
        }
    }
    // Whatever the last one came to, the command makes the index out of it.
    maxsim([&args[..], &["--replace"]].concat()).assert().success();
    assert_eq!(ids(&path).len(), 3000);
}
