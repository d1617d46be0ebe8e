//! The file readers against files of the formats' own implementations (`fuzz/seeds`) and random mutations of them: what
//! fuzzing does without end, for a moment and in every run.

use std::path::{Path, PathBuf};

use maxsim_formats::{Array, ArrayData, SafeTensors, npy, read_npy};
use maxsim_testkit::cases::Random;

fn seeds(folder: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    files
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// 0, 1, 2, …, or what the file is named after.
fn check_counts(name: &str, array: &Array) {
    let expected: Vec<f64> = match name {
        "good_scalar" => vec![7.0],
        "good_bool" => (0..array.len()).map(|i| (i % 2) as f64).collect(),
        _ => (0..array.len()).map(|i| i as f64).collect(),
    };
    assert_eq!(array.to_f64(), expected, "{name}");
}

#[test]
fn npy_seeds() {
    for path in seeds("npy") {
        let name = name(&path);
        match read_npy(&path) {
            Ok(array) => {
                assert!(name.starts_with("good_"), "{name} was accepted");
                check_counts(&name, &array);
                let kind = array.element_type().name();
                let expected = name.strip_prefix("good_").unwrap();
                if ["f8", "f4", "f2", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"].contains(&expected) {
                    let (letter, size) = expected.split_at(1);
                    let bits = size.parse::<usize>().unwrap() * 8;
                    assert_eq!(kind, format!("{letter}{bits}"));
                    assert_eq!(array.shape(), [2, 3]);
                } else if let "bool" | "bf16" = expected {
                    assert_eq!(kind, expected);
                }
            }
            Err(error) => {
                assert!(name.starts_with("bad_"), "{error}");
                assert!(error.to_string().contains(&name), "an error names its file: {error}");
                let code = error.code().as_str();
                assert!(["ERR_FORMAT", "ERR_DTYPE"].contains(&code), "{name}: {error}");
            }
        }
    }
    let fortran = seeds("npy").into_iter().find(|path| name(path) == "good_fortran").unwrap();
    assert_eq!(read_npy(fortran).unwrap().shape(), [2, 3, 4]);
}

#[test]
fn safetensors_seeds() {
    for path in seeds("safetensors") {
        let name = name(&path);
        match SafeTensors::open(&path) {
            Ok(file) => {
                assert!(name.starts_with("good_"), "{name} was accepted");
                for tensor in file.names() {
                    check_counts(&name, &file.tensor(tensor).unwrap());
                }
                if name == "good_types" {
                    assert_eq!(file.names().len(), 8);
                    assert_eq!(file.metadata()["key"], "value");
                    assert!(matches!(file.tensor("bfloat16").unwrap().data(), ArrayData::BF16(_)));
                    assert_eq!(file.tensor("none").unwrap().shape(), [0, 3]);
                }
            }
            Err(error) => {
                assert!(name.starts_with("bad_"), "{error}");
                let code = error.code().as_str();
                assert!(["ERR_FORMAT", "ERR_LIMIT"].contains(&code), "{name}: {error}");
            }
        }
    }
}

/// One to four edits: bytes changed, removed, repeated or inserted, numbers in the header replaced by extreme ones, the end
/// cut off.
fn mutate(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] = random.bits() as u8,
            2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.insert(at, random.bits() as u8),
            5 => {
                let piece = bytes[at..].iter().take(random.below(20)).copied().collect::<Vec<_>>();
                bytes.splice(at..at, piece);
            }
            _ => {
                // A number of the header.
                let Some(start) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else { continue };
                let end = (start..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
                let numbers = ["0", "1", "4294967296", "9223372036854775808", "18446744073709551615", "-1"];
                bytes.splice(start..end, numbers[random.below(numbers.len())].bytes());
            }
        }
    }
    bytes
}

/// Neither reader panics, and what is accepted lies within the bytes given.
#[test]
fn mutations() {
    let mut random = Random::named("mutations");
    let mut accepted = 0;
    for _ in 0..200 {
        for path in seeds("npy") {
            let bytes = mutate(&mut random, &std::fs::read(&path).unwrap());
            if let Ok(array) = npy::from_bytes(&bytes) {
                accepted += 1;
                assert!(array.len() <= bytes.len(), "{}", name(&path));
                let written = npy::to_bytes(&array).unwrap();
                let again = npy::from_bytes(&written).unwrap();
                assert_eq!(again.shape(), array.shape());
                assert_eq!(npy::to_bytes(&again).unwrap(), written, "{}", name(&path));
            }
        }
        for path in seeds("safetensors") {
            let bytes = mutate(&mut random, &std::fs::read(&path).unwrap());
            let length = bytes.len();
            if let Ok(file) = SafeTensors::from_bytes(bytes) {
                accepted += 1;
                let sizes = file.names().map(|tensor| file.view(tensor).unwrap().bytes().len());
                assert!(sizes.sum::<usize>() <= length, "{}", name(&path));
                for tensor in file.names() {
                    let code = file.tensor(tensor).map_or_else(|error| error.code().as_str(), |_| "ok");
                    assert!(["ok", "ERR_DTYPE"].contains(&code), "{}: {code}", name(&path));
                }
            }
        }
    }
    // Mutations that are all refused at the first byte would test nothing.
    assert!(accepted > 100, "only {accepted} mutations were accepted");
}
