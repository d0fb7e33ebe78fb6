//! Holds the body of a caller's request so that it can be taken away from a guest that outlives the call.
//!
//! **Invariant:** once the [`Leash`] is dropped nothing of the caller's body is left, whoever still has the reading end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::runtime::exchange::Opened;

/// The body; none once it was taken away.
type Held = Arc<Mutex<Option<WasiBody>>>;

/// Takes the body away when it is dropped.
pub(in crate::runtime) struct Leash(Held);

impl Drop for Leash {
    fn drop(&mut self) {
        let body = lock(&self.0).take();
        drop(body);
    }
}

/// The reading end.
struct Leashed(Held);

fn lock(held: &Held) -> MutexGuard<'_, Option<WasiBody>> {
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
        let tied = Held::new(Mutex::new(Some(body)));
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
        match &mut *lock(&self.0) {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(Some(Err(Error::ConnectionTerminated))),
        }
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0)
            .as_ref()
            .map_or_else(SizeHint::new, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Exchange;
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
}
