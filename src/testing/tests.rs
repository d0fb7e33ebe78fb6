//! The harness's own behaviour, on functions that need no wasm.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::execution::Status;

async fn plane() -> Harness {
    let plane = Harness::start().await.unwrap();
    plane.deploy_echo("echo").await.unwrap();
    // Nobody listens there: each attempt is a retry.
    let mut spec = Spec::default();
    spec.version.endpoint_url = Some("http://127.0.0.1:9/".to_owned());
    spec.version.max_retries = 3;
    spec.version.retry_backoff.base_delay_ms = 60_000;
    spec.version.retry_backoff.max_delay_ms = 60_000;
    plane.create("down", spec).await.unwrap();
    plane
}

#[tokio::test]
async fn a_horizon_lets_retries_come_due_one_after_another() {
    let plane = plane().await;
    let id = plane.enqueue("down", "1").await.unwrap();
    let start = plane.clock.now();
    plane.drain_once("down").await.unwrap();
    let waiting = plane.execution(id).await.unwrap();
    waiting.assert_status(Status::Queued).assert_attempts(1);
    // No delay between two attempts is longer than a minute.
    let rest = plane.drain_for("down", Duration::from_secs(120)).await;
    assert_eq!(rest.unwrap().items.len(), 2);
    let ended = plane.execution(id).await.unwrap();
    ended.assert_error("POOL_ERROR").assert_attempts(3);
    assert_eq!(plane.clock.now().ms_since(start), 120_000);
    // Each attempt ran at its own time, not at the end.
    let times: Vec<_> = ended.runs().iter().map(|run| run.started_at).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times[2] < plane.clock.now(), "{times:?}");
}

#[tokio::test]
async fn a_horizon_needs_a_clock_that_moves() {
    let setup = Setup {
        clock: Clock::system(),
        ..Setup::default()
    };
    let plane = Harness::with(setup).await.unwrap();
    plane.deploy_echo("echo").await.unwrap();
    let error = plane.drain_for("echo", Duration::from_secs(3600)).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("cannot be moved"), "{text}");
}

#[tokio::test]
async fn draining_all_goes_through_retries_whatever_their_due_times() {
    let plane = plane().await;
    let id = plane.enqueue("down", "1").await.unwrap();
    let before = plane.clock.now();
    let drained = plane.drain_all("down").await.unwrap();
    assert_eq!(drained.items.len(), 3);
    assert_eq!(plane.clock.now(), before);
    plane
        .execution(id)
        .await
        .unwrap()
        .assert_error("POOL_ERROR");
}

#[tokio::test]
async fn a_limit_holds_over_many_executions() {
    let plane = plane().await;
    for number in 0..5 {
        plane.call("echo", &number).enqueue().await.unwrap();
    }
    let options = DrainOptions {
        limit: Some(3),
        ..DrainOptions::default()
    };
    assert_eq!(plane.drain("echo", options).await.unwrap().items.len(), 3);
    assert_eq!(plane.drain_all("echo").await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn an_unknown_function_is_told_with_those_that_there_are() {
    let plane = plane().await;
    for error in [
        plane.enqueue("ecko", "1").await.map(drop).unwrap_err(),
        plane.invoke("ecko", "1").await.map(drop).unwrap_err(),
        plane.drain_once("ecko").await.map(drop).unwrap_err(),
    ] {
        let text = format!("{error:#}");
        assert!(text.contains("there are: down, echo"), "{text}");
        assert!(text.contains("no function named ecko"), "{text}");
    }
    let empty = Harness::start().await.unwrap();
    let error = empty.drain_all("echo").await.unwrap_err();
    assert!(error.to_string().contains("nothing is deployed"), "{error}");
}

#[tokio::test]
async fn a_key_finds_the_first_execution_and_minds_the_metadata() {
    let plane = plane().await;
    let call = |shop: &'static str| {
        let call = plane.call("echo", &"order").idempotency_key("A-7");
        call.metadata("shop", shop).trace_id("t-1")
    };
    let id = call("north").enqueue().await.unwrap();
    let called = call("north").invoke().await.unwrap();
    assert_eq!(called.id(), id);
    assert_eq!(called.trace_id.as_deref(), Some("t-1"));
    called.assert_success();
    let error = call("south").enqueue().await.unwrap_err();
    assert!(error.to_string().contains("another body"), "{error}");
    let error = plane.call("echo", &1).idempotency_key("").enqueue().await;
    assert!(error.is_err(), "an empty key is none");
}

#[tokio::test]
async fn what_is_no_json_or_no_name_is_refused() {
    let plane = plane().await;
    let error = plane.enqueue("echo", "{").await.unwrap_err();
    assert!(format!("{error:#}").contains("not JSON"), "{error:#}");
    let error = plane.enqueue("no name", "1").await.unwrap_err();
    assert!(error.to_string().contains("\"no name\""), "{error}");
    let error = plane.deploy_file("file", "no/such/file.wasm").await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("no/such/file.wasm"), "{text}");
    let error = plane.deploy_url("nowhere", "here").await.map(drop);
    assert!(error.is_err());
}

#[tokio::test]
async fn a_failed_assertion_tells_the_whole_story() {
    let plane = plane().await;
    let execution = plane.invoke("down", "1").await.unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        execution.assert_success();
    }));
    let text = *panicked.unwrap_err().downcast::<String>().unwrap();
    for part in [
        "expected status success",
        "of down is error with code POOL_ERROR",
        "attempt 1: retry POOL_ERROR",
        "attempt 3: retry POOL_ERROR",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let wrong: [fn(&Execution); 6] = [
        |execution| _ = execution.assert_error("OTHER"),
        |execution| _ = execution.assert_attempts(2),
        |execution| _ = execution.assert_requeues(1),
        |execution| _ = execution.assert_status(Status::Timeout),
        |execution| _ = execution.output_json(),
        |execution| _ = execution.output_bytes(),
    ];
    for (number, assertion) in wrong.into_iter().enumerate() {
        let panicked = catch_unwind(AssertUnwindSafe(|| assertion(&execution)));
        assert!(panicked.is_err(), "assertion {number} let it pass");
    }
}
