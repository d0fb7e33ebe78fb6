//! Long-running tasks and how they stop: one token that says stop, one tracker that counts who still runs.
//!
//! **Invariant:** the only place that spawns tasks, so that a stop can wait for all of them.

#[cfg(test)]
pub(crate) mod chaos;

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A cheap handle on the process's tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    #[cfg(test)]
    chaos: Option<chaos::Chaos>,
}

impl Tasks {
    /// Spawns a task that a stop waits for. A long-running one watches [`Tasks::stop_token`].
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        #[cfg(test)]
        if let Some(chaos) = &self.chaos {
            return self.tracker.spawn(chaos.wrap(task));
        }
        self.tracker.spawn(task)
    }

    /// Tasks of a process in a simulation.
    #[cfg(test)]
    pub(crate) fn of(chaos: &chaos::Chaos) -> Self {
        Self {
            chaos: Some(chaos.clone()),
            ..Self::default()
        }
    }

    /// Cancelled when everything should end.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Says stop, and waits until every task has ended.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
