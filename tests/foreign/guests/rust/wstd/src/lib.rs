//! A web function with the crate `wstd`.

use serde_json::{Value, json};
use wstd::http::body::Body;
use wstd::http::{Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let said: Value = match request.body_mut().json().await {
        Ok(said) => said,
        Err(_) => {
            let refused = Response::builder().status(StatusCode::BAD_REQUEST);
            return Ok(refused.body(Body::from(()))?);
        }
    };
    let body = Body::from_json(&json!({ "madeBy": "wstd", "said": said }))?;
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(body)?)
}
