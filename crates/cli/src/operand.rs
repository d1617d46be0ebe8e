//! Vectors that the command owns, and how they are arranged.

use maxsim::{DType, DataBuf, Scales, Tokens};

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

    /// Rounds the vectors to `dtype`, which is not a quantised type.
    pub(crate) fn convert(&mut self, dtype: DType) -> maxsim::Result<()> {
        if self.data.dtype().is_quantized() {
            let expected = "f32, f16 or bf16 vectors; quantised ones stay as they are";
            return Err(maxsim::Error::dtype("dtype", expected, self.data.dtype().name()));
        }
        if self.data.dtype() != dtype {
            self.data = DataBuf::from_f32(&self.data.as_ref().to_f32(), dtype);
        }
        Ok(())
    }
}
