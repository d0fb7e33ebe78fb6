//! Many executions at once: redriven by state and time, and exported as lines.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use pelton::api::Options;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::api::{Answer, Api, Moves, WASM, request};
use crate::support::programs::{exits, program};
use crate::support::world::World;

/// A function that fails, with so many executions that did, a second apart; their ids, oldest first.
async fn failed(api: &Api, count: usize) -> Vec<String> {
    api.deploy("fails", json!({"queueSize": 1000})).await;
    fail(api, count).await
}

async fn fail(api: &Api, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(api.enqueue("fails", json!(n)).await);
        api.clock.advance(Duration::from_secs(1));
    }
    drain(api).await;
    ids
}

async fn drain(api: &Api) {
    api.drain("fails", json!({"limit": 10_000}))
        .await
        .expect(200);
}

async fn redrive(api: &Api, body: Value) -> Answer {
    api.send("POST", "/v1/functions/fails:redrive", body).await
}

async fn statuses(api: &Api, ids: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for id in ids {
        let status = api.execution(id).await["status"].clone();
        all.push(status.as_str().unwrap().to_owned());
    }
    all
}

/// The inputs of the attempts since the last look, in their order.
fn ran(api: &Api) -> Vec<String> {
    let attempts = std::mem::take(&mut *api.attempts.lock().unwrap());
    let inputs = attempts.iter().map(|attempt| attempt.input.body.to_vec());
    inputs
        .map(|input| String::from_utf8(input).unwrap())
        .collect()
}

// Redriving.

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing_and_the_real_one_goes_oldest_first() {
    let api = Api::new(Moves::ByHand).await;
    let ids = failed(&api, 12).await;
    ran(&api);
    let body = json!({"status": "error", "dryRun": true});
    let counted = redrive(&api, body).await.expect(200).json();
    assert_eq!(
        counted,
        json!({"dryRun": true, "redriven": 12, "inputNotKept": 0, "skipped": 0,
            "sample": ids[..10], "next": null})
    );
    assert_eq!(statuses(&api, &ids).await, vec!["error"; 12]);

    let done = redrive(&api, json!({"status": "error"})).await.expect(200);
    assert_eq!(done.get("dryRun"), false);
    assert_eq!(done.get("redriven"), 12);
    assert_eq!(done.get("sample"), json!(ids[..10]));
    assert_eq!(statuses(&api, &ids).await, vec!["queued"; 12]);
    let one = api.execution(&ids[0]).await;
    assert_eq!((&one["attempts"], &one["error"]), (&json!(0), &Value::Null));
    drain(&api).await;
    let order: Vec<_> = (0..12).map(|n| n.to_string()).collect();
    assert_eq!(ran(&api), order);
}

#[tokio::test]
async fn state_and_time_say_which() {
    let api = Api::new(Moves::ByHand).await;
    let ids = failed(&api, 4).await;
    let late = api.enqueue("fails", json!(1)).await;
    let report = json!({"status": "timeout"});
    let path = format!("/v1/internal/executions/{late}:complete");
    api.send("POST", &path, report).await.expect(204);

    let between = json!({"status": "error", "since": "2026-09-01T12:00:01Z", "until": "2026-09-01T12:00:03Z"});
    let done = redrive(&api, between).await.expect(200);
    assert_eq!(done.get("sample"), json!(ids[1..3]));
    let timeouts = redrive(&api, json!({"status": "timeout"}))
        .await
        .expect(200);
    assert_eq!(timeouts.get("sample"), json!([late]));
    assert_eq!(
        statuses(&api, &ids).await,
        ["error", "queued", "queued", "error"]
    );
}

#[tokio::test]
async fn one_call_does_no_more_than_its_limit_and_says_where_to_go_on() {
    let api = Api::new(Moves::ByHand).await;
    let ids = failed(&api, 5).await;
    let first = redrive(&api, json!({"status": "error", "limit": 2}))
        .await
        .expect(200);
    assert_eq!(first.get("sample"), json!(ids[..2]));
    // What fails again meanwhile is not redriven a second time.
    drain(&api).await;
    let cursor = first.get("next");
    let rest = json!({"status": "error", "limit": 3, "cursor": cursor});
    let rest = redrive(&api, rest).await.expect(200);
    assert_eq!(rest.get("sample"), json!(ids[2..]));
    assert_eq!(rest.get("next"), Value::Null, "there is nothing behind it");
    assert_eq!(
        statuses(&api, &ids).await,
        ["error", "error", "queued", "queued", "queued"]
    );

    for foreign in [
        json!({"status": "timeout", "cursor": cursor}),
        json!({"status": "error", "since": "2026-09-01T12:00:01Z", "cursor": cursor}),
    ] {
        let refused = redrive(&api, foreign).await;
        assert_eq!(refused.error(400), "VALIDATION_ERROR");
        assert!(refused.text().contains("belongs to another query"));
    }
    let of_a_list = api
        .get("/v1/executions?function=fails&status=error&limit=1")
        .await;
    let of_a_list = json!({"status": "error", "cursor": of_a_list.get("next")});
    assert_eq!(
        redrive(&api, of_a_list).await.error(400),
        "VALIDATION_ERROR"
    );
}

#[tokio::test]
async fn what_cannot_run_again_is_counted_apart() {
    let api = Api::new(Moves::ByHand).await;
    let ids = failed(&api, 2).await;
    let summary = json!({"record": "summary"});
    api.send("PATCH", "/v1/functions/fails", summary)
        .await
        .expect(200);
    let call = api.send("POST", "/v1/functions/fails:invoke", json!({"input": 1}));
    let (called, ()) = tokio::join!(call, async {
        while api.drain("fails", ()).await.get("dispatched") != json!(true) {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(called.expect(200).get("status"), "error");
    for (dry_run, mode) in [(true, "counted"), (false, "done")] {
        let body = json!({"status": "error", "dryRun": dry_run});
        let answer = redrive(&api, body).await.expect(200);
        assert_eq!(answer.get("redriven"), 2, "{mode}");
        assert_eq!(answer.get("inputNotKept"), 1, "{mode}");
    }
    assert_eq!(statuses(&api, &ids).await, ["queued", "queued"]);
}

#[tokio::test]
async fn executions_of_an_earlier_function_of_the_name_are_left_alone() {
    let api = Api::new(Moves::ByHand).await;
    let old = failed(&api, 2).await;
    api.send("DELETE", "/v1/functions/fails", ())
        .await
        .expect(204);
    let unknown = redrive(&api, json!({"status": "error"})).await;
    assert_eq!(unknown.error(404), "FUNCTION_NOT_FOUND");
    let new = failed(&api, 1).await;
    let answer = redrive(&api, json!({"status": "error"})).await.expect(200);
    assert_eq!(
        (answer.get("redriven"), answer.get("skipped")),
        (json!(1), json!(2))
    );
    assert_eq!(statuses(&api, &old).await, ["error", "error"]);
    assert_eq!(statuses(&api, &new).await, ["queued"]);
}

#[tokio::test]
async fn they_run_with_the_version_that_is_named_or_active_and_beyond_the_queues_bound() {
    let api = Api::new(Moves::ByHand).await;
    let ids = failed(&api, 3).await;
    let settings = json!({"timeoutMs": 7, "queueSize": 1});
    let patched = api.send("PATCH", "/v1/functions/fails", settings).await;
    assert_eq!(patched.expect(200).get("version"), 2);
    let unknown = redrive(&api, json!({"status": "error", "version": 9})).await;
    assert_eq!(unknown.error(404), "VERSION_NOT_FOUND");
    assert!(unknown.text().contains("it has 1, 2"), "{}", unknown.text());
    assert_eq!(statuses(&api, &ids).await, ["error", "error", "error"]);

    redrive(&api, json!({"status": "error"})).await.expect(200);
    assert_eq!(api.execution(&ids[2]).await["version"], 2);
    drain(&api).await;
    redrive(&api, json!({"status": "error", "version": 1}))
        .await
        .expect(200);
    assert_eq!(api.execution(&ids[2]).await["version"], 1);
}

#[tokio::test]
async fn a_redrive_that_says_nothing_of_the_state_changes_nothing() {
    let api = Api::new(Moves::ByHand).await;
    let ids = failed(&api, 1).await;
    for body in [
        json!({}),
        json!({"status": "cancelled"}),
        json!({"status": "error", "dryRun": "yes"}),
        json!({"status": "error", "limit": 0}),
        json!({"status": "error", "function": "fails"}),
    ] {
        assert_eq!(redrive(&api, body).await.error(400), "VALIDATION_ERROR");
    }
    assert_eq!(statuses(&api, &ids).await, ["error"]);
}

#[tokio::test]
async fn hundreds_are_redriven_in_the_store_that_lasts() {
    let world = World::new()
        .function("f", exits(65, "no"))
        .spec(json!({"queueSize": 1000}))
        .await;
    for n in 0..600 {
        world.enqueue("f", json!(n)).await;
    }
    world.drain_answer("f", json!({"limit": 600})).await;
    world.upload("f", program("")).await.expect(200);
    let path = "/v1/functions/f:redrive";
    let body = json!({"status": "error", "limit": 500});
    let first = world.post(path, body).await.expect(200);
    assert_eq!(first["redriven"], 500);
    let body = json!({"status": "error", "cursor": first["next"]});
    let rest = world.post(path, body).await.expect(200);
    assert_eq!(
        (&rest["redriven"], &rest["next"]),
        (&json!(100), &json!(null))
    );
    let drained = world.drain_answer("f", json!({"limit": 1000})).await;
    assert_eq!(drained["count"], 600);
    let left = world.get("/v1/executions?function=f&status=error").await;
    assert_eq!(left.expect(200)["items"], json!([]));
}

// Versions whose code is gone.

#[tokio::test]
async fn a_version_without_its_code_is_refused_and_the_others_are_named() {
    // Nobody else's program: all tests share their folder of code.
    let old = || exits(65, "the code that will be gone");
    let world = World::new().function("f", old()).await;
    let digest = world.get("/v1/functions/f").await.expect(200)["digest"].clone();
    world.upload("f", exits(65, "new")).await.expect(200);
    let id = world.enqueue("f", json!(1)).await;
    assert_eq!(world.drain("f").await, "error");
    world.forget_code(digest.as_str().unwrap());

    let rollback = world.post("/v1/functions/f:rollback", json!({"version": 1}));
    let refused = rollback.await.refused(409, "CODE_NOT_KEPT");
    assert!(refused.contains("it has that of 2"), "{refused}");
    assert!(refused.contains(digest.as_str().unwrap()), "{refused}");
    let one = format!("/v1/executions/{id}:redrive");
    let one = world.post(&one, json!({"version": 1})).await;
    one.refused(409, "CODE_NOT_KEPT");
    let many = json!({"status": "error", "version": 1});
    let many = world.post("/v1/functions/f:redrive", many).await;
    many.refused(409, "CODE_NOT_KEPT");
    let function = world.get("/v1/functions/f").await.expect(200);
    assert_eq!(function["version"], 2, "nothing changed");
    assert_eq!(world.status(&id).await, "error");

    world.upload("g", old()).await.expect(201);
    let rollback = world.post("/v1/functions/f:rollback", json!({"version": 1}));
    assert_eq!(rollback.await.expect(200)["version"], 1);
}

#[tokio::test]
async fn a_setting_acts_at_once_on_work_that_stays_with_its_version() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({"queueSize": 2, "timeoutMs": 11}))
        .await;
    let ids = [
        api.enqueue("echo", json!(1)).await,
        api.enqueue("echo", json!(2)).await,
    ];
    let call = json!({"input": 3});
    let full = api
        .send("POST", "/v1/functions/echo:enqueue", call.clone())
        .await;
    assert_eq!(full.error(429), "QUEUE_FULL");
    let before = api.execution(&ids[0]).await["version"].clone();
    let both = json!({"queueSize": 3, "timeoutMs": 22});
    let changed = api.send("PATCH", "/v1/functions/echo", both).await;
    let now = changed.expect(200).get("version");
    assert_ne!(now, before);
    let third = api.send("POST", "/v1/functions/echo:enqueue", call).await;
    let third = third.expect(202).header("x-execution-id").to_owned();
    api.drain("echo", json!({"limit": 3})).await.expect(200);
    for id in &ids {
        assert_eq!(api.execution(id).await["version"], before);
    }
    assert_eq!(api.execution(&third).await["version"], now);
    let limits: Vec<_> = api
        .attempts
        .lock()
        .unwrap()
        .iter()
        .map(|attempt| attempt.time_limit)
        .collect();
    assert_eq!(limits, [11, 11, 22].map(Duration::from_millis));
}

// Exporting.

fn lines(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn ids_of(lines: &[Value]) -> Vec<String> {
    let ids = lines.iter().map(|line| line["executionId"].as_str());
    ids.map(|id| id.unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_export_has_every_execution_as_it_is_shown_newest_first() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({"queueSize": 1000})).await;
    let mut expected = failed(&api, 1).await;
    for n in 0..250 {
        expected.insert(0, api.enqueue("echo", json!({"n": n})).await);
        api.clock.advance(Duration::from_millis(1));
    }
    api.drain("echo", json!({"limit": 240})).await.expect(200);

    for path in ["/v1/executions:export", "/v1/executions%3Aexport"] {
        let export = api.get(path).await.expect(200);
        assert_eq!(export.header("content-type"), "application/x-ndjson");
        let lines = lines(&export);
        assert_eq!(ids_of(&lines), expected);
        for line in lines {
            let id = line["executionId"].as_str().unwrap();
            assert_eq!(line, api.execution(id).await);
        }
    }
    let bare = api.get("/v1/executions:export?outputs=false").await;
    let bare = lines(&bare.expect(200));
    assert_eq!(ids_of(&bare), expected);
    assert!(bare.iter().all(|line| line.get("output").is_none()));

    let some = "/v1/executions:export?function=echo&status=success&until=2026-09-01T12:00:01.050Z";
    let some = lines(&api.get(some).await.expect(200));
    assert_eq!(ids_of(&some), expected[200..250]);
    let rest = format!("/v1/executions:export?before={}", expected[100]);
    let rest = lines(&api.get(&rest).await.expect(200));
    assert_eq!(ids_of(&rest), expected[101..]);
    let none = api.get("/v1/executions:export?function=nobody").await;
    assert_eq!(none.expect(200).text(), "");
}

#[tokio::test]
async fn an_export_reads_on_as_its_client_takes_it_and_ends_visibly_if_it_cannot() {
    let api = Api::new(Moves::ByHand).await;
    api.deploy("echo", json!({"queueSize": 10_000})).await;
    for n in 0..2_000 {
        api.enqueue("echo", json!(n)).await;
        api.clock.advance(Duration::from_millis(1));
    }
    let path = "/v1/executions:export";
    let asked = api.router.clone().oneshot(request("GET", path, &[], ()));
    let mut chunks = asked.await.unwrap().into_body().into_data_stream();
    let first = chunks.next().await.unwrap().unwrap();
    let line = first.split(|byte| *byte == b'\n').next().unwrap();
    let line: Value = serde_json::from_slice(line).unwrap();
    assert_eq!(line["status"], "queued");
    // Done after the first chunk was made: the last one says so.
    api.drain("echo", json!({"limit": 1})).await.expect(200);
    let mut text = first.to_vec();
    while let Some(chunk) = chunks.next().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 2_000);
    let oldest: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(oldest["status"], "success");

    let asked = api.router.clone().oneshot(request("GET", path, &[], ()));
    let mut chunks = asked.await.unwrap().into_body().into_data_stream();
    chunks.next().await.unwrap().unwrap();
    api.store.close().await.unwrap();
    let mut ended_well = true;
    while let Some(chunk) = chunks.next().await {
        ended_well = chunk.is_ok();
    }
    assert!(!ended_well, "it looks like a whole export");
    let refused = api.get(path).await;
    assert_eq!(refused.error(503), "STORE_UNAVAILABLE");
}

#[tokio::test]
async fn exports_under_way_are_bounded() {
    let options = Options {
        exports_max: 1,
        ..Options::default()
    };
    let api = Api::with(Moves::ByHand, options).await;
    let path = "/v1/executions:export";
    let asked = api.router.clone().oneshot(request("GET", path, &[], ()));
    let slow = asked.await.unwrap();
    let refused = api.get(path).await;
    assert_eq!(refused.error(503), "BUSY");
    assert_eq!(refused.header("retry-after"), "1");
    drop(slow);
    api.get(path).await.expect(200);
    for (method, expected) in [("POST", 405), ("DELETE", 405)] {
        let refused = api.send(method, path, ()).await;
        refused.error(expected);
    }
    let wrong = api.get("/v1/executions:export?limit=7&since=x").await;
    assert_eq!(wrong.error(400), "VALIDATION_ERROR");
    assert_eq!(wrong.get("details").as_array().unwrap().len(), 2);
}

// A patch beside wasm.

/// The body of an upload with these parts.
async fn upload(api: &Api, parts: &[(&str, &str)]) -> Answer {
    let parts = parts.iter().map(|(name, text)| {
        format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    });
    let body = parts.chain(["--cut--\r\n".to_owned()]).collect::<String>();
    let request = axum::http::Request::put("/v1/functions/echo")
        .header("host", "localhost")
        .header("content-type", "multipart/form-data; boundary=cut")
        .body(Body::from(body));
    api.raw(request.unwrap()).await
}

#[tokio::test]
async fn a_patch_beside_wasm_changes_what_it_names_of_the_spec_that_stands() {
    let api = Api::new(Moves::ByHand).await;
    let new = upload(&api, &[("patch", r#"{"timeoutMs": 9}"#), ("wasm", WASM)]).await;
    assert_eq!(new.expect(201).get("timeoutMs"), 9);
    let more = r#"{"env": {"A": "1"}, "concurrency": 7}"#;
    let more = upload(&api, &[("wasm", WASM), ("patch", more)]).await;
    let more = more.expect(200);
    assert_eq!(
        (more.get("timeoutMs"), more.get("version")),
        (json!(9), json!(2))
    );
    assert_eq!(more.get("env"), json!({"A": "1"}));
    let back = r#"{"timeoutMs": null, "env": {"B": "2"}}"#;
    let back = upload(&api, &[("wasm", WASM), ("patch", back)]).await;
    let back = back.expect(200);
    assert_eq!(back.get("timeoutMs"), 30_000);
    assert_eq!(back.get("env"), json!({"A": "1", "B": "2"}));
    assert_eq!(back.get("concurrency"), 7);

    for (parts, expected) in [
        (
            &[("patch", "{}"), ("spec", "{}"), ("wasm", WASM)][..],
            "either this part or spec",
        ),
        (
            &[("patch", r#"{"timoutMs": 1}"#), ("wasm", WASM)],
            "did you mean timeoutMs?",
        ),
        (
            &[("patch", "[]"), ("wasm", WASM)],
            "the part patch has to be a JSON object",
        ),
        (&[("patch", "{}")], "this part is needed"),
    ] {
        let refused = upload(&api, parts).await;
        refused.error(400);
        assert!(refused.text().contains(expected), "{}", refused.text());
    }
    assert_eq!(api.get("/v1/functions/echo").await.get("version"), 3);
}
