//! Quantisers: fp8, int8 and residual codes. Bytes and scales are the same on every backend.

use super::residual::Codec;
use crate::dtype::{DataBuf, E4M3, Element};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorRef};
use crate::tokens::Scales;

/// What shares a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum ScaleMode {
    /// The whole tensor.
    PerTensor,
    /// Each token vector.
    #[default]
    PerToken,
}

impl std::str::FromStr for ScaleMode {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "tensor" => Ok(Self::PerTensor),
            "token" => Ok(Self::PerToken),
            other => Err(Error::value("scale", "one of tensor, token", format!("{other:?}"))),
        }
    }
}

/// Quantised vectors with their scales.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// e4m3 or int8, in the input's shape.
    pub values: Tensor,
    /// One per tensor or one per token.
    pub scales: Vec<f32>,
    /// What shares a scale.
    pub mode: ScaleMode,
}

impl Quantized {
    /// The scales as [`Tokens::with_scales`](crate::Tokens::with_scales) takes them.
    pub fn scales(&self) -> Scales<'_> {
        match self.mode {
            ScaleMode::PerTensor => Scales::PerTensor(self.scales[0]),
            ScaleMode::PerToken => Scales::PerToken(&self.scales),
        }
    }
}

/// `quantize_fp8`: e4m3 bytes of `x / s` with `s = max(|x|max, 1e-6) / 448`, nearest-even, saturating.
///
/// `x` is `[.., d]`, f32, f16 or bf16; a scale per tensor or per vector.
///
/// # Errors
/// `ERR_DTYPE` for quantised input, `ERR_SHAPE` for rank 0, `ERR_NON_FINITE` naming the first NaN or infinity.
pub fn quantize_fp8(x: &TensorRef<'_>, mode: ScaleMode) -> Result<Quantized> {
    quantize::<E4M3>(x, mode, E4M3::MAX)
}

/// `quantize_int8`: `x / s` with `s = max(|x|max, 1e-6) / 127`, nearest-even, clamped to ±127.
///
/// # Errors
/// As [`quantize_fp8`].
pub fn quantize_int8(x: &TensorRef<'_>, mode: ScaleMode) -> Result<Quantized> {
    quantize::<i8>(x, mode, 127.0)
}

fn quantize<T: Element>(x: &TensorRef<'_>, mode: ScaleMode, largest: f32) -> Result<Quantized> {
    let (dim, values) = vectors(x)?;
    let group = match mode {
        ScaleMode::PerTensor => values.len(),
        ScaleMode::PerToken => dim,
    };
    let mut scales = Vec::with_capacity(values.len() / group.max(1));
    let mut out: Vec<T> = Vec::with_capacity(values.len());
    for chunk in values.chunks(group.max(1)) {
        let scale = scale_of(chunk, largest);
        scales.push(scale);
        out.extend(chunk.iter().map(|&v| T::from_f32(v / scale)));
    }
    if mode == ScaleMode::PerTensor && scales.is_empty() {
        scales.push(scale_of(&[], largest));
    }
    Ok(Quantized { values: Tensor::new(T::buffer(out), x.shape().to_vec())?, scales, mode })
}

fn scale_of(values: &[f32], largest: f32) -> f32 {
    values.iter().fold(0f32, |m, v| m.max(v.abs())).max(1e-6) / largest
}

/// Last extent and f32 values of a finite, unquantised tensor.
fn vectors(x: &TensorRef<'_>) -> Result<(usize, Vec<f32>)> {
    if x.dtype().is_quantized() {
        return Err(Error::dtype("x", "f32, f16 or bf16", x.dtype().name()));
    }
    let Some(&dim) = x.shape().last() else {
        return Err(Error::shape("x", "rank 1 or more, [.., d]", "rank 0"));
    };
    if dim == 0 {
        return Err(Error::shape("x", "an embedding dimension of at least 1", "0"));
    }
    x.check_finite("x")?;
    Ok((dim, x.data().to_f32()))
}

/// `dequantize_fp8`, `dequantize_int8`: stored value × scale, in f32.
///
/// # Errors
/// `ERR_DTYPE` for unquantised input, `ERR_SHAPE` for another number of scales, `ERR_VALUE` for a scale that is not finite and
/// positive.
pub fn dequantize(x: &TensorRef<'_>, scales: Scales<'_>) -> Result<Tensor> {
    if !x.dtype().is_quantized() {
        return Err(Error::dtype("x", "fp8 or int8", x.dtype().name()));
    }
    let dim =
        x.shape().last().copied().filter(|&d| d > 0).ok_or_else(|| {
            Error::shape("x", "rank 1 or more, [.., d] with d ≥ 1", format!("{:?}", x.shape()))
        })?;
    let tokens = x.data().len() / dim;
    if let Scales::PerToken(s) = scales
        && s.len() != tokens
    {
        return Err(Error::shape("scales", format!("1 or {tokens} entries"), format!("{} entries", s.len())));
    }
    scales.check(0..tokens)?;
    let values = x.data().to_f32().into_iter().enumerate().map(|(i, v)| v * scales.get(i / dim)).collect();
    Tensor::new(DataBuf::F32(values), x.shape().to_vec())
}

/// Residual codes of token vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualCodes {
    /// Nearest centroid (largest inner product, lowest index among equals) of every token.
    pub codes: Vec<u32>,
    /// Packed residuals, `⌈d·nbits/8⌉` bytes a token, unused bits zero.
    pub residuals: Vec<u8>,
    /// `1 / max(‖decoded‖, 1e-6)` of every token.
    pub inv_norms: Vec<f32>,
}

/// Packs the residuals of tokens whose centroids are known. Bucket = number of `cutoffs` strictly below the residual.
///
/// `x [T, d]`, `codes [T]`, `cutoffs [2^nbits − 1]` ascending. Choosing the centroids is the engine's part
/// ([`Engine::quantize_residual`](crate::Engine::quantize_residual)).
///
/// # Errors
/// `ERR_SHAPE`, `ERR_VALUE`, `ERR_INDEX`, `ERR_NON_FINITE` for operands that do not fit.
pub fn pack_residuals(
    x: &TensorRef<'_>,
    codes: Vec<u32>,
    cutoffs: &[f32],
    codec: &Codec<'_>,
) -> Result<ResidualCodes> {
    let (dim, values) = vectors(x)?;
    check_encode(x, cutoffs, codec)?;
    let tokens = values.len() / dim;
    if codes.len() != tokens {
        return Err(Error::shape("codes", format!("{tokens} entries"), format!("{} entries", codes.len())));
    }
    if let Some(row) = codes.iter().position(|&c| c as usize >= codec.count()) {
        return Err(Error::index(
            "codes",
            row,
            format!("below {} centroids", codec.count()),
            codes[row].to_string(),
        ));
    }
    let per_byte = 8 / codec.nbits() as usize;
    let mut residuals = Vec::with_capacity(tokens * codec.residual_bytes());
    let mut inv_norms = Vec::with_capacity(tokens);
    let mut decoded = vec![0f32; dim];
    let mut buckets = vec![0u8; dim];
    let weights = codec.bucket_weights();
    for (vector, &code) in values.chunks_exact(dim).zip(&codes) {
        let code = code as usize;
        let centroid = codec.centroids().data().slice(code * dim..(code + 1) * dim).to_f32();
        for ((decoded, x), c) in decoded.iter_mut().zip(vector).zip(&centroid) {
            *decoded = x - c;
        }
        buckets_of(&decoded, cutoffs, &mut buckets);
        residuals
            .extend(buckets.chunks(per_byte).map(|b| codec.layout().byte(b.iter().copied(), codec.nbits())));
        for ((decoded, c), &bucket) in decoded.iter_mut().zip(&centroid).zip(&buckets) {
            *decoded = c + weights[usize::from(bucket)];
        }
        let norm = decoded.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        inv_norms.push((1.0 / norm.max(1e-6)) as f32);
    }
    Ok(ResidualCodes { codes, residuals, inv_norms })
}

/// Per residual the number of cutoffs strictly below it.
fn buckets_of(residuals: &[f32], cutoffs: &[f32], buckets: &mut [u8]) {
    if cutoffs.len() > 15 {
        for (bucket, residual) in buckets.iter_mut().zip(residuals) {
            *bucket = cutoffs.partition_point(|c| c < residual) as u8;
        }
        return;
    }
    // Few of them are counted in vectors faster than searched.
    buckets.fill(0);
    for &cutoff in cutoffs {
        for (bucket, &residual) in buckets.iter_mut().zip(residuals) {
            *bucket += u8::from(cutoff < residual);
        }
    }
}

/// Vectors that a codec can encode.
pub(crate) fn check_vectors(x: &TensorRef<'_>, codec: &Codec<'_>) -> Result<()> {
    if x.dtype().is_quantized() {
        return Err(Error::dtype("x", "f32, f16 or bf16", x.dtype().name()));
    }
    if x.shape().len() != 2 || x.shape()[1] != codec.dim() {
        return Err(Error::shape("x", format!("[T, {}]", codec.dim()), format!("{:?}", x.shape())));
    }
    if codec.count() == 0 && x.shape()[0] > 0 {
        return Err(Error::shape("centroids", "at least one centroid", "none"));
    }
    Ok(())
}

pub(crate) fn check_encode(x: &TensorRef<'_>, cutoffs: &[f32], codec: &Codec<'_>) -> Result<()> {
    check_vectors(x, codec)?;
    if cutoffs.len() != (1 << codec.nbits()) - 1 {
        return Err(Error::shape(
            "cutoffs",
            format!("[{}] for nbits = {}", (1 << codec.nbits()) - 1, codec.nbits()),
            format!("[{}]", cutoffs.len()),
        ));
    }
    if let Some(i) = cutoffs.windows(2).position(|w| w[0].partial_cmp(&w[1]).is_none_or(|o| o.is_gt())) {
        return Err(Error::value(
            "cutoffs",
            "ascending numbers",
            format!("a larger number at {i} than at {}", i + 1),
        ));
    }
    Ok(())
}

/// Decodes residual documents to f32 vectors `[slots, d]`, normalised if asked for; slots behind a length are zero.
pub fn decode_residual(documents: &super::Residual<'_>, normalize: bool) -> Tensor {
    let dim = documents.codec().dim();
    let slots = documents.sequences().slots();
    let mut values = vec![0f32; slots * dim];
    for row in documents.sequences().kept_rows() {
        let out = &mut values[row * dim..(row + 1) * dim];
        documents.codec().decode(documents.codes()[row] as usize, documents.residual(row), out);
        if normalize {
            let factor = match documents.inv_norms() {
                Some(stored) => stored.get(row),
                None => {
                    let norm = out.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
                    (1.0 / norm.max(1e-6)) as f32
                }
            };
            out.iter_mut().for_each(|v| *v *= factor);
        }
    }
    Tensor::new(DataBuf::F32(values), vec![slots, dim]).expect("slots · d values")
}
