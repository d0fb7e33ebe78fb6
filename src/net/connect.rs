//! Makes connections: a name is resolved, its addresses are checked, and one that was checked is connected to.
//!
//! **Invariant:** the address that was checked is the one of the connection, and the certificate is checked
//! against the name that was asked for, never against the address behind it.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsConnector;

use super::address::{Addresses, Refused};
use super::error::Error;
use super::resolve::Resolve;
use crate::model::{Host, Origin, Scheme};

/// How long one address is tried before the next one is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried, at most.
const ADDRESSES_MAX: usize = 8;

/// A connection, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
pub(super) enum NotConnected {
    /// An address that may not be called; the reason is for the attempt's log.
    Refused(String),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for NotConnected {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The addresses of an origin that may be called.
///
/// A name that resolves to this machine is refused even where loopback may be called, unless it says so itself:
/// whoever answers for a name could else reach what listens here.
pub(super) async fn addresses_of(
    origin: &Origin,
    addresses: &Addresses,
    resolver: &dyn Resolve,
    turn: OwnedSemaphorePermit,
) -> Result<Vec<SocketAddr>, NotConnected> {
    let refused = |refused: Refused| NotConnected::Refused(refused.to_string());
    let name = match &origin.host {
        Host::Ip(ip) => {
            addresses.check(*ip).map_err(refused)?;
            return Ok(vec![SocketAddr::new(*ip, origin.port)]);
        }
        Host::Name(name) => name,
    };
    let found = resolver
        .resolve(name, turn)
        .await
        .map_err(|error| Error::Dns(dns_cause(&error)))?;
    if found.is_empty() {
        return Err(Error::Dns("it has no address".to_owned()).into());
    }
    let addresses = if origin.host.is_loopback() {
        addresses.clone()
    } else {
        addresses.without_loopback()
    };
    let found = found.into_iter().map(|ip| SocketAddr::new(ip, origin.port));
    let mut allowed = addresses.filter(found).map_err(refused)?;
    allowed.truncate(ADDRESSES_MAX);
    Ok(allowed)
}

/// What the system says of a name, without its numbers.
fn dns_cause(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to lookup address information: ");
    text.map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// A connection to the first address that takes one. A slow address does not hold up the next.
pub(super) async fn open(addresses: Vec<SocketAddr>) -> Result<TcpStream, Error> {
    let mut waiting = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failed = None;
    loop {
        match waiting.next() {
            Some(address) => trying.push(TcpStream::connect(address)),
            None if trying.is_empty() => {
                return Err(failed.unwrap_or(Error::Unreachable("no address".to_owned())));
            }
            None => {}
        }
        let patience = match waiting.len() {
            0 => None,
            _ => Some(tokio::time::sleep(NEXT_ADDRESS_AFTER)),
        };
        match first(&mut trying, patience).await {
            Some(Ok(stream)) => {
                // Small requests must not wait for acknowledgements; without the option they are only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Err(error)) => failed = Some(not_connected(&error)),
            None => {}
        }
    }
}

/// The next attempt that ends, or nothing if patience runs out first.
async fn first<T>(
    trying: &mut FuturesUnordered<impl Future<Output = T>>,
    patience: Option<tokio::time::Sleep>,
) -> Option<T> {
    let mut patience = pin!(patience);
    poll_fn(|cx| {
        if let Poll::Ready(Some(ended)) = trying.poll_next_unpin(cx) {
            return Poll::Ready(Some(ended));
        }
        match patience.as_mut().as_pin_mut() {
            Some(patience) => patience.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

fn not_connected(error: &io::Error) -> Error {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the system has a word for everything, and a guest has three"
    )]
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        kind => Error::Unreachable(kind.to_string()),
    }
}

/// The connection as the scheme wants it.
pub(super) async fn secure(
    stream: TcpStream,
    origin: &Origin,
    tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
) -> Result<Box<dyn Stream>, Error> {
    match origin.scheme {
        Scheme::Http => Ok(Box::new(stream)),
        Scheme::Https => {
            let config = tls().map_err(Error::Internal)?;
            let connecting = TlsConnector::from(config).connect(server_name(&origin.host)?, stream);
            let secured = connecting.await.map_err(|error| tls_cause(&error))?;
            Ok(Box::new(secured))
        }
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Error> {
    match host {
        Host::Ip(IpAddr::V4(ip)) => Ok(ServerName::from(*ip)),
        Host::Ip(IpAddr::V6(ip)) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.to_string())
            .map_err(|_| Error::Certificate(format!("no certificate can name {name}"))),
    }
}

fn tls_cause(error: &io::Error) -> Error {
    let Some(cause) = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>())
    else {
        return Error::ConnectionTerminated;
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "TLS has many ways to fail, and a guest has words for three"
    )]
    match cause {
        rustls::Error::InvalidCertificate(why) => Error::Certificate(why.to_string()),
        rustls::Error::AlertReceived(alert) => Error::TlsAlert(format!("{alert:?}")),
        other => Error::Tls(other.to_string()),
    }
}
