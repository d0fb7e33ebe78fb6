//! A backlog that is too old to run ends a few at a time.

use std::time::Duration;

use super::support::*;
use crate::execution::Status;
use crate::model::ExecutionId;
use crate::scheduler::aged::AGED_AT_ONCE;

const BACKLOG: usize = 50;
const AGE_MS_MAX: u64 = 1_000;

/// A run that holds the only slot of "f", and a backlog behind it that is too old by now.
async fn too_late() -> (World, Vec<ExecutionId>) {
    let world = World::new(background()).await;
    world.function("g", |_| {}).await;
    let edit = |spec: &mut crate::model::Spec| {
        spec.version.max_age_ms = AGE_MS_MAX;
        spec.settings.queue_size = 1_000;
    };
    world.function("f", edit).await;
    world.enqueue("f", "hold").await;
    world.runs(1).await;
    let mut backlog = Vec::new();
    for _ in 0..BACKLOG {
        backlog.push(world.enqueue("f", "ok").await);
    }
    world.advance(2 * AGE_MS_MAX).await;
    (world, backlog)
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_is_too_old_is_ended_a_few_at_a_time() {
    let (world, backlog) = too_late().await;
    world.ground.orders.stalled.send_replace(true);
    world.ground.runner.held.add_permits(1);
    let most = u32::try_from(AGED_AT_ONCE).unwrap() + 1;
    for _ in 0..200 {
        world.pass(1).await;
        world.scheduler.check_invariants();
        // The end of the run is one more.
        let writes = *world.ground.orders.waiting.borrow();
        assert!(writes <= most, "{writes} writes at once");
        assert!(world.scheduler.lock().aged.at_work() <= AGED_AT_ONCE);
    }
    let writes = *world.ground.orders.waiting.borrow();
    assert_eq!(writes, most, "nobody is ended");
    world.ground.orders.stalled.send_replace(false);
    for id in backlog {
        let ended = world.ended(id).await;
        assert_eq!(world.failure_code(&ended), "MAX_AGE");
    }
    world.pass(50).await;
    world.scheduler.check_at_rest();
    assert_eq!(world.ground.runner.runs.borrow().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn others_go_on_while_a_backlog_is_ended() {
    let (world, _) = too_late().await;
    world.ground.runner.held.add_permits(1);
    let mut call = call("g", "ok");
    call.wait = Some(Duration::from_millis(1));
    let invoked = world.scheduler.invoke(call).await.unwrap();
    assert_eq!(invoked.execution.execution.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_whose_end_cannot_be_written_is_tried_again() {
    let (world, backlog) = too_late().await;
    let failing = &world.ground.orders.failing_transitions;
    failing.store(20, std::sync::atomic::Ordering::SeqCst);
    world.ground.runner.held.add_permits(1);
    world.pass(200).await;
    world.advance(5_000).await;
    for id in backlog {
        let ended = world.ended(id).await;
        assert_eq!(world.failure_code(&ended), "MAX_AGE");
    }
    // The end of the run before it, too.
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_leaves_of_a_backlog_is_ended_after_the_restart() {
    let (world, backlog) = too_late().await;
    world.ground.orders.stalled.send_replace(true);
    world.ground.runner.held.add_permits(1);
    world.pass(50).await;
    let mut stopping = Box::pin(world.scheduler.stop(Duration::from_secs(5)));
    assert!(futures_util::poll!(&mut stopping).is_pending());
    world.ground.orders.stalled.send_replace(false);
    stopping.await;
    world.pass(50).await;
    let waiting = world.scheduler.live_count();
    assert!(waiting > 0, "the stop waited for all of it");
    let world = world.restart(background()).await;
    for id in backlog {
        let ended = world.ended(id).await;
        assert_eq!(world.failure_code(&ended), "MAX_AGE");
    }
}
