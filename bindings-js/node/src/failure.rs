//! Errors as plain values; TypeScript makes `MaxSimError` of them.

use std::collections::HashMap;

use maxsim::Error;
use napi::bindgen_prelude::Either;
use napi_derive::napi;

type Detail = Either<String, f64>;

/// `{ code, message, details }`.
#[napi(object, object_from_js = false)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub details: HashMap<String, Detail>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = |name: &str, value: &str| (name.to_owned(), Either::A(value.to_owned()));
        let number = |name: &str, value: f64| (name.to_owned(), Either::B(value));
        let mut details: HashMap<String, Detail> =
            error.argument().map(|a| text("argument", a)).into_iter().collect();
        match &error {
            Error::Shape { expected, got, .. }
            | Error::Dtype { expected, got, .. }
            | Error::Value { expected, got, .. } => {
                details.extend([text("expected", expected), text("got", got)])
            }
            Error::Index { position, expected, got, .. } => details.extend([
                number("position", *position as f64),
                text("expected", expected),
                text("got", got),
            ]),
            Error::NonFinite { position, got, .. } => details.extend([
                number("position", *position as f64),
                text("expected", "a finite number"),
                text("got", &got.to_string()),
            ]),
            Error::Limit { limit, got, .. } => details.extend([text("limit", limit), text("got", got)]),
            Error::Unsupported { what, hint } => details.extend([text("what", what), text("hint", hint)]),
            Error::OutOfMemory { requested } => details.extend([number("requested", *requested as f64)]),
            Error::Compile { kernel, log } => details.extend([text("kernel", kernel), text("log", log)]),
            Error::DeviceLost { reason } => details.extend([text("reason", reason)]),
            Error::Disposed { what } | Error::Locked { what } => details.extend([text("what", what)]),
            Error::Format { what, problem }
            | Error::Corrupt { what, problem }
            | Error::Io { what, problem } => {
                details.extend([text("what", what), text("problem", problem)]);
            }
            Error::Version { what, found, supported } => {
                details.extend([text("what", what), text("found", found), text("supported", supported)]);
            }
            // `Aborted` has nothing to add, and a kind added later still has its code and message.
            _ => {}
        }
        Self { code: error.code().as_str().into(), message: error.to_string(), details }
    }
}

impl Failure {
    /// A panic, which is a defect of maxsim and must not reach Node's stack.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let what = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown panic".into());
        Self {
            code: "ERR_INTERNAL".into(),
            message: format!("maxsim failed in a way it should not: {what}"),
            details: HashMap::new(),
        }
    }
}
