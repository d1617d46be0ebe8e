//! Directories of fast-plaid and next-plaid: written and read again, in every form their versions use, and damaged.
//!
//! Where `MAXSIM_FIXTURES` names a directory with fast-plaid's own indexes under `plaid`, those are searched too.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use maxsim_core::{Engine, ErrorCode, Options, PlaidOptions, TensorRef, Tokens};
use maxsim_cpu::{CpuBackend, CpuOptions};
use maxsim_formats::{Array, ArrayData, npy, read_npy, write_npy};
use maxsim_plaid::exchange::{self, Directory};
use maxsim_plaid::{Bitmap, IndexCodec, Sample, Searched, Segment, TrainOptions, train};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde_json::{Value, json};

const DIM: usize = 32;

fn engine() -> Engine {
    let cpu = CpuBackend::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap();
    Engine::new(vec![Arc::new(cpu)]).unwrap().silent()
}

/// A small index in two segments, one empty document among them.
fn index(nbits: u32) -> (IndexCodec, Vec<Segment>) {
    let engine = engine();
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(nbits));
    let lengths: Vec<u32> = (0..90).map(|i| if i == 40 { 0 } else { rng.random_range(1..9) }).collect();
    let tokens = lengths.iter().sum::<u32>() as usize;
    let data: Vec<f32> = (0..tokens * DIM).map(|_| StandardNormal.sample(&mut rng)).collect();
    let mut sample = Sample::new(DIM, 1000, 1).unwrap();
    sample.add(&TensorRef::new(&data, &[tokens, DIM]).unwrap()).unwrap();
    let options = TrainOptions { nbits, centroids: Some(24), ..TrainOptions::default() };
    let codec = train(&engine, &sample, &options, &mut |_, _| ()).unwrap();
    let mut row = 0;
    let segments = lengths
        .chunks(50)
        .map(|lengths| {
            let mut offsets = vec![0];
            lengths.iter().for_each(|&n| offsets.push(offsets[offsets.len() - 1] + n));
            let here = offsets[lengths.len()] as usize;
            let x = TensorRef::new(&data[row * DIM..(row + here) * DIM], &[here, DIM]).unwrap();
            row += here;
            codec.segment(offsets, codec.encode(&engine, &x).unwrap()).unwrap()
        })
        .collect();
    (codec, segments)
}

fn write(path: &Path, nbits: u32) -> (IndexCodec, Vec<Segment>) {
    let (codec, segments) = index(nbits);
    exchange::write(path, &codec, &segments.iter().collect::<Vec<_>>(), None).unwrap();
    (codec, segments)
}

fn read(path: &Path) -> maxsim_core::Result<(IndexCodec, Segment)> {
    let directory = Directory::open(path)?;
    let mut segments = directory.segments(1 << 20).collect::<maxsim_core::Result<Vec<_>>>()?;
    assert_eq!(segments.len(), 1);
    Ok((directory.codec().clone(), segments.remove(0)))
}

/// Codes, residuals and lengths of some segments, one behind the other.
fn contents<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> (Vec<u32>, Vec<u8>, Vec<usize>) {
    let (mut codes, mut residuals, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for segment in segments {
        codes.extend_from_slice(&segment.parts().codes);
        residuals.extend_from_slice(&segment.parts().residuals);
        lengths.extend((0..segment.documents()).map(|d| segment.rows(d).len()));
    }
    (codes, residuals, lengths)
}

#[test]
fn what_is_written_is_read() {
    for nbits in [1, 2, 4, 8] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let (codec, segments) = write(&path, nbits);
        let (read_codec, read_segment) = read(&path).unwrap();
        assert_eq!(contents([&read_segment]), contents(&segments));
        assert_eq!(read_codec.parts().bucket_cutoffs, codec.parts().bucket_cutoffs);
        assert_eq!(read_codec.parts().bucket_weights, codec.parts().bucket_weights);
        assert_eq!(read_codec.parts().avg_residual, codec.parts().avg_residual);
        assert_eq!(read_codec.parts().cluster_threshold, codec.parts().cluster_threshold);
        let centroids = |codec: &IndexCodec| codec.parts().centroids.data().to_f32();
        assert_eq!(centroids(&read_codec), centroids(&codec));
        // Inverse norms are computed again, and inverted lists made again.
        let norms = |segment: &Segment| segment.parts().inv_norms.to_vec();
        assert_eq!(norms(&read_segment), segments.iter().flat_map(norms).collect::<Vec<_>>());
        let verdict = Directory::open(&path).unwrap().verify().unwrap();
        assert_eq!((verdict.problems, verdict.documents), (vec![], 90));
        // Nothing but the directory itself is left behind.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

#[test]
fn deleted_documents_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let (codec, segments) = index(4);
    let live = Bitmap::of(90, (0..90).filter(|d| d % 3 != 1)).unwrap();
    let written = exchange::write(&path, &codec, &segments.iter().collect::<Vec<_>>(), Some(&live)).unwrap();
    assert_eq!(written, 60);
    let (_, segment) = read(&path).unwrap();
    let (codes, _, lengths) = contents(&segments);
    let (read_codes, _, read_lengths) = contents([&segment]);
    let mut expected = Vec::new();
    let mut row = 0;
    for (d, &length) in lengths.iter().enumerate() {
        if live.contains(d) {
            expected.extend_from_slice(&codes[row..row + length]);
        }
        row += length;
    }
    assert_eq!(read_codes, expected);
    assert_eq!(read_lengths.len(), 60);
    assert!(Directory::open(&path).unwrap().verify().unwrap().problems.is_empty());
    let nothing = Bitmap::empty(90);
    let path = directory.path().join("nothing");
    exchange::write(&path, &codec, &segments.iter().collect::<Vec<_>>(), Some(&nothing)).unwrap();
    assert_eq!(read(&path).unwrap().1.documents(), 0);
}

#[test]
fn nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let (codec, segments) = write(&path, 2);
    let segments: Vec<&Segment> = segments.iter().collect();
    let error = exchange::write(&path, &codec, &segments, None).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Value, "{error}");
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    exchange::write(&empty, &codec, &segments, None).unwrap();
    assert!(Directory::is_one(&empty));
    // A place that cannot be written to; nothing half-written stays.
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(
        exchange::write(file.join("index"), &codec, &segments, None).unwrap_err().code(),
        ErrorCode::Io
    );
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// The same index in other words: every spelling that some version of either program uses.
#[test]
fn all_versions_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let (_, segments) = write(&path, 4);
    let expected = contents(&segments);
    let check = |what: &str| {
        let (codec, segment) = read(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(contents([&segment]), expected, "{what}");
        codec
    };
    let file = |name: &str| path.join(name);

    // Half precision, 64-bit lengths with room to spare, a threshold without axes.
    let centroids = read_npy(file("centroids.npy")).unwrap();
    let halves: Vec<maxsim_core::f16> =
        centroids.to_f32("").unwrap().into_iter().map(maxsim_core::f16::from_f32).collect();
    write_npy(file("centroids.npy"), &Array::new(centroids.shape().to_vec(), halves).unwrap()).unwrap();
    let mut lengths = read_npy(file("ivf_lengths.npy")).unwrap().to_i64("").unwrap();
    lengths.extend([0, 0, 0]);
    write_npy(file("ivf_lengths.npy"), &Array::new(vec![lengths.len()], lengths).unwrap()).unwrap();
    let threshold = read_npy(file("cluster_threshold.npy")).unwrap().to_f64()[0];
    write_npy(file("cluster_threshold.npy"), &Array::new(vec![], vec![threshold]).unwrap()).unwrap();
    let codec = check("fast-plaid after an update");
    assert_eq!(f64::from(codec.parts().cluster_threshold), threshold);
    assert!(Directory::open(&path).unwrap().verify().unwrap().problems.is_empty());

    // Codes of 32 bits.
    let codes = read_npy(file("0.codes.npy")).unwrap().to_u32("").unwrap();
    let narrow: Vec<i32> = codes.iter().map(|&c| c as i32).collect();
    write_npy(file("0.codes.npy"), &Array::new(vec![codes.len()], narrow).unwrap()).unwrap();
    check("32-bit codes");

    // next-plaid's header: as long as it wants plus a newline, so that the data lies anywhere.
    let bytes = npy::to_bytes(&read_npy(file("0.codes.npy")).unwrap()).unwrap();
    let length = u16::from_le_bytes([bytes[8], bytes[9]]);
    let data = 10 + usize::from(length);
    let mut shifted = bytes[..8].to_vec();
    shifted.extend((length + 1).to_le_bytes());
    shifted.extend(&bytes[10..data - 1]);
    shifted.extend(b" \n");
    shifted.extend(&bytes[data..]);
    fs::write(file("0.codes.npy"), shifted).unwrap();
    check("misaligned codes");

    // Keys that are missing, wrong on purpose or unknown.
    edit_json(&file("metadata.json"), |metadata| {
        let metadata = metadata.as_object_mut().unwrap();
        for key in ["num_documents", "compress_only", "next_plaid_compatible", "embedding_dim"] {
            metadata.remove(key);
        }
        metadata.insert("frozen".into(), json!(true));
        metadata.insert("num_partitions".into(), json!(7));
    });
    check("missing and unknown keys");
    assert_eq!(Directory::open(&path).unwrap().metadata()["frozen"], true);
    edit_json(&file("metadata.json"), |metadata| metadata["num_documents"] = json!(0));
    check("no number of documents");

    // Merged files instead of chunks, with padding rows.
    let (mut codes, mut residuals) = (expected.0.clone(), expected.1.clone());
    codes.extend([0; 5]);
    residuals.extend([0; 5 * DIM / 2]);
    let rows = codes.len();
    let wide: Vec<i64> = codes.into_iter().map(i64::from).collect();
    write_npy(file("merged_codes.npy"), &Array::new(vec![rows], wide).unwrap()).unwrap();
    write_npy(file("merged_residuals.npy"), &Array::new(vec![rows, DIM / 2], residuals).unwrap()).unwrap();
    fs::remove_file(file("0.codes.npy")).unwrap();
    fs::remove_file(file("0.residuals.npy")).unwrap();
    check("merged files");

    // No inverted lists: they are made anyway, and missed only by others.
    fs::remove_file(file("ivf.npy")).unwrap();
    check("compress_only");
    assert_eq!(Directory::open(&path).unwrap().verify().unwrap().problems.len(), 1);
}

/// Codes of an error, by what is done to a good directory.
#[test]
fn damage_is_told() {
    let good = tempfile::tempdir().unwrap();
    let source = good.path().join("index");
    write(&source, 2);
    let arrays = |values: Vec<i64>| Array::new(vec![values.len()], values).unwrap();
    type Damage<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(&str, ErrorCode, Damage<'_>)> = vec![
        ("no metadata", ErrorCode::Io, Box::new(|p| fs::remove_file(p.join("metadata.json")).unwrap())),
        ("no JSON", ErrorCode::Format, Box::new(|p| fs::write(p.join("metadata.json"), "{").unwrap())),
        ("no chunk", ErrorCode::Io, Box::new(|p| fs::remove_file(p.join("doclens.0.json")).unwrap())),
        ("no codes", ErrorCode::Io, Box::new(|p| fs::remove_file(p.join("0.codes.npy")).unwrap())),
        ("no centroids", ErrorCode::Io, Box::new(|p| fs::remove_file(p.join("centroids.npy")).unwrap())),
        (
            "more chunks than there are",
            ErrorCode::Io,
            Box::new(|p| edit_json(&p.join("metadata.json"), |m| m["num_chunks"] = json!(u64::MAX))),
        ),
        (
            "3 bits",
            ErrorCode::Value,
            Box::new(|p| edit_json(&p.join("metadata.json"), |m| m["nbits"] = json!(3))),
        ),
        (
            "other counts",
            ErrorCode::Format,
            Box::new(|p| edit_json(&p.join("metadata.json"), |m| m["num_embeddings"] = json!(1))),
        ),
        (
            "negative lengths",
            ErrorCode::Format,
            Box::new(|p| edit_json(&p.join("doclens.0.json"), |l| l[0] = json!(-1))),
        ),
        (
            "binary",
            ErrorCode::Unsupported,
            Box::new(|p| edit_json(&p.join("metadata.json"), |m| m["binary"] = json!(true))),
        ),
        (
            "ternary",
            ErrorCode::Unsupported,
            Box::new(|p| edit_json(&p.join("metadata.json"), |m| m["ternary"] = json!(true))),
        ),
        (
            "pickles",
            ErrorCode::Unsupported,
            Box::new(|p| fs::rename(p.join("centroids.npy"), p.join("centroids.pt")).unwrap()),
        ),
        (
            "truncated",
            ErrorCode::Format,
            Box::new(|p| {
                let bytes = fs::read(p.join("0.residuals.npy")).unwrap();
                fs::write(p.join("0.residuals.npy"), &bytes[..bytes.len() - 1]).unwrap();
            }),
        ),
        (
            "codes beyond the centroids",
            ErrorCode::Index,
            Box::new(|p| {
                let mut codes = read_npy(p.join("0.codes.npy")).unwrap().to_i64("").unwrap();
                codes[17] = 24;
                write_npy(p.join("0.codes.npy"), &arrays(codes)).unwrap();
            }),
        ),
        (
            "negative codes",
            ErrorCode::Index,
            Box::new(|p| {
                let mut codes = read_npy(p.join("0.codes.npy")).unwrap().to_i64("").unwrap();
                codes[0] = -1;
                write_npy(p.join("0.codes.npy"), &arrays(codes)).unwrap();
            }),
        ),
        (
            "codes that are fewer",
            ErrorCode::Format,
            Box::new(|p| write_npy(p.join("0.codes.npy"), &arrays(vec![1, 2])).unwrap()),
        ),
        (
            "residuals of another width",
            ErrorCode::Shape,
            Box::new(|p| {
                let array = Array::new(vec![4, 3], vec![0u8; 12]).unwrap();
                write_npy(p.join("0.residuals.npy"), &array).unwrap();
            }),
        ),
        (
            "centroids that are not finite",
            ErrorCode::NonFinite,
            Box::new(|p| {
                let array = read_npy(p.join("centroids.npy")).unwrap();
                let mut values = array.to_f32("").unwrap();
                values[5] = f32::NAN;
                write_npy(p.join("centroids.npy"), &Array::new(array.shape().to_vec(), values).unwrap())
                    .unwrap();
            }),
        ),
        (
            "weights that are too few",
            ErrorCode::Shape,
            Box::new(|p| {
                write_npy(p.join("bucket_weights.npy"), &Array::new(vec![2], vec![0f32, 1.0]).unwrap())
                    .unwrap()
            }),
        ),
    ];
    for (what, code, damage) in cases {
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(&source).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        damage(directory.path());
        let error = read(directory.path()).map(|_| ()).expect_err(what);
        assert_eq!(error.code(), code, "{what}: {error}");
    }
    // What can be read although it is wrong is found by `verify`.
    let ivf = read_npy(source.join("ivf.npy")).unwrap().to_i64("").unwrap();
    let swapped: Vec<i64> = ivf.iter().rev().copied().collect();
    write_npy(source.join("ivf.npy"), &arrays(swapped)).unwrap();
    assert!(!Directory::open(&source).unwrap().verify().unwrap().problems.is_empty());
}

/// Bytes changed, cut off or repeated anywhere: an index or an error, and what is read can be searched.
#[test]
fn nothing_panics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    write(&path, 2);
    let engine = engine();
    let mut rng = ChaCha8Rng::seed_from_u64(77);
    let mut files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut readable = 0;
    for round in 0..600 {
        let file = &files[round % files.len()];
        let good = fs::read(file).unwrap();
        let mut bad = good.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bad.len());
            match rng.random_range(0..4) {
                0 => bad[at] = rng.random(),
                1 => bad[at] ^= 1 << rng.random_range(0..8),
                2 => bad.truncate(at.max(1)),
                _ => bad.extend_from_within(at..),
            }
        }
        fs::write(file, bad).unwrap();
        if let Ok((codec, segment)) = read(&path) {
            let _ = Directory::open(&path).unwrap().verify();
            let query = vec![0.3f32; 3 * codec.dim()];
            let q = Tokens::padded(&query, &[3, codec.dim()]).unwrap();
            Searched::all(&codec, &[&segment]).search(&engine, q, PlaidOptions::top_k(5)).unwrap();
            readable += 1;
        }
        fs::write(file, good).unwrap();
    }
    // Both kinds are met.
    assert!((50..590).contains(&readable), "{readable}");
}

/// fast-plaid's own indexes give fast-plaid's own results, and come back from a round trip byte for byte.
#[test]
fn fast_plaids_results() {
    let fixtures = std::env::var_os("MAXSIM_FIXTURES").map(|root| Path::new(&root).join("plaid"));
    let Some(fixtures) = fixtures.filter(|path| path.is_dir()) else {
        println!("1 skipped: MAXSIM_FIXTURES names no directory with indexes of fast-plaid");
        return;
    };
    let engine = engine();
    for entry in fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let expected: Vec<Vec<(u32, f32)>> =
            serde_json::from_str(&fs::read_to_string(path.join("expected_search.json")).unwrap()).unwrap();
        let (codec, segment) = read(&path).unwrap();
        let segments = [&segment];
        let queries = read_npy(path.join("queries_f32.npy")).unwrap();
        let (shape, ArrayData::F32(values)) = queries.into_parts() else {
            panic!("queries that are not f32")
        };
        let q = Tokens::padded(&values, &shape).unwrap();
        let found =
            Searched::all(&codec, &segments).search(&engine, q.clone(), PlaidOptions::top_k(20)).unwrap();
        let mut common = 0;
        for (hits, expected) in found.iter().zip(&expected) {
            assert_eq!(hits[0].document, expected[0].0);
            common += hits[..10].iter().filter(|h| expected[..10].iter().any(|e| e.0 == h.document)).count();
            for hit in hits {
                if let Some(e) = expected.iter().find(|e| e.0 == hit.document) {
                    assert!((hit.score - e.1).abs() <= 0.02, "{hit:?}, expected {e:?}");
                }
            }
        }
        assert!(common as f64 >= 0.98 * 10.0 * expected.len() as f64, "{common}");
        // Everything found is everything scored.
        let all =
            engine.maxsim_residual(q, segment.residual(&codec.as_codec()), Options::normalized()).unwrap();
        for (i, hits) in found.iter().enumerate() {
            for hit in hits {
                assert_eq!(hit.score, all.values[i * segment.documents() + hit.document as usize]);
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        exchange::write(&copy, &codec, &segments, None).unwrap();
        assert_eq!(contents([&read(&copy).unwrap().1]), contents([&segment]));
        assert!(Directory::open(&path).unwrap().verify().unwrap().problems.is_empty());
    }
}
