//! HTTP functions through `:invoke` and `:enqueue`: what they are sent, and what their answers mean.

use serde_json::{Value, json};

use crate::support::web_guests::{command03, http02, http03};
use crate::support::world::World;

/// Both versions of the same function, in the background.
async fn both() -> World {
    World::new()
        .background()
        .function("http02", http02())
        .spec(json!({"maxRetries": 1}))
        .function("http03", http03())
        .spec(json!({"maxRetries": 1}))
        .await
}

const BOTH: [&str; 2] = ["http02", "http03"];

/// The answer of a call that goes to `path`.
async fn call(world: &World, name: &str, path: &str, input: Value) -> Value {
    let patch = json!({"invokePath": path});
    let patched = world.patch(&format!("/v1/functions/{name}"), patch).await;
    patched.expect(200);
    world.invoke(name, input).await.expect(200)
}

/// Status and code of a call that goes to `path`.
async fn came(world: &World, name: &str, path: &str) -> (String, Value) {
    let answer = call(world, name, path, json!("x")).await;
    let status = answer["status"].as_str().unwrap().to_owned();
    (status, answer["error"]["code"].clone())
}

#[tokio::test]
async fn each_shape_is_found() {
    let world = both().await;
    world.upload("command03", command03()).await.expect(201);
    for (name, shape) in [
        ("http02", "http-0.2"),
        ("http03", "http-0.3"),
        ("command03", "command-0.3"),
    ] {
        let function = world.get(&format!("/v1/functions/{name}")).await;
        assert_eq!(function.expect(200)["shape"], shape);
    }
}

#[tokio::test]
async fn the_input_comes_as_it_was_written_and_the_body_is_the_output() {
    let world = both().await;
    for name in BOTH {
        let input = json!({"a": [1, 2.50, "ü"], "b": null});
        let answer = call(&world, name, "/echo", input.clone()).await;
        assert_eq!(answer["status"], "success", "{answer}");
        assert_eq!(answer["output"], input);
        assert_eq!(answer["outputContentType"], "application/json");
        let large = json!("x".repeat(1 << 20));
        assert_eq!(
            call(&world, name, "/echo", large.clone()).await["output"],
            large
        );
    }
}

#[tokio::test]
async fn a_function_is_told_which_execution_this_is() {
    let world = both().await;
    for name in BOTH {
        let patch = json!({"invokePath": "/headers?a=b"});
        world
            .patch(&format!("/v1/functions/{name}"), patch)
            .await
            .expect(200);
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [
            ("idempotency-key", name),
            ("x-trace-id", "trace-7"),
            ("traceparent", traceparent),
        ];
        let answer = world.invoke_with(name, &headers, json!({"n": 1})).await;
        let id = answer.id();
        let said = answer.expect(200)["output"].as_str().unwrap().to_owned();
        for line in [
            "Method::Post /headers?a=b",
            "scheme http",
            "authority localhost",
            "content-length: 7",
            "content-type: application/json",
            &format!("idempotency-key: {name}"),
            &format!("traceparent: {traceparent}"),
            "x-attempt: 1",
            &format!("x-execution-id: {id}"),
            "x-trace-id: trace-7",
        ] {
            assert!(
                said.lines().any(|it| it == line),
                "{line} is not in:\n{said}"
            );
        }
        assert!(said.contains("x-dispatch-attempt: "), "{said}");
    }
}

#[tokio::test]
async fn the_status_is_the_outcome() {
    let world = both().await;
    for name in BOTH {
        for (status, expected, code) in [
            (200, "success", Value::Null),
            (204, "success", Value::Null),
            (302, "error", json!("UNEXPECTED_STATUS")),
            (404, "error", json!("OWN")),
            (408, "error", json!("OWN")),
            (500, "error", json!("OWN")),
            (503, "error", json!("OWN")),
        ] {
            let body = "%7B%22error%22%3A%7B%22code%22%3A%22OWN%22%7D%7D";
            let path = format!("/with?status={status}&body={body}");
            let came = came(&world, name, &path).await;
            assert_eq!(came, (expected.to_owned(), code), "{name} {status}");
        }
        // A final error is not tried again, a failure that may pass is.
        for (status, attempts) in [(404, 1), (500, 2), (425, 2)] {
            let patch = json!({"maxRetries": 2, "retryBackoff": {"baseDelayMs": 0}});
            world
                .patch(&format!("/v1/functions/{name}"), patch)
                .await
                .expect(200);
            let answer = call(
                &world,
                name,
                &format!("/with?status={status}&body=why"),
                json!(1),
            )
            .await;
            assert_eq!(answer["error"]["code"], format!("HTTP_{status}"));
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.ends_with(": why"), "{message}");
            let id = answer["executionId"].as_str().unwrap();
            assert_eq!(world.execution(id).await["attempts"], attempts, "{status}");
        }
    }
}

#[tokio::test]
async fn a_function_says_when_it_wants_to_be_asked_again() {
    for (name, wasm) in [("http02", http02()), ("http03", http03())] {
        for (status, due) in [
            (429, "2026-01-01T00:00:07.000Z"),
            (503, "2026-01-01T00:00:07.000Z"),
        ] {
            let path = format!("/with?status={status}&h=retry-after:7");
            let world = World::new()
                .function(name, wasm.clone())
                .spec(json!({"invokePath": path}))
                .await;
            let id = world.enqueue(name, json!(1)).await;
            assert_eq!(world.drain(name).await, "queued");
            let execution = world.execution(&id).await;
            assert_eq!(execution["dueAt"], due);
            assert_eq!(
                (&execution["attempts"], &execution["requeues"]),
                (&json!(0), &json!(1))
            );
        }
    }
}

#[tokio::test]
async fn a_mistake_in_answering_has_a_code_of_its_own() {
    let world = both().await;
    for (path, code, names) in [
        ("/never", "NO_RESPONSE", &BOTH[..]),
        ("/error-code", "RESPONSE_ERROR", &BOTH),
        ("/twice", "RESPONSE_SET_TWICE", &BOTH),
        ("/short", "BODY_TOO_SHORT", &BOTH),
        ("/long", "BODY_TOO_LONG", &BOTH),
        ("/aborted", "BODY_ABORTED", &BOTH),
        ("/flood?count=101", "RESPONSE_HEADERS_TOO_LARGE", &BOTH),
        (
            "/flood?count=2&bytes=17000",
            "RESPONSE_HEADERS_TOO_LARGE",
            &BOTH,
        ),
        ("/panic", "TRAP", &BOTH),
        ("/panic-late", "TRAP", &BOTH),
    ] {
        for name in names {
            let came = came(&world, name, path).await;
            assert_eq!(came, ("error".to_owned(), json!(code)), "{name} {path}");
        }
    }
    for name in BOTH {
        let answer = call(&world, name, "/panic-late", json!(1)).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("own words, late"),
            "the trap is kept: {message}"
        );
    }
    // What a function never finished is finished when it returns.
    let answer = call(&world, "http02", "/unfinished", json!(1)).await;
    assert_eq!(answer["output"], "unfinished");
}

#[tokio::test]
async fn what_comes_after_a_complete_answer_changes_nothing_and_is_in_the_log() {
    let world = both().await;
    let answer = call(&world, "http02", "/panic-after", json!(1)).await;
    assert_eq!(answer["output"], "complete");
    let attempts = world
        .attempts(answer["executionId"].as_str().unwrap())
        .await;
    let log = attempts[0]["lines"].to_string();
    assert!(
        log.contains("after its response was complete: TRAP"),
        "{log}"
    );

    let answer = call(&world, "http03", "/after", json!(1)).await;
    assert_eq!(answer["status"], "success", "{answer}");
    let attempts = world
        .attempts(answer["executionId"].as_str().unwrap())
        .await;
    assert_eq!(attempts[0]["lines"][0]["text"], "worked on");
}

#[tokio::test]
async fn the_limits_hold_for_http_functions_too() {
    let world = both().await;
    for name in BOTH {
        let limits = json!({"timeoutMs": 300, "memoryMb": 16, "outputBytesMax": 100_000});
        world
            .patch(&format!("/v1/functions/{name}"), limits)
            .await
            .expect(200);
        assert_eq!(came(&world, name, "/down?bytes=100000").await.0, "success");
        let (status, code) = came(&world, name, "/down?bytes=100001").await;
        assert_eq!(
            (&*status, code),
            ("error", json!("OUTPUT_TOO_LARGE")),
            "{name}"
        );
        let (status, code) = came(&world, name, "/alloc").await;
        assert_eq!((&*status, code), ("error", json!("MEMORY_LIMIT")), "{name}");
        for path in ["/hang", "/spin", "/stall"] {
            let (status, _) = came(&world, name, path).await;
            assert_eq!(status, "timeout", "{name} {path}");
        }
        let patch = json!({"timeoutMs": null, "cpuMs": 50});
        world
            .patch(&format!("/v1/functions/{name}"), patch)
            .await
            .expect(200);
        let (status, code) = came(&world, name, "/spin").await;
        assert_eq!((&*status, code), ("error", json!("CPU_LIMIT")), "{name}");
    }
    let patch = json!({"cpuMs": null, "memoryMb": null});
    world.patch("/v1/functions/http02", patch).await.expect(200);
    let (status, code) = came(&world, "http02", "/hoard").await;
    assert_eq!((&*status, code), ("error", json!("HOST_LIMIT")));
}

#[tokio::test]
async fn what_a_function_prints_is_its_log() {
    let world = both().await;
    for name in BOTH {
        let answer = call(&world, name, "/log", json!(1)).await;
        let attempts = world
            .attempts(answer["executionId"].as_str().unwrap())
            .await;
        let lines = attempts[0]["lines"].as_array().unwrap();
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (&line["stream"], &line["text"]))
            .collect();
        let expected = [("stdout", "to stdout"), ("stderr", "to stderr")];
        assert_eq!(lines.len(), 2);
        for ((stream, text), expected) in lines.iter().zip(expected) {
            assert_eq!((stream.as_str().unwrap(), text.as_str().unwrap()), expected);
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_to_the_network() {
    let world = both().await;
    for name in BOTH {
        let answer = call(&world, name, "/send?to=http://127.0.0.1:1/", json!(1)).await;
        let told = answer["output"].as_str().unwrap();
        assert_eq!(told, "ErrorCode::HttpRequestDenied");
    }
}

#[tokio::test]
async fn a_command_of_wasi_0_3_reads_writes_and_exits() {
    let world = World::new()
        .background()
        .function("c", command03())
        .spec(json!({"maxRetries": 1}))
        .await;
    let run = async |args: Value, input: &str| {
        world
            .patch("/v1/functions/c", json!({"args": args}))
            .await
            .expect(200);
        world.invoke("c", json!(input)).await.expect(200)
    };
    assert_eq!(run(json!([]), "text").await["output"], "TEXT");
    let large = "x".repeat(300_000);
    assert_eq!(run(json!([]), &large).await["output"], large.to_uppercase());
    assert_eq!(run(json!(["fail"]), "").await["error"]["code"], "EXIT_1");
    assert_eq!(run(json!(["exit"]), "").await["error"]["code"], "EXIT_65");
    assert_eq!(run(json!(["panic"]), "").await["error"]["code"], "TRAP");
    let logged = run(json!(["log"]), "x").await;
    let attempts = world
        .attempts(logged["executionId"].as_str().unwrap())
        .await;
    assert_eq!(attempts[0]["lines"][0]["text"], "to stderr");
    world
        .patch("/v1/functions/c", json!({"timeoutMs": 200}))
        .await
        .expect(200);
    assert_eq!(run(json!(["spin"]), "").await["status"], "timeout");
    let patch = json!({"outputBytesMax": 3});
    world.patch("/v1/functions/c", patch).await.expect(200);
    assert_eq!(
        run(json!([]), "long").await["error"]["code"],
        "OUTPUT_TOO_LARGE"
    );
}

#[tokio::test]
async fn a_module_of_wasi_unstable_runs_like_one_of_preview_1() {
    let wat = r#"(module
        (import "wasi_unstable" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 1024))
            (i32.store (i32.const 4) (i32.const 4096))
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (i32.store (i32.const 4) (i32.load (i32.const 8)))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 33)) (then (call $exit (i32.const 200))))))"#;
    let wasm = wat::parse_str(wat).unwrap();
    let world = World::new()
        .background()
        .function("old", wasm)
        .spec(json!({"maxRetries": 1}))
        .await;
    let answer = world.invoke("old", json!("hello")).await.expect(200);
    assert_eq!(answer["output"], "hello");
    let answer = world.invoke("old", json!("!")).await.expect(200);
    assert_eq!(answer["error"]["code"], "EXIT_200");
    let both_previews = wat::parse_str(
        r#"(module
        (import "wasi_unstable" "sched_yield" (func (result i32)))
        (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")))"#,
    );
    let both_previews = both_previews.unwrap();
    world.upload("both", both_previews).await.expect(201);
}
