//! The headers of a call.
//!
//! **Invariant:** a header that only labels a call (`X-Trace-Id`, `traceparent`) never makes it fail: one
//! that cannot be used is left out. One that changes what happens is refused where it is wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

use crate::api::error::Error;
use crate::model::{Fence, IdempotencyKey, InvalidIdempotencyKey, limits};

/// Names the execution that an answer is about.
pub(in crate::api) const X_EXECUTION_ID: HeaderName = HeaderName::from_static("x-execution-id");

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const X_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-timeout-ms");
const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_DISPATCH_ATTEMPT: HeaderName = HeaderName::from_static("x-dispatch-attempt");

/// Longest trace id that is passed on, in bytes.
const TRACE_ID_BYTES_MAX: usize = 256;

/// What the headers of a call say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::api) struct CallHeaders {
    pub(in crate::api) key: Option<IdempotencyKey>,
    /// How long a synchronous caller waits.
    pub(in crate::api) wait: Option<Duration>,
    pub(in crate::api) trace_id: Option<Arc<str>>,
    pub(in crate::api) traceparent: Option<Arc<str>>,
}

impl CallHeaders {
    /// Reads the headers of a synchronous call.
    ///
    /// # Errors
    /// 400 with all complaints.
    pub(in crate::api) fn parse(headers: &HeaderMap) -> Result<Self, Error> {
        let mut complaints = Vec::new();
        let wait = wait(headers).unwrap_or_else(|complaint| {
            complaints.push(complaint);
            None
        });
        let others = Self::parse_others(headers, complaints)?;
        Ok(Self { wait, ..others })
    }

    /// Reads the headers of a call that nobody waits for: `X-Timeout-Ms` means nothing to it.
    ///
    /// # Errors
    /// 400 with all complaints.
    pub(in crate::api) fn parse_unwaited(headers: &HeaderMap) -> Result<Self, Error> {
        Self::parse_others(headers, Vec::new())
    }

    fn parse_others(headers: &HeaderMap, mut complaints: Vec<String>) -> Result<Self, Error> {
        let key = key(headers).unwrap_or_else(|complaint| {
            complaints.push(complaint);
            None
        });
        if !complaints.is_empty() {
            return Err(Error::invalid(complaints));
        }
        Ok(Self {
            key,
            ..Self::labels(headers)
        })
    }

    /// What only labels a call. Of a request that is a function's own nothing else is ours to read.
    pub(in crate::api) fn labels(headers: &HeaderMap) -> Self {
        let traceparent = label(headers, &TRACEPARENT).filter(is_traceparent);
        let trace_id = label(headers, &X_TRACE_ID).filter(is_trace_id);
        // Whoever names no trace of ours may have said which one it is where everybody can read it.
        let trace_id = trace_id.or_else(|| trace_of(traceparent?));
        Self {
            key: None,
            wait: None,
            trace_id: trace_id.map(Arc::from),
            traceparent: traceparent.map(Arc::from),
        }
    }
}

/// `X-Dispatch-Attempt`: the claim that a completion is for; nothing (the current one) where it is absent,
/// malformed or not positive.
pub(in crate::api) fn dispatch_attempt(headers: &HeaderMap) -> Option<Fence> {
    let number = label(headers, &X_DISPATCH_ATTEMPT)?.parse().ok()?;
    (number > 0).then_some(Fence(number))
}

fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, String> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("Idempotency-Key: is given more than once".to_owned());
    }
    let text = value.as_bytes().trim_ascii();
    if text.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(text).unwrap_or_default();
    let key = text.parse().map_err(|_: InvalidIdempotencyKey| {
        "Idempotency-Key: must be 1 to 255 visible ASCII characters".to_owned()
    })?;
    Ok(Some(key))
}

fn wait(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(&X_TIMEOUT_MS) else {
        return Ok(None);
    };
    let ms = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match ms {
        Some(ms) if limits::TIMEOUT_MS.contains(&ms) => Ok(Some(Duration::from_millis(ms))),
        _ => {
            let (least, most) = limits::TIMEOUT_MS.into_inner();
            Err(format!(
                "X-Timeout-Ms: must be a whole number from {least} to {most}"
            ))
        }
    }
}

fn label<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then_some(text)
}

fn is_trace_id(text: &&str) -> bool {
    text.len() <= TRACE_ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Whether this is a W3C trace context of version 00: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
fn is_traceparent(text: &&str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        parts.next().filter(|part| {
            let is_hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
            part.len() == length && part.bytes().all(is_hex)
        })
    };
    let is_id = |part: &str| part.bytes().any(|b| b != b'0');
    hex(2) == Some("00")
        && hex(32).is_some_and(is_id)
        && hex(16).is_some_and(is_id)
        && hex(2).is_some()
        && parts.next().is_none()
}

/// The trace that a trace context of version 00 belongs to.
fn trace_of(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &'static str, value: &str) -> Result<CallHeaders, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        CallHeaders::parse(&headers)
    }

    #[test]
    fn a_key_is_visible_ascii_and_a_blank_one_is_none() {
        let key = |value| parse("idempotency-key", value).unwrap().key;
        assert_eq!(key("order-7").unwrap().as_str(), "order-7");
        assert_eq!(key("  "), None);
        assert_eq!(key(""), None);
        assert!(parse("idempotency-key", "a b").is_err());
        assert!(parse("idempotency-key", &"x".repeat(256)).is_err());
        assert!(parse("idempotency-key", &"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_key_is_given_once() {
        let mut headers = HeaderMap::new();
        headers.append("idempotency-key", "a".parse().unwrap());
        headers.append("idempotency-key", "a".parse().unwrap());
        assert!(CallHeaders::parse(&headers).is_err());
    }

    #[test]
    fn a_wait_is_within_its_range() {
        let wait = |value| parse("x-timeout-ms", value);
        assert_eq!(wait("1").unwrap().wait, Some(Duration::from_millis(1)));
        assert_eq!(wait("300000").unwrap().wait, Some(Duration::from_secs(300)));
        for bad in [
            "0",
            "300001",
            "-1",
            "1.5",
            "abc",
            "",
            "99999999999999999999",
        ] {
            let error = format!("{:?}", wait(bad).unwrap_err());
            assert!(error.contains("from 1 to 300000"), "{bad}: {error}");
        }
    }

    #[test]
    fn labels_that_cannot_be_used_are_left_out() {
        let trace_id = |value: &str| parse("x-trace-id", value).unwrap().trace_id;
        assert_eq!(trace_id("abc/1").as_deref(), Some("abc/1"));
        assert_eq!(trace_id("a b"), None);
        assert_eq!(trace_id(&"x".repeat(257)), None);
        let traceparent = |value: &str| parse("traceparent", value).unwrap().traceparent;
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(good).as_deref(), Some(good));
        for bad in [
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(traceparent(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_trace_context_names_the_trace_where_nothing_else_does() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace_id = |given: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(*name, value.parse().unwrap());
            }
            CallHeaders::labels(&headers).trace_id
        };
        let derived = Some("0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace_id(&[("traceparent", good)]).as_deref(), derived);
        let both = [("traceparent", good), ("x-trace-id", "mine")];
        assert_eq!(trace_id(&both).as_deref(), Some("mine"));
        let unusable = [("traceparent", good), ("x-trace-id", "a b")];
        assert_eq!(trace_id(&unusable).as_deref(), derived);
        assert_eq!(trace_id(&[("traceparent", &good[1..])]), None);
        assert_eq!(trace_id(&[]), None);
    }

    #[test]
    fn a_claim_that_cannot_be_read_is_the_current_one() {
        let attempt = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-dispatch-attempt", value.parse().unwrap());
            dispatch_attempt(&headers)
        };
        assert_eq!(attempt("7"), Some(Fence(7)));
        for none in ["0", "-1", "x", "", "1.5"] {
            assert_eq!(attempt(none), None, "{none}");
        }
    }
}
