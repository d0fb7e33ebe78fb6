//! Whatever bytes arrive: nothing panics, hangs or takes memory without bound, every refusal is in the error shape,
//! and what is refused has changed nothing.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::support::bytes::damaged;
use crate::support::heap::highest_during;
use crate::support::programs;
use crate::support::world::{Answer, World};

/// Bytes that a refusal may have at most.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// How much more memory than its own size a request may take while it is answered: a byte of JSON may become a
/// value of some dozen bytes, in a list that grows by doubling.
const TIMES_ITS_SIZE_MAX: usize = 200;
/// And beside it: connections of the store, buffers.
const BESIDE_BYTES_MAX: usize = 8 << 20;
/// No answer takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A world and the thread that everything in it happens on.
struct Place {
    runtime: Runtime,
    world: World,
}

impl Place {
    fn new(build: impl AsyncFnOnce() -> World) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let world = runtime.block_on(build());
        Self { runtime, world }
    }

    /// The answer to a request of so many bytes, if it keeps the rules.
    fn ask(&self, request: Request<Body>, size: usize) -> Result<Answer, TestCaseError> {
        let answer = async {
            let answer = self.world.send(request);
            tokio::time::timeout(PATIENCE, answer).await
        };
        let asked = Instant::now();
        let (answer, bytes) = highest_during(|| self.runtime.block_on(answer));
        // What computes without end does not come to its timeout.
        prop_assert!(asked.elapsed() < PATIENCE, "it takes {:?}", asked.elapsed());
        let answer = answer.map_err(|_| TestCaseError::fail("it hangs"))?;
        judge(&answer)?;
        let bound = BESIDE_BYTES_MAX + TIMES_ITS_SIZE_MAX * size;
        prop_assert!(bytes <= bound, "{bytes} bytes for a request of {size}");
        Ok(answer)
    }

    fn get(&self, path: &str) -> Value {
        self.runtime.block_on(self.world.get(path)).json
    }

    /// An execution's status. Its output is what was sent, byte for byte, and may be JSON of which this reader makes
    /// no value: half a surrogate pair, a number without an end.
    fn status(&self, id: &str) -> String {
        #[derive(serde::Deserialize)]
        struct Shown {
            status: String,
        }
        let path = format!("/v1/executions/{id}");
        let answer = self.runtime.block_on(self.world.get(&path));
        let shown: Shown = serde_json::from_slice(&answer.body).unwrap();
        shown.status
    }
}

/// Good, or refused in the one shape; never our fault.
fn judge(answer: &Answer) -> Result<(), TestCaseError> {
    let text = String::from_utf8_lossy(&answer.body);
    prop_assert!(answer.status < 500, "{}: {text}", answer.status);
    if answer.status < 400 {
        return Ok(());
    }
    prop_assert!(
        answer.body.len() <= REFUSAL_BYTES_MAX,
        "{} bytes",
        answer.body.len()
    );
    prop_assert_eq!(answer.header("content-type"), "application/json");
    let refusal = answer.json.as_object().unwrap();
    for name in ["error", "message"] {
        let said = refusal.get(name).and_then(Value::as_str);
        prop_assert!(said.is_some_and(|said| !said.is_empty()), "{}", text);
    }
    if let Some(details) = refusal.get("details") {
        let texts = details.as_array();
        let texts = texts.is_some_and(|texts| texts.iter().all(Value::is_string));
        prop_assert!(texts, "{}", text);
    }
    Ok(())
}

fn request(method: &str, path: &str, headers: &[(&str, &[u8])], body: Vec<u8>) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request = request.header(name, HeaderValue::from_bytes(value).unwrap());
    }
    request.body(body.into()).unwrap()
}

const JSON: (&str, &[u8]) = ("content-type", b"application/json");

/// Tries this with many inputs.
#[track_caller]
fn for_all<S: Strategy>(
    cases: u32,
    inputs: &S,
    check: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let tried = TestRunner::new(config).run(inputs, check);
    tried.unwrap_or_else(|error| panic!("{error}"));
}

fn multipart(spec: &str, wasm: &[u8]) -> Vec<u8> {
    let part =
        |name: &str| format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
    [
        part("spec").as_bytes(),
        spec.as_bytes(),
        b"\r\n",
        part("wasm").as_bytes(),
        wasm,
        b"\r\n--cut--\r\n",
    ]
    .concat()
}

#[test]
fn uploads_of_any_bytes_are_taken_or_refused() {
    let place = Place::new(async || World::new().echo("f").await);
    let before = place.get("/v1/functions/f");
    let wasm = programs::program(programs::COPIES);
    let component = wat::parse_str("(component (core module (func (export \"run\"))))").unwrap();
    let plain = damaged(vec![wasm.to_vec(), component, b"(module)".to_vec()]);
    for_all(300, &plain, |bytes| {
        let size = bytes.len();
        let headers = [("content-type", &b"application/wasm"[..])];
        let answer = place.ask(request("PUT", "/v1/functions/g", &headers, bytes), size)?;
        if answer.status >= 400 {
            return Ok(());
        }
        let gone = place.ask(request("DELETE", "/v1/functions/g", &[], Vec::new()), 0)?;
        prop_assert_eq!(gone.status, 204);
        Ok(())
    });
    let spec = r#"{"timeoutMs": 1000, "env": {"A": "b"}}"#;
    let parts = damaged(vec![
        multipart(spec, &wasm),
        multipart("{}", b""),
        multipart(spec, b"no wasm"),
    ]);
    let boundary = select(vec![
        "multipart/form-data; boundary=cut",
        "multipart/form-data; boundary=\"cut\"",
        "multipart/form-data; boundary=",
        "multipart/form-data",
        "multipart/form-data; boundary=-",
    ]);
    for_all(600, &(parts, boundary), |(bytes, boundary)| {
        let size = bytes.len();
        let headers = [("content-type", boundary.as_bytes())];
        let answer = place.ask(request("PUT", "/v1/functions/g", &headers, bytes), size)?;
        if answer.status < 400 {
            place.ask(request("DELETE", "/v1/functions/g", &[], Vec::new()), 0)?;
        }
        Ok(())
    });
    assert_eq!(place.get("/v1/functions"), json!([before]));
}

/// Any JSON, with the names that specs and calls have among others.
fn any_json() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 30] = [
        "name",
        "timeoutMs",
        "timeoutMillis",
        "cpuMs",
        "memoryMb",
        "outputBytesMax",
        "logBytesMax",
        "maxRetries",
        "retryBackoff",
        "baseDelayMs",
        "maxDelayMs",
        "maxRequeues",
        "maxAgeMs",
        "args",
        "env",
        "config",
        "record",
        "concurrency",
        "queueSize",
        "ratePerSecond",
        "burst",
        "executionMode",
        "endpointUrl",
        "image",
        "status",
        "success",
        "output",
        "error",
        "code",
        "message",
    ];
    const TEXTS: [&str; 12] = [
        "",
        " ",
        "auto",
        "LOCAL",
        "POOL",
        "builtin:echo",
        "http://127.0.0.1:1/",
        "success",
        "error",
        "timeout",
        "A\u{0}b",
        "größe",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        select(vec![0_i64, 1, -1, 100, 30_000, i64::MAX, i64::MIN]).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(TEXTS.to_vec()).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        4 => select(NAMES.to_vec()).prop_map(str::to_owned),
        1 => ".{0,12}",
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((name.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn a_patch_of_any_json_is_taken_or_changes_nothing() {
    let place = Place::new(async || World::new().echo("f").await);
    let path = "/v1/functions/f";
    let texts = any_json().prop_map(|value| value.to_string().into_bytes());
    let sample = json!({
        "timeoutMs": 1000, "retryBackoff": {"baseDelayMs": 5}, "env": {"A": "b"}, "concurrency": 3
    });
    let inputs = prop_oneof![3 => texts, 1 => damaged(vec![sample.to_string().into_bytes()])];
    for_all(1_500, &inputs, |bytes| {
        let before = place.get(path);
        let size = bytes.len();
        let answer = place.ask(request("PATCH", path, &[JSON], bytes), size)?;
        if answer.status >= 400 {
            prop_assert_eq!(place.get(path), before);
        }
        Ok(())
    });
}

#[test]
fn a_spec_of_any_json_makes_a_function_or_nothing() {
    let place = Place::new(async || World::new().echo("f").await);
    let specs = any_json().prop_map(|mut value| {
        if let Some(spec) = value.as_object_mut() {
            spec.insert("name".to_owned(), json!("g"));
        }
        value.to_string().into_bytes()
    });
    for_all(1_000, &specs, |bytes| {
        let size = bytes.len();
        let answer = place.ask(request("POST", "/v1/functions", &[JSON], bytes), size)?;
        let made = answer.status < 400;
        let gone = place.ask(request("DELETE", "/v1/functions/g", &[], Vec::new()), 0)?;
        prop_assert_eq!(gone.status < 400, made);
        Ok(())
    });
}

#[test]
fn a_completion_of_any_bytes_ends_an_execution_or_does_not() {
    let place = Place::new(async || {
        World::new()
            .echo("f")
            .spec(json!({"queueSize": 10_000}))
            .await
    });
    let samples = [
        json!({"status": "success", "output": {"a": [1, 2]}}),
        json!({"success": false, "error": {"code": "X", "message": "y"}}),
        json!({"status": "error", "output": "o", "error": {"message": "m"}}),
    ];
    let samples = samples
        .map(|sample| sample.to_string().into_bytes())
        .to_vec();
    let texts = any_json().prop_map(|value| value.to_string().into_bytes());
    let inputs = prop_oneof![2 => damaged(samples), 1 => texts];
    for_all(800, &inputs, |bytes| {
        let id = place.runtime.block_on(place.world.enqueue("f", json!(1)));
        let path = format!("/v1/internal/executions/{id}:complete");
        let size = bytes.len();
        let answer = place.ask(request("POST", &path, &[JSON], bytes), size)?;
        let status = place.status(&id);
        if answer.status >= 400 {
            prop_assert_eq!(&status, "queued");
        }
        let ended = ["success", "error", "timeout"].contains(&status.as_str());
        prop_assert!(status == "queued" || ended, "{}", status);
        Ok(())
    });
    for odd in [r#""\ud800""#, "1e9991"] {
        let id = place.runtime.block_on(place.world.enqueue("f", json!(1)));
        let path = format!("/v1/internal/executions/{id}:complete");
        let body = format!(r#"{{"status": "success", "output": {odd}}}"#);
        let size = body.len();
        let sent = request("POST", &path, &[JSON], body.into_bytes());
        assert!(place.ask(sent, size).unwrap().status < 300, "{odd}");
        assert_eq!(place.status(&id), "success");
    }
}

#[test]
fn calls_with_any_body_and_any_headers_are_taken_or_refused() {
    let place = Place::new(async || {
        World::new()
            .echo("f")
            .spec(json!({"queueSize": 10_000}))
            .await
    });
    let visible = "[ -~\u{80}-\u{ff}]{0,300}".prop_map(|text| {
        let bytes = text
            .chars()
            .map(|symbol| u8::try_from(u32::from(symbol)).unwrap());
        bytes.collect::<Vec<u8>>()
    });
    let trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec();
    let values = damaged(vec![
        trace,
        b"1000".to_vec(),
        b"a-key".to_vec(),
        b"18446744073709551616".to_vec(),
    ]);
    let kept = values.prop_map(|bytes| {
        let fits = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
        bytes.into_iter().filter(fits).collect::<Vec<u8>>()
    });
    let names = select(vec![
        "idempotency-key",
        "traceparent",
        "x-timeout-ms",
        "x-trace-id",
        "x-dispatch-attempt",
        "x-execution-id",
        "content-type",
        "origin",
        "accept",
        "expect",
        "x-cold-start",
    ]);
    let headers = vec((names, prop_oneof![visible, kept]), 0..4);
    let bodies = damaged(vec![
        br#"{"input": {"a": 1}, "metadata": {"k": "v"}}"#.to_vec(),
        br#"{"input": "text"}"#.to_vec(),
    ]);
    for_all(1_200, &(headers, bodies), |(headers, body)| {
        let mut all = vec![JSON];
        all.extend(headers.iter().map(|(name, value)| (*name, &value[..])));
        let sizes = headers.iter().map(|(_, value)| value.len());
        let size = body.len() + sizes.sum::<usize>();
        let answer = place.ask(request("POST", "/v1/functions/f:enqueue", &all, body), size)?;
        prop_assert!(answer.status != 200 || answer.header("x-execution-id").len() == 36);
        Ok(())
    });
}

#[test]
fn any_path_and_query_has_an_answer() {
    let place = Place::new(async || World::new().background().echo("f").await);
    let raw = vec(any::<u8>(), 0..30).prop_map(|bytes| {
        let escaped = bytes.iter().map(|byte| format!("%{byte:02X}"));
        escaped.collect::<String>()
    });
    let piece = prop_oneof![
        3 => select(vec![
            "f", "f:invoke", "f:", ":invoke", ":", "::", "f:rollback", "f:redrive", "x:cancel",
            "018bcfe5-6800-7000-8000-000000000000", "018bcfe5-6800-7000-8000-000000000000:complete",
            "f:drain-once", "%3A", "f%3Ainvoke", "..", "%2e%2e", "f%2Finvoke", "",
        ]).prop_map(str::to_owned),
        2 => raw,
        1 => "[a-zA-Z0-9:._%-]{0,80}",
    ];
    let under = select(vec![
        "/v1/functions/",
        "/v1/executions/",
        "/v1/internal/functions/",
        "/v1/internal/executions/",
        "/v1/",
        "/",
        "/fn/",
        "/v1/functions/f/",
        "/v1/executions/x/",
        "/actuator/",
    ]);
    let method = select(vec![
        "GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "X",
    ]);
    let query = prop_oneof![
        Just(String::new()),
        "[a-zA-Z0-9%&=:._-]{0,60}".prop_map(|query| format!("?{query}")),
        "[A-Za-z0-9_-]{0,60}".prop_map(|cursor| format!("?cursor={cursor}")),
        "[A-Za-z0-9_-]{34}".prop_map(|cursor| format!("?status=error&cursor={cursor}&limit=3")),
    ];
    let inputs = (method, under, piece, query);
    for_all(2_500, &inputs, |(method, under, piece, query)| {
        let path = format!("{under}{piece}{query}");
        if path.parse::<axum::http::Uri>().is_err() {
            return Ok(());
        }
        // Never the function that the others are tried with.
        if method == "DELETE" || method == "PUT" && piece == "f" {
            return Ok(());
        }
        let request = request(method, &path, &[JSON], b"{\"input\": 1}".to_vec());
        if method == "HEAD" {
            return Ok(());
        }
        place.ask(request, path.len()).map(drop)
    });
    assert_eq!(place.get("/v1/functions/f")["name"], "f");
}

#[test]
fn what_is_large_takes_no_more_than_its_share() {
    let place = Place::new(async || World::new().echo("f").await);
    let before = place.get("/v1/functions/f");
    let mib = 1 << 20;
    let many = |item: &str, count: usize| vec![item; count].join(",");
    let fields: Vec<String> = (0..60_000).map(|field| format!("\"x{field}\":1")).collect();
    let bodies = [
        // A name without end, and names without number: what would a person have meant?
        format!("{{\"{}\": 1}}", "n".repeat(4 * mib)),
        format!("{{{}}}", fields.join(",")),
        format!("{{\"env\": {{{}}}}}", fields.join(",")),
        format!("{{\"args\": [{}]}}", many("\"\"", mib)),
        format!("{{\"args\": [{}]}}", many("{}", mib)),
        format!("{}{}", "[".repeat(mib), "]".repeat(mib)),
        format!("{{\"image\": \"{}\"}}", "\\u0000".repeat(mib)),
        format!("{{\"timeoutMs\": {}}}", "9".repeat(mib)),
        format!("{{\"timeoutMs\": 1{}}}", ".0".repeat(mib)),
        " ".repeat(6 * mib),
    ];
    for body in bodies {
        let shown: String = body.chars().take(40).collect();
        let size = body.len();
        for (method, path) in [
            ("PATCH", "/v1/functions/f"),
            ("POST", "/v1/functions"),
            ("POST", "/v1/functions/f:enqueue"),
            ("POST", "/v1/internal/functions/f:drain-once"),
        ] {
            let request = request(method, path, &[JSON], body.clone().into_bytes());
            let answer = place.ask(request, size);
            let answer = answer.unwrap_or_else(|error| panic!("{method} {path} {shown}: {error}"));
            // A drain without a body has its defaults, and blanks are none.
            let taken = answer.status == 200 && path.ends_with("drain-once");
            assert!(
                taken || answer.status >= 400,
                "{method} {path} {shown}: {}",
                answer.status
            );
        }
    }
    let query: Vec<String> = (0..8_000).map(|name| format!("q{name}")).collect();
    let path = format!("/v1/executions?{}", query.join("&"));
    let answer = place.ask(request("GET", &path, &[], Vec::new()), path.len());
    assert_eq!(answer.unwrap().status, 400);
    assert_eq!(place.get("/v1/functions/f"), before);
}
