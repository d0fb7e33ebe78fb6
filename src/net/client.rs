//! The client of all functions: connects or takes an idle connection, sends one request, brings back the answer.
//!
//! It follows no redirect, reads no variable of the environment for a proxy, and tries nothing twice that may
//! have been done already.
//!
//! **Invariant:** what an attempt may call is not decided here but in [`super::Session`]; that no address is
//! connected to unchecked, is.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::address::{Addresses, Loopback};
use super::body::{Progress, RequestBody, Upload};
use super::connect::{NotConnected, addresses_of, open, secure};
use super::error::Error;
use super::pool::{Bounds, Link, Pool, Scope, Tether};
use super::resolve::{Resolve, SystemResolver};
use super::tls;
use crate::model::Origin;

/// Settings of outgoing requests; every figure is a limit.
#[derive(Clone)]
pub struct Options {
    /// Whether services on this machine's loopback may be called, by whoever names them so.
    pub loopback: Loopback,
    /// Ranges that may be called although they are private or otherwise special.
    pub ranges_allowed: Vec<IpNet>,
    /// Requests of one attempt.
    pub requests_max: u32,
    /// Requests of one attempt that are under way at once, unread answers included.
    pub requests_at_once_max: u32,
    /// Bytes of one request's body.
    pub request_bytes_max: u64,
    /// Bytes of one answer's body.
    pub response_bytes_max: u64,
    /// Header fields of one request, and of one answer.
    pub headers_max: u32,
    /// Bytes of one request's head, and of one answer's.
    pub header_bytes_max: u32,
    /// Time to connect: a free place, the name, the connection and TLS together, in ms.
    pub connect_timeout_ms: u64,
    /// Time without a byte of the answer, or without a byte of the request being taken, in ms.
    pub silence_timeout_ms: u64,
    /// Connections of all functions together.
    pub connections_max: u32,
    /// Connections of one function.
    pub connections_per_function_max: u32,
    /// Idle ones among them, of all functions together.
    pub idle_connections_max: u32,
    /// Idle ones among them, of one function.
    pub idle_connections_per_function_max: u32,
    /// How long an idle connection is kept, in ms.
    pub idle_timeout_ms: u64,
    /// Root certificates in DER, instead of the system's.
    pub roots: Option<Vec<Vec<u8>>>,
    /// Who knows the addresses of names.
    pub resolver: Arc<dyn Resolve>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loopback: Loopback::Refused,
            ranges_allowed: Vec::new(),
            requests_max: 1000,
            requests_at_once_max: 32,
            request_bytes_max: 256 << 20,
            response_bytes_max: 256 << 20,
            headers_max: 100,
            header_bytes_max: 64 << 10,
            connect_timeout_ms: 5_000,
            silence_timeout_ms: 30_000,
            connections_max: 1024,
            connections_per_function_max: 256,
            idle_connections_max: 256,
            idle_connections_per_function_max: 16,
            idle_timeout_ms: 30_000,
            roots: None,
            resolver: Arc::new(SystemResolver::default()),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("loopback", &self.loopback)
            .field("ranges_allowed", &self.ranges_allowed)
            .finish_non_exhaustive()
    }
}

/// A cheap handle on the client of all functions.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    addresses: Addresses,
    pool: Arc<Pool>,
    /// One TLS configuration for each function: what it resumes is its own.
    tls: moka::sync::Cache<Scope, Arc<ClientConfig>>,
}

/// Functions whose TLS sessions are remembered.
const TLS_SCOPES_MAX: u64 = 256;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
}

/// An answer whose body is still to come, and the connection that it comes over.
pub(super) type Answered = (hyper::Response<Incoming>, Arc<Tether>);

impl Client {
    /// A client under these settings. Opens nothing yet.
    pub fn new(options: Options) -> Self {
        let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let bounds = Bounds {
            open_max: size(options.connections_max),
            open_per_function_max: size(options.connections_per_function_max),
            idle_max: size(options.idle_connections_max),
            idle_per_function_max: size(options.idle_connections_per_function_max),
            idle_timeout: Duration::from_millis(options.idle_timeout_ms),
        };
        Self {
            inner: Arc::new(Inner {
                addresses: Addresses::new(options.loopback, options.ranges_allowed.clone()),
                pool: Arc::new(Pool::new(bounds)),
                tls: moka::sync::Cache::new(TLS_SCOPES_MAX),
                options,
            }),
        }
    }

    /// Its settings.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Closes connections that were idle for too long. The next request does so too: this is for when there is none.
    pub fn tidy(&self) {
        self.inner.pool.tidy();
    }

    /// Open connections and, among them, idle ones.
    pub fn connections(&self) -> (usize, usize) {
        self.inner.pool.counts()
    }

    /// Sends a request that was found to be in order to `origin`.
    pub(super) async fn exchange(
        &self,
        scope: &Scope,
        origin: &Origin,
        request: Request<RequestBody>,
        progress: &Progress,
        patience: Patience,
    ) -> Result<Answered, NotConnected> {
        let mut request = request;
        if let Some(mut link) = self.inner.pool.take(scope, origin) {
            match answer(&mut link, request, progress, patience.first_byte).await {
                Ok(response) => return Ok((response, self.tether(scope, origin, link))),
                // Closed by the other side in the same moment: not a byte of the request has left.
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(error.into()),
            }
        }
        let mut link = self.connect(scope, origin, patience.connect).await?;
        match answer(&mut link, request, progress, patience.first_byte).await {
            Ok(response) => Ok((response, self.tether(scope, origin, link))),
            Err((error, _)) => Err(error.into()),
        }
    }

    async fn connect(
        &self,
        scope: &Scope,
        origin: &Origin,
        patience: Duration,
    ) -> Result<Link, NotConnected> {
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        let Inner {
            options,
            addresses,
            pool,
            ..
        } = &*self.inner;
        let places = timeout(left(), pool.places(scope))
            .await
            .map_err(|_| Error::ConnectionLimit)??;
        let resolving = async {
            let turn = pool.lookup(scope).await?;
            addresses_of(origin, addresses, &*options.resolver, turn).await
        };
        let found = timeout(left(), resolving)
            .await
            .map_err(|_| Error::DnsTimeout)??;
        let connecting = async {
            let stream = open(found).await?;
            let stream = secure(stream, origin, || self.tls(scope)).await?;
            self.handshake(stream).await
        };
        let (sender, connection) = timeout(left(), connecting)
            .await
            .map_err(|_| Error::ConnectionTimeout)??;
        Ok(Link {
            sender,
            connection,
            _places: places,
        })
    }

    async fn handshake(
        &self,
        stream: Box<dyn super::connect::Stream>,
    ) -> Result<Handshaken, Error> {
        let options = &self.inner.options;
        let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        http1::Builder::new()
            .max_headers(size(options.headers_max))
            .max_buf_size(size(options.header_bytes_max))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::of_http(&error))
    }

    fn tls(&self, scope: &Scope) -> Result<Arc<ClientConfig>, String> {
        let cache = &self.inner.tls;
        if let Some(config) = cache.get(scope) {
            return Ok(config);
        }
        let config = match &self.inner.options.roots {
            None => tls::client_config()?,
            Some(roots) => tls::client_config_under(roots)?,
        };
        let config = Arc::new(config);
        cache.insert(scope.clone(), Arc::clone(&config));
        Ok(config)
    }

    fn tether(&self, scope: &Scope, origin: &Origin, link: Link) -> Arc<Tether> {
        Tether::new(&self.inner.pool, scope, origin, link)
    }
}

type Handshaken = (
    http1::SendRequest<RequestBody>,
    http1::Connection<TokioIo<Box<dyn super::connect::Stream>>, RequestBody>,
);

/// Why there is no answer, and the request if none of it has left.
type Unanswered = (Error, Option<Request<RequestBody>>);

/// Sends a request over a connection and drives that until the answer's head is there.
async fn answer(
    link: &mut Link,
    request: Request<RequestBody>,
    progress: &Progress,
    patience: Duration,
) -> Result<hyper::Response<Incoming>, Unanswered> {
    let Link {
        sender, connection, ..
    } = link;
    let mut sending = pin!(sender.try_send_request(request));
    let mut is_over = false;
    let driven = poll_fn(|cx| {
        if let Poll::Ready(answered) = sending.as_mut().poll(cx) {
            return Poll::Ready(answered);
        }
        if is_over || Pin::new(&mut *connection).poll(cx).is_pending() {
            return Poll::Pending;
        }
        is_over = true;
        // The connection has ended, and has told why.
        sending.as_mut().poll(cx)
    });
    tokio::select! {
        biased;
        answered = driven => answered.map_err(|mut error| {
            let unsent = error.take_message();
            (Error::of_http(error.error()), unsent)
        }),
        error = silence(progress, patience) => Err((error, None)),
    }
}

/// Returns when the other side has neither taken a byte of the request nor sent one of the answer for too long. A
/// guest that takes its time with the body is not its fault.
async fn silence(progress: &Progress, patience: Duration) -> Error {
    let begun = Instant::now();
    loop {
        let (upload, since) = progress.get();
        let since = since.max(begun);
        let quiet_until = match upload {
            Upload::Guest => Instant::now() + patience,
            Upload::Server | Upload::Finished => since + patience,
        };
        if Instant::now() >= quiet_until {
            return match upload {
                Upload::Guest | Upload::Server => Error::WriteTimeout,
                Upload::Finished => Error::ReadTimeout,
            };
        }
        tokio::time::sleep_until(quiet_until.into()).await;
    }
}
