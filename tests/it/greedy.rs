//! Clients that take more than their part: what they hold is bounded, and others are served.

use axum::http::Request;
use pelton::api::Options;
use serde_json::json;
use tower::ServiceExt as _;

use crate::support::api::{Api, Moves};
use crate::support::world::{World, within};

#[tokio::test]
async fn calls_that_wait_keep_nobody_from_draining() {
    let world = World::new()
        .options(|options| {
            options.body_bytes_max = 1024;
            options.body_bytes_in_flight_max = 1024;
        })
        .echo("f")
        .await;
    let waiting = world.call("f", &[], json!(1));
    let others = async {
        let queued = "function_queue_depth{function=\"f\"}";
        within("the call to wait", async {
            while world.metric(queued).await != Some(1.0) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let body = json!({"input": 2});
        let refused = world.post("/v1/functions/f:enqueue", body).await;
        refused.refused(503, "BUSY");
        assert_eq!(world.drain("f").await, "success");
    };
    let (answer, ()) = tokio::join!(waiting, others);
    assert_eq!(answer.expect(200)["output"], 1);
    // The room is free again.
    world.enqueue("f", json!(3)).await;
}

#[tokio::test]
async fn answers_that_nobody_takes_are_bounded_together() {
    let options = Options {
        answer_bytes_in_flight_max: 8 * 1024,
        ..Options::default()
    };
    let api = Api::with(Moves::ByHand, options).await;
    for n in 0..8 {
        api.deploy(&format!("f{n}"), json!({"image": "builtin:echo"}))
            .await;
    }
    let list = async || {
        let request = Request::get("/v1/functions").header("host", "localhost");
        let request = request.body(axum::body::Body::empty()).unwrap();
        api.router.clone().oneshot(request).await.unwrap()
    };
    let first = list().await;
    assert_eq!(first.status(), 200);
    assert_eq!(list().await.status(), 503);
    // Small ones pass, and so does everything on the other port.
    assert_eq!(api.get("/v1/functions/f0").await.status, 200);
    drop(first);
    assert_eq!(list().await.status(), 200);
}
