//! What a function is sent: the caller's request without what was meant for us alone, and with who asks.
//!
//! **Invariant:** a function can believe what `X-Forwarded-…` says about the connection that we took: what a
//! caller says of itself is passed on only if the caller is a proxy that is trusted.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use super::target::Target;
use crate::api::error::{Error, quoted};
use crate::api::options::Options;

/// Who is at the other end of a connection; the listener puts it into every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What concerns one connection only, beside what `Connection` lists.
pub(super) static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("http2-settings"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What only a proxy that is trusted may say.
static FORWARDING: [HeaderName; 7] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PREFIX,
    X_FORWARDED_PROTO,
    X_REAL_IP,
];

/// The authority of a request that names none, which HTTP/1.0 allows.
const NAMELESS: Authority = Authority::from_static("localhost");

/// The request as the function gets it.
///
/// # Errors
/// 400 where it is not clear what was asked, 405 for CONNECT.
pub(super) fn request(
    options: &Options,
    target: &Target,
    request: Request,
) -> Result<Request, Error> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(Error::method_not_allowed(None));
    }
    let authority = authority(&parts.uri, &parts.headers, parts.version)?;
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
    let trusted = peer.is_none_or(|address| is_trusted(options, address));
    remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(EXPECT);
    if !trusted {
        remove(&mut parts.headers, &FORWARDING);
    }
    let scheme = forward(&mut parts.headers, &authority, target, peer);
    parts.uri = uri(scheme, authority, &target.path)?;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, Body::new(body)))
}

/// Says who asked for what, and returns the scheme that the caller used.
fn forward(
    headers: &mut HeaderMap,
    authority: &Authority,
    target: &Target,
    peer: Option<IpAddr>,
) -> Scheme {
    if let Some(peer) = peer {
        append(headers, X_FORWARDED_FOR, &peer.to_canonical().to_string());
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if let Some(prefix) = &target.prefix {
        // A proxy that is trusted may have taken off a part of its own.
        let before = headers.get(X_FORWARDED_PREFIX);
        let before = before.and_then(|before| before.to_str().ok()).unwrap_or("");
        let whole = format!("{}{prefix}", before.trim_end_matches('/'));
        if let Ok(whole) = HeaderValue::try_from(whole) {
            headers.insert(X_FORWARDED_PREFIX, whole);
        }
    }
    let secure = headers
        .get(X_FORWARDED_PROTO)
        .is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let (scheme, word) = match secure {
        true => (Scheme::HTTPS, "https"),
        false => (Scheme::HTTP, "http"),
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(word));
    scheme
}

/// Adds to a list that stands in one header.
fn append(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let mut list = String::new();
    for value in headers.get_all(&name) {
        if let Ok(value) = value.to_str() {
            list.push_str(value);
            list.push_str(", ");
        }
    }
    list.push_str(item);
    if let Ok(list) = HeaderValue::try_from(list) {
        headers.insert(name, list);
    }
}

fn is_trusted(options: &Options, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let mut ranges = options.trusted_proxies.iter();
    address.is_loopback() || ranges.any(|range| range.contains(&address))
}

/// Whom the request is for. More than one answer is none: somebody on the way may have read another.
fn authority(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Authority, Error> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Error::bad_request("there are several Host headers"));
    }
    let host = host.map(|host| {
        let text = host.to_str().ok();
        let parsed = text.and_then(|text| text.parse::<Authority>().ok());
        let named = parsed.filter(|authority| !authority.as_str().contains('@'));
        named.ok_or_else(|| {
            let shown = quoted(&String::from_utf8_lossy(host.as_bytes()));
            Error::bad_request(format!("the Host header {shown} is none"))
        })
    });
    let host = host.transpose()?;
    match (uri.authority(), host) {
        (Some(target), Some(host)) if *target != host => Err(Error::bad_request(
            "the target and the Host header name different hosts",
        )),
        (Some(target), _) if target.as_str().contains('@') => Err(Error::bad_request(
            "the target of a request has no user name in it",
        )),
        (Some(target), _) => Ok(target.clone()),
        (None, Some(host)) => Ok(host),
        (None, None) if version <= Version::HTTP_10 => Ok(NAMELESS),
        (None, None) => Err(Error::bad_request("the request has no Host header")),
    }
}

fn uri(scheme: Scheme, authority: Authority, path: &str) -> Result<Uri, Error> {
    let path = PathAndQuery::try_from(path)
        .map_err(|_| Error::bad_request("the target of the request is no path"))?;
    let built = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build();
    built.map_err(|_| Error::bad_request("the target of the request is no path"))
}

/// Removes what concerns this connection only.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in &listed {
        headers.remove(name);
    }
    remove(headers, &HOP_BY_HOP);
}

/// Removes all of these. Most messages have none, and to look at what a message has costs less than to look up each.
pub(super) fn remove(headers: &mut HeaderMap, names: &[HeaderName]) {
    if headers.keys().any(|name| names.contains(name)) {
        for name in names {
            headers.remove(name);
        }
    }
}
