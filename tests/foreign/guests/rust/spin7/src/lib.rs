//! A web function with Spin's SDK of WASI 0.3, which runs where there is no Spin.

use serde_json::{Value, json};
use spin_sdk::http::body::IncomingBodyExt as _;
use spin_sdk::http::{IntoResponse, Json, Request, StatusCode};
use spin_sdk::http_service;

#[http_service]
async fn answer(request: Request) -> impl IntoResponse {
    let body = request.into_body().bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Value>(&body) {
        Ok(said) => (
            StatusCode::OK,
            Json(json!({ "madeBy": "spin-sdk 7", "said": said })),
        ),
        Err(error) => (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": error.to_string() })),
        ),
    }
}
