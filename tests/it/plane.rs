//! Guests through the whole plane, by the harness.

use pelton::execution::Status;
use pelton::testing::Harness;

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
    let called = plane.invoke_draining("word-stats", input).await.unwrap();
    assert_eq!(
        called.output.as_ref().unwrap().body.len(),
        output.to_string().len()
    );
}
