//! Orders from outside, and failures of ours.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::poll;

use super::support::*;
use crate::execution::{Completion, Status};
use crate::model::{Encoding, Fence, Output};
use crate::scheduler::{CallError, Completed};

fn output() -> Output {
    Output {
        content_type: None,
        encoding: Encoding::Json,
        body: bytes::Bytes::from_static(b"42"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_fault_and_frees_the_slot() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    world.ground.runner.panics.store(1, Ordering::SeqCst);
    let id = world.enqueue("f", "ok").await;
    let drained = world.drain_all("f").await;
    assert_eq!(drained.items[0].status, Status::Queued);
    world.scheduler.check_at_rest();
    assert_eq!(world.execution(id).await.faults, 1);
    world.drain_all("f").await;
    let execution = world.execution(id).await;
    assert_eq!(
        (execution.status(), execution.attempts),
        (Status::Success, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn faults_are_bounded_and_spend_no_attempt() {
    for script in ["panic", "fault", "interrupted"] {
        let world = World::new(background()).await;
        world.function("f", |_| {}).await;
        let id = world.enqueue("f", script).await;
        let mut waited_ms = 0;
        let execution = loop {
            world.pass(50).await;
            let execution = world.execution(id).await;
            if execution.status().is_terminal() {
                break execution;
            }
            world.ground.clock.advance(Duration::from_millis(10));
            waited_ms += 10;
        };
        assert_eq!(world.failure_code(&execution), "PLATFORM_FAULT", "{script}");
        assert_eq!((execution.faults, execution.attempts), (21, 0));
        // Though its own retries come at once.
        assert!(
            waited_ms > 35_000,
            "{script}: all faults within {waited_ms} ms"
        );
        world.scheduler.check_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_or_runs_can_be_cancelled() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let running = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let queued = world.enqueue("f", "ok").await;
    for id in [queued, running] {
        let record = world.scheduler.cancel(id).await.unwrap().unwrap();
        assert_eq!(record.execution.status(), Status::Cancelled);
    }
    let again = world.scheduler.cancel(running).await.unwrap().unwrap();
    assert_eq!(again.execution.status(), Status::Cancelled);
    let next = world.enqueue("f", "ok").await;
    world.ended(next).await;
    assert_eq!(world.ground.runner.runs.borrow().len(), 2);
    world.scheduler.check_at_rest();
    let nobody = crate::model::ExecutionId::new(START);
    assert!(world.scheduler.cancel(nobody).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn completion_from_outside_ends_what_is_live_and_nothing_else() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let scheduler = &world.scheduler;
    let queued = world.enqueue("f", "ok").await;
    let done = scheduler
        .complete(queued, None, Completion::Success, Some(output()))
        .await;
    assert_eq!(done.unwrap(), Some(Completed::Applied));
    assert_eq!(world.record(queued).await.output, Some(output()));

    let running = world.enqueue("f", "stubborn").await;
    let handle = scheduler.tick_once(&named("f")).unwrap().unwrap();
    world.runs(1).await;
    let fence = world.execution(running).await.fence().unwrap();
    let older = Some(Fence(fence.0 - 1));
    let stale = scheduler
        .complete(running, older, Completion::Success, None)
        .await;
    assert_eq!(stale.unwrap(), Some(Completed::Ignored));
    let error = Completion::Error(failure());
    let done = scheduler
        .complete(running, Some(fence), error, Some(output()))
        .await;
    assert_eq!(done.unwrap(), Some(Completed::Applied));
    // The guest is told to stop; its slot is taken until it has.
    assert_eq!(scheduler.load().running, 1);
    world.ground.runner.held.add_permits(1);
    assert_eq!(handle.await.unwrap().status, Status::Error);
    let record = world.record(running).await;
    assert_eq!(record.output, Some(output()));
    assert_eq!(record.execution.failure(), Some(&failure()));
    let late = scheduler
        .complete(running, None, Completion::Success, None)
        .await;
    assert_eq!(late.unwrap(), Some(Completed::Ignored));
    assert_eq!(
        world.record(running).await.execution.status(),
        Status::Error
    );
    let nobody = crate::model::ExecutionId::new(START);
    assert_eq!(
        scheduler
            .complete(nobody, None, Completion::Success, None)
            .await
            .unwrap(),
        None
    );
    scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_completion_wakes_the_synchronous_caller() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let mut invoking = Box::pin(world.scheduler.invoke(call("f", "ok")));
    assert!(poll!(&mut invoking).is_pending());
    let id = *world.scheduler.lock().live.keys().next().unwrap();
    world
        .scheduler
        .complete(id, None, Completion::Success, Some(output()))
        .await
        .unwrap();
    let invoked = invoking.await.unwrap();
    assert_eq!(invoked.execution.output, Some(output()));
    assert_eq!(world.record(id).await.output, Some(output()));
}

#[tokio::test(start_paused = true)]
async fn deleting_a_function_ends_what_waits_and_lets_go_on_what_runs() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let finishes = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let queued = world.enqueue("f", "ok").await;
    let mut waiting = Box::pin(world.scheduler.invoke(call("f", "ok")));
    assert!(poll!(&mut waiting).is_pending());
    world.scheduler.remove_function(&named("f")).await.unwrap();
    let invoked = waiting.await.unwrap();
    assert_eq!(
        world.failure_code(&invoked.execution.execution),
        "FUNCTION_REMOVED"
    );
    assert_eq!(
        world.failure_code(&world.execution(queued).await),
        "FUNCTION_REMOVED"
    );
    assert_eq!(world.execution(finishes).await.status(), Status::Running);
    let refused = world.scheduler.enqueue(call("f", "ok")).await;
    assert!(matches!(refused, Err(CallError::UnknownFunction(_))));
    world.ground.runner.held.add_permits(1);
    assert_eq!(world.ended(finishes).await.status(), Status::Success);
    world.scheduler.check_at_rest();
    assert_eq!(world.scheduler.live_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_the_deletion_ends_with_its_own_failure() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hang retry").await;
    world.runs(1).await;
    world.scheduler.remove_function(&named("f")).await.unwrap();
    let scheduler = &world.scheduler;
    scheduler
        .complete(id, None, Completion::Retry(failure()), None)
        .await
        .unwrap();
    let execution = world.ended(id).await;
    assert_eq!(execution.failure(), Some(&failure()));
    world.pass(20).await;
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_deletion_sees_what_is_being_accepted() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    world.ground.orders.stalled.send_replace(true);
    let mut enqueuing = Box::pin(world.scheduler.enqueue(call("f", "ok")));
    assert!(poll!(&mut enqueuing).is_pending());
    world.pass(5).await;
    let name = named("f");
    let mut removing = Box::pin(world.scheduler.remove_function(&name));
    assert!(poll!(&mut removing).is_pending());
    world.pass(20).await;
    world.ground.orders.stalled.send_replace(false);
    removing.await.unwrap();
    match enqueuing.await {
        Err(CallError::UnknownFunction(_)) => {}
        other => panic!("accepted for a function that is gone: {other:?}"),
    }
    world.scheduler.check_at_rest();
    assert_eq!(world.scheduler.live_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_function_made_again_has_series_of_its_own() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    world.enqueue("f", "ok").await;
    // The name is taken again before the scheduler hears of the deletion.
    let removed = world.registry.remove(&named("f")).await.unwrap();
    world.function("f", |_| {}).await;
    let mut invoking = Box::pin(world.scheduler.invoke(call("f", "ok")));
    assert!(poll!(&mut invoking).is_pending());
    world.scheduler.end_work_of(&removed).await.unwrap();
    assert_eq!(world.drain_all("f").await.items.len(), 1);
    let text = world.scheduler.inner.metrics.render();
    let dispatched = "function_dispatch_total{function=\"f\"} 1";
    assert!(text.contains(dispatched), "{text}");
    assert_eq!(
        invoking.await.unwrap().execution.execution.status(),
        Status::Success
    );
}

#[tokio::test(start_paused = true)]
async fn a_deletion_goes_on_after_a_failed_write() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.enqueue("f", "ok").await);
    }
    world
        .ground
        .orders
        .failing_transitions
        .store(2, Ordering::SeqCst);
    world.scheduler.remove_function(&named("f")).await.unwrap();
    for id in ids {
        assert_eq!(
            world.failure_code(&world.execution(id).await),
            "FUNCTION_REMOVED"
        );
    }
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_written_is_a_fault() {
    for failures in [1, 3] {
        let world = World::new(by_hand()).await;
        world.function("f", |_| {}).await;
        let id = world.enqueue("f", "ok").await;
        world
            .ground
            .orders
            .failing_transitions
            .store(failures, Ordering::SeqCst);
        let drained = world.drain("f", Default::default()).await;
        assert_eq!(drained.items[0].status, Status::Queued);
        let execution = world.execution(id).await;
        assert_eq!((execution.faults, execution.attempts), (1, 0));
        world.scheduler.check_at_rest();
        world.drain_all("f").await;
        assert_eq!(world.execution(id).await.status(), Status::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_in_a_decision_keeps_nothing_waiting() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "ok").await;
    world.ground.orders.panicking.store(1, Ordering::SeqCst);
    assert!(world.scheduler.cancel(id).await.is_err());
    world.scheduler.check_at_rest();
    world.ground.orders.panicking.store(1, Ordering::SeqCst);
    assert_eq!(world.drain_all("f").await.items[0].status, Status::Queued);
    assert_eq!(world.drain_all("f").await.items[0].status, Status::Success);
}

#[tokio::test(start_paused = true)]
async fn work_whose_decision_failed_stays_in_its_queue() {
    let world = World::new(background()).await;
    world
        .function("f", |spec| spec.version.max_age_ms = 1_000)
        .await;
    let blocker = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let id = world.enqueue("f", "ok").await;
    world
        .ground
        .orders
        .failing_transitions
        .store(1, Ordering::SeqCst);
    assert!(world.scheduler.cancel(id).await.is_err());
    world.scheduler.check_invariants();
    assert_eq!(world.execution(id).await.status(), Status::Queued);
    // Ending it for its age fails once, and is tried again.
    world
        .ground
        .orders
        .failing_transitions
        .store(1, Ordering::SeqCst);
    world.ground.clock.advance(Duration::from_millis(1_001));
    world.ground.runner.held.add_permits(1);
    world.pass(50).await;
    for _ in 0..4 {
        world.advance(1_000).await;
    }
    assert_eq!(world.failure_code(&world.ended(id).await), "MAX_AGE");
    assert!(world.ended(blocker).await.status().is_terminal());
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn an_operator_sends_back_what_failed() {
    let world = World::new(by_hand()).await;
    world
        .function("f", |spec| spec.version.max_retries = 1)
        .await;
    let id = world.enqueue("f", "retry").await;
    assert!(matches!(
        world.scheduler.redrive(id, None).await,
        Err(CallError::NotRedrivable(_))
    ));
    world.drain_all("f").await;
    let record = world.scheduler.redrive(id, None).await.unwrap().unwrap();
    assert_eq!(record.execution.status(), Status::Queued);
    assert_eq!(record.execution.attempts, 0);
    world.scheduler.check_at_rest();
    world.drain_all("f").await;
    assert_eq!(world.execution(id).await.attempts, 1);
    assert!(matches!(
        world
            .scheduler
            .redrive(id, Some(crate::model::VersionNumber(9)))
            .await,
        Err(CallError::UnknownVersion(_))
    ));
    world.ground.orders.failing.store(1, Ordering::SeqCst);
    assert!(matches!(
        world.scheduler.redrive(id, None).await,
        Err(CallError::Store(_))
    ));
    assert_eq!(world.scheduler.live_count(), 0);
    let good = world.enqueue("f", "ok").await;
    world.drain_all("f").await;
    assert!(world.scheduler.redrive(good, None).await.is_err());
    let (one, two) = tokio::join!(
        world.scheduler.redrive(id, None),
        world.scheduler.redrive(id, None)
    );
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
    world.scheduler.check_at_rest();
    let synchronous = {
        let mut invoking = Box::pin(world.scheduler.invoke(call("f", "error")));
        assert!(poll!(&mut invoking).is_pending());
        world.drain_all("f").await;
        invoking.await.unwrap().execution.id
    };
    world.scheduler.redrive(synchronous, None).await.unwrap();
    assert_eq!(world.execution(synchronous).await.status(), Status::Queued);
}

#[tokio::test(start_paused = true)]
async fn what_failed_before_its_function_was_deleted_stays_what_it_is() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "error").await;
    world.drain_all("f").await;
    world.scheduler.remove_function(&named("f")).await.unwrap();
    let deleted = world.scheduler.redrive(id, None).await.unwrap_err();
    assert!(
        matches!(deleted, CallError::UnknownFunction(_)),
        "{deleted}"
    );
    world.function("f", |_| {}).await;
    let replaced = world.scheduler.redrive(id, None).await.unwrap_err();
    assert!(
        matches!(replaced, CallError::FunctionReplaced(..)),
        "{replaced}"
    );
    assert_eq!(world.execution(id).await.status(), Status::Error);
}

#[tokio::test(start_paused = true)]
async fn nothing_new_runs_while_too_many_results_wait_for_the_disk() {
    let mut options = background();
    options.uncommitted_result_bytes_max = 10;
    let world = World::new(options).await;
    world.function("f", |_| {}).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.enqueue("f", "hold").await);
    }
    world.runs(1).await;
    world.ground.orders.stalled.send_replace(true);
    world.ground.runner.held.add_permits(4);
    // The first one's result is on its way and its slot is free.
    let mut waiting = world.ground.orders.waiting.subscribe();
    waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
    world.pass(100).await;
    assert_eq!(world.runs(1).await.len(), 1);
    // It has not ended until its end is on disk.
    assert_eq!(world.scheduler.load().live, 4);
    assert!(world.scheduler.load().uncommitted_result_bytes > 10);
    assert!(world.scheduler.tick_once(&named("f")).unwrap().is_none());
    world.ground.orders.stalled.send_replace(false);
    for id in ids {
        assert_eq!(world.ended(id).await.status(), Status::Success);
    }
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_dispatch_that_ends_without_an_answer_is_a_fault_and_frees_its_slot() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    let dispatch = world.scheduler.tick_once(&named("f")).unwrap().unwrap();
    world.runs(1).await;
    dispatch.abort();
    assert!(dispatch.await.unwrap_err().is_cancelled());
    world.pass(20).await;
    world.scheduler.check_at_rest();
    let execution = world.execution(id).await;
    assert_eq!(execution.status(), Status::Queued);
    assert_eq!((execution.faults, execution.attempts), (1, 0));
    world.ground.runner.held.add_permits(1);
    world.drain_all("f").await;
    assert_eq!(world.execution(id).await.status(), Status::Success);
    world.scheduler.check_at_rest();
}
