//! Every limit that a client can meet, biting: with the code and the status that the client sees.
//!
//! Hostile guests are inline WAT, deployed over HTTP. Each has the one slot of its function: what it leaves
//! behind would keep the next call waiting.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::guests;
use crate::support::programs::{
    FLOODS, HOARDS, RECURSES, SLEEPS, SPINS, exits, program, program_with,
};
use crate::support::service::{Reply, Service};
use crate::support::world::World;

/// Enqueues a hostile guest twice; both end alike and on their own attempt, and the slot is free: an honest
/// version is called at once.
async fn check_bites(
    wasm: bytes::Bytes,
    mut spec: Value,
    status: &str,
    code: &str,
    words: &[&str],
) {
    spec["concurrency"] = json!(1);
    spec["maxRetries"] = json!(1);
    let world = World::new()
        .background()
        .function("f", wasm)
        .spec(spec)
        .await;
    for _ in 0..2 {
        let id = world.enqueue("f", json!("x")).await;
        let execution = world.ended(&id).await;
        assert_eq!(execution["status"], status, "{execution}");
        assert_eq!(execution["error"]["code"], code, "{execution}");
        let message = execution["error"]["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert_eq!(execution["attempts"], 1);
        assert!(execution["output"].is_null());
    }
    world.upload("f", guests::wasm("echo")).await.expect(200);
    let answer = world.invoke("f", json!("honest")).await.expect(200);
    assert_eq!(answer["output"], "honest");
    assert_eq!(
        world.metric("function_inFlight{function=\"f\"}").await,
        Some(0.0)
    );
}

// Limits of a version, met by what it does.

#[tokio::test]
async fn timeout_ms_stops_what_computes_and_what_waits() {
    for start in [SPINS, SLEEPS] {
        let spec = json!({"timeoutMs": 30});
        check_bites(
            program(start),
            spec,
            "timeout",
            "TIMEOUT",
            &["timeoutMs is 30"],
        )
        .await;
    }
}

#[tokio::test]
async fn timeout_ms_stops_a_service_that_does_not_answer() {
    let service = Service::held(|_| Reply::ok(&json!("late"))).await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"timeoutMs": 30, "maxRetries": 2, "concurrency": 1, "retryBackoff": {"baseDelayMs": 0}}))
        .await;
    let id = world.enqueue("f", json!("x")).await;
    let execution = world.ended(&id).await;
    assert_eq!(
        (&execution["status"], &execution["attempts"]),
        (&json!("timeout"), &json!(2))
    );
    assert_eq!(execution["error"]["code"], "POOL_TIMEOUT");
    assert!(
        execution["error"]["message"]
            .as_str()
            .unwrap()
            .contains("30 ms")
    );
    service.idle().await;
}

#[tokio::test]
async fn cpu_ms_stops_what_computes_and_spends_no_further_attempt() {
    let spec = json!({"cpuMs": 10});
    check_bites(
        program(SPINS),
        spec,
        "error",
        "CPU_LIMIT",
        &["10 ms", "cpuMs"],
    )
    .await;
}

#[tokio::test]
async fn memory_mb_counts_memories_and_tables() {
    let spec = json!({"memoryMb": 4});
    let words = ["4 MiB", "memoryMb"];
    check_bites(
        program(HOARDS),
        spec.clone(),
        "error",
        "MEMORY_LIMIT",
        &words,
    )
    .await;
    let hoards = "(loop $on (br_if $on (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))))
        unreachable";
    // A table alone never gets that large: the others fill the limit up.
    let others = "(table 90000 funcref)".repeat(5);
    let tables = program_with(&format!("(table $t 1 funcref) {others}"), hoards);
    check_bites(tables, spec.clone(), "error", "MEMORY_LIMIT", &words).await;
    let table = program_with("(table $t 1 funcref)", hoards);
    check_bites(table, spec, "error", "HOST_LIMIT", &["100000 elements"]).await;
}

#[tokio::test]
async fn a_memory_that_begins_larger_than_memory_mb_never_runs() {
    let wasm = wat::parse_str(r#"(module (memory (export "memory") 64) (func (export "_start")))"#);
    let spec = json!({"memoryMb": 2});
    check_bites(
        wasm.unwrap().into(),
        spec,
        "error",
        "MEMORY_LIMIT",
        &["2 MiB", "memoryMb"],
    )
    .await;
}

#[tokio::test]
async fn output_bytes_max_stops_a_flood_and_lets_the_last_byte_through() {
    let spec = json!({"outputBytesMax": 100_000});
    let words = ["100000 bytes", "outputBytesMax"];
    check_bites(program(FLOODS), spec, "error", "OUTPUT_TOO_LARGE", &words).await;
    let service = Service::answering(|seen| Reply::ok(&seen.body["input"])).await;
    let world = World::new()
        .function("wasm", guests::wasm("echo"))
        .spec(json!({"outputBytesMax": 10}))
        .pool("pool", &service.url)
        .spec(json!({"outputBytesMax": 10}))
        .await;
    for name in ["wasm", "pool"] {
        let fits = world.invoke(name, json!("12345678")).await.expect(200);
        assert_eq!(fits["output"], "12345678", "{name}: {fits}");
        let beyond = world.invoke(name, json!("123456789")).await.expect(200);
        assert_eq!(beyond["status"], "error", "{name}");
        assert_eq!(beyond["error"]["code"], "OUTPUT_TOO_LARGE", "{name}");
        assert!(beyond["output"].is_null());
    }
}

#[tokio::test]
async fn log_bytes_max_cuts_and_says_so() {
    let world = World::new()
        .function("cut", exits(0, "first line\nsecond line\nthird line\n"))
        .spec(json!({"logBytesMax": 15}))
        .function("whole", exits(0, "one\n"))
        .spec(json!({"logBytesMax": 3}))
        .function("none", exits(0, "one\n"))
        .spec(json!({"logBytesMax": 0}))
        .await;
    for (name, truncated, lines) in [
        ("cut", true, vec!["first line", "secon"]),
        ("whole", false, vec!["one"]),
        ("none", true, vec![]),
    ] {
        let id = world.enqueue(name, json!("x")).await;
        assert_eq!(world.drain(name).await, "success", "logs are no output");
        let attempts = world.attempts(&id).await;
        assert_eq!(attempts[0]["truncated"], truncated, "{name}: {attempts:?}");
        let shown = attempts[0]["lines"].as_array().unwrap();
        let shown: Vec<_> = shown.iter().map(|line| line["text"].clone()).collect();
        assert_eq!(shown, lines, "{name}");
    }
}

#[tokio::test]
async fn a_recursion_without_end_is_a_trap() {
    check_bites(program(RECURSES), json!({}), "error", "TRAP", &["stack"]).await;
}

#[tokio::test]
async fn hostile_guests_side_by_side_leave_the_honest_ones_alone() {
    let mut world = World::new()
        .background()
        .function("echo", guests::wasm("echo"));
    let hostile = [
        ("spins", SPINS),
        ("hoards", HOARDS),
        ("floods", FLOODS),
        ("recurses", RECURSES),
    ];
    for (name, start) in hostile {
        let spec = json!({"timeoutMs": 200, "maxRetries": 1, "memoryMb": 16});
        world = world.function(name, program(start)).spec(spec);
    }
    let world = world.await;
    let mut ids = Vec::new();
    for (name, _) in hostile.repeat(4) {
        ids.push(world.enqueue(name, json!(1)).await);
    }
    for n in 0..20 {
        let answer = world.invoke("echo", json!(n)).await.expect(200);
        assert_eq!(answer["output"], n);
    }
    for id in ids {
        let execution = world.ended(&id).await;
        assert_ne!(execution["status"], "success", "{execution}");
        assert_eq!(execution["faults"], 0, "{execution}");
    }
}

// Limits of an execution's life.

#[tokio::test]
async fn max_retries_counts_attempts() {
    for (max_retries, attempts) in [(0, 1), (1, 1), (2, 2), (5, 5)] {
        let world = World::new()
            .function("f", exits(1, "no"))
            .spec(json!({"maxRetries": max_retries}))
            .await;
        let id = world.enqueue("f", json!(1)).await;
        world.drain_answer("f", json!({"recursive": true})).await;
        let execution = world.execution(&id).await;
        assert_eq!(
            (&execution["status"], &execution["attempts"]),
            (&json!("error"), &json!(attempts))
        );
    }
}

#[tokio::test]
async fn max_requeues_ends_what_never_wants_to_run() {
    let service = Service::answering(|_| Reply::status(429, &json!({}))).await;
    let world = World::new()
        .function("wasm", exits(75, "not now"))
        .spec(json!({"maxRequeues": 2}))
        .pool("pool", &service.url)
        .spec(json!({"maxRequeues": 2}))
        .await;
    for name in ["wasm", "pool"] {
        let id = world.enqueue(name, json!(1)).await;
        for status in ["queued", "queued", "error"] {
            assert_eq!(world.drain(name).await, status, "{name}");
        }
        let execution = world.execution(&id).await;
        assert_eq!(execution["error"]["code"], "MAX_REQUEUES", "{execution}");
        let message = execution["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("2 times") && message.contains("maxRequeues"),
            "{message}"
        );
        assert_eq!(
            (&execution["requeues"], &execution["attempts"]),
            (&json!(3), &json!(0))
        );
    }
}

#[tokio::test]
async fn max_age_ms_ends_what_waited_too_long() {
    let spec = json!({"maxAgeMs": 60_000, "concurrency": 1});
    let world = World::new().echo("f").spec(spec.clone()).await;
    let young = world.enqueue("f", json!(1)).await;
    world.plane.advance(Duration::from_secs(60));
    assert_eq!(world.drain("f").await, "success");
    assert_eq!(world.status(&young).await, "success");
    let old = world.enqueue("f", json!(2)).await;
    world.plane.advance(Duration::from_millis(60_001));
    assert_eq!(world.drain("f").await, "error", "ended, and not run");
    let execution = world.ended(&old).await;
    assert_eq!(execution["error"]["code"], "MAX_AGE", "{execution}");
    assert_eq!(execution["attempts"], 0);
    assert!(
        execution["error"]["message"]
            .as_str()
            .unwrap()
            .contains("60000 ms")
    );
    // By itself, too: nobody has to ask for it.
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(spec)
        .await;
    world.enqueue("f", json!(1)).await;
    let waits = world.enqueue("f", json!(2)).await;
    service.arrived(1).await;
    world.plane.advance(Duration::from_millis(60_001));
    service.release(1);
    let execution = world.ended(&waits).await;
    assert_eq!(execution["error"]["code"], "MAX_AGE", "{execution}");
}

#[tokio::test]
async fn max_age_ms_refuses_a_requeue_beyond_it() {
    let world = World::new()
        .function("f", guests::wasm("order-intake"))
        .spec(json!({"maxAgeMs": 29_999}))
        .await;
    let order = json!({"orderId": "A-9", "items": [{"sku": "nozzle", "quantity": 2}],
        "notBefore": "09:00", "now": "08:59:30"});
    let answer = world.invoke("f", order).await.expect(200);
    assert_eq!(
        (&answer["status"], &answer["error"]["code"]),
        (&json!("error"), &json!("MAX_AGE"))
    );
}

// Limits of a function.

#[tokio::test]
async fn queue_size_is_the_number_that_may_wait() {
    let world = World::new().echo("f").spec(json!({"queueSize": 3})).await;
    for n in 0..3 {
        world.enqueue("f", json!(n)).await;
    }
    world
        .enqueue_with("f", &[], json!(3))
        .await
        .refused(429, "QUEUE_FULL");
    // A larger one acts at once and makes no version.
    let patched = world
        .patch("/v1/functions/f", json!({"queueSize": 4}))
        .await;
    assert_eq!(patched.expect(200)["version"], 1);
    world.enqueue("f", json!(3)).await;
    world
        .enqueue_with("f", &[], json!(4))
        .await
        .refused(429, "QUEUE_FULL");
}

#[tokio::test]
async fn rate_per_second_refuses_both_ways_to_call() {
    let world = World::new()
        .background()
        .echo("f")
        .spec(json!({"ratePerSecond": 1, "burst": 5}))
        .await;
    let enqueued = join_all((0..25).map(|n| world.enqueue_with("f", &[], json!(n)))).await;
    let invoked = join_all((0..25).map(|n| world.invoke("f", json!(n)))).await;
    let answers = [enqueued, invoked].concat();
    let (refused, taken): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 429);
    assert!(
        taken.len() >= 5,
        "the burst is let through: {}",
        taken.len()
    );
    assert!(!refused.is_empty());
    for answer in &refused {
        let message = answer.refused(429, "RATE_LIMITED");
        assert!(message.contains("1 calls a second"), "{message}");
        assert_eq!(answer.header("x-queue-reject-reason"), "rate");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(
        world.executions_of("f").await.len(),
        taken.len(),
        "no trace of the others"
    );
    let unlimited = world.patch(
        "/v1/functions/f",
        json!({"ratePerSecond": null, "burst": null}),
    );
    unlimited.await.expect(200);
    world.invoke("f", json!(1)).await.expect(200);
}

#[tokio::test]
async fn concurrency_can_be_changed_while_work_waits() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .background()
        .pool("f", &service.url)
        .spec(json!({"concurrency": 1}))
        .await;
    for n in 0..4 {
        world.enqueue("f", json!(n)).await;
    }
    service.arrived(1).await;
    world
        .patch("/v1/functions/f", json!({"concurrency": 3}))
        .await
        .expect(200);
    service.arrived(3).await;
    assert_eq!(service.most_at_once(), 3);
    service.release(4);
    service.arrived(4).await;
}

// Limits of the plane.

#[tokio::test]
async fn the_plane_runs_so_many_guests_and_calls_so_many_services() {
    let service = Service::held(|_| Reply::ok(&json!("done"))).await;
    let world = World::new()
        .background()
        .setup(|setup| {
            setup.scheduler.guests_max = 1;
            setup.scheduler.endpoint_calls_max = 1;
        })
        .function("sleeps", program(SLEEPS))
        .function("waits", guests::wasm("echo"))
        .pool("first", &service.url)
        .pool("second", &service.url)
        .await;
    let sleeping = world.enqueue("sleeps", json!(1)).await;
    world.reached(&sleeping, "running").await;
    let waiting = world.enqueue("waits", json!(1)).await;
    // Services are counted apart.
    world.enqueue("first", json!(1)).await;
    let second = world.enqueue("second", json!(2)).await;
    service.arrived(1).await;
    assert_eq!(world.status(&waiting).await, "queued");
    assert_eq!(world.status(&second).await, "queued");
    let path = format!("/v1/executions/{sleeping}:cancel");
    world.post(&path, json!({})).await.expect(200);
    assert_eq!(world.ended(&waiting).await["status"], "success");
    service.release(2);
    assert_eq!(world.ended(&second).await["status"], "success");
    assert_eq!(service.most_at_once(), 1);
}

#[tokio::test]
async fn the_plane_takes_so_many_functions_and_versions() {
    let world = World::new()
        .setup(|setup| {
            setup.registry.functions_max = 2;
            setup.registry.versions_max = 2;
        })
        .echo("first")
        .function("second", guests::wasm("echo"))
        .await;
    let third = json!({"name": "third", "image": "builtin:echo"});
    let refused = world.post("/v1/functions", third.clone()).await;
    let message = refused.refused(422, "TOO_MANY_FUNCTIONS");
    assert!(message.contains("2 functions"), "{message}");
    let refused = world.upload("third", guests::wasm("echo")).await;
    refused.refused(422, "TOO_MANY_FUNCTIONS");
    world
        .get("/v1/functions/third")
        .await
        .refused(404, "FUNCTION_NOT_FOUND");
    world.delete("/v1/functions/first").await.expect(204);
    world.post("/v1/functions", third).await.expect(201);
    // Versions.
    world.upload("second", program("")).await.expect(200);
    let refused = world.upload("second", program(SPINS)).await;
    let message = refused.refused(422, "TOO_MANY_VERSIONS");
    assert!(message.contains("2 versions"), "{message}");
    let function = world.get("/v1/functions/second").await.expect(200);
    assert_eq!(
        (&function["version"], &function["versions"]),
        (&json!(2), &json!(2))
    );
}

// Limits of a request.

#[tokio::test]
async fn a_body_has_a_size() {
    let world = World::new()
        .options(|options| options.body_bytes_max = 100)
        .echo("f")
        .await;
    let body = |length: usize| json!({"input": "x".repeat(length - r#"{"input":""}"#.len())});
    for verb in ["invoke", "enqueue"] {
        let path = format!("/v1/functions/f:{verb}");
        let refused = world.post(&path, body(101)).await;
        let message = refused.refused(413, "PAYLOAD_TOO_LARGE");
        assert!(message.contains("100 bytes"), "{message}");
    }
    let fits = world.post("/v1/functions/f:enqueue", body(100)).await;
    fits.expect(202);
    assert_eq!(world.executions_of("f").await.len(), 1);
    for (method, path) in [("POST", "/v1/functions"), ("PATCH", "/v1/functions/f")] {
        let headers = [("content-type", "application/json")];
        let answer = world
            .ask(method, path, &headers, body(101).to_string())
            .await;
        answer.refused(413, "PAYLOAD_TOO_LARGE");
    }
}

#[tokio::test]
async fn an_upload_has_a_size() {
    let wasm = guests::wasm("echo");
    let fits = wasm.len();
    for (upload_bytes_max, status) in [(fits, 201), (fits - 1, 413)] {
        let world = World::new()
            .options(|options| options.upload_bytes_max = upload_bytes_max)
            .await;
        let alone = world.upload("alone", wasm.clone()).await;
        let with_spec = world.upload_with("with-spec", &json!({}), &wasm).await;
        for answer in [alone, with_spec] {
            if status == 201 {
                answer.expect(201);
            } else {
                let message = answer.refused(413, "PAYLOAD_TOO_LARGE");
                assert!(message.contains(&upload_bytes_max.to_string()), "{message}");
            }
        }
        let functions = world.get("/v1/functions").await.expect(200);
        let count = functions.as_array().unwrap().len();
        assert_eq!(count, if status == 201 { 2 } else { 0 });
    }
}

#[tokio::test]
async fn metadata_and_headers_have_a_size() {
    let world = World::new().echo("f").await;
    let many: serde_json::Map<_, _> = (0..65).map(|n| (n.to_string(), json!(""))).collect();
    let long = json!({"a": "x".repeat(16 * 1024)});
    for (metadata, words) in [(Value::Object(many), "65 members"), (long, "16385 bytes")] {
        let body = json!({"input": 1, "metadata": metadata});
        let answer = world.post("/v1/functions/f:enqueue", body).await;
        let text = answer.refused(400, "VALIDATION_ERROR");
        assert!(text.contains("metadata") && text.contains(words), "{text}");
    }
    let long = "k".repeat(256);
    let key = world
        .enqueue_with("f", &[("idempotency-key", &long)], json!(1))
        .await;
    assert!(
        key.refused(400, "VALIDATION_ERROR")
            .contains("Idempotency-Key")
    );
    let fits = "k".repeat(255);
    world
        .enqueue_with("f", &[("idempotency-key", &fits)], json!(1))
        .await
        .expect(202);
    for wait in ["0", "300001", "soon"] {
        let answer = world.call("f", &[("x-timeout-ms", wait)], json!(1)).await;
        assert!(
            answer
                .refused(400, "VALIDATION_ERROR")
                .contains("from 1 to 300000")
        );
    }
    for limit in ["0", "501", "x"] {
        let answer = world.get(&format!("/v1/executions?limit={limit}")).await;
        assert!(answer.refused(400, "VALIDATION_ERROR").contains("limit"));
    }
    let drain = "/v1/internal/functions/f:drain-once";
    let answer = world.post(drain, json!({"limit": 10_001})).await;
    assert!(answer.refused(400, "VALIDATION_ERROR").contains("limit"));
}

#[tokio::test]
async fn the_texts_of_a_spec_have_a_size() {
    let world = World::new().echo("f").await;
    let entries = |count: usize| -> serde_json::Map<_, _> {
        (0..count).map(|n| (format!("N{n}"), json!(""))).collect()
    };
    for (field, value) in [
        ("image", json!("x".repeat(2049))),
        (
            "endpointUrl",
            json!(format!("http://127.0.0.1/{}", "x".repeat(2048))),
        ),
        ("args", json!(vec![""; 257])),
        ("args", json!(["x".repeat(65_537)])),
        ("env", json!(entries(257))),
        ("env", json!({"N": "x".repeat(65_536)})),
        ("config", json!(entries(257))),
        ("config", json!({"N": "x".repeat(65_536)})),
        ("resources", json!({"cpu": "x".repeat(65_536)})),
    ] {
        let answer = world.patch("/v1/functions/f", json!({field: value})).await;
        let text = answer.refused(400, "VALIDATION_ERROR");
        assert!(text.contains(field), "{field}: {text}");
        assert!(
            text.len() < 1000,
            "a complaint does not repeat what is too long"
        );
    }
    let function = world.get("/v1/functions/f").await.expect(200);
    assert_eq!(function["versions"], 1);
    let fits = json!({"env": {"N": "x".repeat(65_535)}, "args": vec![""; 256]});
    world.patch("/v1/functions/f", fits).await.expect(200);
}

#[tokio::test]
async fn the_numbers_of_a_spec_have_a_range() {
    let world = World::new().echo("f").await;
    for (field, least, most) in [
        ("timeoutMs", 1_i64, 300_000_i64),
        ("cpuMs", 1, 300_000),
        ("memoryMb", 1, 4096),
        ("outputBytesMax", 0, 67_108_864),
        ("logBytesMax", 0, 4_194_304),
        ("maxRetries", 0, 100),
        ("maxRequeues", 0, 1_000_000),
        ("maxAgeMs", 1, 2_592_000_000),
        ("concurrency", 1, 10_000),
        ("queueSize", 1, 10_000_000),
        ("ratePerSecond", 1, 1_000_000),
    ] {
        for within in [least, most] {
            let answer = world.patch("/v1/functions/f", json!({field: within})).await;
            assert_eq!(answer.status, 200, "{field} {within}: {}", answer.json);
        }
        for beyond in [
            json!(least - 1),
            json!(most + 1),
            json!(1.5),
            json!("1"),
            json!([]),
        ] {
            let answer = world.patch("/v1/functions/f", json!({field: beyond})).await;
            let text = answer.refused(400, "VALIDATION_ERROR");
            let range = format!("{least} to {most}");
            assert!(
                text.contains(field) && text.contains(&range),
                "{field}: {text}"
            );
        }
    }
}
