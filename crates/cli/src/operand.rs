//! Vectors that the command owns, and how they are arranged.

use maxsim::{
    Codec, DType, DataBuf, Documents, Error, Residual, ResidualLayout, ScaleMode, Scales, Tensor, TensorRef,
    Tokens, quantize_fp8, quantize_int8,
};

/// Queries or documents in memory.
#[derive(Debug)]
pub(crate) struct Operand {
    /// All vectors behind one another.
    pub(crate) data: DataBuf,
    /// Embedding dimension.
    pub(crate) dim: usize,
    /// Arrangement.
    pub(crate) layout: Layout,
    /// Tokens that count, one entry per slot.
    pub(crate) mask: Option<Vec<bool>>,
    /// Scales of quantised vectors.
    pub(crate) scales: Option<OwnedScales>,
}

/// Arrangement of sequences.
#[derive(Debug)]
pub(crate) enum Layout {
    /// `[.., L, d]`, with prefix lengths if they differ.
    Padded { shape: Vec<usize>, lengths: Option<Vec<u32>> },
    /// Behind one another.
    Packed { offsets: Vec<u32> },
}

/// [`Scales`] with their memory.
#[derive(Debug)]
pub(crate) enum OwnedScales {
    /// One for all.
    PerTensor(f32),
    /// One per token slot.
    PerToken(Vec<f32>),
}

impl Operand {
    /// The operand as the library takes it.
    pub(crate) fn tokens(&self) -> maxsim::Result<Tokens<'_>> {
        let mut tokens = match &self.layout {
            Layout::Padded { shape, lengths } => {
                let tokens = Tokens::padded(&self.data, shape)?;
                match lengths {
                    Some(lengths) => tokens.with_lengths(lengths)?,
                    None => tokens,
                }
            }
            Layout::Packed { offsets } => Tokens::packed(&self.data, self.dim, offsets)?,
        };
        if let Some(mask) = &self.mask {
            tokens = tokens.with_mask(mask)?;
        }
        match &self.scales {
            Some(OwnedScales::PerTensor(scale)) => tokens.with_scales(Scales::PerTensor(*scale)),
            Some(OwnedScales::PerToken(scales)) => tokens.with_scales(Scales::PerToken(scales)),
            None => Ok(tokens),
        }
    }

    /// Brings the vectors to `dtype`; fp8 and int8 get a scale per token. Errors are about `argument`.
    pub(crate) fn convert(&mut self, dtype: DType, argument: &'static str) -> maxsim::Result<()> {
        if self.data.dtype() == dtype {
            return Ok(());
        }
        if self.data.dtype().is_quantized() {
            let expected = "f32, f16 or bf16 vectors; quantised ones stay as they are";
            return Err(Error::dtype(argument, expected, self.data.dtype().name()));
        }
        let quantize = match dtype {
            DType::E4M3 => quantize_fp8,
            DType::I8 => quantize_int8,
            float => {
                self.data = DataBuf::from_f32(&self.data.as_ref().to_f32(), float);
                return Ok(());
            }
        };
        let tokens = self.tokens()?;
        tokens.check_finite(argument)?;
        // Slots behind a length or mask stay zero: whatever stands there may well be NaN, which quantisers refuse.
        let mut values = vec![0f32; self.data.len()];
        for row in tokens.sequences().kept_rows() {
            values[row * self.dim..(row + 1) * self.dim].copy_from_slice(&tokens.vector(row));
        }
        let quantized =
            quantize(&TensorRef::new(&values, &[tokens.slots(), self.dim])?, ScaleMode::PerToken)?;
        self.data = quantized.values.into_data();
        self.scales = Some(OwnedScales::PerToken(quantized.scales));
        Ok(())
    }
}

/// Documents of any kind in memory.
#[derive(Debug)]
pub(crate) enum OwnedDocuments {
    /// Token vectors.
    Tokens(Operand),
    /// Codes and packed residuals.
    Residual(OwnedResidual),
}

impl OwnedDocuments {
    /// The documents as the library takes them.
    pub(crate) fn documents(&self) -> maxsim::Result<Documents<'_>> {
        Ok(match self {
            Self::Tokens(operand) => operand.tokens()?.into(),
            Self::Residual(residual) => residual.residual()?.into(),
        })
    }

    /// Name of how they are stored.
    pub(crate) fn storage(&self) -> &'static str {
        match self {
            Self::Tokens(operand) => operand.data.dtype().name(),
            Self::Residual(_) => "residual",
        }
    }
}

/// [`Residual`] with its memory.
#[derive(Debug)]
pub(crate) struct OwnedResidual {
    /// `[C, d]`.
    pub(crate) centroids: Tensor,
    /// `[2^nbits]`.
    pub(crate) bucket_weights: Vec<f32>,
    /// Bits per dimension.
    pub(crate) nbits: u32,
    /// Order of the bits.
    pub(crate) layout: ResidualLayout,
    /// Centroid of every token slot.
    pub(crate) codes: Vec<u32>,
    /// Packed residuals of all slots behind one another.
    pub(crate) residuals: Vec<u8>,
    /// Inverse norm of every token slot, f32 or f16.
    pub(crate) inv_norms: Option<DataBuf>,
    /// How the slots form documents.
    pub(crate) documents: ResidualDocuments,
}

/// How slots of [`OwnedResidual`] form documents.
#[derive(Debug)]
pub(crate) enum ResidualDocuments {
    /// `[Nd, L]` with prefix lengths.
    Padded { shape: [usize; 2], doc_lengths: Vec<u32> },
    /// Behind one another, with `cu_seqlens_d`.
    Packed { offsets: Vec<u32> },
}

impl OwnedResidual {
    /// The documents as the library takes them.
    pub(crate) fn residual(&self) -> maxsim::Result<Residual<'_>> {
        let codec = Codec::new(self.centroids.as_ref(), &self.bucket_weights[..], self.nbits, self.layout)?;
        let residual = match &self.documents {
            ResidualDocuments::Padded { shape, doc_lengths } => {
                Residual::padded(codec, &self.codes, &self.residuals, *shape, doc_lengths)?
            }
            ResidualDocuments::Packed { offsets } => {
                Residual::packed(codec, &self.codes, &self.residuals, offsets)?
            }
        };
        match &self.inv_norms {
            Some(inv_norms) => residual.with_inv_norms(inv_norms),
            None => Ok(residual),
        }
    }
}
