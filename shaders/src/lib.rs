//! WGSL of maxsim's GPU operators.
//!
//! - `wgsl/*.wgsl`: one file per kernel, entry point `main`; `wgsl/lib/*.wgsl`: snippets they import.
//! - [`kernels`]: what every kernel binds and which variants of it exist, as data.
//! - [`Variant`]: a kernel with its constants; [`Variant::source`] is text for any WebGPU implementation.
//!
//! The text is assembled by a preprocessor of three directives, each at the start of a line:
//! `#import NAME` (the text of `lib/NAME`), `#if NAME` or `#if NAME == VALUE` with `#else` and `#endif`, and
//! `#for NAME COUNT` with `#endfor` (the lines between, once for every value of `@NAME`: what has to stay in registers is named,
//! not indexed, as compilers of shaders need not unroll loops). Constants become WGSL `const`s of type `u32`.
//! [`Variant::locate`] finds where a line came from.

pub mod kernels;
mod preprocess;
mod variant;

pub use kernels::all;
pub use variant::{Access, Kernel, Requires, Variant};

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// A file's name and its text without comments: `name` is a kernel's, or `lib/…`.
fn file(name: &str) -> Option<(&'static str, &'static str)> {
    FILES.iter().find(|(file, _)| *file == name).copied()
}
