//! The static encoder.

use js_sys::{Float32Array, Function, Uint8Array, Uint32Array};
use maxsim_encode::{Encoded, Encoder, StaticEncoder};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::read::cancel;
use crate::write::{Plain, Returned, failure};

/// `WasmEncoder` of `lib/module.ts`.
#[wasm_bindgen]
pub struct WasmEncoder(StaticEncoder);

/// The encoder over the bytes of a model file.
#[wasm_bindgen(js_name = createEncoder)]
pub fn create_encoder(model: &Uint8Array) -> Result<WasmEncoder, JsValue> {
    StaticEncoder::from_vec(model.to_vec()).map(WasmEncoder).map_err(failure)
}

#[wasm_bindgen]
impl WasmEncoder {
    /// The model's name.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.0.name().into()
    }

    /// Length of a vector.
    #[wasm_bindgen(getter)]
    pub fn dim(&self) -> usize {
        self.0.dim()
    }

    /// Identity of the model.
    #[wasm_bindgen(getter)]
    pub fn fingerprint(&self) -> u64 {
        self.0.model_fingerprint()
    }

    /// `RawEncoded` of one query.
    #[wasm_bindgen(js_name = encodeQuery)]
    pub fn encode_query(&self, text: String) -> Returned {
        self.encode(vec![text], StaticEncoder::encode_query, None)
    }

    /// `RawEncoded` of documents.
    #[wasm_bindgen(js_name = encodeDocuments)]
    pub fn encode_documents(&self, texts: Vec<String>, poll: Option<Function>) -> Returned {
        self.encode(texts, StaticEncoder::encode_document, poll)
    }
}

impl WasmEncoder {
    fn encode(
        &self,
        texts: Vec<String>,
        one: fn(&StaticEncoder, &str) -> Encoded,
        poll: Option<Function>,
    ) -> Returned {
        let encoded = maxsim_js::encode(&self.0, &texts, one, &cancel(poll)).map_err(failure)?;
        Ok(Plain::new()
            .with("vectors", Float32Array::from(encoded.vectors.as_slice()))
            .with("offsets", Uint32Array::from(encoded.offsets.as_slice()))
            .with("spans", Uint32Array::from(encoded.spans.as_slice()))
            .into())
    }
}
