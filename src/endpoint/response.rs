//! What a service's answer means.
//!
//! **Invariant:** every status means exactly one outcome; nothing is read beyond a limit.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::{POOL_ERROR, chain};
use crate::execution::Outcome;
use crate::model::{ContentType, Failure};

/// Bytes read of an answer that is no success: enough for any sensible error document.
const FAILURE_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of such an answer that are shown.
const FAILURE_TEXT_BYTES_MAX: usize = 1024;
/// Longest error code that is taken over from a service.
const CODE_BYTES_MAX: usize = 64;
/// Room made for an answer before its bytes are there, at most.
const CAPACITY_BYTES_MAX: u64 = 64 * 1024;

/// What a service says of its own start.
pub(super) struct Start {
    pub(super) is_cold: bool,
    pub(super) init_duration: Option<Duration>,
}

/// Reads `X-Cold-Start` and `X-Init-Duration-Ms`; the second counts only with the first.
pub(super) fn start_of(headers: &HeaderMap) -> Start {
    let is_cold =
        text_of(headers, "x-cold-start").is_some_and(|it| it.eq_ignore_ascii_case("true"));
    let init_ms = text_of(headers, "x-init-duration-ms").and_then(|it| it.parse().ok());
    Start {
        is_cold,
        init_duration: init_ms.filter(|_| is_cold).map(Duration::from_millis),
    }
}

/// How large an output may be, and who says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    bytes_max: u64,
    named: &'static str,
}

impl Limit {
    pub(super) fn lesser(output_bytes_max: u64, response_bytes_max: u64) -> Self {
        if output_bytes_max <= response_bytes_max {
            Self {
                bytes_max: output_bytes_max,
                named: "outputBytesMax of the function's spec",
            }
        } else {
            Self {
                bytes_max: response_bytes_max,
                named: "the server's limit for answers of services",
            }
        }
    }
}

/// What a status stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Success,
    Error,
    Retry,
    Requeue,
    Unexpected,
}

fn meaning(status: StatusCode, headers: &HeaderMap) -> Meaning {
    match status.as_u16() {
        200..=299 => Meaning::Success,
        429 => Meaning::Requeue,
        503 if headers.contains_key(RETRY_AFTER) => Meaning::Requeue,
        408 | 425 | 500..=599 => Meaning::Retry,
        400..=499 => Meaning::Error,
        _ => Meaning::Unexpected,
    }
}

/// Reads as much of the answer as its meaning needs and says what it came to.
pub(super) async fn outcome(answer: Response, limit: Limit) -> Outcome {
    match meaning(answer.status(), answer.headers()) {
        Meaning::Success => success(answer, limit).await,
        Meaning::Error => Outcome::Error(failure(answer).await),
        Meaning::Retry => Outcome::Retry(failure(answer).await),
        Meaning::Requeue => Outcome::Requeue(delay_ms(answer.headers())),
        Meaning::Unexpected => Outcome::Error(unexpected(&answer)),
    }
}

async fn success(answer: Response, limit: Limit) -> Outcome {
    let content_type = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|text| ContentType(Cow::Owned(text.to_owned())));
    match read(answer, limit.bytes_max).await {
        Ok(body) => Outcome::Success { content_type, body },
        Err(ReadError::TooLarge) => {
            let Limit { bytes_max, named } = limit;
            let message =
                format!("the answer is larger than the {bytes_max} bytes that {named} allows");
            Outcome::Limit(Failure::new("OUTPUT_TOO_LARGE", message))
        }
        Err(ReadError::Broken(error)) => {
            let cause = chain(&error);
            let message = format!("the connection broke while the answer was read: {cause}");
            Outcome::Retry(Failure::new(POOL_ERROR, message))
        }
    }
}

enum ReadError {
    TooLarge,
    Broken(reqwest::Error),
}

/// The whole body, unless it is larger than `bytes_max`; what is announced as larger is not read at all.
async fn read(mut answer: Response, bytes_max: u64) -> Result<Bytes, ReadError> {
    let announced = answer.content_length().unwrap_or(0);
    if announced > bytes_max {
        return Err(ReadError::TooLarge);
    }
    let capacity = usize::try_from(announced.min(CAPACITY_BYTES_MAX)).unwrap_or(0);
    let mut body = BytesMut::with_capacity(capacity);
    while let Some(chunk) = answer.chunk().await.map_err(ReadError::Broken)? {
        if length(&body).saturating_add(length(&chunk)) > bytes_max {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The beginning of a body, for people: an end by limit or a broken connection is as good as any.
async fn read_beginning(mut answer: Response) -> BytesMut {
    let mut body = BytesMut::new();
    while length(&body) < FAILURE_BODY_BYTES_MAX {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    body
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

async fn failure(answer: Response) -> Failure {
    let status = answer.status();
    let body = read_beginning(answer).await;
    if let Some(failure) = stated_failure(&body) {
        return failure;
    }
    let text = String::from_utf8_lossy(&body);
    let text = shortened(text.trim());
    let message = if text.is_empty() {
        format!("the service answered {status}")
    } else {
        format!("the service answered {status}: {text}")
    };
    Failure::new(POOL_ERROR, message)
}

/// The failure that a service states itself: `{"error": {"code", "message"}}`,
/// `{"error": CODE, "message": …}` or `{"error": "what happened"}`.
fn stated_failure(body: &[u8]) -> Option<Failure> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let (code, message) = match document.get("error")? {
        Value::Object(error) => (
            error.get("code").and_then(Value::as_str),
            error.get("message").and_then(Value::as_str),
        ),
        Value::String(error) => match document.get("message").and_then(Value::as_str) {
            Some(message) => (Some(error.as_str()), Some(message)),
            None => (None, Some(error.as_str())),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    let code = code.filter(|code| is_code(code));
    if code.is_none() && message.is_none() {
        return None;
    }
    Some(Failure {
        code: code.map_or(Cow::Borrowed(POOL_ERROR), |it| Cow::Owned(it.to_owned())),
        message: shortened(message.unwrap_or("the service gave no message")),
    })
}

fn is_code(text: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The text up to the limit, cut between characters, the cut marked.
fn shortened(text: &str) -> String {
    if text.len() <= FAILURE_TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX);
    format!("{}…", text.get(..end).unwrap_or_default())
}

fn unexpected(answer: &Response) -> Failure {
    let status = answer.status();
    let advice = match answer
        .headers()
        .get(LOCATION)
        .and_then(|it| it.to_str().ok())
    {
        Some(location) if status.is_redirection() => format!(
            " to {}: redirects are never followed, so register the final address as endpointUrl",
            shortened(location)
        ),
        Some(_) | None => ": services answer 2xx, 4xx or 5xx".to_owned(),
    };
    Failure::new(
        "UNEXPECTED_STATUS",
        format!("the service answered {status}{advice}"),
    )
}

/// The delay of `Retry-After` in ms, in seconds or as a date. A date is measured against the answer's own
/// `Date`: the two clocks need not agree.
fn delay_ms(headers: &HeaderMap) -> Option<u64> {
    let text = text_of(headers, RETRY_AFTER.as_str())?;
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let until = date(text)?;
    let now = date(text_of(headers, DATE.as_str())?)?;
    let delay_ms = until.as_millisecond().saturating_sub(now.as_millisecond());
    Some(u64::try_from(delay_ms).unwrap_or(0))
}

fn date(text: &str) -> Option<jiff::Timestamp> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(text).ok()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.trim())
}
