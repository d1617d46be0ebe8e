//! Text to token vectors for late interaction: [`Encoder`], and what implements it.
//!
//! * [`StaticEncoder`] looks tokens up in a table. One of 4 MB is embedded (feature `static-en`, on by default), so that
//!   search can be tried at once, on any machine and in a browser. It was distilled from an English sentence encoder;
//!   `assets/README.md` has its provenance and measured quality. It does not see context.
//! * `ColbertEncoder` (feature `colbert`) runs a ColBERT model, BERT or ModernBERT, from a folder; with the feature `hub`
//!   also by its id on the Hugging Face hub.
//!
//! ```
//! # #[cfg(feature = "static-en")] {
//! let encoder = maxsim_encode::StaticEncoder::embedded()?;
//! let query = encoder.encode_query("ships under water");
//! assert_eq!(query.tokens, ["ships", "under", "water"]);
//! assert_eq!(query.vectors.len(), 3 * encoder.dim());
//! # }
//! # Ok::<(), maxsim_core::Error>(())
//! ```
//!
//! # Why an own tokenizer and file format
//! Browsers load this crate. The `tokenizers` crate (0.22, pure-Rust features) works there, but makes 1.96 MB of
//! WebAssembly (665 KB compressed); the `safetensors` reader costs 92 KB, Unicode normalisation tables 120 KB. BERT's
//! uncased word-piece tokenizer is a page of code and a table made by asking the reference, and the model file is a
//! header and three arrays: 106 KB in all without the table (46 KB compressed). Tests hold the tokenizer to the
//! reference over every character of Unicode and random text.

#[cfg(feature = "colbert")]
mod colbert;
mod encoder;
mod fingerprint;
mod model;
mod static_encoder;
#[rustfmt::skip] // lines as the generator writes them
mod unicode_tables;
mod wordpiece;

#[cfg(feature = "demo-corpus")]
pub mod corpus;

#[cfg(feature = "colbert")]
pub use colbert::{ColbertEncoder, ColbertOptions};
pub use encoder::{Encoded, EncodedBatch, Encoder, Pieces};
pub use fingerprint::Fingerprint;
pub use static_encoder::{DEFAULT_MAX_TOKENS, StaticEncoder};

#[cfg(feature = "static-en")]
static STATIC_EN: &[u8] = include_bytes!("../assets/static-en-128.bin");
