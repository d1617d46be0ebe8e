//! [`StaticEncoder`].

use std::{borrow::Cow, fmt, sync::Arc};

use maxsim_core::Result;

use crate::encoder::{Encoded, EncodedBatch, Encoder, Pieces};
use crate::fingerprint::Fingerprint;
use crate::model::Model;

/// Tokens that a text is cut to unless [`StaticEncoder::with_max_tokens`] says otherwise.
pub const DEFAULT_MAX_TOKENS: usize = 512;

/// Text to token vectors by table look-up: the same token has the same vector wherever it stands.
///
/// Document vectors have unit length. Query vectors are as long as the token is important, so that plain MaxSim over
/// them weighs `submarine` more than `the`. Words that the vocabulary cannot spell (emoji, most scripts other than
/// Latin) give no token; a text without any token gives no vector, which is not an error.
///
/// A clone shares the table.
#[derive(Clone)]
pub struct StaticEncoder {
    model: Arc<Model>,
    max_tokens: usize,
}

impl StaticEncoder {
    /// The English model within this crate, 128 dimensions; read on the first call.
    ///
    /// # Errors
    /// Those of [`Self::from_bytes`], which would be a defect of this build.
    #[cfg(feature = "static-en")]
    pub fn embedded() -> Result<&'static Self> {
        static ENCODER: std::sync::OnceLock<Result<StaticEncoder>> = std::sync::OnceLock::new();
        ENCODER
            .get_or_init(|| StaticEncoder::parse(Cow::Borrowed(crate::STATIC_EN)))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// A model from the bytes of a model file; the format is described in `assets/README.md` of this crate.
    ///
    /// # Errors
    /// [`Error::Format`](maxsim_core::Error::Format) if the bytes are not such a file,
    /// [`Error::Version`](maxsim_core::Error::Version) if they are a later one.
    pub fn from_bytes(model: &[u8]) -> Result<Self> {
        Self::from_vec(model.to_vec())
    }

    /// [`from_bytes`](Self::from_bytes) without the copy.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn from_vec(model: Vec<u8>) -> Result<Self> {
        Self::parse(Cow::Owned(model))
    }

    fn parse(bytes: Cow<'static, [u8]>) -> Result<Self> {
        Ok(Self { model: Arc::new(Model::parse(bytes)?), max_tokens: DEFAULT_MAX_TOKENS })
    }

    /// The same encoder with another limit: what a text has beyond its first `max_tokens` tokens is ignored.
    #[must_use]
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.model.dim
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// A document: unit vectors.
    pub fn encode_document(&self, text: &str) -> Encoded {
        self.encode(text, |_| 1.0)
    }

    /// A query: unit vectors times the importance of their token, a number above 0 and at most 1 in the embedded model.
    pub fn encode_query(&self, text: &str) -> Encoded {
        self.encode(text, |id| self.model.weights[id as usize])
    }

    /// Many documents. `progress` is called after each with how many are done.
    pub fn encode_documents<S: AsRef<str>>(
        &self,
        texts: &[S],
        mut progress: impl FnMut(usize),
    ) -> EncodedBatch {
        let mut batch = EncodedBatch { vectors: Vec::new(), offsets: vec![0], dim: self.dim() };
        let mut tokens = 0;
        for (done, text) in (1..).zip(texts) {
            self.each_token(text.as_ref(), |id, _, _| {
                self.model.push_vector(id, 1.0, &mut batch.vectors);
                tokens += 1;
            });
            batch.offsets.push(tokens);
            progress(done);
        }
        batch
    }

    fn pieces(&self, text: &str) -> Pieces {
        let mut pieces = Pieces::default();
        self.each_token(text, |_, start, end| {
            pieces.tokens.push(text[start..end].to_owned());
            pieces.spans.push((start as u32, end as u32));
        });
        pieces
    }

    fn encode(&self, text: &str, scale: impl Fn(u32) -> f32) -> Encoded {
        let mut encoded = Encoded::default();
        self.each_token(text, |id, start, end| {
            encoded.tokens.push(text[start..end].to_owned());
            encoded.spans.push((start as u32, end as u32));
            self.model.push_vector(id, scale(id), &mut encoded.vectors);
        });
        encoded
    }

    fn each_token(&self, text: &str, mut visit: impl FnMut(u32, usize, usize)) {
        // Spans are 32-bit.
        let text = &text[..text.floor_char_boundary(u32::MAX as usize)];
        let mut left = self.max_tokens;
        if left == 0 {
            return;
        }
        self.model.words.tokenize(text, |piece| {
            if let Some(id) = piece.id {
                visit(id, piece.start, piece.end);
                left -= 1;
            }
            left > 0
        });
    }
}

impl Encoder for StaticEncoder {
    fn name(&self) -> &str {
        self.name()
    }

    fn dim(&self) -> usize {
        self.dim()
    }

    fn fingerprint(&self) -> u64 {
        let mut hash = Fingerprint::new(0);
        hash.add(self.model.bytes());
        hash.add(&(self.max_tokens as u64).to_le_bytes());
        hash.finish()
    }

    fn model_fingerprint(&self) -> u64 {
        let mut hash = Fingerprint::new(0);
        hash.add(self.model.bytes());
        hash.finish()
    }

    fn encode_queries(&self, texts: &[&str]) -> Result<Vec<Encoded>> {
        Ok(texts.iter().map(|text| self.encode_query(text)).collect())
    }

    fn encode_documents(&self, texts: &[&str], progress: &mut dyn FnMut(usize)) -> Result<EncodedBatch> {
        Ok(self.encode_documents(texts, progress))
    }

    fn document_pieces(&self, text: &str) -> Result<Pieces> {
        Ok(self.pieces(text))
    }
}

impl fmt::Debug for StaticEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticEncoder")
            .field("name", &self.name())
            .field("dim", &self.dim())
            .field("tokens", &self.model.weights.len())
            .field("max_tokens", &self.max_tokens)
            .finish()
    }
}
