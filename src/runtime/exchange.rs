//! A request whose caller speaks HTTP with the function itself, and the way back to that caller.
//!
//! An [`Exchange`] travels with a call to whoever runs it; the [`Answer`] stays with whoever made it. What is
//! inside is nobody's business in between.
//!
//! **Invariant:** a response is handed over once. One that is complete waits for its execution to be recorded
//! (whoever has it can read of it); one that goes on is handed over at once.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use super::web::{Outflow, is_broken_answer};
use crate::execution::Outcome;

/// A request on its way to a function.
pub struct Exchange {
    /// Under a lock only because bodies cannot be shared between threads, and calls are.
    request: Mutex<Option<Request<WasiBody>>>,
    received: Received,
    desk: Arc<Desk>,
}

/// The place where the caller waits for the response.
#[derive(Debug)]
pub struct Answer(Arc<Desk>);

/// How a run ended that its caller has no response of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The function answered.
    Success,
    /// The function says: final.
    Error,
    /// It was not run: what its operator has to give it is not there.
    Unready,
    /// The function says: may work next time.
    Retry,
    /// The function trapped, or answered in a way that is no HTTP.
    Broken,
    /// The function says: not now; in so many ms, if it says.
    Requeue(Option<u64>),
    /// It ran into a limit.
    Limit,
    /// Its time passed.
    TimedOut,
    /// It was stopped from outside.
    Interrupted,
    /// Ours.
    Fault,
}

impl Ending {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Success { .. } => Self::Success,
            Outcome::Error(_) => Self::Error,
            Outcome::Retry(failure) if is_broken_answer(&failure.code) => Self::Broken,
            Outcome::Retry(_) => Self::Retry,
            Outcome::Requeue(delay_ms) => Self::Requeue(*delay_ms),
            Outcome::Limit(_) => Self::Limit,
            Outcome::TimedOut(_) => Self::TimedOut,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::Fault(_) => Self::Fault,
        }
    }
}

/// What is shared by both ends.
#[derive(Debug, Default)]
pub(super) struct Desk(Mutex<OnDesk>);

#[derive(Debug, Default)]
struct OnDesk {
    /// One whose body goes on.
    flowing: Option<Response<Outflow>>,
    /// One that waits for its execution to be recorded.
    complete: Option<Response<Outflow>>,
    ending: Option<Ending>,
    waiting: Option<Waker>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, OnDesk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a response that is complete. The end of the run tells the caller.
    pub(super) fn put_complete(&self, response: Response<Outflow>) {
        self.lock().complete = Some(response);
    }

    /// Hands over a response whose body goes on while the function runs.
    pub(super) fn put_and_wake(&self, response: Response<Outflow>) {
        let waiting = {
            let mut on_desk = self.lock();
            on_desk.flowing = Some(response);
            on_desk.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl Exchange {
    /// An exchange with a function that speaks HTTP.
    pub fn new<B>(request: Request<B>) -> (Self, Answer)
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let received = Received::default();
        let counted = received.clone();
        let request = request.map(|body| {
            let inflow = Inflow {
                body,
                received: counted,
            };
            inflow.boxed_unsync()
        });
        Self::with(Some(request), received)
    }

    /// An exchange with a function that knows nothing of HTTP: only how it ends is told.
    pub fn plain() -> (Self, Answer) {
        Self::with(None, Received::default())
    }

    fn with(request: Option<Request<WasiBody>>, received: Received) -> (Self, Answer) {
        let desk = Arc::new(Desk::default());
        let exchange = Self {
            request: Mutex::new(request),
            received,
            desk: Arc::clone(&desk),
        };
        (exchange, Answer(desk))
    }

    /// Who is to be told how the run ended.
    pub fn teller(&self) -> Teller {
        Teller(Arc::clone(&self.desk))
    }

    /// What the runtime runs. `None`: it is for a function that knows nothing of HTTP.
    /// In a box, since every future that it goes through on its way has room for it.
    pub(super) fn open(self) -> Option<Box<Opened>> {
        let request = self.request.into_inner();
        Some(Box::new(Opened {
            request: request.unwrap_or_else(PoisonError::into_inner)?,
            received: self.received,
            desk: self.desk,
        }))
    }
}

/// An exchange with a function that speaks HTTP.
pub(super) struct Opened {
    /// What the guest is asked.
    pub(super) request: Request<WasiBody>,
    /// The count of what it receives of the body.
    pub(super) received: Received,
    /// Where the response goes.
    pub(super) desk: Arc<Desk>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

/// Tells the caller how a run ended.
#[derive(Debug)]
pub struct Teller(Arc<Desk>);

impl Teller {
    /// Tells it; the caller is woken by the execution's result, not by this.
    pub fn tell(self, outcome: &Outcome) {
        self.0.lock().ending = Some(Ending::of(outcome));
    }

    /// Tells that the function was not run, for what its operator has to give it is not there.
    pub fn tell_unready(self) {
        self.0.lock().ending = Some(Ending::Unready);
    }
}

impl Answer {
    /// A response that goes on while the function runs. Never returns if there is none.
    pub async fn response(&mut self) -> Response<Outflow> {
        poll_fn(|cx| {
            let mut on_desk = self.0.lock();
            if let Some(response) = on_desk.flowing.take() {
                return Poll::Ready(response);
            }
            match &mut on_desk.waiting {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    /// The response, if there is one by now.
    pub fn take(&mut self) -> Option<Response<Outflow>> {
        let mut on_desk = self.0.lock();
        let complete = on_desk.complete.take();
        complete.or_else(|| on_desk.flowing.take())
    }

    /// How the run ended, if there was one.
    pub fn ending(&self) -> Option<Ending> {
        self.0.lock().ending
    }
}

/// What was received of a request's body.
#[derive(Debug, Clone, Default)]
pub(super) struct Received(Arc<Inbox>);

#[derive(Debug, Default)]
struct Inbox {
    bytes: AtomicU64,
    is_broken: AtomicBool,
}

impl Received {
    /// So many until now.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether the rest will not come.
    pub(super) fn is_broken(&self) -> bool {
        self.0.is_broken.load(Ordering::Relaxed)
    }
}

/// The caller's body, as the guest reads it.
struct Inflow<B> {
    body: B,
    received: Received,
}

impl<B> Body for Inflow<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let bytes = u64::try_from(bytes).unwrap_or(0);
                self.received.0.bytes.fetch_add(bytes, Ordering::Relaxed);
                Some(Ok(frame))
            }
            // Whatever it was, the guest is told what it can understand: the rest will not come.
            Some(Err(_)) => {
                self.received.0.is_broken.store(true, Ordering::Relaxed);
                Some(Err(Error::ConnectionTerminated))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
