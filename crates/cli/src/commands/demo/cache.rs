//! Encoded glosses in the user's cache directory: made by the first run, read by the next.
//!
//! File, little-endian: magic `MAXSIMDC`; `u64` key; `u32` dimension, documents, tokens; `u32` offsets
//! `[documents + 1]`; f16 vectors `[tokens, dimension]`; `u64` hash of all before. The key, which stands in the file's
//! name too, says which encoder, which texts and which version of the format: a new version of any of them makes a new
//! file.

use std::io::Write;
use std::path::{Path, PathBuf};

use maxsim::{DataBuf, f16};
use maxsim_encode::{Encoder, Fingerprint};

use crate::operand::{Layout, Operand};

const MAGIC: &[u8; 8] = b"MAXSIMDC";
/// Raised whenever the layout of the file changes.
const VERSION: u64 = 1;

/// What a cache file is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    /// The key of `texts` encoded by `encoder`.
    pub(super) fn new(encoder: &dyn Encoder, texts: &[&str]) -> Self {
        let mut hash = Fingerprint::new(VERSION);
        hash.add(&encoder.fingerprint().to_le_bytes());
        for text in texts {
            hash.add(text.as_bytes());
        }
        Self(hash.finish())
    }

    /// Name of the file.
    pub(super) fn path(self, directory: &Path) -> PathBuf {
        directory.join(format!("demo-v{VERSION}-{:016x}.bin", self.0))
    }
}

/// Documents from a cache file; `Err` says what is wrong with it.
pub(super) fn read(path: &Path, key: Key) -> Result<Operand, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let (content, stored) = bytes.split_last_chunk::<8>().ok_or("too short")?;
    let mut reader = Reader(content);
    if reader.take(8)? != MAGIC || reader.take(8)? != key.0.to_le_bytes() {
        return Err("not the expected file".into());
    }
    if hash(content) != u64::from_le_bytes(*stored) {
        return Err("damaged".into());
    }
    let [dim, documents, tokens] = [reader.u32()?, reader.u32()?, reader.u32()?];
    let offsets = reader.take(4 * (documents + 1))?.as_chunks::<4>().0;
    let offsets = offsets.iter().map(|&b| u32::from_le_bytes(b)).collect();
    let vectors = reader.take(2 * tokens * dim)?.as_chunks::<2>().0;
    let vectors = vectors.iter().map(|&b| f16::from_le_bytes(b)).collect();
    if !reader.0.is_empty() {
        return Err("too long".into());
    }
    let operand = operand(vectors, offsets, dim);
    operand.tokens().map_err(|error| error.to_string())?;
    Ok(operand)
}

/// Writes a cache file, whole or not at all: it is renamed into place when it is complete.
pub(super) fn write(path: &Path, key: Key, operand: &Operand) -> std::io::Result<()> {
    let (DataBuf::F16(vectors), Layout::Packed { offsets }) = (&operand.data, &operand.layout) else {
        return Err(std::io::Error::other("only packed f16 documents are cached"));
    };
    let mut bytes = Vec::with_capacity(64 + 4 * offsets.len() + 2 * vectors.len());
    bytes.extend(MAGIC);
    bytes.extend(key.0.to_le_bytes());
    for number in [operand.dim, offsets.len() - 1, vectors.len() / operand.dim] {
        bytes.extend((number as u32).to_le_bytes());
    }
    bytes.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
    bytes.extend(vectors.iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend(hash(&bytes).to_le_bytes());

    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Packed f16 documents.
pub(super) fn operand(vectors: Vec<f16>, offsets: Vec<u32>, dim: usize) -> Operand {
    Operand { data: DataBuf::F16(vectors), dim, layout: Layout::Packed { offsets }, mask: None, scales: None }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<usize, String> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = Fingerprint::new(VERSION);
    hash.add(bytes);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use maxsim_encode::StaticEncoder;

    use super::*;

    fn sample() -> Operand {
        operand((0..12).map(|x| f16::from_f32(x as f32)).collect(), vec![0, 1, 3], 4)
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = Key(7).path(directory.path());
        write(&path, Key(7), &sample()).unwrap();
        let back = read(&path, Key(7)).unwrap();
        assert_eq!(back.data, sample().data);
        assert_eq!(back.tokens().unwrap().offsets(), sample().tokens().unwrap().offsets());
        assert!(read(&path, Key(8)).is_err(), "another key");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = Key(7).path(directory.path());
        write(&path, Key(7), &sample()).unwrap();
        let good = std::fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(read(&path, Key(7)).is_err(), "byte {position} changed");
            std::fs::write(&path, &good[..position]).unwrap();
            assert!(read(&path, Key(7)).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn texts_and_their_borders_count() {
        let encoder = StaticEncoder::embedded().unwrap();
        let key = Key::new(encoder, &["a ship", "water"]);
        assert_eq!(key, Key::new(encoder, &["a ship", "water"]));
        assert_ne!(key, Key::new(encoder, &["a ship", "watex"]));
        assert_ne!(key, Key::new(encoder, &["a shipw", "ater"]));
        assert_ne!(key, Key::new(&encoder.clone().with_max_tokens(2), &["a ship", "water"]));
    }
}
