//! Bodies of requests: of the right type, within the limits of the API.
//!
//! **Invariant:** whoever has the bytes of a body has the room that they take.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;

use super::budget::{Budget, Room};
use super::reading::{Bounds, read, read_on, unread};
use crate::api::error::Error;
use crate::api::options::Options;

/// A body that was read, and the room that it takes.
#[derive(Debug)]
pub(in crate::api) struct Received {
    bytes: Bytes,
    /// Counted as long as somebody works with the bytes.
    room: Room,
}

impl Received {
    /// The room alone, for who keeps a part of the bytes in another form.
    pub(in crate::api) fn into_room(self) -> Room {
        self.room
    }
}

impl std::ops::Deref for Received {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// The media type of a body without its parameters, in lower case.
pub(in crate::api) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default();
    Some(essence.trim().to_ascii_lowercase())
}

/// Checks that a body is said to be JSON, or one of the `others`. A page from elsewhere can post other types
/// without asking first.
///
/// # Errors
/// 415.
pub(in crate::api) fn require_json(headers: &HeaderMap, others: &[&str]) -> Result<(), Error> {
    if headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes() == b"application/json")
    {
        return Ok(());
    }
    let found = content_type(headers);
    match found.as_deref() {
        Some("application/json") => Ok(()),
        Some(found) if others.contains(&found) => Ok(()),
        found => {
            let mut expected = "application/json".to_owned();
            for other in others {
                expected.push_str(" or ");
                expected.push_str(other);
            }
            Err(Error::unsupported_type(&expected, found))
        }
    }
}

/// The bytes of a JSON body.
///
/// # Errors
/// 415, 413, 408, 503 where there is no room, and 400 where it broke off.
pub(in crate::api) async fn json(
    request: Request,
    options: &Options,
    bodies: &Budget,
) -> Result<Received, Error> {
    let unread = Unread::json(request, options, bodies)?;
    unread.read(options, bodies).await
}

/// A body that may be read: it does not say that it is too large.
#[derive(Debug)]
pub(in crate::api) struct Unread(Body);

impl Unread {
    /// The body of a request, which says that it is JSON.
    ///
    /// # Errors
    /// 415, 413, and 503 where there is no room.
    pub(in crate::api) fn json(
        request: Request,
        options: &Options,
        bodies: &Budget,
    ) -> Result<Self, Error> {
        require_json(request.headers(), &[])?;
        unread(request, &bounds(options, bodies)).map(Self)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// 413, 408, 503 where there is no room, and 400 where it broke off.
    pub(in crate::api) async fn read(
        self,
        options: &Options,
        bodies: &Budget,
    ) -> Result<Received, Error> {
        let (bytes, room) = read_on(self.0, bounds(options, bodies)).await?;
        Ok(Received { bytes, room })
    }
}

/// The bytes of a body that is JSON or nothing.
///
/// # Errors
/// 415 (where there is a body), 413, 408, and 400 where it broke off.
pub(in crate::api) async fn optional_json(
    request: Request,
    options: &Options,
    bodies: &Budget,
) -> Result<Received, Error> {
    let json = require_json(request.headers(), &[]);
    let body = body(request, options, bodies).await?;
    if !body.is_empty() {
        json?;
    }
    Ok(body)
}

/// The bytes of a body of at most `body_bytes_max`, of any type. One that arrived in a piece is not copied.
///
/// # Errors
/// 413, 408, 503 where there is no room, and 400 where it broke off.
pub(in crate::api) async fn body(
    request: Request,
    options: &Options,
    bodies: &Budget,
) -> Result<Received, Error> {
    let (bytes, room) = read(request, bounds(options, bodies)).await?;
    Ok(Received { bytes, room })
}

fn bounds<'a>(options: &Options, bodies: &'a Budget) -> Bounds<'a> {
    Bounds {
        what: "the body",
        limit: options.body_bytes_max,
        timeout: options.body_timeout,
        budget: bodies,
        busy: Error::bodies_busy,
    }
}

/// The length that a body says it has, in bytes.
///
/// # Errors
/// 413 where that is beyond the limit.
pub(in crate::api) fn stated_length(
    headers: &HeaderMap,
    body: &Body,
    what: &str,
    limit: usize,
) -> Result<Option<usize>, Error> {
    let header = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let stated: Option<u64> = header.or_else(|| body.size_hint().exact());
    match stated.map(usize::try_from) {
        Some(Ok(stated)) if stated <= limit => Ok(Some(stated)),
        Some(_) => Err(Error::too_large(what, limit)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use futures_util::stream;

    use super::*;

    fn request(content_type: Option<&str>, body: Body) -> Request {
        let mut request = Request::builder();
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        request.body(body).unwrap()
    }

    fn small() -> Options {
        Options {
            body_bytes_max: 8,
            body_timeout: Duration::from_millis(50),
            ..Options::default()
        }
    }

    fn roomy() -> Budget {
        Budget::new(1 << 20, 8)
    }

    fn status<T: std::fmt::Debug>(result: Result<T, Error>) -> StatusCode {
        result.unwrap_err().into_response().status()
    }

    /// A body in pieces that does not say how long it is.
    fn pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<Result<_, std::io::Error>> = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
            .collect();
        Body::from_stream(stream::iter(pieces))
    }

    /// A body that does not come.
    fn never() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
    }

    #[tokio::test]
    async fn json_comes_as_json() {
        async fn check(
            read: impl Future<Output = Result<Received, Error>>,
            expected: Option<StatusCode>,
        ) {
            match expected {
                None => assert_eq!(*read.await.unwrap(), "{}"),
                Some(expected) => assert_eq!(status(read.await), expected),
            }
        }
        let json_body = |content_type| {
            let request = request(content_type, Body::from("{}"));
            async move { json(request, &small(), &roomy()).await }
        };
        check(json_body(Some("application/json")), None).await;
        check(json_body(Some("Application/JSON; charset=utf-8")), None).await;
        let refused = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        check(json_body(Some("text/plain")), refused).await;
        check(json_body(Some("application/octet-stream")), refused).await;
        check(json_body(None), refused).await;
    }

    #[tokio::test]
    async fn nothing_needs_no_type_where_nothing_is_enough() {
        let empty = optional_json(request(None, Body::empty()), &small(), &roomy()).await;
        assert!(empty.unwrap().is_empty());
        let untyped = optional_json(request(None, Body::from("{}")), &small(), &roomy()).await;
        assert_eq!(status(untyped), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let typed = Some("application/json");
        let fits = json(request(typed, Body::from("12345678")), &small(), &roomy()).await;
        assert_eq!(*fits.unwrap(), "12345678");
        let stated = json(request(typed, Body::from("123456789")), &small(), &roomy()).await;
        assert_eq!(status(stated), StatusCode::PAYLOAD_TOO_LARGE);
        let unstated = json(
            request(typed, pieces(&["12345", "6789"])),
            &small(),
            &roomy(),
        )
        .await;
        assert_eq!(status(unstated), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_there_is_no_room_for_is_not_read() {
        let typed = Some("application/json");
        let one = Budget::new(0, 8);
        let first = json(request(typed, Body::from("{}")), &small(), &one).await;
        let mut announced = request(typed, never());
        announced.headers_mut().insert(CONTENT_LENGTH, 2.into());
        let second = json(announced, &small(), &one).await;
        assert_eq!(status(second), StatusCode::SERVICE_UNAVAILABLE);
        let unannounced = json(request(typed, pieces(&["{", "}"])), &small(), &one).await;
        assert_eq!(status(unannounced), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        let third = json(request(typed, Body::from("{}")), &small(), &one).await;
        assert_eq!(*third.unwrap(), "{}");
    }
}
