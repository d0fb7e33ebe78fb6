//! Calls whose caller speaks with the function: one attempt, no later, and a slot that is freed however it ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::poll;

use super::support::*;
use crate::execution::{Execution, Status};
use crate::model::ExecutionId;
use crate::runtime::{Answer, Ending, Exchange};
use crate::scheduler::{CallError, Serving};

/// What is recorded of an end that its caller brought about.
#[track_caller]
fn check_advice(ended: &Execution, advice: &str) {
    let message = &ended.failure().unwrap().message;
    assert!(message.contains(advice), "{message}");
    // Nothing that only other calls can do.
    for other in ["X-Timeout-Ms", "Idempotency-Key", "enqueue"] {
        assert!(!message.contains(other), "{message}");
    }
}

impl World {
    async fn serve(&self, name: &str, script: &str) -> Result<(Serving, Answer), CallError> {
        self.serve_within(name, script, None).await
    }

    async fn serve_within(
        &self,
        name: &str,
        script: &str,
        wait_ms: Option<u64>,
    ) -> Result<(Serving, Answer), CallError> {
        let function = self.registry.get(&named(name)).expect("a function");
        let (exchange, answer) = Exchange::plain();
        let mut call = call(name, script);
        call.wait = wait_ms.map(Duration::from_millis);
        let serving = self.scheduler.serve(&function, call, exchange).await?;
        Ok((serving, answer))
    }

    /// What its runs came to and wrote.
    async fn runs_of(&self, id: ExecutionId) -> Vec<(&'static str, Vec<String>)> {
        let runs = self.scheduler.attempts(id).await.unwrap();
        runs.into_iter()
            .map(|run| {
                let lines = run.logs.lines.into_iter().map(|line| line.text);
                (run.outcome, lines.collect())
            })
            .collect()
    }

    /// The one slot of a function can be taken.
    async fn check_slot(&self, name: &str) {
        let (mut next, _) = self.serve(name, "ok").await.unwrap();
        let ended = next.ended().await.unwrap();
        assert_eq!(ended.execution.status(), Status::Success);
        assert_eq!(*self.ground.runner.running.borrow(), 0);
        self.scheduler.check_at_rest();
    }
}

fn wrote(outcome: &'static str, word: &str) -> Vec<(&'static str, Vec<String>)> {
    vec![(outcome, vec![word.to_owned()])]
}

#[tokio::test(start_paused = true)]
async fn its_caller_gets_the_output_and_only_the_sizes_are_kept() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let (mut serving, answer) = world.serve("f", "ok").await.unwrap();
    let ended = serving.ended().await.unwrap();
    assert_eq!(ended.id, serving.id());
    assert_eq!(ended.execution.status(), Status::Success);
    let output = ended.output.as_ref().expect("the caller's output");
    assert_eq!(answer.ending(), Some(Ending::Success));
    let kept = world.record(ended.id).await;
    assert_eq!(kept.execution, ended.execution);
    assert_eq!((&kept.output, kept.input_kept), (&None, false));
    let size = u64::try_from(output.body.len()).unwrap();
    assert_eq!((kept.input_bytes, kept.output_bytes), (4, Some(size)));
    world.check_slot("f").await;
}

#[tokio::test(start_paused = true)]
async fn every_end_is_the_last() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    for (script, status, code, ending) in [
        ("retry ok", Status::Error, "SCRIPTED", Some(Ending::Retry)),
        ("error ok", Status::Error, "SCRIPTED", Some(Ending::Error)),
        ("limit ok", Status::Error, "SCRIPTED", Some(Ending::Limit)),
        (
            "later:10 ok",
            Status::Error,
            "REQUEUE",
            Some(Ending::Requeue(Some(10))),
        ),
        (
            "timeout ok",
            Status::Timeout,
            "SCRIPTED",
            Some(Ending::TimedOut),
        ),
        (
            "fault ok",
            Status::Error,
            "PLATFORM_FAULT",
            Some(Ending::Fault),
        ),
        (
            "interrupted ok",
            Status::Error,
            "PLATFORM_FAULT",
            Some(Ending::Interrupted),
        ),
        // Nobody is left to tell.
        ("panic ok", Status::Error, "PLATFORM_FAULT", None),
    ] {
        let before = world.ground.runner.runs.borrow().len();
        let (mut serving, answer) = world.serve("f", script).await.unwrap();
        let ended = serving.ended().await.unwrap();
        assert_eq!(ended.execution.status(), status, "{script}");
        assert_eq!(world.failure_code(&ended.execution), code, "{script}");
        assert_eq!(ended.execution.requeues, 0, "{script}");
        assert_eq!(answer.ending(), ending, "{script}");
        assert_eq!(world.ground.runner.runs.borrow().len(), before + 1);
        world.check_slot("f").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_stops_the_run_and_what_it_wrote_is_kept() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let (serving, _) = world.serve("f", "hold").await.unwrap();
    let id = world.runs(1).await[0];
    drop(serving);
    let ended = world.ended(id).await;
    assert_eq!(ended.status(), Status::Timeout);
    assert_eq!(world.failure_code(&ended), "CALLER_GONE");
    check_advice(
        &ended,
        "during attempt 1: a direct call ends with its caller",
    );
    assert_eq!(world.runs_of(id).await, wrote("interrupted", "hold"));
    world.check_slot("f").await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_before_its_turn_leaves_its_place() {
    let world = World::new(background()).await;
    world
        .function("f", |spec| spec.settings.queue_size = 1)
        .await;
    let (mut running, _) = world.serve("f", "hold").await.unwrap();
    world.runs(1).await;
    let (waiting, _) = world.serve("f", "ok").await.unwrap();
    let id = waiting.id();
    assert!(matches!(
        world.serve("f", "ok").await.unwrap_err(),
        CallError::QueueFull { .. }
    ));
    drop(waiting);
    let ended = world.ended(id).await;
    assert_eq!(world.failure_code(&ended), "CALLER_GONE");
    check_advice(&ended, "a direct call ends with its caller");
    assert_eq!(ended.attempts, 0);
    let (mut next, _) = world.serve("f", "ok").await.unwrap();
    world.ground.runner.held.add_permits(1);
    for serving in [&mut running, &mut next] {
        let ended = serving.ended().await.unwrap();
        assert_eq!(ended.execution.status(), Status::Success);
    }
    assert_eq!(world.ground.runner.runs.borrow().len(), 2);
    world.check_slot("f").await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_long_to_stop_keeps_its_slot_and_nobody_waiting() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let (serving, _) = world.serve("f", "stubborn").await.unwrap();
    let id = world.runs(1).await[0];
    drop(serving);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ended = world.execution(id).await;
    assert_eq!(world.failure_code(&ended), "CALLER_GONE");
    let (mut next, _) = world.serve("f", "ok").await.unwrap();
    let mut next = Box::pin(next.ended());
    assert!(poll!(&mut next).is_pending());
    world.pass(50).await;
    assert_eq!(world.ground.runner.runs.borrow().len(), 1);
    world.ground.runner.held.add_permits(1);
    assert_eq!(next.await.unwrap().execution.status(), Status::Success);
    assert_eq!(world.execution(id).await, ended);
    assert_eq!(world.runs_of(id).await, wrote("interrupted", "stubborn"));
    world.check_slot("f").await;
}

#[tokio::test(start_paused = true)]
async fn one_who_has_everything_leaves_and_the_run_goes_on() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let (serving, _) = world.serve("f", "hold").await.unwrap();
    let id = world.runs(1).await[0];
    serving.leave();
    world.pass(50).await;
    assert_eq!(world.execution(id).await.status(), Status::Running);
    world.ground.runner.held.add_permits(1);
    assert_eq!(world.ended(id).await.status(), Status::Success);
    world.check_slot("f").await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_ended_is_not_hung_up_on() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let (serving, _) = world.serve("f", "ok").await.unwrap();
    let id = serving.id();
    assert_eq!(world.ended(id).await.status(), Status::Success);
    drop(serving);
    world.pass(50).await;
    assert_eq!(world.execution(id).await.status(), Status::Success);
    world.check_slot("f").await;
}

#[tokio::test(start_paused = true)]
async fn its_time_bounds_the_queue_and_the_run() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let (mut serving, answer) = world.serve_within("f", "ok", Some(200)).await.unwrap();
    let ended = serving.ended().await.unwrap();
    assert_eq!(ended.execution.status(), Status::Timeout);
    assert_eq!((ended.execution.attempts, answer.ending()), (0, None));
    check_advice(
        &ended.execution,
        "drain the function while the request waits",
    );
    assert!(world.drain_all("f").await.items.is_empty());

    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    for script in ["hang", "spin"] {
        let (mut serving, answer) = world.serve_within("f", script, Some(200)).await.unwrap();
        let ended = serving.ended().await.unwrap();
        assert_eq!(ended.execution.status(), Status::Timeout, "{script}");
        assert_eq!(answer.ending(), Some(Ending::TimedOut), "{script}");
        check_advice(&ended.execution, "has the function's timeoutMs");
        assert_eq!(world.runs_of(ended.id).await, wrote("timeout", script));
        world.check_slot("f").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_it_and_what_it_wrote_is_kept() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    let (mut serving, _) = world.serve("f", "hold").await.unwrap();
    let id = world.runs(1).await[0];
    world.scheduler.cancel(id).await.unwrap();
    let ended = serving.ended().await.unwrap();
    assert_eq!(ended.execution.status(), Status::Cancelled);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.runs_of(id).await, wrote("interrupted", "hold"));
    world.check_slot("f").await;
}

#[tokio::test(start_paused = true)]
async fn it_is_refused_like_any_call_and_leaves_nothing() {
    let world = World::new(background()).await;
    world
        .function("rare", |spec| spec.settings.rate_per_second = Some(1))
        .await;
    world.function("gone", |_| {}).await;
    world.check_slot("rare").await;
    assert!(matches!(
        world.serve("rare", "ok").await.unwrap_err(),
        CallError::RateLimited { .. }
    ));
    let gone = world.registry.get(&named("gone")).unwrap();
    world
        .scheduler
        .remove_function(&named("gone"))
        .await
        .unwrap();
    let (exchange, _answer) = Exchange::plain();
    assert!(matches!(
        world
            .scheduler
            .serve(&gone, call("gone", "ok"), exchange)
            .await,
        Err(CallError::UnknownFunction(_))
    ));
    assert_eq!(world.ground.runner.runs.borrow().len(), 1);
    world.scheduler.check_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait_of_what_has_not_begun() {
    let world = World::new(by_hand()).await;
    world.function("f", |_| {}).await;
    let (mut waiting, _) = world.serve("f", "ok").await.unwrap();
    let mut ended = Box::pin(waiting.ended());
    assert!(poll!(&mut ended).is_pending());
    let (ended, ()) = tokio::join!(ended, world.scheduler.stop(Duration::from_millis(10)));
    assert!(matches!(ended, Err(CallError::Stopping)), "{ended:?}");
    assert!(matches!(
        world.serve("f", "ok").await.unwrap_err(),
        CallError::Stopping
    ));
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_it_is_served_frees_its_slot() {
    let world = World::new(background()).await;
    world.function("f", |_| {}).await;
    world.ground.runner.panics.store(1, Ordering::SeqCst);
    let (mut serving, _) = world.serve("f", "ok").await.unwrap();
    let ended = serving.ended().await.unwrap();
    assert_eq!(world.failure_code(&ended.execution), "PLATFORM_FAULT");
    assert_eq!(ended.execution.faults, 1);
    world.check_slot("f").await;
}
