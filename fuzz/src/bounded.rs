//! An allocator that gives no more than [`LARGEST`] bytes at once: an input that makes a parser ask for more is a finding.
//! libFuzzer's own `-malloc_limit_mb` needs a sanitizer; memory as a whole is bounded by its `-rss_limit_mb`.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write as _,
};

/// The most bytes of one allocation. The largest body that any server here takes is a fraction of it.
pub const LARGEST: usize = 64 << 20;

/// The system's allocator, up to [`LARGEST`].
pub struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fn check(size: usize) {
    if size > LARGEST {
        // Nothing that allocates: standard error is not buffered.
        let _ = std::io::stderr().write_all(b"an input asks for more than 64 MiB at once\n");
        std::process::abort();
    }
}

// SAFETY: every call is the system allocator's, with the arguments that came; none unwinds.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }
}
