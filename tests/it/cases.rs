//! The guests' own cases, through the whole plane: deployed over HTTP, called over HTTP.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::guests;
use crate::support::world::World;

/// The guests that this file runs through the plane; `guests.rs` compares it with the folders.
pub(crate) const THROUGH_THE_PLANE: [&str; 11] = [
    "echo",
    "flaky",
    "json-transform",
    "link-check",
    "order-intake",
    "roman-numeral",
    "slow",
    "static-site",
    "word-stats",
    "word-stats-http",
    "word-stats-http3",
];

/// A world with this guest and nothing else.
async fn with(name: &str) -> World {
    let listed = BTreeSet::from(THROUGH_THE_PLANE);
    assert!(listed.contains(name), "{name} belongs in the list");
    World::new().function(name, guests::wasm(name)).await
}

/// Calls a function with every case of a guest: the output, or the error's code.
async fn check_cases(world: &World, name: &str, guest: &str) {
    let cases = guests::cases(guest);
    assert!(!cases.is_empty());
    for case in cases {
        let answer = world.invoke(name, case["input"].clone()).await.expect(200);
        if case["outcome"] == "error" {
            assert_eq!(answer["status"], "error", "{case}: {answer}");
            assert_eq!(answer["error"]["code"], case["code"], "{case}: {answer}");
            continue;
        }
        assert_eq!(answer["status"], "success", "{case}: {answer}");
        assert_eq!(answer["output"], case["output"], "{case}");
        assert_eq!(answer["outputEncoding"], "json", "{case}");
    }
}

#[tokio::test]
async fn word_stats_counts() {
    let world = with("word-stats").await;
    check_cases(&world, "word-stats", "word-stats").await;
}

#[tokio::test]
async fn word_stats_counts_as_a_web_service_too() {
    let world = with("word-stats-http").await;
    check_cases(&world, "word-stats-http", "word-stats-http").await;
    let world = with("word-stats-http3").await;
    check_cases(&world, "word-stats-http3", "word-stats-http3").await;
}

#[tokio::test]
async fn link_check_reports() {
    let world = with("link-check").await;
    check_cases(&world, "link-check", "link-check").await;
}

/// A call POSTs its input, and a site takes none.
#[tokio::test]
async fn static_site_refuses_what_is_posted() {
    let world = with("static-site").await;
    let answer = world.invoke("static-site", json!({})).await.expect(200);
    assert_eq!(answer["status"], "error", "{answer}");
    assert_eq!(answer["error"]["code"], "METHOD_NOT_ALLOWED", "{answer}");
}

/// At its own address the site is mounted below a prefix, and its pages know.
#[tokio::test]
async fn static_site_is_a_web_server() {
    let name = "static-site";
    let site = World::new().background();
    let world = site.function(name, guests::wasm(name)).await;
    let ask = async |method: &'static str, path: &str, headers: &[(&str, &str)]| {
        let path = format!("/fn/{name}{path}");
        world.ask(method, &path, headers, "").await
    };
    for case in guests::cases(name) {
        let (input, expected) = (&case["input"], &case["output"]);
        let method = match input["method"].as_str().unwrap() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            other => panic!("{other}"),
        };
        let answer = ask(method, input["path"].as_str().unwrap(), &[]).await;
        assert_eq!(answer.status, expected["status"], "{case}");
        if let Some(content_type) = expected["contentType"].as_str() {
            assert_eq!(answer.header("content-type"), content_type, "{case}");
        }
        let body = String::from_utf8_lossy(&answer.body);
        if let Some(part) = expected["contains"].as_str() {
            let part = part.replace("href=\"/\"", "href=\"/fn/static-site/\"");
            assert!(body.contains(&part), "{case}: {body}");
        }
        assert!(method != "HEAD" || body.is_empty(), "{case}: {body}");
    }
    let page = ask("GET", "/parts", &[]).await;
    let known = page.header("etag");
    let again = ask("GET", "/parts", &[("if-none-match", known)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[tokio::test]
async fn json_transform_groups() {
    let world = with("json-transform").await;
    check_cases(&world, "json-transform", "json-transform").await;
}

#[tokio::test]
async fn roman_numeral_writes_numbers_as_a_component_and_as_a_core_module() {
    let world = with("roman-numeral").await;
    check_cases(&world, "roman-numeral", "roman-numeral").await;
    let core = guests::core_wasm("roman-numeral");
    world.upload("roman-core", core).await.expect(201);
    check_cases(&world, "roman-core", "roman-numeral").await;
    let shape = |name: &'static str| {
        let world = &world;
        async move {
            world
                .get(&format!("/v1/functions/{name}"))
                .await
                .expect(200)["shape"]
                .clone()
        }
    };
    assert_eq!(shape("roman-numeral").await, "command-0.2");
    assert_eq!(shape("roman-core").await, "core-command");
}

#[tokio::test]
async fn echo_answers_what_it_was_sent() {
    let world = with("echo").await;
    check_cases(&world, "echo", "echo").await;
}

/// The input's bytes are the caller's, down to spaces, the order of members and the writing of numbers.
#[tokio::test]
async fn echo_answers_byte_for_byte() {
    let world = with("echo").await;
    for input in [
        "{ \"b\" : 1.0,\t\"a\":2e0, \"b\": 3 }",
        "1e400",
        "123456789012345678901234567890.10",
        "\"\\u0000\\ud83c\\udfa1 \\/\"",
        "[[[[[[[[]]]]]]]]",
        "false",
        "\"\"",
    ] {
        let path = "/v1/functions/echo:enqueue";
        let body = format!("{{\"input\":  {input} }}");
        let headers = [("content-type", "application/json")];
        let queued = world.ask("POST", path, &headers, body).await;
        let id = queued.header("x-execution-id").to_owned();
        assert_eq!(
            world.drain_answer("echo", json!({})).await["status"],
            "success"
        );
        let answer = world.get(&format!("/v1/executions/{id}")).await;
        let text = std::str::from_utf8(&answer.body).unwrap();
        assert!(
            text.contains(&format!("\"output\":{input},")),
            "{input}: {text}"
        );
        assert!(
            text.contains("\"outputContentType\":\"application/json\""),
            "{text}"
        );
    }
}

/// What a caller cannot send as JSON, a command can write.
#[tokio::test]
async fn odd_bytes_come_out_readable() {
    use crate::support::programs::program_with;
    let writes = |bytes: &str, length: usize| {
        program_with(
            &format!("(data (i32.const 1024) \"{bytes}\")"),
            &format!("(call $write (i32.const 1) (i32.const 1024) (i32.const {length}))"),
        )
    };
    let world = World::new()
        .function("text", writes("W\\c3\\bcrste, {", 10))
        .function("bytes", writes("\\00\\9f\\92\\96", 4))
        .function("json", writes(" {\\22a\\22: 1e0} ", 12))
        .function("nothing", writes("", 0))
        .await;
    for (name, encoding, output) in [
        ("text", "text", json!("Würste, {")),
        ("bytes", "base64", json!("AJ+Slg==")),
        ("json", "json", json!({"a": 1.0})),
        ("nothing", "text", json!("")),
    ] {
        let answer = world.invoke(name, json!({})).await.expect(200);
        assert_eq!(answer["status"], "success", "{name}: {answer}");
        assert_eq!(answer["outputEncoding"], encoding, "{name}: {answer}");
        assert_eq!(answer["output"], output, "{name}");
        assert_eq!(answer["outputContentType"], Value::Null, "{name}");
    }
}

/// One dispatch of a case shows what its outcome is; draining on shows how the execution ends.
#[tokio::test]
async fn order_intake_uses_all_four_outcomes() {
    let world = with("order-intake").await;
    let mut outcomes = BTreeSet::new();
    for case in guests::cases("order-intake") {
        // Later attempts are reached by draining, not by saying that they are.
        if case.get("attempt").is_some() || case.get("requeues").is_some() {
            continue;
        }
        let id = world.enqueue("order-intake", case["input"].clone()).await;
        let status = world.drain("order-intake").await;
        let execution = world.execution(&id).await;
        let outcome = case["outcome"].as_str().unwrap_or("success");
        outcomes.insert(outcome.to_owned());
        match outcome {
            "success" => {
                assert_eq!(status, "success", "{case}: {execution}");
                assert_eq!(execution["output"], case["output"]);
            }
            "error" => {
                assert_eq!(status, "error", "{case}: {execution}");
                assert_eq!(execution["error"]["code"], case["code"], "{case}");
            }
            "retry" => {
                assert_eq!(status, "queued", "{case}: {execution}");
                assert_eq!(
                    (&execution["attempts"], &execution["requeues"]),
                    (&json!(1), &json!(0))
                );
                let attempts = world.attempts(&id).await;
                assert_eq!(attempts[0]["error"]["code"], case["code"]);
                assert_eq!(
                    attempts[0]["lines"][0]["text"],
                    "attempt 1: the warehouse is busy"
                );
            }
            "requeue" => {
                assert_eq!(status, "queued", "{case}: {execution}");
                assert_eq!(
                    (&execution["attempts"], &execution["requeues"]),
                    (&json!(0), &json!(1))
                );
                let delay = case["delayMs"].as_u64().unwrap();
                assert_eq!(execution["dueAt"], due_after(&world, delay));
            }
            other => panic!("{other} is no outcome"),
        }
        let path = format!("/v1/executions/{id}:cancel");
        world.post(&path, json!({})).await.expect(200);
    }
    let all = ["error", "requeue", "retry", "success"].map(str::to_owned);
    assert_eq!(outcomes, BTreeSet::from(all));
}

/// The manual clock's time, so much later, as the API writes it.
fn due_after(world: &World, delay_ms: u64) -> String {
    let now = world.plane.clock.now().plus_ms(delay_ms);
    let time = jiff::Timestamp::from_millisecond(now.0).unwrap();
    format!("{time:.3}")
}

#[tokio::test]
async fn an_order_is_accepted_once_the_warehouse_answers() {
    let world = with("order-intake").await;
    let order = |id: &str| {
        json!({"orderId": id, "items": [{"sku": "bucket", "quantity": 1}],
            "warehouse": "busy", "busyForAttempts": 2})
    };
    let id = world.enqueue("order-intake", order("A-1")).await;
    for status in ["queued", "queued", "success"] {
        assert_eq!(world.drain("order-intake").await, status);
    }
    let execution = world.execution(&id).await;
    assert_eq!(execution["output"]["attempt"], 3);
    assert_eq!(
        (&execution["attempts"], &execution["requeues"]),
        (&json!(3), &json!(0))
    );
    // A caller who waits sees only the end.
    let answer = world.invoke("order-intake", order("A-2")).await.expect(200);
    assert_eq!(
        (&answer["status"], &answer["output"]["attempt"]),
        (&json!("success"), &json!(3))
    );
    // One that stays busy uses its attempts up and ends with its own words.
    let never =
        json!({"orderId": "A-3", "items": [{"sku": "bucket", "quantity": 1}], "warehouse": "busy"});
    let answer = world.invoke("order-intake", never).await.expect(200);
    assert_eq!(answer["status"], "error");
    let error = json!({"code": "WAREHOUSE_BUSY", "message": "the warehouse is busy"});
    assert_eq!(answer["error"], error);
}

#[tokio::test]
async fn an_order_waits_for_the_opening_and_spends_no_attempt() {
    let world = with("order-intake").await;
    let order = json!({"orderId": "A-9", "items": [{"sku": "nozzle", "quantity": 2}],
        "notBefore": "09:00", "now": "08:59:30"});
    let id = world.enqueue("order-intake", order).await;
    assert_eq!(world.drain("order-intake").await, "queued");
    let respecting = json!({"respectSchedule": true});
    let early = world.drain_answer("order-intake", respecting.clone()).await;
    assert_eq!(early["dispatched"], false, "it is not due");
    world.plane.advance(std::time::Duration::from_secs(30));
    let due = world.drain_answer("order-intake", respecting).await;
    assert_eq!(due["status"], "success");
    let execution = world.execution(&id).await;
    assert_eq!(
        (&execution["attempts"], &execution["requeues"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(execution["output"]["requeues"], 1);
}

/// Waits and computes as it was asked to; a limit of processor time minds only the computing.
#[tokio::test]
async fn slow_takes_its_time_and_limits_cut_it() {
    let world = with("slow").await;
    for case in guests::cases("slow") {
        if case.get("attempt").is_some() {
            continue;
        }
        let answer = world
            .invoke("slow", case["input"].clone())
            .await
            .expect(200);
        let outcome = case["outcome"].as_str().unwrap_or("success");
        assert_eq!(answer["status"], outcome, "{case}: {answer}");
        assert_eq!(answer["output"], case["output"], "{case}: {answer}");
        assert_eq!(answer["error"]["code"], case["code"], "{case}: {answer}");
    }
    let wasm = guests::wasm("slow");
    for (name, spec) in [
        ("frugal", json!({"cpuMs": 50, "maxRetries": 1})),
        ("brief", json!({"timeoutMs": 100, "maxRetries": 1})),
    ] {
        world.upload_with(name, &spec, &wasm).await.expect(201);
    }
    for (name, input, status, code) in [
        ("frugal", json!({"waitMs": 100}), "success", Value::Null),
        (
            "frugal",
            json!({"computeMs": 20_000}),
            "error",
            json!("CPU_LIMIT"),
        ),
        (
            "brief",
            json!({"waitMs": 20_000}),
            "timeout",
            json!("TIMEOUT"),
        ),
        (
            "brief",
            json!({"computeMs": 20_000}),
            "timeout",
            json!("TIMEOUT"),
        ),
    ] {
        let id = world.enqueue(name, input.clone()).await;
        assert_eq!(world.drain(name).await, status, "{name} {input}");
        let execution = world.execution(&id).await;
        assert_eq!(execution["error"]["code"], code, "{name} {input}");
    }
}

/// As a core module its exit codes mean what they say; as a component every failure is a retry.
#[tokio::test]
async fn flaky_fails_as_it_is_told_and_says_so_where_exit_codes_arrive() {
    let world = with("flaky").await;
    let core = guests::core_wasm("flaky");
    world.upload("flaky-core", core).await.expect(201);
    for case in guests::cases("flaky") {
        if case.get("attempt").is_some() {
            continue;
        }
        let outcome = case["outcome"].as_str().unwrap_or("success");
        let code = case["code"].as_str();
        expect_attempt(&world, "flaky-core", &case, (outcome, code)).await;
        let (outcome, code) = match (outcome, code) {
            ("success", _) => ("success", None),
            ("retry", Some("TRAP")) => ("retry", Some("TRAP")),
            _ => ("retry", Some("EXIT_1")),
        };
        expect_attempt(&world, "flaky", &case, (outcome, code)).await;
    }
}

/// Queues a case, drains it once, and compares the attempt's outcome and code.
async fn expect_attempt(world: &World, name: &str, case: &Value, expected: (&str, Option<&str>)) {
    let id = world.enqueue(name, case["input"].clone()).await;
    world.drain(name).await;
    let attempts = world.attempts(&id).await;
    let seen = (
        attempts[0]["outcome"].as_str().unwrap(),
        attempts[0]["error"]["code"].as_str(),
    );
    assert_eq!(seen, expected, "{name} {case}: {attempts:?}");
    let execution = world.execution(&id).await;
    if expected.0 == "success" {
        assert_eq!(execution["output"], case["output"], "{name} {case}");
    }
    let path = format!("/v1/executions/{id}:cancel");
    world.post(&path, json!({})).await.expect(200);
}

#[tokio::test]
async fn flaky_succeeds_in_the_end_hangs_and_hoards() {
    let world = with("flaky").await;
    let core = guests::core_wasm("flaky");
    let spec = json!({"timeoutMs": 500, "memoryMb": 16, "maxRetries": 3});
    world.upload_with("core", &spec, &core).await.expect(201);
    let id = world.enqueue("core", json!({"succeedAt": 3})).await;
    for status in ["queued", "queued", "success"] {
        assert_eq!(world.drain("core").await, status);
    }
    let execution = world.execution(&id).await;
    assert_eq!(execution["attempts"], 3);
    assert_eq!(execution["output"], json!({"attempt": 3}));
    let attempts = world.attempts(&id).await;
    assert_eq!(
        attempts[1]["lines"][0]["text"],
        "attempt 2: fails on purpose"
    );
    for (how, outcome, code) in [
        ("hang", "timeout", "TIMEOUT"),
        ("hoard", "limit", "MEMORY_LIMIT"),
    ] {
        let case = json!({"input": {"how": how}});
        expect_attempt(&world, "core", &case, (outcome, Some(code))).await;
    }
}
