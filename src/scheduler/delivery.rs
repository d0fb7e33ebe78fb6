//! What has to be told once the lock is released.
//!
//! **Invariant:** whoever makes one delivers it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::state::{Settling, Waiter};
use crate::store::{EndedExecution, ExecutionRecord};

/// A result that is final: to be told to those who wait, once the lock is released.
#[derive(Debug)]
#[must_use = "waiters hang until it is delivered"]
pub(super) struct Delivery {
    pub(super) record: Arc<ExecutionRecord>,
    pub(super) ended: Option<EndedExecution>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) stop: Option<CancellationToken>,
}

impl Delivery {
    /// Wakes everybody concerned. A waiter that has gone is nobody's problem.
    pub(super) fn deliver(self) -> Arc<ExecutionRecord> {
        if let Some(stop) = self.stop {
            stop.cancel();
        }
        for waiter in self.waiters {
            let _ = waiter.send(Arc::clone(&self.record));
        }
        self.record
    }
}

/// Tells those who waited for a decision that it is made. Dropping the senders says the same.
pub(super) fn wake_settled(settling: Settling) {
    match settling {
        Settling::No => {}
        Settling::Accepting(waiting) | Settling::Deciding(waiting) => {
            for sender in waiting {
                let _ = sender.send(());
            }
        }
    }
}
