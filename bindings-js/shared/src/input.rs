//! Tokens and arrays.

use maxsim_core::{Argument, Error, Result, Scales, TensorRef, Tokens};

use crate::array::{Elements, Held};

/// `RawTokens` of `native.ts`, with its elements at hand.
pub struct RawTokens {
    /// What errors call this operand; empty where its fields stand alone.
    pub name: String,
    /// The elements.
    pub data: Elements,
    /// Padded, or …
    pub shape: Option<Vec<usize>>,
    /// … packed.
    pub dim: Option<usize>,
    /// Of packed tokens.
    pub offsets: Option<Held<u32>>,
    /// Non-zero keeps a token.
    pub mask: Option<Held<u8>>,
    /// Tokens that count.
    pub lengths: Option<Held<u32>>,
    /// Of quantised tokens: one or one per slot.
    pub scales: Option<Held<f32>>,
}

/// `RawTensor` of `native.ts`, with its elements at hand.
pub struct RawTensor {
    /// What errors call this array.
    pub name: String,
    /// The elements.
    pub data: Elements,
    /// Extents.
    pub shape: Vec<usize>,
}

/// Field `name` of `operand`; alone where the operand has no name.
pub(crate) fn field(operand: &str, name: &str) -> Argument {
    if operand.is_empty() { name.to_owned().into() } else { format!("{operand}.{name}").into() }
}

/// What only a defect of the TypeScript part can cause.
pub(crate) fn missing(what: &'static str) -> Error {
    Error::value(what, "a value", "none")
}

/// One scale for all tokens, or one each.
pub(crate) fn scales(values: &[f32]) -> Scales<'_> {
    match values {
        [one] => Scales::PerTensor(*one),
        many => Scales::PerToken(many),
    }
}

impl RawTensor {
    /// The array, checked. Errors name fields as JavaScript does, e.g. `w.data`.
    pub(crate) fn tensor(&self) -> Result<TensorRef<'_>> {
        TensorRef::new(self.data.as_ref(), &self.shape)
            .map_err(|error| error.map_argument(|argument| field(&self.name, argument)))
    }
}

impl RawTokens {
    /// The tokens, checked. Errors name fields as JavaScript does, e.g. `q.offsets`.
    pub fn tokens(&self) -> Result<Tokens<'_>> {
        self.build().map_err(|error| {
            error.map_argument(|argument| {
                field(&self.name, if argument == "cu_seqlens" { "offsets" } else { argument })
            })
        })
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.offsets.is_some()
    }

    fn build(&self) -> Result<Tokens<'_>> {
        let data = self.data.as_ref();
        let mut tokens = match (&self.shape, self.dim, &self.offsets) {
            (Some(shape), ..) => Tokens::padded(data, shape)?,
            (None, Some(dim), Some(offsets)) => Tokens::packed(data, dim, offsets.as_ref())?,
            _ => return Err(missing("dim")),
        };
        if let Some(lengths) = &self.lengths {
            tokens = tokens.with_lengths(lengths.as_ref())?;
        }
        if let Some(mask) = &self.mask {
            tokens = tokens.with_mask(mask.as_ref())?;
        }
        if let Some(given) = &self.scales {
            tokens = tokens.with_scales(scales(given.as_ref()))?;
        }
        Ok(tokens)
    }
}
