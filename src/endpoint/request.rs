//! What a service is sent.
//!
//! **Invariant:** JSON input reaches the service byte for byte as the caller wrote it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use crate::execution::Attempt;
use crate::model::Input;

/// The envelope `{"input", "metadata"}`.
#[derive(serde::Serialize)]
struct Envelope<'a> {
    input: Payload<'a>,
    metadata: Metadata<'a>,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Base64(String),
}

struct Metadata<'a>(&'a [(String, String)]);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The body of an attempt's request.
///
/// # Errors
/// What went wrong, for people; nothing that an input can cause.
pub(super) fn body(attempt: &Attempt) -> Result<Vec<u8>, String> {
    let envelope = Envelope {
        input: payload(&attempt.input),
        metadata: Metadata(&attempt.metadata),
    };
    serde_json::to_vec(&envelope)
        .map_err(|error| format!("the request could not be written: {error}"))
}

/// How the input stands in the envelope. Bytes that only claim to be JSON are not spliced in (they could
/// end the member and write others), but sent as the text or bytes they are.
fn payload(input: &Input) -> Payload<'_> {
    if input.content_type.is_json()
        && let Ok(json) = serde_json::from_slice(&input.body)
    {
        return Payload::Json(json);
    }
    let is_text = input.content_type.is_text() || input.content_type.is_json();
    match str::from_utf8(&input.body) {
        Ok(text) if is_text => Payload::Text(text),
        Ok(_) | Err(_) => Payload::Base64(STANDARD.encode(&input.body)),
    }
}

/// The headers of an attempt's request.
pub(super) fn headers(attempt: &Attempt) -> HeaderMap {
    let key = attempt.idempotency_key.as_ref();
    let values = [
        ("x-execution-id", Some(attempt.execution_id.to_string())),
        ("x-dispatch-attempt", Some(attempt.fence.to_string())),
        ("x-trace-id", attempt.trace_id.as_deref().map(str::to_owned)),
        (
            "traceparent",
            attempt.traceparent.as_deref().map(str::to_owned),
        ),
        ("idempotency-key", key.map(|key| key.as_str().to_owned())),
    ];
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in values {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}
