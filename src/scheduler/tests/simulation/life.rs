//! One start of a plane, with everybody who talks to it and all that goes wrong meanwhile.
//!
//! **Invariant:** what happens next is decided by the seed alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::fairness::Fairness;
use super::ledger::{Asked, Outside, REQUEUES_MAX};
use super::random::Random;
use crate::execution::{Completion, Status};
use crate::model::{Backoff, ExecutionId, Failure, Fence, RuntimeConfig, RuntimeSetting, Spec};
use crate::scheduler::state::{Home, Live};
use crate::scheduler::tests::support::*;
use crate::scheduler::{Call, CallError, DrainOptions, Options};
use crate::shutdown::Tasks;
use crate::shutdown::chaos::Chaos;
use crate::store;

/// Names of functions.
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
/// The age that work of some functions may reach; that of the others does not matter.
pub(super) const AGE_MS_MAX: u64 = 1_000;
const SCRIPTS: [&str; 16] = [
    "ok",
    "ok",
    "ok",
    "error",
    "limit",
    "retry",
    "retry ok",
    "retry retry retry ok",
    "timeout",
    "timeout retry ok",
    "later:0 ok",
    "later:500 retry later:20 ok",
    "later:7",
    "hang ok",
    "hang",
    "retry later:100 error",
];

pub(super) fn random_spec(random: &mut Random) -> Spec {
    let mut spec = plain_spec();
    spec.settings.concurrency = 1 + random.below(3) as u32;
    spec.settings.queue_size = random.pick(&[1, 2, 3, 100]);
    if random.one_in(4) {
        spec.settings.rate_per_second = Some(random.pick(&[1, 5, 100]));
        spec.settings.burst = random.pick(&[None, Some(1), Some(3)]);
    }
    spec.version.max_retries = random.below(4) as u32;
    spec.version.max_requeues = REQUEUES_MAX;
    spec.version.timeout_ms = random.pick(&[5, 50, 1_000]);
    if random.one_in(2) {
        spec.version.retry_backoff = Backoff {
            base_delay_ms: 20,
            max_delay_ms: 200,
        };
    }
    if random.one_in(4) {
        spec.version.max_age_ms = random.pick(&[100, AGE_MS_MAX]);
    }
    if random.one_in(3) {
        spec.version.image = None;
        spec.version.endpoint_url = Some("http://127.0.0.1:1/".to_owned());
    }
    spec
}

pub(super) fn random_options(random: &mut Random) -> Options {
    Options {
        manual: random.one_in(2),
        guests_max: random.pick(&[1, 2, 100]),
        endpoint_calls_max: random.pick(&[1, 2, 100]),
        // Faults are ours: they must never decide here.
        faults_max: 1_000,
        queued_input_bytes_max: random.pick(&[0, 20, 1_000_000]),
        uncommitted_result_bytes_max: random.pick(&[0, 100, 1_000_000]),
        running_input_bytes_max: random.pick(&[10, 40, 1_000_000]),
        start_ramp_ms: random.pick(&[0, 20]),
        suspect_faults: random.pick(&[1, 1_000]),
        suspect_alone: Duration::from_millis(random.pick(&[0, 5, 1_000])),
        runtime_config: RuntimeConfig {
            rate_max_per_second: random.pick(&[2, 20, 1_000_000, 1_000_000]),
            sync_queue_enabled: !random.one_in(4),
            sync_queue_max_depth: random.pick(&[1, 3, 4_096]),
            sync_queue_max_queue_wait: Duration::from_millis(random.pick(&[3, 50, 300_000])),
            ..RuntimeConfig::default()
        },
        ..background()
    }
}

/// A change of the runtime config.
fn random_setting(random: &mut Random) -> RuntimeSetting {
    let ms = |ms| Some(Duration::from_millis(ms));
    match random.below(6) {
        0 => RuntimeSetting::RateMaxPerSecond(random.pick(&[None, Some(1), Some(10)])),
        1 => RuntimeSetting::SyncQueueEnabled(Some(random.one_in(2))),
        2 => RuntimeSetting::SyncQueueAdmissionEnabled(Some(random.one_in(2))),
        3 => RuntimeSetting::SyncQueueMaxDepth(random.pick(&[None, Some(1), Some(4)])),
        4 => RuntimeSetting::SyncQueueMaxEstimatedWait(random.pick(&[None, ms(1), ms(100)])),
        _ => RuntimeSetting::SyncQueueMaxQueueWait(random.pick(&[None, ms(3), ms(50)])),
    }
}

/// How much goes wrong in a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// Writes fail and stall, runs panic, the store is poisoned.
    Foul,
    /// People do what they like; we do not fail them.
    Fair,
}

/// See the module.
pub(super) struct Life<'a> {
    pub(super) world: Arc<World>,
    random: &'a mut Random,
    outside: Outside,
    mood: Mood,
    chaos: Chaos,
    /// Whether work is taken by hand, too.
    by_hand: bool,
    talks: JoinSet<()>,
    /// Callers who may hang up, and what their calls are called if they wait for them alone.
    callers: Vec<(AbortHandle, Option<Arc<str>>)>,
    /// What hung up callers waited for alone, and when they went.
    abandoned: Vec<(ExecutionId, Instant)>,
    /// Calls so far.
    calls: u32,
    fairness: Fairness,
    /// Changes of functions that were begun, and that are under way.
    changes: Arc<[AtomicU32; 2]>,
    changes_seen: u32,
}

impl<'a> Life<'a> {
    /// Starts a plane. Its start is one of its tasks, so that it may die there too.
    pub(super) async fn start(
        ground: Ground,
        options: Options,
        chaos: &Chaos,
        (random, outside, mood): (&'a mut Random, Outside, Mood),
    ) -> Self {
        let by_hand = options.manual || random.one_in(3);
        let tasks = Tasks::of(chaos);
        let starting = tasks.clone();
        let world = tasks.spawn(World::of(ground, options, starting));
        Self {
            world: Arc::new(world.await.expect("a start")),
            random,
            outside,
            mood,
            chaos: chaos.clone(),
            by_hand,
            talks: JoinSet::new(),
            callers: Vec::new(),
            abandoned: Vec::new(),
            calls: 0,
            fairness: Fairness::default(),
            changes: Arc::default(),
            changes_seen: 0,
        }
    }

    /// So many things happen, one after the other, with some time in between.
    pub(super) async fn steps(&mut self, count: u64) {
        for _ in 0..count {
            self.step().await;
            let turns = self.random.below(12) as u32;
            self.world.pass(turns).await;
            self.look();
            if self.world.store.poisoned().is_some() && self.random.one_in(2) {
                break;
            }
        }
    }

    /// Everybody has been answered, or the life is over.
    pub(super) async fn answered(&mut self) {
        while let Some(talk) = self.talks.join_next().await {
            hear(talk);
        }
    }

    /// What must hold at any moment.
    pub(super) fn look(&mut self) {
        self.world.scheduler.check_invariants();
        while let Some(talk) = self.talks.try_join_next() {
            hear(talk);
        }
        self.look_at_the_abandoned();
        if self.by_hand {
            return;
        }
        let [begun, under_way] = &*self.changes;
        let begun = begun.load(Ordering::SeqCst);
        if begun != self.changes_seen || under_way.load(Ordering::SeqCst) > 0 {
            self.changes_seen = begun;
            self.fairness.forget();
        }
        self.fairness.observe(&self.world.scheduler);
    }

    /// Nothing goes on for nobody. Time passes only when nobody has anything to do, so a hang-up has had its
    /// effect by then.
    #[track_caller]
    fn look_at_the_abandoned(&mut self) {
        let now = Instant::now();
        let state = self.world.scheduler.lock();
        self.abandoned.retain(|(id, since)| {
            let had_time = now > *since;
            let goes_on = state
                .live
                .get(id)
                .is_some_and(|live| is_a_callers_own(live));
            assert!(!(had_time && goes_on), "{id} goes on, and nobody waits");
            goes_on
        });
    }

    /// How often fairness was put to the test.
    pub(super) fn passed_over(&self) -> usize {
        self.fairness.passed_over
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.world.ground.trace.note(line);
    }

    fn talk(&mut self, talk: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.talks.spawn(self.chaos.wrap(talk))
    }

    async fn step(&mut self) {
        let what = self.random.below(27);
        self.note(|| format!("step {what}"));
        match what {
            0..=5 => self.enqueue(),
            6..=9 => self.invoke(),
            10..=11 => self.drain(),
            12 => self.tick(),
            13..=14 => self.order_cancel(),
            15..=16 => self.order_complete(),
            17 => self.order_redrive(),
            18 => self.change_function(),
            19 => self.delete_function(),
            20 => {
                let ms = self.random.pick(&[1, 10, 100, 600]);
                self.world.ground.clock.advance(Duration::from_millis(ms));
            }
            21 => {
                let ms = self.random.pick(&[1, 3, 20]);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            22 => self.spoil_the_store(),
            23 => self.let_runs_panic(),
            24 => self.configure(),
            25 => self.storm(),
            _ => self.hang_up(),
        }
    }

    /// More work than there are slots, and then so much time that it may be too old.
    fn storm(&mut self) {
        for _ in 0..1 + self.random.below(16) {
            self.enqueue();
        }
        if self.random.one_in(2) {
            let clock = &self.world.ground.clock;
            clock.advance(Duration::from_millis(2 * AGE_MS_MAX));
        }
    }

    fn configure(&mut self) {
        let setting = random_setting(self.random);
        let world = Arc::clone(&self.world);
        self.talk(async move {
            let (revision, _) = world.scheduler.runtime_config();
            let changed = world
                .scheduler
                .change_runtime_config(revision, vec![setting])
                .await;
            let trace = &world.ground.trace;
            trace.note(|| format!("configured {setting:?}: {}", changed.is_ok()));
        });
    }

    fn let_runs_panic(&mut self) {
        let panics = self.random.below(3) as u32;
        if self.mood == Mood::Foul {
            let runner = &self.world.ground.runner;
            runner.panics.store(panics, Ordering::SeqCst);
        }
    }

    fn spoil_the_store(&mut self) {
        let (what, times) = (self.random.below(14), self.random.below(4) as u32);
        if self.mood == Mood::Fair {
            return;
        }
        let orders = &self.world.ground.orders;
        match what {
            0..=1 => orders.failing.store(times, Ordering::SeqCst),
            2..=3 => orders.panicking.store(1, Ordering::SeqCst),
            4..=5 => orders.failing_transitions.store(times, Ordering::SeqCst),
            6 => *orders.poisoning.lock().unwrap() = Some(Poisoned::Written),
            7 => *orders.poisoning.lock().unwrap() = Some(Poisoned::Lost),
            8..=9 => orders.stalled.send_replace(true),
            10..=11 => orders.echoing.store(times, Ordering::SeqCst),
            _ => orders.stalled.send_replace(false),
        }
    }

    fn ask(&mut self) -> (Call, Asked) {
        let name = self.random.pick(&NAMES);
        let with_key = self.random.one_in(3);
        let key = with_key.then(|| format!("key{}", self.random.below(4)));
        let script = self.random.pick(&SCRIPTS);
        let mut call = match &key {
            Some(key) => keyed(name, key, script),
            None => call(name, script),
        };
        if self.random.one_in(2) {
            let ms = self.random.pick(&[1, 10, 200]);
            call.wait = Some(Duration::from_millis(ms));
        }
        let asked = Asked {
            name: name.to_owned(),
            script: script.to_owned(),
            key,
            deletions: self.outside.deletions(name),
        };
        (call, asked)
    }

    fn enqueue(&mut self) {
        let (call, asked) = self.ask();
        let (world, outside) = (Arc::clone(&self.world), self.outside.clone());
        self.talk(async move {
            match world.scheduler.enqueue(call).await {
                Ok(enqueued) => {
                    let id = enqueued.execution.id;
                    world.ground.trace.note(|| format!("answer {id}: queued"));
                    if enqueued.replayed {
                        // Perhaps a synchronous call made it, whose limit ends it.
                        outside.touch(id);
                    }
                    outside.promise(id, &asked);
                }
                Err(error) => refused(&world, &outside, &error),
            }
        });
    }

    fn invoke(&mut self) {
        let (mut call, asked) = self.ask();
        self.calls += 1;
        // So that its execution is found again, whose id a caller learns with the result alone.
        let name: Option<Arc<str>> = match &asked.key {
            None => Some(format!("call {}", self.calls).into()),
            Some(_) => None,
        };
        call.trace_id = name.clone();
        let (world, outside) = (Arc::clone(&self.world), self.outside.clone());
        let caller = self.talk(async move {
            match world.scheduler.invoke(call).await {
                Ok(invoked) => {
                    let (id, status) = (invoked.execution.id, invoked.execution.execution.status());
                    let trace = &world.ground.trace;
                    trace.note(|| format!("answer {id}: {}", status.as_str()));
                    assert!(invoked.replayed || status.is_terminal(), "{status:?}");
                    if asked.key.is_some() {
                        // Its creator's time may have ended it.
                        outside.touch(id);
                        outside.promise(id, &asked);
                    } else {
                        outside.with(|ledger| ledger.known.push(id));
                    }
                    outside.tell(id, status);
                }
                Err(error) => refused(&world, &outside, &error),
            }
        });
        self.callers.push((caller, name));
    }

    fn drain(&mut self) {
        let name = named(self.random.pick(&NAMES));
        let limits = [None, Some(1), Some(3)];
        let options = DrainOptions {
            limit: self.random.pick(&limits),
            respect_schedule: self.random.one_in(2),
            recursive: self.random.one_in(2),
        };
        if !self.by_hand {
            return;
        }
        let (world, outside) = (Arc::clone(&self.world), self.outside.clone());
        self.talk(async move {
            let Ok(drained) = world.scheduler.drain(&name, options).await else {
                return;
            };
            for item in drained.items {
                let (id, status) = (item.execution_id, item.status);
                let trace = &world.ground.trace;
                trace.note(|| format!("drained {id}: {}", status.as_str()));
                // One that was completed from outside meanwhile may run again, under another claim; and a store
                // that takes no writes records nothing.
                let excused = outside.with(|ledger| ledger.touched.contains(&id))
                    || world.store.poisoned().is_some();
                assert!(
                    excused || status != Status::Running,
                    "a drain answered too early"
                );
            }
        });
    }

    fn tick(&mut self) {
        let name = named(self.random.pick(&NAMES));
        if self.by_hand
            && let Ok(Some(handle)) = self.world.scheduler.tick_once(&name)
        {
            drop(handle);
        }
    }

    /// An execution that somebody knows of, or one that is live.
    fn somebody(&mut self) -> Option<ExecutionId> {
        let mut live: Vec<_> = self.world.scheduler.lock().live.keys().copied().collect();
        live.sort_unstable();
        let known = |ledger: &mut super::ledger::Ledger| {
            let latest = ledger.known.iter().rev().take(3);
            latest.copied().collect::<Vec<_>>()
        };
        live.extend(self.outside.with(known));
        (!live.is_empty()).then(|| self.random.pick(&live))
    }

    fn order_cancel(&mut self) {
        let Some(id) = self.somebody() else { return };
        self.outside.touch(id);
        let (world, outside) = (Arc::clone(&self.world), self.outside.clone());
        self.talk(async move {
            if let Ok(Some(record)) = world.scheduler.cancel(id).await {
                let status = record.execution.status();
                world.ground.trace.note(|| format!("cancelled {id}"));
                assert!(status.is_terminal(), "{record:?}");
                outside.tell(id, status);
            }
        });
    }

    fn order_complete(&mut self) {
        let Some(id) = self.somebody() else { return };
        self.outside.touch(id);
        let outside = || Failure::new("OUTSIDE", "as somebody said");
        let completion = match self.random.below(4) {
            0 => Completion::Success,
            1 => Completion::Error(outside()),
            2 => Completion::Retry(outside()),
            _ => Completion::Timeout(outside()),
        };
        let live_fence = {
            let state = self.world.scheduler.lock();
            state.live.get(&id).and_then(|live| live.execution.fence())
        };
        let fence = match self.random.below(3) {
            0 => None,
            1 => live_fence,
            _ => Some(Fence(1)),
        };
        let times = 1 + self.random.below(2);
        let world = Arc::clone(&self.world);
        self.talk(async move {
            for _ in 0..times {
                let completion = completion.clone();
                let completed = world.scheduler.complete(id, fence, completion, None).await;
                let trace = &world.ground.trace;
                trace.note(|| format!("completed {id}: {completed:?}"));
            }
        });
    }

    fn order_redrive(&mut self) {
        let Some(id) = self.somebody() else { return };
        self.outside.redrive(id);
        let world = Arc::clone(&self.world);
        self.talk(async move {
            let redriven = world.scheduler.redrive(id, None).await;
            let trace = &world.ground.trace;
            trace.note(|| format!("redriven {id}: {}", redriven.is_ok()));
        });
    }

    /// A change of a function; nobody judges fairness before it is over.
    fn change(&mut self, change: impl Future<Output = ()> + Send + 'static) {
        let changes = Arc::clone(&self.changes);
        for count in &*changes {
            count.fetch_add(1, Ordering::SeqCst);
        }
        self.talk(async move {
            change.await;
            changes[1].fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn change_function(&mut self) {
        let name = named(self.random.pick(&NAMES));
        let settings = random_spec(self.random).settings;
        let attempts = self.random.one_in(2).then(|| self.random.below(4) as u32);
        let world = Arc::clone(&self.world);
        self.change(async move {
            let edit = move |spec: &Spec| {
                let mut spec = spec.clone();
                spec.settings = settings;
                spec.version.max_retries = attempts.unwrap_or(spec.version.max_retries);
                Ok(spec)
            };
            let _ = world.registry.update(&name, Box::new(edit)).await;
            world.scheduler.settings_changed(&name);
        });
    }

    /// Deletes a function and makes it again.
    fn delete_function(&mut self) {
        if !self.random.one_in(2) {
            return;
        }
        let name = self.random.pick(&NAMES);
        let again = random_spec(self.random);
        self.outside.deleted(name);
        let (world, outside) = (Arc::clone(&self.world), self.outside.clone());
        self.change(async move {
            let _ = world.scheduler.remove_function(&named(name)).await;
            outside.deleted(name);
            let _ = world.registry.create(&named(name), again).await;
        });
    }

    /// One caller goes away, or everybody who waits for an answer at once.
    fn hang_up(&mut self) {
        let all = self.random.one_in(6);
        if all {
            for (_, name) in std::mem::take(&mut self.callers) {
                self.abandon(name.as_deref());
            }
            self.talks.abort_all();
            self.talks.detach_all();
            // Nobody says any more when changes are over.
            self.changes = Arc::new([AtomicU32::new(u32::MAX), AtomicU32::new(1)]);
        } else if !self.callers.is_empty() {
            let one = self.random.below(self.callers.len() as u64) as usize;
            let (caller, name) = self.callers.swap_remove(one);
            self.abandon(name.as_deref());
            caller.abort();
        }
    }

    /// Whoever waits for the call of this name is about to go away.
    fn abandon(&mut self, name: Option<&str>) {
        let Some(name) = name else { return };
        let state = self.world.scheduler.lock();
        let mut own = state.live.values().filter(|live| is_a_callers_own(live));
        if let Some(live) = own.find(|live| live.trace_id.as_deref() == Some(name)) {
            self.abandoned.push((live.id, Instant::now()));
        }
    }
}

/// Whether an execution is there for its caller alone. One that was redriven since is not.
fn is_a_callers_own(live: &Live) -> bool {
    live.home == Home::Memory
}

/// A talk has ended; one that was cut says nothing.
#[track_caller]
fn hear(talk: Result<(), tokio::task::JoinError>) {
    match talk {
        Err(error) if error.is_cancelled() => {}
        talk => talk.expect("a caller's expectation"),
    }
}

fn refused(world: &World, outside: &Outside, error: &CallError) {
    world.ground.trace.note(|| format!("refused: {error}"));
    match error {
        CallError::UnknownFunction(_)
        | CallError::QueueFull { .. }
        | CallError::KeyReused(_)
        | CallError::Stopping
        | CallError::StoppingFirst(_)
        | CallError::Store(
            store::Error::Failed(_) | store::Error::Closed | store::Error::Poisoned(_),
        ) => {}
        CallError::RateLimited {
            per_second,
            retry_after_s,
            ..
        } => {
            assert!(*per_second > 0 && *retry_after_s > 0, "{error:?}");
            outside.with(|ledger| ledger.limited += 1);
        }
        CallError::NotRedrivable(_)
        | CallError::FunctionReplaced(..)
        | CallError::InputNotKept(_)
        | CallError::UnknownVersion(_)
        | CallError::CodeGone(_)
        | CallError::Forgotten(_)
        | CallError::Store(_) => panic!("not an answer to a call: {error}"),
    }
}
