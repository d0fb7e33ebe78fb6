//! Reads a body: within a limit, a time, and what the server has room for.
//!
//! Room is taken for what has arrived and not for what was announced, so a body that does not come costs
//! nothing. One that comes slowly may take its time, unless it is large and others find no room because of it.
//!
//! **Invariant:** nothing is read of a body that says itself that it is too large, or larger than the room that
//! is free; the memory that it takes is at most twice its size.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures_util::future::poll_immediate;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::time::{Instant, sleep_until};

use super::body::stated_length;
use super::budget::{Budget, NoRoom, Room};
use crate::api::error::Error;

/// The part of its time that a large body has while others find no room.
const HURRIED_PART: u32 = 12;

/// What holds for a body.
pub(in crate::api) struct Bounds<'a> {
    /// What it is called in errors.
    pub(in crate::api) what: &'a str,
    /// Its largest size, in bytes.
    pub(in crate::api) limit: usize,
    /// Time for it to arrive.
    pub(in crate::api) timeout: Duration,
    /// Where its room is taken.
    pub(in crate::api) budget: &'a Budget,
    /// What is answered where there is none.
    pub(in crate::api) busy: fn() -> Error,
}

/// The bytes of a body, and the room that they take. One that arrived in a piece is not copied.
///
/// # Errors
/// 413, 408, 503 where there is no room, and 400 where it broke off.
pub(in crate::api) async fn read(
    request: Request,
    bounds: Bounds<'_>,
) -> Result<(Bytes, Room), Error> {
    let body = unread(request, &bounds)?;
    read_on(body, bounds).await
}

/// The body of a request, if it does not say that it is too large. Futures have less room to keep for it than for
/// all of the request.
///
/// # Errors
/// 413, and 503 where there is no room.
pub(super) fn unread(request: Request, bounds: &Bounds<'_>) -> Result<Body, Error> {
    let stated = stated_length(request.headers(), request.body(), bounds.what, bounds.limit)?;
    let free = bounds.budget.check(stated.unwrap_or(0));
    free.map_err(|NoRoom| (bounds.busy)())?;
    Ok(request.into_body())
}

/// Reads what [`unread`] gave.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_on(mut body: Body, bounds: Bounds<'_>) -> Result<(Bytes, Room), Error> {
    let mut pace = Pace::new(&bounds);
    let mut arrived = Arrived::default();
    let mut room = Room::default();
    while let Some(frame) = pace.next(&mut body, &room).await? {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let size = arrived.len().saturating_add(data.len());
        if size > bounds.limit {
            return Err(Error::too_large(bounds.what, bounds.limit));
        }
        let grown = bounds.budget.grow(&mut room, size);
        grown.map_err(|NoRoom| (bounds.busy)())?;
        arrived.push(data);
    }
    Ok((arrived.into_bytes(), room))
}

/// What has come of a body.
enum Arrived {
    /// Nothing or one piece, as it came.
    Piece(Bytes),
    /// More, in memory of its own: pieces of a byte each would keep far more alive than they are.
    Joined(BytesMut),
}

impl Default for Arrived {
    fn default() -> Self {
        Self::Piece(Bytes::new())
    }
}

impl Arrived {
    fn len(&self) -> usize {
        match self {
            Self::Piece(bytes) => bytes.len(),
            Self::Joined(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, data: Bytes) {
        match self {
            Self::Piece(bytes) if bytes.is_empty() => *bytes = data,
            Self::Piece(bytes) => {
                let mut joined = BytesMut::with_capacity(bytes.len() + data.len());
                joined.extend_from_slice(bytes);
                joined.extend_from_slice(&data);
                *self = Self::Joined(joined);
            }
            Self::Joined(bytes) => bytes.extend_from_slice(&data),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Piece(bytes) => bytes,
            Self::Joined(bytes) => bytes.freeze(),
        }
    }
}

/// How long a body may take.
struct Pace<'a> {
    budget: &'a Budget,
    /// Unknown as long as nothing had to be waited for.
    began: Option<Instant>,
    timeout: Duration,
    hurried: bool,
}

impl<'a> Pace<'a> {
    fn new(bounds: &Bounds<'a>) -> Self {
        Self {
            budget: bounds.budget,
            began: None,
            timeout: bounds.timeout,
            hurried: false,
        }
    }

    /// The next frame, `None` after the last. `room` is what the body takes so far.
    async fn next(&mut self, body: &mut Body, room: &Room) -> Result<Option<Frame<Bytes>>, Error> {
        // Most bodies are here already, and need no timer.
        let frame = match poll_immediate(body.frame()).await {
            Some(frame) => frame,
            None => Box::pin(self.wait(body, room)).await?,
        };
        frame.transpose().map_err(|_| broke_off())
    }

    async fn wait(
        &mut self,
        body: &mut Body,
        room: &Room,
    ) -> Result<Option<Result<Frame<Bytes>, axum::Error>>, Error> {
        let began = *self.began.get_or_insert_with(Instant::now);
        loop {
            tokio::select! {
                biased;
                frame = body.frame() => return Ok(frame),
                () = sleep_until(began + self.timeout) => {
                    return Err(Error::body_too_slow(self.timeout.as_secs()));
                }
                () = self.budget.shortage(), if room.is_large() && !self.hurried => {
                    self.hurried = true;
                    self.timeout /= HURRIED_PART;
                }
            }
        }
    }
}

/// What `reading` comes to, if that is within the time limit.
///
/// # Errors
/// 408.
pub(in crate::api) async fn within<T>(
    limit: Duration,
    reading: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, reading)
        .await
        .map_err(|_| Error::body_too_slow(limit.as_secs()))
}

fn broke_off() -> Error {
    Error::bad_request("the body broke off before its end")
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::http::header::CONTENT_LENGTH;
    use axum::response::IntoResponse;
    use futures_util::{StreamExt, poll, stream};

    use super::*;

    const MIB: usize = 1 << 20;
    const LIMIT: usize = 8 * MIB;

    fn bounds(budget: &Budget) -> Bounds<'_> {
        Bounds {
            what: "it",
            limit: LIMIT,
            timeout: Duration::from_secs(120),
            budget,
            busy: Error::bodies_busy,
        }
    }

    fn status<T: std::fmt::Debug>(result: Result<T, Error>) -> StatusCode {
        result.unwrap_err().into_response().status()
    }

    /// A body that says how long it is, or not, and stops coming after these pieces.
    fn stalling(stated: Option<usize>, pieces: Vec<Bytes>) -> Request {
        let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        let body = Body::from_stream(pieces.chain(stream::pending()));
        let mut request = Request::new(body);
        if let Some(stated) = stated {
            request.headers_mut().insert(CONTENT_LENGTH, stated.into());
        }
        request
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
        let budget = Budget::new(LIMIT, LIMIT);
        let never = read(stalling(None, Vec::new()), bounds(&budget)).await;
        assert_eq!(status(never), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn bodies_that_do_not_come_take_no_room() {
        let budget = Budget::new(LIMIT, LIMIT);
        let mut waiting = Vec::new();
        for stated in [Some(LIMIT), None] {
            for _ in 0..100 {
                let mut reading = Box::pin(read(stalling(stated, Vec::new()), bounds(&budget)));
                assert!(poll!(&mut reading).is_pending());
                waiting.push(reading);
            }
        }
        let largest = Request::new(Body::from(vec![b'x'; LIMIT]));
        let (bytes, _room) = read(largest, bounds(&budget)).await.unwrap();
        assert_eq!(bytes.len(), LIMIT);
        // The next one is told before anything of it is read.
        let next = read(stalling(Some(1), Vec::new()), bounds(&budget)).await;
        assert_eq!(status(next), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_that_stall_make_room_when_others_need_it_and_small_ones_always_find_some()
    {
        let budget = Budget::new(4 * LIMIT, LIMIT);
        let most = Bytes::from(vec![b'x'; LIMIT - 1]);
        let mut stalled: Vec<_> = (0..3)
            .map(|_| stalling(Some(LIMIT), vec![most.clone()]))
            .map(|request| Box::pin(read(request, bounds(&budget))))
            .collect();
        let began = Instant::now();
        for reading in &mut stalled {
            assert!(poll!(reading).is_pending());
        }
        let small = Request::new(Body::from("{}"));
        assert_eq!(read(small, bounds(&budget)).await.unwrap().0, "{}");
        let large = || Request::new(Body::from(vec![b'x'; LIMIT]));
        let refused = read(large(), bounds(&budget)).await;
        assert_eq!(status(refused), StatusCode::SERVICE_UNAVAILABLE);
        for reading in stalled {
            assert_eq!(status(reading.await), StatusCode::REQUEST_TIMEOUT);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "not hurried");
        assert!(read(large(), bounds(&budget)).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together_and_one_piece_is_not_copied() {
        let budget = Budget::new(LIMIT, LIMIT);
        let pieces =
            ["ab", "c", "", "def"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let request = Request::new(Body::from_stream(stream::iter(pieces)));
        let (bytes, room) = read(request, bounds(&budget)).await.unwrap();
        assert_eq!(bytes, "abcdef");
        assert!(!room.is_large());
        let whole = Bytes::from(vec![b'x'; 100]);
        let request = Request::new(Body::from(whole.clone()));
        let (bytes, _room) = read(request, bounds(&budget)).await.unwrap();
        assert_eq!(bytes.as_ptr(), whole.as_ptr());
    }
}
