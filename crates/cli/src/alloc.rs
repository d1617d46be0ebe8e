//! An allocator that counts, so that `bench` can say how much memory a call needed.
//!
//! Two relaxed atomics per allocation: kernels allocate a few buffers per call, so this does not show in any time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static CURRENT: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting bytes.
pub(crate) struct Counting;

fn grew(bytes: usize) {
    let now = CURRENT.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    // A plain load first: below the peak, which is nearly always, threads do not fight for the cache line.
    if now > PEAK.load(Relaxed) {
        PEAK.fetch_max(now, Relaxed);
    }
}

fn shrank(bytes: usize) {
    CURRENT.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call goes to `System` unchanged and its answer is returned unchanged; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is `System`'s.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            grew(layout.size());
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is `System`'s.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            grew(layout.size());
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is `System`'s; all our memory came from `System`.
        unsafe { System.dealloc(memory, layout) };
        shrank(layout.size());
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`, which is `System`'s; all our memory came from `System`.
        let moved = unsafe { System.realloc(memory, layout, size) };
        if !moved.is_null() {
            grew(size);
            shrank(layout.size());
        }
        moved
    }
}

/// Bytes allocated at the peak during `work`, above what was allocated before it. Other threads count too.
pub(crate) fn peak_during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = CURRENT.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, PEAK.load(Relaxed).saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The binary's tests run with the counting allocator too.
    #[test]
    fn the_peak_is_what_was_held_at_once() {
        let size = 8 << 20;
        let ((), peak) = peak_during(|| {
            for _ in 0..3 {
                std::hint::black_box(vec![1u8; size]);
            }
        });
        // Three times one buffer after the other, never two at once; other tests may hold a little meanwhile.
        assert!((size..2 * size).contains(&peak), "{peak}");
    }
}
