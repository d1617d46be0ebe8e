//! Calls that are no operators: uploads, packing, quantisers.

use maxsim_core::{
    Corpus, CorpusOptions, Engine, Error, PackedPairs, Quantized, ResidualCodes, Result, ScaleMode, Tensor,
    pack_padded, quantize_fp8, quantize_int8,
};

use crate::array::Held;
use crate::input::{RawTensor, RawTokens, scales};
use crate::operation::renamed;
use crate::output::{RawPacked, check_data, check_len, fitting};
use crate::residual::{RawCodec, RawResidual};

/// `RawCorpusOptions` of `native.ts`.
#[derive(Default)]
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawCorpusOptions {
    pub storage: Option<String>,
    pub normalize: Option<bool>,
    pub validate_finite: Option<bool>,
}

/// `RawQuantized` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawQuantized {
    pub values: Tensor,
    pub scales: Vec<f32>,
}

/// A number of CPU threads that an engine can be asked for.
///
/// # Errors
/// `ERR_VALUE` about `threads`.
pub fn threads(count: f64) -> Result<usize> {
    // More threads than a u16 counts would only fail later and worse.
    if count.fract() == 0.0 && (1.0..=f64::from(u16::MAX)).contains(&count) {
        return Ok(count as usize);
    }
    let got =
        if count.fract() == 0.0 { (count as i64).to_string() } else { "a number that is not whole".into() };
    Err(Error::value("threads", "a whole number from 1 to 65535", got))
}

/// Uploads documents.
///
/// # Errors
/// As [`Engine::corpus`].
pub fn upload(engine: &Engine, documents: &RawTokens, options: &RawCorpusOptions) -> Result<Corpus> {
    let defaults = CorpusOptions::default();
    let options = CorpusOptions {
        storage: options.storage.as_deref().map(str::parse).transpose()?,
        normalize: options.normalize.unwrap_or(defaults.normalize),
        validate_finite: options.validate_finite.unwrap_or(defaults.validate_finite),
    };
    let corpus = engine.corpus(documents.tokens()?, options);
    corpus.map_err(|error| error.map_argument(|argument| renamed(argument, "q", "documents")))
}

/// Uploads residual documents.
///
/// # Errors
/// As [`Engine::residual_corpus`].
pub fn upload_residual(engine: &Engine, documents: &RawResidual) -> Result<Corpus> {
    engine.residual_corpus(documents.documents()?)
}

/// Packs padded reranking input.
///
/// # Errors
/// As [`pack_padded`].
pub fn pack(q: &RawTokens, d: &RawTokens) -> Result<RawPacked> {
    let pairs: Result<PackedPairs> = pack_padded(&q.tokens()?, &d.tokens()?);
    RawPacked::new(pairs.map_err(|e| e.map_argument(|argument| renamed(argument, &q.name, &d.name)))?)
}

/// Codes and residuals of vectors.
///
/// # Errors
/// As [`Engine::quantize_residual`].
pub fn encode_residual(
    engine: &Engine,
    x: &RawTensor,
    codec: &RawCodec,
    cutoffs: &[f32],
) -> Result<ResidualCodes> {
    let (vectors, checked) = (x.tensor()?, codec.codec()?);
    residual_codes(x, codec, engine.quantize_residual(&vectors, cutoffs, &checked))
}

/// [`encode_residual`] for those who may only await.
///
/// # Errors
/// As [`encode_residual`].
pub async fn encode_residual_async(
    engine: &Engine,
    x: &RawTensor,
    codec: &RawCodec,
    cutoffs: &[f32],
) -> Result<ResidualCodes> {
    let (vectors, checked) = (x.tensor()?, codec.codec()?);
    residual_codes(x, codec, engine.quantize_residual_async(&vectors, cutoffs, &checked).await)
}

fn residual_codes(x: &RawTensor, codec: &RawCodec, codes: Result<ResidualCodes>) -> Result<ResidualCodes> {
    let encoded = codes.map_err(|error| {
        error.map_argument(|argument| match argument {
            "Q" => x.name.clone().into(),
            "D" | "centroids" => codec.field("centroids"),
            other => other.to_owned().into(),
        })
    })?;
    check_len::<u8>("residuals", encoded.residuals.len())?;
    check_len::<f32>("codes", encoded.codes.len())?;
    Ok(encoded)
}

/// Quantises to `dtype`, `"fp8"` or `"int8"`, with a scale per `scale`, `"token"` or `"tensor"`.
///
/// # Errors
/// As the quantisers of `maxsim`.
pub fn quantize(x: &RawTensor, dtype: &str, scale: Option<&str>) -> Result<RawQuantized> {
    let mode = scale.map_or(Ok(ScaleMode::default()), str::parse)?;
    let to = match dtype {
        "fp8" => quantize_fp8,
        "int8" => quantize_int8,
        other => return Err(Error::value("dtype", "fp8 or int8", format!("{other:?}"))),
    };
    let Quantized { values, scales, .. } = to(&x.tensor()?, mode)?;
    check_data("data", values.data())?;
    Ok(RawQuantized { values, scales: fitting("scales", scales)? })
}

/// Values of a quantised array in f32.
///
/// # Errors
/// As [`maxsim_core::dequantize`], and `ERR_LIMIT` for more than arrays hold.
pub fn dequantize(x: &RawTensor, given: &Held<f32>) -> Result<Tensor> {
    let tensor = x.tensor()?;
    check_len::<f32>("x", tensor.data().len())?;
    maxsim_core::dequantize(&tensor, scales(given.as_ref())).map_err(|error| {
        error.map_argument(|argument| match argument {
            "scales" => "x.scales".into(),
            other => other.to_owned().into(),
        })
    })
}

/// Vectors of residual documents in f32: `[Nd, L, d]` padded, `[T, d]` packed.
///
/// # Errors
/// Those of the documents, and `ERR_LIMIT` for more than arrays hold.
pub fn decode_residual(d: &RawResidual, normalize: Option<bool>) -> Result<Tensor> {
    let documents = d.documents()?;
    let (slots, dim) = (documents.sequences().slots(), documents.codec().dim());
    check_len::<f32>("d", slots.saturating_mul(dim))?;
    let vectors = maxsim_core::decode_residual(&documents, normalize.unwrap_or(true));
    let shape = [documents.sequences().shape(), vec![dim]].concat();
    Tensor::new(vectors.into_data(), shape)
}
