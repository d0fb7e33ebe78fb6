//! Claim → run → finalize, as one spawned task with a handle.
//!
//! **Invariant:** a claim's slot is released exactly once and its execution never stays `running`, whatever
//! happens in between: an answer, a panic, a stop.

mod guard;
mod status;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::poll_immediate;
use guard::DispatchGuard;
use status::status_of;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::decide::{Change, Release};
use super::output::classify;
use super::queue::{Class, Lane};
use super::runner::class_of;
use super::state::{ClaimLog, Home, Live, Removed, Run, Settling, State};
use super::{CallError, Finalized, Scheduler};
use crate::execution::{Attempt, ClaimWhen, Event, Outcome, Ran, Rejected, step};
use crate::model::{ExecutionId, Failure, Fence, FunctionName, Timestamp, Version};
use crate::observe::FunctionMetrics;
use crate::runtime::Exchange;
use crate::store::{self, AttemptRecord, ClaimRecord, Request};

/// A claim that has a slot and waits to be dispatched.
#[derive(Debug)]
pub(super) struct Claimed {
    id: ExecutionId,
    fence: Fence,
    function: FunctionName,
    version: Arc<Version>,
    number: u32,
    requeues: u32,
    faults: u32,
    request: Option<Arc<Request>>,
    trace_id: Option<Arc<str>>,
    caller_until: Option<Instant>,
    claim_log: ClaimLog,
    stop: CancellationToken,
    began_at: Timestamp,
    began: Instant,
    metrics: Option<Arc<FunctionMetrics>>,
    kind: ClaimKind,
    caller: Speaks,
}

/// The time, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) time: Timestamp,
}

/// Whether a claim's caller speaks with the function.
#[derive(Debug)]
enum Speaks {
    No,
    /// The way there; taken by the run.
    Directly(Option<Box<Exchange>>),
}

impl Speaks {
    fn of(live: &mut Live) -> Self {
        match &mut live.direct {
            None => Self::No,
            Some(direct) => Self::Directly(direct.exchange.take()),
        }
    }
}

/// What a claim is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimKind {
    /// Run it.
    Run,
    /// It is too old to run: end it. Takes no slot.
    AgeOut,
}

impl Claimed {
    /// Whether it is a guest's run for this execution.
    pub(super) fn is_guest_of(&self, id: ExecutionId) -> bool {
        self.id == id && self.kind == ClaimKind::Run && class_of(&self.version.code) == Class::Guest
    }

    /// Counts its beginning, after it waited for so long.
    fn count(&self, lane: Lane, waited: Duration) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        metrics.waited(waited);
        if lane == Lane::Caller {
            metrics.sync_queue().waited(waited);
        }
        metrics.dispatched();
    }

    /// What became of an attempt: a fault of ours is for whoever runs the plane to see, the rest is a matter
    /// between the function and its callers. Nothing that a guest said is in it.
    fn log(&self, event: &Event, outcome: &'static str) {
        let trace_id = self.trace_id.as_deref();
        if let Event::Fault { cause, .. } = event {
            tracing::warn!(
                execution.id = %self.id,
                function.name = %self.function,
                function.version = self.version.number.0,
                attempt = self.number,
                trace.id = trace_id,
                error = cause,
                "an attempt failed through a fault of ours"
            );
        } else {
            tracing::debug!(
                execution.id = %self.id,
                function.name = %self.function,
                function.version = self.version.number.0,
                attempt = self.number,
                trace.id = trace_id,
                outcome,
                "an attempt ended"
            );
        }
    }
}

impl Scheduler {
    /// Claims the next ready execution of a function and spawns its dispatch; `None` if nothing is ready
    /// or no slot is free. The handle ends once the outcome is recorded.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`], [`CallError::Stopping`].
    pub fn tick_once(
        &self,
        function: &FunctionName,
    ) -> Result<Option<JoinHandle<Finalized>>, CallError> {
        let none = std::collections::HashSet::new();
        let ticked = self.tick(function, super::queue::Early::DueOnly, &none)?;
        Ok(ticked.into_handle())
    }

    /// Turns an execution that has just left its queue into a claim with a slot.
    pub(super) fn claim_locked(
        &self,
        state: &mut State,
        id: ExecutionId,
        when: ClaimWhen,
        Now {
            instant: began,
            time: now,
        }: Now,
    ) -> Option<Claimed> {
        let fence = state.next_fence();
        let live = state.live.get_mut(&id)?;
        live.place = None;
        if !matches!(live.settling, Settling::No) {
            return None;
        }
        let policy = self.policy(live, Removed::No);
        let too_old = live.execution.is_too_old(&policy, now);
        if !too_old {
            let event = Event::Claim { fence, when };
            match step(&live.execution, &event, &policy, now) {
                Ok(stepped) => live.execution = stepped.next,
                Err(Rejected::NotDue(due)) => {
                    // The wall clock was set back since it came due.
                    state.push(id, due, now);
                    self.inner.timer.notify_one();
                    return None;
                }
                Err(reason) => {
                    tracing::error!(execution.id = %id, %reason, "a queued execution could not be claimed");
                    return None;
                }
            }
        }
        let stop = CancellationToken::new();
        let claimed = Claimed {
            id,
            fence,
            function: live.function.clone(),
            version: Arc::clone(&live.version),
            number: live.execution.attempts,
            requeues: live.execution.requeues,
            faults: live.execution.faults,
            request: live.request.clone(),
            trace_id: live.trace_id.clone(),
            caller_until: live.caller_until,
            claim_log: live.claim_log,
            stop: stop.clone(),
            began_at: now,
            began,
            metrics: state
                .functions
                .get(&live.function_id)
                .map(|function| Arc::clone(&function.metrics)),
            kind: match too_old {
                true => ClaimKind::AgeOut,
                false => ClaimKind::Run,
            },
            caller: Speaks::of(live),
        };
        if too_old {
            return Some(claimed);
        }
        live.run = Some(Run { stop });
        let (home, function_id) = (live.home, live.function_id);
        let (lane, waited) = (live.lane(), began.saturating_duration_since(live.ready));
        let item = live.item(state.suspect_faults);
        state.take_slot(function_id, item, fence, began);
        if home == Home::Durable {
            self.inner.store.log_claim(ClaimRecord {
                id,
                fence,
                attempt: claimed.number,
                at: now,
            });
        }
        claimed.count(lane, waited);
        Some(claimed)
    }

    /// Spawns dispatches; the background way, where nobody waits for a handle.
    pub(super) fn spawn_dispatches(&self, claims: Vec<Claimed>) {
        for claimed in claims {
            drop(self.spawn_dispatch(claimed));
        }
    }

    /// Spawns one dispatch.
    pub(super) fn spawn_dispatch(&self, claimed: Claimed) -> JoinHandle<Finalized> {
        self.inner.tasks.spawn(self.dispatching(claimed))
    }

    /// Dispatches as far as it goes without waiting, in the task of the caller that waits for it: most guests
    /// wait for nothing, and then no task has to be made and woken. What does wait goes on in a task of its
    /// own, so that it never depends on whether its caller asks again.
    pub(super) async fn dispatch_here(&self, mut dispatch: Dispatching) {
        if poll_immediate(&mut dispatch).await.is_none() {
            drop(self.inner.tasks.spawn(dispatch));
        }
    }

    /// A claim's dispatch, from the run to the record of its outcome.
    ///
    /// One allocation now: a task is copied several times while it is made, and this future is large. What the block
    /// captures is there once; an async function would hold what it is given twice.
    pub(super) fn dispatching(&self, mut claimed: Claimed) -> Dispatching {
        let scheduler = self.clone();
        Box::pin(async move {
            if claimed.kind == ClaimKind::AgeOut {
                return Box::pin(scheduler.age_out(claimed.id)).await;
            }
            let mut guard = DispatchGuard {
                scheduler: scheduler.clone(),
                id: claimed.id,
                claim: Some((claimed.fence, claimed.began)),
            };
            let running = AssertUnwindSafe(scheduler.run(&mut claimed)).catch_unwind();
            let ran = running.await.unwrap_or_else(|panic| {
                Ran::bare(Outcome::Fault(format!(
                    "the dispatch panicked: {}",
                    panic_text(&*panic)
                )))
            });
            let finalized = scheduler.finalize_dispatch(&claimed, ran).await;
            guard.claim = None;
            finalized
        })
    }

    async fn run(&self, claimed: &mut Claimed) -> Ran {
        if claimed.claim_log == ClaimLog::Ahead
            && let Err(error) = self.inner.store.flush().await
        {
            return Ran::bare(Outcome::Fault(format!(
                "its claim could not be recorded: {error}"
            )));
        }
        let request = match &claimed.request {
            Some(request) => Arc::clone(request),
            None => match self.inner.store.request(claimed.id).await {
                Ok(Some(request)) => Arc::new(request),
                Ok(None) => {
                    return Ran::bare(Outcome::Fault("its input is not in the store".into()));
                }
                Err(error) => {
                    return Ran::bare(Outcome::Fault(format!(
                        "its input could not be read: {error}"
                    )));
                }
            },
        };
        let spec = &claimed.version.spec;
        let mut time_limit = Duration::from_millis(spec.timeout_ms);
        if let Some(until) = claimed.caller_until {
            time_limit = time_limit.min(until.saturating_duration_since(Instant::now()));
        }
        let attempt = Attempt {
            execution_id: claimed.id,
            function: claimed.function.clone(),
            version: Arc::clone(&claimed.version),
            number: claimed.number,
            max_attempts: match claimed.caller {
                Speaks::No => spec.max_attempts(),
                Speaks::Directly(_) => 1,
            },
            requeues: claimed.requeues,
            faults: claimed.faults,
            fence: claimed.fence,
            time_limit,
            idempotency_key: request.idempotency_key.clone(),
            trace_id: request.trace_id.clone(),
            traceparent: request.traceparent.clone(),
            metadata: Arc::clone(&request.metadata),
            input: request.input.clone(),
            // Whoever runs it opens them.
            secrets: Arc::default(),
        };
        let runner = &self.inner.runner;
        match &mut claimed.caller {
            Speaks::No => runner.run(&attempt, &claimed.stop).await,
            Speaks::Directly(exchange) => match exchange.take() {
                Some(exchange) => runner.serve(&attempt, exchange, &claimed.stop).await,
                None => Ran::bare(Outcome::Fault("its caller was answered before".to_owned())),
            },
        }
    }

    /// Turns what a run came to into the execution's next state, durably. The only writer of results.
    fn finalize_dispatch<'a>(
        &'a self,
        claimed: &'a Claimed,
        ran: Ran,
    ) -> impl Future<Output = Finalized> + Send + 'a {
        let mut change = self.change_by(claimed, ran);
        async move {
            let mut decided = self.decide_with(claimed.id, &mut change).await;
            if let Some(unused) = change.attempt.take() {
                Box::pin(self.record_late(claimed.id, unused)).await;
            }
            if let Err(CallError::Store(store::Error::Failed(why))) = &decided {
                // Perhaps it is just this output that the store cannot take: that we failed it can be said.
                let event = Event::Fault {
                    fence: claimed.fence,
                    cause: format!("its outcome could not be recorded: {why}"),
                };
                decided = Box::pin(self.insist(claimed.id, Change::of(event))).await;
            }
            let status = match status_of(claimed.id, decided) {
                Some(status) => status,
                None => Box::pin(self.status_otherwise(claimed.id)).await,
            };
            Finalized {
                execution_id: claimed.id,
                status,
            }
        }
    }

    /// What the end of a run changes.
    fn change_by(&self, claimed: &Claimed, ran: Ran) -> Change {
        let run_time = claimed.began.elapsed();
        if let Some(metrics) = &claimed.metrics {
            let cold = ran
                .cold_start
                .then(|| ran.init_duration.unwrap_or_default());
            metrics.ran(ran.outcome.word(), run_time, cold);
        }
        let event = self.event_of(claimed, &ran.outcome);
        claimed.log(&event, ran.outcome.word());
        let attempt = AttemptRecord {
            fence: claimed.fence,
            number: claimed.number,
            started_at: claimed.began_at,
            finished_at: self.inner.clock.now(),
            outcome: ran.outcome.word(),
            failure: ran.outcome.failure().cloned(),
            logs: ran.logs,
            cold_start: ran.cold_start,
            init_ms: ran.init_duration.map(|init| as_u64(init.as_millis())),
            run_us: as_u64(run_time.as_micros()),
            cpu_us: ran.cpu.map(|cpu| as_u64(cpu.as_micros())),
        };
        let output = match ran.outcome {
            // What went to the caller is the caller's.
            Outcome::Success { .. } if ran.streamed.is_some() => None,
            Outcome::Success { content_type, body } => Some(classify(content_type, body)),
            Outcome::Error(_)
            | Outcome::Retry(_)
            | Outcome::Requeue(_)
            | Outcome::TimedOut(_)
            | Outcome::Limit(_)
            | Outcome::Interrupted
            | Outcome::Fault(_) => None,
        };
        Change {
            event,
            output,
            attempt: Some(attempt),
            streamed: ran.streamed,
            release: Some(Release {
                fence: claimed.fence,
                began: claimed.began,
                // Loading code is no part of what the next run takes.
                held: Some(run_time.saturating_sub(ran.init_duration.unwrap_or_default())),
            }),
        }
    }

    /// A run that was cut because its synchronous caller's time is over ends the execution, retries or not.
    fn event_of(&self, claimed: &Claimed, outcome: &Outcome) -> Event {
        if matches!(outcome, Outcome::TimedOut(_))
            && claimed
                .caller_until
                .is_some_and(|until| Instant::now() >= until)
        {
            return self.expiry();
        }
        // An interruption that nobody asked for would go round for ever: it costs neither attempt nor fault.
        if *outcome == Outcome::Interrupted && !claimed.stop.is_cancelled() {
            return Event::Fault {
                fence: claimed.fence,
                cause: "the attempt was interrupted though nobody asked for it".to_owned(),
            };
        }
        if *outcome == Outcome::Interrupted
            && matches!(claimed.caller, Speaks::Directly(_))
            && self.is_caller_gone(claimed.id)
        {
            return Event::CallerGone;
        }
        // There is no later for a caller who listens now.
        if let (Outcome::Requeue(_), Speaks::Directly(_)) = (outcome, &claimed.caller) {
            let failure = Failure::new(
                "REQUEUE",
                "the function asked to be run later, which a direct call cannot be: enqueue it",
            );
            return Event::of_outcome(claimed.fence, &Outcome::Error(failure));
        }
        Event::of_outcome(claimed.fence, outcome)
    }
}

/// A dispatch on its way.
pub(super) type Dispatching = Pin<Box<dyn Future<Output = Finalized> + Send>>;

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

fn as_u64(wide: u128) -> u64 {
    u64::try_from(wide).unwrap_or(u64::MAX)
}
