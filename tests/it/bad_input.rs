//! What bad input gets: a reason, in the one error shape, and nothing is stored.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use pelton::runtime::{ChildCompiler, Compiler, InProcessCompiler, Options, Runtime};
use serde_json::{Value, json};

use crate::support::guests;
use crate::support::programs::program;
use crate::support::world::World;

/// A world with a folder of code of its own, and the function `f` with code that works.
struct Plant {
    world: World,
    folder: tempfile::TempDir,
    /// The names of the files of code that belong there.
    files: Vec<String>,
    standing: Value,
}

impl Plant {
    async fn new() -> Self {
        let compiler = InProcessCompiler::new().unwrap();
        Self::with(|_| Arc::new(compiler), |_| {}).await
    }

    async fn with(
        compiler: impl FnOnce(&Options) -> Arc<dyn Compiler>,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path());
        options.guests_max = 4;
        change(&mut options);
        let runtime = Runtime::open(&options, compiler(&options)).unwrap();
        let world = World::new()
            .background()
            .setup(|setup| setup.runtime = Some(runtime))
            .function("f", guests::wasm("echo"))
            .await;
        let standing = world.get("/v1/functions/f").await.expect(200);
        let mut plant = Self {
            world,
            folder,
            files: Vec::new(),
            standing,
        };
        plant.files = plant.files_now();
        plant
    }

    fn files_now(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// Everything is as it was: the function, its versions, the files, and no new name.
    async fn check_untouched(&self) {
        let function = self.world.get("/v1/functions/f").await.expect(200);
        assert_eq!(function, self.standing);
        let functions = self.world.get("/v1/functions").await.expect(200);
        assert_eq!(functions, json!([self.standing]));
        let answer = self
            .world
            .invoke("f", json!("still there"))
            .await
            .expect(200);
        assert_eq!(answer["output"], "still there");
        assert_eq!(self.files_now(), self.files);
    }

    /// An upload is refused with this code and these words, for a known name and for a new one, alone and
    /// with a spec; nothing changes.
    async fn check_refused(&self, wasm: impl Into<Bytes>, code: &str, words: &[&str]) {
        let wasm = wasm.into();
        for name in ["f", "new"] {
            let answers = [
                self.world.upload(name, wasm.clone()).await,
                self.world
                    .upload_with(name, &json!({"memoryMb": 64}), &wasm)
                    .await,
            ];
            for answer in answers {
                let text = answer.refused(422, code);
                for word in words {
                    assert!(text.contains(word), "{word}: {text}");
                }
            }
        }
        self.check_untouched().await;
    }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn what_is_no_wasm_is_refused() {
    let plant = Plant::new().await;
    plant
        .check_refused(Bytes::new(), "NOT_WASM", &["empty"])
        .await;
    plant
        .check_refused("hello, wheel", "NOT_WASM", &["wasm"])
        .await;
    plant.check_refused("(module)", "NOT_WASM", &["text"]).await;
    plant
        .check_refused(b"\0asm".to_vec(), "NOT_WASM", &[])
        .await;
    plant
        .check_refused(b"\0asm\x63\0\0\0".to_vec(), "NOT_WASM", &[])
        .await;
    plant
        .check_refused(b"\x7fELF\x02\x01\x01\0\0\0\0\0".to_vec(), "NOT_WASM", &[])
        .await;
}

#[tokio::test]
async fn truncated_wasm_is_refused_wherever_it_ends() {
    let plant = Plant::new().await;
    for wasm in [program("(call $exit (i32.const 0))"), guests::wasm("echo")] {
        for part in [9, wasm.len() / 3, wasm.len() / 2, wasm.len() - 1] {
            plant
                .check_refused(wasm.slice(..part), "NOT_WASM", &[])
                .await;
        }
    }
    // Invalid rather than short: a function that leaves its stack unbalanced.
    let invalid = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x05\x01\x03\0\x41\0\x0b";
    plant.check_refused(invalid.to_vec(), "NOT_WASM", &[]).await;
}

#[tokio::test]
async fn an_export_of_no_shape_is_refused_with_what_was_found_and_expected() {
    let plant = Plant::new().await;
    let module = r#"(module (memory (export "memory") 1) (func (export "handle")))"#;
    plant
        .check_refused(wat(module), "UNSUPPORTED_WASM", &["handle", "_start"])
        .await;
    plant
        .check_refused(wat("(module)"), "UNSUPPORTED_WASM", &["_start"])
        .await;
    plant
        .check_refused(
            wat("(component)"),
            "UNSUPPORTED_WASM",
            &["pelton:function/handler"],
        )
        .await;
    let memoryless = r#"(module (func (export "_start")))"#;
    plant
        .check_refused(wat(memoryless), "UNSUPPORTED_WASM", &["memory"])
        .await;
}

#[tokio::test]
async fn imports_that_nobody_provides_are_named() {
    let plant = Plant::new().await;
    let module = r#"(module (import "bench" "start" (func)) (import "rb-js-abi-host" "eval" (func))
        (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
        (memory (export "memory") 1) (func (export "_start")))"#;
    plant
        .check_refused(
            wat(module),
            "MISSING_IMPORTS",
            &["bench.start", "rb-js-abi-host.eval"],
        )
        .await;
    let answer = plant.world.upload("new", wat(module)).await;
    assert_eq!(
        answer.json["details"],
        json!(["bench.start", "rb-js-abi-host.eval"])
    );
    let shared = r#"(module (import "env" "memory" (memory 1 2 shared)) (func (export "_start")))"#;
    let answer = plant.world.upload("new", wat(shared)).await;
    assert_eq!(answer.status, 422);
    assert!(
        answer.json["message"].as_str().unwrap().contains("memory"),
        "{}",
        answer.json
    );
    plant.check_untouched().await;
}

#[tokio::test]
async fn what_could_never_run_is_refused_with_the_number() {
    let plant = Plant::new().await;
    for (items, word) in [
        ("(table 200000 funcref)".to_owned(), "200000"),
        ("(table 1 funcref)".repeat(60), "60"),
        ("(memory 1)".repeat(99), "100"),
    ] {
        let module =
            format!(r#"(module (memory (export "memory") 1) {items} (func (export "_start")))"#);
        plant
            .check_refused(wat(&module), "UNSUPPORTED_WASM", &[word])
            .await;
    }
}

#[tokio::test]
async fn a_compile_bomb_is_refused_by_its_child() {
    let child = |options: &Options| -> Arc<dyn Compiler> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_pelton"));
        Arc::new(ChildCompiler::of_program(program, options).unwrap())
    };
    let plant = Plant::with(child, |options| {
        // The child's own program counts too, and is large in a debug build.
        options.compile_memory_bytes_max = 256 << 20;
    })
    .await;
    // One function that adds numbers for very long: small to upload, dear to compile.
    let body = "(local.set 0 (i32.add (i32.mul (local.get 0) (local.get 1)) (local.get 2)))\
                (local.set 1 (i32.xor (local.get 2) (local.get 0)))\
                (local.set 2 (i32.sub (local.get 1) (i32.const 77)))"
        .repeat(290_000);
    let bomb = wat(&format!(
        r#"(module (memory (export "memory") 1) (func (export "_start") (local i32 i32 i32) {body}))"#
    ));
    let answer = plant.world.upload("f", bomb).await;
    let text = answer.refused(422, "COMPILE_LIMIT");
    assert!(text.contains("memory"), "{text}");
    plant.check_untouched().await;
}

#[tokio::test]
async fn too_many_bytes_are_refused_before_they_are_read() {
    let plant = Plant::new().await;
    // Says that it is a terabyte, and has no bytes at all.
    let request = Request::put("/v1/functions/f")
        .header("host", "localhost")
        .header("content-type", "application/wasm")
        .header("content-length", "1099511627776")
        .body(Body::from_stream(futures_util::stream::pending::<
            Result<Bytes, std::io::Error>,
        >()));
    let answer = plant.world.send(request.unwrap()).await;
    answer.refused(413, "PAYLOAD_TOO_LARGE");
    plant.check_untouched().await;
}

#[tokio::test]
async fn a_bad_spec_beside_good_wasm_changes_nothing() {
    let plant = Plant::new().await;
    for (spec, words) in [
        (json!({"memoryMb": 0}), vec!["memoryMb", "1 to 4096"]),
        (json!({"memoryMB": 64}), vec!["memoryMB", "memoryMb"]),
        (json!({"name": "other"}), vec!["name", "other"]),
        (
            json!({"endpointUrl": "http://127.0.0.1:1/"}),
            vec!["endpointUrl"],
        ),
        (json!({"env": {"A=B": ""}}), vec!["env", "A=B"]),
        (json!({"env": {"ATTEMPT": "1"}}), vec!["env", "ATTEMPT"]),
        (json!({"args": ["a\u{0}b"]}), vec!["args", "NUL"]),
        (json!({"burst": 2}), vec!["burst", "ratePerSecond"]),
    ] {
        let answer = plant
            .world
            .upload_with("f", &spec, &guests::wasm("echo"))
            .await;
        let text = answer.refused(400, "VALIDATION_ERROR");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    plant.check_untouched().await;
}

#[tokio::test]
async fn every_complaint_comes_at_once() {
    let world = World::new().await;
    let spec = json!({
        "name": "1 bad name", "image": 7, "timeoutMs": 0, "concurency": 2, "retryBackoff": {"baseDelayMs": -1},
        "queueSize": "many", "executionMode": "REMOTE", "record": "never",
    });
    let answer = world.post("/v1/functions", spec).await;
    let text = answer.refused(400, "VALIDATION_ERROR");
    for word in [
        "name: ",
        "image: ",
        "timeoutMs: ",
        "concurency",
        "concurrency",
        "retryBackoff.baseDelayMs: ",
        "queueSize: ",
        "executionMode: ",
        "record: ",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(
        answer.json["details"].as_array().unwrap().len(),
        8,
        "{text}"
    );
    assert_eq!(world.get("/v1/functions").await.expect(200), json!([]));
}

#[tokio::test]
async fn names_match_or_are_refused() {
    let world = World::new().await;
    let long = "x".repeat(63);
    for good in ["a", "A.b-c_9", long.as_str()] {
        let spec = json!({"name": good, "image": "builtin:echo"});
        world.post("/v1/functions", spec).await.expect(201);
    }
    let too_long = "x".repeat(64);
    for bad in [
        "",
        " ",
        "9a",
        "-a",
        "a b",
        "a/b",
        "a:b",
        "é",
        "a\n",
        too_long.as_str(),
    ] {
        let spec = json!({"name": bad, "image": "builtin:echo"});
        let text = world
            .post("/v1/functions", spec)
            .await
            .refused(400, "VALIDATION_ERROR");
        assert!(text.contains("name"), "{bad:?}: {text}");
    }
    for bad in ["9a", "-a", "a%20b", too_long.as_str()] {
        let answer = world.upload(bad, guests::wasm("echo")).await;
        let text = answer.refused(400, "VALIDATION_ERROR");
        assert!(text.contains("name"), "{bad:?}: {text}");
    }
    let functions = world.get("/v1/functions").await.expect(200);
    assert_eq!(functions.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_misspelt_field_gets_a_suggestion() {
    let world = World::new().echo("f").await;
    for (wrong, right) in [
        ("timeoutms", "timeoutMs"),
        ("maxRetry", "maxRetries"),
        ("queuesize", "queueSize"),
        ("enviroment", "env"),
    ] {
        // A misspelt field that is null is misspelt all the same.
        for value in [json!(1), json!(null)] {
            let answer = world.patch("/v1/functions/f", json!({wrong: value})).await;
            let text = answer.refused(400, "VALIDATION_ERROR");
            assert!(text.contains(wrong), "{text}");
            if wrong != "enviroment" {
                assert!(text.contains(right), "{text}");
            }
        }
    }
    assert_eq!(
        world.get("/v1/functions/f").await.expect(200)["versions"],
        1
    );
}

#[tokio::test]
async fn a_call_without_input_or_without_json_is_refused() {
    let world = World::new().echo("f").await;
    for verb in ["invoke", "enqueue"] {
        let path = format!("/v1/functions/f:{verb}");
        for (body, code) in [
            ("{}", "VALIDATION_ERROR"),
            (r#"{"input": null}"#, "VALIDATION_ERROR"),
            (r#"{"inputs": 1}"#, "VALIDATION_ERROR"),
            (r#"{"input": 1, "metadata": {"a": 1}}"#, "VALIDATION_ERROR"),
            (r#"{"input": 1, "metadata": "a"}"#, "VALIDATION_ERROR"),
            ("", "BAD_REQUEST"),
            ("input", "BAD_REQUEST"),
            ("[1]", "BAD_REQUEST"),
            ("\"x\"", "BAD_REQUEST"),
            (r#"{"input": }"#, "BAD_REQUEST"),
            (r#"{"input": 1"#, "BAD_REQUEST"),
            (r#"{"input": 1} 2"#, "BAD_REQUEST"),
            (r#"{"input": 01}"#, "BAD_REQUEST"),
        ] {
            let json = [("content-type", "application/json")];
            world
                .ask("POST", &path, &json, body)
                .await
                .refused(400, code);
        }
        let json = [("content-type", "application/json")];
        let odd = world
            .ask("POST", &path, &json, b"{\"input\": \"\xff\"}".to_vec())
            .await;
        assert!(odd.refused(400, "BAD_REQUEST").contains("UTF-8"));
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            let headers = [("content-type", content_type)];
            let answer = world.ask("POST", &path, &headers, r#"{"input": 1}"#).await;
            let text = answer.refused(415, "UNSUPPORTED_MEDIA_TYPE");
            assert!(text.contains("application/json"), "{text}");
        }
        let answer = world.ask("POST", &path, &[], r#"{"input": 1}"#).await;
        answer.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    assert!(world.executions_of("f").await.is_empty());
}

#[tokio::test]
async fn an_unknown_function_is_named() {
    let world = World::new().await;
    let call = json!({"input": 1});
    for (method, path, body) in [
        ("GET", "/v1/functions/ghost", json!(null)),
        ("DELETE", "/v1/functions/ghost", json!(null)),
        ("PATCH", "/v1/functions/ghost", json!({"timeoutMs": 1})),
        ("GET", "/v1/functions/ghost/versions", json!(null)),
        ("POST", "/v1/functions/ghost:invoke", call.clone()),
        ("POST", "/v1/functions/ghost:enqueue", call),
        (
            "POST",
            "/v1/functions/ghost:rollback",
            json!({"version": 1}),
        ),
        ("POST", "/v1/internal/functions/ghost:drain-once", json!({})),
    ] {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = [("content-type", "application/json")];
        let answer = world.ask(method, path, &headers, body).await;
        let text = answer.refused(404, "FUNCTION_NOT_FOUND");
        assert!(text.contains("\"ghost\""), "{method} {path}: {text}");
    }
}

#[tokio::test]
async fn what_the_framework_refuses_has_the_same_shape() {
    let world = World::new().echo("f").await;
    let json = [("content-type", "application/json")];
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/functions/a/b/c",
        "/v1/functions/",
        "/%2e%2e/x",
    ] {
        world.get(path).await.refused(404, "NOT_FOUND");
    }
    for (method, path) in [
        ("DELETE", "/v1/functions"),
        ("PUT", "/v1/executions"),
        ("GET", "/v1/functions/f:invoke"),
        ("POST", "/v1/functions/f"),
        ("POST", "/actuator/health"),
        ("TRACE", "/v1/functions"),
    ] {
        let answer = world.ask(method, path, &json, "").await;
        answer.refused(405, "METHOD_NOT_ALLOWED");
        assert!(!answer.header("allow").is_empty(), "{method} {path}");
    }
    world
        .get("/v1/functions/%ff")
        .await
        .refused(400, "BAD_REQUEST");
    let unknown_verb = world.post("/v1/functions/f:explode", json!({})).await;
    unknown_verb.refused(404, "NOT_FOUND");
    let multipart = [("content-type", "multipart/form-data")];
    let answer = world.ask("PUT", "/v1/functions/f", &multipart, "x").await;
    answer.refused(400, "BAD_REQUEST");
    let multipart = [("content-type", "multipart/form-data; boundary=cut")];
    for body in [
        "",
        "x",
        "--cut\r\n",
        "--cut\r\ncontent-disposition: form-data; name=\"wasm\"\r\n\r\n\0asm",
    ] {
        let answer = world.ask("PUT", "/v1/functions/f", &multipart, body).await;
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.json);
        assert!(answer.json["error"].is_string(), "{body:?}");
    }
    let foreign = [
        ("content-type", "application/json"),
        ("origin", "http://evil.example"),
    ];
    let answer = world
        .ask("POST", "/v1/functions/f:invoke", &foreign, r#"{"input":1}"#)
        .await;
    answer.refused(403, "ORIGIN_REFUSED");
    let request = Request::get("/v1/functions").header("host", "evil.example");
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    answer.refused(403, "HOST_REFUSED");
    assert_eq!(
        world.get("/v1/functions/f").await.expect(200)["versions"],
        1
    );
}

#[tokio::test]
async fn an_address_that_must_not_be_called_is_refused_when_it_is_registered() {
    let world = World::new().await;
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[fd00::1]/",
        "http://0.0.0.0/",
        "http://0x7f.1/../",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1/",
        "/invoke",
        "http://",
        "",
    ] {
        let spec = json!({"name": "f", "endpointUrl": url});
        let answer = world.post("/v1/functions", spec).await;
        if url.contains("0x7f") {
            // Another way to write 127.0.0.1, which is allowed while the plane listens there.
            answer.expect(201);
            world.delete("/v1/functions/f").await.expect(204);
            continue;
        }
        let text = answer.refused(400, "VALIDATION_ERROR");
        assert!(text.contains("endpointUrl"), "{url}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
