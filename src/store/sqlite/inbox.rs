//! The writer's inbox: operations in the order they were handed over, and claims among them.
//!
//! Callers who want an answer wait here, without blocking a thread, while the inbox is full. Claims
//! never wait: one too many is not logged. Work that nobody waits for is due a little later, so that
//! it can travel with work that somebody does wait for; and after a batch that answered somebody, what runs
//! ended with leaves that client the time to ask for the next thing.
//!
//! **Invariant:** bounded in operations, bytes and claims; after the end nothing gets in and nobody is
//! left waiting.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::ops::{Haste, Job, Operation, Pending, Weight};
use super::options::{Options, Synchronous};
use crate::store::{ClaimRecord, Error, Result};

/// How long fire-and-forget work may wait for company.
const LAZY_MAX: Duration = Duration::from_millis(10);
/// Clients at most whose batch passes over what runs ended with: more of them share the pages that it costs.
const FEW_CLIENTS: usize = 2;
/// Ends of runs at most that are passed over, and how many times.
const PASSED_OVER_MAX: usize = 3;
const PASSES_MAX: u32 = 2;

pub(super) enum Entry {
    Job(Box<dyn Job>),
    Claim(ClaimRecord),
}

/// What the writer commits at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    weight: Total,
}

#[derive(Debug, Clone, Copy, Default)]
struct Total {
    ops: usize,
    bytes: usize,
}

/// Whether work gets in.
#[derive(Debug)]
enum Door {
    Open,
    /// What is inside is still done.
    Closing,
    /// Nothing is done any more; this is why.
    Ended(Error),
}

struct State {
    queue: VecDeque<Entry>,
    /// Jobs that are worth a batch of their own.
    jobs: usize,
    /// Jobs that are worth one unless clients were just answered.
    short_jobs: usize,
    /// How many batches have passed over the oldest of those.
    passes: u32,
    /// Jobs that may wait for company.
    patient_jobs: usize,
    claims: u32,
    claims_lost: u64,
    /// Since when work that nobody waits for has been here.
    lazy_since: Option<Instant>,
    /// Until when a client that was answered may come back; `None` if the last batch answered nobody.
    company_until: Option<Instant>,
    /// Whether the batch that the writer is at answers clients.
    answering: bool,
    /// Since when the writer has been at its batch.
    batch_since: Option<Instant>,
    /// Since when work has waited for the writer.
    work_since: Option<Instant>,
    /// The write-behind buffer cannot wait.
    hurry: Hurry,
    writer: Writer,
    door: Door,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hurry {
    No,
    Yes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Waiting,
    Busy,
}

/// See the module.
pub(super) struct Inbox {
    state: Mutex<State>,
    /// What the door says, for those who hand over without a word: the lock is the writer's, too.
    is_open: AtomicBool,
    work: Condvar,
    ops: Semaphore,
    bytes: Semaphore,
    ops_max: u32,
    bytes_max: u32,
    claims_max: u32,
    batch_ops_max: usize,
    batch_bytes_max: usize,
    company_wait: Duration,
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl Inbox {
    pub(super) fn new(options: &Options) -> Self {
        let ops_max = options.queue_ops_max.max(1);
        let bytes_max = options.queue_bytes_max.max(1);
        let state = State {
            queue: VecDeque::new(),
            jobs: 0,
            short_jobs: 0,
            passes: 0,
            patient_jobs: 0,
            claims: 0,
            claims_lost: 0,
            lazy_since: None,
            company_until: None,
            answering: false,
            batch_since: None,
            work_since: None,
            hurry: Hurry::No,
            writer: Writer::Busy,
            door: Door::Open,
        };
        Self {
            state: Mutex::new(state),
            is_open: AtomicBool::new(true),
            work: Condvar::new(),
            ops: Semaphore::new(size(ops_max).min(Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(size(bytes_max).min(Semaphore::MAX_PERMITS)),
            ops_max,
            bytes_max,
            claims_max: options.claims_max,
            batch_ops_max: size(options.batch_ops_max),
            batch_bytes_max: size(options.batch_bytes_max),
            company_wait: match options.synchronous {
                Synchronous::Full => options.company_wait,
                Synchronous::Off => Duration::ZERO,
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one operation counts as here: no more than there is room in all, so that it gets in alone.
    fn capped(&self, weight: Weight) -> Weight {
        Weight {
            ops: weight.ops.min(self.ops_max),
            bytes: weight.bytes.min(self.bytes_max),
        }
    }

    /// Hands an operation to the writer and waits for its answer. Dropping the future before it was
    /// handed over undoes it; after that it is done and nobody is told.
    pub(super) async fn submit<O: Operation>(&self, operation: O) -> Result<O::Answer> {
        let (job, answer) = Pending::new(operation);
        let weight = self.capped(job.weight());
        let refused = |_| self.refusal();
        let ops = self.ops.acquire_many(weight.ops).await.map_err(refused)?;
        let bytes = self.bytes.acquire_many(weight.bytes).await;
        let bytes = bytes.map_err(refused)?;
        self.push(job)?;
        // The writer gives them back when the batch is through.
        ops.forget();
        bytes.forget();
        answer.await.unwrap_or_else(|_| Err(self.refusal()))
    }

    fn push(&self, job: Box<dyn Job>) -> Result<()> {
        let mut state = self.state();
        match &state.door {
            Door::Open => {}
            Door::Closing => return Err(Error::Closed),
            Door::Ended(error) => return Err(error.clone()),
        }
        let haste = job.haste();
        state.queue.push_back(Entry::Job(job));
        state.work_since.get_or_insert_with(Instant::now);
        match haste {
            Haste::Now | Haste::Asked => {
                state.jobs += 1;
                self.wake(&state);
            }
            Haste::Shortly => {
                state.short_jobs += 1;
                self.wake_in_time(&state);
            }
            Haste::Soon => {
                state.patient_jobs += 1;
                self.mark_lazy(&mut state);
            }
        }
        Ok(())
    }

    fn wake(&self, state: &State) {
        if state.writer == Writer::Waiting {
            self.work.notify_one();
        }
    }

    /// For what need not be looked at before the writer wakes by itself.
    fn wake_in_time(&self, state: &State) {
        if state.company_until.is_none() {
            self.wake(state);
        }
    }

    /// Why somebody who waited gets no answer.
    fn refusal(&self) -> Error {
        match &self.state().door {
            Door::Open => Error::Poisoned("the writer ended unexpectedly".into()),
            Door::Closing => Error::Closed,
            Door::Ended(error) => error.clone(),
        }
    }

    /// Whether anything gets in.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Why nothing gets in any more, if that is so.
    pub(super) fn check_open(&self) -> Result<()> {
        match &self.state().door {
            Door::Open => Ok(()),
            Door::Closing => Err(Error::Closed),
            Door::Ended(error) => Err(error.clone()),
        }
    }

    /// Leaves a claim to be logged soon.
    pub(super) fn push_claim(&self, claim: ClaimRecord) {
        let mut state = self.state();
        if !matches!(state.door, Door::Open) || state.claims >= self.claims_max {
            state.claims_lost += 1;
            return;
        }
        state.queue.push_back(Entry::Claim(claim));
        state.claims += 1;
        self.mark_lazy(&mut state);
    }

    fn mark_lazy(&self, state: &mut State) {
        if state.lazy_since.is_none() {
            state.lazy_since = Some(Instant::now());
            self.wake_in_time(state);
        }
    }

    /// Says that there is something to write behind.
    pub(super) fn note_soon(&self) {
        self.mark_lazy(&mut self.state());
    }

    /// Says that what is to be written behind cannot wait.
    pub(super) fn note_now(&self) {
        let mut state = self.state();
        if state.hurry == Hurry::No {
            state.hurry = Hurry::Yes;
            self.wake(&state);
        }
    }

    /// Waits for work and hands it out: at once if somebody waits for an answer, else when the work
    /// that nobody waits for is due. None after the end, or when closing and nothing is left.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        state.batch_since = None;
        state.company_until = state.answering.then(|| Instant::now() + self.company_wait);
        loop {
            if matches!(state.door, Door::Ended(_)) {
                return None;
            }
            let closing = matches!(state.door, Door::Closing);
            if state.jobs > 0 || state.hurry == Hurry::Yes {
                break;
            }
            if closing {
                if state.short_jobs == 0 && state.lazy_since.is_none() {
                    return None;
                }
                break;
            }
            if let Some(until) = state.company_until {
                match until.checked_duration_since(Instant::now()) {
                    None | Some(Duration::ZERO) => state.company_until = None,
                    Some(left) => state = self.wait_for(state, left),
                }
                continue;
            }
            if state.short_jobs > 0 {
                break;
            }
            match state.lazy_since {
                None => state = self.wait(state),
                Some(since) => match LAZY_MAX.checked_sub(since.elapsed()) {
                    None | Some(Duration::ZERO) => break,
                    Some(left) => state = self.wait_for(state, left),
                },
            }
        }
        Some(self.drain(&mut state))
    }

    fn wait<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.writer = Writer::Waiting;
        let woken = self.work.wait(state);
        let mut state = woken.unwrap_or_else(PoisonError::into_inner);
        state.writer = Writer::Busy;
        state
    }

    fn wait_for<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        left: Duration,
    ) -> MutexGuard<'s, State> {
        state.writer = Writer::Waiting;
        let woken = self.work.wait_timeout(state, left);
        let (mut state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        state.writer = Writer::Busy;
        state
    }

    /// Takes out of the way what the next batch passes over: claims and a few ends of runs, if all else there is are
    /// requests of one or two clients. What runs ended with touches as many pages again as those do, and several of
    /// them no more than one.
    fn pass_over(state: &mut State) -> VecDeque<Entry> {
        let may_pass = state.jobs <= FEW_CLIENTS
            && (1..=PASSED_OVER_MAX).contains(&state.short_jobs)
            && state.patient_jobs == 0
            && state.passes < PASSES_MAX
            && state.hurry == Hurry::No
            && matches!(state.door, Door::Open);
        let is_asked =
            |entry: &Entry| matches!(entry, Entry::Job(job) if job.haste() == Haste::Asked);
        if !may_pass || state.queue.iter().filter(|entry| is_asked(entry)).count() != state.jobs {
            state.passes = 0;
            return VecDeque::new();
        }
        state.passes += 1;
        let (asked, passed) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition(is_asked);
        state.queue = asked;
        passed
    }

    fn drain(&self, state: &mut State) -> Batch {
        let passed = Self::pass_over(state);
        let mut batch = Batch::default();
        let (mut ops, mut bytes) = (0_usize, 0_usize);
        state.answering = false;
        while let Some(entry) = state.queue.front() {
            let (entry_ops, entry_bytes) = match entry {
                Entry::Job(job) => {
                    let weight = self.capped(job.weight());
                    (size(weight.ops), size(weight.bytes))
                }
                Entry::Claim(_) => (1, 0),
            };
            let fits = ops.saturating_add(entry_ops) <= self.batch_ops_max
                && bytes.saturating_add(entry_bytes) <= self.batch_bytes_max;
            if !fits && !batch.entries.is_empty() {
                break;
            }
            (ops, bytes) = (ops + entry_ops, bytes + entry_bytes);
            match entry {
                Entry::Job(job) => {
                    match job.haste() {
                        Haste::Now => state.jobs -= 1,
                        Haste::Asked => {
                            state.jobs -= 1;
                            state.answering = true;
                        }
                        Haste::Shortly => state.short_jobs -= 1,
                        Haste::Soon => state.patient_jobs -= 1,
                    }
                    batch.weight.ops += entry_ops;
                    batch.weight.bytes += entry_bytes;
                }
                Entry::Claim(_) => state.claims -= 1,
            }
            batch.entries.extend(state.queue.pop_front());
        }
        state.queue.extend(passed);
        // What is written behind is taken whole with every batch; of the rest some may be left.
        state.hurry = Hurry::No;
        let left = state.claims > 0 || state.patient_jobs > 0;
        state.company_until = None;
        let now = Instant::now();
        state.lazy_since = left.then_some(now);
        state.work_since = Some(now).filter(|_| !state.queue.is_empty());
        state.batch_since = Some(now);
        batch
    }

    /// Makes room for as much as this batch held.
    pub(super) fn release(&self, batch: &Batch) {
        self.ops.add_permits(batch.weight.ops);
        self.bytes.add_permits(batch.weight.bytes);
    }

    /// Whether everything that was handed over is committed. (The writer counts as busy from before
    /// it hands out a batch until after it has answered it.)
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state();
        state.queue.is_empty() && state.writer == Writer::Waiting && state.lazy_since.is_none()
    }

    /// Lets nothing in any more; the writer does what is inside and ends.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if matches!(state.door, Door::Open) {
            state.door = Door::Closing;
            self.is_open.store(false, Ordering::Release);
        }
        self.wake(&state);
        drop(state);
        self.ops.close();
        self.bytes.close();
    }

    /// Ends at once: everything inside and everybody who comes later is answered with `error`. The
    /// first reason stays.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state();
        if !matches!(state.door, Door::Ended(_)) {
            state.door = Door::Ended(error.clone());
            self.is_open.store(false, Ordering::Release);
        }
        let left = std::mem::take(&mut state.queue);
        (state.jobs, state.short_jobs, state.patient_jobs) = (0, 0, 0);
        state.claims = 0;
        (state.lazy_since, state.batch_since, state.work_since) = (None, None, None);
        self.wake(&state);
        drop(state);
        self.ops.close();
        self.bytes.close();
        for entry in left {
            match entry {
                Entry::Job(job) => job.answer(Err(error.clone())),
                Entry::Claim(_) => {}
            }
        }
    }

    /// How long the writer has been at its batch, or work has waited for it.
    pub(super) fn behind(&self) -> Duration {
        let state = self.state();
        let since = [state.batch_since, state.work_since, state.lazy_since];
        let since = since.into_iter().flatten();
        since.map(|since| since.elapsed()).max().unwrap_or_default()
    }

    /// Operations waiting, and claims that were not logged for lack of room.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.state();
        (
            state.jobs + state.short_jobs + state.patient_jobs,
            state.claims_lost,
        )
    }
}
