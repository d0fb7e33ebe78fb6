//! One way for every decision: judge the event under the lock, make it durable, then let it be seen.
//!
//! An execution that lives in memory changes at once. A durable one is marked as settling while its
//! transition is on its way to disk; whoever comes meanwhile waits and judges the new state.
//!
//! **Invariant:** nobody sees a durable execution's new state before its commit.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::delivery::{Delivery, wake_settled};
use super::state::{Home, Live, Removed, Settling, State};
use super::uncommitted::Late;
use super::{CallError, Scheduler};
use crate::execution::{Event, Policy, Rejected, State as ExecutionState, Stepped, Streamed, step};
use crate::model::{ExecutionId, Fence, Output};
use crate::store::{self, Applied, AttemptRecord, ExecutionRecord, Guard, Transition};

/// Waits between the tries of [`Scheduler::insist`].
const INSIST_DELAY_MIN: Duration = Duration::from_millis(50);
const INSIST_DELAY_MAX: Duration = Duration::from_secs(10);

/// Decisions of [`Scheduler::decide_all`] on their way to disk at once.
const DECIDED_AT_ONCE: usize = 256;

/// An event and what comes with it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) event: Event,
    /// The result, where the event brings one.
    pub(super) output: Option<Output>,
    /// The run that ended with this event.
    pub(super) attempt: Option<AttemptRecord>,
    /// What went past, where nothing of it is kept.
    pub(super) streamed: Option<Streamed>,
    /// The claim whose slot is free now.
    pub(super) release: Option<Release>,
}

/// The end of a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Release {
    pub(super) fence: Fence,
    pub(super) began: Instant,
    /// How long its run held the slot, where that says anything about others.
    pub(super) held: Option<Duration>,
}

impl Change {
    /// An event alone.
    pub(super) fn of(event: Event) -> Self {
        Self {
            event,
            output: None,
            attempt: None,
            streamed: None,
            release: None,
        }
    }
}

/// What became of an event.
#[derive(Debug)]
pub(super) enum Decided {
    /// It was applied; the execution as it stands now.
    Done(Arc<ExecutionRecord>),
    /// It changes nothing.
    Rejected(Rejected),
    /// The execution is not live here: it has ended, or never was.
    NotLive,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and is gone before anything is waited for"
)]
enum Judged {
    Answer(Decided),
    Applied(Delivery),
    Unsettled(Unsettled),
}

/// What has to be waited for before an event is applied.
enum Unsettled {
    /// Another decision about the same execution.
    Wait(oneshot::Receiver<()>),
    /// The disk.
    Settle(Box<Transition>, Box<Stepped>),
}

impl Scheduler {
    /// Applies an event to a live execution. Must run in a task that is not dropped half-way (a dispatch,
    /// or [`Scheduler::detached`]).
    pub(super) async fn decide(
        &self,
        id: ExecutionId,
        mut change: Change,
    ) -> Result<Decided, CallError> {
        self.decide_with(id, &mut change).await
    }

    /// The same; what the decision has no use for is left in `change`.
    pub(super) async fn decide_with(
        &self,
        id: ExecutionId,
        change: &mut Change,
    ) -> Result<Decided, CallError> {
        let settling = match self.decide_at_once(id, change) {
            Ok(decided) => return Ok(decided),
            // Apart, for the future of every call has room for what only these need.
            Err(unsettled) => Box::pin(self.decide_in_time(id, change, unsettled)),
        };
        settling.await
    }

    /// Decides, unless there is something to wait for.
    fn decide_at_once(&self, id: ExecutionId, change: &mut Change) -> Result<Decided, Unsettled> {
        let (judged, claims) = {
            let mut state = self.lock();
            if let Some(release) = change.release.take() {
                self.release_locked(&mut state, release);
            }
            let judged = self.judge(&mut state, id, change);
            (judged, self.claim_ready(&mut state))
        };
        self.spawn_dispatches(claims);
        match judged {
            Judged::Answer(decided) => Ok(decided),
            Judged::Applied(delivery) => {
                let record = delivery.deliver();
                self.inner.store.tidy();
                Ok(Decided::Done(record))
            }
            Judged::Unsettled(unsettled) => Err(unsettled),
        }
    }

    /// Waits for what is to be waited for, and decides again if that was another's decision.
    async fn decide_in_time(
        &self,
        id: ExecutionId,
        change: &mut Change,
        mut unsettled: Unsettled,
    ) -> Result<Decided, CallError> {
        loop {
            match unsettled {
                Unsettled::Wait(settled) => {
                    // An error means that the execution is gone: the next look says so.
                    let _ = settled.await;
                }
                Unsettled::Settle(transition, stepped) => {
                    return self.settle(*transition, *stepped).await;
                }
            }
            match self.decide_at_once(id, change) {
                Ok(decided) => return Ok(decided),
                Err(again) => unsettled = again,
            }
        }
    }

    fn judge(&self, state: &mut State, id: ExecutionId, change: &mut Change) -> Judged {
        // The end of a run is a moment ago.
        let ended = change.attempt.as_ref().map(|attempt| attempt.finished_at);
        let now = ended.unwrap_or_else(|| self.inner.clock.now());
        let Some(live) = state.live.get_mut(&id) else {
            return Judged::Answer(Decided::NotLive);
        };
        match &mut live.settling {
            Settling::No => {}
            Settling::Accepting(waiting) | Settling::Deciding(waiting) => {
                let (sender, receiver) = oneshot::channel();
                waiting.push(sender);
                return Judged::Unsettled(Unsettled::Wait(receiver));
            }
        }
        let removed = if state.queues.knows(live.function_id) {
            Removed::No
        } else {
            Removed::Yes
        };
        let policy = self.policy(live, removed);
        let stepped = match step(&live.execution, &change.event, &policy, now) {
            Ok(stepped) => stepped,
            Err(rejected) => return Judged::Answer(Decided::Rejected(rejected)),
        };
        let attempt = change.attempt.take();
        live.note_run(attempt.as_ref(), change.streamed);
        let output = change.output.take();
        match live.home {
            Home::Memory => {
                if let Some(attempt) = attempt {
                    let bytes_max = self.inner.options.waiting_call_log_bytes_max;
                    live.attempts.add(attempt, bytes_max);
                }
                self.wake_timer_after(&stepped);
                match state.apply(id, stepped, output, now) {
                    Some(mut delivery) => {
                        // Under the lock, so that a reader finds it here or there at any time.
                        if let Some(ended) = delivery.ended.take() {
                            self.inner.store.record_ended(ended);
                        }
                        Judged::Applied(delivery)
                    }
                    None => Judged::Answer(Decided::NotLive),
                }
            }
            Home::Durable => {
                let guard = guard_of(&live.execution.state);
                live.settling = Settling::Deciding(Vec::new());
                // Out of its queue while the decision settles, so that nobody claims it meanwhile.
                if let Some(place) = live.place.take() {
                    state.queues.remove(live.function_id, place);
                }
                let next = stepped.next.clone();
                state.count_uncommitted(id, output.as_ref(), attempt.as_ref());
                let transition = Transition {
                    id,
                    guard,
                    next,
                    version: None,
                    output,
                    attempt,
                };
                Judged::Unsettled(Unsettled::Settle(Box::new(transition), Box::new(stepped)))
            }
        }
    }

    /// The rules that an execution lives under at this moment.
    pub(super) fn policy(&self, live: &Live, removed: Removed) -> Policy {
        let faults_max = self.inner.options.faults_max;
        live.policy(faults_max, removed, self.inner.dice.jitter())
    }

    /// Commits a decision and lets it be seen.
    async fn settle(&self, transition: Transition, stepped: Stepped) -> Result<Decided, CallError> {
        let id = transition.id;
        let output = transition.output.clone();
        let applied = self.write(transition).await;
        self.finish_settling(id, stepped, output, applied)
    }

    /// Makes a decision durable. A panic of the store must not leave it on its way for ever.
    pub(super) async fn write(&self, transition: Transition) -> store::Result<Applied> {
        let written = AssertUnwindSafe(self.inner.store.transition(transition)).catch_unwind();
        written.await.unwrap_or_else(|_| Err(store_panicked()))
    }

    /// Records a run that decides nothing any more: what it wrote is kept with its execution all the same.
    pub(super) async fn record_late(&self, id: ExecutionId, attempt: AttemptRecord) {
        let late = {
            let mut state = self.lock();
            if let Some(live) = state.live.get_mut(&id)
                && live.home == Home::Memory
            {
                let bytes_max = self.inner.options.waiting_call_log_bytes_max;
                live.attempts.add(attempt, bytes_max);
                return;
            }
            Late::new(self, &mut state, &attempt)
        };
        let added = AssertUnwindSafe(self.inner.store.add_attempt(id, attempt)).catch_unwind();
        if let Err(error) = added.await.unwrap_or_else(|_| Err(store_panicked())) {
            tracing::warn!(execution.id = %id, %error, "the run of an execution that had ended could not be recorded");
        }
        drop(late);
        let claims = self.claim_ready(&mut self.lock());
        self.spawn_dispatches(claims);
    }

    /// Applies an event that must not be lost: while the store refuses just this write, tries again until
    /// it is recorded or the server stops. A store that takes no writes at all is the supervisor's to restart.
    pub(super) async fn insist(
        &self,
        id: ExecutionId,
        mut change: Change,
    ) -> Result<Decided, CallError> {
        let event = change.event.clone();
        let mut delay = INSIST_DELAY_MIN;
        loop {
            let decided = self.decide(id, change).await;
            let Err(CallError::Store(store::Error::Failed(why))) = &decided else {
                return decided;
            };
            tracing::warn!(execution.id = %id, error = %why, "a decision could not be recorded: trying again");
            tokio::select! {
                biased;
                // The last chance before the store closes.
                () = self.inner.tasks.stop_token().cancelled() => {
                    return self.decide(id, Change::of(event)).await;
                }
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(INSIST_DELAY_MAX);
            change = Change::of(event.clone());
        }
    }

    /// What follows once the store has answered.
    pub(super) fn finish_settling(
        &self,
        id: ExecutionId,
        stepped: Stepped,
        output: Option<Output>,
        applied: crate::store::Result<Applied>,
    ) -> Result<Decided, CallError> {
        let now = self.inner.clock.now();
        let (result, claims) = {
            let mut state = self.lock();
            state.settled(id);
            self.wake_timer_after(&stepped);
            let result = match applied {
                Ok(Applied::Done) => Ok(state.apply(id, stepped, output, now)),
                Ok(Applied::Stale) => {
                    // The row is not what memory says: the store is the truth, memory lets go.
                    tracing::error!(execution.id = %id, "the stored row has moved on: forgetting the execution");
                    if let Some(run) = state.remove(id).and_then(|live| live.run) {
                        run.stop.cancel();
                    }
                    Ok(None)
                }
                Err(error) => {
                    state.take_back(id, now);
                    self.inner.timer.notify_one();
                    Err(error)
                }
            };
            (result, self.claim_ready(&mut state))
        };
        self.inner.calmer.notify_waiters();
        self.spawn_dispatches(claims);
        match result {
            Ok(Some(delivery)) => Ok(Decided::Done(delivery.deliver())),
            Ok(None) => Ok(Decided::NotLive),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies many events, a batch's worth at once; a failure does not keep the rest from being applied.
    pub(super) async fn decide_all(&self, events: Vec<(ExecutionId, Event)>) -> store::Result<()> {
        let mut deciding = stream::iter(events)
            .map(|(id, event)| self.insist(id, Change::of(event)))
            .buffer_unordered(DECIDED_AT_ONCE);
        let mut result = Ok(());
        while let Some(decided) = deciding.next().await {
            if let Err(CallError::Store(error)) = decided {
                result = Err(error);
            }
        }
        result
    }

    /// The timer looks again once the lock is free, if work was deferred.
    fn wake_timer_after(&self, stepped: &Stepped) {
        if stepped.effects.requeue.is_some() {
            self.inner.timer.notify_one();
        }
    }

    /// Lets an execution go that was never accepted; those who wait for it look again and find nothing.
    pub(super) fn forget(&self, state: &mut State, id: ExecutionId) {
        if let Some(live) = state.remove(id) {
            wake_settled(live.settling);
            self.inner.calmer.notify_waiters();
        }
    }

    /// Frees a claim's slot.
    pub(super) fn release_locked(&self, state: &mut State, release: Release) {
        state.free_slot(release, Instant::now());
        // Nobody waits for the last one before the stop has begun, which is noted under this lock.
        if state.stopping {
            self.inner.calmer.notify_waiters();
        }
    }
}

/// What must be true of the row of an execution in this state, for a decision about it to be written.
fn guard_of(state: &ExecutionState) -> Guard {
    match state {
        ExecutionState::Running { fence } => Guard::Claim(*fence),
        ExecutionState::Queued { .. }
        | ExecutionState::Success
        | ExecutionState::Error(_)
        | ExecutionState::Timeout(_)
        | ExecutionState::Cancelled(_) => Guard::Live,
    }
}

pub(super) fn store_panicked() -> store::Error {
    store::Error::Failed("the store panicked; the log has the details".into())
}
