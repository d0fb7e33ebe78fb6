//! What the client of an HTTP/2 connection has not taken yet of its answers, and for how long.
//!
//! Of HTTP/1 the system knows. A client of HTTP/2 may take every byte that is sent and keep an answer for ever all
//! the same: what it does not open is the window of a stream. So every answer is handed over in pieces, each of
//! which is counted until the connection has written it. An answer of which nothing is taken for too long is
//! broken off alone, for the others on its connection may be of other callers; what then is still held (the last
//! piece of a short answer, which belongs to nobody any more) ends with the connection.
//!
//! **Invariant:** of an answer longer than a piece nothing is left behind in the connection when its task ends:
//! whatever a client does not take can be broken off.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// What an answer is handed over in, at most, in bytes: as much as a frame holds.
const PIECE_BYTES: usize = 16 << 10;
/// What the connection takes of one stream before its client has taken any of it, in bytes. A piece more may
/// follow the last byte that fits, and one waits at hand: one stream holds [`STREAM_BYTES_MAX`].
pub(super) const SEND_BUFFER_BYTES: usize = STREAM_BYTES_MAX - 2 * PIECE_BYTES;
/// What one stream holds of its answer outside the answer's own memory, at most: 64 KiB, so that a connection with
/// all of its 256 streams holds 16 MiB. More makes nothing faster, for a client's own window is no larger until it
/// asks for more, and 32 KiB are refilled long before the system has sent what was handed to it before.
pub(super) const STREAM_BYTES_MAX: usize = 64 << 10;
/// How often in its patience a [`Watch`] looks.
const LOOKS: u32 = 4;

/// Bytes handed over.
#[derive(Debug, Default)]
struct Count {
    /// Those not taken yet.
    held: AtomicUsize,
    /// Those taken so far; begins again when it is full.
    taken: AtomicUsize,
}

/// The answers of one connection. A handle.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<All>);

#[derive(Debug, Default)]
struct All {
    count: Count,
    /// The answer of the request that was last taken up, until its task is spawned.
    announced: Mutex<Option<Arc<Answer>>>,
}

/// The answer on one stream.
#[derive(Debug)]
pub(super) struct Answer {
    count: Count,
    /// Who waits for everything to be taken.
    emptied: AtomicWaker,
    all: Arc<All>,
}

impl Answers {
    /// Counts the answer of a request. The next [`Answers::announced`] is this one.
    pub(super) fn announce(&self) -> Arc<Answer> {
        let answer = Arc::new(Answer {
            count: Count::default(),
            emptied: AtomicWaker::new(),
            all: Arc::clone(&self.0),
        });
        *self.slot() = Some(Arc::clone(&answer));
        answer
    }

    /// The answer that the task to be spawned writes. A connection calls its service and spawns the task of the
    /// stream in one step, so there is never another in between; other tasks than those of streams write none.
    pub(super) fn announced(&self) -> Option<Arc<Answer>> {
        self.slot().take()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Answer>>> {
        self.0
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once something is held and nothing at all was taken for `patience`. To be polled after the
    /// connection.
    pub(super) async fn stalled(&self, patience: Duration) {
        let mut watch = Watch::new(patience);
        poll_fn(|cx| watch.poll_stalled(cx, &self.0.count)).await;
    }
}

impl Answer {
    /// Runs a stream's task until nothing of its answer was taken for `patience`; the stream is reset then.
    pub(super) async fn attend(
        self: Arc<Self>,
        task: Pin<Box<dyn Future<Output = ()> + Send>>,
        patience: Duration,
    ) {
        let mut task = task;
        let mut watch = Watch::new(patience);
        poll_fn(|cx| {
            if task.poll_unpin(cx).is_ready() {
                return Poll::Ready(());
            }
            ready!(watch.poll_stalled(cx, &self.count));
            tracing::debug!("a client took nothing of an answer for too long");
            Poll::Ready(())
        })
        .await;
    }

    fn piece(self: &Arc<Self>, bytes: Bytes) -> Piece {
        self.count.held.fetch_add(bytes.len(), Ordering::Relaxed);
        self.all
            .count
            .held
            .fetch_add(bytes.len(), Ordering::Relaxed);
        Piece {
            bytes,
            answer: Some(Arc::clone(self)),
        }
    }

    /// Bytes are held no more, because the client took them or because nobody sends them.
    fn release(&self, bytes: usize, taken: usize) {
        self.all.count.taken.fetch_add(taken, Ordering::Relaxed);
        self.all.count.held.fetch_sub(bytes, Ordering::Relaxed);
        self.count.taken.fetch_add(taken, Ordering::Relaxed);
        // Whoever is woken has to see this.
        if self.count.held.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.emptied.wake();
        }
    }

    /// Ready once everything handed over is taken.
    fn poll_emptied(&self, cx: &Context<'_>) -> Poll<()> {
        self.emptied.register(cx.waker());
        match self.count.held.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// A part of an answer's body, counted until it is written. Of HTTP/1 all of it, uncounted.
pub(super) struct Piece {
    bytes: Bytes,
    answer: Option<Arc<Answer>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(answer) = &self.answer {
            answer.release(count, count);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take().filter(|_| !self.bytes.is_empty()) {
            answer.release(self.bytes.len(), 0);
        }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// An answer's body as it is handed over.
pub(super) struct Handed<B> {
    body: B,
    /// `None` of HTTP/1: then it is the body as it is.
    answer: Option<Arc<Answer>>,
    /// Got from the body and not handed over yet.
    rest: Bytes,
    /// What comes once everything before it is taken: trailers, or the end.
    last: Option<Option<Frame<Piece>>>,
    /// More than a piece was handed over.
    is_long: bool,
    has_begun: bool,
}

impl<B> Handed<B> {
    pub(super) fn new(body: B, answer: Option<Arc<Answer>>) -> Self {
        Self {
            body,
            answer,
            rest: Bytes::new(),
            last: None,
            is_long: false,
            has_begun: false,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Handed<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let me = &mut *self;
        let Some(answer) = &me.answer else {
            let polled = Pin::new(&mut me.body).poll_frame(cx);
            return polled.map_ok(|frame| {
                frame.map_data(|bytes| Piece {
                    bytes,
                    answer: None,
                })
            });
        };
        loop {
            if !me.rest.is_empty() {
                let piece = me.rest.split_to(me.rest.len().min(PIECE_BYTES));
                me.is_long |= me.has_begun;
                me.has_begun = true;
                return Poll::Ready(Some(Ok(Frame::data(answer.piece(piece)))));
            }
            if me.last.is_some() {
                if me.is_long {
                    ready!(answer.poll_emptied(cx));
                }
                return Poll::Ready(me.last.take().flatten().map(Ok));
            }
            match ready!(Pin::new(&mut me.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => me.rest = data,
                    Err(frame) => {
                        me.last = Some(frame.into_trailers().ok().map(Frame::trailers));
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => me.last = Some(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_handed_over = self.rest.is_empty() && self.last.is_none() && !self.is_long;
        is_handed_over && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// Says when something was held and nothing taken for too long. Costs no timer while nothing is held.
struct Watch {
    patience: Duration,
    next_look: Option<Pin<Box<Sleep>>>,
    /// What was taken when it last looked.
    taken: usize,
    /// Looks in a row that found nothing new.
    idle: u32,
}

impl Watch {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            next_look: None,
            taken: 0,
            idle: 0,
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>, count: &Count) -> Poll<()> {
        loop {
            let is_held = count.held.load(Ordering::Relaxed) > 0;
            let taken = count.taken.load(Ordering::Relaxed);
            let Some(next_look) = &mut self.next_look else {
                if !is_held {
                    return Poll::Pending;
                }
                self.taken = taken;
                let look = tokio::time::sleep(self.patience / LOOKS);
                self.next_look = Some(Box::pin(look));
                continue;
            };
            ready!(next_look.as_mut().poll(cx));
            self.next_look = None;
            self.idle = match is_held && taken == self.taken {
                true => self.idle + 1,
                false => 0,
            };
            if self.idle == LOOKS {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
