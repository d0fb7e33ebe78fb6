//! The four behaviours of the background scheduler: work moves by itself, leaves its figures under the
//! function's label, overlaps as far as `concurrency` allows, and is visible before it runs.

use serde_json::json;

use crate::support::guests;
use crate::support::programs::{SLEEPS, program};
use crate::support::service::{Reply, Service};
use crate::support::world::World;

#[tokio::test]
async fn what_is_queued_runs_without_a_drain() {
    let service = Service::answering(|_| Reply::ok(&json!({"ok": true}))).await;
    let world = World::new()
        .background()
        .echo("local")
        .pool("pool", &service.url)
        .function("wasm", guests::wasm("echo"))
        .await;
    for name in ["local", "pool", "wasm"] {
        let id = world.enqueue(name, json!({"ok": true})).await;
        let execution = world.ended(&id).await;
        assert_eq!(execution["status"], "success", "{execution}");
        assert_eq!(execution["output"], json!({"ok": true}));
    }
}

#[tokio::test]
async fn what_ran_is_counted_under_its_function() {
    let service = Service::answering(|_| {
        let reply = Reply::ok(&json!(1));
        reply
            .header("x-cold-start", "true")
            .header("x-init-duration-ms", "12")
    })
    .await;
    let world = World::new()
        .background()
        .pool("pool", &service.url)
        .function("wasm", guests::wasm("echo"))
        .await;
    for name in ["pool", "wasm"] {
        let id = world.enqueue(name, json!(1)).await;
        assert_eq!(world.ended(&id).await["status"], "success");
        let label = |series: &str| format!("{series}{{function=\"{name}\"}}");
        for (series, value) in [
            ("function_enqueue_total", 1.0),
            ("function_dispatch_total", 1.0),
            ("function_success_total", 1.0),
            ("function_error_total", 0.0),
            ("function_retry_total", 0.0),
            ("function_latency_ms_count", 1.0),
            ("function_queue_wait_ms_count", 1.0),
            ("function_e2e_latency_ms_count", 1.0),
            ("function_queue_depth", 0.0),
            ("function_inFlight", 0.0),
        ] {
            assert_eq!(
                world.metric(&label(series)).await,
                Some(value),
                "{series} of {name}"
            );
        }
        assert!(world.metric(&label("function_latency_ms_sum")).await > Some(0.0));
    }
    let cold = "function_cold_start_total{function=\"pool\"}";
    assert_eq!(world.metric(cold).await, Some(1.0));
    let init = "function_init_duration_ms_sum{function=\"pool\"}";
    assert_eq!(world.metric(init).await, Some(12.0));
    world.delete("/v1/functions/pool").await.expect(204);
    assert_eq!(
        world.metric(cold).await,
        None,
        "a deleted function has no figures"
    );
}

#[tokio::test]
async fn tasks_overlap_as_far_as_concurrency_allows() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .background()
        .pool("pool", &service.url)
        .spec(json!({"concurrency": 2}))
        .function("wasm", program(SLEEPS))
        .spec(json!({"concurrency": 2}))
        .await;
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(world.enqueue("pool", json!(n)).await);
    }
    service.arrived(2).await;
    assert_eq!(
        world.metric("function_inFlight{function=\"pool\"}").await,
        Some(2.0)
    );
    assert_eq!(
        world
            .metric("function_queue_depth{function=\"pool\"}")
            .await,
        Some(6.0)
    );
    service.release(8);
    for id in &ids {
        assert_eq!(world.ended(id).await["status"], "success");
    }
    assert_eq!(service.most_at_once(), 2);

    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(world.enqueue("wasm", json!(n)).await);
    }
    world.reached(&ids[1], "running").await;
    let statuses = |ids: Vec<String>| {
        let world = &world;
        async move {
            let mut statuses = Vec::new();
            for id in &ids {
                statuses.push(world.status(id).await);
            }
            statuses
        }
    };
    assert_eq!(
        statuses(ids.clone()).await,
        ["running", "running", "queued", "queued"]
    );
    // A freed slot wakes the next one.
    let path = format!("/v1/executions/{}:cancel", ids[0]);
    world.post(&path, json!({})).await.expect(200);
    world.reached(&ids[2], "running").await;
    assert_eq!(
        statuses(ids).await,
        ["cancelled", "running", "running", "queued"]
    );
}

#[tokio::test]
async fn what_runs_was_visible_before() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new().background().pool("f", &service.url).await;
    for n in 1..=20 {
        let id = world.enqueue("f", json!(n)).await;
        let call = service.arrived(n).await;
        assert_eq!(call.header("x-execution-id"), id);
        let execution = world.execution(&id).await;
        assert_eq!(execution["status"], "running", "{execution}");
        assert_eq!(execution["attempts"], 1);
        assert!(execution["startedAt"].is_string());
        assert!(execution["finishedAt"].is_null());
        service.release(1);
        assert_eq!(world.ended(&id).await["status"], "success");
    }
}
