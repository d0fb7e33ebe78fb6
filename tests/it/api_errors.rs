//! Whatever is asked badly is answered in one shape, and what went wrong inside stays inside.

use futures_util::StreamExt as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use pelton::api::Options;
use serde_json::json;

use crate::support::api::{Answer, Api, Moves, WASM, answer, request};

/// An error as a snapshot shows it.
fn shown(answer: &Answer) -> String {
    let mut headers = String::new();
    for name in ["allow", "retry-after", "x-queue-reject-reason"] {
        if !answer.header(name).is_empty() {
            headers.push_str(&format!("{name}: {}\n", answer.header(name)));
        }
    }
    answer.error(answer.status.as_u16());
    let body = serde_json::to_string_pretty(&answer.json()).unwrap();
    format!("{}\n{headers}{body}\n", answer.status)
}

/// A request as the page of refusals lists it: method, path, headers, body.
type Asked = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const WASM_TYPE: &[(&str, &str)] = &[("content-type", "application/wasm")];
const JSON_TYPE: &[(&str, &str)] = &[("content-type", "application/json")];
const TEXT_TYPE: &[(&str, &str)] = &[("content-type", "text/plain")];
const NO_BOUNDARY: &[(&str, &str)] = &[("content-type", "multipart/form-data")];
const EVIL_HOST: &[(&str, &str)] = &[("host", "evil.example")];
const NULL_ORIGIN: &[(&str, &str)] = &[("origin", "null")];

const BADLY_ASKED: [Asked; 23] = [
    ("GET", "/nothing/here", &[], ""),
    ("DELETE", "/v1/functions", &[], ""),
    ("GET", "/v1/functions/echo:invoke", &[], ""),
    ("GET", "/v1/functions/echo:explode", &[], ""),
    ("POST", "/v1/functions/echo:explode", &[], "{}"),
    ("POST", "/v1/functions/echo", &[], "{}"),
    ("POST", "/v1/functions/%FF:invoke", &[], "{}"),
    ("GET", "/v1/functions/none", &[], ""),
    ("GET", "/v1/executions/none", &[], ""),
    ("PUT", "/v1/functions/1st", WASM_TYPE, "x"),
    ("PUT", "/v1/functions/echo", JSON_TYPE, "{}"),
    ("PUT", "/v1/functions/echo", NO_BOUNDARY, "{}"),
    ("POST", "/v1/functions", TEXT_TYPE, "{}"),
    ("POST", "/v1/functions", &[], "{\"name\": }"),
    (
        "POST",
        "/v1/functions",
        &[],
        r#"{"name":"echo","image":"builtin:echo"}"#,
    ),
    (
        "POST",
        "/v1/functions",
        &[],
        r#"{"name":"a b","concurrency":0,"timeoutms":1}"#,
    ),
    (
        "POST",
        "/v1/functions",
        &[],
        r#"{"name":"a","image":"alpine:3"}"#,
    ),
    (
        "POST",
        "/v1/functions",
        &[],
        r#"{"name":"a","executionMode":"DEPLOYMENT","image":"x"}"#,
    ),
    ("POST", "/v1/functions/echo:enqueue", &[], r#"{"input":1}"#),
    ("GET", "/v1/executions?limit=0&sort=asc", &[], ""),
    ("GET", "/v1/functions", EVIL_HOST, ""),
    ("GET", "/v1/functions", NULL_ORIGIN, ""),
    (
        "POST",
        "/v1/functions/echo:rollback",
        &[],
        r#"{"version":9}"#,
    ),
];

const BAD_FILES: [&str; 7] = [
    "not wasm",
    "imports",
    "middleware",
    "bomb",
    "busy",
    "broken",
    "panic",
];

#[tokio::test]
async fn every_refusal_has_its_code_and_says_what_to_do() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({"queueSize": 1})).await;
    api.enqueue("echo", json!(1)).await;
    let mut page = String::new();
    for (method, path, headers, body) in BADLY_ASKED {
        let answer = api.send_with(method, path, headers, body).await;
        page.push_str(&format!("{method} {path} {body}\n{}\n", shown(&answer)));
    }
    for file in BAD_FILES {
        let answer = api.upload("new", file).await;
        page.push_str(&format!(
            "PUT of a file of kind {file}\n{}\n",
            shown(&answer)
        ));
    }
    assert!(
        !page.contains("secret/path"),
        "what went wrong inside stays inside"
    );
    assert_eq!(
        api.get("/v1/functions/new").await.error(404),
        "FUNCTION_NOT_FOUND"
    );
    insta::assert_snapshot!(page);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_said_to_be_unavailable() {
    let api = Api::new(Moves::ByHand).await;
    api.upload("echo", WASM).await.expect(201);
    api.store.close().await.unwrap();
    let refused = api
        .send("POST", "/v1/functions/echo:enqueue", json!({"input": 1}))
        .await;
    assert_eq!(refused.error(503), "STORE_UNAVAILABLE");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(
        api.upload("other", WASM).await.error(503),
        "STORE_UNAVAILABLE"
    );
    api.get("/v1/functions/echo").await.expect(200);
}

#[tokio::test]
async fn a_plane_that_stops_says_so() {
    let api = Api::new(Moves::ByHand).await;
    api.upload("echo", WASM).await.expect(201);
    api.get("/actuator/health/readiness").await.expect(200);
    api.scheduler.stop(Duration::ZERO).await;
    let refused = api
        .send("POST", "/v1/functions/echo:enqueue", json!({"input": 1}))
        .await;
    assert_eq!(refused.error(503), "STOPPING");
    let readiness = api.get("/actuator/health/readiness").await.expect(503);
    assert_eq!(
        readiness.json(),
        json!({"status": "DOWN", "reason": "the server is stopping"})
    );
    api.get("/actuator/health").await.expect(503);
    api.get("/actuator/health/liveness").await.expect(200);
}

#[tokio::test]
async fn health_and_metrics_are_on_both_ports_and_nothing_else_is() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("echo", json!({})).await;
    let call = json!({"input": 1});
    api.send("POST", "/v1/functions/echo:invoke", call)
        .await
        .expect(200);
    for router in [&api.router, &api.management] {
        let get = async |path| answer(router.clone(), request("GET", path, &[], ())).await;
        for path in [
            "/actuator/health",
            "/actuator/health/liveness",
            "/actuator/health/readiness",
        ] {
            let health = get(path).await.expect(200);
            assert_eq!(health.get("status"), "UP");
        }
        let metrics = get("/actuator/prometheus").await.expect(200);
        assert_eq!(
            metrics.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(
            metrics
                .text()
                .contains("function_success_total{function=\"echo\"} 1")
        );
        let refused = answer(
            router.clone(),
            request(
                "GET",
                "/actuator/prometheus",
                &[("host", "evil.example")],
                (),
            ),
        );
        assert_eq!(refused.await.error(403), "HOST_REFUSED");
    }
    let management = api.management.clone();
    let missing = answer(management, request("GET", "/v1/functions", &[], ())).await;
    assert_eq!(missing.error(404), "NOT_FOUND");
}

#[tokio::test]
async fn bodies_have_limits() {
    let options = Options {
        body_bytes_max: 100,
        upload_bytes_max: 50,
        ..Options::default()
    };
    let api = Api::with(Moves::ByHand, options).await;
    api.upload("echo", format!("{WASM}{}", " ".repeat(37)))
        .await
        .expect(201);
    let refused = api
        .upload("echo", format!("{WASM}{}", " ".repeat(38)))
        .await;
    assert_eq!(refused.error(413), "PAYLOAD_TOO_LARGE");
    assert!(refused.text().contains("limit of 50 bytes"));

    let input = "x".repeat(100);
    let refused = api
        .send(
            "POST",
            "/v1/functions/echo:enqueue",
            json!({ "input": input }),
        )
        .await;
    assert_eq!(refused.error(413), "PAYLOAD_TOO_LARGE");
    assert!(refused.text().contains("limit of 100 bytes"));

    // A length that is stated is believed before a byte is read.
    let request = Request::put("/v1/functions/echo")
        .header("host", "localhost")
        .header("content-type", "application/wasm")
        .header("content-length", "1000000000000")
        .body(Body::from(WASM));
    assert_eq!(
        api.raw(request.unwrap()).await.error(413),
        "PAYLOAD_TOO_LARGE"
    );

    let parts = format!(
        "--b\r\nContent-Disposition: form-data; name=\"wasm\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(51)
    );
    let request = Request::put("/v1/functions/echo")
        .header("host", "localhost")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(Body::from(parts));
    let refused = api.raw(request.unwrap()).await;
    assert_eq!(refused.error(413), "PAYLOAD_TOO_LARGE");
    assert!(refused.text().contains("the part wasm"));
}

#[tokio::test]
async fn uploads_under_way_are_bounded_together() {
    let options = Options {
        body_bytes_max: 1_000,
        upload_bytes_max: 100_000,
        upload_bytes_in_flight_max: 200_000,
        ..Options::default()
    };
    let api = Api::with(Moves::ByHand, options).await;
    let slow = || {
        // It counts as far as it has come.
        let begun = Ok::<_, std::io::Error>(bytes::Bytes::from(vec![0; 80_000]));
        let begun = futures_util::stream::iter([begun]);
        let request = Request::put("/v1/functions/slow")
            .header("host", "localhost")
            .header("content-type", "application/wasm")
            .body(Body::from_stream(
                begun.chain(futures_util::stream::pending()),
            ));
        Box::pin(answer(api.router.clone(), request.unwrap()))
    };
    let (mut first, mut second) = (slow(), slow());
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    let third = slow().await;
    assert_eq!(third.error(503), "BUSY");
    assert_eq!(third.header("retry-after"), "1");
    drop(first);
    api.upload("echo", WASM).await.expect(201);
}
