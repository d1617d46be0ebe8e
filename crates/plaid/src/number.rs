//! Decimal numbers, read and written. In browsers JavaScript does both: the tables of Rust's parser alone are ten kilobytes that do
//! not compress, and every page that searches an index would load them.

use std::fmt::Debug;

/// The number that a text says.
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub(crate) fn read(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// By JavaScript's `Number`.
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub(crate) fn read(text: &str) -> Option<f64> {
    Some(wasm_bindgen::JsValue::from_str(text).unchecked_into_f64())
}

/// The shortest text that says the number, with a point or an exponent.
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub(crate) fn written<T: Into<f64> + Debug>(x: T) -> String {
    format!("{x:?}")
}

/// By JavaScript's `String`, spelled as Rust does.
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub(crate) fn written<T: Into<f64> + Debug>(x: T) -> String {
    let x: f64 = x.into();
    let mut text = (&wasm_bindgen::JsValue::from_str("") + &wasm_bindgen::JsValue::from_f64(x))
        .as_string()
        .unwrap_or_default();
    if x.is_infinite() {
        text = if x > 0.0 { "inf".into() } else { "-inf".into() };
    } else if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        text.push_str(".0");
    }
    text
}
