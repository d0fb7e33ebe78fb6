//! Guests through the whole plane, by the harness.

use std::time::Duration;

use pelton::execution::Status;
use pelton::testing::{Harness, Home, Setup};

use crate::support::guests;

#[tokio::test]
async fn word_stats_answers_and_waits_in_its_queue() {
    let plane = Harness::start().await.unwrap();
    plane
        .deploy("word-stats", guests::wasm("word-stats"))
        .await
        .unwrap();
    let input = r#"{"text": "hello world hello nano", "topN": 2}"#;
    let id = plane.enqueue("word-stats", input).await.unwrap();
    let queued = plane.execution(id).await.unwrap();
    assert_eq!(queued.execution.status(), Status::Queued);
    let drained = plane.drain_once("word-stats").await.unwrap().unwrap();
    assert_eq!(
        (drained.execution_id, drained.status),
        (id, Status::Success)
    );
    let output = plane.output_json(id).await.unwrap();
    assert_eq!(output["wordCount"], 4);
    let called = plane.invoke("word-stats", input).await.unwrap();
    assert_eq!(
        called.output.as_ref().unwrap().body.len(),
        output.to_string().len()
    );
}

#[tokio::test]
async fn what_was_queued_runs_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let setup = || Setup {
        home: Home::Folder(folder.path().to_owned()),
        ..Setup::default()
    };
    let before = Harness::with(setup()).await.unwrap();
    let wasm = guests::wasm("echo");
    before.deploy("echo", wasm).await.unwrap();
    let id = before.enqueue("echo", r#"{"kept": true}"#).await.unwrap();
    before.stop(Duration::from_secs(1)).await.unwrap();

    let after = Harness::with(setup()).await.unwrap();
    let waiting = after.execution(id).await.unwrap();
    assert_eq!(waiting.execution.status(), Status::Queued);
    let drained = after.drain_once("echo").await.unwrap().unwrap();
    assert_eq!(drained.status, Status::Success);
    let output = after.output_json(id).await.unwrap();
    assert_eq!(output, serde_json::json!({"kept": true}));
}
