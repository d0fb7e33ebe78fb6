//! Health and metrics, on both ports.
//!
//! **Invariant:** asks nobody who could keep it waiting.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::Shared;
use super::invocations::json_response;
use crate::observe;

const POISONED: &str = r#"{"status":"DOWN","reason":"the store takes no writes: the log says why, and a restart is needed"}"#;
const STOPPING: &str = r#"{"status":"DOWN","reason":"the server is stopping"}"#;

/// `GET /actuator/health`: the same as readiness.
pub(super) async fn health(state: Shared) -> Response {
    readiness(state).await
}

/// `GET /actuator/health/liveness`: whoever answers is alive.
pub(super) async fn liveness() -> Response {
    up()
}

/// `GET /actuator/health/readiness`: whether calls are taken.
pub(super) async fn readiness(state: Shared) -> Response {
    if state.store.poisoned().is_some() {
        return down(POISONED);
    }
    if !state.scheduler.is_accepting() {
        return down(STOPPING);
    }
    up()
}

/// `GET /actuator/prometheus`, `GET /metrics`
pub(super) async fn prometheus(state: Shared) -> Response {
    (
        [(CONTENT_TYPE, observe::CONTENT_TYPE)],
        state.metrics.render(),
    )
        .into_response()
}

fn up() -> Response {
    json_response(
        StatusCode::OK,
        Bytes::from_static(br#"{"status":"UP"}"#),
        None,
    )
}

fn down(body: &'static str) -> Response {
    json_response(
        StatusCode::SERVICE_UNAVAILABLE,
        Bytes::from_static(body.as_bytes()),
        None,
    )
}
