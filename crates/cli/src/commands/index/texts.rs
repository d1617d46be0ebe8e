//! Texts as documents of an index.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use maxsim::plaid::{Row, Value};
use maxsim::{Error, Result, Tokens, TokensBuf};
use maxsim_encode::{Encoder, Fingerprint};

use crate::input::{Text, read_texts};

/// Column of the text in the metadata.
pub(super) const TEXT: &str = "text";
/// Column of where the text came from.
pub(super) const SOURCE: &str = "source";

/// Texts and what encodes them. A build goes through its documents twice; encoding is the slow part, so that what was
/// encoded is kept in a temporary file.
pub(super) struct Texts {
    texts: Vec<Text>,
    encoder: Arc<dyn Encoder>,
    kept: RefCell<Option<Kept>>,
}

/// Vectors in a temporary file.
struct Kept {
    file: File,
    /// The document they begin with.
    first: usize,
    /// Token offsets of the documents; one more than there are.
    offsets: Vec<u64>,
}

impl Texts {
    /// Reads the texts of a file or directory.
    pub(super) fn open(path: &Path, encoder: Arc<dyn Encoder>) -> anyhow::Result<Self> {
        Ok(Self { texts: read_texts(path)?, encoder, kept: RefCell::new(None) })
    }

    /// Number of texts.
    pub(super) fn count(&self) -> usize {
        self.texts.len()
    }

    /// Tells these texts and their encoder from others.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = Fingerprint::new(self.encoder.fingerprint());
        for text in &self.texts {
            hash.add(text.source.as_bytes());
            hash.add(text.text.as_bytes());
        }
        hash.finish()
    }

    /// What search shows of a document.
    pub(super) fn row(&self, document: usize) -> Row {
        let Text { text, source } = &self.texts[document];
        vec![(SOURCE.into(), Value::Text(source.clone())), (TEXT.into(), Value::Text(text.clone()))]
    }

    /// Vectors of the documents `first..end`.
    pub(super) fn tokens(&self, first: usize, end: usize) -> Result<TokensBuf> {
        let mut kept = self.kept.borrow_mut();
        if let Some(kept) = kept.as_mut()
            && kept.first <= first
            && end < kept.first + kept.offsets.len()
        {
            return kept.read(first, end, self.encoder.dim());
        }
        let texts: Vec<&str> = self.texts[first..end].iter().map(|text| text.text.as_str()).collect();
        let batch = self.encoder.encode_documents(&texts, &mut |_| ())?;
        // A build that is gone on with begins in the middle.
        let kept = match &mut *kept {
            Some(kept) if kept.first + kept.offsets.len() - 1 == first => kept,
            other => other.insert(Kept::new(first)?),
        };
        kept.append(&batch.vectors, &batch.offsets)?;
        Ok(Tokens::packed(&batch.vectors, batch.dim, &batch.offsets[..])?.to_buf())
    }
}

impl Kept {
    fn new(first: usize) -> Result<Self> {
        Ok(Self { file: tempfile::tempfile().map_err(fail)?, first, offsets: vec![0] })
    }

    fn append(&mut self, vectors: &[f32], offsets: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.file.seek(SeekFrom::End(0)).and_then(|_| self.file.write_all(&bytes)).map_err(fail)?;
        let start = self.offsets.last().copied().unwrap_or(0);
        self.offsets.extend(offsets[1..].iter().map(|&offset| start + u64::from(offset)));
        Ok(())
    }

    fn read(&mut self, first: usize, end: usize, dim: usize) -> Result<TokensBuf> {
        let offsets = &self.offsets[first - self.first..=end - self.first];
        let row = 4 * dim as u64;
        let mut bytes = vec![0; ((offsets[end - first] - offsets[0]) * row) as usize];
        self.file
            .seek(SeekFrom::Start(offsets[0] * row))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(fail)?;
        let vectors: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let offsets: Vec<u32> = offsets.iter().map(|&offset| (offset - offsets[0]) as u32).collect();
        Ok(Tokens::packed(&vectors, dim, &offsets[..])?.to_buf())
    }
}

fn fail(error: std::io::Error) -> Error {
    Error::io("temporary file of encoded texts", error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use maxsim_encode::{Encoded, EncodedBatch, Pieces};

    use super::*;

    /// A token per byte, and a count of texts encoded.
    struct Bytes(AtomicUsize);

    impl Encoder for Bytes {
        fn name(&self) -> &str {
            "bytes"
        }

        fn dim(&self) -> usize {
            2
        }

        fn fingerprint(&self) -> u64 {
            7
        }

        fn encode_queries(&self, _: &[&str]) -> Result<Vec<Encoded>> {
            unreachable!("documents only")
        }

        fn encode_documents(&self, texts: &[&str], _: &mut dyn FnMut(usize)) -> Result<EncodedBatch> {
            self.0.fetch_add(texts.len(), Ordering::Relaxed);
            let mut batch = EncodedBatch { offsets: vec![0], dim: 2, ..Default::default() };
            for text in texts {
                batch.vectors.extend(text.bytes().flat_map(|b| [f32::from(b), 1.0]));
                batch.offsets.push((batch.vectors.len() / 2) as u32);
            }
            Ok(batch)
        }

        fn document_pieces(&self, _: &str) -> Result<Pieces> {
            unreachable!("vectors only")
        }
    }

    #[test]
    fn texts_are_encoded_once() {
        let encoder = Arc::new(Bytes(AtomicUsize::new(0)));
        let text = |text: &str| Text { text: text.into(), source: String::new() };
        let texts = ["ab", "", "cde", "f", "gh"].map(text).into();
        let texts = Texts { texts, encoder: encoder.clone(), kept: RefCell::new(None) };
        let pass = |first: usize| {
            let starts = (first..5).step_by(2);
            let batches = starts.map(|at| texts.tokens(at, (at + 2).min(5)).unwrap());
            batches.collect::<Vec<_>>()
        };
        let all = pass(0);
        assert_eq!(rows(&all[1]), (vec![99.0, 1.0, 100.0, 1.0, 101.0, 1.0, 102.0, 1.0], vec![0, 3, 4]));
        assert_eq!(encoder.0.load(Ordering::Relaxed), 5);
        let same = |a: &[TokensBuf], b: &[TokensBuf]| a.iter().map(rows).eq(b.iter().map(rows));
        assert!(same(&all, &pass(0)));
        assert_eq!(encoder.0.load(Ordering::Relaxed), 5, "the second pass encodes nothing");
        // Whoever begins in the middle gets what stands there.
        *texts.kept.borrow_mut() = None;
        assert!(same(&all[1..], &pass(2)));
        assert!(same(&all, &pass(0)));
        assert!(same(&all[2..], &pass(4)));
    }

    fn rows(tokens: &TokensBuf) -> (Vec<f32>, Vec<u32>) {
        let tokens = tokens.as_tokens();
        let offsets = (0..tokens.count()).map(|i| tokens.rows(i).end as u32);
        let vectors = (0..tokens.slots()).flat_map(|row| tokens.vector(row));
        (vectors.collect(), std::iter::once(0).chain(offsets).collect())
    }
}
