//! Who is suspected of killing the process, and what that costs the others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Builder;

use super::support::*;
use crate::execution::{Execution, Status};
use crate::model::{ExecutionId, Spec};
use crate::scheduler::Options;

/// Longer than any wait after a fault.
const FAULT_DELAY_MS_MAX: u64 = 5_000;

/// One life; then the plug is pulled, and every task is dropped where it stands.
fn life<T>(ground: &Ground, life: impl AsyncFnOnce(World) -> T) -> T {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = Options {
            suspect_alone: Duration::from_secs(1),
            ..background()
        };
        let world = World::on(ground.clone(), options).await;
        world.advance(FAULT_DELAY_MS_MAX).await;
        life(world).await
    })
}

/// A service behind a URL.
fn elsewhere(spec: &mut Spec) {
    spec.version.image = None;
    spec.version.endpoint_url = Some("http://127.0.0.1:1/".to_owned());
}

/// The first life: "f" with an execution that does as `script` says, and "g" that is idle.
fn begin(ground: &Ground, script: &str, edit: impl FnOnce(&mut Spec)) -> ExecutionId {
    life(ground, async |world| {
        world.function("f", edit).await;
        world.function("g", |_| {}).await;
        let id = world.enqueue("f", script).await;
        world.pass(100).await;
        id
    })
}

/// Whether a call of the idle function is answered without any time passing.
async fn answers_at_once(world: &World) -> bool {
    let id = world.enqueue("g", "ok").await;
    world.pass(100).await;
    world.execution(id).await.status() == Status::Success
}

#[track_caller]
fn assert_runs(execution: &Execution, faults: u32, deaths: u32) {
    assert_eq!(execution.status(), Status::Running, "{execution:?}");
    assert_eq!((execution.faults, execution.deaths), (faults, deaths));
}

#[test]
fn a_call_of_another_function_waits_for_a_suspect_no_longer_than_its_while() {
    let ground = Ground::default();
    let id = begin(&ground, "hold", |_| {});
    life(&ground, async |world| {
        assert_runs(&world.execution(id).await, 1, 1);
        assert!(answers_at_once(&world).await, "one death is no suspicion");
    });
    life(&ground, async |world| {
        assert_runs(&world.execution(id).await, 2, 2);
        let began = tokio::time::Instant::now();
        let other = world.enqueue("g", "ok").await;
        world.pass(100).await;
        assert_eq!(world.execution(other).await.status(), Status::Queued);
        tokio::time::advance(Duration::from_millis(999)).await;
        world.pass(100).await;
        assert_eq!(world.execution(other).await.status(), Status::Queued);
        tokio::time::advance(Duration::from_millis(1)).await;
        world.pass(100).await;
        assert_eq!(world.execution(other).await.status(), Status::Success);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        // It runs and runs, and nobody waits for it again.
        assert_runs(&world.execution(id).await, 2, 2);
        assert!(answers_at_once(&world).await);
        world.ground.runner.held.add_permits(1);
        assert_eq!(world.ended(id).await.status(), Status::Success);
        world.scheduler.check_at_rest();
    });
}

#[test]
fn a_synchronous_call_is_answered_within_a_suspects_while() {
    let ground = Ground::default();
    let id = begin(&ground, "hold", |_| {});
    life(&ground, async |_| {});
    life(&ground, async |world| {
        assert_runs(&world.execution(id).await, 2, 2);
        let mut call = call("g", "ok");
        call.wait = Some(Duration::from_millis(1_001));
        let began = tokio::time::Instant::now();
        let invoked = world.scheduler.invoke(call).await.unwrap();
        assert_eq!(invoked.execution.execution.status(), Status::Success);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    });
}

#[test]
fn faults_that_are_no_deaths_make_no_suspect() {
    let ground = Ground::default();
    ground.runner.panics.store(3, Ordering::SeqCst);
    let id = begin(&ground, "hold", |_| {});
    for faults in 2..=3 {
        life(&ground, async |world| {
            // Each panic that was caught is followed by a wait.
            for _ in 0..2 {
                world.advance(FAULT_DELAY_MS_MAX).await;
            }
            let execution = world.execution(id).await;
            assert!(execution.faults > faults, "{execution:?}");
            assert!(execution.deaths < 2, "{execution:?}");
            assert!(answers_at_once(&world).await);
        });
    }
}

#[test]
fn an_attempt_that_comes_to_a_verdict_acquits_and_one_that_is_interrupted_does_not() {
    let ground = Ground::default();
    let id = begin(&ground, "hang hold", |_| {});
    life(&ground, async |_| {});
    life(&ground, async |world| {
        assert_runs(&world.execution(id).await, 2, 2);
        world.scheduler.stop(Duration::ZERO).await;
        let interrupted = world.execution(id).await;
        assert_eq!((interrupted.faults, interrupted.deaths), (2, 2));
        world.store.close().await.unwrap();
    });
    life(&ground, async |world| {
        assert!(!answers_at_once(&world).await);
        // Its attempt runs out of time, and it is retried at once.
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_runs(&world.execution(id).await, 2, 0);
    });
    life(&ground, async |world| {
        assert_runs(&world.execution(id).await, 3, 1);
        assert!(answers_at_once(&world).await);
    });
}

#[test]
fn a_call_that_runs_elsewhere_is_no_suspect_and_is_not_blamed_for_what_guests_do() {
    let ground = Ground::default();
    let id = begin(&ground, "hold", elsewhere);
    // Nobody else was running: the next deaths may be its doing, but nobody waits for it.
    for faults in 1..=3 {
        life(&ground, async |world| {
            assert_runs(&world.execution(id).await, faults, faults);
            assert!(answers_at_once(&world).await);
        });
    }
    let guest = life(&ground, async |world| {
        let guest = world.enqueue("g", "hold").await;
        world.pass(100).await;
        assert_runs(&world.execution(guest).await, 0, 0);
        assert_runs(&world.execution(id).await, 4, 4);
        guest
    });
    life(&ground, async |world| {
        assert_runs(&world.execution(guest).await, 1, 1);
        assert_runs(&world.execution(id).await, 4, 4);
    });
}
