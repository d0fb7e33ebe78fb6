//! Start and stop: finding again what was promised, waking what is due, going down in order.
//!
//! **Invariant:** everything that can wake work is derived from the store at start; a planned stop costs no
//! execution an attempt or a fault.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::keys::Keys;
use super::queue::{Class, PlaneBounds, Queues, RAMP_STEPS};
use super::runner::{Runner, class_of};
use super::state::{ClaimLog, Home, Live, State};
use super::{Inner, Options, Scheduler};
use crate::clock::Clock;
use crate::execution::{Event, Execution, State as ExecutionState, Status};
use crate::model::{Dice, ExecutionId, Fence, Timestamp};
use crate::observe::Metrics;
use crate::registry::{Function, Registry};
use crate::shutdown::Tasks;
use crate::store::{self, Applied, Guard, LiveExecution, Store, Transition};

/// Executions read at once while the store is searched for live ones.
const RECOVERY_PAGE: u32 = 1_000;

/// What a scheduler is made of.
pub struct Parts {
    /// Time.
    pub clock: Clock,
    /// Randomness, of ids and delays.
    pub dice: Dice,
    /// What is durable.
    pub store: Arc<dyn Store>,
    /// What can be called.
    pub registry: Registry,
    /// Who runs attempts.
    pub runner: Arc<dyn Runner>,
    /// Where figures go.
    pub metrics: Metrics,
    /// Who spawns tasks.
    pub tasks: Tasks,
}

impl Scheduler {
    /// Finds all promised work in the store, queues it, and starts moving it (unless work is moved by hand).
    ///
    /// # Errors
    /// The store's.
    pub async fn start(options: Options, parts: Parts) -> store::Result<Self> {
        let queues = Queues::new(PlaneBounds {
            guests_max: options.guests_max,
            endpoint_calls_max: options.endpoint_calls_max,
            input_bytes_max: options.running_input_bytes_max,
            suspect_alone_max: options.suspect_alone,
        });
        let revision = parts.store.runtime_config().await?.unwrap_or_default();
        let admission = Admission::new(options.runtime_config, revision);
        let state = State::new(queues, admission, parts.store.boot(), &options);
        let scheduler = Self {
            inner: Arc::new(Inner {
                options,
                clock: parts.clock,
                dice: parts.dice,
                store: parts.store,
                registry: parts.registry,
                runner: parts.runner,
                metrics: parts.metrics,
                tasks: parts.tasks,
                state: Mutex::new(state),
                keys: Keys::default(),
                timer: Notify::new(),
                calmer: Notify::new(),
            }),
        };
        scheduler.announce_runtime_config();
        // Worked out when somebody reads them: they change several times with each execution.
        let watched = Arc::downgrade(&scheduler.inner);
        scheduler.inner.metrics.sample_with(move |_| {
            if let Some(inner) = watched.upgrade() {
                Self { inner }.lock().gauges();
            }
        });
        let found = scheduler.recover().await?;
        if found > 0 {
            scheduler.spawn_ramp();
        }
        scheduler.spawn_timer();
        let claims = scheduler.claim_ready(&mut scheduler.lock());
        scheduler.spawn_dispatches(claims);
        Ok(scheduler)
    }

    /// Finds what has not ended; returns how much it is.
    async fn recover(&self) -> store::Result<usize> {
        let mut after: Option<ExecutionId> = None;
        let mut found = 0_usize;
        let mut died = Died::default();
        loop {
            let page = self
                .inner
                .store
                .live_executions(after, RECOVERY_PAGE)
                .await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.id);
            found += page.len();
            self.recover_page(page, &mut died).await?;
        }
        self.decide_all(died.events()).await?;
        if found > 0 {
            tracing::info!(
                executions = found,
                "found executions that have not ended: they go on"
            );
        }
        Ok(found)
    }

    /// A backlog does not come back all at once: what may run grows to its bounds within the ramp.
    fn spawn_ramp(&self) {
        let ramp = Duration::from_millis(self.inner.options.start_ramp_ms);
        if ramp.is_zero() {
            return;
        }
        self.lock().queues.set_ramp(1);
        let scheduler = self.clone();
        let stop = self.inner.tasks.stop_token().clone();
        drop(self.inner.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = scheduler.run_ramp(ramp) => {}
            }
        }));
    }

    async fn run_ramp(&self, ramp: Duration) {
        for steps in 2..=RAMP_STEPS {
            tokio::time::sleep(ramp / RAMP_STEPS).await;
            let claims = {
                let mut state = self.lock();
                state.queues.set_ramp(steps);
                self.claim_ready(&mut state)
            };
            self.spawn_dispatches(claims);
        }
    }

    async fn recover_page(&self, page: Vec<LiveExecution>, died: &mut Died) -> store::Result<()> {
        let now = self.inner.clock.now();
        let mut orphans = Vec::new();
        let mut events = Vec::new();
        for found in page {
            match self.inner.registry.get_by_id(found.function_id) {
                Some(function) => events.extend(self.recover_one(found, &function, now, died)),
                None => orphans.extend(self.end_orphan(found, now)),
            }
        }
        self.decide_all(events).await?;
        let applied = self.inner.store.transition_all(orphans).await?;
        if applied.contains(&Applied::Stale) {
            tracing::warn!("some executions of deleted functions had ended already");
        }
        Ok(())
    }

    /// Makes a stored execution live again; returns what has happened to it meanwhile.
    fn recover_one(
        &self,
        found: LiveExecution,
        function: &Function,
        now: Timestamp,
        died: &mut Died,
    ) -> Option<(ExecutionId, Event)> {
        let deadline = open_deadline(&found);
        let event = recovery_event(&found, deadline, now);
        let (id, execution) = (found.id, found.execution.clone());
        let mut live = recovered(found, function);
        let class = class_of(&live.version.code);
        let until = deadline
            .filter(|deadline| *deadline > now)
            .map(|deadline| Instant::now() + Duration::from_millis(deadline.ms_since(now)));
        live.caller_until = until;
        {
            let mut state = self.lock();
            if self.ensure_function(&mut state, function).is_err() {
                return None;
            }
            state.insert(live);
            if let ExecutionState::Queued { due } = execution.state
                && event.is_none()
            {
                state.push(id, due, now);
            }
        }
        if let Some(until) = until {
            drop(self.see_through(id, until));
        }
        let event = event?;
        if event == Event::Lost {
            let suspect_faults = self.inner.options.suspect_faults;
            return died.note(id, &execution, class, suspect_faults);
        }
        Some((id, event))
    }

    /// The end of an execution whose function is gone: it was deleted while we were down or going down.
    fn end_orphan(&self, found: LiveExecution, now: Timestamp) -> Option<Transition> {
        let policy = crate::execution::Policy {
            max_attempts: 1,
            base_delay_ms: 0,
            max_delay_ms: 0,
            max_requeues: 0,
            max_age_ms: u64::MAX,
            max_faults: self.inner.options.faults_max,
            function_removed: true,
            is_direct: false,
            jitter: 0,
        };
        let event = match found.execution.status() {
            Status::Running => Event::Lost,
            Status::Queued
            | Status::Success
            | Status::Error
            | Status::Timeout
            | Status::Cancelled => Event::RemoveFunction,
        };
        let stepped = crate::execution::step(&found.execution, &event, &policy, now).ok()?;
        Some(Transition {
            id: found.id,
            guard: Guard::Live,
            next: stepped.next,
            version: None,
            output: None,
            attempt: None,
        })
    }

    /// Wakes deferred work when its time has come. The only task of the scheduler that waits for time.
    fn spawn_timer(&self) {
        let scheduler = self.clone();
        let stop = self.inner.tasks.stop_token().clone();
        drop(self.inner.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = scheduler.run_timer() => {}
            }
        }));
    }

    async fn run_timer(&self) {
        loop {
            // Armed before looking, so that a change in between is not lost.
            let changed = self.inner.timer.notified();
            let (next, looks, claims) = {
                let mut state = self.lock();
                self.promote_due(&mut state);
                let claims = self.claim_ready(&mut state);
                (state.queues.next_due(), self.looks_at(&mut state), claims)
            };
            self.spawn_dispatches(claims);
            let due = async {
                match next {
                    Some(due) => self.inner.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let looks = async {
                match looks {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = due => {}
                () = looks => {}
            }
        }
    }

    /// When work has to be looked for again though nothing happens, now that it just was.
    fn looks_at(&self, state: &mut State) -> Option<Instant> {
        let looks = !self.inner.options.manual && !state.stopping && !self.is_behind(state);
        state.timer_told = looks.then(|| state.queues.wakes_at()).flatten();
        state.timer_told
    }

    /// Moves what is due to the ready queues.
    pub(super) fn promote_due(&self, state: &mut State) {
        for (id, place) in state.queues.promote_due(self.inner.clock.now()) {
            if let Some(live) = state.live.get_mut(&id) {
                live.place = Some(place);
                live.ready = Instant::now();
            }
        }
    }

    /// Stops in order: no new calls and claims; running attempts get `grace`; those that are still
    /// running then are interrupted and, where they are durable, run again after the restart. Callers
    /// whose execution will not end before the restart are told that the server is stopping. Returns
    /// when no attempt runs and no decision is on its way to disk.
    pub async fn stop(&self, grace: Duration) {
        self.lock().stopping = true;
        self.end_waits(Waiting::QueuedOnly);
        let calm = self.wait_until_calm();
        if tokio::time::timeout(grace, calm).await.is_err() {
            tracing::warn!("the grace period is over: interrupting what still runs");
            for stop in self.stops() {
                stop.cancel();
            }
            self.wait_until_calm().await;
        }
        self.end_waits(Waiting::All);
    }

    /// What stops each attempt that runs, the oldest execution first.
    fn stops(&self) -> Vec<CancellationToken> {
        let state = self.lock();
        let running = state.live.values().filter(|live| live.run.is_some());
        let mut running: Vec<_> = running.collect();
        running.sort_unstable_by_key(|live| live.id);
        let runs = running.iter().filter_map(|live| live.run.as_ref());
        runs.map(|run| run.stop.clone()).collect()
    }

    async fn wait_until_calm(&self) {
        loop {
            // Armed before looking, so that a change in between is not lost.
            let calmer = self.inner.calmer.notified();
            if self.lock().is_calm() {
                return;
            }
            calmer.await;
        }
    }

    /// Ends the waits for executions that will not run any more. Those that live in memory are let go.
    fn end_waits(&self, which: Waiting) {
        let mut state = self.lock();
        let ends = |live: &&mut Box<Live>| {
            which == Waiting::All || live.execution.status() == Status::Queued
        };
        let mut ending: Vec<_> = state.live.values_mut().filter(ends).collect();
        ending.sort_unstable_by_key(|live| live.id);
        let mut forgotten = Vec::new();
        for live in ending {
            match live.home {
                Home::Memory => forgotten.push(live.id),
                Home::Durable => live.waiters.clear(),
            }
        }
        for id in forgotten {
            self.forget(&mut state, id);
        }
    }
}

/// What was running when the process died.
#[derive(Debug, Default)]
struct Died {
    /// Whether a guest was.
    guests: bool,
    /// Calls to services that were there at enough deaths already. They ran elsewhere: the process died of one of
    /// them only if no guest was running.
    elsewhere: Vec<(ExecutionId, Fence)>,
}

impl Died {
    /// Notes one; what has happened to it, if that can be said already.
    fn note(
        &mut self,
        id: ExecutionId,
        execution: &Execution,
        class: Class,
        suspect_faults: u32,
    ) -> Option<(ExecutionId, Event)> {
        if class == Class::Guest {
            self.guests = true;
        } else if execution.deaths >= suspect_faults
            && let Some(fence) = execution.fence()
        {
            self.elsewhere.push((id, fence));
            return None;
        }
        Some((id, Event::Lost))
    }

    /// What has happened to the rest.
    fn events(self) -> Vec<(ExecutionId, Event)> {
        let event = |fence| match self.guests {
            true => Event::Interrupt { fence },
            false => Event::Lost,
        };
        let elsewhere = self.elsewhere.iter();
        elsewhere.map(|&(id, fence)| (id, event(fence))).collect()
    }
}

/// Whose waits are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    QueuedOnly,
    All,
}

/// When the synchronous caller that made it stops waiting. A redrive is nobody's wait any more.
fn open_deadline(found: &LiveExecution) -> Option<Timestamp> {
    let is_first_life = found.execution.age_since == found.execution.created_at;
    found.deadline.filter(|_| is_first_life)
}

/// What a start has to say about a live execution, if anything.
fn recovery_event(
    found: &LiveExecution,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> Option<Event> {
    if deadline.is_some_and(|deadline| deadline <= now) {
        // It was not drained because there was nobody to drain it.
        return Some(Event::Expire { by_hand: false });
    }
    match found.execution.status() {
        Status::Running => Some(Event::Lost),
        Status::Queued | Status::Success | Status::Error | Status::Timeout | Status::Cancelled => {
            None
        }
    }
}

fn recovered(found: LiveExecution, function: &Function) -> Live {
    let identity = (found.function_id, found.function);
    let version = Arc::clone(function.version(found.version).unwrap_or(&function.active));
    Live {
        claim_log: ClaimLog::Ahead,
        input_bytes: found.input_bytes,
        trace_id: found.trace_id,
        ..Live::new(found.id, identity, version, found.execution, Home::Durable)
    }
}
