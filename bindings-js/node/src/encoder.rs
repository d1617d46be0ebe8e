//! The embedded static encoder.

use maxsim_encode::{Encoded, Encoder, StaticEncoder};
use napi::bindgen_prelude::{BigInt, Float32Array, Uint32Array};
use napi_derive::napi;

use crate::engine::{NativeCancel, flag};
use crate::job::{Promised, promise, promise_as};

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

    #[napi(getter)]
    pub fn fingerprint(&self) -> BigInt {
        self.0.model_fingerprint().into()
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
            let encoded = maxsim_js::encode(encoder, &texts, one, &cancel)?;
            Ok(RawEncoded {
                vectors: encoded.vectors.into(),
                offsets: encoded.offsets.into(),
                spans: encoded.spans.into(),
            })
        })
    }
}
