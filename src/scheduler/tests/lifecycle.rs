//! Start, crash, stop.

use std::time::Duration;

use futures_util::poll;
use tokio::runtime::{Builder, Runtime};

use super::support::*;
use crate::execution::Status;
use crate::model::ExecutionId;
use crate::scheduler::{CallError, DrainOptions};
use crate::shutdown::Tasks;
use crate::shutdown::chaos::Chaos;

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Runs `life` and then pulls the plug: every task is dropped where it stands.
fn crash<T>(ground: &Ground, life: impl AsyncFnOnce(Ground) -> T) -> T {
    runtime().block_on(life(ground.clone()))
}

#[test]
fn what_was_promised_goes_on_after_a_crash() {
    let ground = Ground::default();
    let ids = crash(&ground, async |ground| {
        let world = World::on(ground, by_hand()).await;
        world.function("f", |_| {}).await;
        let mut ids: Vec<ExecutionId> = Vec::new();
        for script in ["hold", "ok", "later:5000 ok", "retry ok", "error"] {
            ids.push(world.enqueue("f", script).await);
        }
        // The first one is running when the power fails.
        drop(world.scheduler.tick_once(&named("f")).unwrap().unwrap());
        world.runs(1).await;
        ids
    });
    crash(&ground, async |ground| {
        let world = World::on(ground, background()).await;
        world.ground.runner.held.add_permits(1);
        // The wait after a fault.
        world.advance(100).await;
        let first = world.ended(ids[0]).await;
        assert_eq!(
            (first.status(), first.faults, first.attempts),
            (Status::Success, 1, 1)
        );
        assert_eq!(world.ended(ids[1]).await.status(), Status::Success);
        world.advance(5_000).await;
        assert_eq!(world.ended(ids[2]).await.status(), Status::Success);
        assert_eq!(world.ended(ids[3]).await.attempts, 2);
        assert_eq!(world.ended(ids[4]).await.failure(), Some(&failure()));
        world.scheduler.check_at_rest();
    });
}

#[test]
fn an_input_that_kills_the_process_does_not_do_so_for_ever() {
    let ground = Ground::default();
    let mut options = background();
    options.faults_max = 3;
    let id = crash(&ground, async |ground| {
        let world = World::on(ground, options.clone()).await;
        world.function("f", |_| {}).await;
        let id = world.enqueue("f", "hold").await;
        world.runs(1).await;
        id
    });
    for runs in 2..=4 {
        crash(&ground, async |ground| {
            let world = World::on(ground, options.clone()).await;
            world.advance(5_000).await;
            world.runs(runs).await;
        });
    }
    crash(&ground, async |ground| {
        let world = World::on(ground, options.clone()).await;
        let execution = world.execution(id).await;
        assert_eq!(world.failure_code(&execution), "PLATFORM_FAULT");
        assert_eq!(world.scheduler.live_count(), 0);
    });
}

#[test]
fn a_synchronous_callers_deadline_holds_after_a_crash() {
    let ground = Ground::default();
    let create = async |ground: Ground| {
        let world = World::on(ground, by_hand()).await;
        world.function("f", |_| {}).await;
        let mut invoking = Box::pin(world.scheduler.invoke(keyed("f", "key", "ok")));
        assert!(poll!(&mut invoking).is_pending());
        world.pass(20).await;
        let ids: Vec<_> = world.scheduler.lock().live.keys().copied().collect();
        ids[0]
    };
    let id = crash(&ground, create);
    crash(&ground, async |ground| {
        let world = World::on(ground, by_hand()).await;
        // Real time passes: the wait ends though its caller has gone with the process before.
        tokio::time::sleep(Duration::from_millis(29_000)).await;
        assert_eq!(world.execution(id).await.status(), Status::Queued);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(world.execution(id).await.status(), Status::Timeout);
    });
    let ground = Ground::default();
    let id = crash(&ground, create);
    ground.clock.advance(Duration::from_secs(31));
    crash(&ground, async |ground| {
        let world = World::on(ground, by_hand()).await;
        assert_eq!(world.execution(id).await.status(), Status::Timeout);
        // A second life has no deadline, not after another crash either.
        world.scheduler.redrive(id, None).await.unwrap();
    });
    crash(&ground, async |ground| {
        let world = World::on(ground, by_hand()).await;
        assert_eq!(world.execution(id).await.status(), Status::Queued);
        world.drain_all("f").await;
        assert_eq!(world.execution(id).await.status(), Status::Success);
    });
}

#[test]
fn work_of_a_function_that_was_deleted_ends_at_the_start() {
    let ground = Ground::default();
    let ids = crash(&ground, async |ground| {
        let world = World::on(ground, background()).await;
        world.function("f", |_| {}).await;
        let running = world.enqueue("f", "hold").await;
        world.runs(1).await;
        let queued = world.enqueue("f", "ok").await;
        // Deleted in the store; the process dies before the scheduler hears of it.
        world.registry.remove(&named("f")).await.unwrap();
        [running, queued]
    });
    crash(&ground, async |ground| {
        let world = World::on(ground, background()).await;
        for id in ids {
            let execution = world.execution(id).await;
            assert_eq!(world.failure_code(&execution), "FUNCTION_REMOVED");
        }
        assert_eq!(world.scheduler.live_count(), 0);
    });
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_runs() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let waiting = world.enqueue("f", "ok").await;
    let mut stopping = Box::pin(world.scheduler.stop(Duration::from_secs(5)));
    assert!(poll!(&mut stopping).is_pending());
    assert!(!world.scheduler.is_accepting());
    let refused = world.scheduler.enqueue(call("f", "ok")).await;
    assert!(matches!(refused, Err(CallError::Stopping)));
    let drained = world
        .scheduler
        .drain(&named("f"), DrainOptions::default())
        .await;
    assert!(matches!(drained, Err(CallError::Stopping)));
    world.ground.runner.held.add_permits(1);
    stopping.await;
    assert_eq!(world.execution(id).await.status(), Status::Success);
    assert_eq!(world.execution(waiting).await.status(), Status::Queued);
}

#[tokio::test(start_paused = true)]
async fn an_interruption_costs_nothing_and_runs_again_after_the_restart() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let world = world.restart(background()).await;
    world.runs(2).await;
    let execution = world.execution(id).await;
    assert_eq!(
        (execution.status(), execution.attempts),
        (Status::Running, 1)
    );
    assert_eq!(execution.faults, 0);
    world.ground.runner.held.add_permits(1);
    assert_eq!(world.ended(id).await.faults, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_tells_every_caller() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let scheduler = &world.scheduler;
    let mut running = Box::pin(scheduler.invoke(call("f", "hold")));
    let mut queued = Box::pin(scheduler.invoke(call("f", "ok")));
    let mut with_key = Box::pin(scheduler.invoke(keyed("f", "key", "ok")));
    assert!(poll!(&mut running).is_pending());
    assert!(poll!(&mut queued).is_pending());
    assert!(poll!(&mut with_key).is_pending());
    world.runs(1).await;
    world.pass(20).await;
    let began = tokio::time::Instant::now();
    scheduler.stop(Duration::from_millis(10)).await;
    for told in [running.await, queued.await] {
        assert!(matches!(told, Err(CallError::Stopping)), "{told:?}");
    }
    // What was promised is named: it is there after the restart.
    match with_key.await {
        Err(CallError::StoppingFirst(id)) => {
            assert_eq!(world.execution(id).await.status(), Status::Queued);
        }
        told => panic!("{told:?}"),
    }
    world.tasks.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "nobody's five minutes are waited for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_returns_when_every_outcome_is_on_disk() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    world.runs(1).await;
    world.ground.orders.stalled.send_replace(true);
    world.ground.runner.held.add_permits(1);
    world.pass(20).await;
    let mut stopping = Box::pin(world.scheduler.stop(Duration::from_secs(600)));
    assert!(poll!(&mut stopping).is_pending());
    world.pass(20).await;
    assert!(
        poll!(&mut stopping).is_pending(),
        "the outcome is not written yet"
    );
    world.ground.orders.stalled.send_replace(false);
    stopping.await;
    world.store.close().await.unwrap();
    let world = World::on(world.ground, by_hand()).await;
    assert_eq!(world.execution(id).await.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_timer_is_behind_until_it_has_woken_what_is_due() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "later:500 ok").await;
    world.runs(1).await;
    world.pass(20).await;
    assert_eq!(world.scheduler.timer_behind_ms(), 0);
    // The clock is moved, and nobody else has had a turn yet.
    world.ground.clock.advance(Duration::from_millis(700));
    assert_eq!(world.scheduler.timer_behind_ms(), 200);
    assert_eq!(world.ended(id).await.status(), Status::Success);
    assert_eq!(world.scheduler.timer_behind_ms(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_plane_without_work_sleeps() {
    let chaos = Chaos::new(1, u64::MAX);
    let world = World::of(Ground::default(), background(), Tasks::of(&chaos)).await;
    world.function("f", |_| {}).await;
    let ended = world.enqueue("f", "ok").await;
    world.enqueue("f", "later:100000000").await;
    assert_eq!(world.ended(ended).await.status(), Status::Success);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = chaos.steps();
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(
        chaos.steps(),
        before,
        "somebody looks whether there is work"
    );
}
