//! An allocator that counts, so that `bench` can say how much memory a call needed.
//!
//! Two relaxed atomics per allocation: kernels allocate a few buffers per call, so this does not show in any time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static COUNT: Count = Count::new();

/// Bytes held now, and the most held since the last reset.
struct Count {
    current: AtomicUsize,
    peak: AtomicUsize,
}

impl Count {
    const fn new() -> Self {
        Self { current: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    fn grew(&self, bytes: usize) {
        let now = self.current.fetch_add(bytes, Relaxed).wrapping_add(bytes);
        // A plain load first: below the peak, which is nearly always, threads do not fight for the cache line.
        if now > self.peak.load(Relaxed) {
            self.peak.fetch_max(now, Relaxed);
        }
    }

    fn shrank(&self, bytes: usize) {
        self.current.fetch_sub(bytes, Relaxed);
    }

    /// Result of `work`, and the most held during it above what was held before.
    fn peak_during<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let before = self.current.load(Relaxed);
        self.peak.store(before, Relaxed);
        let result = work();
        (result, self.peak.load(Relaxed).saturating_sub(before))
    }
}

/// The system's allocator, counting bytes.
pub(crate) struct Counting;

// SAFETY: every call goes to `System` unchanged and its answer is returned unchanged; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is `System`'s.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            COUNT.grew(layout.size());
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is `System`'s.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            COUNT.grew(layout.size());
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is `System`'s; all our memory came from `System`.
        unsafe { System.dealloc(memory, layout) };
        COUNT.shrank(layout.size());
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`, which is `System`'s; all our memory came from `System`.
        let moved = unsafe { System.realloc(memory, layout, size) };
        if !moved.is_null() {
            COUNT.grew(size);
            COUNT.shrank(layout.size());
        }
        moved
    }
}

/// Result of `work`, and the bytes allocated at its peak above those before it. Other threads count too.
pub(crate) fn peak_during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    COUNT.peak_during(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_held_at_once() {
        let count = Count::new();
        count.grew(1000);
        let ((), peak) = count.peak_during(|| {
            count.grew(8);
            count.grew(4);
            count.shrank(8);
            count.grew(5);
        });
        assert_eq!(peak, 12);
        // 1009 are held: nothing of what happened before counts.
        let ((), peak) = count.peak_during(|| count.shrank(1009));
        assert_eq!(peak, 0);
    }

    #[test]
    fn what_is_allocated_is_counted() {
        // Other tests allocate at the same time, so that there may be more.
        let (held, peak) = peak_during(|| vec![1u8; 64 << 20]);
        assert!(peak >= held.len(), "{peak}");
    }
}
