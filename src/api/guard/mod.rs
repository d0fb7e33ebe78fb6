//! What a request has to satisfy before any handler sees it: a `Host` that is this server's, and no foreign
//! `Origin`. A web page in the operator's browser must not reach a plane on loopback, neither by a plain
//! cross-site request nor by a name that suddenly resolves to 127.0.0.1.
//!
//! **Invariant:** every path is guarded but those under `/fn/`, which are the functions' own. (Requests for a
//! host name that a function owns never come here: see [`super::raw`].)

mod answers;
mod body;
mod budget;
mod framing;
mod host;
mod reading;

pub(super) use answers::hold;
pub(super) use body::{
    Unread, body, content_type, json, optional_json, require_json, stated_length,
};
pub(super) use budget::{Budget, NoRoom, Room};
pub(super) use framing::Framed;
pub(super) use host::Hosts;
pub(super) use reading::{Bounds, read, within};

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderValue, Version};
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use tower::{Layer, Service};

use super::error::Error;

/// Puts the guard in front of a service.
#[derive(Clone)]
pub(super) struct GuardLayer(Arc<Hosts>);

impl GuardLayer {
    pub(super) fn new(hosts: Arc<Hosts>) -> Self {
        Self(hosts)
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            hosts: Arc::clone(&self.0),
        }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: S,
    hosts: Arc<Hosts>,
}

impl<S: Service<Request, Response = Response>> Service<Request> for Guard<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match check(&self.hosts, &request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(error) => Either::Left(ready(Ok(error.into_response()))),
        }
    }
}

fn check(hosts: &Hosts, request: &Request) -> Result<(), Error> {
    let path = request.uri().path();
    if path == "/fn" || path.starts_with("/fn/") {
        return Ok(());
    }
    // The target of an absolute request (and of every HTTP/2 request) and the header: whichever a proxy or
    // a client goes by, it has to be ours.
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let mut headers = request.headers().get_all(HOST).iter();
    let header = headers.next().map(text).transpose()?;
    if headers.next().is_some() {
        return Err(Error::bad_request("there are several Host headers"));
    }
    for host in [target, header].into_iter().flatten() {
        if !hosts.answers(host) {
            return Err(Error::host_refused(host));
        }
    }
    let Some(host) = target.or(header) else {
        // No browser leaves the name out, and HTTP/1.0 may.
        return if request.version() <= Version::HTTP_10 {
            check_origin(hosts, request, None)
        } else {
            Err(Error::bad_request("the request has no Host header"))
        };
    };
    check_origin(hosts, request, Some(host))
}

fn check_origin(hosts: &Hosts, request: &Request, host: Option<&str>) -> Result<(), Error> {
    for origin in request.headers().get_all(ORIGIN) {
        let origin = text(origin)?;
        if !hosts.admits_origin(origin, host) {
            return Err(Error::origin_refused(origin));
        }
    }
    Ok(())
}

fn text(value: &HeaderValue) -> Result<&str, Error> {
    value
        .to_str()
        .map_err(|_| Error::bad_request("Host and Origin are visible ASCII"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;

    use super::*;

    fn hosts() -> Hosts {
        let listen = ["192.0.2.7:8080".parse().unwrap()];
        Hosts::new(
            &listen,
            &["plane.example".to_owned(), "other:99".to_owned()],
        )
    }

    /// The status that a GET with these headers gets, 200 where the guard lets it pass.
    fn status(target: &str, headers: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        match check(&hosts(), &request) {
            Ok(()) => StatusCode::OK,
            Err(error) => error.into_response().status(),
        }
    }

    #[test]
    fn hosts_that_are_this_server_are_answered() {
        for host in [
            "localhost",
            "LocalHost:1",
            "localhost.",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:80",
            "192.0.2.7:8080",
            "PLANE.example:443",
            "plane.example.",
            "other:99",
        ] {
            assert_eq!(status("/v1/functions", &[("host", host)]), 200, "{host}");
        }
    }

    #[test]
    fn hosts_that_are_not_are_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.localhost.",
            "127.0.0.1.nip.io",
            "192.0.2.8",
            "0x7f.1",
            "2130706433",
            "[::2]",
            "::1",
            "[::1",
            "[::1]x",
            "other",
            "other:98",
            "user@localhost",
            "localhost:80:80",
            "localhost:x",
            "",
            ".",
            ":80",
        ] {
            assert_eq!(status("/v1/functions", &[("host", host)]), 403, "{host}");
        }
    }

    #[test]
    fn the_target_and_the_header_are_both_looked_at() {
        let local = ("host", "localhost");
        assert_eq!(status("http://evil.example/v1/functions", &[local]), 403);
        assert_eq!(
            status("http://localhost/v1/functions", &[("host", "evil.example")]),
            403
        );
        assert_eq!(status("http://localhost/v1/functions", &[]), 200);
        assert_eq!(status("/v1/functions", &[local, local]), 400);
        assert_eq!(status("/v1/functions", &[]), 400);
    }

    #[test]
    fn http_1_0_needs_no_host() {
        let mut request = Request::builder().uri("/v1/functions");
        request = request.version(Version::HTTP_10);
        let request = request.body(Body::empty()).unwrap();
        assert!(check(&hosts(), &request).is_ok());
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        let with = |host, origin| status("/v1/functions", &[("host", host), ("origin", origin)]);
        assert_eq!(with("localhost:8080", "http://localhost:8080"), 200);
        assert_eq!(with("LOCALHOST:8080", "http://localhost.:8080"), 200);
        assert_eq!(with("localhost", "http://localhost"), 200);
        assert_eq!(with("plane.example", "https://plane.example"), 200);
        assert_eq!(with("[::1]:8080", "http://[::1]:8080"), 200);
        // A configured host may hold pages that use this server under another name.
        assert_eq!(with("localhost:8080", "https://plane.example"), 200);

        assert_eq!(with("localhost:8080", "null"), 403);
        assert_eq!(with("localhost:8080", "http://evil.example"), 403);
        assert_eq!(with("localhost:8080", "http://localhost:3000"), 403);
        assert_eq!(with("localhost:8080", "http://localhost"), 403);
        assert_eq!(with("localhost:8080", "http://127.0.0.1:8080"), 403);
        assert_eq!(with("localhost:8080", "localhost:8080"), 403);
        assert_eq!(with("localhost:8080", "file://localhost:8080"), 403);
        assert_eq!(with("localhost:8080", ""), 403);
    }

    #[test]
    fn functions_answer_under_any_name() {
        assert_eq!(status("/fn/shop/cart", &[("host", "shop.example")]), 200);
        assert_eq!(status("/fnord", &[("host", "shop.example")]), 403);
        for path in ["/v1/x", "/console", "/docs", "/actuator/health", "/"] {
            assert_eq!(status(path, &[("host", "shop.example")]), 403, "{path}");
        }
    }
}
