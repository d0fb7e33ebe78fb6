//! Calls whose caller speaks with the function while it runs: one attempt, no retry, no requeue.
//!
//! **Invariant:** what happens to such a call ends with its caller: nothing of it waits, is tried again or is
//! kept but a summary.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::QueueLimit;
use super::calls::Started;
use super::decide::Change;
use super::state::Direct;
use super::waits::{CUT_RUN_ENDS_WITHIN, Coming};
use super::{Call, CallError, Scheduler};
use crate::execution::Event;
use crate::model::ExecutionId;
use crate::registry::Function;
use crate::runtime::Exchange;
use crate::store::ExecutionRecord;

/// A call under way whose caller speaks with the function. Dropping it means that the caller hung up: the
/// execution ends as `timeout` `CALLER_GONE` and its guest is stopped.
#[derive(Debug)]
pub struct Serving {
    scheduler: Scheduler,
    function: Arc<Function>,
    id: ExecutionId,
    until: Instant,
    /// Until when it may wait in its queue, if that comes first.
    queue_limit: Option<QueueLimit>,
    /// Taken when there is nothing to wait for any more.
    result: Option<Coming>,
}

impl Scheduler {
    /// Calls the active version of `function`, as it stands in this snapshot, for a caller who speaks with it
    /// through `exchange`. The version's `timeoutMs` bounds the whole of it, queueing included.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn serve<'a>(
        &'a self,
        function: &'a Arc<Function>,
        call: Call,
        exchange: Exchange,
    ) -> impl Future<Output = Result<Serving, CallError>> + Send + 'a {
        let direct = Direct {
            exchange: Some(Box::new(exchange)),
            is_gone: false,
            output_bytes: None,
        };
        // What this block captures is there once; an async function would hold what it is given twice.
        async move {
            let timeout = Duration::from_millis(function.active.spec.timeout_ms);
            let wait = call.wait.unwrap_or(timeout);
            let Started {
                id,
                own,
                result,
                until,
                queue_limit,
            } = self.start_in_memory(function, call, wait, Some(direct))?;
            if let Some(dispatch) = own {
                // One that answers without waiting for anything needs no task and wakes nobody.
                self.dispatch_here(dispatch).await;
            }
            Ok(Serving {
                scheduler: self.clone(),
                function: Arc::clone(function),
                id,
                until,
                queue_limit,
                result: Some(result),
            })
        }
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
    /// [`CallError::Stopping`]: it will not end before the restart. [`CallError::QueueFull`]: it waited too
    /// long in its queue and never began.
    pub async fn ended(&mut self) -> Result<Arc<ExecutionRecord>, CallError> {
        let Some(result) = &mut self.result else {
            return Err(CallError::Stopping);
        };
        let (scheduler, until) = (&self.scheduler, self.until);
        let ended = match self.queue_limit {
            None => scheduler.wait_or_expire(self.id, result, until).await,
            Some(limit) => {
                scheduler
                    .wait_in_queue_first(&self.function, self.id, result, until, limit)
                    .await
            }
        };
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
            self.scheduler.direct_caller_gone(self.id, result);
        }
    }
}

impl Scheduler {
    /// The caller who spoke with a function has hung up. A run is stopped first and waited for a little, so that
    /// what it wrote and how much went past is recorded.
    fn direct_caller_gone(&self, id: ExecutionId, result: Coming) {
        let scheduler = self.clone();
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        drop(self.inner.tasks.spawn(async move {
            if let Some(stop) = scheduler.mark_gone(id) {
                stop.cancel();
                if tokio::time::timeout(CUT_RUN_ENDS_WITHIN, result)
                    .await
                    .is_ok()
                {
                    return;
                }
            }
            // It lives in memory, so nothing can fail but finding it ended already.
            let _ = scheduler.decide(id, Change::of(Event::CallerGone)).await;
        }));
    }

    /// Notes that the caller has gone; how to stop the run, if there is one.
    fn mark_gone(&self, id: ExecutionId) -> Option<CancellationToken> {
        let mut state = self.lock();
        let live = state.live.get_mut(&id)?;
        if let Some(direct) = &mut live.direct {
            direct.is_gone = true;
        }
        live.run.as_ref().map(|run| run.stop.clone())
    }

    /// Whether a run was stopped because the caller who spoke with the function has gone.
    pub(super) fn is_caller_gone(&self, id: ExecutionId) -> bool {
        let state = self.lock();
        let direct = state.live.get(&id).and_then(|live| live.direct.as_ref());
        direct.is_some_and(|direct| direct.is_gone)
    }
}
