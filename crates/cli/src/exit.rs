//! Errors to messages and exit codes: 0 ok, 1 a check failed, 2 usage, 3 input, 4 backend, 5 I/O.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use maxsim::ErrorCode;

/// What a command that ran to its end found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Success,
    /// The command did its work, and a check it makes failed; it has said which.
    CheckFailed,
}

/// Options that do not fit together, or a setting that cannot be.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// A usage error with this message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Exit code of an error with a stable code.
fn exit_code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::Unsupported
        | ErrorCode::OutOfMemory
        | ErrorCode::Compile
        | ErrorCode::DeviceLost
        | ErrorCode::Disposed
        | ErrorCode::Aborted => 4,
        ErrorCode::Io | ErrorCode::Locked => 5,
        // Everything else is about what came in: arguments' values and files' bytes.
        _ => 3,
    }
}

/// Prints what went wrong on stderr and gives the exit code.
pub(crate) fn report(result: anyhow::Result<Outcome>) -> ExitCode {
    let error = match result {
        Ok(Outcome::Success) => return ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => return ExitCode::from(1),
        Err(error) => error,
    };
    let (label, code) = if error.chain().any(|cause| cause.is::<Usage>()) {
        ("ERR_USAGE", 2)
    } else if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<maxsim::Error>()) {
        (error.code().as_str(), exit_code(error.code()))
    } else if error.chain().any(|cause| cause.is::<std::io::Error>()) {
        ("ERR_IO", 5)
    } else {
        ("ERR_VALUE", 3)
    };
    // A closed stderr must not turn an error into a panic.
    let _ = writeln!(std::io::stderr(), "error[{label}]: {error:#}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_error_has_its_exit_code() {
        for (code, exit) in [
            (ErrorCode::Shape, 3),
            (ErrorCode::Value, 3),
            (ErrorCode::Corrupt, 3),
            (ErrorCode::Format, 3),
            (ErrorCode::Unsupported, 4),
            (ErrorCode::OutOfMemory, 4),
            (ErrorCode::Io, 5),
            (ErrorCode::Locked, 5),
        ] {
            assert_eq!(exit_code(code), exit, "{code}");
        }
    }
}
