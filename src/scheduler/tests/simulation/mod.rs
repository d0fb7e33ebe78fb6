//! Random histories: calls, orders, failures and crashes in an order that a seed decides, judged afterwards by what
//! must hold whatever happened.
//!
//! Everything that is decided by chance comes from the seed: what happens, the ids, the jitter, the order in which
//! tasks go on, and the step at which a process dies. So a seed is a whole history, and it can be told again:
//!
//! ```text
//! cargo test --lib histories seed=17             one history, every line of it
//! cargo test --release --lib histories seeds=1000000
//! cargo test --release --lib histories seeds=1000000 from=5000000
//! ```
//!
//! **Invariant:** a history waits for no real time, and the same seed gives the same history, step by step.

mod fairness;
mod judge;
mod ledger;
mod life;
mod poison;
mod random;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tokio::runtime::Builder;

use self::judge::{calm, judged};
use self::ledger::Outside;
use self::life::{Life, Mood, NAMES, random_options, random_spec};
use self::random::Random;
use super::support::*;
use crate::shutdown::chaos::Chaos;

/// Histories of an ordinary run.
const SEEDS: u64 = 10_000;
/// Histories that are told once for each of their steps, with a crash there.
const CRASHED_EVERYWHERE: u64 = 24;
/// Lines of a failed history that are shown at most.
const LINES_SHOWN_MAX: usize = 400;

/// What to vary of a history.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    /// The first process dies at this step of its tasks, if it lives so long; else the seed decides.
    dies_at: Option<u64>,
    /// What happens in the first life, at most.
    steps_max: u64,
}

impl Plan {
    fn of(seed: u64) -> Self {
        Self {
            seed,
            dies_at: None,
            steps_max: 35,
        }
    }
}

/// What a history came to.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// Steps that the tasks of its first life took.
    steps: u64,
    passed_over: usize,
    /// Calls that a rate refused.
    limited: usize,
    /// Executions that grew too old.
    aged: usize,
}

/// Tells one history.
fn history(plan: Plan, trace: &Trace) -> Told {
    let mut random = Random::new(plan.seed);
    let ground = Ground::seeded(random.next(), trace.clone());
    ground.orders.claims_wait.store(true, Ordering::SeqCst);
    let outside = Outside::default();
    let mut told = Told::default();
    for life in 0..1 + random.below(2) {
        let dies_at = match random.below(4) {
            0 => u64::MAX,
            _ => random.mostly_small(11),
        };
        let dies_at = plan.dies_at.filter(|_| life == 0).unwrap_or(dies_at);
        let chaos = Chaos::new(random.next(), dies_at);
        let steps = (10 + random.below(25)).min(plan.steps_max);
        let passed_over = AtomicUsize::new(0);
        let lives = disturbed(
            ground.clone(),
            (&mut random, outside.clone()),
            &chaos,
            (steps, &passed_over),
        );
        in_one_process(&chaos, lives);
        trace.note(|| "the process is gone".to_owned());
        if life == 0 {
            told.steps = chaos.steps();
        }
        told.passed_over += passed_over.into_inner();
        calm(&ground);
        let ms = random.pick(&[0, 1, 500]);
        ground.clock.advance(Duration::from_millis(ms));
    }
    told.limited = outside.with(|ledger| ledger.limited);
    let chaos = Chaos::new(random.next(), u64::MAX);
    let judged = judged(ground, &mut random, outside.clone(), chaos.clone());
    in_one_process(&chaos, judged);
    told.aged = outside.with(|ledger| ledger.aged);
    told
}

/// A life that ends badly, at some step; or well, by a stop.
async fn disturbed(
    ground: Ground,
    (random, outside): (&mut Random, Outside),
    chaos: &Chaos,
    (steps, passed_over): (u64, &AtomicUsize),
) {
    let (options, stops) = (random_options(random), random.one_in(3));
    let grace = Duration::from_millis(random.pick(&[0, 5, 500]));
    let specs: Vec<_> = NAMES.iter().map(|_| random_spec(random)).collect();
    let mut life = Life::start(ground, options, chaos, (random, outside, Mood::Foul)).await;
    for (name, spec) in NAMES.iter().zip(specs) {
        if life.world.registry.get(&named(name)).is_none() {
            life.world
                .registry
                .create(&named(name), spec)
                .await
                .unwrap();
        }
    }
    life.steps(steps).await;
    passed_over.store(life.passed_over(), Ordering::SeqCst);
    if stops {
        calm(&life.world.ground);
        life.world.scheduler.stop(grace).await;
        life.world.tasks.stop().await;
        life.world.store.close().await.unwrap();
        life.answered().await;
        life.world
            .ground
            .trace
            .note(|| "stopped in order".to_owned());
    }
}

/// Everything that is still under way when `life` ends, or its process dies, is dropped where it stands.
fn in_one_process(chaos: &Chaos, life: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let in_time = async {
        tokio::select! {
            biased;
            () = chaos.died() => true,
            // Time is stopped: it jumps to this limit as soon as everybody waits for somebody else.
            ended = tokio::time::timeout(Duration::from_secs(86_400), life) => ended.is_ok(),
        }
    };
    let ended = runtime.unwrap().block_on(in_time);
    // What is dropped now may want to go on: it must not.
    chaos.die();
    assert!(ended, "everybody waits, and nothing happens");
}

/// Panics that histories order are part of them; what they say would hide the one that matters.
fn hush() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or_default();
            if !text.contains("as the test said") {
                told(info);
            }
        }));
    });
}

/// Whether the promises held.
fn holds(plan: Plan, trace: &Trace) -> Option<Told> {
    std::panic::catch_unwind(|| history(plan, trace)).ok()
}

/// Tells many histories, on all cores; the first plan that broke a promise is told again, in full.
#[track_caller]
fn tell_all(plans: &(dyn Fn(u64) -> Plan + Sync), numbers: std::ops::Range<u64>) -> Told {
    hush();
    let next = AtomicU64::new(numbers.start);
    let broken: Mutex<Option<Plan>> = Mutex::default();
    let [passed_over, limited, aged] = [const { AtomicUsize::new(0) }; 3];
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= numbers.end || broken.lock().unwrap().is_some() {
                        break;
                    }
                    match holds(plans(number), &Trace::default()) {
                        Some(told) => {
                            passed_over.fetch_add(told.passed_over, Ordering::SeqCst);
                            limited.fetch_add(told.limited, Ordering::SeqCst);
                            aged.fetch_add(told.aged, Ordering::SeqCst);
                        }
                        None => *broken.lock().unwrap() = Some(plans(number)),
                    }
                }
            });
        }
    });
    if let Some(plan) = broken.into_inner().unwrap() {
        show(plan);
    }
    Told {
        steps: 0,
        passed_over: passed_over.into_inner(),
        limited: limited.into_inner(),
        aged: aged.into_inner(),
    }
}

/// Tells a history with all its lines, and fails if it breaks a promise.
#[track_caller]
fn show(plan: Plan) {
    hush();
    let trace = Trace::on();
    let told = holds(plan, &trace);
    let lines = trace.lines();
    let shown = lines.len().saturating_sub(LINES_SHOWN_MAX);
    for line in &lines[shown..] {
        eprintln!("{line}");
    }
    let again = match plan.dies_at {
        None => format!("cargo test --lib histories seed={}", plan.seed),
        Some(at) => format!("cargo test --lib histories seed={} dies={at}", plan.seed),
    };
    assert!(
        told.is_some(),
        "a promise is broken: `{again}` shows it again"
    );
    eprintln!("{again}: every promise held");
}

/// A number that was given on the command line of the test: `name=7`. (To the test runner it is one more filter.)
fn argument(name: &str) -> Option<u64> {
    let mut given = std::env::args();
    given.find_map(|text| {
        let value = text.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.parse().expect("a number"))
    })
}

#[test]
fn histories_keep_their_promises() {
    if let Some(seed) = argument("seed") {
        let dies_at = argument("dies");
        let steps_max = if dies_at.is_some() {
            SHORT
        } else {
            Plan::of(seed).steps_max
        };
        return show(Plan {
            seed,
            dies_at,
            steps_max,
        });
    }
    let from = argument("from").unwrap_or(0);
    let seeds = argument("seeds").unwrap_or(SEEDS);
    let told = tell_all(&Plan::of, from..from + seeds);
    assert!(told.passed_over > 0, "fairness was never put to the test");
    assert!(told.limited > 0, "no rate was ever reached");
    assert!(told.aged > 0, "nothing ever grew too old");
}

/// What happens in a history that is crashed everywhere.
const SHORT: u64 = 8;

#[test]
fn histories_keep_their_promises_wherever_the_process_dies() {
    if argument("seed").is_some() || argument("seeds").is_some() {
        return;
    }
    for seed in 0..CRASHED_EVERYWHERE {
        let short = Plan {
            seed,
            dies_at: Some(u64::MAX),
            steps_max: SHORT,
        };
        hush();
        let Some(told) = holds(short, &Trace::default()) else {
            return show(short);
        };
        let at = |step| Plan {
            dies_at: Some(step),
            ..short
        };
        tell_all(&at, 0..told.steps);
    }
}

#[test]
fn histories_of_one_seed_are_the_same_to_the_last_line() {
    hush();
    let mut lines = 0;
    for seed in (0..200).chain([u64::MAX]) {
        let tell = || {
            let trace = Trace::on();
            holds(Plan::of(seed), &trace);
            trace.lines()
        };
        let (once, again) = (tell(), tell());
        lines += once.len();
        let differs = once.iter().zip(&again).position(|(a, b)| a != b);
        assert_eq!(
            differs,
            None,
            "seed {seed}: {:?}",
            differs.map(|at| (&once[at], &again[at]))
        );
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
    assert!(lines > 10_000, "{lines} lines");
}
