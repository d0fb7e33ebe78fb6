//! The outgoing requests of one attempt: each is held against the rules of its function before it leaves.
//!
//! **Invariant:** nothing leaves that the rules do not allow, and whatever is refused is said in the attempt's log,
//! with what would allow it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, request};
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::body::{GuestBody, RequestBody, ResponseBody};
use super::client::{Client, Patience};
use super::connect::NotConnected;
use super::error::Error;
use super::placeholder::{Placeholder, Replaced};
use super::pool::{Scope, Tether};
use crate::model::{HostPattern, Origin, Scheme};

/// Header fields that are about one connection, and so none of a guest's business.
const OF_THE_CONNECTION: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    HeaderName::from_static("http2-settings"),
];
/// Bytes of a header line beside its name and value.
const LINE_BYTES: usize = 4;

/// Writes a line into the attempt's log.
pub type Note = Arc<dyn Fn(&str) + Send + Sync>;

/// What one attempt may do.
#[derive(Clone)]
pub struct Rules {
    /// Whose connections it uses.
    pub scope: Scope,
    /// `allowHosts` of its version; none is nobody.
    pub allow_hosts: Option<Vec<HostPattern>>,
    /// The texts that are replaced in its headers.
    pub placeholders: Arc<[Placeholder]>,
    /// W3C trace context for requests that have none.
    pub traceparent: Option<Arc<str>>,
}

/// How long the guest itself wants to wait; the settings' limits are never passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection.
    pub connect: Option<Duration>,
    /// For the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// For each further byte.
    pub between_bytes: Option<Duration>,
}

/// Works for as long as an exchange lasts, and then keeps the connection for the next one.
pub type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer.
pub struct Answer {
    /// Its head, and its body as it comes.
    pub response: Response<ResponseBody>,
    /// What brings the body: nothing comes unless this is driven too.
    pub rest: Rest,
}

/// The outgoing side of one attempt.
pub struct Session {
    client: Client,
    rules: Rules,
    sent: AtomicU32,
    places: Arc<Semaphore>,
    note: Note,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// A request that may leave.
struct Cleared {
    origin: Origin,
    request: Request<GuestBody>,
}

impl Session {
    /// The session of an attempt that begins now.
    pub fn new(client: Client, rules: Rules, note: Note) -> Self {
        let at_once = usize::try_from(client.options().requests_at_once_max).unwrap_or(usize::MAX);
        Self {
            client,
            rules,
            sent: AtomicU32::new(0),
            places: Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS))),
            note,
        }
    }

    /// Sends a request, if it may be sent. The URL is absolute.
    pub fn send(
        self: &Arc<Self>,
        request: Request<GuestBody>,
        timeouts: Timeouts,
    ) -> impl Future<Output = Result<Answer, Error>> + Send + 'static {
        let session = Arc::clone(self);
        let cleared = session.clear(request);
        async move { session.send_cleared(cleared?, timeouts).await }
    }

    /// Whether whoever has this is the only one left: no request is under way, no answer unread.
    pub fn is_done(self: &Arc<Self>) -> bool {
        let at_once = usize::try_from(self.client.options().requests_at_once_max);
        let at_once = at_once.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Arc::strong_count(self) == 1 && self.places.available_permits() == at_once
    }

    fn note(&self, line: impl fmt::Display) {
        (self.note)(&line.to_string());
    }

    /// Says why a request does not leave.
    fn refuse(&self, error: Error, why: impl fmt::Display) -> Error {
        self.note(format_args!("a request was refused: {why}"));
        error
    }

    fn clear(&self, request: Request<GuestBody>) -> Result<Cleared, Error> {
        let options = self.client.options();
        let requests_max = options.requests_max;
        let sent = self.sent.fetch_add(1, Ordering::Relaxed);
        if sent >= requests_max {
            // Counting on could come round to the start.
            self.sent.store(requests_max, Ordering::Relaxed);
            return Err(self.refuse(
                Error::Denied,
                format_args!(
                    "an attempt may send {requests_max} (the server's --outgoing-requests-max)"
                ),
            ));
        }
        let (mut head, body) = request.into_parts();
        let origin = self.origin(&head.uri)?;
        self.check_listed(&origin)?;
        if head.method == Method::CONNECT {
            return Err(self.refuse(Error::MethodInvalid, "CONNECT opens tunnels"));
        }
        self.dress(&mut head, &origin)?;
        if body.size_hint().lower() > options.request_bytes_max {
            return Err(self.body_too_large());
        }
        // Its head would leave alone, and the other side wait for what never comes.
        if body.is_end_stream() && stated_length(&head.headers).is_some_and(|stated| stated > 0) {
            let why = "it states a Content-Length and has no body";
            return Err(self.refuse(Error::RequestLength(0), why));
        }
        Ok(Cleared {
            origin,
            request: Request::from_parts(head, body),
        })
    }

    /// Where a URL leads, if it is written in the one way that cannot be misread.
    fn origin(&self, uri: &Uri) -> Result<Origin, Error> {
        let refuse = |why: &dyn fmt::Display| self.refuse(Error::UriInvalid, why);
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(refuse(&"its URL is neither http nor https")),
        };
        let Some(authority) = uri.authority() else {
            return Err(refuse(&"its URL names no host"));
        };
        if authority.as_str().contains('@') {
            let why = "its URL has credentials in it: send them in a header (Authorization)";
            return Err(refuse(&why));
        }
        let host = authority.host();
        let host = host
            .parse()
            .map_err(|error| refuse(&format_args!("the host {host:?} of its URL {error}")))?;
        let port = match authority.as_str().rsplit_once(':') {
            // What is behind the last colon of an IPv6 address is no port.
            Some((_, behind)) if !behind.ends_with(']') => match authority.port_u16() {
                Some(port) if port > 0 => port,
                _ => return Err(refuse(&"its URL has no port after the colon")),
            },
            _ => scheme.default_port(),
        };
        Ok(Origin { scheme, host, port })
    }

    fn check_listed(&self, origin: &Origin) -> Result<(), Error> {
        let Some(allowed) = &self.rules.allow_hosts else {
            let why = format_args!(
                "the function has no allowHosts: add \"{origin}\" to it if {origin} may be called"
            );
            return Err(self.refuse(Error::Denied, why));
        };
        if allowed.iter().any(|entry| entry.matches(origin)) {
            return Ok(());
        }
        Err(self.refuse(
            Error::Denied,
            format_args!("allowHosts does not list {origin}"),
        ))
    }

    /// Gives a request the head that it leaves with.
    fn dress(&self, head: &mut request::Parts, origin: &Origin) -> Result<(), Error> {
        for name in &OF_THE_CONNECTION {
            head.headers.remove(name);
        }
        for placeholder in &*self.rules.placeholders {
            self.replace(placeholder, head, origin)?;
        }
        if let Some(traceparent) = &self.rules.traceparent
            && !head.headers.contains_key("traceparent")
            && let Ok(value) = HeaderValue::from_str(traceparent)
        {
            head.headers.insert("traceparent", value);
        }
        let authority = origin.authority();
        let host = HeaderValue::from_str(&authority);
        let host = host.map_err(|_| Error::Internal("a host that is no header".to_owned()))?;
        head.headers.insert(header::HOST, host);
        let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        head.uri = match path.strip_prefix('?') {
            Some(_) => format!("/{path}").parse(),
            None => path.parse(),
        }
        .map_err(|_| self.refuse(Error::UriInvalid, "its path is none"))?;
        self.check_size(head)
    }

    fn replace(
        &self,
        placeholder: &Placeholder,
        head: &mut request::Parts,
        origin: &Origin,
    ) -> Result<(), Error> {
        if placeholder.is_in(&head.uri) {
            self.note(format_args!(
                "the placeholder of {} stands in a URL, where it is not replaced: send it in a header",
                placeholder.key()
            ));
        }
        match placeholder.replace_in(&mut head.headers, origin) {
            Replaced::InOrder => Ok(()),
            Replaced::WrongHost(hosts) => Err(self.refuse(
                Error::Denied,
                format_args!(
                    "it carries the placeholder of {}, which may go to {hosts} and not to {origin}",
                    placeholder.key()
                ),
            )),
            Replaced::NoHeaderValue => Err(self.refuse(
                Error::Denied,
                format_args!(
                    "the secret behind {} has characters that a header cannot have",
                    placeholder.key()
                ),
            )),
        }
    }

    fn check_size(&self, head: &request::Parts) -> Result<(), Error> {
        let options = self.client.options();
        let line = head.method.as_str().len()
            + head.uri.path().len()
            + head.uri.query().map_or(0, str::len);
        let bytes = line + bytes_of(&head.headers);
        let is_within = head.headers.len()
            <= usize::try_from(options.headers_max).unwrap_or(usize::MAX)
            && bytes <= usize::try_from(options.header_bytes_max).unwrap_or(usize::MAX);
        if is_within {
            return Ok(());
        }
        Err(self.refuse(
            Error::RequestHeader,
            format_args!(
                "its head has {} fields and {bytes} bytes, and may have {} and {} (the server's \
                 --outgoing-headers-max and --outgoing-header-bytes-max)",
                head.headers.len(),
                options.headers_max,
                options.header_bytes_max
            ),
        ))
    }

    async fn send_cleared(
        self: Arc<Self>,
        cleared: Cleared,
        timeouts: Timeouts,
    ) -> Result<Answer, Error> {
        let Cleared { origin, request } = cleared;
        let options = self.client.options();
        let at_most = |wanted: Option<Duration>, limit_ms: u64| {
            let limit = Duration::from_millis(limit_ms);
            wanted.map_or(limit, |wanted| wanted.min(limit))
        };
        let patience = Patience {
            connect: at_most(timeouts.connect, options.connect_timeout_ms),
            first_byte: at_most(timeouts.first_byte, options.silence_timeout_ms),
        };
        let between_bytes = at_most(timeouts.between_bytes, options.silence_timeout_ms);
        let place = self.place(patience.connect).await?;
        let (head, body) = request.into_parts();
        let stated = stated_length(&head.headers);
        let (body, progress) = RequestBody::new(body, options.request_bytes_max, stated);
        let request = Request::from_parts(head, body);
        let scope = &self.rules.scope;
        let exchanged = self
            .client
            .exchange(scope, &origin, request, &progress, patience)
            .await;
        let (response, over) = exchanged.map_err(|error| self.failed(error, &origin))?;
        let rest = {
            let over = Arc::clone(&over);
            Box::pin(poll_fn(move |cx| over.poll_driven(cx)))
        };
        let response = self.accept(response, between_bytes, over, place)?;
        Ok(Answer { response, rest })
    }

    /// A place among the requests of the attempt that are under way at once.
    async fn place(&self, patience: Duration) -> Result<OwnedSemaphorePermit, Error> {
        let places = Arc::clone(&self.places);
        match timeout(patience, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Error::Internal("the attempt is over".to_owned())),
            Err(_) => Err(self.refuse(
                Error::ConnectionLimit,
                format_args!(
                    "{} of this attempt are under way, as many as may be (the server's \
                     --outgoing-requests-at-once-max): read or drop their answers first",
                    self.client.options().requests_at_once_max
                ),
            )),
        }
    }

    /// What is told of a request that came to nothing; the log has the rest.
    fn failed(&self, error: NotConnected, origin: &Origin) -> Error {
        let error = match error {
            NotConnected::Refused(why) => {
                return self.refuse(Error::AddressProhibited, format_args!("{origin}: {why}"));
            }
            NotConnected::Failed(error) => error,
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the guest's own error says all there is to say of the others"
        )]
        match &error {
            Error::RequestBody(_) => self.body_too_large(),
            Error::RequestLength(bytes) => {
                self.note(format_args!(
                    "a request to {origin} broke off: its body is not as long as its Content-Length says ({bytes} \
                     bytes came)"
                ));
                error
            }
            Error::ConnectionLimit => self.refuse(
                error,
                "no connection became free in time (the server's --outgoing-connections-max and \
                 --outgoing-connections-per-function-max)",
            ),
            Error::ResponseHeader => {
                self.note(format_args!(
                    "the answer of {origin} has a larger head than is read (the server's \
                     --outgoing-headers-max and --outgoing-header-bytes-max)"
                ));
                error
            }
            Error::Certificate(why) => {
                self.note(format_args!(
                    "the certificate of {origin} is not accepted: {why}"
                ));
                error
            }
            Error::Internal(why) => {
                self.note(format_args!(
                    "a request to {origin} could not be sent: {why}"
                ));
                error
            }
            _ => error,
        }
    }

    fn body_too_large(&self) -> Error {
        let bytes_max = self.client.options().request_bytes_max;
        let why = format_args!(
            "its body may have {bytes_max} bytes (the server's --outgoing-request-bytes-max)"
        );
        self.refuse(Error::RequestBody(bytes_max), why)
    }

    fn accept(
        &self,
        response: Response<Incoming>,
        between_bytes: Duration,
        over: Arc<Tether>,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<ResponseBody>, Error> {
        let (mut head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Upgrade);
        }
        for name in &OF_THE_CONNECTION {
            head.headers.remove(name);
        }
        let bytes_max = self.client.options().response_bytes_max;
        let note = Arc::clone(&self.note);
        let too_large = move || {
            note(&format!(
                "an answer was cut: it is larger than {bytes_max} bytes (the server's \
                 --outgoing-response-bytes-max)"
            ));
        };
        if body.size_hint().lower() > bytes_max {
            too_large();
            return Err(Error::ResponseBody(bytes_max));
        }
        let too_large = Box::new(too_large);
        let body = ResponseBody::new(body, bytes_max, between_bytes, too_large, over, place);
        Ok(Response::from_parts(head, body))
    }
}

/// The length that a head states.
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    let stated = headers.get(header::CONTENT_LENGTH)?;
    stated.to_str().ok()?.parse().ok()
}

fn bytes_of(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + LINE_BYTES)
        .sum()
}
