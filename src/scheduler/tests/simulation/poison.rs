//! An input that the process dies of, at once or after a while, beside others that it must not take with it.
//!
//! **Invariant:** only the poison ends for having been there at too many deaths.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::random::Random;
use super::{Chaos, in_one_process};
use crate::execution::Status;
use crate::model::ExecutionId;
use crate::scheduler::Options;
use crate::scheduler::tests::support::*;
use crate::shutdown::Tasks;

const NAMES: [&str; 3] = ["a", "b", SERVICE];
/// One whose work runs elsewhere.
const SERVICE: &str = "service";
const FAULTS_MAX: u32 = 6;
const SUSPECT_FAULTS: u32 = 2;

fn options(random: &mut Random) -> Options {
    Options {
        faults_max: FAULTS_MAX,
        suspect_faults: SUSPECT_FAULTS,
        suspect_alone: Duration::from_millis(random.pick(&[0, 10, 100, 1_000])),
        start_ramp_ms: random.pick(&[0, 20]),
        guests_max: random.pick(&[2, 4, 100]),
        ..background()
    }
}

async fn queue(ground: Ground, random: &mut Random, ids: &mut Vec<ExecutionId>) {
    let world = World::of(ground, by_hand(), Tasks::default()).await;
    for name in NAMES {
        let concurrency = 1 + random.below(4) as u32;
        world
            .function(name, |spec| {
                spec.settings.concurrency = concurrency;
                if name == SERVICE {
                    spec.version.image = None;
                    spec.version.endpoint_url = Some("http://127.0.0.1:1/".to_owned());
                }
            })
            .await;
    }
    let poisoned = random.below(9);
    for number in 0..9 {
        let (name, script) = if number == poisoned {
            let guests = random.pick(&NAMES[..2]);
            (guests, random.pick(&["poison", "poison:30", "poison:700"]))
        } else {
            (random.pick(&NAMES), random.pick(&["nap:50", "nap:900"]))
        };
        let id = world.enqueue(name, script).await;
        if number == poisoned {
            ids.insert(0, id);
        } else {
            ids.push(id);
        }
    }
}

/// A start that runs what there is until all has ended, or it dies.
async fn live(ground: Ground, options: Options, chaos: &Chaos, ids: &[ExecutionId]) {
    *ground.runner.dies.lock().unwrap() = Some(chaos.clone());
    let world = World::of(ground, options, Tasks::of(chaos)).await;
    for id in ids {
        loop {
            world.scheduler.check_invariants();
            if world.execution(*id).await.status().is_terminal() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            world.ground.clock.advance(Duration::from_millis(500));
        }
    }
    for (number, id) in ids.iter().enumerate() {
        let execution = world.execution(*id).await;
        if number == 0 {
            assert_eq!(world.failure_code(&execution), "PLATFORM_FAULT");
            assert_eq!(execution.faults, FAULTS_MAX + 1);
        } else {
            assert_eq!(execution.status(), Status::Success, "{execution:?}");
            assert!(execution.faults <= SUSPECT_FAULTS, "{execution:?}");
        }
    }
    world.scheduler.check_at_rest();
}

#[test]
fn a_poison_takes_nobody_with_it() {
    super::hush();
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let ground = Ground::seeded(random.next(), Trace::default());
        ground.orders.claims_wait.store(true, Ordering::SeqCst);
        let mut ids = Vec::new();
        let chaos = Chaos::new(random.next(), u64::MAX);
        in_one_process(&chaos, queue(ground.clone(), &mut random, &mut ids));
        let mut deaths = 0;
        loop {
            let chaos = Chaos::new(random.next(), u64::MAX);
            let mut ended = false;
            let life = async {
                live(ground.clone(), options(&mut random), &chaos, &ids).await;
                ended = true;
            };
            in_one_process(&chaos, life);
            if ended {
                break;
            }
            deaths += 1;
            assert!(deaths <= FAULTS_MAX + 1, "seed {seed}: it goes on for ever");
        }
        assert_eq!(deaths, FAULTS_MAX + 1, "seed {seed}");
    }
}
