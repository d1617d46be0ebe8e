//! Documents as centroid codes and packed residuals.

#[cfg(feature = "residual")]
use maxsim_core::{ApproxScore, TensorRef};
use maxsim_core::{Argument, Codec, Error, Residual, Result};

use crate::array::Held;
use crate::input::{RawTensor, field, missing};
use crate::operation::camel;

/// `RawCodes` of `native.ts`.
pub struct RawCodes {
    /// What errors call the documents.
    pub name: String,
    /// Centroid of every token.
    pub codes: Held<u32>,
    /// Padded, or …
    pub lengths: Option<Held<u32>>,
    /// … packed.
    pub offsets: Option<Held<u32>>,
}

/// `RawCodec` of `native.ts`.
pub struct RawCodec {
    /// What errors call it.
    pub name: String,
    /// `[C, d]`
    pub centroids: RawTensor,
    /// `[2^nbits]`
    pub bucket_weights: Held<f32>,
    /// Bits per dimension.
    pub nbits: u32,
    /// `plaid` or `lik`.
    pub layout: String,
}

/// `RawResidual` of `native.ts`.
pub struct RawResidual {
    /// Centroids of the tokens, and how these form documents.
    pub codes: RawCodes,
    /// Packed buckets.
    pub residuals: Held<u8>,
    /// How to read both.
    pub codec: RawCodec,
    /// Stored inverse norms.
    pub inv_norms: Option<RawTensor>,
}

/// An argument of the core as the field of `operand` it stands for.
fn named(operand: &str, argument: &str) -> Argument {
    match argument {
        "doc_lengths" | "lengths" => field(operand, "lengths"),
        "cu_seqlens_d" | "cu_seqlens" => field(operand, "offsets"),
        "data" => field(operand, "codes"),
        other => field(operand, &camel(other)),
    }
}

impl RawCodes {
    pub(crate) fn is_packed(&self) -> bool {
        self.offsets.is_some()
    }

    /// `[Nd, L]` of padded codes: as many rows as lengths.
    fn shape(&self, documents: usize) -> Result<[usize; 2]> {
        let slots = self.codes.as_ref().len();
        let len = slots / documents.max(1);
        if len * documents == slots {
            return Ok([documents, len]);
        }
        Err(Error::shape(
            "codes",
            format!("[Nd, L] with Nd = {documents} as in lengths"),
            format!("{slots} entries"),
        ))
    }

    /// Documents with these codes under `codec`.
    fn documents<'a>(&'a self, codec: Codec<'a>, residuals: &'a [u8]) -> Result<Residual<'a>> {
        let codes = self.codes.as_ref();
        match (&self.lengths, &self.offsets) {
            (Some(lengths), _) => {
                let lengths = lengths.as_ref();
                Residual::padded(codec, codes, residuals, self.shape(lengths.len())?, lengths)
            }
            (None, Some(offsets)) => Residual::packed(codec, codes, residuals, offsets.as_ref()),
            (None, None) => Err(missing("offsets")),
        }
    }

    /// The operator that scores these codes by `table`.
    #[cfg(feature = "residual")]
    pub(crate) fn approx<'a>(&'a self, table: TensorRef<'a>) -> Result<ApproxScore<'a>> {
        let codes = self.codes.as_ref();
        let op = match (&self.lengths, &self.offsets) {
            (Some(lengths), _) => {
                let lengths = lengths.as_ref();
                self.shape(lengths.len()).and_then(|shape| ApproxScore::new(table, codes, shape, lengths))
            }
            (None, Some(offsets)) => ApproxScore::packed(table, codes, offsets.as_ref()),
            (None, None) => Err(missing("offsets")),
        };
        op.map_err(|error| {
            error.map_argument(|argument| match argument {
                "query_centroid_scores" => "queryCentroidScores".into(),
                other => named(&self.name, other),
            })
        })
    }
}

impl RawCodec {
    pub(crate) fn field(&self, name: &str) -> Argument {
        field(&self.name, name)
    }

    /// The codec, checked. Errors name fields as JavaScript does, e.g. `d.bucketWeights`.
    pub(crate) fn codec(&self) -> Result<Codec<'_>> {
        let centroids = self.centroids.tensor()?;
        let codec = self
            .layout
            .parse()
            .and_then(|layout| Codec::new(centroids, self.bucket_weights.as_ref(), self.nbits, layout));
        codec.map_err(|error| error.map_argument(|argument| named(&self.name, argument)))
    }
}

impl RawResidual {
    /// What errors call these documents.
    pub(crate) fn name(&self) -> &str {
        &self.codes.name
    }

    /// The documents, checked. Errors name fields as JavaScript does, e.g. `d.codes`.
    pub(crate) fn documents(&self) -> Result<Residual<'_>> {
        let codec = self.codec.codec()?;
        let inv_norms = self.inv_norms.as_ref().map(RawTensor::tensor).transpose()?;
        let documents =
            self.codes.documents(codec, self.residuals.as_ref()).and_then(|documents| match &inv_norms {
                Some(inv_norms) => documents.with_inv_norms(inv_norms.data()),
                None => Ok(documents),
            });
        documents.map_err(|error| error.map_argument(|argument| named(self.name(), argument)))
    }
}
