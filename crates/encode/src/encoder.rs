//! [`Encoder`], and what it makes of texts.

use maxsim_core::Result;

/// One text as token vectors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded {
    /// The text of each token as the input spells it: word pieces, e.g. `water`, or `sub`, `mers`, `ible`. Tokens that a
    /// model adds have their name, e.g. `[CLS]`.
    pub tokens: Vec<String>,
    /// The UTF-8 byte range of the input that each token stands for; an empty one for tokens that a model adds.
    pub spans: Vec<(u32, u32)>,
    /// Row-major `[tokens, dim]`.
    pub vectors: Vec<f32>,
}

/// What the rows of an encoded text stand for: [`Encoded`] without vectors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// As [`Encoded::tokens`].
    pub tokens: Vec<String>,
    /// As [`Encoded::spans`].
    pub spans: Vec<(u32, u32)>,
}

/// Several texts as token vectors, one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EncodedBatch {
    /// Row-major `[offsets[n], dim]`.
    pub vectors: Vec<f32>,
    /// `n + 1` token offsets: text `i` has the rows `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<u32>,
    /// Length of a vector.
    pub dim: usize,
}

/// Text to token vectors for plain MaxSim, without normalisation: documents have unit length, and queries have unit
/// length or, in encoders that know what matters, the importance of their token.
pub trait Encoder: Send + Sync {
    /// The model's name, for people.
    fn name(&self) -> &str;

    /// Length of a vector.
    fn dim(&self) -> usize;

    /// Identity of the model and of every setting that has a say in its vectors, for the keys of caches: encoders with
    /// the same fingerprint make the same vectors of the same text.
    fn fingerprint(&self) -> u64;

    /// Identity of the model alone, without the lengths that texts are cut to: vectors of encoders that agree in it can be
    /// compared, so that it says whether a query may meet an index.
    fn model_fingerprint(&self) -> u64 {
        self.fingerprint()
    }

    /// Queries, in their order.
    ///
    /// # Errors
    /// What the model refuses: [`Error::Limit`](maxsim_core::Error::Limit) for more than 2³² tokens or bytes of a text,
    /// [`Error::Format`](maxsim_core::Error::Format) if its files turn out to contradict each other.
    fn encode_queries(&self, texts: &[&str]) -> Result<Vec<Encoded>>;

    /// Documents, in their order. `progress` is called now and then with how many are done, in the end with all.
    ///
    /// # Errors
    /// Those of [`Self::encode_queries`].
    fn encode_documents(&self, texts: &[&str], progress: &mut dyn FnMut(usize)) -> Result<EncodedBatch>;

    /// What the rows of one document stand for, to show which words matched; computes no vector.
    ///
    /// # Errors
    /// Those of [`Self::encode_queries`].
    fn document_pieces(&self, text: &str) -> Result<Pieces>;
}
