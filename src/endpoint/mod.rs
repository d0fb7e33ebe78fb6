//! POOL: a function that is a service behind a URL. POSTs attempts to it and reads outcomes.
//!
//! **Invariant:** no connection is made to an address that was not checked, and none serves two functions;
//! proxies of the environment are ignored, redirects are not followed, and no answer is read beyond its limit.

mod clients;
mod request;
mod resolver;
mod response;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{Code, Failure, limits};
use crate::net::{Addresses, Refused};
use clients::Clients;

pub use crate::net::Loopback;

/// The code of whatever goes wrong between Pelton and a service that said no code of its own.
const POOL_ERROR: &str = "POOL_ERROR";

/// Settings of the endpoint.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether services on this machine's loopback may be called.
    pub loopback: Loopback,
    /// Ranges that may be called although they are private or otherwise special.
    pub ranges_allowed: Vec<IpNet>,
    /// Time to connect, in ms; the attempt's own limit may be shorter.
    pub connect_timeout_ms: u64,
    /// Largest answer that is read, in bytes; the function's `outputBytesMax` may be smaller.
    pub response_bytes_max: u64,
    /// Functions whose connections are kept, at most; the least recently called ones give way.
    pub functions_kept_max: u64,
    /// Connections kept open for one function while it is not called, at most.
    pub idle_connections_max: usize,
    /// How long such a connection is kept, in ms.
    pub idle_timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loopback: Loopback::Refused,
            ranges_allowed: Vec::new(),
            connect_timeout_ms: 5_000,
            response_bytes_max: 16 * 1024 * 1024,
            functions_kept_max: 256,
            idle_connections_max: 16,
            idle_timeout_ms: 30_000,
        }
    }
}

/// A cheap handle on the HTTP clients of all POOL functions.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    addresses: Addresses,
    clients: Clients,
}

impl Endpoint {
    /// An endpoint under these settings. Opens nothing yet.
    pub fn new(options: Options) -> Self {
        let addresses = Addresses::new(options.loopback, options.ranges_allowed.clone());
        Self {
            inner: Arc::new(Inner {
                clients: Clients::new(&options, addresses.clone()),
                options,
                addresses,
            }),
        }
    }

    /// Checks what can be checked of a URL when a function is registered. Names are resolved at every
    /// connect, not here: what they mean may change.
    ///
    /// # Errors
    /// What is wrong with it, to stand after the field's name.
    pub fn check_url(&self, url: &str) -> Result<(), String> {
        self.parse(url).map(drop)
    }

    /// Runs one attempt: POSTs it and waits for the answer, the attempt's limit or `stop`.
    ///
    /// Headers whose value HTTP cannot carry (a trace id with a line break) are left out.
    pub async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ran::bare(Outcome::Interrupted),
            ran = tokio::time::timeout(attempt.time_limit, self.exchange(attempt)) => {
                ran.unwrap_or_else(|_| Ran::bare(Outcome::TimedOut(timed_out(attempt))))
            }
        }
    }

    async fn exchange(&self, attempt: &Attempt) -> Ran {
        let Code::Endpoint { url } = &attempt.version.code else {
            let cause = "a version without an endpointUrl was sent to the endpoint";
            return Ran::bare(Outcome::Fault(cause.to_owned()));
        };
        let url = match self.parse(url) {
            Ok(url) => url,
            Err(complaint) => {
                let complaint = format!("endpointUrl: {complaint}");
                return Ran::bare(Outcome::Error(Failure::new(POOL_ERROR, complaint)));
            }
        };
        let client = match self.inner.clients.of(&attempt.function) {
            Ok(client) => client,
            Err(cause) => return Ran::bare(Outcome::Fault(cause)),
        };
        let body = match request::body(attempt) {
            Ok(body) => body,
            Err(cause) => return Ran::bare(Outcome::Fault(cause)),
        };
        let service = origin(&url);
        let sending = client
            .post(url)
            .headers(request::headers(attempt))
            .body(body)
            .send();
        match sending.await {
            Ok(answer) => self.read(attempt, answer).await,
            Err(error) => Ran::bare(unreachable(&service, &error)),
        }
    }

    async fn read(&self, attempt: &Attempt, answer: reqwest::Response) -> Ran {
        let start = response::start_of(answer.headers());
        let limit = response::Limit::lesser(
            attempt.version.spec.output_bytes_max,
            self.inner.options.response_bytes_max,
        );
        Ran {
            cold_start: start.is_cold,
            init_duration: start.init_duration,
            ..Ran::bare(response::outcome(answer, limit).await)
        }
    }

    fn parse(&self, url: &str) -> Result<Url, String> {
        let bytes_max = limits::TEXT_BYTES_MAX;
        if url.len() > bytes_max {
            return Err(format!("is longer than {bytes_max} bytes"));
        }
        let url = Url::parse(url).map_err(|error| {
            format!("is not an absolute URL such as https://example.org/run: {error}")
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(format!("starts with {scheme}: use http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let complaint = "contains credentials, which would show up wherever the URL does: \
                             take them out and let the service check its callers another way";
            return Err(complaint.to_owned());
        }
        match resolver::literal(&url) {
            Some(ip) => self
                .inner
                .addresses
                .check(ip)
                .map_err(|it| it.to_string())?,
            None if url.host_str().is_none_or(str::is_empty) => {
                return Err("names no host".to_owned());
            }
            None => {}
        }
        Ok(url)
    }
}

/// No answer at all. An address that may not be called will not be allowed next time either; everything
/// else may pass.
fn unreachable(service: &str, error: &reqwest::Error) -> Outcome {
    if let Some(refused) = find_refused(error) {
        return Outcome::Error(Failure::new(POOL_ERROR, refused.to_string()));
    }
    let cause = chain(error);
    let message = format!("the service at {service} gave no answer: {cause}");
    Outcome::Retry(Failure::new(POOL_ERROR, message))
}

fn find_refused<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refused> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(refused);
        }
        next = error.source();
    }
    None
}

/// The causes of an error, outermost first. The client's own outermost sentence is left out: it only
/// repeats the URL, whose path and query may be nobody's business.
fn chain(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if !causes.iter().any(|known| known.contains(&cause)) {
            causes.push(cause);
        }
        next = error.source();
    }
    if causes.is_empty() {
        return if error.is_timeout() {
            "timed out"
        } else {
            "the connection failed"
        }
        .to_owned();
    }
    causes.join(": ")
}

fn timed_out(attempt: &Attempt) -> Failure {
    let limit_ms = attempt.time_limit.as_millis();
    Failure::new(
        "POOL_TIMEOUT",
        format!(
            "the service gave no complete answer after {limit_ms} ms: raise timeoutMs, or X-Timeout-Ms of a call that waits"
        ),
    )
}

/// Scheme, host and port: what may be shown of a URL.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}
