//! The one error type. Codes are stable: the same string in Rust, in Node, in the browser and on the command line.

use std::borrow::Cow;

/// Result of every fallible call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Name of an argument as SPEC writes it (`Q`, `d_mask`, `cu_seqlens_q`, …).
pub type Argument = Cow<'static, str>;

/// What went wrong. Errors about an argument say which one, what was expected and what came.
#[derive(Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the words of the message above each variant")]
#[non_exhaustive]
pub enum Error {
    /// Wrong rank, extent or element count.
    #[error("{argument}: expected {expected}, got {got}")]
    Shape { argument: Argument, expected: String, got: String },
    /// A data type the argument cannot have.
    #[error("{argument}: expected dtype {expected}, got {got}")]
    Dtype { argument: Argument, expected: String, got: String },
    /// A value outside what the argument allows.
    #[error("{argument}: expected {expected}, got {got}")]
    Value { argument: Argument, expected: String, got: String },
    /// An index, offset or length out of range.
    #[error("{argument}[{position}]: expected {expected}, got {got}")]
    Index { argument: Argument, position: usize, expected: String, got: String },
    /// NaN or infinity where `validate_finite` or a quantiser forbids it.
    #[error("{argument}[{position}]: expected a finite number, got {}", not_finite(*got))]
    NonFinite { argument: Argument, position: usize, got: f32 },
    /// The backend or build cannot do this; `hint` says what would.
    #[error("{what} is not supported: {hint}")]
    Unsupported { what: String, hint: String },
    /// More than a documented limit.
    #[error("{argument}: limit is {limit}, got {got}")]
    Limit { argument: Argument, limit: String, got: String },
    /// Memory could not be had.
    #[error("out of memory: {requested} bytes requested")]
    OutOfMemory { requested: u64 },
    /// A kernel did not compile.
    #[error("kernel {kernel} did not compile: {log}")]
    Compile { kernel: String, log: String },
    /// The device went away. A new engine has to be created.
    #[error("device lost: {reason}")]
    DeviceLost { reason: String },
    /// A handle was used after `dispose`.
    #[error("{what} was disposed")]
    Disposed { what: String },
    /// The caller asked to stop.
    #[error("aborted")]
    Aborted,
    /// Bytes that are not what the file format promises.
    #[error("{what}: {problem}")]
    Format { what: String, problem: String },
    /// A format version this build does not read.
    #[error("{what}: version {found} is not readable here (newest known: {supported})")]
    Version { what: String, found: String, supported: String },
    /// A checksum or invariant of stored data does not hold.
    #[error("{what} is corrupt: {problem}")]
    Corrupt { what: String, problem: String },
    /// Someone else holds the writer lock.
    #[error("{what} is locked by another writer")]
    Locked { what: String },
    /// The operating system refused.
    #[error("{what}: {problem}")]
    Io { what: String, problem: String },
}

/// NaN or infinity in words; formatting any float takes code that pages would download for nothing.
#[doc(hidden)]
pub fn not_finite(x: f32) -> &'static str {
    match (x.is_nan(), x < 0.0) {
        (true, _) => "NaN",
        (_, true) => "-inf",
        _ => "inf",
    }
}

/// Code and message, which hold all that the fields do.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {self}", self.code())
    }
}

/// Stable identifier of an [`Error`]'s kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "as the variants of Error")]
#[non_exhaustive]
pub enum ErrorCode {
    Shape,
    Dtype,
    Value,
    Index,
    NonFinite,
    Unsupported,
    Limit,
    OutOfMemory,
    Compile,
    DeviceLost,
    Disposed,
    Aborted,
    Format,
    Version,
    Corrupt,
    Locked,
    Io,
}

impl ErrorCode {
    /// The code as every binding spells it, e.g. `ERR_SHAPE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "ERR_SHAPE",
            Self::Dtype => "ERR_DTYPE",
            Self::Value => "ERR_VALUE",
            Self::Index => "ERR_INDEX",
            Self::NonFinite => "ERR_NON_FINITE",
            Self::Unsupported => "ERR_UNSUPPORTED",
            Self::Limit => "ERR_LIMIT",
            Self::OutOfMemory => "ERR_OUT_OF_MEMORY",
            Self::Compile => "ERR_COMPILE",
            Self::DeviceLost => "ERR_DEVICE_LOST",
            Self::Disposed => "ERR_DISPOSED",
            Self::Aborted => "ERR_ABORTED",
            Self::Format => "ERR_FORMAT",
            Self::Version => "ERR_VERSION",
            Self::Corrupt => "ERR_CORRUPT",
            Self::Locked => "ERR_LOCKED",
            Self::Io => "ERR_IO",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Shape { .. } => ErrorCode::Shape,
            Self::Dtype { .. } => ErrorCode::Dtype,
            Self::Value { .. } => ErrorCode::Value,
            Self::Index { .. } => ErrorCode::Index,
            Self::NonFinite { .. } => ErrorCode::NonFinite,
            Self::Unsupported { .. } => ErrorCode::Unsupported,
            Self::Limit { .. } => ErrorCode::Limit,
            Self::OutOfMemory { .. } => ErrorCode::OutOfMemory,
            Self::Compile { .. } => ErrorCode::Compile,
            Self::DeviceLost { .. } => ErrorCode::DeviceLost,
            Self::Disposed { .. } => ErrorCode::Disposed,
            Self::Aborted => ErrorCode::Aborted,
            Self::Format { .. } => ErrorCode::Format,
            Self::Version { .. } => ErrorCode::Version,
            Self::Corrupt { .. } => ErrorCode::Corrupt,
            Self::Locked { .. } => ErrorCode::Locked,
            Self::Io { .. } => ErrorCode::Io,
        }
    }

    /// The argument at fault, if the error is about one.
    pub fn argument(&self) -> Option<&str> {
        match self {
            Self::Shape { argument, .. }
            | Self::Dtype { argument, .. }
            | Self::Value { argument, .. }
            | Self::Index { argument, .. }
            | Self::NonFinite { argument, .. }
            | Self::Limit { argument, .. } => Some(argument),
            _ => None,
        }
    }

    /// The same error about the argument that `rename` gives; errors without an argument stay as they are.
    pub fn map_argument(mut self, rename: impl FnOnce(&str) -> Argument) -> Self {
        match &mut self {
            Self::Shape { argument, .. }
            | Self::Dtype { argument, .. }
            | Self::Value { argument, .. }
            | Self::Index { argument, .. }
            | Self::NonFinite { argument, .. }
            | Self::Limit { argument, .. } => *argument = rename(argument),
            _ => {}
        }
        self
    }

    /// [`Error::Shape`] from displayable parts.
    pub fn shape(argument: impl Into<Argument>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Shape { argument: argument.into(), expected: expected.into(), got: got.into() }
    }

    /// [`Error::Value`] from displayable parts.
    pub fn value(argument: impl Into<Argument>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Value { argument: argument.into(), expected: expected.into(), got: got.into() }
    }

    /// [`Error::Dtype`] from displayable parts.
    pub fn dtype(argument: impl Into<Argument>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Dtype { argument: argument.into(), expected: expected.into(), got: got.into() }
    }

    /// [`Error::Index`] from displayable parts.
    pub fn index(
        argument: impl Into<Argument>,
        position: usize,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Index { argument: argument.into(), position, expected: expected.into(), got: got.into() }
    }

    /// [`Error::Format`] from displayable parts.
    pub fn format(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Format { what: what.into(), problem: problem.into() }
    }

    /// [`Error::Io`] for a path or stream.
    pub fn io(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Io { what: what.into(), problem: problem.to_string() }
    }
}
