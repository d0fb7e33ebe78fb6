//! The line in which guests that compute for long wait for their turns.
//!
//! Guests share their threads with everything else that the plane does. One that computes gives its thread up
//! at every epoch, but what waits in the queues of the async runtime comes one epoch later for each guest that
//! stands before it: with hundreds of them, a small call waits for hundreds of epochs. So a guest that has
//! computed for a few epochs stands in line here before each further turn, outside those queues.
//!
//! **Invariant:** of the guests that computed for long, at most as many as there are turns are in the queues of
//! the async runtime; turns are given in the order in which they were asked for.

use std::sync::OnceLock;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Turns that are given at once.
#[derive(Default)]
pub(super) struct Lane {
    /// Made at the first question: only then is it known which async runtime the guests run on.
    turns: OnceLock<Semaphore>,
}

/// The right to run until the next epoch or host call; given back when it is dropped.
pub(super) struct Turn<'a>(
    #[expect(dead_code, reason = "held, never read")] Option<SemaphorePermit<'a>>,
);

impl Lane {
    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // Nobody closes the semaphore.
        let turn = self.turns().acquire().await.ok();
        // The runtime polls next whom a task woke last, and a turn is given by such a waking. Everything else
        // that is ready comes first.
        tokio::task::yield_now().await;
        Turn(turn)
    }

    /// One for each thread: fewer would leave a thread idle where there is nothing but computing to do, and
    /// all else waits for a few epochs at most, since it comes before the next turn.
    fn turns(&self) -> &Semaphore {
        self.turns.get_or_init(|| {
            let threads =
                Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
            Semaphore::new(threads.max(1))
        })
    }

    /// How many turns are free now.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.turns().available_permits()
    }
}
