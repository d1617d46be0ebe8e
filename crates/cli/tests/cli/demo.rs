//! `maxsim demo`.

use std::path::Path;

use serde_json::Value;

use crate::{Files, maxsim};

/// Shares no word but "warship" and "torpedoes" with the gloss of "submarine".
const SUBMARINE: &str = "warship that dives under water and fires torpedoes";

fn demo(cache: &Path, args: &[&str]) -> (Value, String) {
    let output = maxsim(["demo", "--json"]).args(args).env("MAXSIM_CACHE_DIR", cache).assert().success();
    let output = output.get_output();
    let report = serde_json::from_slice(&output.stdout).expect("JSON");
    (report, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn cache_file(directory: &Path) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

#[test]
fn the_word_is_found_and_explained() {
    let files = Files::new();
    let (report, _) = demo(&files.path("cache"), &[SUBMARINE, "--top-k", "3"]);
    let hits = report["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 3);
    assert_eq!(hits[0]["word"], "submarine");
    assert!(report["documents"].as_u64().unwrap() >= 10_000);
    assert!(report["tokens"].as_u64() > report["documents"].as_u64());
    assert!(report["plan"]["kernel"].as_str().unwrap().starts_with("retrieve/"));
    for time in ["encode", "index", "search"] {
        assert!(report["times_ms"][time].as_f64().unwrap() > 0.0, "{time}");
    }
    for hit in hits {
        let matches = hit["matches"].as_array().unwrap();
        let sum: f64 = matches.iter().map(|m| m["similarity"].as_f64().unwrap()).sum();
        assert!((sum - hit["score"].as_f64().unwrap()).abs() < 1e-4, "similarities add up to the score");
    }
    let torpedoes = hits[0]["matches"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&torpedoes["query_text"], &torpedoes["document_text"]),
        (&"torpedoes".into(), &"torpedoes".into())
    );
}

#[test]
fn the_cache_is_written_read_and_changes_nothing() {
    let files = Files::new();
    let cache = files.path("new/cache");
    let (first, _) = demo(&cache, &[SUBMARINE]);
    let (second, _) = demo(&cache, &[SUBMARINE]);
    assert_eq!((&first["cached"], &second["cached"]), (&false.into(), &true.into()));
    assert_eq!(first["hits"], second["hits"]);
}

#[test]
fn a_broken_cache_file_is_rebuilt() {
    let files = Files::new();
    let cache = files.path("cache");
    let (first, _) = demo(&cache, &[SUBMARINE]);
    let path = cache_file(&cache);
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x40;
    for broken in [&b""[..], b"nonsense", &good[..good.len() / 2], &flipped] {
        std::fs::write(&path, broken).unwrap();
        let (report, stderr) = demo(&cache, &[SUBMARINE]);
        assert_eq!(report["cached"], false);
        assert_eq!(report["hits"], first["hits"]);
        assert!(stderr.contains("cache file is made anew"), "{stderr}");
        assert!(std::fs::read(cache_file(&cache)).unwrap() == good, "the file is whole again");
    }
}

#[test]
fn without_a_cache_directory_everything_works() {
    let files = Files::new();
    // A file where the directory should be: nothing can be written, whoever runs this.
    let blocked = files.path("blocked");
    std::fs::write(&blocked, "in the way").unwrap();
    let (report, stderr) = demo(&blocked, &[SUBMARINE]);
    assert_eq!(report["hits"][0]["word"], "submarine");
    assert!(stderr.contains("cannot be cached"), "{stderr}");
    let (_, stderr) = demo(&blocked, &[SUBMARINE, "--no-cache"]);
    assert_eq!(stderr, "");
    assert_eq!(std::fs::read(&blocked).unwrap(), b"in the way");
}

#[test]
fn text_shows_alignment_kernel_and_times() {
    let files = Files::new();
    let output = maxsim(["demo", "--level", "generic", "--threads", "1", "--top-k", "2"])
        .env("MAXSIM_CACHE_DIR", files.path("cache"))
        .env("COLUMNS", "80")
        .assert()
        .success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // The default query.
    assert_eq!(lines[0], "fear of closed spaces");
    let hit = lines.iter().position(|line| line.starts_with(" 1  claustrophobia")).expect("the word");
    let row = |words: &[&str]| {
        let at = lines[hit..].iter().position(|l| l.split_whitespace().eq(words.iter().copied()));
        hit + at.unwrap_or_else(|| panic!("{words:?} in {text}"))
    };
    let (query, document) =
        (row(&["fear", "of", "closed", "spaces"]), row(&["fear", "of", "closed", "space"]));
    assert_eq!(document, query + 1);
    // Columns are aligned.
    assert_eq!(lines[query].find("closed"), lines[document].find("closed"));
    assert!(text.contains("cpu:retrieve/generic") && text.contains("threads=1"), "{text}");
    assert!(text.contains("encoded in ") && text.contains("searched in "), "{text}");
    assert!(!text.contains('\x1b'), "no colour outside a terminal");
    assert!(lines.iter().all(|line| line.chars().count() <= 110), "{text}");
}
