//! Texts of the static encoder.

use maxsim_core::{Cancel, Result};
use maxsim_encode::{Encoded, StaticEncoder};

use crate::output::fitting;

/// `RawEncoded` of `native.ts`.
#[allow(missing_docs, reason = "the fields of native.ts")]
pub struct RawEncoded {
    pub vectors: Vec<f32>,
    pub offsets: Vec<u32>,
    pub spans: Vec<u32>,
}

/// `texts` by `one`, a method of `encoder`, one after the other.
///
/// # Errors
/// `ERR_ABORTED`, and `ERR_LIMIT` for more than arrays hold.
pub fn encode(
    encoder: &StaticEncoder,
    texts: &[String],
    one: fn(&StaticEncoder, &str) -> Encoded,
    cancel: &Cancel,
) -> Result<RawEncoded> {
    let (mut vectors, mut offsets, mut spans) = (Vec::new(), vec![0u32], Vec::new());
    for text in texts {
        cancel.check()?;
        let encoded = one(encoder, text);
        vectors.extend_from_slice(&encoded.vectors);
        spans.extend(utf16(text, &encoded.spans));
        offsets.push((spans.len() / 2) as u32);
    }
    Ok(RawEncoded {
        vectors: fitting("vectors", vectors)?,
        offsets: fitting("offsets", offsets)?,
        spans: fitting("spans", spans)?,
    })
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
