//! What a service's answer means.
//!
//! **Invariant:** every status means exactly one outcome; nothing is read beyond a limit.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use super::{POOL_ERROR, chain};
use crate::answer::{self, FAILURE_BODY_BYTES_MAX, Meaning, text_of};
use crate::execution::Outcome;
use crate::model::{ContentType, Failure};

/// The service, in messages.
const SERVICE: &str = "the service";
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

/// Reads as much of the answer as its meaning needs and says what it came to.
pub(super) async fn outcome(answer: Response, limit: Limit) -> Outcome {
    match answer::meaning(answer.status(), answer.headers()) {
        Meaning::Success => success(answer, limit).await,
        Meaning::Error => Outcome::Error(failure(answer).await),
        Meaning::Retry => Outcome::Retry(failure(answer).await),
        Meaning::Requeue => Outcome::Requeue(answer::delay_ms(answer.headers())),
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
    while body.len() < FAILURE_BODY_BYTES_MAX {
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
    answer::failure(SERVICE, status, &body, || Cow::Borrowed(POOL_ERROR))
}

fn unexpected(answer: &Response) -> Failure {
    let advice = "register the final address as endpointUrl";
    answer::unexpected(SERVICE, answer.status(), answer.headers(), advice)
}
