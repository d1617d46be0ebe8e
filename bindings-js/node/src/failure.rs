//! Errors as objects; TypeScript makes `MaxSimError` of them.

use std::collections::HashMap;

use maxsim_js::Detail;
use napi::bindgen_prelude::Either;
use napi_derive::napi;

/// `{ code, message, details }`.
#[napi(object, object_from_js = false)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub details: HashMap<String, Either<String, f64>>,
}

impl From<maxsim_js::Failure> for Failure {
    fn from(failure: maxsim_js::Failure) -> Self {
        let detail = |detail| match detail {
            Detail::Text(text) => Either::A(text),
            Detail::Number(number) => Either::B(number),
        };
        let details = failure.details.into_iter().map(|(name, value)| (name.to_owned(), detail(value)));
        Self { code: failure.code.into(), message: failure.message, details: details.collect() }
    }
}

impl From<maxsim::Error> for Failure {
    fn from(error: maxsim::Error) -> Self {
        maxsim_js::Failure::from(error).into()
    }
}

impl Failure {
    /// A panic, which is a defect of maxsim and must not reach Node's stack.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("unknown panic");
        maxsim_js::Failure::internal(what).into()
    }
}
