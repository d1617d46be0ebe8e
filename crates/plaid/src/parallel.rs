//! Work of the host on all cores: rayon's global pool natively, the calling thread in WebAssembly. What comes out does not depend on
//! the number of threads: every item is worked on alone.

use maxsim_core::{MaybeSendSync, Result};

/// Calls `work` for every item; items are owned, so each may be a piece of the output. The first error stops the rest.
pub(crate) fn for_each<T: Send>(items: Vec<T>, work: impl Fn(T) -> Result<()> + MaybeSendSync) -> Result<()> {
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        items.into_par_iter().try_for_each(work)
    }
    #[cfg(target_arch = "wasm32")]
    items.into_iter().try_for_each(work)
}

/// A result per item, in order.
pub(crate) fn map<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R> + MaybeSendSync,
) -> Result<Vec<R>> {
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        items.into_par_iter().map(work).collect()
    }
    #[cfg(target_arch = "wasm32")]
    items.into_iter().map(work).collect()
}

/// Ascending numbers.
pub(crate) fn sort(numbers: &mut [f32]) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        numbers.par_sort_unstable_by(f32::total_cmp);
    }
    #[cfg(target_arch = "wasm32")]
    numbers.sort_unstable_by(f32::total_cmp);
}
