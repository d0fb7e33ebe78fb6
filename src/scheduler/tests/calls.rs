//! Callers: what they get, what their limits do, what is left of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::poll;
use tokio::task::JoinSet;

use super::support::*;
use crate::execution::Status;
use crate::scheduler::{CallError, Crowded};
use crate::store;

#[tokio::test(start_paused = true)]
async fn a_synchronous_call_gets_its_result_and_is_kept() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let invoked = world.scheduler.invoke(call("f", "retry ok")).await.unwrap();
    assert_eq!(invoked.execution.execution.status(), Status::Success);
    assert_eq!(invoked.execution.execution.attempts, 2);
    assert!(invoked.execution.output.is_some());
    assert_eq!(
        world.record(invoked.execution.id).await.execution,
        invoked.execution.execution
    );
    assert_eq!(
        world
            .scheduler
            .attempts(invoked.execution.id)
            .await
            .unwrap()
            .len(),
        2
    );
    let failed = world.scheduler.invoke(call("f", "error")).await.unwrap();
    assert_eq!(failed.execution.execution.failure(), Some(&failure()));
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_passes_in_the_queue_never_runs() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let invoked = world.scheduler.invoke(call("f", "ok")).await.unwrap();
    assert_eq!(invoked.execution.execution.status(), Status::Timeout);
    assert!(world.drain_all("f").await.items.is_empty());
    assert!(world.ground.runner.runs.borrow().is_empty());
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_passes_while_it_runs_is_stopped_and_frees_its_slot() {
    for script in ["hang", "hold"] {
        let world = World::new(background()).await;
        world.function("f", |_| {}).await;
        let mut impatient = call("f", script);
        impatient.wait = Some(Duration::from_millis(200));
        let invoked = world.scheduler.invoke(impatient).await.unwrap();
        assert_eq!(
            invoked.execution.execution.status(),
            Status::Timeout,
            "{script}"
        );
        let next = world.scheduler.invoke(call("f", "ok")).await.unwrap();
        assert_eq!(next.execution.execution.status(), Status::Success);
        assert_eq!(*world.ground.runner.running.borrow(), 0);
        world.scheduler.check_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_run_wrote_before_its_callers_time_was_over_is_kept() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    for call in [call("f", "spin"), keyed("f", "key", "spin")] {
        let invoked = world.scheduler.invoke(call).await.unwrap().execution;
        assert_eq!(invoked.execution.status(), Status::Timeout);
        assert_eq!(world.failure_code(&invoked.execution), "TIMEOUT");
        let attempts = world.scheduler.attempts(invoked.id).await.unwrap();
        let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, ["timeout"]);
        world.scheduler.check_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_ends_its_execution() {
    for options in [by_hand(), background()] {
        let world = World::new(options).await;
        world.function("f", |_| {}).await;
        let mut invoking = Box::pin(world.scheduler.invoke(call("f", "hold")));
        assert!(poll!(&mut invoking).is_pending());
        world.pass(5).await;
        drop(invoking);
        world.pass(20).await;
        world.scheduler.check_at_rest();
        assert_eq!(world.scheduler.live_count(), 0);
        let all = world
            .scheduler
            .executions(&store::Filter::default(), 10)
            .await
            .unwrap();
        assert_eq!(all[0].execution.status(), Status::Timeout);
        assert_eq!(world.failure_code(&all[0].execution), "CALLER_GONE");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyed_caller_that_hangs_up_changes_nothing() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let mut invoking = Box::pin(world.scheduler.invoke(keyed("f", "key", "hold")));
    assert!(poll!(&mut invoking).is_pending());
    let id = world.runs(1).await[0];
    drop(invoking);
    world.pass(20).await;
    assert_eq!(world.execution(id).await.status(), Status::Running);
    world.ground.runner.held.add_permits(1);
    assert_eq!(world.ended(id).await.status(), Status::Success);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_keyed_creators_limit_ends_the_execution_even_without_the_creator() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let mut invoking = Box::pin(world.scheduler.invoke(keyed("f", "key", "ok")));
    assert!(poll!(&mut invoking).is_pending());
    world.pass(20).await;
    drop(invoking);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let replay = world
        .scheduler
        .enqueue(keyed("f", "key", "ok"))
        .await
        .unwrap();
    assert!(replay.replayed);
    assert_eq!(replay.execution.execution.status(), Status::Timeout);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn calls_with_one_key_are_one_execution() {
    let world = World::new(background()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 100)
        .await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let scheduler = world.scheduler.clone();
        calls.spawn(async move { scheduler.invoke(keyed("f", "key", "ok")).await.unwrap() });
    }
    let invoked = calls.join_all().await;
    let created: Vec<_> = invoked.iter().filter(|invoked| !invoked.replayed).collect();
    assert_eq!(created.len(), 1);
    for one in &invoked {
        assert_eq!(one.execution.id, created[0].execution.id);
        assert_eq!(one.execution.execution.status(), Status::Success);
    }
    assert_eq!(world.ground.runner.runs.borrow().len(), 1);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_replay_waits_within_its_own_limit_and_changes_nothing() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let first = world
        .scheduler
        .enqueue(keyed("f", "key", "ok"))
        .await
        .unwrap();
    let id = first.execution.id;
    let mut impatient = keyed("f", "key", "ok");
    impatient.wait = Some(Duration::from_millis(50));
    let replay = world.scheduler.invoke(impatient).await.unwrap();
    assert!(replay.replayed);
    assert_eq!(replay.execution.execution.status(), Status::Queued);
    let mut patient = Box::pin(world.scheduler.invoke(keyed("f", "key", "ok")));
    assert!(poll!(&mut patient).is_pending());
    world.pass(20).await;
    world.drain_all("f").await;
    let replay = patient.await.unwrap();
    assert_eq!((replay.execution.id, replay.replayed), (id, true));
    assert_eq!(replay.execution.execution.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn replays_that_gave_up_leave_no_waiters() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let first = world
        .scheduler
        .enqueue(keyed("f", "key", "ok"))
        .await
        .unwrap();
    for _ in 0..50 {
        let mut replay = keyed("f", "key", "ok");
        replay.wait = Some(Duration::from_millis(1));
        world.scheduler.invoke(replay).await.unwrap();
    }
    assert!(
        world.scheduler.lock().live[&first.execution.id]
            .waiters
            .len()
            <= 1
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_body_is_refused() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let first = world
        .scheduler
        .enqueue(keyed("f", "key", "ok"))
        .await
        .unwrap();
    let other = world.scheduler.enqueue(keyed("f", "key", "retry ok")).await;
    assert!(matches!(other, Err(CallError::KeyReused(id)) if id == first.execution.id));
    let other = world.scheduler.invoke(keyed("f", "key", "retry ok")).await;
    assert!(matches!(other, Err(CallError::KeyReused(_))));
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_outlives_its_execution_says_so_and_runs_nothing() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let first = world.scheduler.invoke(keyed("f", "key", "ok")).await;
    let first = first.unwrap().execution.id;
    world.advance(1_000).await;
    let retention = store::Retention {
        executions_before: world.ground.clock.now(),
        keys_before: world.ground.clock.now(),
        rows_max: 10,
    };
    assert!(world.store.purge(retention).await.unwrap() > 0);
    let queued = world.scheduler.enqueue(keyed("f", "key", "ok")).await;
    assert!(matches!(queued, Err(CallError::Forgotten(id)) if id == first));
    let invoked = world.scheduler.invoke(keyed("f", "key", "ok")).await;
    assert!(matches!(invoked, Err(CallError::Forgotten(id)) if id == first));
    assert_eq!(world.ground.runner.runs.borrow().len(), 1);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_new_work_only_and_keeps_nothing_of_it() {
    let world = World::new(by_hand()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 2)
        .await;
    let first = world.enqueue("f", "later:0 ok").await;
    world.enqueue("f", "ok").await;
    for refused in [
        world
            .scheduler
            .enqueue(keyed("f", "key", "ok"))
            .await
            .map(drop),
        world.scheduler.enqueue(call("f", "ok")).await.map(drop),
    ] {
        assert!(matches!(
            refused,
            Err(CallError::QueueFull {
                crowded: Crowded::Queue { queue_size: 2, .. },
                ..
            })
        ));
    }
    assert_eq!(world.scheduler.live_count(), 2);
    world.drain("f", Default::default()).await;
    assert_eq!(world.execution(first).await.requeues, 1);
    world.scheduler.check_at_rest();
    world.drain_all("f").await;
    // The refused calls left no key behind.
    let again = world
        .scheduler
        .enqueue(keyed("f", "key", "ok"))
        .await
        .unwrap();
    assert!(!again.replayed);
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_two_that_is_full_of_one_kind_has_a_place_for_the_other() {
    let world = World::new(by_hand()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 2)
        .await;
    world.enqueue("f", "ok").await;
    world.enqueue("f", "ok").await;
    let mut caller = Box::pin(world.scheduler.invoke(call("f", "ok")));
    assert!(futures_util::poll!(&mut caller).is_pending());
    for refused in [
        world.scheduler.invoke(call("f", "ok")).await.map(drop),
        world
            .scheduler
            .invoke(keyed("f", "key", "ok"))
            .await
            .map(drop),
    ] {
        assert!(matches!(refused, Err(CallError::QueueFull { .. })));
    }
    world.drain_all("f").await;
    let ended = caller.await.unwrap().execution.execution.status();
    assert_eq!(ended, Status::Success);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_drains_says_what_to_do() {
    for (options, advice) in [
        (by_hand(), "drain the function while the call waits"),
        (background(), "allow more with X-Timeout-Ms"),
    ] {
        let world = World::new(options).await;
        world.function("f", |_| {}).await;
        let mut late = call("f", "hold");
        late.wait = Some(Duration::from_millis(20));
        let ended = world.scheduler.invoke(late).await.unwrap().execution;
        let failure = ended.execution.failure().unwrap();
        assert_eq!(failure.code, "TIMEOUT");
        assert!(failure.message.contains(advice), "{}", failure.message);
    }
}

#[tokio::test(start_paused = true)]
async fn work_returns_beyond_the_bound() {
    let world = World::new(by_hand()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 1)
        .await;
    let first = world.enqueue("f", "hold retry").await;
    let handle = world.scheduler.tick_once(&named("f")).unwrap().unwrap();
    world.runs(1).await;
    let second = world.enqueue("f", "ok").await;
    world
        .scheduler
        .complete(
            first,
            None,
            crate::execution::Completion::Retry(failure()),
            None,
        )
        .await
        .unwrap();
    handle.await.unwrap();
    assert_eq!(world.execution(first).await.status(), Status::Queued);
    assert_eq!(world.execution(second).await.status(), Status::Queued);
    assert!(world.scheduler.enqueue(call("f", "ok")).await.is_err());
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_that_fails_leaves_nothing() {
    for panics in [false, true] {
        let world = World::new(by_hand()).await;
        world
            .function("f", |spec| spec.settings.queue_size = 1)
            .await;
        let orders = &world.ground.orders;
        let failing = if panics {
            &orders.panicking
        } else {
            &orders.failing
        };
        failing.store(1, Ordering::SeqCst);
        let refused = world.scheduler.enqueue(keyed("f", "key", "ok")).await;
        assert!(matches!(refused, Err(CallError::Store(_))), "{refused:?}");
        world.scheduler.check_at_rest();
        assert_eq!(world.scheduler.live_count(), 0);
        let again = world
            .scheduler
            .enqueue(keyed("f", "key", "ok"))
            .await
            .unwrap();
        assert!(!again.replayed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_enqueue_answers_after_the_write_and_outlives_its_caller() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    world.ground.orders.stalled.send_replace(true);
    let mut enqueuing = Box::pin(world.scheduler.enqueue(call("f", "ok")));
    assert!(poll!(&mut enqueuing).is_pending());
    world.pass(20).await;
    assert!(poll!(&mut enqueuing).is_pending());
    assert!(world.drain_all("f").await.items.is_empty());
    drop(enqueuing);
    world.ground.orders.stalled.send_replace(false);
    world.pass(20).await;
    let drained = world.drain_all("f").await;
    assert_eq!(drained.items[0].status, Status::Success);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_seen_of_an_end_before_its_commit() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    world.runs(1).await;
    world.ground.orders.stalled.send_replace(true);
    world.ground.runner.held.add_permits(1);
    let mut waiting = world.ground.orders.waiting.subscribe();
    waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
    assert_eq!(world.execution(id).await.status(), Status::Running);
    world.ground.orders.stalled.send_replace(false);
    assert_eq!(world.ended(id).await.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_is_named() {
    let world = World::new(background()).await;
    for refused in [
        world
            .scheduler
            .enqueue(call("nobody", "ok"))
            .await
            .map(drop),
        world.scheduler.invoke(call("nobody", "ok")).await.map(drop),
        world.scheduler.tick_once(&named("nobody")).map(drop),
        world
            .scheduler
            .drain(&named("nobody"), Default::default())
            .await
            .map(drop),
    ] {
        assert!(
            matches!(refused, Err(CallError::UnknownFunction(name)) if name == named("nobody"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn inputs_beyond_the_bound_of_memory_are_read_back() {
    let mut options = by_hand();
    options.queued_input_bytes_max = 6;
    let world = World::new(options).await;
    world.function("f", |_| {}).await;
    for _ in 0..3 {
        world.enqueue("f", "ok").await;
    }
    world.scheduler.check_at_rest();
    assert_eq!(world.scheduler.lock().queued_input_bytes, 4);
    let drained = world.drain_all("f").await;
    assert!(
        drained
            .items
            .iter()
            .all(|item| item.status == Status::Success)
    );
    assert_eq!(world.scheduler.lock().queued_input_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn metadata_counts_with_the_inputs_that_memory_holds() {
    let mut options = by_hand();
    options.queued_input_bytes_max = 4_000;
    let world = World::new(options).await;
    world.function("f", |_| {}).await;
    for _ in 0..3 {
        let mut tagged = call("f", "ok");
        tagged.metadata = Arc::new([("tag".to_owned(), "x".repeat(1_500))]);
        world.scheduler.enqueue(tagged).await.unwrap();
    }
    world.scheduler.check_at_rest();
    let held = world.scheduler.lock().queued_input_bytes;
    assert!((3_000..4_000).contains(&held), "{held}");
    let drained = world.drain_all("f").await;
    assert_eq!(drained.items.len(), 3);
    assert_eq!(world.scheduler.lock().queued_input_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn calls_that_come_at_once_with_one_key_are_one_call_and_take_one_place() {
    let world = World::new(by_hand()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 1)
        .await;
    world.ground.orders.stalled.send_replace(true);
    let calls = (0..10).map(|_| world.scheduler.enqueue(keyed("f", "key", "ok")));
    let calls = futures_util::future::join_all(calls);
    let go_on = async {
        world.pass(20).await;
        world.ground.orders.stalled.send_replace(false);
    };
    let (answers, ()) = tokio::join!(calls, go_on);
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    let first = answers[0].execution.id;
    assert!(answers.iter().all(|answer| answer.execution.id == first));
    // Where the first is refused, the others are asked for themselves.
    let calls = (0..3).map(|_| world.scheduler.enqueue(keyed("f", "another", "ok")));
    for answer in futures_util::future::join_all(calls).await {
        assert!(matches!(answer, Err(CallError::QueueFull { .. })));
    }
    world.drain_all("f").await;
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_call_in_memory_keeps_the_latest_runs_within_a_bound() {
    let mut options = background();
    options.waiting_call_log_bytes_max = 1;
    let world = World::new(options).await;
    world.function("f", |_| {}).await;
    let script = "later:0 later:0 later:0 ok";
    let invoking = world.scheduler.invoke(call("f", script));
    let invoked = invoking.await.unwrap().execution;
    assert_eq!(invoked.execution.requeues, 3);
    let attempts = world.scheduler.attempts(invoked.id).await.unwrap();
    let told: Vec<_> = attempts
        .iter()
        .map(|a| (a.outcome, a.logs.truncated))
        .collect();
    assert_eq!(told, [("success", true)]);
    world.scheduler.check_at_rest();
}
