//! `--dtype residual` of `maxsim score` and `maxsim search`.

use std::collections::BTreeMap;

use maxsim::f16;
use maxsim_formats::{Array, ArrayData, write_safetensors};
use serde_json::json;

use crate::{Files, fails, json, stdout};

/// Query of two tokens, d = 4.
const Q: [f32; 8] = [1.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0];

/// Tokens of 2 bit. With the centroids and weights of [`Tensors::packed`], token A is code 0 and buckets 1, 2, 0, 3, which
/// is (1, 0.25, -0.25, 0.5); token B is code 1 and buckets 1, 1, 1, 2, which is (0, 1, 0, 0.25).
const A: u8 = 0b10_01_00_11;
const B: u8 = 0b10_10_10_01;

/// The tensors of a file, to be changed one by one.
struct Tensors(BTreeMap<&'static str, Array>);

impl Tensors {
    /// Document 0 is A, document 1 is B and A.
    fn packed() -> Self {
        let mut tensors = Self(BTreeMap::new());
        tensors.set("codes", &[3], vec![0i64, 1, 0]);
        tensors.set("residuals", &[3, 1], vec![A, B, A]);
        tensors.set("centroids", &[2, 4], vec![1.0f32, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        tensors.set("bucket_weights", &[4], vec![-0.25f32, 0.0, 0.25, 0.5]);
        tensors.set("cu_seqlens_d", &[3], vec![0i32, 1, 3]);
        tensors
    }

    /// The same in two slots a document; the code of the slot that does not count is no centroid.
    fn padded() -> Self {
        let mut tensors = Self::packed();
        tensors.0.remove("cu_seqlens_d");
        tensors.set("codes", &[2, 2], vec![0u8, 99, 1, 0]);
        tensors.set("residuals", &[2, 2, 1], vec![A, 0xff, B, A]);
        tensors.set("doc_lengths", &[2], vec![1u16, 2]);
        tensors
    }

    fn set(&mut self, name: &'static str, shape: &[usize], data: impl Into<ArrayData>) {
        self.0.insert(name, Array::new(shape.to_vec(), data).expect("shape and data fit"));
    }

    fn without(mut self, name: &str) -> Self {
        self.0.remove(name).expect("it is there");
        self
    }

    fn with(mut self, name: &'static str, shape: &[usize], data: impl Into<ArrayData>) -> Self {
        self.set(name, shape, data);
        self
    }

    fn write(&self, files: &Files, name: &str) -> String {
        let tensors: Vec<(&str, &Array)> = self.0.iter().map(|(name, array)| (*name, array)).collect();
        write_safetensors(files.path(name), &tensors, &BTreeMap::new()).expect("written");
        files.arg(name)
    }
}

/// Arguments that score the query of `q.npy` with `documents`.
fn args<'a>(command: &'a str, q: &'a str, documents: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let input = [command, "--queries", q, "--documents", documents, "--dtype", "residual"];
    [&input[..], extra].concat()
}

const PLAID: [&str; 4] = ["--nbits", "2", "--layout", "plaid"];

#[test]
fn scores_are_those_worked_out_by_hand() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2, 4], Q.to_vec());
    let score = |tensors: &Tensors, extra: &[&str]| {
        let file = tensors.write(&files, "d.safetensors");
        let report = json(args("score", &q, &file, &[&["--json"], extra].concat()));
        assert_eq!(report["dtype"], json!({"queries": "f32", "documents": "residual"}));
        assert_eq!(report["shape"], json!([1, 2]));
        [0, 1].map(|j| report["scores"][j].as_f64().expect("a score"))
    };
    let plain = [&PLAID[..], &["--no-normalize"]].concat();
    // A: 1.5 + 0.5. B and A: 1.5 of A, 2 of B.
    for tensors in [Tensors::packed(), Tensors::padded()] {
        assert_eq!(score(&tensors, &plain), [2.0, 3.5]);
    }
    // The other order of bits is every byte reversed; it scores the same if it is said so, and differently if not.
    let reversed = [A, B, A].map(u8::reverse_bits).to_vec();
    let reversed = Tensors::packed().with("residuals", &[3, 1], reversed);
    assert_eq!(score(&reversed, &["--nbits", "2", "--layout", "lik", "--no-normalize"]), [2.0, 3.5]);
    assert_ne!(score(&reversed, &plain), [2.0, 3.5]);

    // Normalised unless told otherwise. The square of the length of A is 1.375, that of B 1.0625.
    let close = |scores: [f64; 2], expected: [f64; 2]| {
        assert!(scores.iter().zip(expected).all(|(s, e)| (s - e).abs() < 1e-5), "{scores:?} {expected:?}");
    };
    let first = 1.5 / 2f64.sqrt() / 1.375f64.sqrt();
    let expected = [first + 0.25 / 1.375f64.sqrt(), first + 1.0 / 1.0625f64.sqrt()];
    close(score(&Tensors::packed(), &PLAID), expected);
    // Lengths that are stored are believed.
    let halves = [0.5, 0.5, 0.5].map(f16::from_f32).to_vec();
    let stored = Tensors::packed().with("inv_norms", &[3], halves);
    let first = 0.75 / 2f64.sqrt();
    close(score(&stored, &PLAID), [first + 0.125, first + 0.5]);
    assert_eq!(score(&stored, &plain), [2.0, 3.5]);
}

#[test]
fn explanations_add_up_and_searches_rank() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2, 4], Q.to_vec());
    let stored = Tensors::padded().with("inv_norms", &[2, 2], vec![0.5f32, f32::NAN, 0.75, 0.25]);
    for (tensors, extra) in
        [(Tensors::packed(), "--normalize"), (Tensors::padded(), "--no-normalize"), (stored, "--normalize")]
    {
        let file = tensors.write(&files, "d.safetensors");
        let extra = [&PLAID[..], &["--json", "--explain", extra]].concat();
        let scored = json(args("score", &q, &file, &extra));
        for (pair, matches) in scored["matches"].as_array().unwrap().iter().enumerate() {
            let sum: f64 = matches.as_array().unwrap().iter().filter_map(|m| m["similarity"].as_f64()).sum();
            let score = scored["scores"][pair].as_f64().unwrap();
            assert!((sum - score).abs() < 1e-5, "{pair}: {sum} {score}");
        }
        assert_eq!(scored["matches"][1][0]["document_token"], 1, "A is the second token of document 1");
        let found = json(args("search", &q, &file, &extra));
        let hits = &found["queries"][0]["hits"];
        assert_eq!((&hits[0]["id"], &hits[1]["id"], &found["documents"]), (&json!(1), &json!(0), &json!(2)));
        assert_eq!(hits[0]["score"], scored["scores"][1]);
        assert_eq!(hits[0]["matches"], scored["matches"][1]);
    }
    let file = Tensors::packed().write(&files, "d.safetensors");
    let text = stdout(args("score", &q, &file, &[&PLAID[..], &["--no-normalize"]].concat()));
    assert_eq!(text, "0\t0\t2\n0\t1\t3.5\n");
}

#[test]
fn integer_arithmetic_stays_close() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2, 4], Q.to_vec());
    let file = Tensors::packed().write(&files, "d.safetensors");
    let scores = |precision: &str| {
        let report =
            json(args("score", &q, &file, &[&PLAID[..], &["--json", "--precision", precision]].concat()));
        [0, 1].map(|j| report["scores"][j].as_f64().expect("a score"))
    };
    let exact = scores("exact");
    for (precision, tolerance) in [("default", 1e-5), ("fast", 5e-3), ("int8", 2e-2)] {
        for (score, exact) in scores(precision).into_iter().zip(exact) {
            assert!((score - exact).abs() <= tolerance * exact.abs().max(1.0), "{precision} {score} {exact}");
        }
    }
}

#[test]
fn what_a_file_does_not_say_has_to_be_said() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2, 4], Q.to_vec());
    let file = Tensors::packed().write(&files, "d.safetensors");
    for command in ["score", "search"] {
        let fails = |extra: &[&str], message: &str| fails(args(command, &q, &file, extra), 2, message);
        fails(
            &["--nbits", "2"],
            "error[ERR_USAGE]: --dtype residual needs --layout: residuals do not say in which order",
        );
        fails(&["--layout", "plaid"], "error[ERR_USAGE]: --dtype residual needs --nbits");
        fails(&["--layout", "plaid", "--nbits", "3"], "[possible values: 1, 2, 4, 8]");
        fails(&["--layout", "colbert", "--nbits", "2"], "[possible values: plaid, lik]");
        for option in ["--offsets", "--lengths", "--mask", "--scales"] {
            fails(&[&PLAID[..], &[option, "o.npy"]].concat(), option);
        }
    }
    let dense = ["score", "--queries", &q, "--documents", &q];
    for extra in [["--nbits", "2"], ["--layout", "lik"]] {
        fails([&dense[..], &extra].concat(), 2, "--nbits and --layout are about --dtype residual");
    }
    let text = ["score", "--query", "ship", "--text", "lines.txt", "--dtype", "residual"];
    fails([&text[..], &PLAID].concat(), 2, "not --text");
}

#[test]
fn tensors_that_do_not_fit_exit_3_and_are_named() {
    let files = Files::new();
    let q = files.npy("q.npy", &[1, 2, 4], Q.to_vec());
    let (packed, padded) = (Tensors::packed, Tensors::padded);
    for (tensors, code, said) in [
        (packed().with("residuals", &[3, 2], vec![A; 6]), "ERR_SHAPE", "residuals: expected [3, 1]"),
        // As many bytes as there should be, but not the right ones.
        (padded().with("residuals", &[4, 1], vec![A; 4]), "ERR_SHAPE", "residuals: expected [2, 2, 1]"),
        (
            packed().with("residuals", &[3, 1], vec![1i8; 3]),
            "ERR_DTYPE",
            "residuals: expected dtype u8, got i8",
        ),
        (
            packed().with("codes", &[3], vec![0i64, 2, 0]),
            "ERR_INDEX",
            "codes[1]: expected below 2 centroids, got 2",
        ),
        (packed().with("codes", &[3], vec![0i64, -1, 0]), "ERR_INDEX", "codes[1]"),
        (packed().with("codes", &[3], vec![0f32; 3]), "ERR_DTYPE", "codes"),
        (packed().with("centroids", &[8], vec![0f32; 8]), "ERR_SHAPE", "residuals"),
        (packed().with("centroids", &[2, 4], vec![1i32; 8]), "ERR_DTYPE", "centroids"),
        (packed().with("bucket_weights", &[16], vec![0f32; 16]), "ERR_SHAPE", "bucket_weights: expected [4]"),
        (packed().with("inv_norms", &[3, 1], vec![1f32; 3]), "ERR_SHAPE", "inv_norms: expected [3]"),
        (packed().with("inv_norms", &[3], vec![1i8; 3]), "ERR_DTYPE", "inv_norms"),
        (packed().with("cu_seqlens_d", &[3], vec![0u32, 2, 1]), "ERR_INDEX", "cu_seqlens_d"),
        (padded().with("doc_lengths", &[2], vec![1u32, 3]), "ERR_INDEX", "doc_lengths[1]"),
        (
            padded().with("codes", &[4], vec![0u8; 4]).with("residuals", &[4, 1], vec![A; 4]),
            "ERR_SHAPE",
            "codes",
        ),
        (packed().with("doc_lengths", &[2], vec![1u32, 2]), "ERR_FORMAT", "one of the tensors"),
        (packed().without("cu_seqlens_d"), "ERR_FORMAT", "one of the tensors"),
        (packed().without("centroids"), "ERR_FORMAT", "no tensor \"centroids\""),
        (packed().without("bucket_weights"), "ERR_FORMAT", "no tensor \"bucket_weights\""),
    ] {
        let file = tensors.write(&files, "d.safetensors");
        let output = crate::maxsim(args("score", &q, &file, &PLAID)).assert().code(3);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.starts_with(&format!("error[{code}]: --documents: ")), "{said}: {stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    // Another dimension than the query, and files that hold no such thing.
    let wide = files.npy("wide.npy", &[1, 2, 5], vec![1f32; 10]);
    let file = Tensors::packed().write(&files, "d.safetensors");
    fails(args("score", &wide, &file, &PLAID), 3, "ERR_SHAPE");
    fails(args("score", &q, &q, &PLAID), 3, "expected a file named .safetensors");
    fails(args("score", &q, &format!("{file}:codes"), &PLAID), 3, "expected a file named .safetensors");
    fails(args("score", &q, &files.arg("none.safetensors"), &PLAID), 5, "none.safetensors");
}
