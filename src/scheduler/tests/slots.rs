//! Slots and places are counted over random interleavings of everything that takes and frees them: calls,
//! replays, hang-ups, panics, deletions, cancels, completions, changed settings, given-back calls.
//!
//! **Invariant:** a history is drawn as data before it runs, so a failure shrinks and replays.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tokio::task::{AbortHandle, JoinSet};

use super::support::*;
use crate::execution::Completion;
use crate::model::{ExecutionId, RuntimeSetting, Spec};
use crate::registry::Registry;
use crate::runtime::Exchange;
use crate::scheduler::{Call, CallError, DrainOptions, Options, Scheduler};
use crate::store;

const NAMES: [&str; 3] = ["a", "b", "service"];
const SCRIPTS: [&str; 10] = [
    "ok",
    "ok",
    "hold",
    "hold",
    "retry ok",
    "error",
    "later:10 ok",
    "panic",
    "nap:20",
    "hang",
];
const GUESTS_MAX: u32 = 3;
const ENDPOINT_CALLS_MAX: u32 = 2;

/// One thing that happens; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Happening {
    Enqueue(Asked),
    Invoke(Asked),
    /// A call whose caller speaks with the function.
    Serve(Asked),
    /// A caller goes away.
    HangUp(usize),
    /// Held runs go on.
    Release(usize),
    Cancel(usize),
    Complete(usize),
    Redrive(usize),
    Drain(usize),
    Delete(usize),
    Concurrency(usize, u32),
    Panics(u32),
    FailingWrites(u32),
    Configure(RuntimeSetting),
    Sleep(u64),
    Advance(u64),
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    name: usize,
    script: usize,
    key: Option<u8>,
    wait_ms: u64,
}

fn asked() -> impl Strategy<Value = Asked> {
    let key = proptest::option::weighted(0.4, 0..3_u8);
    let wait_ms = prop_oneof![Just(5_u64), Just(100), Just(5_000)];
    (0..NAMES.len(), 0..SCRIPTS.len(), key, wait_ms).prop_map(|(name, script, key, wait_ms)| {
        Asked {
            name,
            script,
            key,
            wait_ms,
        }
    })
}

fn setting() -> impl Strategy<Value = RuntimeSetting> {
    let wait = |ms| Some(Duration::from_millis(ms));
    prop_oneof![
        (1..6_u32).prop_map(|depth| RuntimeSetting::SyncQueueMaxDepth(Some(depth))),
        any::<bool>().prop_map(|on| RuntimeSetting::SyncQueueEnabled(Some(on))),
        any::<bool>().prop_map(|on| RuntimeSetting::SyncQueueAdmissionEnabled(Some(on))),
        prop_oneof![Just(3_u64), Just(50), Just(300_000)]
            .prop_map(move |ms| RuntimeSetting::SyncQueueMaxQueueWait(wait(ms))),
        prop_oneof![Just(1_u32), Just(10), Just(1_000_000)]
            .prop_map(|rate| RuntimeSetting::RateMaxPerSecond(Some(rate))),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => asked().prop_map(Happening::Enqueue),
        10 => asked().prop_map(Happening::Invoke),
        8 => asked().prop_map(Happening::Serve),
        4 => (0..100_usize).prop_map(Happening::HangUp),
        4 => (1..4_usize).prop_map(Happening::Release),
        2 => (0..100_usize).prop_map(Happening::Cancel),
        2 => (0..100_usize).prop_map(Happening::Complete),
        1 => (0..100_usize).prop_map(Happening::Redrive),
        1 => (0..NAMES.len()).prop_map(Happening::Drain),
        2 => (0..NAMES.len()).prop_map(Happening::Delete),
        2 => (0..NAMES.len(), 1..5_u32).prop_map(|(n, most)| Happening::Concurrency(n, most)),
        2 => (0..3_u32).prop_map(Happening::Panics),
        1 => (0..3_u32).prop_map(Happening::FailingWrites),
        2 => setting().prop_map(Happening::Configure),
        4 => prop_oneof![Just(1_u64), Just(6), Just(40)].prop_map(Happening::Sleep),
        2 => prop_oneof![Just(10_u64), Just(6_000)].prop_map(Happening::Advance),
    ]
}

fn spec_of(name: &str, concurrency: u32) -> Spec {
    let mut spec = plain_spec();
    spec.settings.concurrency = concurrency;
    spec.settings.queue_size = 6;
    spec.version.timeout_ms = 1_000;
    if name == "service" {
        spec.version.image = None;
        spec.version.endpoint_url = Some("http://127.0.0.1:1/".to_owned());
    }
    spec
}

/// A plane and everybody who talks to it.
struct History {
    world: World,
    talks: JoinSet<()>,
    callers: Vec<AbortHandle>,
    known: std::sync::Arc<std::sync::Mutex<Vec<ExecutionId>>>,
}

impl History {
    async fn begin() -> Self {
        let options = Options {
            guests_max: GUESTS_MAX,
            endpoint_calls_max: ENDPOINT_CALLS_MAX,
            faults_max: 1,
            ..background()
        };
        let world = World::new(options).await;
        for name in NAMES {
            let spec = spec_of(name, 2);
            world.registry.create(&named(name), spec).await.unwrap();
        }
        Self {
            world,
            talks: JoinSet::new(),
            callers: Vec::new(),
            known: std::sync::Arc::default(),
        }
    }

    fn somebody(&self, choice: usize) -> Option<ExecutionId> {
        let mut ids: Vec<_> = self.world.scheduler.lock().live.keys().copied().collect();
        ids.sort_unstable();
        ids.extend(self.known.lock().unwrap().iter().rev().take(3));
        (!ids.is_empty()).then(|| ids[choice % ids.len()])
    }

    fn call(&mut self, asked: Asked, invoke: fn(&World, Call) -> Talk) {
        let (name, script) = (NAMES[asked.name], SCRIPTS[asked.script]);
        let mut call = match asked.key {
            Some(key) => keyed(name, &format!("key{key}"), script),
            None => call(name, script),
        };
        call.wait = Some(Duration::from_millis(asked.wait_ms));
        let talk = invoke(&self.world, call);
        let known = std::sync::Arc::clone(&self.known);
        let task = self.talks.spawn(async move {
            match talk.await {
                Ok(id) => known.lock().unwrap().push(id),
                Err(error) => check_refusal(&error),
            }
        });
        self.callers.push(task);
    }

    async fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Enqueue(asked) => self.call(asked, enqueue),
            Happening::Invoke(asked) => self.call(asked, invoke),
            Happening::Serve(asked) => self.call(Asked { key: None, ..asked }, serve),
            Happening::HangUp(choice) if !self.callers.is_empty() => {
                let caller = self.callers.swap_remove(choice % self.callers.len());
                caller.abort();
            }
            Happening::HangUp(_) => {}
            Happening::Release(count) => self.world.ground.runner.held.add_permits(count),
            Happening::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Happening::Advance(ms) => self.world.advance(ms).await,
            Happening::Panics(count) => {
                let panics = &self.world.ground.runner.panics;
                panics.store(count, Ordering::SeqCst);
            }
            Happening::FailingWrites(count) => {
                let failing = &self.world.ground.orders.failing;
                failing.store(count, Ordering::SeqCst);
            }
            order @ (Happening::Cancel(_)
            | Happening::Complete(_)
            | Happening::Redrive(_)
            | Happening::Drain(_)
            | Happening::Delete(_)
            | Happening::Concurrency(..)
            | Happening::Configure(_)) => self.order(order),
        }
    }

    /// What somebody else asks for, and nobody waits for here.
    fn order(&mut self, happening: Happening) {
        let scheduler = self.world.scheduler.clone();
        let registry = self.world.registry.clone();
        let somebody = |choice| self.somebody(choice);
        match happening {
            Happening::Cancel(choice) => {
                let Some(id) = somebody(choice) else { return };
                self.talks
                    .spawn(async move { drop(scheduler.cancel(id).await) });
            }
            Happening::Complete(choice) => {
                let Some(id) = somebody(choice) else { return };
                let report = async move {
                    drop(
                        scheduler
                            .complete(id, None, Completion::Success, None)
                            .await,
                    );
                };
                self.talks.spawn(report);
            }
            Happening::Redrive(choice) => {
                let Some(id) = somebody(choice) else { return };
                self.talks
                    .spawn(async move { drop(scheduler.redrive(id, None).await) });
            }
            Happening::Drain(name) => {
                let drain = async move {
                    let name = named(NAMES[name]);
                    drop(scheduler.drain(&name, DrainOptions::default()).await);
                };
                self.talks.spawn(drain);
            }
            Happening::Delete(name) => {
                let again = async move {
                    drop(scheduler.remove_function(&named(NAMES[name])).await);
                    let spec = spec_of(NAMES[name], 2);
                    drop(registry.create(&named(NAMES[name]), spec).await);
                };
                self.talks.spawn(again);
            }
            Happening::Concurrency(name, most) => {
                self.talks.spawn(change(scheduler, registry, name, most));
            }
            Happening::Configure(setting) => {
                let change = async move {
                    let (revision, _) = scheduler.runtime_config();
                    drop(
                        scheduler
                            .change_runtime_config(revision, vec![setting])
                            .await,
                    );
                };
                self.talks.spawn(change);
            }
            other @ (Happening::Enqueue(_)
            | Happening::Invoke(_)
            | Happening::Serve(_)
            | Happening::HangUp(_)
            | Happening::Release(_)
            | Happening::Panics(_)
            | Happening::FailingWrites(_)
            | Happening::Sleep(_)
            | Happening::Advance(_)) => panic!("not an order: {other:?}"),
        }
    }

    /// No more runs than slots, and no run without one.
    #[track_caller]
    fn check(&self) {
        let scheduler = &self.world.scheduler;
        scheduler.check_invariants();
        let load = scheduler.load();
        let most = (GUESTS_MAX + ENDPOINT_CALLS_MAX) as usize;
        assert!(load.running <= most, "{load:?}");
        let running = *self.world.ground.runner.running.borrow() as usize;
        assert!(running <= load.running, "a run without a slot");
    }

    /// From now on nothing fails, everybody gets an answer, and what is left is ended.
    async fn calm_down(&mut self) {
        let orders = &self.world.ground.orders;
        orders.failing.store(0, Ordering::SeqCst);
        self.world.ground.runner.panics.store(0, Ordering::SeqCst);
        for _ in 0..100 {
            self.world.ground.runner.held.add_permits(10);
            tokio::time::sleep(Duration::from_secs(11)).await;
            self.world.advance(60_000).await;
            let is_quiet = self.world.scheduler.live_count() == 0;
            if is_quiet && self.talks.len() == count_ended(&mut self.talks) {
                break;
            }
        }
        while let Some(talk) = self.talks.join_next().await {
            if let Err(error) = talk {
                assert!(error.is_cancelled(), "a caller's expectation: {error}");
            }
        }
        let held = &self.world.ground.runner.held;
        held.forget_permits(held.available_permits());
        assert_eq!(self.world.scheduler.live_count(), 0, "work that never ends");
        assert_eq!(*self.world.ground.runner.running.borrow(), 0);
        self.world.scheduler.check_at_rest();
    }

    /// Every slot that there should be can be taken, and no more.
    async fn check_all_slots(&self) {
        // Whatever was the rate: these calls are all let in.
        let (revision, _) = self.world.scheduler.runtime_config();
        let all = vec![RuntimeSetting::RateMaxPerSecond(None)];
        let scheduler = &self.world.scheduler;
        scheduler
            .change_runtime_config(revision, all)
            .await
            .unwrap();
        for name in NAMES {
            let Some(function) = self.world.registry.get(&named(name)) else {
                continue;
            };
            let plane = match name {
                "service" => ENDPOINT_CALLS_MAX,
                _ => GUESTS_MAX,
            };
            let expected = plane.min(function.settings.concurrency);
            let before = self.world.ground.runner.runs.borrow().len();
            let mut ids = Vec::new();
            for _ in 0..6 {
                ids.push(self.world.enqueue(name, "hold").await);
            }
            self.world.pass(50).await;
            let running = *self.world.ground.runner.running.borrow();
            assert_eq!(running, expected, "slots of {name}");
            let begun = self.world.ground.runner.runs.borrow().len() - before;
            assert_eq!(begun, expected as usize);
            self.world.ground.runner.held.add_permits(6);
            for id in ids {
                self.world.ended(id).await;
            }
        }
        self.world.scheduler.check_at_rest();
    }
}

async fn change(scheduler: Scheduler, registry: Registry, name: usize, most: u32) {
    let edit = move |spec: &Spec| {
        let mut spec = spec.clone();
        spec.settings.concurrency = most;
        Ok(spec)
    };
    let name = named(NAMES[name]);
    drop(registry.update(&name, Box::new(edit)).await);
    scheduler.settings_changed(&name);
}

type Talk = std::pin::Pin<Box<dyn Future<Output = Result<ExecutionId, CallError>> + Send>>;

fn enqueue(world: &World, call: Call) -> Talk {
    let scheduler = world.scheduler.clone();
    Box::pin(async move { Ok(scheduler.enqueue(call).await?.execution.id) })
}

fn invoke(world: &World, call: Call) -> Talk {
    let scheduler = world.scheduler.clone();
    Box::pin(async move { Ok(scheduler.invoke(call).await?.execution.id) })
}

fn serve(world: &World, call: Call) -> Talk {
    let scheduler = world.scheduler.clone();
    let function = world.registry.get(&call.function);
    Box::pin(async move {
        let unknown = || CallError::UnknownFunction(call.function.clone());
        let function = function.ok_or_else(unknown)?;
        let mut serving = scheduler
            .serve(&function, call, Exchange::plain().0)
            .await?;
        Ok(serving.ended().await?.id)
    })
}

fn count_ended(talks: &mut JoinSet<()>) -> usize {
    let mut ended = 0;
    while let Some(talk) = talks.try_join_next() {
        if let Err(error) = talk {
            assert!(error.is_cancelled(), "a caller's expectation: {error}");
        }
        ended += 1;
    }
    ended
}

#[track_caller]
fn check_refusal(error: &CallError) {
    let expected = matches!(
        error,
        CallError::UnknownFunction(_)
            | CallError::QueueFull { .. }
            | CallError::RateLimited { .. }
            | CallError::KeyReused(_)
            | CallError::Store(store::Error::Failed(_))
    );
    assert!(expected, "not an answer to a call: {error}");
}

async fn live(happenings: Vec<Happening>) {
    let mut history = History::begin().await;
    for happening in happenings {
        history.happen(happening).await;
        history.world.pass(7).await;
        history.check();
    }
    history.calm_down().await;
    history.check_all_slots().await;
    let ends = history.world.ground.orders.ends.lock().unwrap().clone();
    check_ends(&ends);
}

fn check_ends(ends: &BTreeMap<ExecutionId, Vec<crate::execution::Status>>) {
    for (id, ends) in ends {
        assert!(ends.len() <= 1, "{id} ended more than once: {ends:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_slot_and_no_place_is_lost(happenings in proptest::collection::vec(happening(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        // Time is stopped: it jumps to this limit as soon as everybody waits for somebody else.
        let in_time = async { tokio::time::timeout(Duration::from_secs(86_400), live(happenings)).await };
        prop_assert!(runtime.block_on(in_time).is_ok(), "everybody waits, and nothing happens");
    }
}
