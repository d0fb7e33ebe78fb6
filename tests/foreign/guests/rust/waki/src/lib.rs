//! A web function with the crate `waki`, which speaks an early `wasi:http` 0.2.

use waki::{ErrorCode, Request, Response, handler};

#[handler]
fn answer(request: Request) -> Result<Response, ErrorCode> {
    let said: serde_json::Value = match request.json() {
        Ok(said) => said,
        Err(_) => return Response::builder().status_code(400).build(),
    };
    Response::builder()
        .json(&serde_json::json!({ "madeBy": "waki", "said": said }))
        .build()
}
