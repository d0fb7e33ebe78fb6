//! The HTTP client of the commands: paths, bodies, and answers turned into results.
//!
//! **Invariant:** talks to the given server and nobody else: no proxy of the environment, no redirect.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, Url};

use super::exit::{Answered, Failure};
use super::wire::{Problem, Recognised};

/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without a byte of an answer: longer than the longest synchronous call (300 s) and than a queue of
/// uploads in front of the compiler.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Characters of an answer that is no error body of ours, as they are shown.
const EXCERPT_CHARS: usize = 200;

/// A cheap handle on one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status: 2xx.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON of this form, if it is one of Pelton's.
    ///
    /// # Errors
    /// [`Failure::Garbled`] if it is none.
    pub(crate) fn read<T: Recognised>(&self) -> Result<T, Failure> {
        let read: T = serde_json::from_slice(&self.body).map_err(|error| {
            Failure::Garbled(format!(
                "the server's answer cannot be read ({error}): is it a Pelton of another version?"
            ))
        })?;
        if read.is_recognised() {
            Ok(read)
        } else {
            Err(self.foreign())
        }
    }

    /// Checks that there is nothing to read.
    ///
    /// # Errors
    /// [`Failure::Garbled`] if there is.
    pub(crate) fn expect_empty(&self) -> Result<(), Failure> {
        if self.status == 204 {
            Ok(())
        } else {
            Err(self.foreign())
        }
    }

    fn foreign(&self) -> Failure {
        let status = self.status;
        let excerpt = excerpt(&self.body);
        Failure::Garbled(format!(
            "what answered does not look like Pelton ({status}): {excerpt:?}"
        ))
    }
}

impl Client {
    /// A client for the server at this URL.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the URL is none.
    pub(crate) fn new(server: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::Usage(format!(
                "--server {server:?} {why}: write it like http://127.0.0.1:8080"
            ))
        };
        let base = Url::parse(server).map_err(|_| wrong("is no URL"))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(wrong("is neither http nor https"));
        }
        // A second installation in one process (the demo's) finds the first one's provider, which is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .user_agent(concat!("pelton/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { http, base })
    }

    /// A request for the path of these segments, each encoded as one.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        self.http.request(method, url)
    }

    /// GETs a document.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub(crate) async fn get(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<Answer, Failure> {
        self.send(self.request(Method::GET, segments).query(query))
            .await
    }

    /// POSTs JSON.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub(crate) async fn post(
        &self,
        segments: &[&str],
        headers: HeaderMap,
        json: impl Into<reqwest::Body>,
    ) -> Result<Answer, Failure> {
        let request = self
            .request(Method::POST, segments)
            .headers(headers)
            .header(CONTENT_TYPE, "application/json")
            .body(json);
        self.send(request).await
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] without an answer, [`Failure::Answered`] for any status but 2xx.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let answer = self.begin(request).await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await;
        let body = body.map_err(|error| self.unreachable(&error))?;
        Ok(Answer { status, body })
    }

    /// Sends a request whose answer may be long, and reads no more than its head.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub(crate) async fn begin(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await;
        let body = body.map_err(|error| self.unreachable(&error))?;
        Err(Failure::Answered(Box::new(Answered {
            status: status.as_u16(),
            problem: problem_of(&body),
            hint: None,
        })))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::Unreachable {
            server: self.base.to_string(),
            cause: cause_of(error),
        }
    }
}

/// The innermost reason that an error gives; reqwest's own words only repeat the URL.
pub(crate) fn cause_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        format!("it took too long ({cause})")
    } else {
        cause.to_string()
    }
}

fn problem_of(body: &[u8]) -> Problem {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if !problem.error.is_empty() => problem,
        _ => Problem {
            error: "UNEXPECTED_ANSWER".to_owned(),
            message: format!("this does not look like Pelton: {:?}", excerpt(body)),
            details: serde_json::Value::Null,
        },
    }
}

/// The beginning of an answer, for people.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().take(EXCERPT_CHARS).collect()
}

/// `function:verb`, the last segment of an action's path.
pub(crate) fn action(function: &str, verb: &str) -> String {
    format!("{function}:{verb}")
}
