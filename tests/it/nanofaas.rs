//! What else nanofaas's suites ask of a plane, as far as it is behaviour that a client can see: queues,
//! keys, waiting callers, reports from outside, deleted functions, what a runtime is sent.
//!
//! Where its parts disagree with each other, the design decides; such a place says so.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::guests;
use crate::support::programs::{exits, program};
use crate::support::service::{Reply, Seen, Service, UNREACHABLE};
use crate::support::world::{Answer, World, within};

const KEY: [(&str, &str); 1] = [("idempotency-key", "order-7")];

/// A service that answers what it was given.
async fn echoing() -> Service {
    Service::answering(|seen| Reply::ok(&seen.body["input"])).await
}

async fn complete(world: &World, id: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let path = format!("/v1/internal/executions/{id}:complete");
    world.post_with(&path, headers, body).await
}

// The scheduler.

#[tokio::test]
async fn after_an_error_the_slot_is_free() {
    let world = World::new()
        .function("f", exits(65, "no"))
        .spec(json!({"concurrency": 1}))
        .await;
    for _ in 0..3 {
        world.enqueue("f", json!(1)).await;
        assert_eq!(world.drain("f").await, "error");
    }
}

#[tokio::test]
async fn a_function_without_a_free_slot_holds_up_nobody_else() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .background()
        .pool("blocked", &service.url)
        .spec(json!({"concurrency": 1}))
        .echo("ready")
        .await;
    for n in 0..100 {
        world.enqueue("blocked", json!(n)).await;
    }
    service.arrived(1).await;
    for n in 0..20 {
        let answer = world.invoke("ready", json!(n)).await.expect(200);
        assert_eq!(answer["status"], "success");
    }
    assert_eq!(service.seen().len(), 1);
    service.release(100);
    service.arrived(100).await;
}

#[tokio::test]
async fn a_drain_without_a_free_slot_says_busy() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    world.enqueue("f", json!(1)).await;
    world.enqueue("f", json!(2)).await;
    let meanwhile = async {
        service.arrived(1).await;
        let busy = world.drain_answer("f", json!({})).await;
        assert_eq!(
            (&busy["dispatched"], &busy["reason"]),
            (&json!(false), &json!("BUSY"))
        );
        service.release(2);
    };
    let (drained, ()) = tokio::join!(world.drain_answer("f", json!({})), meanwhile);
    assert_eq!(drained["status"], "success");
    assert_eq!(world.drain("f").await, "success");
}

#[tokio::test]
async fn work_is_dispatched_in_the_order_it_came() {
    let service = echoing().await;
    let world = World::new().pool("f", &service.url).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(world.enqueue("f", json!(n)).await);
    }
    let drained = world.drain_answer("f", json!({"limit": 5})).await;
    assert_eq!(drained["count"], 5);
    let items = drained["items"].as_array().unwrap();
    let order: Vec<_> = items
        .iter()
        .map(|item| item["executionId"].clone())
        .collect();
    assert_eq!(order, ids);
    let inputs: Vec<_> = service
        .seen()
        .iter()
        .map(|call| call.body["input"].clone())
        .collect();
    assert_eq!(inputs, [0, 1, 2, 3, 4]);
}

// Queues that are full.

/// nanofaas answers 429 with an empty body; here it has one, as every refusal has.
#[tokio::test]
async fn a_full_queue_refuses_and_leaves_no_trace() {
    let world = World::new().echo("f").spec(json!({"queueSize": 1})).await;
    let first = world.enqueue("f", json!(1)).await;
    let refused = [
        world.enqueue_with("f", &KEY, json!(2)).await,
        world.call("f", &[], json!(2)).await,
        world.call("f", &KEY, json!(2)).await,
    ];
    for answer in refused {
        let message = answer.refused(429, "QUEUE_FULL");
        assert!(message.contains("f is full (1 waiting)"), "{message}");
        assert_eq!(answer.header("x-queue-reject-reason"), "depth");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
        assert_eq!(answer.header("x-execution-id"), "");
    }
    assert_eq!(world.executions_of("f").await.len(), 1);
    assert_eq!(world.status(&first).await, "queued");
    let rejected = "function_queue_rejected_total{function=\"f\",reason=\"depth\"}";
    assert_eq!(world.metric(rejected).await, Some(3.0));
    assert_eq!(world.drain("f").await, "success");
    // The key of the refused call is free, for another body too.
    let again = world.enqueue_with("f", &KEY, json!("another")).await;
    assert_ne!(again.id(), first);
    again.expect(202);
}

#[tokio::test]
async fn what_runs_takes_no_place_in_the_queue() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"queueSize": 1, "concurrency": 1}))
        .await;
    let first = world.enqueue("f", json!(1)).await;
    service.arrived(1).await;
    let second = world.enqueue("f", json!(2)).await;
    world
        .enqueue_with("f", &[], json!(3))
        .await
        .refused(429, "QUEUE_FULL");
    service.release(2);
    for id in [first, second] {
        assert_eq!(world.ended(&id).await["status"], "success");
    }
}

// Callers who wait.

#[tokio::test]
async fn synchronous_calls_keep_to_the_concurrency() {
    let service = echoing().await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    let answers = join_all((0..8).map(|n| world.invoke("f", json!(n)))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.expect(200)["output"], n);
    }
    assert_eq!(service.most_at_once(), 1);
    let enqueued = "function_enqueue_total{function=\"f\"}";
    assert_eq!(world.metric(enqueued).await, Some(8.0));
}

#[tokio::test]
async fn a_caller_waits_through_the_retries() {
    let world = World::new()
        .background()
        .pool("f", UNREACHABLE)
        .spec(json!({"maxRetries": 3, "retryBackoff": {"baseDelayMs": 0}}))
        .await;
    let answer = world.invoke("f", json!(1)).await;
    let id = answer.id();
    let body = answer.expect(200);
    assert_eq!(
        (&body["status"], &body["error"]["code"]),
        (&json!("error"), &json!("POOL_ERROR"))
    );
    assert_eq!(world.execution(&id).await["attempts"], 3);
    let retried = "function_retry_total{function=\"f\"}";
    assert_eq!(world.metric(retried).await, Some(2.0));
}

#[tokio::test]
async fn a_call_that_times_out_in_the_queue_is_never_dispatched() {
    let service = echoing().await;
    let world = World::new().pool("f", &service.url).await;
    let answer = world.call("f", &[("x-timeout-ms", "5")], json!(1)).await;
    let id = answer.id();
    let body = answer.expect(200);
    assert_eq!(body["status"], "timeout");
    assert!(body["output"].is_null());
    assert_eq!(world.drain("f").await, "nothing");
    assert_eq!(world.execution(&id).await["attempts"], 0);
    assert!(service.seen().is_empty());
    let timed_out = "function_timeout_total{function=\"f\"}";
    assert_eq!(world.metric(timed_out).await, Some(1.0));
}

/// nanofaas lets the runtime work on and keeps the slot; here the caller's time is the attempt's too.
#[tokio::test]
async fn a_timeout_frees_the_slot_at_once() {
    let service = Service::held(|_| Reply::ok(&json!("late"))).await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    let answer = world
        .invoke_with("f", &[("x-timeout-ms", "20")], json!(1))
        .await;
    assert_eq!(answer.expect(200)["status"], "timeout");
    service.idle().await;
    let second = world.enqueue("f", json!(2)).await;
    service.asked(&json!(2)).await;
    service.release(2);
    assert_eq!(world.ended(&second).await["status"], "success");
}

/// nanofaas lets it run on; who gave a key wants it to.
#[tokio::test]
async fn a_caller_who_hangs_up_stops_the_call_unless_it_has_a_key() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new().background().pool("f", &service.url).await;
    let (plain, kept) = (json!("plain"), json!("with a key"));
    tokio::select! {
        answer = world.call("f", &[], plain.clone()) => panic!("{answer:?}"),
        _ = service.asked(&plain) => {}
    }
    service.idle().await;
    let id = service.seen()[0].header("x-execution-id").to_owned();
    let execution = world.ended(&id).await;
    assert_eq!(
        (&execution["status"], &execution["error"]["code"]),
        (&json!("timeout"), &json!("CALLER_GONE"))
    );
    tokio::select! {
        answer = world.call("f", &KEY, kept.clone()) => panic!("{answer:?}"),
        _ = service.asked(&kept) => {}
    }
    service.release(2);
    let replay = world.call("f", &KEY, kept.clone()).await;
    assert_eq!(replay.expect(200)["output"], "done");
    assert_eq!(service.seen().len(), 2);
}

// Keys.

#[tokio::test]
async fn many_calls_with_one_key_are_one_execution_on_one_thread() {
    many_calls_with_one_key().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_with_one_key_are_one_execution_on_four_threads() {
    many_calls_with_one_key().await;
}

async fn many_calls_with_one_key() {
    let service = echoing().await;
    let world = World::new().background().pool("f", &service.url).await;
    let answers = join_all((0..32).map(|_| world.invoke_with("f", &KEY, json!("x")))).await;
    let ids: BTreeSet<_> = answers.iter().map(Answer::id).collect();
    assert_eq!(ids.len(), 1);
    for answer in answers {
        assert_eq!(answer.expect(200)["output"], "x");
    }
    assert_eq!(service.seen().len(), 1);
    assert_eq!(world.executions_of("f").await.len(), 1);
}

/// nanofaas's Rust port answers `running` at once.
#[tokio::test]
async fn a_replay_of_a_running_call_waits_for_it() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new().background().pool("f", &service.url).await;
    let mut first = pin!(world.call("f", &KEY, json!("x")));
    assert!(first.as_mut().now_or_never().is_none());
    tokio::select! {
        answer = &mut first => panic!("{answer:?}"),
        _ = service.arrived(1) => {}
    }
    let mut replay = pin!(world.call("f", &KEY, json!("x")));
    // One that gives up early is told how it stands, and harms nobody.
    let impatient = [KEY[0], ("x-timeout-ms", "10")];
    tokio::select! {
        answer = &mut first => panic!("{answer:?}"),
        answer = &mut replay => panic!("{answer:?}"),
        answer = world.call("f", &impatient, json!("x")) => {
            let id = answer.id();
            assert_eq!(answer.expect(200)["status"], "running");
            assert_eq!(world.status(&id).await, "running");
        }
    }
    service.release(1);
    let (first, replay) = within("both", async { tokio::join!(first, replay) }).await;
    assert_eq!(first.id(), replay.id());
    assert_eq!(first.expect(200)["output"], "done");
    assert_eq!(replay.expect(200)["output"], "done");
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn a_key_is_shared_by_both_ways_to_call_and_answers_with_the_stored_result() {
    let service = echoing().await;
    let world = World::new().pool("f", &service.url).await;
    let first = world.enqueue_with("f", &KEY, json!("x")).await.id();
    assert_eq!(world.drain("f").await, "success");
    let invoked = world.call("f", &KEY, json!("x")).await;
    assert_eq!(invoked.id(), first);
    assert_eq!(invoked.expect(200)["output"], "x");
    let enqueued = world.enqueue_with("f", &KEY, json!("x")).await;
    assert_eq!(enqueued.id(), first);
    assert_eq!(enqueued.expect(202)["status"], "success");
    assert_eq!(service.seen().len(), 1);
}

/// nanofaas answers with the first result, whatever the second body says.
#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let world = World::new().echo("f").await;
    let first = world.enqueue_with("f", &KEY, json!("x")).await.id();
    for (path, body) in [
        ("/v1/functions/f:enqueue", json!({"input": "y"})),
        ("/v1/functions/f:invoke", json!({"input": "y"})),
        (
            "/v1/functions/f:enqueue",
            json!({"input": "x", "metadata": {"a": "b"}}),
        ),
    ] {
        let answer = world.post_with(path, &KEY, body).await;
        answer.refused(422, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(answer.header("x-execution-id"), first);
    }
}

#[tokio::test]
async fn a_key_belongs_to_its_function_and_goes_with_it() {
    let world = World::new().echo("f").echo("g").await;
    let f = world.enqueue_with("f", &KEY, json!("x")).await.id();
    let g = world.enqueue_with("g", &KEY, json!("x")).await.id();
    assert_ne!(f, g);
    world.delete("/v1/functions/f").await.expect(204);
    let spec = json!({"name": "f", "image": "builtin:echo"});
    world.post("/v1/functions", spec).await.expect(201);
    let anew = world.enqueue_with("f", &KEY, json!("x")).await.id();
    assert_ne!(f, anew);
    assert_eq!(world.enqueue_with("g", &KEY, json!("x")).await.id(), g);
}

#[tokio::test]
async fn a_key_lives_for_a_day() {
    let world = World::new().echo("f").await;
    let first = world.enqueue_with("f", &KEY, json!("x")).await.id();
    assert_eq!(world.drain("f").await, "success");
    world.plane.advance(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(world.enqueue_with("f", &KEY, json!("x")).await.id(), first);
    world.plane.advance(Duration::from_secs(2));
    let later = world.enqueue_with("f", &KEY, json!("x")).await.id();
    assert_ne!(later, first);
    assert_eq!(world.enqueue_with("f", &KEY, json!("x")).await.id(), later);
}

#[tokio::test]
async fn a_blank_key_is_none() {
    let world = World::new().echo("f").await;
    let blank = [("idempotency-key", "  ")];
    let first = world.enqueue_with("f", &blank, json!("x")).await.id();
    assert_ne!(
        world.enqueue_with("f", &blank, json!("x")).await.id(),
        first
    );
}

// Reports from outside.

#[tokio::test]
async fn a_queued_execution_may_be_completed_and_is_not_dispatched_afterwards() {
    let service = echoing().await;
    let world = World::new().pool("f", &service.url).await;
    let id = world.enqueue("f", json!(1)).await;
    let forced = json!({"status": "error", "output": {"message": "forced"}});
    complete(&world, &id, &[], forced).await.expect(204);
    let execution = world.execution(&id).await;
    assert_eq!(execution["status"], "error");
    assert_eq!(execution["output"], json!({"message": "forced"}));
    assert_eq!(
        execution["error"],
        json!({"code": "ERROR", "message": "unknown"})
    );
    assert_eq!(world.drain("f").await, "nothing");
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_report_ends_a_running_call_and_stops_its_runtime() {
    let service = Service::held(|_| Reply::ok(&json!("late"))).await;
    let world = World::new().background().pool("f", &service.url).await;
    let report = async {
        let id = service.arrived(1).await.header("x-execution-id").to_owned();
        let done = json!({"success": true, "output": {"from": "outside"}, "error": null});
        complete(&world, &id, &[], done).await.expect(204);
        service.idle().await;
    };
    let (answer, ()) = tokio::join!(world.invoke("f", json!(1)), report);
    let id = answer.id();
    let body = answer.expect(200);
    assert_eq!(
        (&body["status"], &body["output"]["from"]),
        (&json!("success"), &json!("outside"))
    );
    // A second one comes too late.
    complete(&world, &id, &[], json!({"status": "error"}))
        .await
        .expect(204);
    assert_eq!(world.status(&id).await, "success");
}

#[tokio::test]
async fn a_report_for_an_older_claim_is_ignored() {
    let service = Service::held(|seen| match seen.number {
        1 => Reply::failure(500, "DOWN", "down"),
        _ => Reply::ok(&json!("late")),
    })
    .await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"retryBackoff": {"baseDelayMs": 0}}))
        .await;
    let id = world.enqueue("f", json!(1)).await;
    service.release(1);
    let (first, second) = (service.arrived(1).await, service.arrived(2).await);
    let claim = |call: &Seen| call.header("x-dispatch-attempt").to_owned();
    let (old, new) = (claim(&first), claim(&second));
    assert_ne!(old, new);
    let done = json!({"status": "success", "output": "by report"});
    let report = async |claim: &str| {
        let headers = [("x-dispatch-attempt", claim)];
        complete(&world, &id, &headers, done.clone())
            .await
            .expect(204);
    };
    report(&old).await;
    assert_eq!(world.status(&id).await, "running");
    report(&new).await;
    let execution = world.execution(&id).await;
    assert_eq!(
        (&execution["status"], &execution["output"]),
        (&json!("success"), &json!("by report"))
    );
    assert_eq!(execution["attempts"], 2);
}

#[tokio::test]
async fn a_reported_failure_follows_the_policy_and_a_reported_error_is_final() {
    let world = World::new().echo("f").spec(json!({"maxRetries": 2})).await;
    let id = world.enqueue("f", json!(1)).await;
    let failed = json!({"success": false, "error": {"code": "HANDLER_ERROR", "message": "x"}});
    complete(&world, &id, &[], failed).await.expect(204);
    assert_eq!(world.status(&id).await, "queued");
    assert_eq!(world.drain("f").await, "success");
    let id = world.enqueue("f", json!(1)).await;
    let error = json!({"status": "ERROR", "error": {"code": "HANDLER_ERROR", "message": "x"}});
    complete(&world, &id, &[], error).await.expect(204);
    let execution = world.execution(&id).await;
    assert_eq!(
        (&execution["status"], &execution["error"]["code"]),
        (&json!("error"), &json!("HANDLER_ERROR"))
    );
}

#[tokio::test]
async fn reports_that_say_nothing_are_refused() {
    let world = World::new().echo("f").await;
    let id = world.enqueue("f", json!(1)).await;
    for body in [
        json!({}),
        json!({"status": "running"}),
        json!({"status": "queued"}),
        json!({"status": "done"}),
        json!({"status": "success", "success": true}),
    ] {
        complete(&world, &id, &[], body)
            .await
            .refused(400, "VALIDATION_ERROR");
    }
    assert_eq!(world.status(&id).await, "queued");
    for unknown in ["no-id", "01890000-0000-7000-8000-000000000000"] {
        let answer = complete(&world, unknown, &[], json!({"success": true})).await;
        assert!(answer.refused(404, "EXECUTION_NOT_FOUND").contains(unknown));
    }
}

// Functions: routing, deletion, validation.

#[tokio::test]
async fn a_mode_says_where_a_function_runs() {
    let service = Service::answering(|_| Reply::ok(&json!("from the pool"))).await;
    let url = service.url.as_str();
    let world = World::new().await;
    for (spec, effective, output) in [
        (json!({"image": "builtin:echo"}), "LOCAL", json!(1)),
        (
            json!({"image": "builtin:echo", "executionMode": "LOCAL"}),
            "LOCAL",
            json!(1),
        ),
        (json!({"endpointUrl": url}), "POOL", json!("from the pool")),
        (
            json!({"image": "x:1", "endpointUrl": url, "executionMode": "POOL"}),
            "POOL",
            json!("from the pool"),
        ),
        (
            json!({"image": "x:1", "endpointUrl": url, "executionMode": "DEPLOYMENT"}),
            "POOL",
            json!("from the pool"),
        ),
        // Explicit nulls, as nanofaas's CLI sends them.
        (
            json!({"image": "x:1", "endpointUrl": url, "executionMode": null, "runtimeMode": null, "env": null}),
            "POOL",
            json!("from the pool"),
        ),
        // Words that nanofaas's Rust port reacts to.
        (
            json!({"image": "rate-limited queue-full async-unavailable", "endpointUrl": url}),
            "POOL",
            json!("from the pool"),
        ),
    ] {
        let mut body = spec.clone();
        body["name"] = json!("f");
        let created = world.post("/v1/functions", body).await.expect(201);
        assert_eq!(created["effectiveExecutionMode"], effective, "{spec}");
        let answer = world.invoke("f", json!(1)).await.expect(200);
        assert_eq!(answer["output"], output, "{spec}");
        world.delete("/v1/functions/f").await.expect(204);
    }
    let deployment = json!({"name": "f", "image": "x:1", "executionMode": "DEPLOYMENT"});
    let refused = world.post("/v1/functions", deployment).await;
    refused.refused(422, "NO_PROVIDER");
    let unknown = json!({"name": "f", "image": "x:1", "executionMode": "LOCAL"});
    let refused = world.post("/v1/functions", unknown).await;
    assert!(
        refused
            .refused(422, "IMAGE_NOT_FOUND")
            .contains("upload the wasm")
    );
    world
        .get("/v1/functions/f")
        .await
        .refused(404, "FUNCTION_NOT_FOUND");
}

/// nanofaas's Rust port leaves them `queued`, and their callers waiting.
#[tokio::test]
async fn deleting_a_function_ends_its_queue_and_wakes_its_callers() {
    let world = World::new().echo("f").await;
    let id = world.enqueue("f", json!(1)).await;
    let mut call = pin!(world.call("f", &[], json!(2)));
    assert!(call.as_mut().now_or_never().is_none());
    world.delete("/v1/functions/f").await.expect(204);
    let body = within("the answer", call).await.expect(200);
    assert_eq!(
        (&body["status"], &body["error"]["code"]),
        (&json!("error"), &json!("FUNCTION_REMOVED"))
    );
    let execution = world.execution(&id).await;
    assert_eq!(
        (&execution["status"], &execution["error"]["code"]),
        (&json!("error"), &json!("FUNCTION_REMOVED"))
    );
    // A new one of the name starts with an empty queue.
    let spec = json!({"name": "f", "image": "builtin:echo"});
    world.post("/v1/functions", spec).await.expect(201);
    assert_eq!(world.drain("f").await, "nothing");
}

#[tokio::test]
async fn an_attempt_that_fails_after_its_function_was_deleted_is_not_repeated() {
    let service = Service::held(|_| Reply::failure(500, "DOWN", "it is down")).await;
    let world = World::new().background().pool("f", &service.url).await;
    let id = world.enqueue("f", json!(1)).await;
    service.arrived(1).await;
    world.delete("/v1/functions/f").await.expect(204);
    service.release(1);
    let execution = world.ended(&id).await;
    assert_eq!(execution["status"], "error");
    let failure = json!({"code": "DOWN", "message": "it is down"});
    assert_eq!(
        execution["error"], failure,
        "what the function said is kept"
    );
}

#[tokio::test]
async fn validation_comes_before_the_function_and_names_every_field() {
    let world = World::new().await;
    let create = |body: Value| {
        let world = &world;
        async move { world.post("/v1/functions", body).await }
    };
    let blank = create(json!({"name": " ", "image": "builtin:echo"})).await;
    assert!(blank.refused(400, "VALIDATION_ERROR").contains("name"));
    let imageless = create(json!({"name": "f", "image": null})).await;
    assert!(imageless.refused(400, "VALIDATION_ERROR").contains("image"));
    let zero = create(json!({"name": "f", "image": "builtin:echo", "concurrency": 0})).await;
    assert!(
        zero.refused(400, "VALIDATION_ERROR")
            .contains("concurrency")
    );
    let several = create(json!({"name": "", "concurrency": 0, "maxRetries": -5})).await;
    let text = several.refused(400, "VALIDATION_ERROR");
    for field in ["name", "image", "concurrency", "maxRetries"] {
        assert!(text.contains(field), "{field}: {text}");
    }
    assert_eq!(
        several.json["details"].as_array().unwrap().len(),
        4,
        "{text}"
    );
    create(json!({"name": "f", "image": "builtin:echo"}))
        .await
        .expect(201);
    create(json!({"name": "f", "image": "builtin:echo"}))
        .await
        .refused(409, "NAME_TAKEN");
    let null = world.call("unknown", &[], json!(null)).await;
    assert!(null.refused(400, "VALIDATION_ERROR").contains("input"));
    let unknown = world.call("unknown", &[], json!(1)).await;
    assert!(
        unknown
            .refused(404, "FUNCTION_NOT_FOUND")
            .contains("\"unknown\"")
    );
}

// What a runtime is sent.

/// nanofaas's Rust port loses trace, key and metadata on the way through the queue.
#[tokio::test]
async fn a_runtime_gets_everything_that_the_caller_said() {
    let service = Service::answering(|seen| {
        let reply = Reply::ok(&seen.body);
        reply
            .header("x-cold-start", "TRUE")
            .header("x-init-duration-ms", "250")
    })
    .await;
    let world = World::new().pool("f", &service.url).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("idempotency-key", "order-7"),
        ("x-trace-id", "trace-1"),
        ("traceparent", traceparent),
    ];
    let body = json!({"input": {"n": 1}, "metadata": {"tenant": "a", "team": "b"}});
    let queued = world.post_with("/v1/functions/f:enqueue", &headers, body.clone());
    queued.await.expect(202);
    assert_eq!(world.drain("f").await, "success");
    let called = world.post_with("/v1/functions/f:invoke", &headers, body.clone());
    called.await.expect(200);
    let seen = service.seen();
    assert_eq!(seen.len(), 1, "the key made the two one");
    assert_eq!(seen[0].body, body);
    for (name, value) in headers {
        assert_eq!(seen[0].header(name), value);
    }
    let id = seen[0].header("x-execution-id");
    let execution = world.execution(id).await;
    assert_eq!(execution["traceId"], "trace-1");
    assert_eq!(
        (&execution["coldStart"], &execution["initDurationMs"]),
        (&json!(true), &json!(250))
    );
    assert_eq!(seen[0].header("content-type"), "application/json");
    assert!(seen[0].header("x-dispatch-attempt").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn a_guest_finds_what_it_is_in_its_environment() {
    // Writes its whole environment to standard output.
    let wat = r#"(module
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (drop (call $sizes (i32.const 0) (i32.const 4)))
            (drop (call $get (i32.const 4096) (i32.const 8192)))
            (i32.store (i32.const 16) (i32.const 8192))
            (i32.store (i32.const 20) (i32.load (i32.const 4)))
            (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"#;
    let world = World::new()
        .function("env", wat::parse_str(wat).unwrap())
        .spec(json!({"env": {"MODE": "test"}}))
        .await;
    let answer = world
        .invoke_with("env", &[("x-trace-id", "trace-1")], json!(1))
        .await;
    let id = answer.id();
    let output = answer.expect(200)["output"].as_str().unwrap().to_owned();
    let variables: BTreeSet<_> = output.split_terminator('\0').collect();
    let execution = format!("EXECUTION_ID={id}");
    let expected = [
        "ATTEMPT=1",
        &execution,
        "FUNCTION_NAME=env",
        "MODE=test",
        "TRACE_ID=trace-1",
    ];
    assert_eq!(variables, BTreeSet::from(expected));
}

#[tokio::test]
async fn an_execution_runs_the_version_it_was_accepted_for() {
    let world = World::new().function("f", exits(65, "old")).await;
    let old = world.enqueue("f", json!(1)).await;
    world.upload("f", guests::wasm("echo")).await.expect(200);
    let new = world.enqueue("f", json!(2)).await;
    assert_eq!(world.drain("f").await, "error");
    assert_eq!(world.drain("f").await, "success");
    assert_eq!(world.execution(&old).await["version"], 1);
    assert_eq!(world.execution(&new).await["version"], 2);
    world.upload("f", program("")).await.expect(200);
    let back = world
        .post("/v1/functions/f:rollback", json!({"version": 2}))
        .await;
    assert_eq!(back.expect(200)["version"], 2);
    assert_eq!(world.invoke("f", json!(3)).await.expect(200)["output"], 3);
}
