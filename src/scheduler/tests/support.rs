//! A small world to test the scheduler in: a store that fails on command, a runner that does what the
//! input says, a clock that is moved by hand.
//!
//! **Invariant:** nothing here waits for real time; what a test waits for is an event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::execution::{Attempt, Execution, Outcome, Ran, Status};
use crate::model::{
    Backoff, Digest, ExecutionId, Failure, FunctionId, FunctionName, FunctionSettings,
    IdempotencyKey, Input, JSON, Spec, Timestamp, Version, VersionNumber,
};
use crate::registry::{self, CodeSource};
use crate::runtime::{Prepared, Refused};
use crate::store::memory::{Disk, MemoryStore};
use crate::store::{
    Accepted, Applied, AttemptRecord, ClaimRecord, EndedExecution, ExecutionRecord, Filter,
    FunctionRecord, Guard, KeyHolder, LiveExecution, NewExecution, Request, Result as StoreResult,
    Retention, Transition,
};

/// When every world begins.
pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);

/// Runs what the input says: words, one per run. The run's word is found from its attempt and requeue
/// numbers, so that a run that is repeated (a fault, an interruption) does the same again; the last word
/// goes on for ever.
#[derive(Debug)]
pub(super) struct ScriptedRunner {
    /// Every run that began.
    pub(super) runs: watch::Sender<Vec<ExecutionId>>,
    /// `hold` waits for one of these.
    pub(super) held: Semaphore,
    /// Runs that panic, whatever their word.
    pub(super) panics: AtomicU32,
    /// Runs under way.
    pub(super) running: watch::Sender<u32>,
}

impl Default for ScriptedRunner {
    fn default() -> Self {
        Self {
            runs: watch::Sender::default(),
            held: Semaphore::new(0),
            panics: AtomicU32::new(0),
            running: watch::Sender::default(),
        }
    }
}

/// The failure that scripts give.
pub(super) fn failure() -> Failure {
    Failure::new("SCRIPTED", "as the script says")
}

/// One of those that a number counts, for as long as it lives.
struct Counted<'a>(&'a watch::Sender<u32>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Runner for ScriptedRunner {
    async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        self.running.send_modify(|running| *running += 1);
        let _running = Counted(&self.running);
        self.runs
            .send_modify(|runs| runs.push(attempt.execution_id));
        if take_one(&self.panics) {
            panic!("as the test said");
        }
        let script = std::str::from_utf8(&attempt.input.body).unwrap();
        let words: Vec<_> = script.trim_matches('"').split(' ').collect();
        let turn = (attempt.number - 1 + attempt.requeues) as usize;
        tokio::task::yield_now().await;
        let outcome = self
            .say(words[turn.min(words.len() - 1)], attempt, stop)
            .await;
        Ran::bare(outcome)
    }
}

impl ScriptedRunner {
    async fn say(&self, word: &str, attempt: &Attempt, stop: &CancellationToken) -> Outcome {
        let success = || Outcome::Success {
            content_type: Some(JSON),
            body: Bytes::from(attempt.execution_id.to_string().into_bytes()),
        };
        match word {
            "ok" => success(),
            "error" => Outcome::Error(failure()),
            "limit" => Outcome::Limit(failure()),
            "retry" => Outcome::Retry(failure()),
            "timeout" => Outcome::TimedOut(failure()),
            "fault" => Outcome::Fault("as the script says".to_owned()),
            "interrupted" => Outcome::Interrupted,
            "panic" => panic!("as the script says"),
            "hang" => tokio::select! {
                () = stop.cancelled() => Outcome::Interrupted,
                () = tokio::time::sleep(attempt.time_limit) => Outcome::TimedOut(failure()),
            },
            // A guest that computes: it is cut at the tick after its time is over.
            "spin" => {
                tokio::time::sleep(attempt.time_limit + Duration::from_millis(2)).await;
                Outcome::TimedOut(failure())
            }
            "hold" => tokio::select! {
                () = stop.cancelled() => Outcome::Interrupted,
                permit = self.held.acquire() => {
                    permit.unwrap().forget();
                    success()
                }
            },
            // A guest that takes a while to be stopped: gone when the test says so.
            "stubborn" => {
                self.held.acquire().await.unwrap().forget();
                if stop.is_cancelled() {
                    Outcome::Interrupted
                } else {
                    success()
                }
            }
            later => {
                let delay = later.strip_prefix("later:").expect("a word of the script");
                Outcome::Requeue(delay.parse().ok())
            }
        }
    }
}

fn take_one(left: &AtomicU32) -> bool {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    taken.is_ok()
}

/// Code that nobody checks.
struct AnyCode;

#[async_trait]
impl CodeSource for AnyCode {
    async fn prepare(&self, _: Bytes) -> Result<Prepared, Refused> {
        Err(Refused::Failed("no wasm here".to_owned()))
    }

    fn known(&self, _: &Digest) -> Option<Prepared> {
        None
    }

    fn check_url(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

/// What a test orders of a [`FaultyStore`], and what the store saw. Outlives restarts.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Writes that fail; nothing of them is kept.
    pub(super) failing: AtomicU32,
    /// Decisions (not acceptances) that fail.
    pub(super) failing_transitions: AtomicU32,
    /// Writes that panic.
    pub(super) panicking: AtomicU32,
    /// Writes wait while this is set.
    pub(super) stalled: watch::Sender<bool>,
    /// Writes that wait.
    pub(super) waiting: watch::Sender<u32>,
    /// Terminal states that were committed, per execution, since its last redrive.
    pub(super) ends: Mutex<HashMap<ExecutionId, Vec<Status>>>,
}

/// A store in memory with a word to say about each write.
pub(super) struct FaultyStore {
    inner: MemoryStore,
    orders: Arc<Orders>,
}

impl FaultyStore {
    async fn gate(&self) -> StoreResult<()> {
        let mut stalled = self.orders.stalled.subscribe();
        self.orders.waiting.send_modify(|waiting| *waiting += 1);
        let waiting = Counted(&self.orders.waiting);
        let _ = stalled.wait_for(|stalled| !*stalled).await;
        drop(waiting);
        // A write takes its time: what comes in between sees it on its way.
        tokio::task::yield_now().await;
        assert!(
            !take_one(&self.orders.panicking),
            "a store that panics, as the test said"
        );
        if take_one(&self.orders.failing) {
            return Err(crate::store::Error::Failed("as the test said".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn boot(&self) -> u32 {
        self.inner.boot()
    }
    async fn functions(&self) -> StoreResult<Vec<FunctionRecord>> {
        self.inner.functions().await
    }
    async fn create_function(
        &self,
        name: &FunctionName,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> StoreResult<FunctionRecord> {
        self.inner.create_function(name, settings, version).await
    }
    async fn add_version(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> StoreResult<()> {
        self.inner.add_version(id, settings, version).await
    }
    async fn set_function(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        active: VersionNumber,
        now: Timestamp,
    ) -> StoreResult<()> {
        tokio::task::yield_now().await;
        self.inner.set_function(id, settings, active, now).await
    }
    async fn delete_function(&self, id: FunctionId) -> StoreResult<()> {
        tokio::task::yield_now().await;
        self.inner.delete_function(id).await?;
        tokio::task::yield_now().await;
        Ok(())
    }
    async fn accept(&self, new: NewExecution) -> StoreResult<Accepted> {
        self.gate().await?;
        let accepted = self.inner.accept(new).await;
        tokio::task::yield_now().await;
        accepted
    }
    async fn key_holder(
        &self,
        function: FunctionId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> StoreResult<Option<KeyHolder>> {
        tokio::task::yield_now().await;
        self.inner.key_holder(function, key, now).await
    }
    fn log_claim(&self, claim: ClaimRecord) {
        self.inner.log_claim(claim);
    }
    async fn transition(&self, transition: Transition) -> StoreResult<Applied> {
        self.gate().await?;
        if take_one(&self.orders.failing_transitions) {
            return Err(crate::store::Error::Failed("as the test said".into()));
        }
        let (id, status) = (transition.id, transition.next.status());
        let is_redrive = transition.guard == Guard::Redrivable;
        let applied = self.inner.transition(transition).await?;
        if applied == Applied::Done {
            let mut ends = self.orders.ends.lock().unwrap();
            let ends = ends.entry(id).or_default();
            if is_redrive {
                ends.clear();
            }
            if status.is_terminal() {
                ends.push(status);
            }
        }
        tokio::task::yield_now().await;
        Ok(applied)
    }
    async fn transition_all(&self, all: Vec<Transition>) -> StoreResult<Vec<Applied>> {
        let mut applied = Vec::new();
        for transition in all {
            applied.push(self.transition(transition).await?);
        }
        Ok(applied)
    }
    fn record_ended(&self, ended: EndedExecution) {
        let mut ends = self.orders.ends.lock().unwrap();
        ends.entry(ended.id)
            .or_default()
            .push(ended.execution.status());
        self.inner.record_ended(ended);
    }
    async fn execution(&self, id: ExecutionId) -> StoreResult<Option<ExecutionRecord>> {
        tokio::task::yield_now().await;
        self.inner.execution(id).await
    }
    async fn executions(&self, filter: &Filter, limit: u32) -> StoreResult<Vec<ExecutionRecord>> {
        self.inner.executions(filter, limit).await
    }
    async fn request(&self, id: ExecutionId) -> StoreResult<Option<Request>> {
        tokio::task::yield_now().await;
        self.inner.request(id).await
    }
    async fn attempts(&self, id: ExecutionId) -> StoreResult<Vec<AttemptRecord>> {
        self.inner.attempts(id).await
    }
    async fn live_executions(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> StoreResult<Vec<LiveExecution>> {
        self.inner.live_executions(after, limit.min(3)).await
    }
    async fn purge(&self, retention: Retention) -> StoreResult<u32> {
        self.inner.purge(retention).await
    }
    async fn flush(&self) -> StoreResult<()> {
        self.inner.flush().await
    }
    fn poisoned(&self) -> Option<Arc<str>> {
        self.inner.poisoned()
    }
    async fn wait_poisoned(&self) -> Arc<str> {
        self.inner.wait_poisoned().await
    }
    async fn close(&self) -> StoreResult<()> {
        self.inner.close().await
    }
}

/// What outlives a restart.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) disk: Disk,
    pub(super) orders: Arc<Orders>,
    pub(super) runner: Arc<ScriptedRunner>,
    pub(super) clock: Clock,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            disk: Disk::default(),
            orders: Arc::default(),
            runner: Arc::default(),
            clock: Clock::manual(START),
        }
    }
}

/// One plane's worth of scheduler.
pub(super) struct World {
    pub(super) ground: Ground,
    pub(super) store: Arc<dyn Store>,
    pub(super) registry: Registry,
    pub(super) tasks: Tasks,
    pub(super) scheduler: Scheduler,
}

/// Work moved by hand.
pub(super) fn by_hand() -> Options {
    Options {
        manual: true,
        ..background()
    }
}

/// Work that moves by itself.
pub(super) fn background() -> Options {
    Options {
        manual: false,
        guests_max: 100,
        endpoint_calls_max: 100,
        faults_max: 20,
        idempotency_ttl_ms: 86_400_000,
        queued_input_bytes_max: 1_000_000,
        ..Options::default()
    }
}

impl World {
    pub(super) async fn new(options: Options) -> Self {
        Self::on(Ground::default(), options).await
    }

    pub(super) async fn on(ground: Ground, options: Options) -> Self {
        let store: Arc<dyn Store> = Arc::new(FaultyStore {
            inner: MemoryStore::open(&ground.disk),
            orders: Arc::clone(&ground.orders),
        });
        let tasks = Tasks::default();
        let registry = Registry::open(
            registry::Options::default(),
            Arc::clone(&store),
            Arc::new(AnyCode),
            ground.clock.clone(),
            tasks.clone(),
        )
        .await
        .unwrap();
        let parts = Parts {
            clock: ground.clock.clone(),
            store: Arc::clone(&store),
            registry: registry.clone(),
            runner: Arc::clone(&ground.runner) as Arc<dyn Runner>,
            metrics: Metrics::default(),
            tasks: tasks.clone(),
        };
        let scheduler = Scheduler::start(options, parts).await.unwrap();
        Self {
            ground,
            store,
            registry,
            tasks,
            scheduler,
        }
    }

    /// A function of one guest at a time and three attempts without delay, changed by `edit`.
    pub(super) async fn function(&self, name: &str, edit: impl FnOnce(&mut Spec)) {
        let mut spec = plain_spec();
        edit(&mut spec);
        self.registry.create(&named(name), spec).await.unwrap();
    }

    pub(super) async fn enqueue(&self, name: &str, script: &str) -> ExecutionId {
        let enqueued = self.scheduler.enqueue(call(name, script)).await.unwrap();
        assert!(!enqueued.replayed);
        enqueued.execution.id
    }

    pub(super) async fn drain(&self, name: &str, options: DrainOptions) -> Drained {
        self.scheduler.drain(&named(name), options).await.unwrap()
    }

    /// Drains all there is, whatever its time.
    pub(super) async fn drain_all(&self, name: &str) -> Drained {
        let options = DrainOptions {
            recursive: true,
            ..DrainOptions::default()
        };
        self.drain(name, options).await
    }

    pub(super) async fn record(&self, id: ExecutionId) -> Arc<ExecutionRecord> {
        self.scheduler.execution(id).await.unwrap().expect("known")
    }

    pub(super) async fn execution(&self, id: ExecutionId) -> Execution {
        self.record(id).await.execution.clone()
    }

    #[track_caller]
    pub(super) fn failure_code(&self, execution: &Execution) -> String {
        execution.failure().expect("a failure").code.to_string()
    }

    /// Waits until this many runs have begun. Time jumps to the limit once everybody waits in vain.
    pub(super) async fn runs(&self, count: usize) -> Vec<ExecutionId> {
        let mut runs = self.ground.runner.runs.subscribe();
        let begun = runs.wait_for(|runs| runs.len() >= count);
        let begun = tokio::time::timeout(Duration::from_secs(86_400), begun).await;
        begun.expect("no run begins any more").unwrap().clone()
    }

    /// Waits until an execution has ended; it must not take for ever.
    pub(super) async fn ended(&self, id: ExecutionId) -> Execution {
        for _ in 0..1_000 {
            let execution = self.execution(id).await;
            if execution.status().is_terminal() {
                return execution;
            }
            self.pass(20).await;
        }
        panic!("{id} does not end: {:?}", self.execution(id).await);
    }

    /// Lets the other tasks go on for a while.
    pub(super) async fn pass(&self, turns: u32) {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Moves the plane's clock.
    pub(super) async fn advance(&self, ms: u64) {
        self.ground.clock.advance(Duration::from_millis(ms));
        self.pass(20).await;
    }

    /// Stops as the process does, and starts again on the same disk.
    pub(super) async fn restart(self, options: Options) -> Self {
        self.scheduler.stop(Duration::from_millis(10)).await;
        self.tasks.stop().await;
        self.store.close().await.unwrap();
        Self::on(self.ground, options).await
    }
}

pub(super) fn plain_spec() -> Spec {
    let mut spec = Spec::default();
    spec.settings.concurrency = 1;
    spec.version.image = Some("builtin:echo".to_owned());
    spec.version.retry_backoff = Backoff {
        base_delay_ms: 0,
        max_delay_ms: 0,
    };
    spec
}

pub(super) fn named(name: &str) -> FunctionName {
    name.parse().unwrap()
}

pub(super) fn call(name: &str, script: &str) -> Call {
    Call {
        function: named(name),
        input: Input {
            content_type: JSON,
            body: Bytes::from(format!("\"{script}\"").into_bytes()),
        },
        metadata: Arc::new([]),
        trace_id: None,
        traceparent: None,
        key: None,
        wait: None,
        parent: None,
    }
}

/// A call with a key; the body's hash is a stand-in made of the script's length.
pub(super) fn keyed(name: &str, key: &str, script: &str) -> Call {
    let hash = [u8::try_from(script.len()).unwrap(); 32];
    Call {
        key: Some((key.parse().unwrap(), hash)),
        ..call(name, script)
    }
}
