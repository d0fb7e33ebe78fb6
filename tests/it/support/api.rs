//! The API over a plane in memory, without a socket, whose functions do what their names say.
//!
//! Wasm is not compiled here: [`Code`] takes a file for what its text says it is, and [`Behaviour`] runs a
//! function by its name (`echo`, `fails`, `waits`, …). What is under test is everything between the two.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use pelton::api::{self, Options};
use pelton::clock::Clock;
use pelton::execution::{Attempt, Outcome, Ran};
use pelton::model::{
    ContentType, Digest, Failure, JSON, LogLine, LogStream, Logs, Shape, Timestamp,
};
use pelton::observe::Metrics;
use pelton::registry::{self, CodeSource, Registry};
use pelton::runtime::{Prepared, Refused};
use pelton::scheduler::{self, Parts, Runner, Scheduler};
use pelton::shutdown::Tasks;
use pelton::store::Store;
use pelton::store::memory::{Disk, MemoryStore};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

/// The routes of an API, as one service.
pub(crate) type Routes = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The API and what stands behind it.
pub(crate) struct Api {
    pub(crate) router: Routes,
    pub(crate) management: Routes,
    pub(crate) scheduler: Scheduler,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    /// Every attempt that ran, in order.
    pub(crate) attempts: Arc<Mutex<Vec<Attempt>>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON; null where there is none.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header's text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The member of the body's object.
    #[track_caller]
    pub(crate) fn get(&self, member: &str) -> Value {
        self.json()[member].clone()
    }

    /// Itself, if the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// The code, if it is an error of this status.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(self.header("content-type"), "application/json");
        let body = self.json();
        assert!(
            body["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        body["error"].as_str().unwrap().to_owned()
    }
}

/// Whether work moves by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moves {
    Alone,
    ByHand,
}

impl Api {
    pub(crate) async fn new(moves: Moves) -> Self {
        Self::with(moves, Options::default()).await
    }

    pub(crate) async fn with(moves: Moves, options: Options) -> Self {
        let clock = Clock::manual(Timestamp(1_788_264_000_000));
        let tasks = Tasks::default();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&Disk::default()));
        let metrics = Metrics::default();
        let registry = Registry::open(
            registry::Options::default(),
            Arc::clone(&store),
            Arc::new(Code),
            clock.clone(),
            tasks.clone(),
        );
        let registry = registry.await.unwrap();
        let attempts = Arc::default();
        let parts = Parts {
            dice: pelton::model::Dice::system(),
            clock: clock.clone(),
            store: Arc::clone(&store),
            registry: registry.clone(),
            runner: Arc::new(Behaviour(Arc::clone(&attempts))),
            metrics: metrics.clone(),
            tasks,
        };
        let settings = scheduler::Options {
            manual: moves == Moves::ByHand,
            ..scheduler::Options::default()
        };
        let scheduler = Scheduler::start(settings, parts).await.unwrap();
        let state = api::State::new(
            registry,
            scheduler.clone(),
            metrics,
            Arc::clone(&store),
            options,
        );
        Self {
            router: Routes::new(api::router(Arc::clone(&state))),
            management: Routes::new(api::management_router(state)),
            scheduler,
            store,
            clock,
            attempts,
        }
    }

    /// The answer to a request as it stands.
    pub(crate) async fn raw(&self, request: Request<Body>) -> Answer {
        answer(self.router.clone(), request).await
    }

    /// The answer to a request to `localhost`, with a JSON body where there is one.
    pub(crate) async fn send(&self, method: &str, path: &str, body: impl Into<Said>) -> Answer {
        self.send_with(method, path, &[], body).await
    }

    /// The same, with further headers.
    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Said>,
    ) -> Answer {
        self.raw(request(method, path, headers, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, ()).await
    }

    /// Deploys a function whose attempts do what its name says.
    pub(crate) async fn deploy(&self, name: &str, spec: Value) {
        let deployed = self.upload(name, WASM).await;
        deployed.expect(201);
        let patched = self
            .send("PATCH", &format!("/v1/functions/{name}"), spec)
            .await;
        patched.expect(200);
    }

    /// Uploads a file.
    pub(crate) async fn upload(&self, name: &str, wasm: impl Into<Body>) -> Answer {
        let request = Request::put(format!("/v1/functions/{name}"))
            .header("host", "localhost")
            .header("content-type", "application/wasm")
            .body(wasm.into());
        self.raw(request.unwrap()).await
    }

    /// Queues a call and returns its id.
    pub(crate) async fn enqueue(&self, name: &str, input: Value) -> String {
        let call = serde_json::json!({ "input": input });
        let queued = self
            .send("POST", &format!("/v1/functions/{name}:enqueue"), call)
            .await;
        queued
            .expect(202)
            .get("executionId")
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Drains one execution of a function.
    pub(crate) async fn drain(&self, name: &str, options: impl Into<Said>) -> Answer {
        let path = format!("/v1/internal/functions/{name}:drain-once");
        self.send("POST", &path, options).await
    }

    /// An execution as it stands.
    pub(crate) async fn execution(&self, id: &str) -> Value {
        self.get(&format!("/v1/executions/{id}"))
            .await
            .expect(200)
            .json()
    }
}

/// A file that [`Code`] takes for wasm.
pub(crate) const WASM: &str = "\0asm and more";

/// The body of a request.
pub(crate) enum Said {
    Nothing,
    Json(Value),
    Text(&'static str),
}

impl From<()> for Said {
    fn from((): ()) -> Self {
        Self::Nothing
    }
}

impl From<Value> for Said {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl From<&'static str> for Said {
    fn from(text: &'static str) -> Self {
        Self::Text(text)
    }
}

/// A request to `localhost`; a body is said to be JSON unless `headers` say otherwise.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Said>,
) -> Request<Body> {
    let method: Method = method.parse().unwrap();
    let mut request = Request::builder().method(method).uri(path);
    let has = |wanted: &str| headers.iter().any(|(name, _)| *name == wanted);
    if !has("host") {
        request = request.header("host", "localhost");
    }
    let body = match body.into() {
        Said::Nothing => None,
        Said::Json(value) => Some(value.to_string()),
        Said::Text(text) => Some(text.to_owned()),
    };
    if body.is_some() && !has("content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map_or_else(Body::empty, Body::from);
    request.body(body).unwrap()
}

/// What a router answers.
pub(crate) async fn answer(router: Routes, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// Takes a file for what its text says.
struct Code;

#[async_trait]
impl CodeSource for Code {
    async fn prepare(&self, wasm: Bytes) -> Result<Prepared, Refused> {
        let said = |text: &str| text.to_owned();
        match &*wasm {
            b"imports" => Err(Refused::MissingImports {
                message: said("2 imports are provided by nobody"),
                imports: vec![said("env::secret"), said("env::other")],
            }),
            b"middleware" => Err(Refused::Unsupported(said(
                "it exports nothing that runs here",
            ))),
            b"bomb" => Err(Refused::TooExpensive(said(
                "it took more than 120 s to compile",
            ))),
            b"busy" => Err(Refused::Busy(said(
                "8 uploads wait for the compiler already",
            ))),
            b"broken" => Err(Refused::Failed(said("/secret/path: disk full"))),
            b"panic" => panic!("the code source panicked at /secret/path"),
            bytes if bytes.starts_with(b"\0asm") => Ok(Prepared {
                digest: digest_of(bytes),
                shape: Shape::Handler,
                size: bytes.len() as u64,
                outgoing: None,
            }),
            _ => Err(Refused::NotWasm(said(
                "the file does not begin as wasm does",
            ))),
        }
    }

    fn known(&self, digest: &Digest) -> Option<Prepared> {
        (*digest == digest_of(WASM.as_bytes())).then_some(Prepared {
            digest: *digest,
            shape: Shape::Handler,
            size: WASM.len() as u64,
            outgoing: None,
        })
    }

    fn check_url(&self, url: &str) -> Result<(), String> {
        if url.starts_with("http://") {
            Ok(())
        } else {
            Err("must begin with http://".to_owned())
        }
    }
}

/// A digest that tells the files of these tests apart.
fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; 32];
    for (i, byte) in bytes.iter().enumerate() {
        digest[i % 32] ^= byte;
    }
    Digest::from_bytes(digest)
}

/// Runs a function by its name.
struct Behaviour(Arc<Mutex<Vec<Attempt>>>);

#[async_trait]
impl Runner for Behaviour {
    async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        self.0.lock().unwrap().push(attempt.clone());
        let success = |content_type, body| Outcome::Success { content_type, body };
        let outcome = match attempt.function.as_str() {
            "fails" => Outcome::Error(Failure::new("OUT_OF_STOCK", "no \"widgets\" left")),
            "retries" => Outcome::Retry(Failure::new("BUSY", "try again")),
            "requeues" => Outcome::Requeue(Some(60_000)),
            "waits" => {
                tokio::select! {
                    () = stop.cancelled() => Outcome::Interrupted,
                    () = tokio::time::sleep(attempt.time_limit) => {
                        Outcome::TimedOut(Failure::new("TIMEOUT", "too slow"))
                    }
                }
            }
            "text" => success(
                Some(ContentType("text/plain".into())),
                Bytes::from_static(b"a \"text\""),
            ),
            "binary" => success(
                Some(ContentType("image/png".into())),
                Bytes::from_static(&[0xff, 0, 1]),
            ),
            _ => success(Some(JSON), attempt.input.body.clone()),
        };
        let logs = Logs {
            lines: vec![LogLine {
                stream: LogStream::Stderr,
                text: format!("attempt {}", attempt.number),
            }],
            truncated: false,
        };
        Ran {
            logs,
            cold_start: attempt.number == 1,
            init_duration: Some(Duration::from_millis(3)),
            ..Ran::bare(outcome)
        }
    }
}
