//! What can become of an outgoing request, in the words that a guest is told it in.
//!
//! **Invariant:** says nothing of the machine: no path, no address that the guest did not ask for by name or number.

/// An outgoing request that came to nothing. The variants are those of `wasi:http`'s `error-code` that can come up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A rule forbids it; the attempt's log says which.
    #[error("the request is not allowed")]
    Denied,
    /// The URL is none that is taken.
    #[error("the URL is not taken")]
    UriInvalid,
    /// The method is none that is taken.
    #[error("the method is not taken")]
    MethodInvalid,
    /// More header fields, or longer ones, than may be sent.
    #[error("the request's header is too large")]
    RequestHeader,
    /// A longer body than may be sent; the most, in bytes.
    #[error("the request's body is larger than {0} bytes")]
    RequestBody(u64),
    /// The body is not as long as its head says; how long it is or was about to be, in bytes.
    #[error("the request's body is not as long as its Content-Length says: {0} bytes")]
    RequestLength(u64),
    /// Every address of the host is one that may not be called.
    #[error("the host's address may not be called")]
    AddressProhibited,
    /// No answer about the name in time.
    #[error("the host's name was not resolved in time")]
    DnsTimeout,
    /// The name has no address.
    #[error("the host's name cannot be resolved: {0}")]
    Dns(String),
    /// Nobody listens there.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// No way there.
    #[error("the host cannot be reached: {0}")]
    Unreachable(String),
    /// Not connected in time.
    #[error("the connection was not made in time")]
    ConnectionTimeout,
    /// The connection broke.
    #[error("the connection ended early")]
    ConnectionTerminated,
    /// No byte of the answer in time.
    #[error("nothing came in time")]
    ReadTimeout,
    /// The other side does not take the request's body.
    #[error("the request's body was not taken in time")]
    WriteTimeout,
    /// As many requests or connections are open as may be.
    #[error("too many connections are open")]
    ConnectionLimit,
    /// The other side does not speak TLS as it should.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The certificate is not good for this host.
    #[error("the certificate is not accepted: {0}")]
    Certificate(String),
    /// The other side said why it ends the handshake.
    #[error("TLS failed: the other side answered {0}")]
    TlsAlert(String),
    /// The answer ended before it was complete.
    #[error("the answer is incomplete")]
    ResponseIncomplete,
    /// A longer header than is read.
    #[error("the answer's header is too large")]
    ResponseHeader,
    /// A longer body than is read; the most, in bytes.
    #[error("the answer is larger than {0} bytes")]
    ResponseBody(u64),
    /// The answer changes the protocol, which nobody asked for.
    #[error("the answer changes the protocol")]
    Upgrade,
    /// The answer is no HTTP.
    #[error("the answer is no HTTP: {0}")]
    Protocol(String),
    /// Ours.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// What an error of the HTTP library means.
    pub(super) fn of_http(error: &hyper::Error) -> Self {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if let Some(ours) = cause.downcast_ref::<Self>() {
                return ours.clone();
            }
            source = cause.source();
        }
        if error.is_parse_too_large() {
            Self::ResponseHeader
        } else if error.is_parse() {
            Self::Protocol(error.to_string())
        } else if error.is_user() {
            Self::Internal(error.to_string())
        } else if error.is_incomplete_message() {
            Self::ResponseIncomplete
        } else {
            Self::ConnectionTerminated
        }
    }
}
