//! Holds the body of a caller's request so that it can be taken away from a guest that outlives the call.
//!
//! **Invariant:** once the [`Leash`] is dropped nothing of the caller's body is left, whoever still has the reading end;
//! and who waits there for more of it is told.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::runtime::exchange::Opened;

/// What both ends have.
type Held = Arc<Mutex<Tied>>;

struct Tied {
    /// None once it was taken away.
    body: Option<WasiBody>,
    /// Who waits for more of it. The body would take it along.
    reader: Option<Waker>,
}

/// Takes the body away when it is dropped.
pub(in crate::runtime) struct Leash(Held);

impl Drop for Leash {
    fn drop(&mut self) {
        let mut tied = lock(&self.0);
        let (body, reader) = (tied.body.take(), tied.reader.take());
        drop(tied);
        drop(body);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The reading end.
struct Leashed(Held);

fn lock(held: &Held) -> MutexGuard<'_, Tied> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ties the body of a caller's request, if there is one.
pub(in crate::runtime) fn tie(
    exchange: Option<Box<Opened>>,
) -> (Option<Leash>, Option<Box<Opened>>) {
    let Some(opened) = exchange else {
        return (None, None);
    };
    let mut held = None;
    let request = opened.request.map(|body| {
        let tied = Held::new(Mutex::new(Tied {
            body: Some(body),
            reader: None,
        }));
        held = Some(Leash(Arc::clone(&tied)));
        Leashed(tied).boxed_unsync()
    });
    let opened = Opened { request, ..*opened };
    (held, Some(Box::new(opened)))
}

impl Body for Leashed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Tied { body, reader } = &mut *lock(&self.0);
        let Some(body) = body else {
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_pending() {
            match reader {
                Some(reader) => reader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let tied = lock(&self.0);
        tied.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let tied = lock(&self.0);
        tied.body
            .as_ref()
            .map_or_else(SizeHint::new, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Exchange;
    use crate::runtime::web::nudge::Nudge;
    use http::Request;
    use http_body_util::Full;

    #[tokio::test]
    async fn a_body_is_read_until_it_is_taken_away() {
        let opened = || {
            let body = Full::new(Bytes::from_static(b"body"));
            let (exchange, _answer) = Exchange::new(Request::new(body));
            exchange.open()
        };
        let (leash, tied) = tie(opened());
        let read = tied.unwrap().request.into_body().collect().await;
        assert_eq!(read.unwrap().to_bytes(), "body");
        drop(leash);

        let (leash, tied) = tie(opened());
        let body = tied.unwrap().request.into_body();
        assert_eq!(body.size_hint().exact(), Some(4));
        drop(leash);
        assert!(body.collect().await.is_err());
        assert!(tie(None).0.is_none());
    }

    #[tokio::test]
    async fn who_waits_for_more_of_it_is_told_that_it_was_taken_away() {
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, Error>>();
        let body = http_body_util::StreamBody::new(never);
        let (exchange, _answer) = Exchange::new(Request::new(body));
        let (leash, tied) = tie(exchange.open());
        let mut body = tied.unwrap().request.into_body();
        let nudge = Nudge::new();
        let waker = Waker::from(Arc::clone(&nudge));
        let mut read = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
        assert!(read().is_pending() && !nudge.was_woken());
        drop(leash);
        assert!(nudge.was_woken());
        assert!(matches!(read(), Poll::Ready(Some(Err(_)))));
    }
}
