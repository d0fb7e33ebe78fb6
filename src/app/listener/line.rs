//! A connection's stream with an eye on its other end.
//!
//! A server reads of HTTP/1 only what somebody asks for: while a function neither reads nor writes, nobody would
//! see that its caller has left. The kernel knows.
//!
//! A client that leaves while its own system still holds a part of the body that does not fit in here is not seen:
//! the news waits behind that part. Such a call ends when its function reads, or at its time limit.
//!
//! **Invariant:** a connection on which nobody speaks with a function costs no timer.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::api::Attention;

/// How often the other end is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The stream, as hyper reads and writes it. It and the [`Line`] are polled by the connection's own task, so that
/// nobody ever waits for the lock.
#[derive(Debug)]
pub(super) struct Stream(Arc<Mutex<TcpStream>>);

/// The watching end.
#[derive(Debug)]
pub(super) struct Line {
    stream: Arc<Mutex<TcpStream>>,
    attention: Attention,
    /// Runs while there is something to look after.
    next_look: Option<Pin<Box<Sleep>>>,
}

/// The two ends of a connection.
pub(super) fn ends(stream: TcpStream, attention: Attention) -> (Stream, Line) {
    let stream = Arc::new(Mutex::new(stream));
    let line = Line {
        stream: Arc::clone(&stream),
        attention,
        next_look: None,
    };
    (Stream(stream), line)
}

fn locked(stream: &Mutex<TcpStream>) -> MutexGuard<'_, TcpStream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// Returns once the client has left while somebody wants to know. To be polled after whatever uses the stream.
    pub(super) async fn left(&mut self) {
        poll_fn(|cx| self.poll_left(cx)).await
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !self.attention.is_wanted() {
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
            if is_left(&locked(&self.stream)) {
                return Poll::Ready(());
            }
        }
    }
}

/// Whether the client's end is closed. Known from the last event of the kernel, so it costs no system call; what
/// the client sent before that may still be unread.
fn is_left(stream: &TcpStream) -> bool {
    match stream.ready(Interest::READABLE).now_or_never() {
        Some(Ok(ready)) => ready.is_read_closed(),
        Some(Err(_)) => true,
        None => false,
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *locked(&self.0)).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *locked(&self.0)).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *locked(&self.0)).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        locked(&self.0).is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *locked(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *locked(&self.0)).poll_shutdown(cx)
    }
}
