//! Says to whoever serves a connection that somebody on it speaks with a function.
//!
//! **Invariant:** counts what there is: whoever held it and is gone is not counted any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One for each connection; the listener puts it into every request.
#[derive(Debug, Clone, Default)]
pub struct Attention(Arc<AtomicUsize>);

impl Attention {
    /// Whether anybody wants to know when the client leaves.
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Wants to know: the connection ends when its client leaves, and with it the request.
    pub(super) fn want(&self) -> Wanted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Wanted(self.clone())
    }
}

/// Somebody who wants to know.
#[derive(Debug)]
pub(super) struct Wanted(Attention);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_wanted_while_anybody_wants_it() {
        let attention = Attention::default();
        let first = attention.want();
        let second = attention.clone().want();
        drop(first);
        assert!(attention.is_wanted());
        drop(second);
        assert!(!attention.is_wanted());
    }
}
