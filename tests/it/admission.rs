//! Admission over HTTP: who is refused, with which reason, and when to come back.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;
use serde_json::{Value, json};

use crate::support::service::{Reply, Service};
use crate::support::world::{Answer, World, within};

/// A service that answers `answers` calls at once and holds all others.
async fn held_after(answers: usize) -> Service {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    service.release(answers);
    service
}

async fn configure(world: &World, settings: Value) {
    let revision = world.get("/v1/admin/runtime-config").await.expect(200)["revision"].clone();
    let mut body = settings;
    body["expectedRevision"] = revision;
    let path = "/v1/admin/runtime-config";
    world.patch(path, body).await.expect(200);
}

/// Waits until a series has this value.
async fn reaches(world: &World, series: &str, value: f64) {
    within(series, async {
        while world.metric(series).await != Some(value) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until so many callers of a function wait.
async fn waiting(world: &World, name: &str, callers: f64) {
    let series = format!("sync_queue_depth{{function=\"{name}\"}}");
    reaches(world, &series, callers).await;
}

/// Waits until so many attempts of a function run.
async fn running(world: &World, name: &str, attempts: f64) {
    let series = format!("function_inFlight{{function=\"{name}\"}}");
    reaches(world, &series, attempts).await;
}

#[track_caller]
fn refused(answer: &Answer, code: &str, reason: &str) -> u64 {
    answer.refused(429, code);
    assert_eq!(answer.header("x-queue-reject-reason"), reason);
    answer.header("retry-after").parse().unwrap()
}

/// Calls that nobody answers, until they are dropped or released.
macro_rules! callers {
    ($world:expr, $name:expr, $count:expr) => {{
        let mut calls: Vec<_> = (0..$count)
            .map(|n| Box::pin($world.call($name, &[], json!(n))))
            .collect();
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        calls
    }};
}

#[tokio::test]
async fn a_cold_function_takes_a_burst_of_its_slots_and_its_queue() {
    let service = held_after(0).await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"concurrency": 2, "queueSize": 10}))
        .await;
    let calls = callers!(world, "f", 12);
    service.arrived(2).await;
    waiting(&world, "f", 10.0).await;
    let thirteenth = world.call("f", &[], json!(1)).await;
    assert!(refused(&thirteenth, "QUEUE_FULL", "depth") >= 2);
    service.release(12);
    for answer in join_all(calls).await {
        assert_eq!(answer.expect(200)["status"], "success");
    }
    let admitted = "sync_queue_admitted_total{function=\"f\"}";
    assert_eq!(world.metric(admitted).await, Some(12.0));
    waiting(&world, "f", 0.0).await;
}

#[tokio::test]
async fn who_would_run_out_of_time_in_the_queue_is_refused_at_once() {
    let service = held_after(10).await;
    let world = World::new()
        .background()
        .pool("slow", &service.url)
        .spec(json!({"concurrency": 1}))
        .echo("fast")
        .await;
    for n in 0..10 {
        world.invoke("slow", json!(n)).await.expect(200);
    }
    let calls = callers!(world, "slow", 91);
    service.arrived(11).await;
    waiting(&world, "slow", 90.0).await;
    // Ninety runs over a connection of its own take more than a millisecond.
    let impatient = [("x-timeout-ms", "1")];
    let answer = world.call("slow", &impatient, json!(1)).await;
    assert!(refused(&answer, "QUEUE_TOO_LONG", "est_wait") >= 2);
    assert_eq!(answer.header("x-execution-id"), "");
    configure(&world, json!({"syncQueueRetryAfterSeconds": 7})).await;
    let answer = world.call("slow", &impatient, json!(1)).await;
    assert_eq!(refused(&answer, "QUEUE_TOO_LONG", "est_wait"), 7);
    for (series, value) in [
        (
            "function_queue_rejected_total{function=\"slow\",reason=\"est_wait\"}",
            2.0,
        ),
        (
            "function_queue_rejected_total{function=\"slow\",reason=\"depth\"}",
            0.0,
        ),
        ("sync_queue_rejected_total{function=\"slow\"}", 2.0),
        ("sync_queue_admitted_total{function=\"slow\"}", 101.0),
    ] {
        assert_eq!(world.metric(series).await, Some(value), "{series}");
    }
    // Nobody else suffers for it, and nothing is left of those who were refused.
    let fast = world.invoke("fast", json!(1)).await;
    assert_eq!(fast.expect(200)["status"], "success");
    let taken = world.get("/v1/executions?function=slow&limit=500").await;
    let taken = taken.expect(200)["items"].as_array().unwrap().len();
    assert_eq!(taken, 101);
    // Turned off, it is taken and runs out of time.
    configure(&world, json!({"syncQueueAdmissionEnabled": false})).await;
    let answer = world.call("slow", &impatient, json!(1)).await.expect(200);
    assert_eq!(answer["status"], "timeout");
    drop(calls);
}

#[tokio::test]
async fn the_plane_bounds_its_waiting_callers() {
    let service = held_after(0).await;
    let world = World::new()
        .background()
        .setup(|setup| setup.scheduler.runtime_config.sync_queue_max_depth = 2)
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .pool("g", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    let waiters = callers!(world, "f", 3);
    let first_of_g = callers!(world, "g", 1);
    service.arrived(2).await;
    waiting(&world, "f", 2.0).await;
    let answer = world.call("g", &[], json!(1)).await;
    assert_eq!(refused(&answer, "QUEUE_FULL", "depth"), 2);
    let key = [("idempotency-key", "k")];
    let answer = world.call("g", &key, json!(1)).await;
    assert_eq!(refused(&answer, "QUEUE_FULL", "depth"), 2);
    // What nobody waits for is not meant.
    world.enqueue("g", json!(1)).await;
    service.release(10);
    for answer in join_all(waiters.into_iter().chain(first_of_g)).await {
        assert_eq!(answer.expect(200)["status"], "success");
    }
    let again = world.invoke_with("g", &key, json!(2)).await;
    assert_eq!(again.expect(200)["status"], "success", "its key was kept");
}

#[tokio::test]
async fn replays_count_once_and_take_nothing_with_them() {
    let service = held_after(0).await;
    let world = World::new()
        .background()
        .setup(|setup| setup.scheduler.runtime_config.sync_queue_max_depth = 3)
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    let first = callers!(world, "f", 1);
    service.arrived(1).await;
    let key = [("idempotency-key", "one")];
    let replayed = |n: u32| world.call("f", &key, json!(n / 1_000));
    let mut creator = Box::pin(replayed(0));
    assert!(poll!(&mut creator).is_pending());
    waiting(&world, "f", 1.0).await;
    let mut replays: Vec<_> = (1..20).map(|n| Box::pin(replayed(n))).collect();
    for replay in &mut replays {
        assert!(poll!(replay).is_pending());
    }
    replays.push(creator);
    // Half of them hang up.
    drop(replays.drain(..10));
    let more = callers!(world, "f", 2);
    waiting(&world, "f", 3.0).await;
    let full = world.call("f", &[], json!(1)).await;
    refused(&full, "QUEUE_FULL", "depth");
    service.release(10);
    let mut ids = Vec::new();
    for answer in join_all(replays).await {
        ids.push(answer.id());
        assert_eq!(answer.expect(200)["status"], "success");
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    for answer in join_all(first.into_iter().chain(more)).await {
        assert_eq!(answer.expect(200)["status"], "success");
    }
    waiting(&world, "f", 0.0).await;
    running(&world, "f", 0.0).await;
    assert_eq!(service.most_at_once(), 1);
}

#[tokio::test]
async fn hang_ups_and_deletions_free_their_places() {
    let service = held_after(0).await;
    let world = World::new()
        .background()
        .setup(|setup| setup.scheduler.runtime_config.sync_queue_max_depth = 4)
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    for round in 1..=3 {
        let gone = callers!(world, "f", 5);
        service.arrived(round).await;
        waiting(&world, "f", 4.0).await;
        drop(gone);
        waiting(&world, "f", 0.0).await;
        running(&world, "f", 0.0).await;
        service.idle().await;
    }
    let deleted = callers!(world, "f", 5);
    service.arrived(4).await;
    waiting(&world, "f", 4.0).await;
    world.delete("/v1/functions/f").await.expect(204);
    service.release(1);
    let mut removed = 0;
    for answer in join_all(deleted).await {
        let answer = answer.expect(200);
        removed += usize::from(answer["error"]["code"] == "FUNCTION_REMOVED");
    }
    assert_eq!(removed, 4, "what waited ends, what ran goes on");
    let again = json!({"name": "f", "endpointUrl": service.url, "concurrency": 1});
    world.post("/v1/functions", again).await.expect(201);
    let calls = callers!(world, "f", 5);
    waiting(&world, "f", 4.0).await;
    service.release(5);
    for answer in join_all(calls).await {
        assert_eq!(answer.expect(200)["status"], "success");
    }
}

#[tokio::test]
async fn a_call_that_waits_too_long_is_given_back_with_its_id() {
    let service = held_after(0).await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    let first = callers!(world, "f", 1);
    service.arrived(1).await;
    configure(&world, json!({"syncQueueMaxQueueWait": "PT0.05S"})).await;
    let answer = within("an answer", world.call("f", &[], json!(2))).await;
    let message = answer.refused(429, "QUEUE_TIMEOUT");
    assert!(
        message.contains("waited 50 ms in the queue of f"),
        "{message}"
    );
    assert_eq!(refused(&answer, "QUEUE_TIMEOUT", "timeout"), 2);
    let id = answer.header("x-execution-id");
    let execution = world.execution(id).await;
    assert_eq!(
        (&execution["status"], &execution["error"]["code"]),
        (&json!("timeout"), &json!("QUEUE_TIMEOUT"))
    );
    assert_eq!(execution["attempts"], 0);
    // A call with a key was promised: its own time bounds it, and its answer means what it always does.
    let promised = [("idempotency-key", "k"), ("x-timeout-ms", "200")];
    let promised = within("an answer", world.call("f", &promised, json!(3))).await;
    assert_eq!(promised.expect(200)["error"]["code"], "TIMEOUT");
    for (series, value) in [
        (
            "function_queue_rejected_total{function=\"f\",reason=\"timeout\"}",
            1.0,
        ),
        ("sync_queue_timedout_total{function=\"f\"}", 1.0),
        ("sync_queue_rejected_total{function=\"f\"}", 0.0),
        ("sync_queue_wait_ms_count{function=\"f\"}", 1.0),
        ("sync_queue_wait_seconds_count", 1.0),
    ] {
        assert_eq!(world.metric(series).await, Some(value), "{series}");
    }
    service.release(1);
    for answer in join_all(first).await {
        assert_eq!(answer.expect(200)["status"], "success");
    }
    assert_eq!(service.seen().len(), 1, "what was given back ran");
}

#[tokio::test]
async fn the_planes_rate_refuses_both_ways_to_call() {
    let world = World::new().background().echo("f").echo("g").await;
    configure(&world, json!({"rateMaxPerSecond": 2})).await;
    let first = world.invoke("f", json!(1)).await;
    let second = world.enqueue_with("g", &[], json!(2)).await;
    assert_eq!((first.status, second.status), (200, 202));
    // More than two a second, whatever the machine.
    let invoked = join_all((0..25).map(|n| world.invoke("f", json!(n)))).await;
    let enqueued = join_all((0..25).map(|n| world.enqueue_with("g", &[], json!(n)))).await;
    let answers = [invoked, enqueued].concat();
    let refusals: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    assert!(!refusals.is_empty());
    for answer in refusals {
        assert_eq!(refused(answer, "RATE_LIMITED", "rate"), 1);
        let message = answer.refused(429, "RATE_LIMITED");
        assert!(message.starts_with("the server takes 2 calls"), "{message}");
    }
    // A function that does not exist is said to be unknown, and takes nothing from the rest.
    let unknown = world.invoke("nobody", json!(1)).await;
    unknown.refused(404, "FUNCTION_NOT_FOUND");
    configure(&world, json!({"rateMaxPerSecond": 1_000_000})).await;
    world.invoke("f", json!(1)).await.expect(200);
}

/// nanofaas's burst: twelve calls of a function that runs one, with room for one to wait.
#[tokio::test]
async fn nanofaas_burst_gets_answers_and_refusals() {
    let service = Service::answering(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .background()
        .setup(|setup| {
            let config = &mut setup.scheduler.runtime_config;
            config.sync_queue_max_depth = 1;
            config.sync_queue_admission_enabled = false;
            config.sync_queue_max_queue_wait = Duration::from_secs(5);
        })
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    let answers = join_all((0..12).map(|n| world.invoke("f", json!(n)))).await;
    let (refusals, taken): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 429);
    assert!(!taken.is_empty() && !refusals.is_empty());
    for answer in refusals {
        assert_eq!(refused(&answer, "QUEUE_FULL", "depth"), 2);
    }
    for answer in taken {
        assert_eq!(answer.expect(200)["status"], "success");
    }
}
