//! Everything volatile: live executions, queues, claims. One structure behind one short lock.
//!
//! **Invariant:** methods here run under the lock and never wait; what has to happen outside (waking
//! waiters, spawning dispatches, writing) is handed back as a value.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::admission::{Admission, RunTimes};
use super::aged::Aged;
use super::delivery::{Delivery, wake_settled};
use super::history::History;
use super::queue::{Class, Company, Item, Lane, Place, Queues};
use super::rate::Limiter;
use super::runner::class_of;
use crate::execution::{Execution, Policy, Requeued, State as ExecutionState, Stepped, Streamed};
use crate::model::{
    ExecutionId, Fence, FunctionId, FunctionName, IdMap, IdSet, Output, Timestamp, Version,
};
use crate::observe::FunctionMetrics;
use crate::registry::Function;
use crate::runtime::Exchange;
use crate::store::{AttemptRecord, EndedExecution, ExecutionRecord, Request};

/// See [`State::take_back`].
const TAKE_BACK_DELAY_MS: u64 = 1_000;

/// Who is told what became of an execution.
pub(super) type Waiter = oneshot::Sender<Arc<ExecutionRecord>>;

/// Where an execution's truth is until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// In memory only: a synchronous call without a key.
    Memory,
    /// In the store: everything that was promised.
    Durable,
}

/// Whether a decision about an execution is on its way to disk. Others wait for it before they judge.
#[derive(Debug)]
pub(super) enum Settling {
    /// No: the record is what the store has.
    No,
    /// It is being accepted; nobody but its creator knows of it.
    Accepting(Vec<oneshot::Sender<()>>),
    /// A transition is being committed.
    Deciding(Vec<oneshot::Sender<()>>),
}

/// When an execution's claim has to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimLog {
    /// Soon: a claim that a crash loses costs another run and nothing else.
    Behind,
    /// Before the attempt runs. It was found in the store, so an earlier process may have died of it,
    /// faster than a claim goes out behind: faults that are never counted would let it do so for ever.
    Ahead,
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) stop: CancellationToken,
}

/// What is particular to an execution whose caller speaks with the function.
#[derive(Debug)]
pub(super) struct Direct {
    /// Taken by the one attempt that there is.
    pub(super) exchange: Option<Box<Exchange>>,
    /// Its caller has hung up, and the run is being stopped for it.
    pub(super) is_gone: bool,
    /// Bytes that the function sent past us.
    pub(super) output_bytes: Option<u64>,
}

/// An execution that has not ended.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: ExecutionId,
    pub(super) function_id: FunctionId,
    pub(super) function: FunctionName,
    pub(super) version: Arc<Version>,
    /// What the world may know: the last committed state, or `running`.
    pub(super) execution: Execution,
    pub(super) home: Home,
    pub(super) claim_log: ClaimLog,
    /// Absent: to be read from the store at its turn.
    pub(super) request: Option<Arc<Request>>,
    pub(super) input_bytes: u64,
    pub(super) trace_id: Option<Arc<str>>,
    pub(super) parent: Option<ExecutionId>,
    pub(super) place: Option<Place>,
    /// When its synchronous caller stops waiting, in real time.
    pub(super) caller_until: Option<Instant>,
    pub(super) accepted: Instant,
    pub(super) ready: Instant,
    pub(super) run: Option<Run>,
    pub(super) waiters: Vec<Waiter>,
    /// Its caller speaks with the function: it runs once, and only a summary of it is kept.
    pub(super) direct: Option<Direct>,
    /// Runs of an execution that lives in memory.
    pub(super) attempts: History,
    pub(super) settling: Settling,
    /// Bytes of its result while that is on its way to disk.
    pub(super) uncommitted_bytes: u64,
    /// It is queued again without having spent an attempt (a requeue or a fault).
    pub(super) unspent: bool,
    pub(super) cold_start: bool,
    pub(super) init_ms: Option<u64>,
}

impl Live {
    /// An execution that nothing has happened to here yet: without input, waiters and a place.
    pub(super) fn new(
        id: ExecutionId,
        (function_id, function): (FunctionId, FunctionName),
        version: Arc<Version>,
        execution: Execution,
        home: Home,
    ) -> Self {
        let now = Instant::now();
        Self {
            id,
            function_id,
            function,
            version,
            execution,
            home,
            claim_log: ClaimLog::Behind,
            request: None,
            input_bytes: 0,
            trace_id: None,
            parent: None,
            place: None,
            caller_until: None,
            accepted: now,
            ready: now,
            run: None,
            waiters: Vec::new(),
            direct: None,
            attempts: History::default(),
            settling: Settling::No,
            uncommitted_bytes: 0,
            unspent: false,
            cold_start: false,
            init_ms: None,
        }
    }

    /// What the queues know of it, where so many deaths make a suspect.
    pub(super) fn item(&self, suspect_faults: u32) -> Item {
        let class = class_of(&self.version.code);
        // A call to a service runs elsewhere: the process does not die of it.
        let is_suspect = class == Class::Guest && self.execution.deaths >= suspect_faults;
        Item {
            id: self.id,
            class,
            lane: self.lane(),
            company: match is_suspect {
                true => Company::NoSuspect,
                false => Company::Any,
            },
            input_bytes: self.input_bytes,
        }
    }

    /// What is told of it.
    pub(super) fn record(&self, output: Option<Output>) -> ExecutionRecord {
        ExecutionRecord {
            id: self.id,
            function_id: self.function_id,
            function: self.function.clone(),
            version: self.version.number,
            execution: self.execution.clone(),
            output_bytes: self.output_bytes(output.as_ref()),
            output,
            input_bytes: self.input_bytes,
            input_kept: self.home == Home::Durable,
            cold_start: self.cold_start,
            init_ms: self.init_ms,
            trace_id: self.trace_id.clone(),
            parent: self.parent,
        }
    }

    /// Where it waits.
    pub(super) fn lane(&self) -> Lane {
        match self.caller_until {
            Some(_) => Lane::Caller,
            None => Lane::Queued,
        }
    }

    /// Whether anybody but its creator may know of it.
    pub(super) fn is_visible(&self) -> bool {
        !matches!(self.settling, Settling::Accepting(_))
    }

    /// Notes what there is to say of a run that has ended.
    pub(super) fn note_run(&mut self, attempt: Option<&AttemptRecord>, streamed: Option<Streamed>) {
        if let Some(attempt) = attempt {
            self.cold_start = attempt.cold_start;
            self.init_ms = attempt.init_ms;
        }
        if let (Some(streamed), Some(direct)) = (streamed, &mut self.direct) {
            self.input_bytes = streamed.input_bytes;
            direct.output_bytes = Some(streamed.output_bytes);
        }
    }

    fn output_bytes(&self, output: Option<&Output>) -> Option<u64> {
        let streamed = self.direct.as_ref().and_then(|direct| direct.output_bytes);
        streamed.or_else(|| output.map(|output| output.body.len() as u64))
    }

    /// The rules it lives under; `jitter` is a random number.
    pub(super) fn policy(&self, faults_max: u32, removed: Removed, jitter: u32) -> Policy {
        let spec = &self.version.spec;
        // What is said to a caller who listens can be said once.
        let once = self.direct.is_some();
        Policy {
            max_attempts: if once { 1 } else { spec.max_attempts() },
            base_delay_ms: spec.retry_backoff.base_delay_ms,
            max_delay_ms: spec.retry_backoff.max_delay_ms,
            max_requeues: if once { 0 } else { spec.max_requeues },
            max_age_ms: spec.max_age_ms,
            max_faults: if once { 0 } else { faults_max },
            function_removed: removed == Removed::Yes,
            is_direct: once,
            jitter,
        }
    }

    fn ended(&mut self, output: Option<Output>, request: Arc<Request>) -> EndedExecution {
        EndedExecution {
            id: self.id,
            function_id: self.function_id,
            function: self.function.clone(),
            version: self.version.number,
            execution: self.execution.clone(),
            streamed: self.direct.is_some().then(|| Streamed {
                input_bytes: self.input_bytes,
                output_bytes: self.output_bytes(output.as_ref()).unwrap_or(0),
            }),
            request,
            output,
            attempts: self.attempts.take(),
            record: self.version.spec.record,
        }
    }
}

/// Whether an execution's function was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    Yes,
    No,
}

/// What the scheduler keeps of a function beside its queue.
#[derive(Debug)]
pub(super) struct FunctionState {
    pub(super) metrics: Arc<FunctionMetrics>,
    pub(super) limiter: Limiter,
    pub(super) runs: RunTimes,
    /// The function whose settings act here.
    pub(super) present: Arc<Function>,
    /// The registry's [number of changes](crate::registry::Registry::changes) when that was last made sure of.
    pub(super) seen: u64,
}

/// The structure.
#[derive(Debug)]
pub(super) struct State {
    /// Each in a place of its own: the table grows under the lock, and has to move as little as possible.
    pub(super) live: IdMap<ExecutionId, Box<Live>>,
    /// Which of them no store has: lists look for these, behind however many others.
    pub(super) in_memory: IdSet<ExecutionId>,
    pub(super) queues: Queues,
    pub(super) functions: IdMap<FunctionId, FunctionState>,
    pub(super) admission: Admission,
    pub(super) boot: u32,
    claims: u64,
    pub(super) queued_input_bytes: u64,
    queued_input_bytes_max: u64,
    /// Bytes of all results that are on their way to disk.
    pub(super) uncommitted_bytes: u64,
    pub(super) stopping: bool,
    /// Deaths of the process that make a suspect.
    pub(super) suspect_faults: u32,
    pub(super) aged: Aged,
    /// When the timer was last told to look again for the queues' sake.
    pub(super) timer_told: Option<Instant>,
}

impl State {
    pub(super) fn new(queues: Queues, admission: Admission, boot: u32, options: &Options) -> Self {
        Self {
            live: IdMap::default(),
            in_memory: IdSet::default(),
            queues,
            functions: IdMap::default(),
            admission,
            boot,
            claims: 0,
            queued_input_bytes: 0,
            queued_input_bytes_max: options.queued_input_bytes_max,
            uncommitted_bytes: 0,
            stopping: false,
            suspect_faults: options.suspect_faults,
            aged: Aged::default(),
            timer_told: None,
        }
    }

    /// The next claim's number.
    pub(super) fn next_fence(&mut self) -> Fence {
        self.claims += 1;
        Fence::new(self.boot, self.claims)
    }

    /// Bytes of the inputs, with their metadata, that are kept in memory for executions that are durable.
    pub(super) fn queued_input_bytes(&self) -> u64 {
        self.queued_input_bytes
    }

    /// Adds an execution that is not in its queue yet.
    pub(super) fn insert(&mut self, mut live: Live) {
        if let (Home::Durable, Some(request)) = (live.home, &live.request) {
            let bytes = self.queued_input_bytes.saturating_add(request.bytes());
            if bytes > self.queued_input_bytes_max {
                live.request = None;
            } else {
                self.queued_input_bytes = bytes;
            }
        }
        if live.home == Home::Memory {
            self.in_memory.insert(live.id);
        }
        self.live.insert(live.id, Box::new(live));
    }

    /// Takes one out for good.
    pub(super) fn remove(&mut self, id: ExecutionId) -> Option<Box<Live>> {
        let mut live = self.live.remove(&id)?;
        if live.home == Home::Memory {
            self.in_memory.remove(&id);
        }
        if let Some(place) = live.place.take() {
            self.queues.remove(live.function_id, place);
        }
        if let (Home::Durable, Some(request)) = (live.home, &live.request) {
            self.queued_input_bytes = self.queued_input_bytes.saturating_sub(request.bytes());
        }
        self.committed(std::mem::take(&mut live.uncommitted_bytes));
        Some(live)
    }

    /// Puts a queued execution in its queue.
    pub(super) fn push(&mut self, id: ExecutionId, due: Timestamp, now: Timestamp) {
        self.push_at(id, due, (now, Instant::now()));
    }

    /// The same where the time is known on both clocks.
    pub(super) fn push_at(
        &mut self,
        id: ExecutionId,
        due: Timestamp,
        (now, ready): (Timestamp, Instant),
    ) {
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let item = live.item(self.suspect_faults);
        live.place = self.queues.push(live.function_id, item, due, now);
        live.ready = ready;
    }

    /// Puts a queued execution back whose decision could not be recorded, so that it is not lost; a little
    /// later, so that a failing store is not asked without pause.
    pub(super) fn take_back(&mut self, id: ExecutionId, now: Timestamp) {
        if let Some(live) = self.live.get(&id)
            && let ExecutionState::Queued { due } = live.execution.state
            && live.place.is_none()
        {
            self.push(id, due.max(now.plus_ms(TAKE_BACK_DELAY_MS)), now);
        }
    }

    /// Makes a decision visible: the new record, and what follows from it in here.
    pub(super) fn apply(
        &mut self,
        id: ExecutionId,
        stepped: Stepped,
        output: Option<Output>,
        now: Timestamp,
    ) -> Option<Delivery> {
        let live = self.live.get_mut(&id)?;
        live.execution = stepped.next;
        let effects = stepped.effects;
        if effects.unqueue
            && let Some(place) = live.place.take()
        {
            self.queues.remove(live.function_id, place);
        }
        let stop = live
            .run
            .take()
            .filter(|_| effects.stop_guest)
            .map(|run| run.stop);
        live.unspent = matches!(
            effects.requeue,
            Some(Requeued::Later(_) | Requeued::Fault(_) | Requeued::Interrupt(_))
        );
        if let Some(requeued) = effects.requeue {
            self.count_requeue(id, requeued);
            self.push(id, requeued.due(), now);
        }
        if !effects.publish {
            let record = Arc::new(self.live.get(&id)?.record(None));
            return Some(Delivery {
                record,
                ended: None,
                waiters: Vec::new(),
                stop,
            });
        }
        let mut live = self.remove(id)?;
        if let Some(function) = self.functions.get(&live.function_id) {
            function
                .metrics
                .ended(live.execution.status(), live.accepted.elapsed());
        }
        let ended = match (&live.home, live.request.take()) {
            (Home::Memory, Some(request)) => Some(live.ended(output.clone(), request)),
            (Home::Memory, None) | (Home::Durable, _) => None,
        };
        let waiters = std::mem::take(&mut live.waiters);
        let record = Arc::new(live.record(output));
        Some(Delivery {
            record,
            ended,
            waiters,
            stop,
        })
    }

    fn count_requeue(&self, id: ExecutionId, requeued: Requeued) {
        let Some(live) = self.live.get(&id) else {
            return;
        };
        let Some(function) = self.functions.get(&live.function_id) else {
            return;
        };
        match requeued {
            Requeued::Retry(_) => function.metrics.retried(),
            Requeued::Later(_) => function.metrics.requeued(),
            Requeued::Fault(_) => function.metrics.faulted(),
            Requeued::Interrupt(_) | Requeued::Redrive(_) => {}
        }
    }

    /// Ends the wait of those who asked while a decision was on its way.
    pub(super) fn settled(&mut self, id: ExecutionId) {
        if let Some(live) = self.live.get_mut(&id) {
            wake_settled(std::mem::replace(&mut live.settling, Settling::No));
            let bytes = std::mem::take(&mut live.uncommitted_bytes);
            self.committed(bytes);
        }
    }

    /// Brings the gauges of all functions up to date.
    pub(super) fn gauges(&self) {
        for (&function, state) in &self.functions {
            let waiting = self.queues.waiting(function);
            let callers = self.queues.waiting_callers(function);
            let running = self.queues.running(function);
            state.metrics.set_work(waiting, callers, running);
        }
    }

    /// Whether no attempt runs and no decision is on its way to disk.
    pub(super) fn is_calm(&self) -> bool {
        let mut all = self.live.values();
        self.queues.running_all() == 0 && all.all(|live| matches!(live.settling, Settling::No))
    }
}
