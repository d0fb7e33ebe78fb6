//! The request that an HTTP function gets when it is called through the API: a POST of the input.
//!
//! **Invariant:** the input is sent byte for byte as the caller wrote it.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::WasiBody;

use crate::execution::{Attempt, Outcome};
use crate::model::Failure;

/// Where a function believes to be called: it has no host name of its own here.
const AUTHORITY: &str = "localhost";

const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// The request of an attempt.
///
/// # Errors
/// The input's media type is none that a header can carry.
pub(super) fn of_attempt(attempt: &Attempt) -> Result<Request<WasiBody>, Outcome> {
    let path = attempt.version.spec.invoke_path.as_deref().unwrap_or("/");
    let body: Bytes = attempt.input.body.clone();
    let length = body.len();
    let body = Full::new(body).map_err(|never| match never {});
    let mut request = Request::new(body.boxed_unsync());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("http://{AUTHORITY}{path}")
        .parse()
        .map_err(|_| unusable(format!("invokePath {path:?} is no path")))?;
    let headers = request.headers_mut();
    let content_type = &attempt.input.content_type.0;
    let content_type = HeaderValue::try_from(&**content_type)
        .map_err(|_| unusable(format!("{content_type:?} is no media type")))?;
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(HOST, HeaderValue::from_static(AUTHORITY));
    label(headers, attempt);
    describe(headers, attempt);
    Ok(request)
}

/// Says which execution this is, and of which trace where the request itself does not.
pub(super) fn label(headers: &mut HeaderMap, attempt: &Attempt) {
    if let Ok(id) = HeaderValue::try_from(attempt.execution_id.to_string()) {
        headers.insert(HeaderName::from_static("x-execution-id"), id);
    }
    if let Some(trace_id) = attempt.trace_id.as_deref()
        && let Ok(trace_id) = HeaderValue::try_from(trace_id)
    {
        headers.entry(X_TRACE_ID).or_insert(trace_id);
    }
}

/// Says what there is to know of a call.
fn describe(headers: &mut HeaderMap, attempt: &Attempt) {
    let key = attempt.idempotency_key.as_ref();
    let values = [
        ("x-dispatch-attempt", Some(attempt.fence.to_string())),
        ("x-attempt", Some(attempt.number.to_string())),
        (
            "traceparent",
            attempt.traceparent.as_deref().map(str::to_owned),
        ),
        ("idempotency-key", key.map(|key| key.as_str().to_owned())),
    ];
    for (name, value) in values {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn unusable(message: String) -> Outcome {
    Outcome::Error(Failure::new("BAD_REQUEST", message))
}
