//! The model file, and the table it holds.
//!
//! Little-endian: magic `MAXSIMSE`; `u32` version, dimension, tokens, bytes of the name, bytes of the vocabulary; name
//! (UTF-8); vocabulary (UTF-8, tokens separated by line feeds, in the order of their ids); `f32` query weight per token;
//! `i8` embeddings `[tokens, dimension]`. Only the direction of a row counts, so there is no scale per row.

use std::{borrow::Cow, ops::Range};

use maxsim_core::{Error, Result};

use crate::wordpiece::WordPiece;

const MAGIC: &[u8; 8] = b"MAXSIMSE";
const VERSION: u32 = 1;
/// Bounds what a header can make a caller allocate per token of text.
const MAX_DIM: usize = 4096;

/// A checked model: rows are not zero, weights are finite and not negative.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) dim: usize,
    pub(crate) words: WordPiece,
    /// One per token.
    pub(crate) weights: Vec<f32>,
    bytes: Cow<'static, [u8]>,
    embeddings: Range<usize>,
}

impl Model {
    pub(crate) fn parse(bytes: Cow<'static, [u8]>) -> Result<Self> {
        let mut reader = Reader { bytes: &bytes, at: 0 };
        if reader.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(malformed("this is no static encoder (wrong magic)"));
        }
        let version = reader.u32("version")?;
        if version != VERSION as usize {
            return Err(Error::Version {
                what: WHAT.into(),
                found: version.to_string(),
                supported: VERSION.to_string(),
            });
        }
        let dim = reader.u32("dimension")?;
        let tokens = reader.u32("token count")?;
        let name_len = reader.u32("name length")?;
        let vocabulary_len = reader.u32("vocabulary length")?;
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(malformed(format!("dimension is {dim}, not one of 1 to {MAX_DIM}")));
        }
        let name = reader.text(name_len, "name")?.to_owned();
        let vocabulary = reader.text(vocabulary_len, "vocabulary")?;
        let weights: Vec<f32> = reader
            .take(tokens.saturating_mul(4), "weights")?
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let start = reader.at;
        let rows = reader.take(tokens.saturating_mul(dim), "embeddings")?;
        let embeddings = start..reader.at;

        if reader.at != bytes.len() {
            return Err(malformed(format!("{} bytes too many", bytes.len() - reader.at)));
        }
        if vocabulary.split('\n').count() != tokens {
            return Err(malformed(format!("the vocabulary does not have {tokens} tokens")));
        }
        let Some(words) = WordPiece::new(vocabulary.split('\n')) else {
            return Err(malformed("the vocabulary has an empty or repeated token"));
        };
        if let Some(id) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(malformed(format!("the weight of token {id} is {}", weights[id])));
        }
        if let Some(id) = rows.chunks_exact(dim).position(|row| row.iter().all(|&x| x == 0)) {
            return Err(malformed(format!("the embedding of token {id} is zero")));
        }
        Ok(Self { name, dim, words, weights, bytes, embeddings })
    }

    /// The file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends the unit vector of a token, times `scale`.
    pub(crate) fn push_vector(&self, id: u32, scale: f32, out: &mut Vec<f32>) {
        let rows = &self.bytes[self.embeddings.clone()];
        let row = &rows[id as usize * self.dim..][..self.dim];
        let value = |&byte: &u8| f32::from(byte.cast_signed());
        // The sum of at most 4096 squares of int8 is an integer below 2^26; in f64 it is exact, in any order.
        let square: f64 = row.iter().map(|b| f64::from(value(b)).powi(2)).sum();
        let factor = scale / square.sqrt() as f32;
        out.extend(row.iter().map(|b| value(b) * factor));
    }
}

const WHAT: &str = "static encoder model";

fn malformed(problem: impl Into<String>) -> Error {
    Error::format(WHAT, problem)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or_else(|| {
            malformed(format!("it ends within {what}: {len} bytes expected, {} there", rest.len()))
        })?;
        self.at += len;
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<usize> {
        let b = self.take(4, what)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
    }

    fn text(&mut self, len: usize, what: &str) -> Result<&'a str> {
        std::str::from_utf8(self.take(len, what)?).map_err(|_| malformed(format!("the {what} is not UTF-8")))
    }
}
