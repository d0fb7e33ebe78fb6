//! A connection's stream with an eye on its other end.
//!
//! A server reads of HTTP/1 only what somebody asks for: while a function neither reads nor writes, nobody would
//! see that its caller has left, or that a caller takes nothing of what it asked for. The kernel knows.
//!
//! A client that leaves while its own system still holds a part of the body that does not fit in here is not seen:
//! the news waits behind that part. Such a call ends when its function reads, or at its time limit.
//!
//! **Invariant:** a connection on which nobody speaks with a function and nothing waits to be sent costs no timer.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::api::Attention;

/// How often the other end is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The client has closed its end.
    Left,
    /// The client takes nothing of what it is sent.
    DoesNotRead,
}

/// One end for hyper, one for whoever watches. Both are polled by the connection's own task, so that nobody ever
/// waits for the lock.
#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    /// Since when there is no room for what is to be sent.
    full_since: Option<Instant>,
}

/// The stream, as hyper reads and writes it.
#[derive(Debug)]
pub(super) struct Stream(Arc<Mutex<Shared>>);

/// The watching end.
#[derive(Debug)]
pub(super) struct Line {
    shared: Arc<Mutex<Shared>>,
    attention: Attention,
    write_timeout: Duration,
    /// Runs while there is something to look after.
    next_look: Option<Pin<Box<Sleep>>>,
}

/// The two ends of a connection. A client may take `write_timeout` between two pieces of what it is sent.
pub(super) fn ends(
    stream: TcpStream,
    attention: Attention,
    write_timeout: Duration,
) -> (Stream, Line) {
    let shared = Arc::new(Mutex::new(Shared {
        stream,
        full_since: None,
    }));
    let line = Line {
        shared: Arc::clone(&shared),
        attention,
        write_timeout,
        next_look: None,
    };
    (Stream(shared), line)
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// Returns once there is no use in going on. To be polled after whatever uses the stream.
    pub(super) async fn lost(&mut self) -> Lost {
        poll_fn(|cx| self.poll_lost(cx)).await
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        loop {
            let is_attended = self.attention.is_wanted();
            let full_since = locked(&self.shared).full_since;
            if !is_attended && full_since.is_none() {
                // A timer that runs is left to run out: the next request comes soon or not at all.
                if let Some(next_look) = &mut self.next_look {
                    ready!(next_look.as_mut().poll(cx));
                    self.next_look = None;
                }
                return Poll::Pending;
            }
            let next_look = self
                .next_look
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
            ready!(next_look.as_mut().poll(cx));
            self.next_look = None;
            if is_attended && locked(&self.shared).is_left() {
                return Poll::Ready(Lost::Left);
            }
            if full_since.is_some_and(|since| since.elapsed() >= self.write_timeout) {
                return Poll::Ready(Lost::DoesNotRead);
            }
        }
    }
}

impl Shared {
    /// Whether the client's end is closed. Known from the last event of the kernel, so it costs no system call;
    /// what the client sent before that may still be unread.
    fn is_left(&self) -> bool {
        match self.stream.ready(Interest::READABLE).now_or_never() {
            Some(Ok(ready)) => ready.is_read_closed(),
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// Notes whether there was room for what was to be sent.
    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(_) => self.full_since = None,
            Poll::Pending => {
                self.full_since.get_or_insert_with(Instant::now);
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut locked(&self.0).stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = locked(&self.0);
        let written = Pin::new(&mut shared.stream).poll_write(cx, buf);
        shared.note(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = locked(&self.0);
        let written = Pin::new(&mut shared.stream).poll_write_vectored(cx, bufs);
        shared.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        locked(&self.0).stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut locked(&self.0).stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut locked(&self.0).stream).poll_shutdown(cx)
    }
}
