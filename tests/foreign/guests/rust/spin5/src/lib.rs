//! A web function with Spin's SDK of WASI 0.2, which runs where there is no Spin.

use spin_sdk::http::{IntoResponse, Request, Response};
use spin_sdk::http_component;

#[http_component]
fn answer(request: Request) -> anyhow::Result<impl IntoResponse> {
    let response = match serde_json::from_slice::<serde_json::Value>(request.body()) {
        Ok(said) => {
            let body = serde_json::json!({ "madeBy": "spin-sdk 5", "said": said }).to_string();
            let mut response = Response::new(200, body);
            response.set_header("content-type", "application/json");
            response
        }
        Err(_) => Response::new(400, ()),
    };
    Ok(response)
}
