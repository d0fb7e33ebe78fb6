//! Calls whose caller speaks with the function while it runs: one attempt, no retry, no requeue.
//!
//! **Invariant:** what happens to such a call ends with its caller: nothing of it waits, is tried again or is
//! kept but a summary.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::state::{Direct, Home};
use super::{Call, CallError, Scheduler};
use crate::model::ExecutionId;
use crate::registry::Function;
use crate::runtime::Exchange;
use crate::store::ExecutionRecord;

/// A call under way whose caller speaks with the function. Dropping it means that the caller hung up: the
/// execution ends as `timeout` `CALLER_GONE` and its guest is stopped.
#[derive(Debug)]
pub struct Serving {
    scheduler: Scheduler,
    id: ExecutionId,
    until: Instant,
    /// Taken when there is nothing to wait for any more.
    result: Option<oneshot::Receiver<Arc<ExecutionRecord>>>,
}

impl Scheduler {
    /// Calls the active version of `function`, as it stands in this snapshot, for a caller who speaks with it
    /// through `exchange`. The version's `timeoutMs` bounds the whole of it, queueing included.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn serve(
        &self,
        function: &Arc<Function>,
        call: Call,
        exchange: Exchange,
    ) -> Result<Serving, CallError> {
        self.admit_found(function)?;
        let wait = Duration::from_millis(function.active.spec.timeout_ms);
        let until = Instant::now() + call.wait.unwrap_or(wait);
        let now = self.inner.clock.now();
        let id = ExecutionId::new(now);
        let (waiter, result) = oneshot::channel();
        let mut live = super::calls::new_live(function, call, id, now, Home::Memory);
        live.waiters.push(waiter);
        live.caller_until = Some(until);
        live.direct = Some(Direct {
            exchange: Some(exchange),
            output_bytes: None,
        });
        self.start_in_memory(function, live)?;
        Ok(Serving {
            scheduler: self.clone(),
            id,
            until,
            result: Some(result),
        })
    }
}

impl Serving {
    /// The execution.
    pub fn id(&self) -> ExecutionId {
        self.id
    }

    /// How the execution ended; when time is over, it ends as `timeout`. Can be given up and asked again.
    ///
    /// # Errors
    /// [`CallError::Stopping`]: it will not end before the restart.
    pub async fn ended(&mut self) -> Result<Arc<ExecutionRecord>, CallError> {
        let Some(result) = &mut self.result else {
            return Err(CallError::Stopping);
        };
        let ended = self.scheduler.wait_or_expire(self.id, result, self.until);
        let ended = ended.await;
        self.result = None;
        ended
    }

    /// The caller has all that it wanted; the function may work on.
    pub fn leave(mut self) {
        self.result = None;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Of one that has ended nobody can hang up any more.
        if let Some(mut result) = self.result.take()
            && result.try_recv().is_err()
        {
            self.scheduler.caller_gone(self.id);
        }
    }
}
