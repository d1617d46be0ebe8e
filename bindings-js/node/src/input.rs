//! Tokens and arrays from JavaScript.

use bytemuck::{Pod, pod_collect_to_vec, try_cast_slice};
use maxsim::{
    Argument, DType, DataBuf, DataRef, E4M3, Element, Error, Integers, Result, Scales, TensorRef, Tokens,
    bf16, f16,
};
use napi::bindgen_prelude::{Float32Array, Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::HOLD_BYTES;

/// `RawTokens` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawTokens {
    /// What errors call this operand; empty where its fields stand alone.
    pub name: String,
    /// The elements' bytes.
    pub data: Uint8Array,
    pub dtype: String,
    pub shape: Option<Vec<i64>>,
    pub dim: Option<i64>,
    pub offsets: Option<Uint32Array>,
    pub mask: Option<Uint8Array>,
    pub lengths: Option<Uint32Array>,
    pub scales: Option<Float32Array>,
}

/// `RawTensor` of `native.ts`.
#[napi(object, object_to_js = false)]
pub struct RawTensor {
    /// What errors call this array.
    pub name: String,
    /// The elements' bytes.
    pub data: Uint8Array,
    pub dtype: String,
    pub shape: Vec<i64>,
}

/// An array of JavaScript: copied if small, else referenced, and then read in place.
pub(crate) enum Held<A, T> {
    Copied(Vec<T>),
    InPlace(A),
}

impl<A: AsRef<[T]>, T: Copy> From<A> for Held<A, T> {
    fn from(array: A) -> Self {
        let slice = array.as_ref();
        if size_of_val(slice) < HOLD_BYTES as usize {
            Self::Copied(slice.to_vec())
        } else {
            Self::InPlace(array)
        }
    }
}

impl<A: AsRef<[T]>, T> AsRef<[T]> for Held<A, T> {
    fn as_ref(&self) -> &[T] {
        match self {
            Self::Copied(vec) => vec,
            Self::InPlace(array) => array.as_ref(),
        }
    }
}

enum Elements {
    Copied(DataBuf),
    InPlace(Uint8Array, DType),
}

impl Elements {
    fn new(bytes: Uint8Array, dtype: DType) -> Self {
        if bytes.len() >= HOLD_BYTES as usize && view(&bytes, dtype).is_some() {
            return Self::InPlace(bytes, dtype);
        }
        Self::Copied(match dtype {
            DType::F32 => copy::<f32>(&bytes),
            DType::F16 => copy::<f16>(&bytes),
            DType::BF16 => copy::<bf16>(&bytes),
            DType::E4M3 => copy::<E4M3>(&bytes),
            DType::I8 => copy::<i8>(&bytes),
        })
    }

    fn as_ref(&self) -> DataRef<'_> {
        match self {
            Self::Copied(data) => data.as_ref(),
            Self::InPlace(bytes, dtype) => {
                view(bytes, *dtype).expect("new() keeps only bytes that can be viewed")
            }
        }
    }
}

fn copy<T: Element>(bytes: &[u8]) -> DataBuf {
    T::buffer(pod_collect_to_vec(bytes))
}

/// The bytes as elements; `None` if they are not aligned, which typed arrays of that type always are.
fn view(bytes: &[u8], dtype: DType) -> Option<DataRef<'_>> {
    fn cast<T: Element + Pod>(bytes: &[u8]) -> Option<DataRef<'_>> {
        try_cast_slice::<u8, T>(bytes).ok().map(T::data)
    }
    match dtype {
        DType::F32 => cast::<f32>(bytes),
        DType::F16 => cast::<f16>(bytes),
        DType::BF16 => cast::<bf16>(bytes),
        DType::E4M3 => cast::<E4M3>(bytes),
        DType::I8 => cast::<i8>(bytes),
    }
}

/// What only a defect of the TypeScript part can cause.
pub(crate) fn unexpected(what: &str) -> napi::Error {
    napi::Error::new(napi::Status::InvalidArg, what)
}

fn extent(n: i64) -> napi::Result<usize> {
    usize::try_from(n).map_err(|_| unexpected("shape"))
}

fn extents(shape: Vec<i64>) -> napi::Result<Vec<usize>> {
    shape.into_iter().map(extent).collect()
}

/// Field `name` of `operand`; alone where the operand has no name.
pub(crate) fn field(operand: &str, name: &str) -> Argument {
    if operand.is_empty() { name.to_owned().into() } else { format!("{operand}.{name}").into() }
}

/// What a call keeps of [`RawTensor`] until it settles.
pub(crate) struct HeldTensor {
    pub(crate) name: String,
    data: Elements,
    shape: Vec<usize>,
}

impl TryFrom<RawTensor> for HeldTensor {
    type Error = napi::Error;

    /// Fails only on what TypeScript does not let through.
    fn try_from(raw: RawTensor) -> napi::Result<Self> {
        let dtype = raw.dtype.parse().map_err(|_| unexpected("RawTensor.dtype"))?;
        Ok(Self { name: raw.name, data: Elements::new(raw.data, dtype), shape: extents(raw.shape)? })
    }
}

impl HeldTensor {
    /// The array, checked. Errors name fields as JavaScript does, e.g. `w.data`.
    pub(crate) fn tensor(&self) -> Result<TensorRef<'_>> {
        TensorRef::new(self.data.as_ref(), &self.shape)
            .map_err(|error| error.map_argument(|argument| field(&self.name, argument)))
    }
}

/// What a call keeps of [`RawTokens`] until it settles.
pub(crate) struct HeldTokens {
    pub(crate) name: String,
    data: Elements,
    layout: Layout,
    mask: Option<Held<Uint8Array, u8>>,
    scales: Option<Held<Float32Array, f32>>,
}

enum Layout {
    Padded { shape: Vec<usize>, lengths: Option<Held<Uint32Array, u32>> },
    Packed { dim: usize, offsets: Held<Uint32Array, u32>, lengths: Option<Held<Uint32Array, u32>> },
}

impl TryFrom<RawTokens> for HeldTokens {
    type Error = napi::Error;

    /// Fails only on what TypeScript does not let through.
    fn try_from(raw: RawTokens) -> napi::Result<Self> {
        let lengths = raw.lengths.map(Held::from);
        Ok(Self {
            name: raw.name,
            data: Elements::new(raw.data, raw.dtype.parse().map_err(|_| unexpected("RawTokens.dtype"))?),
            layout: match (raw.shape, raw.dim, raw.offsets) {
                (Some(shape), ..) => Layout::Padded { shape: extents(shape)?, lengths },
                (None, Some(dim), Some(offsets)) => {
                    Layout::Packed { dim: extent(dim)?, offsets: offsets.into(), lengths }
                }
                _ => return Err(unexpected("RawTokens.dim")),
            },
            mask: raw.mask.map(Held::from),
            scales: raw.scales.map(Held::from),
        })
    }
}

impl HeldTokens {
    /// The tokens, checked. Errors name fields as JavaScript does, e.g. `q.offsets`.
    pub(crate) fn tokens(&self) -> Result<Tokens<'_>> {
        self.build().map_err(|error| {
            error.map_argument(|argument| {
                self.field(if argument == "cu_seqlens" { "offsets" } else { argument })
            })
        })
    }

    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.layout, Layout::Packed { .. })
    }

    pub(crate) fn field(&self, name: &str) -> Argument {
        field(&self.name, name)
    }

    fn build(&self) -> Result<Tokens<'_>> {
        let data = self.data.as_ref();
        let (mut tokens, lengths) = match &self.layout {
            Layout::Padded { shape, lengths } => (Tokens::padded(data, shape)?, lengths),
            Layout::Packed { dim, offsets, lengths } => {
                (Tokens::packed(data, *dim, offsets.as_ref())?, lengths)
            }
        };
        if let Some(lengths) = lengths {
            tokens = tokens.with_lengths(lengths.as_ref())?;
        }
        if let Some(mask) = &self.mask {
            tokens = tokens.with_mask(mask.as_ref())?;
        }
        if let Some(scales) = &self.scales {
            tokens = tokens.with_scales(match scales.as_ref() {
                [one] => Scales::PerTensor(*one),
                many => Scales::PerToken(many),
            })?;
        }
        Ok(tokens)
    }
}

/// Indices of pairs; `argument` names them if they are missing.
pub(crate) fn indices<'a>(
    held: Option<&'a Held<Uint32Array, u32>>,
    argument: &'static str,
) -> Result<impl Integers<'a>> {
    held.map(AsRef::as_ref).ok_or_else(|| Error::value(argument, "indices", "none"))
}
