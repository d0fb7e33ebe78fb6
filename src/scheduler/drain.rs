//! Work moved by hand: dispatch, and wait until what it came to is recorded.
//!
//! **Invariant:** a drain answers only after every dispatch it made has been finalized; dropping a drain
//! cancels no dispatch.

use std::collections::HashSet;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dispatch::{Claimed, Now};
use super::queue::{Early, Taken};
use super::state::State;
use super::{CallError, DrainOptions, Drained, Finalized, Scheduler};
use crate::execution::{ClaimWhen, Status};
use crate::model::{ExecutionId, FunctionId, FunctionName};

/// What one tick did.
pub(super) enum Ticked {
    Dispatched(JoinHandle<Finalized>),
    Busy,
    Empty,
}

/// What there was to take.
enum ByHand {
    Claimed(Box<Claimed>),
    Busy,
    Empty,
}

impl Ticked {
    pub(super) fn into_handle(self) -> Option<JoinHandle<Finalized>> {
        match self {
            Self::Dispatched(handle) => Some(handle),
            Self::Busy | Self::Empty => None,
        }
    }
}

impl Scheduler {
    /// Claims at most one execution of a function and spawns its dispatch.
    pub(super) fn tick(
        &self,
        function: &FunctionName,
        early: Early,
        skip: &HashSet<ExecutionId>,
    ) -> Result<Ticked, CallError> {
        let found = self.inner.registry.get(function);
        let function = found.ok_or_else(|| CallError::UnknownFunction(function.clone()))?;
        let (taken, claims) = {
            let mut state = self.lock();
            if state.stopping {
                return Err(CallError::Stopping);
            }
            self.promote_due(&mut state);
            let taken = self.take_by_hand(&mut state, function.id, early, skip);
            // What came due just now may be of other functions, too.
            (taken, self.claim_ready(&mut state))
        };
        self.spawn_dispatches(claims);
        Ok(match taken {
            ByHand::Claimed(claimed) => Ticked::Dispatched(self.spawn_dispatch(*claimed)),
            ByHand::Busy => Ticked::Busy,
            ByHand::Empty => Ticked::Empty,
        })
    }

    fn take_by_hand(
        &self,
        state: &mut State,
        function: FunctionId,
        early: Early,
        skip: &HashSet<ExecutionId>,
    ) -> ByHand {
        let when = match early {
            Early::DueOnly => ClaimWhen::Due,
            Early::AnyTime => ClaimWhen::Now,
        };
        if self.is_behind(state) {
            return ByHand::Busy;
        }
        loop {
            let now = Now {
                instant: Instant::now(),
                time: self.inner.clock.now(),
            };
            match state.queues.take_of(function, early, skip, now.instant) {
                Taken::Busy => return ByHand::Busy,
                Taken::Empty => return ByHand::Empty,
                Taken::Next(id) => {
                    if let Some(claimed) = self.claim_locked(state, id, when, now) {
                        return ByHand::Claimed(Box::new(claimed));
                    }
                }
            }
        }
    }

    /// Dispatches by hand and waits for every dispatch to be recorded: ready work first, then the earliest
    /// deferred, whatever its due time, unless the schedule is to be respected. Without `recursive` each
    /// execution runs at most once; with it the drain goes on through retries and new work until nothing
    /// is left but what asked to be run later.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`], [`CallError::Stopping`].
    pub async fn drain(
        &self,
        function: &FunctionName,
        options: DrainOptions,
    ) -> Result<Drained, CallError> {
        let default_limit = if options.recursive { 10_000 } else { 1 };
        let limit = options.limit.unwrap_or(default_limit);
        let early = if options.respect_schedule {
            Early::DueOnly
        } else {
            Early::AnyTime
        };
        let mut drained = Drained::default();
        let mut skip = HashSet::new();
        for _ in 0..limit {
            let handle = match self.tick(function, early, &skip)? {
                Ticked::Dispatched(handle) => handle,
                Ticked::Busy => {
                    drained.busy = true;
                    break;
                }
                Ticked::Empty => break,
            };
            // The handle fails only if the runtime is going away.
            let finalized = handle.await.map_err(|_| CallError::Stopping)?;
            if !options.recursive || self.came_back_unspent(finalized) {
                skip.insert(finalized.execution_id);
            }
            drained.items.push(finalized);
        }
        Ok(drained)
    }

    /// Whether an execution is queued again without having spent an attempt: a requeue or a fault.
    fn came_back_unspent(&self, finalized: Finalized) -> bool {
        if finalized.status != Status::Queued {
            return false;
        }
        let state = self.lock();
        let live = state.live.get(&finalized.execution_id);
        live.is_some_and(|live| live.unspent)
    }
}
