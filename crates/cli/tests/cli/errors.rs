//! Every class of exit code but 0, and what stands on stderr.

use crate::{Files, fails, json, maxsim};

#[test]
fn usage_errors_exit_2() {
    for args in [
        &["--nonsense"][..],
        &[],
        &["info", "--backend", "abacus"],
        &["info", "--level", "mmx"],
        &["info", "--threads", "0"],
        &["bench", "--op", "nonsense"],
        &["bench", "--dtype", "f64"],
        &["bench", "--reps", "0"],
        &["bench", "compare", "one.json"],
        &["demo", "--top-k", "0"],
        &["search", "--query", "ship"],
        &["search", "--text", "file"],
        &["search", "--query", "ship", "--text", "file", "--chunk", "0"],
        &["search", "--query", "ship", "--text", "file", "--largest", "--smallest"],
        &["score", "--queries", "q.npy", "--query", "ship", "--text", "file"],
        &["score", "--query", "ship", "--text", "file", "--offsets", "o.npy"],
        &["score", "--query", "ship", "--text", "file", "--query-mask", "m.npy"],
        &["score", "--queries", "q.npy", "--documents", "d.npy", "--max-tokens", "3"],
        &["score", "--queries", "q.npy", "--documents", "d.npy", "--offsets", "o.npy", "--lengths", "l.npy"],
        &["score", "--queries", "q.npy", "--documents", "d.npy", "--dtype", "int4"],
        &["score", "--queries", "q.npy", "--documents", "d.npy", "--precision", "int4"],
        &["selftest"],
        &["selftest", "--cases", "file", "--check", "nonsense"],
        &["selftest", "--cases", "file", "--ops", "nonsense"],
    ] {
        maxsim(args).assert().code(2);
    }
    fails(["bench", "--ragged", "9", "--ld", "8"], 2, "error[ERR_USAGE]: --ragged 9 is more than --ld 8");
}

#[test]
fn bad_settings_exit_2_and_are_named() {
    for (variable, value) in [
        ("MAXSIM_BACKEND", "abacus"),
        ("MAXSIM_CPU_LEVEL", "mmx"),
        ("MAXSIM_THREADS", "many"),
        ("MAXSIM_THREADS", "0"),
        ("MAXSIM_LOG", "maxsim=deafening"),
    ] {
        let output = maxsim(["bench", "--nd", "1", "--reps", "1"]).env(variable, value).assert().code(2);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.starts_with("error[ERR_USAGE]: in the environment: "), "{variable}: {stderr}");
    }
}

/// A query file, a document file, and a way to break one of them.
fn pair(files: &Files) -> (String, String) {
    let q = files.npy("q.npy", &[2, 2, 4], vec![1.0f32; 16]);
    let d = files.npy("d.npy", &[3, 2, 4], vec![1.0f32; 24]);
    (q, d)
}

#[test]
fn bad_files_exit_3_and_name_option_or_file() {
    let files = Files::new();
    let (q, d) = pair(&files);
    let whole = std::fs::read(&d).unwrap();
    let truncated = files.text("truncated.npy", &whole[..whole.len() - 1]);
    let rank_1 = files.npy("rank1.npy", &[4], vec![1.0f32; 4]);
    let rank_5 = files.npy("rank5.npy", &[1, 1, 1, 1, 4], vec![1.0f32; 4]);
    let other_dim = files.npy("dim.npy", &[3, 2, 5], vec![1.0f32; 30]);
    let integers = files.npy("ints.npy", &[3, 2, 4], vec![1i64; 24]);
    let no_array = files.text("no.npy", "not an array");
    let no_tensors = files.text("no.safetensors", "not tensors");
    let unknown = files.text("data.csv", "1,2");
    for (documents, code, said) in [
        (&truncated, "ERR_FORMAT", "truncated.npy"),
        (&rank_1, "ERR_SHAPE", "rank 1"),
        (&rank_5, "ERR_SHAPE", "rank 5"),
        (&other_dim, "ERR_SHAPE", "d = 5"),
        (&integers, "ERR_DTYPE", "i64"),
        (&no_array, "ERR_FORMAT", "no.npy"),
        (&no_tensors, "ERR_FORMAT", "no.safetensors"),
        (&unknown, "ERR_FORMAT", "data.csv"),
        (&format!("{d}:name"), "ERR_FORMAT", "without a name"),
    ] {
        for command in ["score", "search"] {
            let output = maxsim([command, "--queries", &q, "--documents", documents]).assert().code(3);
            let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
            assert!(stderr.starts_with(&format!("error[{code}]: ")), "{documents}: {stderr}");
            assert!(stderr.contains(said), "{documents}: {stderr}");
        }
    }
    // The same on the other side, and with the files that come with it.
    fails(["score", "--queries", &truncated, "--documents", &d], 3, "--queries: ");
    let lengths = files.npy("lengths.npy", &[3], vec![1i64, -1, 2]);
    let long = files.npy("long.npy", &[3], vec![1u32, 2, 3]);
    let offsets = files.npy("offsets.npy", &[3], vec![0u32, 3, 2]);
    let packed = files.npy("packed.npy", &[2, 4], vec![1.0f32; 8]);
    for (extra, documents, said) in [
        (["--lengths", &lengths], &d, "--lengths: "),
        (["--lengths", &long], &d, "ERR_INDEX"),
        (["--mask", &lengths], &d, "ERR_SHAPE"),
        (["--scales", &q], &d, "ERR_DTYPE"),
        (["--offsets", &offsets], &packed, "ERR_INDEX"),
        (["--offsets", &offsets], &d, "rank 2 [T, d]"),
        (["--offsets", &packed], &packed, "ERR_DTYPE"),
    ] {
        fails([&["score", "--queries", &q, "--documents", documents][..], &extra[..]].concat(), 3, said);
    }
}

#[test]
fn text_that_cannot_be_searched_exits_3() {
    let files = Files::new();
    let latin_1 = files.text("latin1.txt", b"caf\xe9");
    let text = files.text("text.txt", "a ship");
    files.text("empty/image.png", "no text");
    fails(["search", "--query", "ship", "--text", &latin_1], 3, "error[ERR_FORMAT]: --text: ");
    fails(["search", "--query", "ship", "--text", &files.arg("empty")], 3, "no .txt or .md file");
    fails(["search", "--query", "🚢", "--text", &text], 3, "error[ERR_VALUE]");
    fails(["demo", "--no-cache", "🚢"], 3, "error[ERR_VALUE]");
}

#[test]
fn missing_backends_and_levels_exit_4() {
    fails(["bench", "--backend", "cuda", "--nd", "1"], 4, "error[ERR_UNSUPPORTED]: backend cuda");
    let levels = json(["info", "--json"])["cpu_levels"].clone();
    let missing =
        ["neon", "avx2"].into_iter().find(|level| !levels.as_array().unwrap().contains(&(*level).into()));
    let missing = missing.expect("no machine has both");
    fails(["bench", "--level", missing, "--nd", "1"], 4, "error[ERR_UNSUPPORTED]");
}

#[test]
fn missing_files_exit_5() {
    let files = Files::new();
    let (q, d) = pair(&files);
    let missing = files.arg("missing.npy");
    for args in [
        &["score", "--queries", &missing, "--documents", &d][..],
        &["search", "--queries", &q, "--documents", &missing],
        &["score", "--queries", &q, "--documents", &d, "--lengths", &missing],
        &["search", "--query", "ship", "--text", &missing],
        &["selftest", "--cases", &missing],
        &["bench", "compare", &missing, &missing],
    ] {
        let output = maxsim(args).assert().code(5);
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(
            stderr.starts_with("error[ERR_IO]: ") && stderr.contains("missing.npy"),
            "{args:?}: {stderr}"
        );
    }
}
