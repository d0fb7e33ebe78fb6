//! Tells a guest that really waits from one that only has to be asked again.
//!
//! In WASI 0.3 a guest's tasks move each other along through wakers: a poll may return with nothing done because
//! what it waited for came about in the very same poll.
//!
//! **Invariant:** every wake-up reaches whoever polls; noting it comes on top.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// A waker that remembers.
pub(super) struct Nudge {
    was_woken: AtomicBool,
    outer: Mutex<Option<Waker>>,
}

impl Nudge {
    /// Nobody was woken yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            was_woken: AtomicBool::new(false),
            outer: Mutex::new(None),
        })
    }

    /// Before a poll in this context: forgets what was, and passes on what comes.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        self.was_woken.store(false, Ordering::Relaxed);
        let mut outer = self.outer.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *outer {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Whether anybody was woken since [`Nudge::listen`].
    pub(super) fn was_woken(&self) -> bool {
        self.was_woken.load(Ordering::Relaxed)
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.was_woken.store(true, Ordering::Relaxed);
        let outer = self.outer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*outer {
            waker.wake_by_ref();
        }
    }
}
