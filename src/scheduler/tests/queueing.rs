//! Drains, retries, requeues, fairness and bounds.

use std::collections::HashSet;

use futures_util::poll;

use super::support::*;
use crate::execution::Status;
use crate::model::Backoff;
use crate::scheduler::DrainOptions;
use crate::scheduler::state::Live;

fn recursive() -> DrainOptions {
    DrainOptions {
        recursive: true,
        ..DrainOptions::default()
    }
}

fn on_schedule() -> DrainOptions {
    DrainOptions {
        respect_schedule: true,
        ..recursive()
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_execution_has_ended_with_its_output() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "ok").await;
    assert_eq!(world.execution(id).await.status(), Status::Queued);
    let drained = world.drain("f", DrainOptions::default()).await;
    assert_eq!(drained.items.len(), 1);
    assert_eq!(drained.items[0].status, Status::Success);
    let output = world.record(id).await.output.clone().unwrap();
    assert_eq!(output.body, id.to_string().as_bytes());
    assert_eq!(
        world.drain("f", DrainOptions::default()).await,
        Default::default()
    );
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_only_after_the_outcome_is_recorded() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "ok").await;
    world.ground.orders.stalled.send_replace(true);
    let name = named("f");
    let mut draining = Box::pin(world.scheduler.drain(&name, DrainOptions::default()));
    assert!(poll!(&mut draining).is_pending());
    world.runs(1).await;
    world.pass(50).await;
    assert!(poll!(&mut draining).is_pending());
    world.ground.orders.stalled.send_replace(false);
    assert_eq!(draining.await.unwrap().items[0].status, Status::Success);
    assert_eq!(world.execution(id).await.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_ticks_handle_ends_when_the_outcome_is_recorded() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    assert!(world.scheduler.tick_once(&named("f")).unwrap().is_none());
    let id = world.enqueue("f", "ok").await;
    let handle = world.scheduler.tick_once(&named("f")).unwrap().unwrap();
    let finalized = handle.await.unwrap();
    assert_eq!(
        (finalized.execution_id, finalized.status),
        (id, Status::Success)
    );
    assert_eq!(world.execution(id).await.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_client_hangs_up_goes_on_with_its_dispatch() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "hold").await;
    let name = named("f");
    let mut draining = Box::pin(world.scheduler.drain(&name, recursive()));
    assert!(poll!(&mut draining).is_pending());
    world.runs(1).await;
    drop(draining);
    world.ground.runner.held.add_permits(1);
    assert_eq!(world.ended(id).await.status(), Status::Success);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn attempts_are_spent_one_by_one_and_the_first_failure_is_kept() {
    for (max_retries, attempts) in [(0, 1), (1, 1), (3, 3)] {
        let world = World::new(by_hand()).await;
        world
            .function("f", |spec| spec.version.max_retries = max_retries)
            .await;
        let id = world.enqueue("f", "retry").await;
        let drained = world.drain_all("f").await;
        assert_eq!(drained.items.len(), attempts as usize);
        let execution = world.execution(id).await;
        assert_eq!(execution.status(), Status::Error);
        assert_eq!(execution.attempts, attempts);
        assert_eq!(execution.failure(), Some(&failure()));
        let runs = world.scheduler.attempts(id).await.unwrap();
        assert_eq!(runs.len(), attempts as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_are_retried_and_end_as_timeout() {
    let world = World::new(by_hand()).await;
    world
        .function("f", |spec| spec.version.max_retries = 2)
        .await;
    let recovers = world.enqueue("f", "hang ok").await;
    let never = world.enqueue("f", "hang").await;
    world.drain_all("f").await;
    assert_eq!(world.execution(recovers).await.status(), Status::Success);
    let never = world.execution(never).await;
    assert_eq!((never.status(), never.attempts), (Status::Timeout, 2));
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_deferred_work_early_unless_told_to_respect_the_schedule() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let id = world.enqueue("f", "later:60000 ok").await;
    let first = world.drain_all("f").await;
    assert_eq!(
        first.items.len(),
        1,
        "what was requeued during the drain stays"
    );
    assert_eq!(first.items[0].status, Status::Queued);
    assert_eq!(world.execution(id).await.attempts, 0);
    assert!(world.drain("f", on_schedule()).await.items.is_empty());
    world.advance(59_999).await;
    assert!(world.drain("f", on_schedule()).await.items.is_empty());
    world.scheduler.check_at_rest();
    assert_eq!(world.drain_all("f").await.items[0].status, Status::Success);
    let on_time = world.enqueue("f", "later:10 ok").await;
    world.drain("f", on_schedule()).await;
    world.advance(10).await;
    world.drain("f", on_schedule()).await;
    assert_eq!(world.execution(on_time).await.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_recursive_drain_ends_though_work_is_requeued_for_ever() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    for script in ["later:0", "fault", "interrupted", "ok", "retry retry ok"] {
        world.enqueue("f", script).await;
    }
    let drained = world.drain_all("f").await;
    assert_eq!(drained.items.len(), 7);
    assert_eq!(world.scheduler.load().queued, 3);
    let limited = DrainOptions {
        limit: Some(2),
        ..recursive()
    };
    assert_eq!(world.drain("f", limited).await.items.len(), 2);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_plain_drain_runs_each_execution_once() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    world.enqueue("f", "retry").await;
    world.enqueue("f", "ok").await;
    let options = DrainOptions {
        limit: Some(10),
        ..DrainOptions::default()
    };
    assert_eq!(world.drain("f", options).await.items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_a_slot_is_busy() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    world.enqueue("f", "hold").await;
    let handle = world.scheduler.tick_once(&named("f")).unwrap().unwrap();
    assert!(!world.drain_all("f").await.busy, "nothing waits");
    world.enqueue("f", "ok").await;
    let drained = world.drain_all("f").await;
    assert!(drained.busy && drained.items.is_empty());
    world.ground.runner.held.add_permits(1);
    handle.await.unwrap();
    assert_eq!(world.drain_all("f").await.items.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn requeues_are_bounded() {
    let world = World::new(background()).await;
    world
        .function("f", |spec| spec.version.max_requeues = 5)
        .await;
    let id = world.enqueue("f", "later:0").await;
    let execution = world.ended(id).await;
    assert_eq!(world.failure_code(&execution), "MAX_REQUEUES");
    assert_eq!(world.ground.runner.runs.borrow().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn deferred_work_wakes_by_the_clock() {
    let world = World::new(background()).await;
    world
        .function("f", |spec| {
            spec.version.retry_backoff = Backoff {
                base_delay_ms: 1_000,
                max_delay_ms: 1_000,
            };
        })
        .await;
    let later = world.enqueue("f", "later:5000 ok").await;
    let retried = world.enqueue("f", "retry ok").await;
    world.runs(2).await;
    world.pass(50).await;
    assert_eq!(world.execution(later).await.status(), Status::Queued);
    world.scheduler.check_at_rest();
    world.advance(1_000).await;
    assert_eq!(world.ended(retried).await.status(), Status::Success);
    world.advance(3_999).await;
    assert_eq!(world.execution(later).await.status(), Status::Queued);
    world.advance(1).await;
    assert_eq!(world.ended(later).await.status(), Status::Success);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_ends_unrun_and_holds_nobody_up() {
    let world = World::new(background()).await;
    world
        .function("f", |spec| spec.version.max_age_ms = 1_000)
        .await;
    let blocker = world.enqueue("f", "hold").await;
    world.runs(1).await;
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(world.enqueue("f", "ok").await);
    }
    world.advance(1_001).await;
    let fresh = world.enqueue("f", "ok").await;
    world.ground.runner.held.add_permits(1);
    assert_eq!(world.ended(blocker).await.status(), Status::Success);
    assert_eq!(world.ended(fresh).await.status(), Status::Success);
    for id in old {
        let execution = world.ended(id).await;
        assert_eq!(world.failure_code(&execution), "MAX_AGE");
        assert_eq!(execution.attempts, 0);
    }
    assert_eq!(world.ground.runner.runs.borrow().len(), 2);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_hot_function_does_not_starve_a_cold_one() {
    let mut options = background();
    options.guests_max = 2;
    let world = World::new(options).await;
    for name in ["hot", "cold"] {
        world
            .function(name, |spec| spec.settings.concurrency = 10)
            .await;
    }
    let mut hot = HashSet::new();
    for _ in 0..20 {
        hot.insert(world.enqueue("hot", "hold").await);
    }
    let cold = world.enqueue("cold", "hold").await;
    world.runs(2).await;
    assert_eq!(world.scheduler.load().running, 2, "the plane's bound");
    world.ground.runner.held.add_permits(2);
    let runs = world.runs(4).await;
    let place = runs
        .iter()
        .position(|id| *id == cold)
        .expect("its turn came");
    assert!(place <= 3);
    assert_eq!(runs.iter().filter(|id| hot.contains(id)).count(), 3);
    world.scheduler.check_invariants();
    world.ground.runner.held.add_permits(100);
    for id in runs {
        world.ended(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn services_and_guests_have_bounds_of_their_own() {
    let mut options = background();
    (options.guests_max, options.endpoint_calls_max) = (1, 1);
    let world = World::new(options).await;
    world
        .function("guest", |spec| spec.settings.concurrency = 5)
        .await;
    world
        .function("service", |spec| {
            spec.settings.concurrency = 5;
            spec.version.image = None;
            spec.version.endpoint_url = Some("http://127.0.0.1:1/".to_owned());
        })
        .await;
    for _ in 0..3 {
        world.enqueue("guest", "hold").await;
        world.enqueue("service", "hold").await;
    }
    world.runs(2).await;
    world.pass(50).await;
    assert_eq!(world.scheduler.load().running, 2);
    world.scheduler.check_invariants();
    world.ground.runner.held.add_permits(6);
    world.runs(6).await;
}

#[tokio::test(start_paused = true)]
async fn a_raised_concurrency_acts_at_once_and_old_calls_do_not_take_it_back() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    for _ in 0..5 {
        world.enqueue("f", "hold").await;
    }
    world.runs(1).await;
    let before = world.registry.get(&named("f")).unwrap();
    let raise = |spec: &crate::model::Spec| {
        let mut spec = spec.clone();
        spec.settings.concurrency = 3;
        Ok(spec)
    };
    world
        .registry
        .update(&named("f"), Box::new(raise))
        .await
        .unwrap();
    world.scheduler.settings_changed(&named("f"));
    world.runs(3).await;
    // As a call does that looked the function up before the change.
    let ensured = world
        .scheduler
        .ensure_function(&mut world.scheduler.lock(), &before);
    assert!(ensured.is_ok());
    world.ground.runner.held.add_permits(1);
    world.runs(4).await;
    world.scheduler.check_invariants();
    assert_eq!(world.scheduler.load().running, 3);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_not_moved_when_much_more_comes() {
    let world = World::new(by_hand()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 1_000)
        .await;
    let first = world.enqueue("f", "ok").await;
    let place = || {
        let state = world.scheduler.lock();
        let live: &Live = state.live.get(&first).unwrap();
        std::ptr::from_ref(live).addr()
    };
    let before = place();
    for _ in 1..1_000 {
        world.enqueue("f", "ok").await;
    }
    // A table that holds the executions themselves copies all of them when it grows, and everybody waits.
    assert_eq!(place(), before);
}
