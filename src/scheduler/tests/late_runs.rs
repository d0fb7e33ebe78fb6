//! Runs that were stopped because their execution ended another way: what they wrote is kept.

use std::time::Duration;

use futures_util::poll;

use super::support::*;
use crate::execution::{Completion, Status};
use crate::model::ExecutionId;

impl World {
    /// What the runs of an execution came to and wrote, once there are so many.
    async fn recorded(&self, id: ExecutionId, count: usize) -> Vec<(&'static str, String)> {
        for _ in 0..1_000 {
            let runs = self.scheduler.attempts(id).await.unwrap();
            if runs.len() >= count {
                let written = |text: &crate::model::LogLine| text.text.clone();
                return runs
                    .iter()
                    .map(|run| (run.outcome, run.logs.lines.iter().map(written).collect()))
                    .collect();
            }
            self.pass(20).await;
        }
        panic!("the runs of {id} are not recorded");
    }
}

fn stopped(word: &str) -> Vec<(&'static str, String)> {
    vec![("interrupted", word.to_owned())]
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_is_kept_with_what_it_wrote() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let cancelled = world.scheduler.cancel(id).await.unwrap().unwrap();
    assert_eq!(cancelled.execution.status(), Status::Cancelled);
    assert_eq!(world.recorded(id, 1).await, stopped("hold"));
    assert_eq!(world.execution(id).await, cancelled.execution);
    world.scheduler.check_at_rest();
    let world = world.restart(background()).await;
    assert_eq!(world.recorded(id, 1).await, stopped("hold"));
    assert_eq!(world.scheduler.live_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_a_cancelled_run_answers_once_it_is_kept() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    let handle = world.scheduler.tick_once(&named("f")).unwrap().unwrap();
    world.runs(1).await;
    world.scheduler.cancel(id).await.unwrap();
    assert_eq!(handle.await.unwrap().status, Status::Cancelled);
    assert_eq!(world.scheduler.attempts(id).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_caller_hung_up_is_kept() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let mut invoking = Box::pin(world.scheduler.invoke(call("f", "hold")));
    assert!(poll!(&mut invoking).is_pending());
    let id = world.runs(1).await[0];
    drop(invoking);
    assert_eq!(world.recorded(id, 1).await, stopped("hold"));
    let execution = world.execution(id).await;
    assert_eq!(world.failure_code(&execution), "CALLER_GONE");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_completed_from_outside_is_kept_beside_the_next() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold ok").await;
    world.runs(1).await;
    let retry = Completion::Retry(failure());
    world
        .scheduler
        .complete(id, None, retry, None)
        .await
        .unwrap();
    let ended = world.ended(id).await;
    assert_eq!((ended.status(), ended.attempts), (Status::Success, 2));
    let both = [stopped("hold"), vec![("success", "ok".to_owned())]].concat();
    assert_eq!(world.recorded(id, 2).await, both);

    // A caller that waits in memory is told the same.
    let mut invoking = Box::pin(world.scheduler.invoke(call("f", "hold ok")));
    assert!(poll!(&mut invoking).is_pending());
    let id = world.runs(3).await[2];
    let retry = Completion::Retry(failure());
    world
        .scheduler
        .complete(id, None, retry, None)
        .await
        .unwrap();
    assert_eq!(invoking.await.unwrap().execution.id, id);
    assert_eq!(world.recorded(id, 2).await, both);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_can_record_changes_nothing() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "stubborn").await;
    world.runs(1).await;
    world.scheduler.cancel(id).await.unwrap();
    let orders = &world.ground.orders;
    orders.failing.store(1, std::sync::atomic::Ordering::SeqCst);
    world.ground.runner.held.add_permits(1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(orders.failing.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(world.scheduler.attempts(id).await.unwrap(), []);
    assert_eq!(world.execution(id).await.status(), Status::Cancelled);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn what_a_late_run_wrote_counts_until_it_is_kept() {
    let mut options = background();
    options.uncommitted_result_bytes_max = 1;
    let world = World::new(options).await;
    world.function("f", |_| {}).await;
    let late = world.enqueue("f", "stubborn").await;
    world.runs(1).await;
    world.scheduler.cancel(late).await.unwrap();
    world.ground.orders.stalled.send_replace(true);
    world.ground.runner.held.add_permits(1);
    let mut waiting = world.ground.orders.waiting.subscribe();
    waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
    assert!(world.scheduler.load().uncommitted_result_bytes > 1);
    // The slot is free, and a call that needs no disk waits all the same.
    let mut invoking = Box::pin(world.scheduler.invoke(call("f", "ok")));
    for _ in 0..100 {
        assert!(poll!(&mut invoking).is_pending());
        world.pass(1).await;
    }
    assert_eq!(world.scheduler.load().running, 0);
    world.ground.orders.stalled.send_replace(false);
    let invoked = invoking.await.unwrap().execution;
    assert_eq!(invoked.execution.status(), Status::Success);
    assert_eq!(world.recorded(late, 1).await, stopped("stubborn"));
    world.scheduler.check_at_rest();
}
