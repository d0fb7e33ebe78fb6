//! A small world to test the scheduler in: a store that fails on command ([`super::faulty`]), a runner that does
//! what the input says ([`super::scripted`]), a clock that is moved by hand.
//!
//! **Invariant:** nothing here waits for real time; what a test waits for is an event.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::*;
pub(super) use super::faulty::{FaultyStore, Orders, Poisoned};
pub(super) use super::scripted::{ScriptedRunner, failure};
pub(super) use super::trace::Trace;
use crate::execution::Execution;
use crate::model::{Backoff, Digest, ExecutionId, FunctionName, Input, JSON, Spec, Timestamp};
use crate::registry::{self, CodeSource};
use crate::runtime::{Prepared, Refused};
use crate::store::ExecutionRecord;
use crate::store::memory::{Disk, MemoryStore};

/// When every world begins.
pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);

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

/// What outlives a restart.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) disk: Disk,
    pub(super) orders: Arc<Orders>,
    pub(super) runner: Arc<ScriptedRunner>,
    pub(super) clock: Clock,
    pub(super) dice: Dice,
    pub(super) trace: Trace,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            disk: Disk::default(),
            orders: Arc::default(),
            runner: Arc::default(),
            clock: Clock::manual(START),
            dice: Dice::system(),
            trace: Trace::default(),
        }
    }
}

impl Ground {
    /// One on which all chance is of this seed.
    pub(super) fn seeded(seed: u64, trace: Trace) -> Self {
        Self {
            runner: Arc::new(ScriptedRunner::traced(trace.clone())),
            dice: Dice::seeded(seed),
            trace,
            ..Self::default()
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
        running_input_bytes_max: 1_000_000,
        start_ramp_ms: 0,
        suspect_faults: 2,
        ..Options::default()
    }
}

impl World {
    pub(super) async fn new(options: Options) -> Self {
        Self::on(Ground::default(), options).await
    }

    pub(super) async fn on(ground: Ground, options: Options) -> Self {
        Self::of(ground, options, Tasks::default()).await
    }

    /// A plane of these tasks.
    pub(super) async fn of(ground: Ground, options: Options, tasks: Tasks) -> Self {
        let store: Arc<dyn Store> = Arc::new(FaultyStore::new(
            MemoryStore::open(&ground.disk),
            Arc::clone(&ground.orders),
            ground.trace.clone(),
        ));
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
            dice: ground.dice.clone(),
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
