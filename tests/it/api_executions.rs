//! Executions over the API: one, lists, logs; completed from outside, cancelled.

use serde_json::{Value, json};

use crate::support::api::{Answer, Api, Moves};

/// An id that is well-formed and belongs to nothing.
const NOBODY: &str = "0192aaaa-0000-7000-8000-000000000000";

async fn complete(api: &Api, id: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let path = format!("/v1/internal/executions/{id}:complete");
    api.send_with("POST", &path, headers, body).await
}

#[tokio::test]
async fn an_execution_shows_its_life() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    let id = api.enqueue("echo", json!({"a": [1]})).await;
    let queued = api.execution(&id).await;
    assert_eq!(queued["status"], "queued");
    assert_eq!(queued["createdAt"], "2026-09-01T12:00:00.000Z");
    for null in [
        "startedAt",
        "finishedAt",
        "output",
        "error",
        "parent",
        "traceId",
    ] {
        assert_eq!(queued.get(null), Some(&Value::Null), "{null} is printed");
    }
    api.drain("echo", ()).await.expect(200);
    let path = format!("/v1/executions/{id}");
    let ended = api.get(&path).await.expect(200);
    assert_eq!(ended.header("x-execution-id"), id);
    assert_eq!(
        (ended.get("status"), ended.get("output")),
        (json!("success"), json!({"a": [1]}))
    );
    assert_eq!(
        (ended.get("attempts"), ended.get("coldStart")),
        (json!(1), json!(true))
    );
    assert_eq!(ended.get("finishedAt"), "2026-09-01T12:00:00.000Z");
}

#[tokio::test]
async fn an_id_that_is_none_is_unknown() {
    let api = Api::new(Moves::ByHand).await;
    for id in [
        NOBODY,
        "x",
        "1-2-3",
        "%20",
        "0192aaaa00007000800000000000000g",
    ] {
        let path = format!("/v1/executions/{id}");
        assert_eq!(
            api.get(&path).await.error(404),
            "EXECUTION_NOT_FOUND",
            "{id}"
        );
        let logs = api.get(&format!("{path}/logs")).await;
        assert_eq!(logs.error(404), "EXECUTION_NOT_FOUND");
        let cancelled = api.send("POST", &format!("{path}:cancel"), ()).await;
        assert_eq!(cancelled.error(404), "EXECUTION_NOT_FOUND");
        let completed = complete(&api, id, &[], json!({"success": true})).await;
        assert_eq!(completed.error(404), "EXECUTION_NOT_FOUND");
    }
}

#[tokio::test]
async fn logs_come_by_attempt() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("retries", json!({"maxRetries": 2})).await;
    let id = api.enqueue("retries", json!(1)).await;
    let path = format!("/v1/executions/{id}/logs");
    assert_eq!(api.get(&path).await.expect(200).get("attempts"), json!([]));
    api.drain("retries", json!({"recursive": true}))
        .await
        .expect(200);
    let logs = api.get(&path).await.expect(200);
    let attempts = logs.get("attempts");
    assert_eq!(
        attempts[0]["lines"],
        json!([{"stream": "stderr", "text": "attempt 1"}])
    );
    assert_eq!(
        (&attempts[1]["attempt"], &attempts[1]["outcome"]),
        (&json!(2), &json!("retry"))
    );
    assert_eq!(logs.header("x-execution-id"), id);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    api.deploy("fails", json!({})).await;
    let mut ids = Vec::new();
    for i in 0..5 {
        api.clock.advance(std::time::Duration::from_millis(1));
        ids.insert(0, api.enqueue("echo", json!(i)).await);
    }
    let failed = api.enqueue("fails", json!(1)).await;
    api.drain("fails", ()).await.expect(200);

    let ids_of = |page: &Answer| -> Vec<String> {
        let items = page.get("items");
        let items = items.as_array().unwrap().iter();
        items
            .map(|item| item["executionId"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut listed = Vec::new();
    let mut query = "function=echo&limit=2".to_owned();
    loop {
        let page = api
            .get(&format!("/v1/executions?{query}"))
            .await
            .expect(200);
        listed.extend(ids_of(&page));
        match page.get("next").as_str() {
            Some(next) => query = format!("function=echo&limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, ids, "newest first, each once");

    let errors = api.get("/v1/executions?status=error").await.expect(200);
    assert_eq!(ids_of(&errors), [failed]);
    assert!(errors.get("items")[0].get("output").is_none());
    let since = api
        .get("/v1/executions?since=2026-09-01T12:00:00.004Z&function=echo")
        .await;
    assert_eq!(ids_of(&since), ids[..2]);

    let page = api.get("/v1/executions?limit=1").await.expect(200);
    let next = page.get("next").as_str().unwrap().to_owned();
    let foreign = api
        .get(&format!("/v1/executions?status=queued&cursor={next}"))
        .await;
    assert_eq!(foreign.error(400), "VALIDATION_ERROR");
    let unknown = api.get("/v1/executions?state=queued").await;
    assert_eq!(unknown.error(400), "VALIDATION_ERROR");
}

#[tokio::test]
async fn a_result_may_come_from_outside() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({"maxRetries": 1})).await;
    let id = api.enqueue("echo", json!(1)).await;
    let body = json!({"status": "ERROR", "output": {"message": "forced"}});
    let completed = complete(&api, &id, &[], body).await.expect(204);
    assert!(completed.body.is_empty());
    assert_eq!(completed.header("x-execution-id"), id);
    let ended = api.execution(&id).await;
    assert_eq!(
        (&ended["status"], &ended["output"]["message"]),
        (&json!("error"), &json!("forced"))
    );
    assert_eq!(
        ended["error"],
        json!({"code": "ERROR", "message": "unknown"})
    );

    complete(&api, &id, &[], json!({"success": true, "output": 7}))
        .await
        .expect(204);
    assert_eq!(
        api.execution(&id).await,
        ended,
        "a late one changes nothing"
    );

    let id = api.enqueue("echo", json!(1)).await;
    let body = json!({"success": true, "output": {"from": "sdk"}, "error": null});
    complete(&api, &id, &[("x-dispatch-attempt", "0")], body)
        .await
        .expect(204);
    assert_eq!(api.execution(&id).await["output"], json!({"from": "sdk"}));
    assert!(api.attempts.lock().unwrap().is_empty(), "neither ever ran");

    let id = api.enqueue("echo", json!(1)).await;
    for bad in [
        json!({"status": "running"}),
        json!({}),
        json!({"status": "done"}),
    ] {
        assert_eq!(
            complete(&api, &id, &[], bad).await.error(400),
            "VALIDATION_ERROR"
        );
    }
    complete(
        &api,
        &id,
        &[("x-dispatch-attempt", "1")],
        json!({"success": true}),
    )
    .await
    .expect(204);
    assert_eq!(
        api.execution(&id).await["status"],
        "queued",
        "an older claim is not the current one"
    );
}

#[tokio::test]
async fn a_cancelled_execution_stays_so() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({})).await;
    let id = api.enqueue("echo", json!(1)).await;
    let path = format!("/v1/executions/{id}:cancel");
    let unclear = api.send("POST", &path, json!({"x": 1, "y": 2})).await;
    let said = unclear.text().to_owned();
    assert_eq!(unclear.error(400), "VALIDATION_ERROR");
    assert!(said.contains("x") && said.contains("y"), "{said}");
    let cancelled = api.send("POST", &path, ()).await.expect(200);
    assert_eq!(cancelled.get("status"), "cancelled");
    assert_eq!(cancelled.header("x-execution-id"), id);
    assert_eq!(
        api.send("POST", &path, ()).await.expect(200).get("status"),
        "cancelled"
    );
    assert_eq!(api.drain("echo", ()).await.get("dispatched"), false);
}

#[tokio::test]
async fn what_failed_can_be_redriven() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("fails", json!({})).await;
    let id = api.enqueue("fails", json!(1)).await;
    let path = format!("/v1/executions/{id}:redrive");
    let redrive = async |body: &'static str| api.send("POST", &path, body).await;
    let early = redrive("").await;
    assert_eq!(early.error(409), "NOT_REDRIVABLE");
    assert_eq!(early.header("x-execution-id"), id);
    api.drain("fails", ()).await.expect(200);
    assert_eq!(api.execution(&id).await["status"], "error");

    assert_eq!(
        redrive(r#"{"version":7}"#).await.error(404),
        "VERSION_NOT_FOUND"
    );
    assert_eq!(
        redrive(r#"{"versoin":1}"#).await.error(400),
        "VALIDATION_ERROR"
    );
    let patch = json!({"timeoutMs": 7});
    let patched = api.send("PATCH", "/v1/functions/fails", patch).await;
    assert_eq!(patched.expect(200).get("version"), 2);
    let redriven = redrive("").await.expect(200);
    assert_eq!(redriven.header("x-execution-id"), id);
    assert_eq!(
        (
            redriven.get("status"),
            redriven.get("attempts"),
            redriven.get("version")
        ),
        (json!("queued"), json!(0), json!(2))
    );
    assert_eq!(redrive("").await.error(409), "NOT_REDRIVABLE");
    api.drain("fails", ()).await.expect(200);
    let again = redrive(r#"{"version":1}"#).await.expect(200);
    assert_eq!(again.get("version"), 1);

    let nobody = format!("/v1/executions/{NOBODY}:redrive");
    let unknown = api.send("POST", &nobody, ()).await;
    assert_eq!(unknown.error(404), "EXECUTION_NOT_FOUND");
}

#[tokio::test]
async fn an_input_that_was_not_kept_cannot_be_redriven() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("fails", json!({"record": "summary"})).await;
    let call = json!({"input": 1});
    let failed = api.send("POST", "/v1/functions/fails:invoke", call).await;
    let id = failed.expect(200).header("x-execution-id").to_owned();
    let path = format!("/v1/executions/{id}:redrive");
    let refused = api.send("POST", &path, ()).await;
    assert_eq!(refused.error(409), "INPUT_NOT_KEPT");
    assert_eq!(refused.header("x-execution-id"), id);
}

#[tokio::test]
async fn what_failed_under_a_deleted_function_is_not_run_by_its_successor() {
    let api = Api::new(Moves::Alone).await;
    api.deploy("fails", json!({"maxRetries": 1})).await;
    let call = json!({"input": 1});
    let failed = api.send("POST", "/v1/functions/fails:invoke", call).await;
    let id = failed.expect(200).header("x-execution-id").to_owned();
    let path = format!("/v1/executions/{id}:redrive");
    let delete = api.send("DELETE", "/v1/functions/fails", ()).await;
    delete.expect(204);
    let gone = api.send("POST", &path, ()).await;
    assert_eq!(gone.error(404), "FUNCTION_NOT_FOUND");
    api.deploy("fails", json!({"maxRetries": 1})).await;
    let replaced = api.send("POST", &path, ()).await;
    assert_eq!(replaced.error(409), "NOT_REDRIVABLE");
    let message = replaced.get("message");
    assert!(
        message.as_str().unwrap().contains("made later"),
        "{message}"
    );
    assert_eq!(api.execution(&id).await["status"], "error");
}

#[tokio::test]
async fn methods_that_a_path_allows_are_those_it_takes() {
    let api = Api::new(Moves::ByHand).await;
    let plain = format!("/v1/executions/{NOBODY}");
    let cancel = format!("{plain}:cancel");
    for (method, path, allowed) in [
        ("DELETE", plain.as_str(), "GET,HEAD"),
        ("POST", plain.as_str(), "GET,HEAD"),
        ("DELETE", cancel.as_str(), "POST"),
        ("GET", cancel.as_str(), "POST"),
        ("OPTIONS", "/v1/functions/a", "GET,HEAD,PUT,PATCH,DELETE"),
        ("POST", "/v1/functions/a", "GET,HEAD,PUT,PATCH,DELETE"),
        ("OPTIONS", "/v1/functions/a:invoke", "POST"),
        ("GET", "/v1/functions/a:invoke", "POST"),
    ] {
        let refused = api.send(method, path, ()).await;
        assert_eq!(refused.error(405), "METHOD_NOT_ALLOWED", "{method} {path}");
        assert_eq!(refused.header("allow"), allowed, "{method} {path}");
    }
}
