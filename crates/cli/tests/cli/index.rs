//! `maxsim index`: searching, looking into and exchanging indexes.

use std::path::Path;

use maxsim::plaid::exchange;
use maxsim::plaid::store::DirectoryStorage;
use maxsim::plaid::{
    CreateOptions, DocumentId, IdKind, IndexCodec, IndexWriter, Sample, TrainOptions, Value, train,
};
use maxsim::{TensorRef, Tokens};
use serde_json::json;

use crate::{Files, fails, json, maxsim, stdout};

const DIM: usize = 16;
const DOCUMENTS: usize = 30;

/// Document `i` is three tokens of its own.
fn vectors() -> Vec<f32> {
    (0..DOCUMENTS * 3 * DIM).map(|i| ((i * 7 + 1) as f32 * 0.37).sin() + ((i / DIM) as f32).cos()).collect()
}

fn codec(data: &[f32]) -> IndexCodec {
    let engine = maxsim::engine().unwrap();
    let mut sample = Sample::new(DIM, 1000, 0).unwrap();
    sample.add(&TensorRef::new(data, &[DOCUMENTS * 3, DIM]).unwrap()).unwrap();
    let options = TrainOptions { nbits: 8, centroids: Some(16), ..TrainOptions::default() };
    train(&engine, &sample, &options, &mut |_, _| ()).unwrap()
}

/// A directory as fast-plaid writes it, and queries that are documents 4 and 17.
fn foreign(files: &Files) -> (String, String) {
    let data = vectors();
    let codec = codec(&data);
    let x = TensorRef::new(&data, &[DOCUMENTS * 3, DIM]).unwrap();
    let encoded = codec.encode(&maxsim::engine().unwrap(), &x).unwrap();
    let segment = codec.segment((0..=DOCUMENTS as u32).map(|i| i * 3).collect(), encoded).unwrap();
    exchange::write(files.path("foreign"), &codec, &[&segment], None).unwrap();
    (files.arg("foreign"), queries(files, &data))
}

fn queries(files: &Files, data: &[f32]) -> String {
    let query = |document: usize| data[document * 3 * DIM..(document + 1) * 3 * DIM].iter().copied();
    files.npy("q.npy", &[2, 3, DIM], query(4).chain(query(17)).collect::<Vec<f32>>())
}

/// An index of our own whose ids are texts, with a year each.
fn own(path: &Path, data: &[f32]) {
    let engine = maxsim::engine().unwrap();
    let options = CreateOptions { ids: IdKind::Text, replace: false };
    let mut writer =
        IndexWriter::create_in(&engine, DirectoryStorage::new(path), codec(data), options).unwrap();
    let ids: Vec<DocumentId> = (0..DOCUMENTS).map(|i| format!("d{i}").into()).collect();
    let rows: Vec<_> =
        (0..DOCUMENTS).map(|i| vec![("year".to_owned(), Value::Int(2000 + i as i64))]).collect();
    writer.add(&Tokens::padded(data, &[DOCUMENTS, 3, DIM]).unwrap(), Some(&ids), &rows).unwrap();
    writer.commit().unwrap();
    writer.delete(&["d4".into()]).unwrap();
    writer.commit().unwrap();
}

#[test]
fn a_foreign_directory_is_searched_as_it_is() {
    let files = Files::new();
    let (index, queries) = foreign(&files);
    let found = json(["index", "search", &index, "--queries", &queries, "--top-k", "3", "--json"]);
    let lists = found.as_array().unwrap();
    assert_eq!(lists.len(), 2);
    for (list, document) in lists.iter().zip([4, 17]) {
        assert_eq!((list.as_array().unwrap().len(), &list[0]["id"]), (3, &json!(document)));
        // Three unit vectors found again, but for rounding.
        assert!((list[0]["score"].as_f64().unwrap() - 3.0).abs() < 0.02, "{list}");
        assert!(list[0].get("winners").is_none());
    }
    // Exact, approximate, all options: the same best.
    for options in [
        &["--exact"][..],
        &["--n-full-scores", "40", "--n-ivf-probe", "2", "--precision", "exact"],
        &["--subset", "17,4,999"],
        &["--explain"],
    ] {
        let args = ["index", "search", &index, "--queries", &queries, "--top-k", "1", "--json"];
        let found = json(args.iter().chain(options));
        assert_eq!((&found[0][0]["id"], &found[1][0]["id"]), (&json!(4), &json!(17)), "{options:?}");
        if options == ["--explain"] {
            assert_eq!(found[0][0]["winners"], json!([0, 1, 2]));
        }
    }
    let args = ["index", "search", &index, "--queries", &queries, "--top-k", "1"];
    let text = stdout(args);
    assert!(text.contains("query 1") && text.contains("17"), "{text}");
    let timed = json(args.iter().chain(&["--repeat", "3", "--json"]));
    assert_eq!(timed["results"][1][0]["id"], 17);
    assert!(timed["seconds"].as_array().unwrap().iter().all(|s| s.as_f64().unwrap() > 0.0));
    assert_eq!(timed["seconds"].as_array().unwrap().len(), 3);
    assert!(stdout(args.iter().chain(&["--repeat", "3"])).contains("3 × 2 queries on "));
    let info = json(["index", "info", &index, "--json"]);
    assert_eq!((&info["documents"], &info["tokens"], &info["nbits"]), (&json!(30), &json!(90), &json!(8)));
    assert!(stdout(["index", "verify", &index]).starts_with("ok: 30 documents, 90 tokens"));
}

#[test]
fn import_and_export_keep_every_byte() {
    let files = Files::new();
    let (index, queries) = foreign(&files);
    let (ours, back) = (files.arg("ours"), files.arg("back"));
    stdout(["index", "import", &index, &ours]);
    fails(["index", "import", &index, &ours], 3, "ERR_VALUE");
    stdout(["index", "import", &index, &ours, "--replace"]);
    stdout(["index", "export", &ours, &back, "--ids", &files.arg("ids.json")]);
    for name in ["0.codes.npy", "0.residuals.npy", "doclens.0.json", "ivf.npy", "centroids.npy"] {
        let read = |directory: &str| std::fs::read(Path::new(directory).join(name)).unwrap();
        assert_eq!(read(&index), read(&back), "{name}");
    }
    let ids: Vec<u64> =
        serde_json::from_str(&std::fs::read_to_string(files.path("ids.json")).unwrap()).unwrap();
    assert_eq!(ids, (0..30).collect::<Vec<u64>>());
    let search = |index: &str| json(["index", "search", index, "--queries", &queries, "--json"]);
    assert_eq!(search(&index), search(&ours));
    fails(["index", "export", &ours, &back], 3, "ERR_VALUE");
}

#[test]
fn indexes_of_our_own_have_ids_and_metadata() {
    let files = Files::new();
    let data = vectors();
    own(&files.path("own"), &data);
    let (index, queries) = (files.arg("own"), queries(&files, &data));
    let first = |options: &[&str]| {
        let args = ["index", "search", &index, "--queries", &queries, "--top-k", "1", "--json"];
        json(args.iter().chain(options))[1][0]["id"].clone()
    };
    assert_eq!(first(&[]), "d17");
    assert_eq!(first(&["--filter", "year < 2005 AND year > 2000", "--subset", "d1,d17"]), "d1");
    fails(["index", "search", &index, "--queries", &queries, "--filter", "colour = 'red'"], 3, "filter");
    let info = json(["index", "info", &index, "--json"]);
    assert_eq!((&info["documents"], &info["deleted"], &info["ids"]), (&json!(29), &json!(1), &json!("text")));
    assert_eq!(info["columns"], json!([{"name": "year", "type": "integer"}]));
    assert!(stdout(["index", "verify", &index]).starts_with("ok"));
    // The deleted document is not there.
    let ids = files.arg("ids.json");
    stdout(["index", "export", &index, &files.arg("out"), "--ids", &ids]);
    let ids: Vec<String> = serde_json::from_str(&std::fs::read_to_string(ids).unwrap()).unwrap();
    assert!(ids.len() == 29 && !ids.contains(&"d4".to_owned()));
}

#[test]
fn what_is_wrong_is_said() {
    let files = Files::new();
    let (index, queries) = foreign(&files);
    fails(["index", "search", &files.arg("nothing"), "--queries", &queries], 3, "ERR_FORMAT");
    fails(["index", "search", &index, "--queries", &queries, "--filter", "a = 1"], 2, "--filter");
    fails(["index", "search", &index, "--queries", &queries, "--subset", "four"], 3, "--subset");
    fails(["index", "search", &index, "--queries", &queries, "--top-k", "0"], 2, "top-k");
    let narrow = files.npy("narrow.npy", &[1, 2, 4], vec![0.5f32; 8]);
    fails(["index", "search", &index, "--queries", &narrow], 3, "d = 16");
    // An inverted list that is not what the codes say.
    let ivf = files.path("foreign").join("ivf.npy");
    let mut bytes = std::fs::read(&ivf).unwrap();
    let at = bytes.len() - 8;
    bytes[at] ^= 1;
    std::fs::write(&ivf, bytes).unwrap();
    maxsim(["index", "verify", &index]).assert().code(1).stdout(predicates::str::contains("centroid"));
}
