//! Where the time of a build goes.

use std::time::Duration;

/// How long the parts of a [`Builder`](crate::Builder)'s work took. What the source takes to read is not in it. Zero in WebAssembly,
/// which has no clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildTimes {
    /// First pass: drawing tokens, normalising them.
    pub sampling: Duration,
    /// Training: rounding the sample to int8.
    pub rounding: Duration,
    /// Training: assigning tokens to centroids, by the engine.
    pub clustering: Duration,
    /// Training: means of clusters.
    pub averaging: Duration,
    /// Training: cutoffs and weights.
    pub buckets: Duration,
    /// Second pass: converting and normalising tokens.
    pub converting: Duration,
    /// Second pass: assigning tokens to centroids, by the engine.
    pub assigning: Duration,
    /// Second pass: packing residuals.
    pub packing: Duration,
    /// Second pass: inverted lists and files.
    pub writing: Duration,
}

/// Adds to `sum` how long `work` takes.
pub(crate) fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    #[cfg(not(target_arch = "wasm32"))]
    {
        let started = std::time::Instant::now();
        let result = work();
        *sum += started.elapsed();
        result
    }
    #[cfg(target_arch = "wasm32")]
    {
        let _ = sum;
        work()
    }
}
