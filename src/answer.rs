//! What an HTTP answer of a function means: one table of statuses, for functions that run here and for those
//! behind a URL.
//!
//! **Invariant:** every status means exactly one outcome; what is quoted of an answer is bounded.

use std::borrow::Cow;

use http::header::{DATE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::model::Failure;

/// Bytes read of an answer that is no success: enough for any sensible error document.
pub const FAILURE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of such an answer that are shown.
const FAILURE_TEXT_BYTES_MAX: usize = 1024;
/// Longest error code that is taken over from an answer.
const CODE_BYTES_MAX: usize = 64;

/// What a status stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The function answered.
    Success,
    /// Final.
    Error,
    /// May work next time.
    Retry,
    /// Not now.
    Requeue,
    /// No answer that a function gives: 1xx, a redirect (never followed), beyond 599.
    Unexpected,
}

/// The meaning of an answer's status; a 503 depends on whether it says when to come back.
pub fn meaning(status: StatusCode, headers: &HeaderMap) -> Meaning {
    match status.as_u16() {
        200..=299 => Meaning::Success,
        429 => Meaning::Requeue,
        503 if headers.contains_key(RETRY_AFTER) => Meaning::Requeue,
        408 | 425 | 500..=599 => Meaning::Retry,
        400..=499 => Meaning::Error,
        _ => Meaning::Unexpected,
    }
}

/// The failure that an answer states in its (beginning of a) body, else one of this code that quotes it.
pub fn failure(
    who: &str,
    status: StatusCode,
    body: &[u8],
    nameless: impl FnOnce() -> Cow<'static, str>,
) -> Failure {
    if let Some(failure) = stated_failure(body) {
        return Failure {
            code: failure.code.map_or_else(nameless, Cow::Owned),
            message: failure
                .message
                .unwrap_or_else(|| format!("{who} gave no message")),
        };
    }
    let text = String::from_utf8_lossy(body);
    let text = shortened(text.trim());
    let message = if text.is_empty() {
        format!("{who} answered {status}")
    } else {
        format!("{who} answered {status}: {text}")
    };
    Failure {
        code: nameless(),
        message,
    }
}

struct Stated {
    code: Option<String>,
    message: Option<String>,
}

/// The failure that an answer states itself: `{"error": {"code", "message"}}`,
/// `{"error": CODE, "message": …}` or `{"error": "what happened"}`.
fn stated_failure(body: &[u8]) -> Option<Stated> {
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
    Some(Stated {
        code: code.map(str::to_owned),
        message: message.map(shortened),
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

/// The failure of an answer that is none. `advice` says what to do about a redirect.
pub fn unexpected(who: &str, status: StatusCode, headers: &HeaderMap, advice: &str) -> Failure {
    let location = headers.get(LOCATION).and_then(|it| it.to_str().ok());
    let advice = match location {
        Some(location) if status.is_redirection() => format!(
            " to {}: redirects are never followed, so {advice}",
            shortened(location)
        ),
        Some(_) | None => ": functions answer 2xx, 4xx or 5xx".to_owned(),
    };
    Failure::new(
        "UNEXPECTED_STATUS",
        format!("{who} answered {status}{advice}"),
    )
}

/// The delay of `Retry-After` in ms, in seconds or as a date. A date is measured against the answer's own
/// `Date`: the two clocks need not agree.
pub fn delay_ms(headers: &HeaderMap) -> Option<u64> {
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

/// A header's text without blanks around it.
pub fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_meaning() {
        let of = |status: u16| meaning(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        for (status, expected) in [
            (100, Meaning::Unexpected),
            (200, Meaning::Success),
            (204, Meaning::Success),
            (299, Meaning::Success),
            (301, Meaning::Unexpected),
            (400, Meaning::Error),
            (404, Meaning::Error),
            (408, Meaning::Retry),
            (425, Meaning::Retry),
            (429, Meaning::Requeue),
            (500, Meaning::Retry),
            (503, Meaning::Retry),
            (600, Meaning::Unexpected),
            (999, Meaning::Unexpected),
        ] {
            assert_eq!(of(status), expected, "{status}");
        }
        let later = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().unwrap())]);
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(meaning(unavailable, &later), Meaning::Requeue);
        assert_eq!(delay_ms(&later), Some(7_000));
    }

    #[test]
    fn a_failure_is_the_stated_one_or_a_quotation() {
        let of = |body: &str| {
            let status = StatusCode::BAD_GATEWAY;
            let failure = failure("it", status, body.as_bytes(), || Cow::Borrowed("NONE"));
            (failure.code.into_owned(), failure.message)
        };
        let said = |code: &str, message: &str| (code.to_owned(), message.to_owned());
        assert_eq!(
            of(r#"{"error":{"code":"A","message":"b"}}"#),
            said("A", "b")
        );
        assert_eq!(of(r#"{"error":"A","message":"b"}"#), said("A", "b"));
        assert_eq!(
            of(r#"{"error":"what happened"}"#),
            said("NONE", "what happened")
        );
        assert_eq!(
            of(r#"{"error":{"code":"A"}}"#),
            said("A", "it gave no message")
        );
        assert_eq!(
            of(r#"{"error":7}"#),
            said("NONE", r#"it answered 502 Bad Gateway: {"error":7}"#)
        );
        assert_eq!(of(" "), said("NONE", "it answered 502 Bad Gateway"));
    }
}
