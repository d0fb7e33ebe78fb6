//! How callers wait for results, and what ends their waiting.
//!
//! **Invariant:** every wait ends: by a result, by its own limit, or because the server stops. A caller that
//! hangs up leaves no waiter behind.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admission::QueueLimit;
use super::decide::{Change, Decided};
use super::{CallError, Scheduler};
use crate::execution::{Event, Status};
use crate::model::ExecutionId;
use crate::registry::Function;
use crate::store::ExecutionRecord;

/// How long a run may take to end once its caller's time is over. Its own limit is the same moment; guests
/// and calls to services end a millisecond or two after it.
pub(super) const CUT_RUN_ENDS_WITHIN: Duration = Duration::from_millis(50);

/// A result that is on its way.
pub(super) type Coming = oneshot::Receiver<Arc<ExecutionRecord>>;

/// What asking for a result came to.
enum Subscribed {
    Waits(Coming),
    /// It has ended: the store knows how.
    Ended,
    /// It will not run before the restart.
    Stopping,
}

impl Scheduler {
    /// Waits for a result of this caller's own execution, which lives in memory; when it has not begun by the
    /// end of what a call may wait in its queue, ends it and gives the call back.
    pub(super) async fn wait_in_queue_first(
        &self,
        function: &Function,
        id: ExecutionId,
        result: &mut Coming,
        until: Instant,
        limit: QueueLimit,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        // See below: no timer is needed for a result that is there.
        if let Some(ended) = poll_immediate(&mut *result).await {
            return ended.map_err(|_| CallError::Stopping);
        }
        if let Ok(ended) = tokio::time::timeout_at(limit.until, &mut *result).await {
            return ended.map_err(|_| CallError::Stopping);
        }
        let event = Event::QueueTimeout {
            limit_ms: u64::try_from(limit.limit.as_millis()).unwrap_or(u64::MAX),
        };
        match self.decide(id, Change::of(event)).await? {
            Decided::Done(_) => Err(self.given_back(function, id, limit.limit)),
            // It has begun, or ended.
            Decided::Rejected(_) | Decided::NotLive => self.wait_or_expire(id, result, until).await,
        }
    }

    /// What is said of an execution whose caller's time is over.
    pub(super) fn expiry(&self) -> Event {
        Event::Expire {
            by_hand: self.inner.options.manual,
        }
    }

    /// Waits for a result of this caller's own execution; when time is over, ends the execution.
    pub(super) async fn wait_or_expire(
        &self,
        id: ExecutionId,
        result: &mut Coming,
        until: Instant,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        if let Some(ended) = self.ended_by(id, until, result).await {
            return ended.map_err(|_| CallError::Stopping);
        }
        match self.decide(id, Change::of(self.expiry())).await? {
            Decided::Done(execution) => Ok(execution),
            // The result and the end of the wait met: the result is on its way.
            Decided::Rejected(_) | Decided::NotLive => {
                result.await.map_err(|_| CallError::Stopping)
            }
        }
    }

    /// The result, or that there will be none, if that is known when the caller's time is over. A run that
    /// is being cut for it is waited for a little longer, so that what it wrote is kept.
    async fn ended_by(
        &self,
        id: ExecutionId,
        until: Instant,
        result: &mut Coming,
    ) -> Option<Result<Arc<ExecutionRecord>, RecvError>> {
        // There already, nearly always: the caller itself has dispatched it. No timer is needed then.
        if let Some(ended) = poll_immediate(&mut *result).await {
            return Some(ended);
        }
        if let Ok(ended) = tokio::time::timeout_at(until, &mut *result).await {
            return Some(ended);
        }
        let runs = {
            let state = self.lock();
            state.live.get(&id).is_some_and(|live| live.run.is_some())
        };
        if !runs {
            return None;
        }
        tokio::time::timeout(CUT_RUN_ENDS_WITHIN, result).await.ok()
    }

    /// Waits for a keyed call's own execution in a task of its own, since the execution ends when the
    /// creator's time is over whether the creator still waits or not.
    pub(super) fn see_through(
        &self,
        id: ExecutionId,
        until: Instant,
    ) -> JoinHandle<Result<Arc<ExecutionRecord>, CallError>> {
        let scheduler = self.clone();
        self.inner
            .tasks
            .spawn(async move { scheduler.result_or_expire(id, until).await })
    }

    async fn result_or_expire(
        &self,
        id: ExecutionId,
        until: Instant,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        let mut result = match self.subscribe(id) {
            Subscribed::Stopping => return Err(CallError::StoppingFirst(id)),
            Subscribed::Ended => return self.must_exist(id).await,
            Subscribed::Waits(result) => result,
        };
        // A stop ends the wait only: a decision that has begun is seen through.
        tokio::select! {
            biased;
            () = self.inner.tasks.stop_token().cancelled() => return Err(CallError::StoppingFirst(id)),
            ended = self.ended_by(id, until, &mut result) => match ended {
                Some(Ok(execution)) => return Ok(execution),
                Some(Err(_)) if !self.is_accepting() => return Err(CallError::StoppingFirst(id)),
                Some(Err(_)) => return self.must_exist(id).await,
                None => {}
            },
        }
        match self.insist(id, Change::of(self.expiry())).await? {
            Decided::Done(execution) => Ok(execution),
            Decided::Rejected(_) | Decided::NotLive => self.must_exist(id).await,
        }
    }

    /// Waits for somebody else's execution, at most until `until`; then tells how it stands.
    pub(super) async fn wait_for(
        &self,
        id: ExecutionId,
        until: Instant,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        match self.subscribe(id) {
            Subscribed::Waits(result) => {
                if let Ok(Ok(execution)) = tokio::time::timeout_at(until, result).await {
                    return Ok(execution);
                }
            }
            Subscribed::Ended | Subscribed::Stopping => {}
        }
        self.must_exist(id).await
    }

    fn subscribe(&self, id: ExecutionId) -> Subscribed {
        let mut state = self.lock();
        let stopping = state.stopping;
        let Some(live) = state.live.get_mut(&id) else {
            return Subscribed::Ended;
        };
        if stopping && live.execution.status() != Status::Running {
            return Subscribed::Stopping;
        }
        let (waiter, result) = oneshot::channel();
        live.waiters.retain(|waiter| !waiter.is_closed());
        live.waiters.push(waiter);
        Subscribed::Waits(result)
    }

    /// An execution that somebody was told of; keys can be remembered for longer.
    pub(super) async fn must_exist(
        &self,
        id: ExecutionId,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        let found = self.execution(id).await?;
        found.ok_or(CallError::Forgotten(id))
    }
}

/// Ends the execution of a caller that hung up.
pub(super) struct CallerGuard<'a> {
    pub(super) scheduler: &'a Scheduler,
    pub(super) id: Option<ExecutionId>,
}

impl Drop for CallerGuard<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else {
            return;
        };
        let scheduler = self.scheduler.clone();
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        drop(self.scheduler.inner.tasks.spawn(async move {
            // It lives in memory, so nothing can fail but finding it ended already.
            let _ = scheduler.decide(id, Change::of(Event::CallerGone)).await;
        }));
    }
}
