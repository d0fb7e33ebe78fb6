//! Work that has grown too old to run: set aside when its turn comes, and ended a few at a time.
//!
//! After an outage a whole backlog may be too old at once. What is set aside is an id; only so many of them are on
//! their way to disk at any moment, and no look for work goes through more than a part of a backlog.
//!
//! **Invariant:** while something is set aside, somebody is ending it, unless the plane stops; then the next start
//! finds it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::execution::{ClaimWhen, Event, State as ExecutionState};
use crate::model::{ExecutionId, Timestamp};
use crate::scheduler::decide::{Change, Decided};
use crate::scheduler::dispatch::{Claimed, Now};
use crate::scheduler::state::{Removed, Settling, State};
use crate::scheduler::{Finalized, Scheduler};

/// Ends on their way to disk at once. (Few in tests, so that simulations reach it.)
pub(super) const AGED_AT_ONCE: usize = if cfg!(test) { 3 } else { 256 };

/// What is set aside at most in one look for work, under the lock; the timer goes on with the rest.
const AGED_IN_ONE_LOOK: usize = if cfg!(test) { 4 } else { 1_024 };

/// What is set aside.
#[derive(Debug, Default)]
pub(super) struct Aged {
    waiting: VecDeque<ExecutionId>,
    /// Tasks that end what waits.
    at_work: Arc<AtomicUsize>,
    /// The last look for work stopped half-way.
    is_more: bool,
}

impl Aged {
    /// Whether nothing is set aside or being ended.
    #[cfg(test)]
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.at_work() == 0
    }

    /// Whether the last look for work stopped half-way.
    #[cfg(test)]
    pub(super) fn is_more(&self) -> bool {
        self.is_more
    }

    /// Tasks that end what waits.
    pub(super) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::SeqCst)
    }
}

impl Scheduler {
    /// Claims all that can run now, unless work is moved by hand.
    pub(super) fn claim_ready(&self, state: &mut State) -> Vec<Claimed> {
        let mut claims = Vec::new();
        if self.inner.options.manual || state.stopping || self.is_behind(state) {
            return claims;
        }
        state.aged.is_more = false;
        // Most looks find nothing, and need not know the time.
        if state.queues.is_idle() {
            self.end_aged(state);
            return claims;
        }
        let now = Now {
            instant: Instant::now(),
            time: self.inner.clock.now(),
        };
        let mut aged = 0;
        while let Some((_, id, _)) = state.queues.take_any(now.instant) {
            if !self.set_aside(state, id, now.time) {
                if let Some(claimed) = self.claim_locked(state, id, ClaimWhen::Due, now) {
                    // Nearly always it is the only one, and large: room for just one, not for the usual four.
                    if claims.is_empty() {
                        claims.reserve_exact(1);
                    }
                    claims.push(claimed);
                }
                continue;
            }
            aged += 1;
            if aged == AGED_IN_ONE_LOOK {
                state.aged.is_more = true;
                self.inner.timer.notify_one();
                break;
            }
        }
        self.end_aged(state);
        let wakes_at = state.queues.wakes_at();
        if wakes_at.is_some() && wakes_at != state.timer_told {
            state.timer_told = wakes_at;
            self.inner.timer.notify_one();
        }
        claims
    }

    /// Sets one that has just left its queue aside, if it is too old to run.
    fn set_aside(&self, state: &mut State, id: ExecutionId, now: Timestamp) -> bool {
        let Some(live) = state.live.get_mut(&id) else {
            return false;
        };
        let policy = self.policy(live, Removed::No);
        if !live.execution.is_too_old(&policy, now) {
            return false;
        }
        live.place = None;
        state.aged.waiting.push_back(id);
        true
    }

    /// Sees to it that what is set aside is being ended.
    fn end_aged(&self, state: &State) {
        let aged = &state.aged;
        let idle = AGED_AT_ONCE.saturating_sub(aged.at_work());
        for _ in 0..idle.min(aged.waiting.len()) {
            let ager = Ager::new(self, &aged.at_work);
            drop(self.inner.tasks.spawn(async move { ager.work().await }));
        }
    }

    /// Ends one that is too old to run.
    pub(super) async fn age_out(&self, id: ExecutionId) -> Finalized {
        let decided = self.decide(id, Change::of(Event::AgeOut)).await;
        if let Ok(Decided::Rejected(_)) = decided {
            self.put_back(id);
        }
        self.finalized(id, decided).await
    }

    /// Queues what left its queue and was not ended after all (the wall clock was set back in between).
    fn put_back(&self, id: ExecutionId) {
        let now = self.inner.clock.now();
        let mut state = self.lock();
        let Some(live) = state.live.get(&id) else {
            return;
        };
        if let ExecutionState::Queued { due } = live.execution.state
            && live.place.is_none()
            && matches!(live.settling, Settling::No)
        {
            state.push(id, due, now);
            self.inner.timer.notify_one();
        }
    }
}

/// A task that ends what is set aside, one after the other. As long as it lives it is counted.
struct Ager {
    scheduler: Scheduler,
    at_work: Option<Arc<AtomicUsize>>,
}

impl Ager {
    fn new(scheduler: &Scheduler, at_work: &Arc<AtomicUsize>) -> Self {
        at_work.fetch_add(1, Ordering::SeqCst);
        Self {
            scheduler: scheduler.clone(),
            at_work: Some(Arc::clone(at_work)),
        }
    }

    async fn work(mut self) {
        while let Some(id) = self.next() {
            // Its own allocation: it is large.
            Box::pin(self.scheduler.age_out(id)).await;
        }
    }

    fn next(&mut self) -> Option<ExecutionId> {
        let scheduler = self.scheduler.clone();
        let mut state = scheduler.lock();
        let next = match state.stopping {
            true => None,
            false => state.aged.waiting.pop_front(),
        };
        if next.is_none() {
            // Under the lock: what is set aside from now on finds that it has gone.
            self.leave();
        }
        next
    }

    fn leave(&mut self) {
        if let Some(at_work) = self.at_work.take() {
            at_work.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Ager {
    /// Takes no lock: a runtime that is going away drops what is spawned under it.
    fn drop(&mut self) {
        self.leave();
    }
}
