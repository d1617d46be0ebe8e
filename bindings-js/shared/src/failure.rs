//! Errors as plain values; TypeScript makes `MaxSimError` of them.

use maxsim_core::{Error, not_finite};

/// An entry of `MaxSimError.details`.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// A string.
    Text(String),
    /// A number.
    Number(f64),
}

/// `Failure` of `native.ts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Stable code.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// For programs.
    pub details: Vec<(&'static str, Detail)>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut details = Vec::new();
        let mut text = |name, value: &str| details.push((name, Detail::Text(value.to_owned())));
        let mut numbers = Vec::new();
        let mut number = |name, value: f64| numbers.push((name, Detail::Number(value)));
        if let Some(argument) = error.argument() {
            text("argument", argument);
        }
        match &error {
            Error::Shape { expected, got, .. }
            | Error::Dtype { expected, got, .. }
            | Error::Value { expected, got, .. } => {
                text("expected", expected);
                text("got", got);
            }
            Error::Index { position, expected, got, .. } => {
                number("position", *position as f64);
                text("expected", expected);
                text("got", got);
            }
            Error::NonFinite { position, got, .. } => {
                number("position", *position as f64);
                text("expected", "a finite number");
                text("got", not_finite(*got));
            }
            Error::Limit { limit, got, .. } => {
                text("limit", limit);
                text("got", got);
            }
            Error::Unsupported { what, hint } => {
                text("what", what);
                text("hint", hint);
            }
            Error::OutOfMemory { requested } => number("requested", *requested as f64),
            Error::Compile { kernel, log } => {
                text("kernel", kernel);
                text("log", log);
            }
            Error::DeviceLost { reason } => text("reason", reason),
            Error::Disposed { what } | Error::Locked { what } => text("what", what),
            Error::Format { what, problem }
            | Error::Corrupt { what, problem }
            | Error::Io { what, problem } => {
                text("what", what);
                text("problem", problem);
            }
            Error::Version { what, found, supported } => {
                text("what", what);
                text("found", found);
                text("supported", supported);
            }
            // `Aborted` has nothing to add, and a kind added later still has its code and message.
            _ => {}
        }
        details.extend(numbers);
        Self { code: error.code().as_str(), message: error.to_string(), details }
    }
}

impl Failure {
    /// A defect of maxsim, such as a panic.
    pub fn internal(what: &str) -> Self {
        Self {
            code: "ERR_INTERNAL",
            message: format!("maxsim failed in a way it should not: {what}"),
            details: Vec::new(),
        }
    }
}
