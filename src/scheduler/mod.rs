//! Takes calls in, decides what runs when, runs it, and records what it came to.
//!
//! All volatile state (live executions, ready queues, claims) is one structure behind one short lock;
//! every decision about an execution is [`crate::execution::step`]'s. Work moves when something happened:
//! an enqueue, a freed slot, a due time, a changed setting. Nothing polls.
//!
//! **Invariant:** knows no HTTP, no wasmtime and no database; never holds its lock across an await.

mod admission;
mod aged;
mod call;
mod calls;
mod control;
mod decide;
mod delivery;
mod dispatch;
mod drain;
mod history;
mod keys;
mod lifecycle;
mod output;
mod queue;
mod rate;
mod reads;
mod redrive;
mod runner;
mod runtime_config;
mod serving;
mod state;
mod uncommitted;
mod waits;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub use call::{
    Call, CallError, Completed, Crowded, DrainOptions, Drained, Enqueued, Finalized, Invoked,
    Options, Rated, body_hash,
};
pub use lifecycle::Parts;
pub use output::classify;
pub use redrive::{Failed, Mode as RedriveMode, Redrive, Redriven};
pub use runner::{PlaneRunner, Runner};
pub use runtime_config::{RuntimeChange, RuntimeConfigError};
pub use serving::Serving;

use crate::clock::Clock;
use crate::model::Dice;
use crate::observe::Metrics;
use crate::registry::Registry;
use crate::shutdown::Tasks;
use crate::store::{self, Store};
use keys::Keys;
use state::State;

/// A cheap handle on the scheduler.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    clock: Clock,
    dice: Dice,
    store: Arc<dyn Store>,
    registry: Registry,
    runner: Arc<dyn Runner>,
    metrics: Metrics,
    tasks: Tasks,
    state: Mutex<State>,
    /// Who makes an execution under which key.
    keys: Keys,
    /// The earliest due time may have changed.
    timer: Notify,
    /// A claim was released or a decision settled; who waits for the last one looks again.
    calmer: Notify,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}

impl Scheduler {
    /// The state. A panic under the lock leaves it as consistent as its methods are (each finishes its
    /// change before it can fail), so a poisoned lock is taken all the same: one bad call must not end
    /// the plane.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs to its end even if the caller goes away: what was sent to the store must be seen through.
    async fn detached<T, F>(&self, task: F) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        // In one allocation: a task is copied several times while it is made.
        match self.inner.tasks.spawn(Box::pin(task)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Store(store::Error::Failed(
                "an internal task ended unexpectedly".into(),
            ))),
        }
    }
}
