//! Counts what a thread allocates, so that tests can say that something takes a bounded amount of memory.
//!
//! **Invariant:** gives out what the system gives out; counts and nothing else.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static HIGHEST: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted by thread.
pub(crate) struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that is ending has no counters any more, and needs none.
    let _ = HELD.try_with(|held| {
        let now = held.get() + bytes;
        held.set(now);
        let _ = HIGHEST.try_with(|highest| highest.set(highest.get().max(now)));
    });
}

#[expect(
    unsafe_code,
    reason = "what an allocator is made of; the system's does the work"
)]
// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// What this does, and how many bytes more than before it held on this thread at the most.
pub(crate) fn highest_during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    HIGHEST.set(before);
    let done = work();
    let most = (HIGHEST.get() - before).max(0);
    (done, most.unsigned_abs())
}

#[test]
fn what_is_held_is_counted_and_what_is_freed_is_not() {
    let (_, most) = highest_during(|| {
        for _ in 0..100 {
            drop(std::hint::black_box(vec![0_u8; 100_000]));
        }
    });
    assert!((100_000..200_000).contains(&most), "{most}");
}
