//! Serves HTTP/1.1 and HTTP/2 (prior knowledge) on one listener, within bounds.
//!
//! A place among the connections is taken *before* one is accepted, so what does not fit waits in the
//! system's backlog. A connection whose first request does not arrive in time is closed, whatever it sends, and
//! so is one whose client takes nothing of its answers; of several answers on one connection ([`taken`]) the one
//! that its client does not take is broken off.
//!
//! **Invariant:** no client can make this hold more than its limits, and none can keep a stop from ending.

mod line;
mod taken;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, ready};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::line::ends;
use self::taken::{Answers, Handed, SEND_BUFFER_BYTES};
use crate::api::{Attention, Peer};
use crate::shutdown::Tasks;

/// Pause after an error of `accept` that is the machine's (no file descriptor left), so that it is not
/// asked in a circle.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Room for connections that knock before one is accepted, however few may be open: what tokio asks for.
const KNOCKS_MIN: u32 = 1024;
/// Requests that one HTTP/2 connection may have under way.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Bytes of request bodies that one HTTP/2 connection may have sent and that nobody has read: 1 MiB, for one stream
/// as for all of them together.
const UNREAD_BYTES_MAX: u32 = 1 << 20;

/// Bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections_max: u32,
    pub(super) headers_max: usize,
    pub(super) header_bytes_max: u32,
    pub(super) header_read_timeout: Duration,
    pub(super) answer_stall_timeout_ms: u32,
}

/// A listener that serves until it is told to close. A handle; the work is done by tasks.
pub(super) struct Listener {
    addr: SocketAddr,
    closing: CancellationToken,
    places: Arc<Semaphore>,
    places_max: u32,
}

impl Listener {
    /// Takes the address and serves `service` on it.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub(super) async fn open<S, B>(
        addr: SocketAddr,
        bounds: Bounds,
        service: S,
        tasks: &Tasks,
    ) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let listener = listen(addr, bounds.connections_max)?;
        let handle = Self {
            addr: listener.local_addr()?,
            // Whoever stops everything closes this too.
            closing: tasks.stop_token().child_token(),
            places: Arc::new(Semaphore::new(places(bounds.connections_max))),
            places_max: bounds.connections_max,
        };
        let server = Server {
            bounds,
            service,
            tasks: tasks.clone(),
            closing: handle.closing.clone(),
        };
        drop(tasks.spawn(server.accept_all(listener, Arc::clone(&handle.places))));
        Ok(handle)
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more connections. Open ones end after the request that they are in.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Returns once every connection has ended. Only of use after [`Listener::close`].
    pub(super) async fn closed(&self) {
        // Nobody closes the semaphore, so this fails for nobody.
        let _ = self.places.acquire_many(self.places_max).await;
    }
}

/// Listens with room for as many that knock at once as may come in; the system may grant less (`somaxconn`).
///
/// With less room, what knocks in vain knocks again a second later, and a crowd of callers waits for nothing.
fn listen(addr: SocketAddr, connections_max: u32) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that starts again must not wait for the old one's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(connections_max.max(KNOCKS_MIN))
}

fn places(connections_max: u32) -> usize {
    usize::try_from(connections_max).unwrap_or(usize::MAX)
}

/// What the accepting task and every connection know.
#[derive(Clone)]
struct Server<S> {
    bounds: Bounds,
    service: S,
    tasks: Tasks,
    closing: CancellationToken,
}

impl<S, B> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    async fn accept_all(self, listener: TcpListener, places: Arc<Semaphore>) {
        let closing = self.closing.clone();
        loop {
            let accepted = tokio::select! {
                () = closing.cancelled() => return,
                accepted = accept(&listener, &places) => accepted,
            };
            if let Some((stream, peer, place)) = accepted {
                drop(
                    self.tasks
                        .spawn(self.clone().connection(stream, peer, place)),
                );
            }
        }
    }

    /// The life of one connection. It ends at once when all tasks are told to stop.
    async fn connection(self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        self.serve(stream, peer).await;
        drop(place);
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = prepare(&stream, &self.bounds) {
            tracing::debug!(%error, "a connection was gone before it began");
            return;
        }
        let told = Told {
            peer: Peer(peer),
            first_request: CancellationToken::new(),
            attention: Attention::default(),
            answers: Answers::default(),
        };
        let (stream, mut line) = ends(stream, told.attention.clone());
        let patience = Duration::from_millis(self.bounds.answer_stall_timeout_ms.into());
        let spawner = OnTasks {
            tasks: self.tasks.clone(),
            answers: told.answers.clone(),
            patience,
        };
        let builder = builder(&self.bounds, spawner);
        let connection = builder.serve_connection(TokioIo::new(stream), self.answering(&told));
        tokio::pin!(connection);
        let mut news = self.news(&told.first_request);
        let left = line.left();
        tokio::pin!(left);
        // An answer that can be broken off alone is broken off before.
        let stalled = told.answers.stalled(patience * 2);
        tokio::pin!(stalled);
        loop {
            tokio::select! {
                // In this order: what the connection does decides what the line is watched for.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                () = left.as_mut() => {
                    tracing::debug!("a client left in the middle of a call");
                    return;
                }
                () = stalled.as_mut() => {
                    tracing::debug!("closed a connection whose client takes nothing");
                    return;
                }
                Some(news) = news.next() => match news {
                    News::Stop => return,
                    News::TooLate => {
                        tracing::debug!("closed a connection that sent no request in time");
                        return;
                    }
                    News::Closing => connection.as_mut().graceful_shutdown(),
                    News::InTime => {}
                },
            }
        }
    }

    /// Answers the requests of one connection.
    fn answering(
        &self,
        told: &Told,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<Handed<B>>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<S, B> {
        let told = told.clone();
        // Routes are always ready, and a connection's requests are taken one after another by its own task: they share
        // this copy, for every further one would count what all connections count.
        let service = Mutex::new(self.service.clone());
        let headers_max = self.bounds.headers_max;
        service_fn(move |mut request: Request<Incoming>| {
            told.first_request.cancel();
            let answer = (request.version() == Version::HTTP_2).then(|| told.answers.announce());
            let extensions = request.extensions_mut();
            extensions.insert(told.peer);
            extensions.insert(told.attention.clone());
            let called = match request.headers().len() > headers_max {
                // Of HTTP/1 hyper has refused these already.
                true => Either::Left(ready(Ok(too_many_headers()))),
                false => {
                    let mut service = service.lock().unwrap_or_else(PoisonError::into_inner);
                    Either::Right(service.call(request))
                }
            };
            called
                .map_ok(move |response: Response<B>| response.map(|body| Handed::new(body, answer)))
        })
    }

    /// What may happen to a connection beside its own traffic. Each of these is looked at only when it has
    /// something to say: what it waits on is shared by all connections, and asking at every request contends for it.
    fn news<'a>(
        &'a self,
        first_request: &'a CancellationToken,
    ) -> FuturesUnordered<BoxFuture<'a, News>> {
        let stop = self.tasks.stop_token().cancelled().map(|()| News::Stop);
        let closing = self.closing.cancelled().map(|()| News::Closing);
        let in_time =
            tokio::time::timeout(self.bounds.header_read_timeout, first_request.cancelled());
        let in_time = in_time.map(|waited| match waited {
            Ok(()) => News::InTime,
            Err(_) => News::TooLate,
        });
        [stop.boxed(), closing.boxed(), in_time.boxed()]
            .into_iter()
            .collect()
    }
}

/// What the parts that serve one connection tell each other of it.
#[derive(Clone)]
struct Told {
    peer: Peer,
    first_request: CancellationToken,
    attention: Attention,
    answers: Answers,
}

/// What a connection is told from outside.
#[derive(Debug, Clone, Copy)]
enum News {
    /// All tasks end at once.
    Stop,
    /// No further requests are taken.
    Closing,
    /// The first request has come.
    InTime,
    /// It has not.
    TooLate,
}

/// Sets what the system sees to.
fn prepare(stream: &TcpStream, bounds: &Bounds) -> io::Result<()> {
    // Answers are small and complete: waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    // The system knows how much the client has taken; here only full buffers would be seen, and a slow client
    // that empties them looks for minutes like one that does not read.
    Ok(set_tcp_user_timeout(
        stream,
        bounds.answer_stall_timeout_ms,
    )?)
}

/// Takes a place, then a connection; `None` if there was one no more.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) if is_the_clients(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Whether an error of `accept` only says that the client has gone again.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn too_many_headers<B: Default>() -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

fn builder(bounds: &Bounds, spawner: OnTasks) -> auto::Builder<OnTasks> {
    let header_bytes_max = usize::try_from(bounds.header_bytes_max).unwrap_or(usize::MAX);
    let mut builder = auto::Builder::new(spawner);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_read_timeout)
        .max_headers(bounds.headers_max)
        .max_buf_size(header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.header_read_timeout)
        .max_header_list_size(bounds.header_bytes_max)
        .initial_connection_window_size(UNREAD_BYTES_MAX)
        .initial_stream_window_size(UNREAD_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    builder
}

/// Runs the parts of HTTP/2 connections where a stop can wait for them.
#[derive(Clone)]
struct OnTasks {
    tasks: Tasks,
    answers: Answers,
    /// How long a client may take nothing of an answer.
    patience: Duration,
}

impl<F> hyper::rt::Executor<F> for OnTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(match self.answers.announced() {
            Some(answer) => self
                .tasks
                .spawn(answer.attend(Box::pin(future), self.patience)),
            None => self.tasks.spawn(future),
        });
    }
}

#[cfg(test)]
mod tests;
