//! Centroids and buckets of an index.

use maxsim_core::plaid::{Buffer, Segment};
use maxsim_core::{
    Codec, DType, DataBuf, DataRef, Engine, Error, ResidualLayout, Result, Tensor, TensorRef, f16, normalize,
    pack_residuals,
};

use crate::number::written;
use crate::parallel;
use crate::times::{BuildTimes, timed};

/// Tokens that are one task.
const PIECE: usize = 1 << 10;

/// What tokens of an index are encoded with. Trained once; every segment of the index uses it.
#[derive(Debug, Clone)]
pub struct IndexCodec {
    parts: CodecParts,
    centroids: usize,
}

/// The numbers an [`IndexCodec`] is made of.
#[derive(Debug, Clone)]
pub struct CodecParts {
    /// `[K, d]`, unit vectors.
    pub centroids: Centroids,
    /// Embedding dimension `d`.
    pub dim: usize,
    /// Bits per dimension: 1, 2, 4 or 8.
    pub nbits: u32,
    /// `[2^nbits − 1]`, ascending: where one bucket ends and the next begins.
    pub bucket_cutoffs: Vec<f32>,
    /// `[2^nbits]`: what a bucket stands for.
    pub bucket_weights: Vec<f32>,
    /// `[d]`: mean magnitude of the residuals per dimension. Decoding does not use it.
    pub avg_residual: Vec<f32>,
    /// 0.75 quantile of the residuals' norms: tokens farther than this from every centroid are strangers to the codec.
    pub cluster_threshold: f32,
}

/// Centroids as they are stored.
#[derive(Debug, Clone)]
pub enum Centroids {
    /// In single precision.
    F32(Buffer<f32>),
    /// In half precision.
    F16(Buffer<f16>),
}

impl Centroids {
    /// The numbers.
    pub fn data(&self) -> DataRef<'_> {
        match self {
            Self::F32(values) => DataRef::F32(values),
            Self::F16(values) => DataRef::F16(values),
        }
    }
}

/// Tokens as an index stores them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded {
    /// Centroid of every token.
    pub codes: Vec<u32>,
    /// Packed residuals, [`ResidualLayout::Plaid`].
    pub residuals: Vec<u8>,
    /// `1 / max(‖decoded‖, 1e-6)` of every token.
    pub inv_norms: Vec<f16>,
}

impl IndexCodec {
    /// Checks the numbers against each other.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_VALUE` or `ERR_NON_FINITE` naming what does not fit.
    pub fn new(parts: CodecParts) -> Result<Self> {
        let CodecParts { centroids, dim, nbits, bucket_cutoffs, bucket_weights, avg_residual, .. } = &parts;
        if *dim == 0 || centroids.data().len() % dim != 0 {
            let got = format!("{} numbers, d = {dim}", centroids.data().len());
            return Err(Error::shape("centroids", "[K, d]", got));
        }
        let count = centroids.data().len() / dim;
        let view = TensorRef::new(centroids.data(), &[count, *dim])?;
        view.check_finite("centroids")?;
        Codec::new(view, &bucket_weights[..], *nbits, ResidualLayout::Plaid)?;
        let buckets = 1 << nbits;
        let vector = |argument: &'static str, values: &[f32], expected: usize| {
            if values.len() != expected {
                return Err(Error::shape(argument, format!("[{expected}]"), format!("[{}]", values.len())));
            }
            TensorRef::new(values, &[expected])?.check_finite(argument)
        };
        vector("bucket_weights", bucket_weights, buckets)?;
        vector("bucket_cutoffs", bucket_cutoffs, buckets - 1)?;
        vector("avg_residual", avg_residual, *dim)?;
        if let Some(pair) = bucket_cutoffs.windows(2).find(|pair| pair[0] > pair[1]) {
            let got = format!("{} before {}", written(pair[0]), written(pair[1]));
            return Err(Error::value("bucket_cutoffs", "ascending numbers", got));
        }
        if !parts.cluster_threshold.is_finite() {
            let got = written(parts.cluster_threshold);
            return Err(Error::value("cluster_threshold", "a finite number", got));
        }
        Ok(Self { parts, centroids: count })
    }

    /// The numbers.
    pub fn parts(&self) -> &CodecParts {
        &self.parts
    }

    /// Embedding dimension.
    pub fn dim(&self) -> usize {
        self.parts.dim
    }

    /// Bits per dimension.
    pub fn nbits(&self) -> u32 {
        self.parts.nbits
    }

    /// Number of centroids.
    pub fn count(&self) -> usize {
        self.centroids
    }

    /// Bytes of a token's residual.
    pub fn residual_bytes(&self) -> usize {
        self.as_codec().residual_bytes()
    }

    /// Element type of the centroids.
    pub fn dtype(&self) -> DType {
        self.parts.centroids.data().dtype()
    }

    /// Centroids and buckets as operators take them.
    pub fn as_codec(&self) -> Codec<'_> {
        let shape = [self.centroids, self.parts.dim];
        let centroids = TensorRef::new(self.parts.centroids.data(), &shape).expect("checked in new()");
        let weights = &self.parts.bucket_weights[..];
        Codec::new(centroids, weights, self.parts.nbits, ResidualLayout::Plaid).expect("checked in new()")
    }

    /// Encodes tokens `[T, d]` (f32, f16 or bf16), normalised first: the centroid of largest inner product (the lowest number
    /// among equals), the packed rest, and the inverse norm of both together.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_DTYPE` and `ERR_NON_FINITE` about `x`, and the engine's.
    pub fn encode(&self, engine: &Engine, x: &TensorRef<'_>) -> Result<Encoded> {
        self.encode_timed(engine, x, &mut BuildTimes::default())
    }

    pub(crate) fn encode_timed(
        &self,
        engine: &Engine,
        x: &TensorRef<'_>,
        times: &mut BuildTimes,
    ) -> Result<Encoded> {
        let (dim, codec) = (self.dim(), self.as_codec());
        let vectors = timed(&mut times.converting, || unit_vectors(x, dim))?;
        let x = TensorRef::new(&vectors, x.shape())?;
        let codes = timed(&mut times.assigning, || engine.nearest_centroids(&x, &codec))?;
        let pack = |(vectors, codes): (&[f32], &[u32])| {
            let x = TensorRef::new(vectors, &[codes.len(), dim])?;
            pack_residuals(&x, codes.to_vec(), &self.parts.bucket_cutoffs, &codec)
        };
        let parts = vectors.chunks(PIECE * dim).zip(codes.chunks(PIECE)).collect();
        let packed = timed(&mut times.packing, || parallel::map(parts, pack))?;
        Ok(Encoded {
            residuals: packed.iter().flat_map(|part| &part.residuals).copied().collect(),
            inv_norms: packed.iter().flat_map(|part| &part.inv_norms).map(|&x| f16::from_f32(x)).collect(),
            codes,
        })
    }

    /// `1 / max(‖decoded‖, 1e-6)` of encoded tokens. Panics if codes or residuals are not this codec's.
    pub fn inverse_norms(&self, codes: &[u32], residuals: &[u8]) -> Vec<f16> {
        let codec = self.as_codec();
        let mut decoded = vec![0f32; self.dim()];
        let rows = codes.iter().zip(residuals.chunks_exact(codec.residual_bytes()));
        rows.map(|(&code, residual)| {
            codec.decode(code as usize, residual, &mut decoded);
            let norm = decoded.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            f16::from_f64(1.0 / norm.max(1e-6))
        })
        .collect()
    }

    /// A segment of encoded documents: document `i` is tokens `offsets[i]..offsets[i + 1]`.
    ///
    /// # Errors
    /// As [`Segment::build`].
    pub fn segment(&self, offsets: Vec<u32>, encoded: Encoded) -> Result<Segment> {
        let Encoded { codes, residuals, inv_norms } = encoded;
        Segment::build(offsets, codes, residuals, inv_norms, &self.as_codec())
    }

    /// The vectors that tokens stand for, `[T, d]` in f32, unit length.
    ///
    /// # Errors
    /// `ERR_SHAPE` if the segment was made with another codec.
    pub fn decode(&self, segment: &Segment) -> Result<Tensor> {
        let codec = self.as_codec();
        if !segment.fits(&codec) {
            return Err(Error::shape("segment", format!("made with {codec:?}"), "another codec's"));
        }
        Ok(maxsim_core::decode_residual(&segment.residual(&codec), true))
    }
}

/// Tokens `[T, dim]` in single precision, each divided by `max(‖x‖₂, 1e-6)`.
pub(crate) fn unit_vectors(x: &TensorRef<'_>, dim: usize) -> Result<Vec<f32>> {
    if x.dtype().is_quantized() {
        return Err(Error::dtype("x", "f32, f16 or bf16", x.dtype().name()));
    }
    if x.shape().len() != 2 || x.shape()[1] != dim {
        return Err(Error::shape("x", format!("[T, {dim}]"), format!("{:?}", x.shape())));
    }
    let mut vectors = vec![0f32; x.data().len()];
    let pieces = vectors.chunks_mut(PIECE * dim).enumerate().collect();
    parallel::for_each(pieces, |(i, to): (usize, &mut [f32])| {
        let first = i * PIECE * dim;
        let from = x.data().slice(first..first + to.len());
        if let Some(at) = from.first_non_finite() {
            let position = first + at;
            return Err(Error::NonFinite { argument: "x".into(), position, got: x.data().get(position) });
        }
        to.copy_from_slice(&from.to_f32());
        to.chunks_exact_mut(dim).for_each(normalize);
        Ok(())
    })?;
    Ok(vectors)
}

impl From<DataBuf> for Centroids {
    /// Half precision stays; everything else becomes single.
    fn from(values: DataBuf) -> Self {
        match values {
            DataBuf::F16(values) => Self::F16(values.into()),
            DataBuf::F32(values) => Self::F32(values.into()),
            other => Self::F32(other.as_ref().to_f32().into()),
        }
    }
}
