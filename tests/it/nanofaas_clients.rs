//! nanofaas's clients, unmodified: what its command line, its load scripts and the callbacks of its SDKs send,
//! replayed byte for byte over real sockets, and what each needs to see in the answer.

use std::net::SocketAddr;
use std::path::PathBuf;

use pelton::app::{App, CompilerProgram};
use pelton::config::{Config, Options};
use serde_json::{Value, json};

use crate::support::guests;
use crate::support::raw::{Answer, Connection};
use crate::support::service::{Reply, Service};

/// A plane on real sockets.
struct Plane {
    app: App,
    _folder: tempfile::TempDir,
}

impl Plane {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            listen: "127.0.0.1:0".to_owned(),
            management_listen: "127.0.0.1:0".to_owned(),
            data_dir: folder.path().join("data"),
            ..Options::default()
        };
        let compiler = CompilerProgram::At(PathBuf::from(env!("CARGO_BIN_EXE_pelton")));
        let config = Config::try_from(options).unwrap();
        let app = App::start_with(config, compiler).await.unwrap();
        let _folder = folder;
        Self { app, _folder }
    }

    fn addr(&self) -> SocketAddr {
        self.app.addr()
    }

    async fn connect(&self) -> Connection {
        Connection::open(self.addr()).await
    }

    /// Uploads a guest under a name of nanofaas's.
    async fn deploy(&self, name: &str, guest: &str) {
        let wasm = guests::wasm(guest);
        let head = format!(
            "PUT /v1/functions/{name} HTTP/1.1
            Host: localhost
            Content-Type: application/wasm
            Content-Length: {}",
            wasm.len()
        );
        let answer = self.connect().await.ask(&head, &wasm).await;
        answer.expect(201);
    }

    /// Registers a function from a spec, as curl does.
    async fn register(&self, spec: &Value) {
        let mut connection = self.connect().await;
        let created = curl(&mut connection, "POST", "/v1/functions", spec).await;
        created.expect(201);
    }

    async fn execution(&self, id: &str) -> Value {
        let path = format!("/v1/executions/{id}");
        let answer = java(&mut self.connect().await, "GET", &path, &[], None).await;
        answer.expect(200).json()
    }

    /// The execution once it has ended, as clients wait for it: by asking again.
    async fn ended(&self, id: &str) -> Value {
        crate::support::world::within("an end", async {
            loop {
                let execution = self.execution(id).await;
                if execution["finishedAt"].is_string() {
                    return execution;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

/// A request of Java's HTTP client in its default mode: it offers to go on in HTTP/2 every time.
async fn java(
    connection: &mut Connection,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\nConnection: Upgrade, HTTP2-Settings\n");
    let body = body.map(Value::to_string);
    if let Some(body) = &body {
        head.push_str(&format!("Content-Length: {}\n", body.len()));
    }
    head.push_str(
        "Host: 127.0.0.1:8080
        HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA
        Upgrade: h2c
        User-Agent: Java-http-client/21.0.4\n",
    );
    if body.is_some() {
        head.push_str("Content-Type: application/json\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\n"));
    }
    let body = body.unwrap_or_default();
    connection.ask(&head, body.as_bytes()).await
}

/// A request of curl.
async fn curl(connection: &mut Connection, method: &str, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1
        Host: localhost:8080
        User-Agent: curl/8.5.0
        Accept: */*
        Content-Type: application/json
        Content-Length: {}",
        body.len()
    );
    connection.ask(&head, body.as_bytes()).await
}

/// A request of k6.
async fn k6(connection: &mut Connection, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1
        Host: localhost:8080
        User-Agent: k6/0.54.0 (https://k6.io/)
        Content-Length: {}
        Content-Type: application/json",
        body.len()
    );
    connection.ask(&head, body.as_bytes()).await
}

/// The spec that nanofaas's command line makes of a file that says next to nothing: every field is there.
fn scaffolded(name: &str, further: Value) -> Value {
    let mut spec = json!({
        "name": name, "image": null, "command": null, "env": null, "resources": null, "timeoutMs": null,
        "concurrency": null, "queueSize": null, "maxRetries": null, "endpointUrl": null, "executionMode": null,
        "runtimeMode": null, "runtimeCommand": null, "scalingConfig": null, "imagePullSecrets": null,
    });
    let further = further.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(further);
    spec
}

// The command line.

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_http_2_is_passed_over_and_the_connection_goes_on() {
    let plane = Plane::start().await;
    let mut connection = plane.connect().await;
    for _ in 0..3 {
        let list = java(&mut connection, "GET", "/v1/functions", &[], None).await;
        let list = list.expect(200);
        assert_eq!(list.header("upgrade"), "");
        assert_eq!(list.json(), json!([]));
    }
    let spec = scaffolded("echo", json!({"image": "builtin:echo"}));
    let created = java(&mut connection, "POST", "/v1/functions", &[], Some(&spec)).await;
    created.expect(201);
    // A client that knows the server speaks HTTP/2 needs no offer.
    let mut prior = plane.connect().await;
    prior
        .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let frame = prior.bytes(9).await;
    assert_eq!(frame[3], 4, "the first frame is no SETTINGS: {frame:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_applies_and_deletes_functions() {
    let plane = Plane::start().await;
    let mut cli = plane.connect().await;
    let spec = scaffolded(
        "echo",
        json!({"image": "builtin:echo", "timeoutMs": 10_000}),
    );
    let ask = async |cli: &mut Connection, method: &str, path: &str, body: Option<&Value>| {
        java(cli, method, path, &[], body).await
    };
    let (all, one) = ("/v1/functions", "/v1/functions/echo");

    // fn apply: what is not there is registered.
    let created = ask(&mut cli, "POST", all, Some(&spec)).await.expect(201);
    assert_decodes(&created.json());
    assert_eq!(created.json()["timeoutMs"], 10_000);
    // fn apply: what is there is read, and deleted and registered again.
    ask(&mut cli, "POST", all, Some(&spec)).await.expect(409);
    let shown = ask(&mut cli, "GET", one, None).await.expect(200);
    assert_decodes(&shown.json());
    let deleted = ask(&mut cli, "DELETE", one, None).await.expect(204);
    assert!(deleted.body.is_empty());
    ask(&mut cli, "POST", all, Some(&spec)).await.expect(201);
    // What the server shows may be sent back.
    ask(&mut cli, "DELETE", one, None).await.expect(204);
    ask(&mut cli, "POST", all, Some(&shown.json()))
        .await
        .expect(201);
    // fn update: a patch.
    let patch = json!({"timeoutMs": 20_000, "env": null});
    let patched = ask(&mut cli, "PATCH", one, Some(&patch)).await.expect(200);
    assert_eq!(patched.json()["timeoutMs"], 20_000);
    // fn list: a line of name and image each.
    let list = ask(&mut cli, "GET", all, None).await.expect(200).json();
    for function in list.as_array().unwrap() {
        assert_decodes(function);
        assert!(function["name"].is_string() && function["image"].is_string());
    }
    // fn delete and fn get of what is not there.
    ask(&mut cli, "DELETE", one, None).await.expect(204);
    for method in ["DELETE", "GET"] {
        let gone = ask(&mut cli, method, one, None).await.expect(404).json();
        assert_eq!(gone["error"], "FUNCTION_NOT_FOUND");
    }
    // deploy -f: an image that nobody knows has the code that it looks for.
    let unknown = scaffolded("f", json!({"image": "reg/f:1", "executionMode": "LOCAL"}));
    let unknown = ask(&mut cli, "POST", all, Some(&unknown)).await.expect(422);
    assert_eq!(unknown.json()["error"], "IMAGE_NOT_FOUND");
}

/// Whether nanofaas's command line can decode this function: it fails at a new value of a field that it knows as
/// an enum, and at a field of another type.
#[track_caller]
fn assert_decodes(function: &Value) {
    let words = |field: &str, words: &[&str]| {
        let value = &function[field];
        let known = value.is_null() || words.contains(&value.as_str().unwrap());
        assert!(known, "{field}: {function}");
    };
    for field in [
        "executionMode",
        "requestedExecutionMode",
        "effectiveExecutionMode",
    ] {
        words(field, &["LOCAL", "POOL", "DEPLOYMENT"]);
    }
    words("runtimeMode", &["HTTP", "STDIO", "FILE"]);
    for field in ["timeoutMs", "concurrency", "queueSize", "maxRetries"] {
        assert!(function[field].is_u64(), "{field}: {function}");
    }
    for field in ["name", "image", "endpointUrl", "runtimeCommand"] {
        let value = &function[field];
        assert!(value.is_null() || value.is_string(), "{field}: {function}");
    }
    for field in ["command", "imagePullSecrets"] {
        let value = &function[field];
        assert!(value.is_null() || value.is_array(), "{field}: {function}");
    }
    for field in ["env", "resources", "scalingConfig"] {
        let value = &function[field];
        assert!(value.is_null() || value.is_object(), "{field}: {function}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_calls_queues_and_watches() {
    let plane = Plane::start().await;
    plane
        .register(&json!({"name": "echo", "image": "builtin:echo"}))
        .await;
    let mut cli = plane.connect().await;
    let call = json!({"input": {"n": [1, 2.50, "é"]}, "metadata": null});
    let headers = [
        ("Idempotency-Key", "order-7"),
        ("X-Trace-Id", "trace-7"),
        ("X-Timeout-Ms", "5000"),
    ];
    let invoke = "/v1/functions/echo:invoke";
    let invoked = java(&mut cli, "POST", invoke, &headers, Some(&call)).await;
    let invoked = invoked.expect(200);
    let body = invoked.json();
    // Its record has these four, nulls printed.
    assert_eq!(body["status"], "success");
    assert_eq!(body["output"], call["input"]);
    assert_eq!(body.get("error"), Some(&Value::Null));
    let id = body["executionId"].as_str().unwrap();
    assert_eq!(invoked.header("x-execution-id"), id);

    let enqueue = "/v1/functions/echo:enqueue";
    let queued = java(&mut cli, "POST", enqueue, &[], Some(&call)).await;
    let queued = queued.expect(202).json();
    assert_eq!(queued["status"], "queued");
    for field in ["output", "error"] {
        assert_eq!(queued.get(field), Some(&Value::Null), "{field}");
    }

    // exec get --watch: until one of the words that it knows as an end; times as ISO-8601 strings.
    let ended = plane.ended(queued["executionId"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "success");
    for field in ["startedAt", "finishedAt"] {
        let time: jiff::Timestamp = ended[field].as_str().unwrap().parse().unwrap();
        assert!(time.as_second() > 1_700_000_000);
    }
    assert!(ended["coldStart"].is_boolean());
    for field in ["output", "error", "initDurationMs"] {
        assert!(ended.get(field).is_some(), "{field} is left out");
    }
    let nobody = "/v1/executions/00000000-0000-4000-8000-000000000000";
    java(&mut cli, "GET", nobody, &[], None).await.expect(404);
    let null = json!({"input": null, "metadata": null});
    let null = java(&mut cli, "POST", invoke, &[], Some(&null)).await;
    assert_eq!(null.expect(400).json()["error"], "VALIDATION_ERROR");
}

/// `fn test`: a case passes if the call succeeded and its output equals what is expected, as a JSON tree.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_tests_a_function_with_its_payloads() {
    let plane = Plane::start().await;
    plane.deploy("roman-numeral-java", "roman-numeral").await;
    let mut cli = plane.connect().await;
    for (number, roman) in [(42, "XLII"), (1994, "MCMXCIV"), (3999, "MMMCMXCIX")] {
        let call = json!({"input": {"number": number}, "metadata": null});
        let path = "/v1/functions/roman-numeral-java:invoke";
        let limit = [("X-Timeout-Ms", "30000")];
        let answer = java(&mut cli, "POST", path, &limit, Some(&call)).await;
        let answer = answer.expect(200).json();
        assert_eq!(answer["status"], "success");
        assert_eq!(answer["output"], json!({"roman": roman}));
    }
}

// Load scripts.

/// Of this form are the texts that the scripts make.
fn text(words: usize) -> String {
    "The quick runner jumps slowly. ".repeat(words)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_scripts_find_what_they_check() {
    let plane = Plane::start().await;
    for name in ["word-stats-java", "word-stats-exec", "word-stats-java-lite"] {
        plane.deploy(name, "word-stats").await;
    }
    plane.deploy("json-transform-java", "json-transform").await;
    // run-all.sh looks whether the server is there.
    let mut shell = plane.connect().await;
    let list = shell
        .ask(
            "GET /v1/functions HTTP/1.1
            Host: localhost:30080
            User-Agent: curl/8.5.0
            Accept: */*",
            b"",
        )
        .await;
    assert_eq!(list.expect(200).json().as_array().unwrap().len(), 4);

    // Each virtual user keeps its connection.
    let mut user = plane.connect().await;
    for (n, name) in ["word-stats-java", "word-stats-exec", "word-stats-java-lite"]
        .into_iter()
        .enumerate()
    {
        let call = json!({"input": {"text": text(n + 5), "topN": n + 3}});
        let path = format!("/v1/functions/{name}:invoke");
        let answer = k6(&mut user, &path, &call).await.expect(200).json();
        assert!(answer["error"].is_null(), "{answer}");
        assert!(answer["output"]["wordCount"].as_u64().unwrap() > 0);
    }
    let rows: Vec<_> = (0..31)
        .map(|n| json!({"dept": n % 3, "region": "eu", "tier": 1, "salary": n * 100, "age": 30, "score": 1.5}))
        .collect();
    for operation in ["count", "sum", "avg", "min", "max"] {
        let input = json!({"data": rows, "groupBy": "dept", "operation": operation, "valueField": "salary"});
        let path = "/v1/functions/json-transform-java:invoke";
        let answer = k6(&mut user, path, &json!({"input": input})).await;
        let answer = answer.expect(200).json();
        assert!(answer["error"].is_null(), "{answer}");
        assert!(answer["output"]["groups"].is_object(), "{answer}");
    }
    // INVOCATION_MODE=async
    let call = json!({"input": {"text": text(5), "topN": 3}});
    let path = "/v1/functions/word-stats-java:enqueue";
    let queued = k6(&mut user, path, &call).await.expect(202).json();
    let id = queued["executionId"].as_str().unwrap();
    assert_eq!(plane.ended(id).await["status"], "success");
    // two-vm-function-invoke.js posts its payload file as it is, without `input`: refused here as there.
    let bare = json!({"text": text(5), "topN": 3});
    let path = "/v1/functions/word-stats-java:invoke";
    let refused = k6(&mut user, path, &bare).await.expect(400).json();
    assert_eq!(refused["error"], "VALIDATION_ERROR");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tool_finds_its_fixture_and_its_metrics() {
    let plane = Plane::start().await;
    let mut tool = plane.connect().await;
    let fixture = json!({"name": "tool-metrics-echo", "image": "builtin:echo", "executionMode": "LOCAL",
        "timeoutMs": 5000, "concurrency": 4, "queueSize": 100, "maxRetries": 0});
    curl(&mut tool, "POST", "/v1/functions", &fixture)
        .await
        .expect(201);
    curl(&mut tool, "POST", "/v1/functions", &fixture)
        .await
        .expect(409);
    let call = json!({"input": {"seq": 1, "source": "controlplane-tool"}, "metadata": {"source": "controlplane-tool"}});
    let path = "/v1/functions/tool-metrics-echo:invoke";
    let answer = k6(&mut tool, path, &call).await.expect(200).json();
    assert_eq!(answer["status"], "success");

    // Prometheus asks for OpenMetrics first; it is told which text this is.
    let mut prometheus = Connection::open(plane.app.management_addr()).await;
    let metrics = prometheus
        .ask(
            "GET /actuator/prometheus HTTP/1.1
            Host: localhost:8081
            User-Agent: Prometheus/2.54.1
            Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1
            Accept-Encoding: gzip
            X-Prometheus-Scrape-Timeout-Seconds: 10",
            b"",
        )
        .await
        .expect(200);
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let metrics = String::from_utf8(metrics.body).unwrap();
    // The strict gate: a name itself, or one of these two endings of it.
    for name in [
        "function_enqueue_total",
        "function_dispatch_total",
        "function_success_total",
        "function_error_total",
        "function_retry_total",
        "function_timeout_total",
        "function_queue_rejected_total",
        "function_cold_start_total",
        "function_warm_start_total",
        "function_latency_ms",
        "function_init_duration_ms",
        "function_queue_wait_ms",
        "function_e2e_latency_ms",
    ] {
        let found = metrics.lines().any(|line| {
            let series = line.split(['{', ' ']).next().unwrap();
            ["", "_seconds_count", "_count"]
                .iter()
                .any(|end| series == format!("{name}{end}"))
                && line.contains("tool-metrics-echo")
        });
        assert!(found, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_scripts_may_send_in_pieces_and_ask_first() {
    let plane = Plane::start().await;
    plane
        .register(&json!({"name": "echo", "image": "builtin:echo"}))
        .await;
    let mut shell = plane.connect().await;
    let body = json!({"input": "x".repeat(100_000)}).to_string();
    // curl asks before it sends a long body.
    let head = format!(
        "POST /v1/functions/echo:invoke HTTP/1.1
        Host: localhost
        Content-Type: application/json
        Content-Length: {}
        Expect: 100-continue",
        body.len()
    );
    let go_on = shell.ask(&head, b"").await;
    assert_eq!(go_on.status, 100);
    shell.send(body.as_bytes()).await;
    let answer = shell.answer().await.expect(200).json();
    assert_eq!(answer["output"].as_str().unwrap().len(), 100_000);
    // In chunks, as Java's Spring client and curl with a pipe do; on the same connection.
    let (first, rest) = body.split_at(33);
    let chunked = format!(
        "{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        first.len(),
        rest.len()
    );
    let answer = shell
        .ask(
            "POST /v1/functions/echo:enqueue HTTP/1.1
            Host: localhost
            Content-Type: application/json;charset=UTF-8
            Transfer-Encoding: chunked",
            chunked.as_bytes(),
        )
        .await;
    answer.expect(202);
    // One that is refused is not asked to send its body.
    let answer = shell
        .ask(
            "POST /v1/functions/echo:invoke HTTP/1.1
            Host: localhost
            Content-Type: application/json
            Content-Length: 99999999
            Expect: 100-continue",
            b"",
        )
        .await;
    assert_eq!(answer.expect(413).json()["error"], "PAYLOAD_TOO_LARGE");
}

/// The chart's job waits for the management port, then registers each function.
#[tokio::test(flavor = "multi_thread")]
async fn probes_find_health_on_the_management_port() {
    let plane = Plane::start().await;
    let mut probe = Connection::open(plane.app.management_addr()).await;
    for path in ["", "/liveness", "/readiness"] {
        let head = format!(
            "GET /actuator/health{path} HTTP/1.1
            Host: localhost:8081
            User-Agent: kube-probe/1.30
            Accept: */*"
        );
        let answer = probe.ask(&head, b"").await.expect(200);
        assert_eq!(answer.json()["status"], "UP");
    }
}

// Callbacks of the SDKs.

/// What an SDK sends as a callback: the head after its first line, and the body.
struct Callback {
    sdk: &'static str,
    head: &'static str,
    succeeded: Value,
    failed: Value,
}

fn callbacks() -> Vec<Callback> {
    let error = json!({"code": "HANDLER_ERROR", "message": "no widgets left"});
    let java = |sdk, head| Callback {
        sdk,
        head,
        succeeded: json!({"success": true, "output": {"ok": 1}, "error": null}),
        failed: json!({"success": false, "output": null, "error": error}),
    };
    vec![
        java(
            "java-lite",
            "Connection: Upgrade, HTTP2-Settings
            Host: 127.0.0.1:8080
            HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA
            Upgrade: h2c
            User-Agent: Java-http-client/21.0.4
            Content-Type: application/json
            X-Trace-Id: trace-7",
        ),
        java(
            "python",
            "Host: 127.0.0.1:8080
            Accept: */*
            Accept-Encoding: gzip, deflate
            Connection: keep-alive
            User-Agent: python-httpx/0.27.2
            Content-Type: application/json
            X-Trace-Id: trace-7",
        ),
        Callback {
            sdk: "javascript",
            head: "host: 127.0.0.1:8080
            connection: keep-alive
            content-type: application/json
            accept: */*
            accept-language: *
            sec-fetch-mode: cors
            user-agent: node
            accept-encoding: gzip, deflate",
            succeeded: json!({"success": true, "output": {"ok": 1}}),
            failed: json!({"success": false, "error": error}),
        },
        java(
            "go",
            "Host: 127.0.0.1:8080
            User-Agent: Go-http-client/1.1
            Content-Type: application/json
            Accept-Encoding: gzip",
        ),
        // Its older releases say neither `success` nor `status`: an error speaks for itself.
        Callback {
            sdk: "older go",
            head: "Host: 127.0.0.1:8080
            User-Agent: Go-http-client/1.1
            Content-Type: application/json
            Accept-Encoding: gzip",
            succeeded: json!({"output": {"ok": 1}}),
            failed: json!({"error": error}),
        },
        // With what newer releases send beside it.
        Callback {
            sdk: "newer go",
            head: "Host: 127.0.0.1:8080
            User-Agent: Go-http-client/2.0
            Content-Type: application/json",
            succeeded: json!({"success": true, "output": {"ok": 1}, "error": null, "statusCode": 200,
                "headers": {"a": "b"}, "encoding": "base64"}),
            failed: json!({"success": false, "output": null, "error": error}),
        },
    ]
}

impl Callback {
    async fn post(&self, addr: SocketAddr, id: &str, attempt: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let attempt = match attempt {
            "" => String::new(),
            attempt => format!("X-Dispatch-Attempt: {attempt}\n"),
        };
        let head = format!(
            "POST /v1/internal/executions/{id}:complete HTTP/1.1\n{attempt}{}\nContent-Length: {}",
            self.head,
            body.len()
        );
        let mut connection = Connection::open(addr).await;
        connection.ask(&head, body.as_bytes()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_ends_a_call_and_a_second_one_does_no_harm() {
    let plane = Plane::start().await;
    let service = Service::held(|_| Reply::ok(&json!("from the answer"))).await;
    plane.register(&pool("f", &service.url)).await;
    let mut client = plane.connect().await;
    for (n, callback) in callbacks().into_iter().enumerate() {
        let id = queue(&mut client, "f", &json!(n)).await;
        let seen = service.asked(&json!(n)).await;
        // Only Java's runtimes name the attempt that they report on.
        let attempt = match callback.sdk {
            "java-lite" => seen.header("x-dispatch-attempt"),
            _ => "",
        };
        let body = &callback.succeeded;
        for _ in 0..2 {
            let answer = callback.post(plane.addr(), &id, attempt, body).await;
            assert!(answer.expect(204).body.is_empty(), "{}", callback.sdk);
        }
        let ended = plane.ended(&id).await;
        assert_eq!(ended["status"], "success", "{}: {ended}", callback.sdk);
        assert_eq!(ended["output"], json!({"ok": 1}), "{}", callback.sdk);
        let failed = &callback.failed;
        let late = callback.post(plane.addr(), &id, attempt, failed).await;
        late.expect(204);
        assert_eq!(plane.execution(&id).await, ended, "{}", callback.sdk);
    }
}

/// An SDK answers and calls back as well: each execution is reported twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_after_the_answer_changes_nothing() {
    let plane = Plane::start().await;
    let service = Service::answering(|_| Reply::ok(&json!("from the answer"))).await;
    plane.register(&pool("f", &service.url)).await;
    let mut client = plane.connect().await;
    for (n, callback) in callbacks().into_iter().enumerate() {
        let id = queue(&mut client, "f", &json!(n)).await;
        let ended = plane.ended(&id).await;
        assert_eq!(ended["output"], "from the answer");
        for body in [&callback.succeeded, &callback.failed] {
            let late = callback.post(plane.addr(), &id, "", body).await;
            late.expect(204);
        }
        assert_eq!(plane.execution(&id).await, ended, "{}", callback.sdk);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_called_back_follows_the_policy() {
    let plane = Plane::start().await;
    let service = Service::held(|_| Reply::ok(&json!("from the answer"))).await;
    plane.register(&pool("f", &service.url)).await;
    let mut client = plane.connect().await;
    for (n, callback) in callbacks().into_iter().enumerate() {
        let id = queue(&mut client, "f", &json!(n)).await;
        service.asked(&json!(n)).await;
        let body = &callback.failed;
        let told = callback.post(plane.addr(), &id, "", body).await;
        told.expect(204);
        let ended = plane.ended(&id).await;
        assert_eq!(ended["status"], "error", "{}: {ended}", callback.sdk);
        assert_eq!(ended["error"]["code"], "HANDLER_ERROR", "{}", callback.sdk);
    }
    let unknown = "00000000-0000-4000-8000-000000000000";
    let callback = &callbacks()[0];
    let body = &callback.succeeded;
    let answer = callback.post(plane.addr(), unknown, "1", body).await;
    answer.expect(404);
}

/// A function behind a URL, as nanofaas's tools register it.
fn pool(name: &str, url: &str) -> Value {
    json!({"name": name, "image": "demo/f:1", "executionMode": "POOL", "endpointUrl": url, "maxRetries": 1})
}

/// Queues a call; its id.
async fn queue(client: &mut Connection, name: &str, input: &Value) -> String {
    let path = format!("/v1/functions/{name}:enqueue");
    let queued = k6(client, &path, &json!({ "input": input })).await;
    let queued = queued.expect(202).json();
    queued["executionId"].as_str().unwrap().to_owned()
}
