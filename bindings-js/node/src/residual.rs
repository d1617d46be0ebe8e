//! Documents as centroid codes and packed residuals, from JavaScript.

use maxsim::{ApproxScore, Argument, Codec, Error, Residual, ResidualLayout, Result, TensorRef};
use napi::bindgen_prelude::{Float32Array, Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::input::{Held, HeldTensor, RawTensor, field, unexpected};
use crate::operation::camel;

/// `RawCodes` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawCodes {
    /// What errors call the documents.
    pub name: String,
    pub codes: Uint32Array,
    /// Padded, or …
    pub lengths: Option<Uint32Array>,
    /// … packed.
    pub offsets: Option<Uint32Array>,
}

/// `RawCodec` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawCodec {
    /// What errors call it.
    pub name: String,
    pub centroids: RawTensor,
    pub bucket_weights: Float32Array,
    pub nbits: i64,
    pub layout: String,
}

/// `RawResidual` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawResidual {
    pub codes: RawCodes,
    pub residuals: Uint8Array,
    pub codec: RawCodec,
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

/// What a call keeps of [`RawCodes`] until it settles.
pub(crate) struct HeldCodes {
    pub(crate) name: String,
    codes: Held<Uint32Array, u32>,
    layout: Layout,
}

enum Layout {
    Padded(Held<Uint32Array, u32>),
    Packed(Held<Uint32Array, u32>),
}

impl TryFrom<RawCodes> for HeldCodes {
    type Error = napi::Error;

    /// Fails only on what TypeScript does not let through.
    fn try_from(raw: RawCodes) -> napi::Result<Self> {
        let layout = match (raw.lengths, raw.offsets) {
            (Some(lengths), None) => Layout::Padded(lengths.into()),
            (None, Some(offsets)) => Layout::Packed(offsets.into()),
            _ => return Err(unexpected("RawCodes.offsets")),
        };
        Ok(Self { name: raw.name, codes: raw.codes.into(), layout })
    }
}

impl HeldCodes {
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
        match &self.layout {
            Layout::Padded(lengths) => {
                let lengths = lengths.as_ref();
                Residual::padded(codec, codes, residuals, self.shape(lengths.len())?, lengths)
            }
            Layout::Packed(offsets) => Residual::packed(codec, codes, residuals, offsets.as_ref()),
        }
    }

    /// The operator that scores these codes by `table`.
    pub(crate) fn approx<'a>(&'a self, table: TensorRef<'a>) -> Result<ApproxScore<'a>> {
        let codes = self.codes.as_ref();
        let op = match &self.layout {
            Layout::Padded(lengths) => {
                let lengths = lengths.as_ref();
                self.shape(lengths.len()).and_then(|shape| ApproxScore::new(table, codes, shape, lengths))
            }
            Layout::Packed(offsets) => ApproxScore::packed(table, codes, offsets.as_ref()),
        };
        op.map_err(|error| {
            error.map_argument(|argument| match argument {
                "query_centroid_scores" => "queryCentroidScores".into(),
                other => named(&self.name, other),
            })
        })
    }
}

/// What a call keeps of [`RawCodec`] until it settles.
pub(crate) struct HeldCodec {
    name: String,
    centroids: HeldTensor,
    bucket_weights: Held<Float32Array, f32>,
    nbits: u32,
    layout: ResidualLayout,
}

impl TryFrom<RawCodec> for HeldCodec {
    type Error = napi::Error;

    /// Fails only on what TypeScript does not let through.
    fn try_from(raw: RawCodec) -> napi::Result<Self> {
        Ok(Self {
            name: raw.name,
            centroids: raw.centroids.try_into()?,
            bucket_weights: raw.bucket_weights.into(),
            // Whether there are residuals of so many bits is for the core to say.
            nbits: u32::try_from(raw.nbits).unwrap_or(u32::MAX),
            layout: raw.layout.parse().map_err(|_| unexpected("RawCodec.layout"))?,
        })
    }
}

impl HeldCodec {
    pub(crate) fn field(&self, name: &str) -> Argument {
        field(&self.name, name)
    }

    /// The codec, checked. Errors name fields as JavaScript does, e.g. `d.bucketWeights`.
    pub(crate) fn codec(&self) -> Result<Codec<'_>> {
        let centroids = self.centroids.tensor()?;
        Codec::new(centroids, self.bucket_weights.as_ref(), self.nbits, self.layout)
            .map_err(|error| error.map_argument(|argument| named(&self.name, argument)))
    }
}

/// What a call keeps of [`RawResidual`] until it settles.
pub(crate) struct HeldResidual {
    codes: HeldCodes,
    residuals: Held<Uint8Array, u8>,
    codec: HeldCodec,
    inv_norms: Option<HeldTensor>,
}

impl TryFrom<RawResidual> for HeldResidual {
    type Error = napi::Error;

    /// Fails only on what TypeScript does not let through.
    fn try_from(raw: RawResidual) -> napi::Result<Self> {
        Ok(Self {
            codes: raw.codes.try_into()?,
            residuals: raw.residuals.into(),
            codec: raw.codec.try_into()?,
            inv_norms: raw.inv_norms.map(HeldTensor::try_from).transpose()?,
        })
    }
}

impl HeldResidual {
    /// What errors call these documents.
    pub(crate) fn name(&self) -> &str {
        &self.codes.name
    }

    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.codes.layout, Layout::Packed(_))
    }

    /// The documents, checked. Errors name fields as JavaScript does, e.g. `d.codes`.
    pub(crate) fn documents(&self) -> Result<Residual<'_>> {
        let codec = self.codec.codec()?;
        let inv_norms = self.inv_norms.as_ref().map(HeldTensor::tensor).transpose()?;
        let documents =
            self.codes.documents(codec, self.residuals.as_ref()).and_then(|documents| match &inv_norms {
                Some(inv_norms) => documents.with_inv_norms(inv_norms.data()),
                None => Ok(documents),
            });
        documents.map_err(|error| error.map_argument(|argument| named(self.name(), argument)))
    }
}
