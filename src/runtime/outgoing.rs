//! Requests that guests send: the bridge between `wasi:http` and the [`Session`] that holds them to their rules.
//!
//! **Invariant:** nothing leaves for the network but through the attempt's session; what is refused is an error that
//! the guest can handle, never a trap.

use std::sync::{Arc, LazyLock};

use http_body_util::BodyExt as _;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use super::host_limits::BODY_CHUNK_BYTES;
use super::surroundings::Surroundings;
use crate::execution::Attempt;
use crate::model::{Code, Digest, LogStream, Version};
use crate::net::{self, Answer, Client, Rules, Scope, Session, Timeouts};

/// One for all: it is asked for at every header.
static FORBIDDEN: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));

/// What one attempt may send; its session is made at its first request, for most send none.
pub(super) struct Outgoing {
    client: Client,
    traceparent: Option<Arc<str>>,
    /// Whose requests they are. They stand here because a request sees nothing else of its store.
    surroundings: Surroundings,
    session: Option<Arc<Session>>,
    /// Those of calls that were joined by others, as long as anything of theirs is under way.
    earlier: Vec<Arc<Session>>,
}

/// A future of wasmtime's `wasi:http`.
type Boxed<T> = Box<dyn Future<Output = Result<T, Error>> + Send>;

impl Outgoing {
    pub(super) fn new(client: &Client, attempt: &Attempt, surroundings: Surroundings) -> Self {
        Self {
            client: client.clone(),
            traceparent: attempt.traceparent.clone(),
            surroundings,
            session: None,
            earlier: Vec::new(),
        }
    }

    /// What WASI answers with.
    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// The call is over. Says whether nothing of what it sent is under way any more.
    pub(super) fn end_call(&mut self) -> bool {
        let session = self.session.take();
        self.forget_done();
        self.earlier.is_empty() && session.is_none_or(|session| session.is_done())
    }

    /// A call of the same version joins those that are in the instance: what is sent from now on is counted for it, and
    /// belongs to its trace only if it is alone, for nothing tells whose a request is.
    pub(super) fn join(&mut self, attempt: &Attempt, is_alone: bool) {
        self.traceparent = match is_alone {
            true => attempt.traceparent.clone(),
            false => None,
        };
        self.forget_done();
        self.earlier.extend(self.session.take());
    }

    fn forget_done(&mut self) {
        self.earlier.retain(|session| !session.is_done());
    }

    /// Another call begins, with a session of its own.
    pub(super) fn renew(&mut self, attempt: &Attempt) {
        self.surroundings.renew(attempt);
        self.traceparent.clone_from(&attempt.traceparent);
        self.session = None;
    }

    fn session(&mut self) -> &Arc<Session> {
        let Self {
            client,
            traceparent,
            surroundings,
            session,
            earlier: _,
        } = self;
        session.get_or_insert_with(|| {
            let version = surroundings.version();
            let rules = Rules {
                scope: Scope {
                    function: surroundings.function().clone(),
                    digest: digest_of(version),
                },
                allow_hosts: version.spec.allow_hosts.clone(),
                placeholders: surroundings.given().placeholders(),
                traceparent: traceparent.clone(),
            };
            let capture = surroundings.capture().clone();
            let note = Arc::new(move |line: &str| capture.line(LogStream::Plane, line));
            Arc::new(Session::new(client.clone(), rules, note))
        })
    }
}

fn digest_of(version: &Version) -> Digest {
    match version.code {
        Code::Wasm { digest, .. } => digest,
        // Nothing of these runs here.
        Code::Echo | Code::Endpoint { .. } => Digest::from_bytes([0; 32]),
    }
}

impl WasiHttpHooks for Outgoing {
    fn is_forbidden_header(&mut self, name: &http::HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FORBIDDEN)
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Boxed<()>,
    ) -> Boxed<(http::Response<WasiBody>, Boxed<()>)> {
        let options = options.unwrap_or_default();
        let timeouts = Timeouts {
            connect: options.connect_timeout,
            first_byte: options.first_byte_timeout,
            between_bytes: options.between_bytes_timeout,
        };
        let request = request.map(|body| body.map_err(of_body).boxed_unsync());
        let sending = self.session().send(request, timeouts);
        Box::new(async move {
            let Answer { response, rest } = sending.await.map_err(told)?;
            let response = response.map(|body| body.map_err(told).boxed_unsync());
            let rest: Boxed<()> = Box::new(async move {
                rest.await;
                Ok(())
            });
            Ok((response, rest))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

/// What the host calls found wrong with a body while the guest wrote it.
fn of_body(error: Error) -> Box<dyn std::error::Error + Send + Sync> {
    if let Error::HttpRequestBodySize(Some(bytes)) = error {
        return net::Error::RequestLength(bytes).into();
    }
    error.into()
}

/// The error code of `wasi:http` for what became of a request.
fn told(error: net::Error) -> Error {
    match error {
        net::Error::Denied => Error::HttpRequestDenied,
        net::Error::UriInvalid => Error::HttpRequestUriInvalid,
        net::Error::MethodInvalid => Error::HttpRequestMethodInvalid,
        net::Error::RequestHeader => Error::HttpRequestHeaderSectionSize(None),
        net::Error::RequestBody(max) => Error::HttpRequestBodySize(Some(max)),
        net::Error::RequestLength(bytes) => Error::HttpRequestBodySize(Some(bytes)),
        net::Error::AddressProhibited => Error::DestinationIpProhibited,
        net::Error::DnsTimeout => Error::DnsTimeout,
        net::Error::Dns(why) => Error::DnsError {
            rcode: Some(why),
            info_code: None,
        },
        net::Error::ConnectionRefused => Error::ConnectionRefused,
        net::Error::Unreachable(_) => Error::DestinationUnavailable,
        net::Error::ConnectionTimeout => Error::ConnectionTimeout,
        net::Error::ConnectionTerminated => Error::ConnectionTerminated,
        net::Error::ReadTimeout => Error::ConnectionReadTimeout,
        net::Error::WriteTimeout => Error::ConnectionWriteTimeout,
        net::Error::ConnectionLimit => Error::ConnectionLimitReached,
        net::Error::Tls(_) => Error::TlsProtocolError,
        net::Error::Certificate(_) => Error::TlsCertificateError,
        net::Error::TlsAlert(alert) => Error::TlsAlertReceived {
            alert_id: None,
            alert_message: Some(alert),
        },
        net::Error::ResponseIncomplete => Error::HttpResponseIncomplete,
        net::Error::ResponseHeader => Error::HttpResponseHeaderSectionSize(None),
        net::Error::ResponseBody(max) => Error::HttpResponseBodySize(Some(max)),
        net::Error::Upgrade => Error::HttpUpgradeFailed,
        net::Error::Protocol(_) => Error::HttpProtocolError,
        net::Error::Internal(why) => Error::InternalError(Some(why)),
    }
}
