//! The embedded static encoder.

use maxsim_encode::{Encoded, StaticEncoder};
use napi::bindgen_prelude::{Float32Array, Uint32Array};
use napi_derive::napi;

use crate::engine::{NativeCancel, flag};
use crate::job::{Promised, promise, promise_as};
use crate::output::array;

/// `NativeEncoder` of `native.ts`.
#[napi]
pub struct NativeEncoder(&'static StaticEncoder);

/// `RawEncoded` of `native.ts`.
#[napi(object, object_from_js = false)]
pub struct RawEncoded {
    pub vectors: Float32Array,
    pub offsets: Uint32Array,
    pub spans: Uint32Array,
}

/// The encoder; the first call reads its table.
#[napi(catch_unwind)]
pub fn create_static_encoder() -> Promised<&'static StaticEncoder, NativeEncoder> {
    promise_as(StaticEncoder::embedded, |_, encoder| NativeEncoder(encoder))
}

#[napi]
impl NativeEncoder {
    #[napi(getter)]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    #[napi(getter)]
    pub fn dim(&self) -> i64 {
        self.0.dim() as i64
    }

    #[napi(catch_unwind)]
    pub fn encode_query(&self, text: String, cancel: Option<&NativeCancel>) -> Promised<RawEncoded> {
        self.encode(vec![text], StaticEncoder::encode_query, cancel)
    }

    #[napi(catch_unwind)]
    pub fn encode_documents(
        &self,
        texts: Vec<String>,
        cancel: Option<&NativeCancel>,
    ) -> Promised<RawEncoded> {
        self.encode(texts, StaticEncoder::encode_document, cancel)
    }
}

impl NativeEncoder {
    fn encode(
        &self,
        texts: Vec<String>,
        one: fn(&StaticEncoder, &str) -> Encoded,
        cancel: Option<&NativeCancel>,
    ) -> Promised<RawEncoded> {
        let (encoder, cancel) = (self.0, flag(cancel));
        promise(move || {
            let (mut vectors, mut offsets, mut spans) = (Vec::new(), vec![0u32], Vec::new());
            for text in &texts {
                cancel.check()?;
                let encoded = one(encoder, text);
                vectors.extend_from_slice(&encoded.vectors);
                spans.extend(utf16(text, &encoded.spans));
                offsets.push((spans.len() / 2) as u32);
            }
            Ok(RawEncoded {
                vectors: array("vectors", vectors)?,
                offsets: array("offsets", offsets)?,
                spans: array("spans", spans)?,
            })
        })
    }
}

/// Starts and ends of spans, from UTF-8 bytes to the UTF-16 units that JavaScript counts.
fn utf16(text: &str, spans: &[(u32, u32)]) -> Vec<u32> {
    let (mut bytes, mut units) = (0, 0);
    let mut convert = |to: u32| {
        let to = to as usize;
        // Spans ascend, but those of one character's expansion overlap.
        if to < bytes {
            (bytes, units) = (0, 0);
        }
        units += text[bytes..to].encode_utf16().count();
        bytes = to;
        units as u32
    };
    spans.iter().flat_map(|&(start, end)| [convert(start), convert(end)]).collect()
}
