//! Bodies on their way: what goes up and what comes down is counted, and neither may stand still for ever.
//!
//! **Invariant:** nothing is collected: a frame is handed on when it is asked for, so a slow reader slows down
//! whoever writes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::error::Error;
use super::pool::Tether;

/// A body as a guest writes it.
pub type GuestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Who has to do something for a request's body to get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    /// The guest, who has not written more yet.
    Guest,
    /// The other side, which has not taken what there is.
    Server,
    /// Nobody: all of it is on its way.
    Finished,
}

/// How the body of a request gets on, as seen by whoever waits for the answer.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<(Upload, Instant)>>);

impl Progress {
    fn new(at: Upload) -> Self {
        Self(Arc::new(Mutex::new((at, Instant::now()))))
    }

    fn state(&self) -> MutexGuard<'_, (Upload, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Upload) {
        *self.state() = (at, Instant::now());
    }

    /// Where it stands, and since when.
    pub(super) fn get(&self) -> (Upload, Instant) {
        *self.state()
    }
}

/// The body of a request, of which no more than a number of bytes is sent.
pub(super) struct RequestBody {
    inner: GuestBody,
    left: u64,
    max: u64,
    /// What its head says, if it says anything.
    stated: Option<u64>,
    progress: Progress,
}

impl RequestBody {
    pub(super) fn new(inner: GuestBody, bytes_max: u64, stated: Option<u64>) -> (Self, Progress) {
        let progress = Progress::new(if inner.is_end_stream() {
            Upload::Finished
        } else {
            Upload::Server
        });
        let body = Self {
            inner,
            left: bytes_max,
            max: bytes_max,
            stated,
            progress: progress.clone(),
        };
        (body, progress)
    }

    /// The mistake of a body that ends here, if its head says more.
    fn ends_early(&self) -> Option<Error> {
        let sent = self.max - self.left;
        let is_short = self.stated.is_some_and(|stated| sent < stated);
        is_short.then_some(Error::RequestLength(sent))
    }

    /// The mistake of a body that is longer than its head says.
    fn runs_over(&self) -> Option<Error> {
        let sent = self.max - self.left;
        let is_long = self.stated.is_some_and(|stated| sent > stated);
        is_long.then_some(Error::RequestLength(sent))
    }
}

impl Drop for RequestBody {
    /// Nobody wants more of it: a GET's body is never asked for, and another one may not be any more.
    fn drop(&mut self) {
        self.progress.set(Upload::Finished);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let frame = match polled {
            Poll::Pending => {
                self.progress.set(Upload::Guest);
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                self.progress.set(Upload::Finished);
                let mistake = self.ends_early();
                return Poll::Ready(mistake.map(|mistake| Err(mistake.into())));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        match take(self.left, &frame) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(Error::RequestBody(self.max).into()))),
        }
        if let Some(mistake) = self.runs_over() {
            return Poll::Ready(Some(Err(mistake.into())));
        }
        self.progress.set(if self.inner.is_end_stream() {
            Upload::Finished
        } else {
            Upload::Server
        });
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        // One that is too short has yet to say so.
        self.inner.is_end_stream() && self.ends_early().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What is left of `left` bytes after a frame, if it fits.
fn take(left: u64, frame: &Frame<Bytes>) -> Option<u64> {
    let length = frame.data_ref().map_or(0, Bytes::len);
    left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX))
}

/// What is told when an answer passes its limit.
pub(super) type OnTooLarge = Box<dyn Fn() + Send>;

/// The body of an answer, of which no more than a number of bytes is read, and for no part of which anybody waits
/// longer than a time.
pub struct ResponseBody {
    inner: Incoming,
    left: u64,
    max: u64,
    patience: Duration,
    /// Runs while a frame is waited for.
    alarm: Option<Pin<Box<Sleep>>>,
    on_too_large: OnTooLarge,
    over: Arc<Tether>,
    /// The attempt's place for one exchange.
    _place: OwnedSemaphorePermit,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        bytes_max: u64,
        patience: Duration,
        on_too_large: OnTooLarge,
        over: Arc<Tether>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            inner,
            left: bytes_max,
            max: bytes_max,
            patience,
            alarm: None,
            on_too_large,
            over,
            _place: place,
        }
    }

    fn too_large(&self) -> Error {
        (self.on_too_large)();
        Error::ResponseBody(self.max)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.over.settle();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                let patience = self.patience;
                let alarm = self
                    .alarm
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                alarm
                    .as_mut()
                    .poll(cx)
                    .map(|()| Some(Err(Error::ReadTimeout)))
            }
            Poll::Ready(frame) => {
                self.alarm = None;
                if self.inner.is_end_stream() {
                    // A guest that has read everything drops the answer, and with it whoever drives the connection.
                    self.over.settle();
                }
                Poll::Ready(match frame {
                    None => None,
                    Some(Err(error)) => Some(Err(Error::of_http(&error))),
                    Some(Ok(frame)) => Some(match take(self.left, &frame) {
                        None => Err(self.too_large()),
                        Some(left) => {
                            self.left = left;
                            Ok(frame)
                        }
                    }),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
