//! The API's functions: deployed, created, shown, changed, deleted.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::support::api::{Answer, Api, Moves, WASM};

/// A multipart upload of these parts: name and text.
async fn multipart(api: &Api, path: &str, parts: &[(&str, &str)]) -> Answer {
    let mut body = String::new();
    for (name, text) in parts {
        body.push_str(&format!(
            "--limit\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n"
        ));
    }
    body.push_str("--limit--\r\n");
    let request = Request::put(path)
        .header("host", "localhost")
        .header("content-type", "multipart/form-data; boundary=limit")
        .body(Body::from(body));
    api.raw(request.unwrap()).await
}

#[tokio::test]
async fn wasm_alone_makes_a_function_and_then_versions_of_it() {
    let api = Api::new(Moves::ByHand).await;
    let created = api.upload("echo", WASM).await.expect(201);
    assert_eq!(created.header("location"), "/v1/functions/echo");
    assert_eq!(created.get("version"), 1);
    assert_eq!(created.get("shape"), "handler");
    assert_eq!(created.get("sizeBytes"), WASM.len());
    assert_eq!(created.get("effectiveExecutionMode"), "LOCAL");
    assert_eq!(created.get("createdAt"), "2026-09-01T12:00:00.000Z");

    api.send("PATCH", "/v1/functions/echo", json!({"timeoutMs": 7}))
        .await
        .expect(200);
    let second = api.upload("echo", "\0asm, another").await.expect(200);
    assert_eq!(second.get("version"), 3);
    assert_eq!(second.get("timeoutMs"), 7, "new code keeps the spec");
    assert_ne!(second.get("digest"), created.get("digest"));
}

#[tokio::test]
async fn a_spec_and_wasm_come_together() {
    let api = Api::new(Moves::ByHand).await;
    let spec = r#"{"name":"echo","timeoutMs":9,"concurrency":2}"#;
    let parts = [("spec", spec), ("wasm", WASM)];
    let created = multipart(&api, "/v1/functions/echo", &parts)
        .await
        .expect(201);
    assert_eq!(
        (created.get("timeoutMs"), created.get("concurrency")),
        (json!(9), json!(2))
    );

    let replaced = multipart(
        &api,
        "/v1/functions/echo",
        &[("wasm", WASM), ("spec", "{}")],
    )
    .await;
    assert_eq!(
        replaced.expect(200).get("timeoutMs"),
        30_000,
        "the spec is the whole spec"
    );

    for (parts, expected) in [
        (&[("spec", "{}")][..], "wasm: this part is needed"),
        (
            &[("wasm", WASM), ("wasm", WASM)],
            "wasm: there is more than one",
        ),
        (&[("wasm", WASM), ("code", "x")], "there is no such part"),
        (
            &[("wasm", WASM), ("spec", r#"{"concurency":1}"#)],
            "did you mean concurrency?",
        ),
        (
            &[("wasm", WASM), ("spec", r#"{"name":"other"}"#)],
            "name: must be the one of the path",
        ),
        (
            &[("wasm", WASM), ("spec", r#"{"endpointUrl":"http://x"}"#)],
            "endpointUrl: ",
        ),
    ] {
        let refused = multipart(&api, "/v1/functions/echo", parts).await;
        assert_eq!(refused.error(400), "VALIDATION_ERROR");
        assert!(refused.text().contains(expected), "{}", refused.text());
    }
    let now = api.get("/v1/functions/echo").await;
    assert_eq!(now.get("version"), 2, "what was refused changed nothing");
}

#[tokio::test]
async fn every_complaint_about_an_upload_comes_at_once() {
    let api = Api::new(Moves::ByHand).await;
    let details = async |path: &str, parts: &[(&str, &str)]| {
        let refused = multipart(&api, path, parts).await;
        assert_eq!(refused.error(400), "VALIDATION_ERROR");
        let details = refused.get("details");
        let details = details.as_array().expect("a list").clone();
        let starts = details
            .iter()
            .map(|it| it.as_str().unwrap().split(':').next().unwrap());
        starts.map(str::to_owned).collect::<Vec<_>>()
    };
    let spec = r#"{"timeoutMs": 0, "retryBackoff": {"baseDelay": 1}}"#;
    let parts = [("spec", spec), ("code", "x"), ("spec", "{}")];
    let said = details("/v1/functions/9a", &parts).await;
    let of_spec = ["timeoutMs", "retryBackoff.\"baseDelay\""];
    for start in ["name", "\"code\"", "spec", "wasm"].iter().chain(&of_spec) {
        assert!(said.iter().any(|said| said == start), "{start}: {said:?}");
    }
    assert_eq!(said.len(), 6, "{said:?}");

    let patch = r#"{"timeoutMs": 0, "name": "f"}"#;
    let both = [("patch", patch), ("spec", "[]")];
    let said = details("/v1/functions/f", &both).await;
    assert_eq!(
        said,
        [
            "wasm",
            "patch",
            "the part spec has to be a JSON object, and is a list"
        ]
    );
    let said = details("/v1/functions/f", &[("patch", patch)]).await;
    assert_eq!(said, ["wasm", "timeoutMs"]);
    let said = details("/v1/functions/9a", &[("wasm", WASM), ("patch", patch)]).await;
    assert_eq!(said, ["name", "timeoutMs"]);

    // As many parts as there is room for are not all complained of.
    let many = vec![("code", "x"); 500];
    assert_eq!(details("/v1/functions/f", &many).await.len(), 16);
    api.get("/v1/functions/f").await.error(404);
}

/// Whatever the way a spec comes in, and however deep a mistake is.
#[tokio::test]
async fn every_mistake_in_nested_fields_is_named_by_every_way_in() {
    let api = Api::new(Moves::ByHand).await;
    api.upload("echo", WASM).await.expect(201);
    let nested = json!({
        "retryBackoff": {"baseDelay": 1, "maxDelayMs": -1},
        "secrets": {"KEY": {"secrt": "name", "as": "config"}, "OTHER": {"secret": "name", "as": "nothing"}},
        "env": {"A": 1}, "config": {"k": [2]}, "args": ["a", 3], "hosts": ["a b"], "allowHosts": ["ftp://x"],
        "timeotMs": 1,
    });
    let mistakes = [
        "did you mean timeoutMs?",
        r#"retryBackoff.\"baseDelay\": there is no such field"#,
        "retryBackoff.maxDelayMs: ",
        r#"secrets.\"KEY\": \"secrt\": there is no such field"#,
        r#"secrets.\"OTHER\": as: "#,
        r#"env: \"A\" "#,
        r#"config: \"k\" "#,
        "args: ",
        "hosts: ",
        "allowHosts: ",
    ];
    let text = nested.to_string();
    let mut created = nested.clone();
    created["name"] = json!("new");
    created["image"] = json!("builtin:echo");
    let path = "/v1/functions/echo";
    for (way, refused) in [
        ("POST", api.send("POST", "/v1/functions", created).await),
        ("PATCH", api.send("PATCH", path, nested.clone()).await),
        (
            "PUT spec",
            multipart(&api, path, &[("wasm", WASM), ("spec", &text)]).await,
        ),
        (
            "PUT patch",
            multipart(&api, path, &[("wasm", WASM), ("patch", &text)]).await,
        ),
    ] {
        assert_eq!(refused.error(400), "VALIDATION_ERROR", "{way}");
        let said = refused.text();
        for mistake in mistakes {
            assert!(said.contains(mistake), "{way}: {mistake} is not in {said}");
        }
    }
    assert_eq!(api.get(path).await.get("version"), 1);
    api.get("/v1/functions/new").await.error(404);
}

#[tokio::test]
async fn post_creates_and_only_that() {
    let api = Api::new(Moves::ByHand).await;
    // Every field of nanofaas's command line, as it sends them.
    let spec = json!({
        "name": "echo", "image": "builtin:echo", "command": null, "env": null, "resources": null,
        "timeoutMs": null, "concurrency": null, "queueSize": null, "maxRetries": 1, "endpointUrl": null,
        "executionMode": "LOCAL", "runtimeMode": "HTTP", "runtimeCommand": null, "scalingConfig": null,
        "imagePullSecrets": null,
    });
    let created = api
        .send("POST", "/v1/functions", spec.clone())
        .await
        .expect(201);
    assert_eq!(created.get("executionMode"), "LOCAL");
    assert_eq!(created.get("maxRetries"), 1);
    assert_eq!(created.get("ignored"), json!(["runtimeMode"]));
    assert_eq!(
        api.send("POST", "/v1/functions", spec).await.error(409),
        "NAME_TAKEN"
    );
}

#[tokio::test]
async fn a_mode_is_what_was_asked_for_and_what_was_got() {
    let api = Api::new(Moves::ByHand).await;
    let create = async |spec| api.send("POST", "/v1/functions", spec).await;
    let url = "http://runtime.example/invoke";

    let pool = create(json!({"name": "a", "image": "any", "endpointUrl": url}))
        .await
        .expect(201);
    assert_eq!(pool.get("executionMode"), "POOL");
    assert_eq!(pool.get("endpointUrl"), url);

    let spec = json!({"name": "b", "endpointUrl": url, "executionMode": "DEPLOYMENT"});
    let deployment = create(spec).await.expect(201);
    assert_eq!(deployment.get("requestedExecutionMode"), "DEPLOYMENT");
    assert_eq!(deployment.get("effectiveExecutionMode"), "POOL");

    let spec = json!({"name": "c", "image": "x:1", "executionMode": "DEPLOYMENT"});
    assert_eq!(create(spec).await.error(422), "NO_PROVIDER");
    let unknown = create(json!({"name": "d", "image": "x:1"})).await;
    assert_eq!(unknown.error(422), "IMAGE_NOT_FOUND");
    assert!(unknown.text().contains("PUT /v1/functions/d"));
    let spec = json!({"name": "e", "endpointUrl": "ftp://x"});
    assert_eq!(create(spec).await.error(400), "VALIDATION_ERROR");
    let names: Vec<_> = api
        .get("/v1/functions")
        .await
        .json()
        .as_array()
        .unwrap()
        .clone();
    let names: Vec<_> = names
        .iter()
        .map(|function| function["name"].clone())
        .collect();
    assert_eq!(names, ["a", "b"], "sorted, and nothing of what was refused");
}

#[tokio::test]
async fn uploaded_code_can_be_named_by_its_digest() {
    let api = Api::new(Moves::ByHand).await;
    let digest = api.upload("first", WASM).await.expect(201).get("digest");
    let second = json!({"name": "second", "image": digest});
    let second = api.send("POST", "/v1/functions", second).await.expect(201);
    assert_eq!(second.get("digest"), digest);
    assert_eq!(second.get("shape"), "handler");
}

#[tokio::test]
async fn a_patch_makes_a_version_only_where_the_version_changes() {
    let api = Api::new(Moves::ByHand).await;
    api.upload("echo", WASM).await.expect(201);
    let patch = async |spec| api.send("PATCH", "/v1/functions/echo", spec).await;

    let settings = patch(json!({"concurrency": 9, "ratePerSecond": 5}))
        .await
        .expect(200);
    assert_eq!(
        (settings.get("version"), settings.get("concurrency")),
        (json!(1), json!(9))
    );
    let version = patch(json!({"timeoutMillis": 8})).await.expect(200);
    assert_eq!(
        (version.get("version"), version.get("timeoutMs")),
        (json!(2), json!(8))
    );

    let shown = api.get("/v1/functions/echo").await.json();
    let same = patch(shown).await.expect(200);
    assert_eq!(
        same.get("version"),
        2,
        "sent back as it was shown, nothing changes"
    );

    api.clock.advance(std::time::Duration::from_secs(1));
    let nothing = patch(json!({"timeoutMs": 8})).await.expect(200);
    assert_eq!(nothing.json(), same.json(), "not even when it was changed");

    let stray = patch(json!({"version": 7, "digest": "x", "versions": 2, "shape": null})).await;
    assert_eq!(stray.error(400), "VALIDATION_ERROR");
    let details = stray.get("details");
    assert_eq!(details.as_array().unwrap().len(), 2, "{details}");
    assert!(stray.text().contains("version: is not what GET shows"));
    assert!(stray.text().contains("echo:rollback"));

    let typed = [("content-type", "application/merge-patch+json")];
    let merged = api
        .send_with("PATCH", "/v1/functions/echo", &typed, json!({"burst": 3}))
        .await;
    assert_eq!(merged.expect(200).get("burst"), 3);

    let refused = patch(json!({"timeoutMs": 0, "queueSise": null})).await;
    assert_eq!(refused.error(400), "VALIDATION_ERROR");
    assert_eq!(refused.get("details").as_array().unwrap().len(), 2);
    let missing = api.send("PATCH", "/v1/functions/none", json!({})).await;
    assert_eq!(missing.error(404), "FUNCTION_NOT_FOUND");
}

#[tokio::test]
async fn an_older_version_comes_back() {
    let api = Api::new(Moves::ByHand).await;
    api.upload("echo", WASM).await.expect(201);
    api.upload("echo", "\0asm, another").await.expect(200);
    let rollback = async |body| api.send("POST", "/v1/functions/echo:rollback", body).await;
    assert_eq!(
        rollback(json!({"version": 1}))
            .await
            .expect(200)
            .get("version"),
        1
    );
    let unknown = rollback(json!({"version": 7})).await;
    assert_eq!(unknown.error(404), "VERSION_NOT_FOUND");
    assert_eq!(rollback(json!({})).await.error(400), "VALIDATION_ERROR");

    let versions = api
        .get("/v1/functions/echo/versions")
        .await
        .expect(200)
        .json();
    let numbers: Vec<_> = versions
        .as_array()
        .unwrap()
        .iter()
        .map(|version| (version["version"].as_u64(), version["active"].as_bool()))
        .collect();
    assert_eq!(numbers, [(Some(1), Some(true)), (Some(2), Some(false))]);
}

#[tokio::test]
async fn a_deleted_function_is_gone_and_its_queue_with_it() {
    let api = Api::new(Moves::ByHand).await;
    api.upload("echo", WASM).await.expect(201);
    let id = api.enqueue("echo", json!(1)).await;
    let deleted = api
        .send("DELETE", "/v1/functions/echo", ())
        .await
        .expect(204);
    assert!(deleted.body.is_empty());
    assert_eq!(
        api.get("/v1/functions/echo").await.error(404),
        "FUNCTION_NOT_FOUND"
    );
    let again = api.send("DELETE", "/v1/functions/echo", ()).await;
    assert_eq!(again.error(404), "FUNCTION_NOT_FOUND");
    let ended = api.execution(&id).await;
    assert_eq!(ended["error"]["code"], "FUNCTION_REMOVED");
}

#[tokio::test]
async fn replicas_are_told_apart_from_what_there_is() {
    let api = Api::new(Moves::ByHand).await;
    api.upload("echo", WASM).await.expect(201);
    let path = "/v1/functions/echo/replicas";
    let refused = api.send("PUT", path, json!({"replicas": 2})).await;
    assert_eq!(refused.error(400), "BAD_REQUEST");
    let missing = api
        .send("PUT", "/v1/functions/none/replicas", json!({"replicas": 2}))
        .await;
    assert_eq!(missing.error(404), "FUNCTION_NOT_FOUND");
}

#[tokio::test]
async fn wasm_does_not_come_with_an_image_that_would_not_run() {
    let api = Api::new(Moves::ByHand).await;
    let spec = |image: &str| json!({ "image": image }).to_string();
    let put = async |spec: &str| {
        let parts = [("wasm", WASM), ("spec", spec)];
        multipart(&api, "/v1/functions/echo", &parts).await
    };
    let other = format!("sha256:{}", "0".repeat(64));
    for image in ["builtin:echo", "alpine:3", &other] {
        let refused = put(&spec(image)).await;
        assert_eq!(refused.error(400), "VALIDATION_ERROR", "{image}");
        assert!(refused.text().contains("image: the function has wasm"));
    }
    let digest = put("{}").await.expect(201).get("digest");
    put(&spec(digest.as_str().unwrap())).await.expect(200);

    let shown = api.get("/v1/functions/echo").await;
    let parts = [("wasm", "\0asm, another"), ("spec", shown.text())];
    let redeployed = multipart(&api, "/v1/functions/echo", &parts)
        .await
        .expect(200);
    assert_ne!(redeployed.get("digest"), digest);
    assert_eq!(
        redeployed.get("image"),
        redeployed.get("digest"),
        "what is shown is what runs"
    );
}

#[tokio::test]
async fn a_spec_that_is_no_json_is_named() {
    let api = Api::new(Moves::ByHand).await;
    let parts = [("wasm", WASM), ("spec", "{")];
    let refused = multipart(&api, "/v1/functions/echo", &parts).await;
    assert_eq!(refused.error(400), "BAD_REQUEST");
    assert!(refused.text().contains("the part spec cannot be read"));
}
