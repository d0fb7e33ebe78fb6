//! The twelve behaviours of nanofaas's completion handler, each for functions behind a URL and for wasm,
//! and stricter: a failure keeps the code and the cause that it first had. Numbers are those of its suite.

use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::support::guests;
use crate::support::programs::{SLEEPS, exits, program};
use crate::support::service::{Reply, Service, UNREACHABLE};
use crate::support::world::{Builder, World, within};

/// How a function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pool,
    Wasm,
}

const KINDS: [Kind; 2] = [Kind::Pool, Kind::Wasm];

impl Kind {
    /// A world with the function `f`, whose every attempt fails.
    fn failing(self, spec: Value) -> Builder {
        match self {
            Self::Pool => World::new().pool("f", UNREACHABLE).spec(spec),
            Self::Wasm => World::new()
                .function("f", exits(1, "the warehouse is closed"))
                .spec(spec),
        }
    }

    /// The code of that failure, and a piece of its cause.
    fn failure(self) -> (&'static str, &'static str) {
        match self {
            Self::Pool => ("POOL_ERROR", "refused"),
            Self::Wasm => ("EXIT_1", "the warehouse is closed"),
        }
    }

    #[track_caller]
    fn check_failed(self, execution: &Value) {
        let (code, cause) = self.failure();
        assert_eq!(execution["status"], "error", "{self:?}: {execution}");
        assert_eq!(execution["error"]["code"], code, "{self:?}: {execution}");
        let message = execution["error"]["message"].as_str().unwrap();
        assert!(message.contains(cause), "{self:?}: {message}");
        assert!(execution["output"].is_null(), "{self:?}: {execution}");
    }

    /// What answers when the function `f` is called, until the service is dropped.
    async fn hanging(self, name: &str, builder: Builder) -> (Builder, Option<Service>) {
        match self {
            Self::Pool => {
                let service = Service::held(|_| Reply::ok(&json!("late"))).await;
                (builder.pool(name, &service.url), Some(service))
            }
            Self::Wasm => (builder.function(name, program(SLEEPS)), None),
        }
    }
}

fn echo() -> Bytes {
    guests::wasm("echo")
}

#[tokio::test]
async fn no_1_an_empty_queue_dispatches_nothing_and_takes_no_slot() {
    let service = Service::answering(|_| Reply::ok(&json!("ran"))).await;
    let world = World::new()
        .pool("pool", &service.url)
        .spec(json!({"concurrency": 1}))
        .function("wasm", echo())
        .spec(json!({"concurrency": 1}))
        .await;
    for name in ["pool", "wasm"] {
        for _ in 0..3 {
            let answer = world.drain_answer(name, json!({})).await;
            let nothing = json!({"dispatched": false, "count": 0, "executionId": null, "status": null, "items": []});
            assert_eq!(answer, nothing);
        }
        // One that ended while it waited is not there to be dispatched either.
        let id = world.enqueue(name, json!(1)).await;
        let cancelled = world
            .post(&format!("/v1/executions/{id}:cancel"), json!({}))
            .await;
        assert_eq!(cancelled.expect(200)["status"], "cancelled");
        assert_eq!(world.drain(name).await, "nothing");
        world.enqueue(name, json!(2)).await;
        assert_eq!(world.drain(name).await, "success", "the one slot is free");
    }
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn no_2_a_function_that_cannot_be_run_ends_as_error() {
    for kind in KINDS {
        let world = kind.failing(json!({"maxRetries": 1})).await;
        let id = world.enqueue("f", json!("x")).await;
        assert_eq!(world.drain("f").await, "error", "{kind:?}");
        kind.check_failed(&world.execution(&id).await);
    }
}

#[tokio::test]
async fn no_3_what_the_function_answers_is_the_output() {
    let service = Service::answering(|_| Reply::ok(&json!({"ok": "pool"}))).await;
    let world = World::new()
        .pool("pool", &service.url)
        .function("wasm", echo())
        .await;
    for name in ["pool", "wasm"] {
        let id = world.enqueue(name, json!({"ok": name})).await;
        assert_eq!(world.drain(name).await, "success");
        let execution = world.execution(&id).await;
        assert_eq!(execution["output"]["ok"], name);
        assert_eq!(execution["attempts"], 1);
        assert!(execution["error"].is_null());
    }
}

#[tokio::test]
async fn no_4_a_retry_is_no_answer() {
    for kind in KINDS {
        let world = kind.failing(json!({"maxRetries": 3})).await;
        let id = world.enqueue("f", json!("x")).await;
        assert_eq!(world.drain("f").await, "queued", "{kind:?}");
        let execution = world.execution(&id).await;
        assert_eq!(execution["attempts"], 1);
        assert!(execution["finishedAt"].is_null());
        // Who waits goes on waiting.
        let mut call = pin!(world.call("f", &[], json!("x")));
        assert!(call.as_mut().now_or_never().is_none());
        // The one of the enqueue stands behind the new call: ready work comes first.
        assert_eq!(world.drain("f").await, "queued");
        assert!(call.as_mut().now_or_never().is_none());
    }
}

#[tokio::test]
async fn no_5_the_last_attempt_is_the_answer() {
    for kind in KINDS {
        let world = kind.failing(json!({"maxRetries": 3})).await;
        let mut call = pin!(world.call("f", &[], json!("x")));
        assert!(call.as_mut().now_or_never().is_none());
        for status in ["queued", "queued", "error"] {
            assert_eq!(world.drain("f").await, status, "{kind:?}");
        }
        let answer = within("the answer", call).await;
        let id = answer.id();
        kind.check_failed(&answer.expect(200));
        let execution = world.execution(&id).await;
        kind.check_failed(&execution);
        assert_eq!(execution["attempts"], 3);
        assert_eq!(world.drain("f").await, "nothing");
    }
}

#[tokio::test]
async fn no_6_success_is_an_answer_at_once() {
    let service = Service::answering(|seen| Reply::ok(&seen.body["input"])).await;
    let world = World::new()
        .echo("local")
        .pool("pool", &service.url)
        .function("wasm", echo())
        .await;
    for name in ["local", "pool", "wasm"] {
        let id = world.enqueue(name, json!({"n": 1})).await;
        assert_eq!(world.drain(name).await, "success");
        let execution = world.execution(&id).await;
        assert_eq!(execution["output"], json!({"n": 1}));
        let answer = world.invoke(name, json!({"n": 2})).await;
        let body = answer.expect(200);
        assert_eq!(
            (&body["status"], &body["output"]["n"]),
            (&json!("success"), &json!(2))
        );
    }
}

#[tokio::test]
async fn no_7_a_retry_keeps_the_id() {
    for kind in KINDS {
        let world = kind.failing(json!({"maxRetries": 2})).await;
        let id = world.enqueue("f", json!("x")).await;
        for status in ["queued", "error"] {
            let answer = world.drain_answer("f", json!({})).await;
            assert_eq!(
                (&answer["executionId"], &answer["status"]),
                (&json!(id), &json!(status))
            );
        }
        assert_eq!(world.executions_of("f").await.len(), 1, "{kind:?}");
        let attempts = world.attempts(&id).await;
        let numbers: Vec<_> = attempts.iter().map(|attempt| &attempt["attempt"]).collect();
        assert_eq!(numbers, [1, 2]);
    }
}

#[tokio::test]
async fn no_8_a_key_finds_its_execution_during_a_retry_and_makes_no_second_one() {
    let service = Service::answering(|_| Reply::failure(500, "DOWN", "down")).await;
    let key = [("idempotency-key", "order-7")];
    for kind in KINDS {
        let builder = match kind {
            Kind::Pool => World::new()
                .pool("f", &service.url)
                .spec(json!({"maxRetries": 2})),
            Kind::Wasm => kind.failing(json!({"maxRetries": 2})),
        };
        let world = builder.await;
        let first = world.enqueue_with("f", &key, json!("x")).await.id();
        assert_eq!(world.drain("f").await, "queued");
        let again = world.enqueue_with("f", &key, json!("x")).await;
        assert_eq!(again.id(), first, "{kind:?}");
        assert_eq!(again.expect(202)["status"], "queued");
        assert_eq!(world.drain("f").await, "error");
        assert_eq!(world.drain("f").await, "nothing", "one execution, not two");
    }
    let seen = service.seen();
    assert_eq!(seen.len(), 2);
    // The same order by its key and its id, told apart by the claim's number, which grows.
    assert!(
        seen.iter()
            .all(|call| call.header("idempotency-key") == "order-7")
    );
    assert_eq!(
        seen[0].header("x-execution-id"),
        seen[1].header("x-execution-id")
    );
    let claims: Vec<u64> = seen
        .iter()
        .map(|call| call.header("x-dispatch-attempt").parse().unwrap())
        .collect();
    assert!(claims[0] < claims[1], "{claims:?}");
}

/// nanofaas ends an execution whose retry finds the queue full. Here a retry goes back beyond `queueSize`,
/// and the last attempt's failure is the function's own.
#[tokio::test]
async fn no_9_and_12_a_full_queue_refuses_new_work_and_never_a_retry() {
    for kind in KINDS {
        let spec = json!({"queueSize": 1, "maxRetries": 2});
        let (builder, _service) = kind.hanging("f", World::new()).await;
        let world = builder.spec(spec).await;
        let first = world.enqueue("f", json!("first")).await;
        let drained = async {
            let answer = world.drain_answer("f", json!({})).await;
            assert_eq!(answer["status"], "queued", "{kind:?}: the retry waits");
        };
        let meanwhile = async {
            world.reached(&first, "running").await;
            let second = world.enqueue("f", json!("second")).await;
            fail_from_outside(&world, &first, "WAREHOUSE_BUSY").await;
            second
        };
        let ((), second) = tokio::join!(drained, meanwhile);
        let refused = world.enqueue_with("f", &[], json!("third")).await;
        refused.refused(429, "QUEUE_FULL");
        assert_eq!(world.status(&first).await, "queued");
        assert_eq!(world.status(&second).await, "queued");
        assert_eq!(
            world.executions_of("f").await.len(),
            2,
            "no trace of the third"
        );
        // The last attempt of the first one, with the other out of its way.
        let path = format!("/v1/executions/{second}:cancel");
        world.post(&path, json!({})).await.expect(200);
        let ended = async {
            world.reached(&first, "running").await;
            fail_from_outside(&world, &first, "STILL_BUSY").await;
        };
        tokio::join!(world.drain_answer("f", json!({})), ended);
        let execution = world.execution(&first).await;
        assert_eq!(execution["status"], "error", "{execution}");
        assert_eq!(
            execution["error"],
            json!({"code": "STILL_BUSY", "message": "as it was said"})
        );
        assert_eq!(execution["attempts"], 2);
    }
}

#[tokio::test]
async fn no_9_one_attempt_that_fails_is_an_error_with_its_cause_however_full_the_queue() {
    for kind in KINDS {
        let world = kind.failing(json!({"queueSize": 2, "maxRetries": 1})).await;
        let first = world.enqueue("f", json!(1)).await;
        world.enqueue("f", json!(2)).await;
        world
            .enqueue_with("f", &[], json!(3))
            .await
            .refused(429, "QUEUE_FULL");
        assert_eq!(world.drain("f").await, "error");
        kind.check_failed(&world.execution(&first).await);
    }
}

#[tokio::test]
async fn no_10_and_11_a_timeout_is_final_and_a_late_result_changes_nothing() {
    for kind in KINDS {
        let (builder, service) = kind.hanging("f", World::new().background()).await;
        let world = builder.spec(json!({"timeoutMs": 10})).await;
        let answer = world
            .invoke_with("f", &[("x-timeout-ms", "10")], json!("x"))
            .await;
        let id = answer.id();
        let body = answer.expect(200);
        assert_eq!(body["status"], "timeout", "{kind:?}: {body}");
        let before = world.execution(&id).await;
        assert_eq!(before["status"], "timeout");
        assert_eq!(before["error"]["code"], body["error"]["code"]);
        let late = json!({"status": "success", "output": {"late": true}});
        let path = format!("/v1/internal/executions/{id}:complete");
        world.post(&path, late).await.expect(204);
        let late = json!({"success": false, "error": {"code": "LATE", "message": "late"}});
        world.post(&path, late).await.expect(204);
        let after = world.execution(&id).await;
        assert_eq!(after, before, "{kind:?}");
        assert!(after["output"].is_null());
        // The one that answers late in earnest: it was hung up on.
        if let Some(service) = service {
            service.release(1);
            service.idle().await;
            assert_eq!(world.execution(&id).await, before);
        }
    }
}

#[tokio::test]
async fn no_12_the_last_retry_ends_with_the_original_error() {
    for kind in KINDS {
        let world = kind.failing(json!({"maxRetries": 2})).await;
        let id = world.enqueue("f", json!("x")).await;
        assert_eq!(world.drain("f").await, "queued");
        assert_eq!(world.drain("f").await, "error");
        kind.check_failed(&world.execution(&id).await);
        let (code, _) = kind.failure();
        for attempt in world.attempts(&id).await {
            assert_eq!(
                (&attempt["outcome"], &attempt["error"]["code"]),
                (&json!("retry"), &json!(code))
            );
        }
    }
}

/// The report that a runtime sends of an attempt that failed.
async fn fail_from_outside(world: &World, id: &str, code: &str) {
    let failed = json!({"success": false, "error": {"code": code, "message": "as it was said"}});
    let path = format!("/v1/internal/executions/{id}:complete");
    world.post(&path, failed).await.expect(204);
}
