//! Bounds the answers that clients have not taken yet.
//!
//! An answer of a known size is in memory until the connection has sent it, however slowly its client reads. One
//! that streams is not counted: it waits for its client and holds next to nothing.
//!
//! **Invariant:** the room of an answer is free when its last byte is, wherever on its way it is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::budget::{Budget, Room};
use crate::api::error::Error;
use crate::api::wire::X_EXECUTION_ID;

/// Answers up to this size are not counted, in bytes: a connection takes about as much by itself.
const UNCOUNTED_BYTES: u64 = 4096;

/// Counts an answer, or puts one in its place that says that there is no room for it.
pub(in crate::api) fn hold(budget: &Budget, answer: Response) -> Response {
    let Some(bytes) = answer.body().size_hint().exact() else {
        return answer;
    };
    if bytes <= UNCOUNTED_BYTES {
        return answer;
    }
    match budget.take(usize::try_from(bytes).unwrap_or(usize::MAX)) {
        Some(room) => answer.map(|body| {
            Body::new(Held {
                body,
                room: Arc::new(room),
            })
        }),
        None => refuse(&answer),
    }
}

/// What is asked for again is found under its id: whoever called a function must know it.
fn refuse(answer: &Response) -> Response {
    let mut refusal = Error::answers_busy().into_response();
    if let Some(id) = answer.headers().get(X_EXECUTION_ID) {
        refusal.headers_mut().insert(X_EXECUTION_ID, id.clone());
    }
    refusal
}

/// A body whose bytes carry the room that they take.
struct Held {
    body: Body,
    room: Arc<Room>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| {
                Bytes::from_owner(Counted {
                    bytes,
                    _room: Arc::clone(&self.room),
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that the connection may keep for longer than their body.
struct Counted {
    bytes: Bytes,
    _room: Arc<Room>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};
    use futures_util::stream;
    use http_body_util::BodyExt;

    use super::*;

    const KIB: usize = 1024;

    fn answer(bytes: usize) -> Response {
        let mut answer = Response::new(Body::from(vec![b'x'; bytes]));
        let id = HeaderValue::from_static("the-id");
        answer.headers_mut().insert(X_EXECUTION_ID, id);
        answer
    }

    #[tokio::test]
    async fn an_answer_counts_until_its_last_byte_is_gone() {
        let budget = Budget::new(16 * KIB, 0);
        let first = hold(&budget, answer(10 * KIB));
        let refused = hold(&budget, answer(10 * KIB));
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[X_EXECUTION_ID], "the-id");
        assert_eq!(refused.headers()["retry-after"], "1");
        // The connection has taken the body and not sent it yet.
        let bytes = first.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, vec![b'x'; 10 * KIB]);
        assert_eq!(
            hold(&budget, answer(10 * KIB)).status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        drop(bytes);
        assert_eq!(hold(&budget, answer(10 * KIB)).status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn small_answers_and_streams_always_pass() {
        let budget = Budget::new(KIB, 0);
        let _all = budget.take(KIB).unwrap();
        assert_eq!(hold(&budget, answer(4 * KIB)).status(), StatusCode::OK);
        let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; KIB])));
        let stream = Response::new(Body::from_stream(stream::iter(pieces)));
        let passed = hold(&budget, stream).into_body().collect().await.unwrap();
        assert_eq!(passed.to_bytes().len(), 100 * KIB);
    }
}
