//! Calls over the API: invoked, queued, drained, with their headers.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::api::{Answer, Api, Moves, answer, request};

async fn invoke(api: &Api, name: &str, headers: &[(&str, &str)], input: Value) -> Answer {
    let path = format!("/v1/functions/{name}:invoke");
    api.send_with("POST", &path, headers, json!({ "input": input }))
        .await
}

#[tokio::test]
async fn a_call_answers_with_what_the_function_said() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("echo", json!({})).await;
    let body = r#"{"metadata":{"b":"2","a":"1"},"input":{"n": 1.0, "s":"\u00e9"}}"#;
    let headers = [("x-trace-id", "trace-1"), ("idempotency-key", "k")];
    let path = "/v1/functions/echo:invoke";
    let called = api
        .send_with("POST", path, &headers, body)
        .await
        .expect(200);
    assert!(
        called
            .text()
            .contains(r#""output":{"n": 1.0, "s":"\u00e9"}"#),
        "{}",
        called.text()
    );
    assert_eq!(called.get("status"), "success");
    assert_eq!(called.get("error"), Value::Null);
    assert_eq!(called.get("outputEncoding"), "json");
    assert_eq!(called.header("x-execution-id"), called.get("executionId"));

    let attempt = api.attempts.lock().unwrap()[0].clone();
    assert_eq!(attempt.input.body, r#"{"n": 1.0, "s":"\u00e9"}"#);
    assert_eq!(attempt.trace_id.as_deref(), Some("trace-1"));
    assert_eq!(attempt.idempotency_key.unwrap().as_str(), "k");
    let metadata = [
        ("a".to_owned(), "1".to_owned()),
        ("b".to_owned(), "2".to_owned()),
    ];
    assert_eq!(*attempt.metadata, metadata);
}

#[tokio::test]
async fn a_trace_context_alone_names_the_trace() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("echo", json!({})).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for verb in ["invoke", "enqueue"] {
        let path = format!("/v1/functions/echo:{verb}");
        let headers = [("traceparent", traceparent)];
        let called = api
            .send_with("POST", &path, &headers, json!({"input": 1}))
            .await;
        let path = format!("/v1/executions/{}", called.header("x-execution-id"));
        let execution = api.get(&path).await.expect(200);
        let trace = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(execution.get("traceId"), trace, "{verb}");
    }
    let attempt = api.attempts.lock().unwrap()[0].clone();
    assert_eq!(attempt.trace_id.as_deref(), Some(&traceparent[3..35]));
    assert_eq!(attempt.traceparent.as_deref(), Some(traceparent));
}

#[tokio::test]
async fn outputs_that_are_not_json_are_strings() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("text", json!({})).await;
    api.deploy("binary", json!({})).await;
    let text = invoke(&api, "text", &[], json!(1)).await.expect(200);
    assert_eq!(text.get("output"), "a \"text\"");
    assert_eq!(text.get("outputEncoding"), "text");
    assert_eq!(text.get("outputContentType"), "text/plain");
    let binary = invoke(&api, "binary", &[], json!(1)).await.expect(200);
    assert_eq!(
        (binary.get("output"), binary.get("outputEncoding")),
        (json!("/wAB"), json!("base64"))
    );
}

#[tokio::test]
async fn a_functions_failure_is_a_result() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("fails", json!({})).await;
    let failed = invoke(&api, "fails", &[], json!(1)).await.expect(200);
    assert_eq!(failed.get("status"), "error");
    assert_eq!(failed.get("output"), Value::Null);
    assert_eq!(
        failed.get("error"),
        json!({"code": "OUT_OF_STOCK", "message": "no \"widgets\" left"})
    );
}

#[tokio::test]
async fn a_wait_that_is_over_is_a_timeout() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    let late = invoke(&api, "echo", &[("x-timeout-ms", "1")], json!(1))
        .await
        .expect(200);
    assert_eq!(late.get("status"), "timeout");
    assert_eq!(late.get("output"), Value::Null);
    assert!(
        !api.drain("echo", ())
            .await
            .get("dispatched")
            .as_bool()
            .unwrap(),
        "it never runs"
    );
    let path = format!(
        "/v1/executions/{}",
        late.get("executionId").as_str().unwrap()
    );
    assert_eq!(api.get(&path).await.get("status"), "timeout");
}

#[tokio::test]
async fn a_key_finds_the_first_call() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    let key = [("idempotency-key", "order-7")];
    let path = "/v1/functions/echo:enqueue";
    let call = json!({"input": {"a": 1}});
    let first = api
        .send_with("POST", path, &key, call.clone())
        .await
        .expect(202);
    assert_eq!(
        (first.get("status"), first.get("output")),
        (json!("queued"), Value::Null)
    );
    api.drain("echo", ()).await.expect(200);

    let again = api
        .send_with("POST", path, &key, call.clone())
        .await
        .expect(202);
    assert_eq!(again.get("executionId"), first.get("executionId"));
    assert_eq!(
        (again.get("status"), again.get("output")),
        (json!("success"), json!({"a": 1}))
    );
    let invoked = api
        .send_with("POST", "/v1/functions/echo:invoke", &key, call)
        .await;
    assert_eq!(
        invoked.expect(200).get("executionId"),
        first.get("executionId")
    );

    let other = api
        .send_with("POST", path, &key, json!({"input": {"a": 2}}))
        .await;
    assert_eq!(other.error(422), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(other.header("x-execution-id"), first.get("executionId"));
    let metadata = json!({"input": {"a": 1}, "metadata": {"x": "y"}});
    let other = api.send_with("POST", path, &key, metadata).await;
    assert_eq!(other.error(422), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(api.attempts.lock().unwrap().len(), 1);

    let blank = [("idempotency-key", " ")];
    let blank = api
        .send_with("POST", path, &blank, json!({"input": {"a": 2}}))
        .await;
    assert_ne!(
        blank.expect(202).get("executionId"),
        first.get("executionId")
    );
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_and_leaves_no_key() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({"queueSize": 1})).await;
    api.enqueue("echo", json!(1)).await;
    let path = "/v1/functions/echo:enqueue";
    let key = [("idempotency-key", "k")];
    let full = api.send_with("POST", path, &key, json!({"input": 2})).await;
    assert_eq!(full.error(429), "QUEUE_FULL");
    assert_eq!(full.header("x-queue-reject-reason"), "depth");
    assert!(full.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(
        invoke(&api, "echo", &[], json!(2)).await.error(429),
        "QUEUE_FULL"
    );
    api.drain("echo", ()).await.expect(200);
    let taken = api
        .send_with("POST", path, &key, json!({"input": "other"}))
        .await;
    assert_eq!(taken.expect(202).get("status"), "queued");
}

#[tokio::test]
async fn a_rate_is_a_limit_of_its_own() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({"ratePerSecond": 1, "burst": 1}))
        .await;
    api.enqueue("echo", json!(1)).await;
    let limited = api
        .send("POST", "/v1/functions/echo:enqueue", json!({"input": 2}))
        .await;
    assert_eq!(limited.error(429), "RATE_LIMITED");
    assert_eq!(limited.header("x-queue-reject-reason"), "rate");
    assert_eq!(limited.header("retry-after"), "1");
}

#[tokio::test]
async fn a_drain_names_what_it_moved() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    let nothing = api.drain("echo", ()).await.expect(200);
    assert_eq!(
        nothing.json(),
        json!({"dispatched": false, "count": 0, "executionId": null, "status": null, "items": []})
    );
    let (first, second) = (
        api.enqueue("echo", json!(1)).await,
        api.enqueue("echo", json!(2)).await,
    );
    let one = api.drain("echo", "").await.expect(200);
    assert_eq!(
        (one.get("count"), one.get("executionId")),
        (json!(1), json!(first))
    );
    assert_eq!(one.header("x-execution-id"), first);
    assert_eq!(
        api.execution(&first).await["status"],
        "success",
        "recorded before the answer"
    );
    assert_eq!(api.execution(&second).await["status"], "queued");

    let rest = api
        .drain("echo", json!({"recursive": true}))
        .await
        .expect(200);
    assert_eq!(
        rest.get("items"),
        json!([{"executionId": second, "status": "success"}])
    );
    assert_eq!(api.drain("none", ()).await.error(404), "FUNCTION_NOT_FOUND");
    let misspelt = api.drain("echo", json!({"recursiv": true})).await;
    assert_eq!(misspelt.error(400), "VALIDATION_ERROR");
}

#[tokio::test]
async fn a_retry_waits_unless_a_drain_moves_time() {
    let api = Api::new(Moves::ByHand).await;
    let backoff = json!({"baseDelayMs": 60_000, "maxDelayMs": 60_000});
    api.deploy("retries", json!({"maxRetries": 3, "retryBackoff": backoff}))
        .await;
    let id = api.enqueue("retries", json!(1)).await;
    for (round, status) in [(1, "queued"), (2, "queued"), (3, "error")] {
        assert_eq!(
            api.drain("retries", ()).await.get("status"),
            status,
            "round {round}"
        );
    }
    let ended = api.execution(&id).await;
    assert_eq!(
        (&ended["attempts"], &ended["error"]["code"]),
        (&json!(3), &json!("BUSY"))
    );
}

#[tokio::test]
async fn a_colon_may_be_written_in_percent() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("echo", json!({})).await;
    let called = api
        .send("POST", "/v1/functions/echo%3Ainvoke", json!({"input": 1}))
        .await;
    assert_eq!(called.expect(200).get("output"), 1);
}

#[tokio::test]
async fn bad_calls_are_told_what_is_wrong() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    for verb in ["invoke", "enqueue"] {
        let path = format!("/v1/functions/echo:{verb}");
        let call = async |body: &'static str| api.send("POST", &path, body).await;
        assert_eq!(call("{}").await.error(400), "VALIDATION_ERROR");
        assert_eq!(
            call(r#"{"input":null}"#).await.error(400),
            "VALIDATION_ERROR"
        );
        assert_eq!(call("{\"input\":").await.error(400), "BAD_REQUEST");
        assert_eq!(call("").await.error(400), "BAD_REQUEST");
        let key = [("idempotency-key", "a b")];
        let refused = api
            .send_with("POST", &path, &key, json!({"input": 1}))
            .await;
        assert_eq!(refused.error(400), "VALIDATION_ERROR");
        let text = [("content-type", "text/plain")];
        let refused = api
            .send_with("POST", &path, &text, json!({"input": 1}))
            .await;
        assert_eq!(refused.error(415), "UNSUPPORTED_MEDIA_TYPE");
    }
    // What the body says is judged before whether there is such a function.
    let missing = async |body: Value| api.send("POST", "/v1/functions/none:invoke", body).await;
    assert_eq!(missing(json!({})).await.error(400), "VALIDATION_ERROR");
    let unknown = missing(json!({"input": 1})).await;
    assert_eq!(unknown.error(404), "FUNCTION_NOT_FOUND");
    assert!(unknown.text().contains("none"));
    let wait = [("x-timeout-ms", "0")];
    let refused = invoke(&api, "echo", &wait, json!(1)).await;
    assert_eq!(refused.error(400), "VALIDATION_ERROR");
    assert!(refused.text().contains("from 1 to 300000"));
}

#[tokio::test]
async fn a_caller_that_hangs_up_takes_its_call_with_it() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    let call = request(
        "POST",
        "/v1/functions/echo:invoke",
        &[],
        json!({"input": 1}),
    );
    let mut waiting = Box::pin(answer(api.router.clone(), call));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let listed = api.get("/v1/executions?function=echo").await.expect(200);
    let id = listed.get("items")[0]["executionId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(listed.get("items")[0]["status"], "queued");
    drop(waiting);
    // The end is recorded by a task of its own: ask until it ran.
    let ended = loop {
        let now = api.execution(&id).await;
        if now["status"] != "queued" {
            break now;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&ended["status"], &ended["error"]["code"]),
        (&json!("timeout"), &json!("CALLER_GONE"))
    );
}

#[tokio::test]
async fn a_body_in_pieces_is_a_body() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("echo", json!({})).await;
    let pieces = ["{\"in", "put\":", "[1]}"].map(Ok::<_, std::io::Error>);
    let request = Request::post("/v1/functions/echo:invoke")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Body::from_stream(futures_util::stream::iter(pieces)));
    let called = api.raw(request.unwrap()).await.expect(200);
    assert_eq!(called.get("output"), json!([1]));
}
