//! Who is taken in: by rate, by room, by the wait that is expected; and whose turn it is then.

use std::time::Duration;

use futures_util::poll;
use tokio::task::JoinSet;

use super::support::*;
use crate::execution::Status;
use crate::model::{ExecutionId, RuntimeConfig, RuntimeSetting};
use crate::scheduler::{Call, CallError, Crowded, Invoked, Options, Rated};

fn configured(edit: impl FnOnce(&mut RuntimeConfig)) -> Options {
    let mut options = background();
    edit(&mut options.runtime_config);
    options
}

fn patient(name: &str, script: &str, wait: Duration) -> Call {
    Call {
        wait: Some(wait),
        ..call(name, script)
    }
}

/// Callers who wait, each in a task of its own.
type Callers = JoinSet<Result<Invoked, CallError>>;

async fn calls(world: &World, callers: &mut Callers, count: u32, call: Call) {
    for _ in 0..count {
        let (scheduler, call) = (world.scheduler.clone(), call.clone());
        callers.spawn(async move { scheduler.invoke(call).await });
    }
    world.pass(50).await;
}

/// Six runs of this length, one after the other: enough to know a function by.
async fn history(world: &World, name: &str, ms: u64) {
    for _ in 0..6 {
        let wait = Duration::from_millis(ms + 1);
        let call = patient(name, &format!("nap:{ms}"), wait);
        let ended = world.scheduler.invoke(call).await.unwrap();
        assert_eq!(ended.execution.execution.status(), Status::Success);
    }
}

#[track_caller]
fn expected_wait(refused: Result<Invoked, CallError>) -> (u64, u64, u64) {
    match refused {
        Err(CallError::QueueFull {
            crowded:
                Crowded::Estimate {
                    estimated_ms,
                    limit_ms,
                    ..
                },
            retry_after_s,
        }) => (estimated_ms, limit_ms, retry_after_s),
        other => panic!("not refused for its wait: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_burst_is_taken_up_to_the_slots_and_the_queue() {
    let world = World::new(background()).await;
    let bounds = |spec: &mut crate::model::Spec| {
        (spec.settings.concurrency, spec.settings.queue_size) = (2, 8);
    };
    world.function("f", bounds).await;
    let mut callers = Callers::new();
    calls(&world, &mut callers, 10, call("f", "hold")).await;
    let refused = world.scheduler.invoke(call("f", "hold")).await;
    let Err(CallError::QueueFull {
        crowded,
        retry_after_s,
    }) = refused
    else {
        panic!("the queue has no bound: {refused:?}");
    };
    assert!(matches!(crowded, Crowded::Queue { queue_size: 8, .. }));
    assert_eq!(retry_after_s, 2, "nothing is known: what the config says");
    world.ground.runner.held.add_permits(10);
    for ended in callers.join_all().await {
        let status = ended.unwrap().execution.execution.status();
        assert_eq!(status, Status::Success);
    }
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_is_told_when_to_come_back() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    history(&world, "f", 1_000).await;
    // One runs, ten wait: a further one would wait for ten seconds.
    let mut callers = Callers::new();
    let long = Duration::from_secs(60);
    calls(&world, &mut callers, 11, patient("f", "hold", long)).await;
    let call = |ms| patient("f", "ok", Duration::from_millis(ms));
    let refused = world.scheduler.invoke(call(1_500)).await;
    assert_eq!(expected_wait(refused), (10_000, 1_500, 9));
    // A little too long: no less than the config says.
    let refused = world.scheduler.invoke(call(9_999)).await;
    assert_eq!(expected_wait(refused), (10_000, 9_999, 2));
    let mut taken = Box::pin(world.scheduler.invoke(call(10_000)));
    assert!(poll!(&mut taken).is_pending());
    drop(taken);
    world.pass(20).await;
    // Whoever queues a call waits for nothing.
    world.enqueue("f", "ok").await;
    world.ground.runner.held.add_permits(11);
    assert!(callers.join_all().await.iter().all(Result::is_ok));
    world.pass(50).await;
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_when_its_next_place_is_free() {
    let world = World::new(background()).await;
    let small = |spec: &mut crate::model::Spec| spec.settings.queue_size = 3;
    world.function("f", small).await;
    history(&world, "f", 7_000).await;
    for _ in 0..4 {
        world.enqueue("f", "hold").await;
    }
    let refused = world.scheduler.enqueue(call("f", "ok")).await;
    let Err(CallError::QueueFull { retry_after_s, .. }) = refused else {
        panic!("the queue has no bound: {refused:?}");
    };
    assert_eq!(retry_after_s, 7, "a slot is free every seven seconds");
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_taken_as_far_as_it_can_be_served_in_time() {
    let world = World::new(background()).await;
    let roomy = |spec: &mut crate::model::Spec| {
        (spec.settings.concurrency, spec.settings.queue_size) = (2, 1_000);
    };
    world.function("f", roomy).await;
    history(&world, "f", 1_000).await;
    let mut callers = Callers::new();
    let storm = patient("f", "nap:1000", Duration::from_millis(7_500));
    calls(&world, &mut callers, 200, storm).await;
    let (taken, refused): (Vec<_>, Vec<_>) = callers
        .join_all()
        .await
        .into_iter()
        .partition(Result::is_ok);
    // Two run, and sixteen wait: fifteen before the last one are begun in seven and a half seconds.
    assert_eq!(taken.len(), 2 + 16);
    for one in refused {
        expected_wait(one);
    }
    let served = taken.iter().flatten().filter(|invoked| {
        let status = invoked.execution.execution.status();
        status == Status::Success
    });
    // The last two begin within their time and run out of it.
    assert!(served.count() >= 14);
    world.pass(50).await;
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_function_that_begins_to_hang_takes_no_storm() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    history(&world, "f", 10).await;
    let long = Duration::from_secs(300);
    let mut callers = Callers::new();
    calls(&world, &mut callers, 6, patient("f", "hold", long)).await;
    let short = || patient("f", "hold", Duration::from_secs(30));
    let mut taken = Box::pin(world.scheduler.invoke(short()));
    assert!(poll!(&mut taken).is_pending(), "ten milliseconds each");
    drop(taken);
    world.pass(20).await;
    // Nothing has ended, but the run that holds the slot has done so for seven seconds.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (estimated_ms, ..) = expected_wait(world.scheduler.invoke(short()).await);
    assert!(estimated_ms >= 35_000, "{estimated_ms}");
    world.ground.runner.held.add_permits(6);
    assert!(callers.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn what_was_long_ago_refuses_nobody() {
    let world = World::new(background()).await;
    let bounds = |spec: &mut crate::model::Spec| {
        (spec.settings.concurrency, spec.settings.queue_size) = (2, 50);
        spec.version.timeout_ms = 60_000;
    };
    world.function("f", bounds).await;
    history(&world, "f", 50_000).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut callers = Callers::new();
    let sudden = patient("f", "nap:10", Duration::from_secs(5));
    calls(&world, &mut callers, 52, sudden).await;
    for ended in callers.join_all().await {
        let status = ended.unwrap().execution.execution.status();
        assert_eq!(status, Status::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_takes_a_call_whatever_was_before_and_the_next_one_may_wait() {
    let world = World::new(background()).await;
    let slow = |spec: &mut crate::model::Spec| spec.version.timeout_ms = 60_000;
    world.function("f", slow).await;
    history(&world, "f", 50_000).await;
    let call = || patient("f", "hold", Duration::from_secs(1));
    let mut running = Box::pin(world.scheduler.invoke(call()));
    assert!(poll!(&mut running).is_pending());
    // It may begin any moment.
    let mut next = Box::pin(world.scheduler.invoke(call()));
    assert!(poll!(&mut next).is_pending());
    let refused = world.scheduler.invoke(call()).await;
    assert_eq!(expected_wait(refused).0, 50_000);
    world.ground.runner.held.add_permits(2);
    for call in [running, next] {
        let status = call.await.unwrap().execution.execution.status();
        assert_eq!(status, Status::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_function_refuses_nobody_elses_calls() {
    let world = World::new(background()).await;
    for name in ["slow", "fast"] {
        let bounds = |spec: &mut crate::model::Spec| spec.version.timeout_ms = 60_000;
        world.function(name, bounds).await;
    }
    history(&world, "slow", 50_000).await;
    history(&world, "fast", 1).await;
    let mut callers = Callers::new();
    let long = Duration::from_secs(300);
    for name in ["slow", "fast"] {
        calls(&world, &mut callers, 5, patient(name, "hold", long)).await;
    }
    let second = |name| patient(name, "hold", Duration::from_secs(1));
    expected_wait(world.scheduler.invoke(second("slow")).await);
    let mut taken = Box::pin(world.scheduler.invoke(second("fast")));
    assert!(poll!(&mut taken).is_pending());
    world.ground.runner.held.add_permits(20);
    assert!(taken.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn where_the_plane_is_full_its_other_functions_turns_count() {
    let mut options = background();
    options.guests_max = 1;
    let world = World::new(options).await;
    for name in ["a", "b"] {
        world
            .function(name, |spec| spec.settings.concurrency = 10)
            .await;
    }
    history(&world, "a", 1_000).await;
    let mut callers = Callers::new();
    let long = Duration::from_secs(60);
    calls(&world, &mut callers, 1, patient("a", "hold", long)).await;
    calls(&world, &mut callers, 3, patient("b", "hold", long)).await;
    // Nothing of its own waits, but b's next one is before it.
    let call = |ms| patient("a", "hold", Duration::from_millis(ms));
    let refused = world.scheduler.invoke(call(999)).await;
    assert_eq!(expected_wait(refused).0, 1_000);
    let mut taken = Box::pin(world.scheduler.invoke(call(60_000)));
    assert!(poll!(&mut taken).is_pending());
    world.ground.runner.held.add_permits(20);
    assert!(taken.await.is_ok());
    assert!(callers.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn callers_are_bounded_in_the_whole_plane_and_replays_are_none() {
    let world = World::new(configured(|config| config.sync_queue_max_depth = 3)).await;
    for name in ["f", "g"] {
        world.function(name, |_| {}).await;
    }
    let mut callers = Callers::new();
    // What runs does not wait.
    calls(&world, &mut callers, 2, call("f", "hold")).await;
    calls(&world, &mut callers, 2, call("g", "hold")).await;
    calls(&world, &mut callers, 1, keyed("g", "key", "hold")).await;
    for refused in [
        world.scheduler.invoke(call("g", "ok")).await,
        world.scheduler.invoke(keyed("f", "other", "ok")).await,
    ] {
        let Err(CallError::QueueFull { crowded, .. }) = refused else {
            panic!("as many may wait as want to: {refused:?}");
        };
        assert_eq!(crowded, Crowded::Callers { callers_max: 3 });
    }
    calls(&world, &mut callers, 5, keyed("g", "key", "hold")).await;
    assert!(!callers.is_empty());
    world.enqueue("g", "ok").await;
    world.ground.runner.held.add_permits(10);
    let ended = callers.join_all().await;
    assert_eq!(ended.len(), 10);
    let replays = ended.iter().flatten().filter(|invoked| invoked.replayed);
    assert_eq!(replays.count(), 5);
    world.pass(50).await;
    world.scheduler.check_at_rest();
    // A slot that is free takes a caller even where none may wait.
    let other = world.scheduler.invoke(keyed("f", "other", "ok")).await;
    assert!(
        !other.unwrap().replayed,
        "a refused call left its key behind"
    );
}

#[tokio::test(start_paused = true)]
async fn with_the_sync_queue_off_only_the_functions_own_bounds_hold() {
    let world = World::new(configured(|config| {
        config.sync_queue_enabled = false;
        config.sync_queue_max_depth = 1;
        config.sync_queue_max_queue_wait = Duration::from_millis(1);
        config.sync_queue_max_estimated_wait = Duration::from_millis(1);
    }))
    .await;
    world
        .function("f", |spec| spec.settings.queue_size = 8)
        .await;
    history(&world, "f", 1_000).await;
    let mut callers = Callers::new();
    calls(&world, &mut callers, 9, call("f", "hold")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = world.scheduler.invoke(call("f", "hold")).await;
    assert!(matches!(
        refused,
        Err(CallError::QueueFull {
            crowded: Crowded::Queue { .. },
            ..
        })
    ));
    world.ground.runner.held.add_permits(9);
    assert!(callers.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn by_hand_nobody_is_refused_for_a_wait_that_nobody_knows() {
    let mut options = by_hand();
    options.runtime_config.sync_queue_max_depth = 5;
    let world = World::new(options).await;
    world.function("f", |_| {}).await;
    for _ in 0..6 {
        world.enqueue("f", "nap:20000").await;
        world.drain_all("f").await;
    }
    let mut callers = Callers::new();
    let short = patient("f", "ok", Duration::from_secs(1));
    calls(&world, &mut callers, 5, short.clone()).await;
    let refused = world.scheduler.invoke(short).await;
    assert!(matches!(
        refused,
        Err(CallError::QueueFull {
            crowded: Crowded::Callers { .. },
            ..
        })
    ));
    assert_eq!(world.drain_all("f").await.items.len(), 5);
    assert!(callers.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn callers_and_queued_work_of_one_function_take_turns() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let blocker = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let mut queued = Vec::new();
    for _ in 0..4 {
        queued.push(world.enqueue("f", "ok").await);
    }
    let mut callers = Callers::new();
    calls(&world, &mut callers, 8, call("f", "ok")).await;
    world.ground.runner.held.add_permits(1);
    let callers = callers.join_all().await;
    assert_eq!(callers.len(), 8);
    for id in &queued {
        world.ended(*id).await;
    }
    let runs = world.runs(13).await;
    let lane = |id: &ExecutionId| match id {
        id if *id == blocker => 'b',
        id if queued.contains(id) => 'q',
        _ => 'c',
    };
    assert_eq!(runs.iter().map(lane).collect::<String>(), "bcccqcccqccqq");
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn neither_kind_of_work_keeps_the_other_out_of_a_full_queue() {
    let world = World::new(background()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 8)
        .await;
    world.enqueue("f", "hold").await;
    world.runs(1).await;
    for _ in 0..8 {
        world.enqueue("f", "ok").await;
    }
    assert!(world.scheduler.enqueue(call("f", "ok")).await.is_err());
    let mut callers = Callers::new();
    calls(&world, &mut callers, 2, call("f", "ok")).await;
    assert!(world.scheduler.invoke(call("f", "ok")).await.is_err());
    world.ground.runner.held.add_permits(1);
    assert!(callers.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_too_long_is_given_back_and_never_runs() {
    let limit = Duration::from_millis(500);
    let world = World::new(configured(|config| {
        config.sync_queue_max_queue_wait = limit;
        config.sync_queue_max_estimated_wait = limit;
    }))
    .await;
    world.function("f", |_| {}).await;
    world.enqueue("f", "hold").await;
    let refused = world.scheduler.invoke(call("f", "ok")).await;
    let Err(CallError::QueueFull {
        crowded:
            Crowded::Waited {
                limit_ms,
                execution,
                ..
            },
        retry_after_s,
    }) = refused
    else {
        panic!("it was not given back: {refused:?}");
    };
    assert_eq!((limit_ms, retry_after_s), (500, 2));
    let ended = world.execution(execution).await;
    assert_eq!(ended.status(), Status::Timeout);
    assert_eq!(world.failure_code(&ended), "QUEUE_TIMEOUT");
    // What was promised is not given back: its own time is what bounds it.
    let mut promised = keyed("f", "key", "ok");
    promised.wait = Some(Duration::from_secs(2));
    let promised = world.scheduler.invoke(promised).await.unwrap();
    let ended = &promised.execution.execution;
    assert_eq!(world.failure_code(ended), "TIMEOUT");
    world.ground.runner.held.add_permits(1);
    world.pass(50).await;
    assert_eq!(world.ground.runner.runs.borrow().len(), 1);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_begun_is_not_given_back() {
    let limit = Duration::from_millis(500);
    let world = World::new(configured(|config| {
        config.sync_queue_max_queue_wait = limit;
        config.sync_queue_max_estimated_wait = limit;
    }))
    .await;
    world.function("f", |_| {}).await;
    let mut callers = Callers::new();
    // One runs for longer than a call may wait, one is back in its queue for as long.
    calls(&world, &mut callers, 1, call("f", "nap:2000")).await;
    assert!(callers.join_next().await.unwrap().unwrap().is_ok());
    calls(&world, &mut callers, 1, call("f", "later:1000 ok")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.advance(1_000).await;
    let ended = callers.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(ended.execution.execution.status(), Status::Success);
    assert_eq!(ended.execution.execution.requeues, 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_before_it_is_given_back_leaves_nothing() {
    let world = World::new(configured(|config| {
        config.sync_queue_max_queue_wait = Duration::from_millis(500);
        config.sync_queue_max_estimated_wait = Duration::from_millis(500);
        config.sync_queue_max_depth = 1;
    }))
    .await;
    world.function("f", |_| {}).await;
    world.enqueue("f", "hold").await;
    for _ in 0..3 {
        let mut waiting = Box::pin(world.scheduler.invoke(call("f", "ok")));
        assert!(poll!(&mut waiting).is_pending());
        drop(waiting);
        world.pass(20).await;
    }
    assert_eq!(world.scheduler.live_count(), 1);
    world.ground.runner.held.add_permits(1);
    world.pass(50).await;
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn the_plane_has_a_rate_for_both_ways_to_call() {
    let world = World::new(configured(|config| config.rate_max_per_second = 3)).await;
    world
        .function("own", |spec| spec.settings.rate_per_second = Some(1))
        .await;
    world.function("f", |_| {}).await;
    world.enqueue("own", "ok").await;
    // Its own rate is asked first, and takes nothing from what all have.
    for _ in 0..5 {
        let refused = world.scheduler.enqueue(call("own", "ok")).await;
        let Err(CallError::RateLimited { rated, .. }) = refused else {
            panic!("its own rate is one a second: {refused:?}");
        };
        assert_eq!(rated, Rated::Function(named("own")));
    }
    assert!(world.scheduler.invoke(call("f", "ok")).await.is_ok());
    world.enqueue("f", "ok").await;
    for refused in [
        world.scheduler.invoke(call("f", "ok")).await.map(drop),
        world.scheduler.enqueue(call("f", "ok")).await.map(drop),
        world
            .scheduler
            .enqueue(keyed("f", "k", "ok"))
            .await
            .map(drop),
    ] {
        let Err(CallError::RateLimited {
            rated,
            per_second,
            retry_after_s,
        }) = refused
        else {
            panic!("the plane takes three a second: {refused:?}");
        };
        assert_eq!((rated, per_second, retry_after_s), (Rated::Plane, 3, 1));
    }
    // Another rate acts at once.
    let more = vec![RuntimeSetting::RateMaxPerSecond(Some(1_000))];
    world
        .scheduler
        .change_runtime_config(0, more)
        .await
        .unwrap();
    world.enqueue("f", "ok").await;
}
