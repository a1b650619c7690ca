//! No decoder may ask for more memory than its input can account for: one huge allocation ends the run, with its trace.
//!
//! libFuzzer's own `-malloc_limit_mb` needs a sanitizer, which stable Rust does not have.

use std::alloc::{GlobalAlloc, Layout, System};

/// More than any target needs at once: inputs are at most 64 KiB, and what they may unpack to is bounded to 1 MiB.
const BYTES_MAX: usize = 32 << 20;

struct Bounded;

fn check(bytes: usize) {
    if bytes > BYTES_MAX {
        // Panicking would allocate; the abort is caught by libFuzzer, which keeps the input.
        eprintln!("one allocation of {bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        unsafe { System.realloc(at, layout, bytes) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;
