//! What becomes of a claim whose dispatch ended without an answer.
//!
//! **Invariant:** a dispatch that is dropped half-way leaves a recorded fault and a free slot behind.

use tokio::time::Instant;

use crate::execution::Event;
use crate::model::{ExecutionId, Fence};
use crate::scheduler::Scheduler;
use crate::scheduler::decide::{Change, Release};

/// Sees a dispatch through that ended without an answer: its slot is freed and a fault recorded.
pub(super) struct DispatchGuard {
    pub(super) scheduler: Scheduler,
    pub(super) id: ExecutionId,
    /// Absent once the outcome is recorded.
    pub(super) claim: Option<(Fence, Instant)>,
}

impl Drop for DispatchGuard {
    fn drop(&mut self) {
        let Some((fence, began)) = self.claim.take() else {
            return;
        };
        let (scheduler, id) = (self.scheduler.clone(), self.id);
        // A runtime that is going away takes no tasks; the next start finds the logged claim.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        drop(self.scheduler.inner.tasks.spawn(async move {
            let cause = "the dispatch ended without an answer".to_owned();
            let change = Change {
                release: Some(Release {
                    fence,
                    began,
                    held: None,
                }),
                ..Change::of(Event::Fault { fence, cause })
            };
            if let Err(error) = scheduler.insist(id, change).await {
                tracing::error!(execution.id = %id, %error, "a fault could not be recorded");
            }
        }));
    }
}
