//! Running out of memory is an exception that JavaScript can catch, not a trap without a word.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use wasm_bindgen::prelude::wasm_bindgen;

/// Bytes that could not be had, until JavaScript asks.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Throwing = Throwing;

/// The system's allocator, throwing where that returns null.
struct Throwing;

fn checked(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        REFUSED.store(bytes, Ordering::Relaxed);
        // Destructors up the stack do not run: what the failed call held is lost, nothing else is touched.
        wasm_bindgen::throw_str("out of memory");
    }
    pointer
}

/// The same pointer, of which the compiler does not know that it came from an allocation. It may assume that what was allocated
/// zeroed reads as zero and that nothing else is read through its pointer; the system's allocator, compiled into the same module,
/// reads its own words in front of it, and these reads were folded to zeros.
fn anonymous(pointer: *mut u8) -> *mut u8 {
    std::hint::black_box(pointer)
}

// SAFETY: every method is the system allocator's, with its arguments passed on as they came. `checked` returns the same
// pointer or does not return, which an allocator may do.
unsafe impl GlobalAlloc for Throwing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system allocator's.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.realloc(anonymous(pointer), layout, size) }, size)
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(anonymous(pointer), layout) }
    }
}

/// Bytes whose allocation failed since the last call; 0 if none did.
#[wasm_bindgen(js_name = takeRefused)]
pub fn take_refused() -> f64 {
    REFUSED.swap(0, Ordering::Relaxed) as f64
}
