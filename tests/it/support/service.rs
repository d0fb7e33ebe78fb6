//! A scripted service on loopback, as POOL functions call them: answers at once or when it is told to, and
//! remembers every call.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::world::within;

/// Where nobody listens: the port is one that the system gives to no one.
pub(crate) const UNREACHABLE: &str = "http://127.0.0.1:9/invoke";

/// One call as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Seen {
    /// A header's text; empty where there is none.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// What is answered: status, headers, body.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
}

impl Reply {
    /// 200 with JSON.
    pub(crate) fn ok(body: &Value) -> Self {
        Self::status(200, body)
    }

    /// Another status with JSON.
    pub(crate) fn status(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json")],
            body: body.to_string().into(),
        }
    }

    /// With a header more.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A failure that says its own code.
    pub(crate) fn failure(status: u16, code: &str, message: &str) -> Self {
        let error = json!({"error": {"code": code, "message": message}});
        Self::status(status, &error)
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The service; gone with this value.
pub(crate) struct Service {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    script: Box<Script>,
    seen: watch::Sender<Vec<Seen>>,
    /// Every answer takes a permit.
    permits: Semaphore,
    under_way: watch::Sender<usize>,
    most_at_once: AtomicUsize,
}

/// Counts a call as long as it is under way: a caller that hangs up drops it.
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.under_way.send_modify(|count| *count += 1);
        let now = *shared.under_way.borrow();
        shared.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

impl Service {
    /// Answers at once, as the script says.
    pub(crate) async fn answering(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(script, Semaphore::MAX_PERMITS).await
    }

    /// Answers as the script says, but only as often as it was released.
    pub(crate) async fn held(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(script, 0).await
    }

    async fn start(
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        permits: usize,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/invoke", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: watch::Sender::default(),
            permits: Semaphore::new(permits),
            under_way: watch::Sender::default(),
            most_at_once: AtomicUsize::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            url,
            shared,
            _accepting: accepting,
        }
    }

    /// Lets so many answers go.
    pub(crate) fn release(&self, answers: usize) {
        self.shared.permits.add_permits(answers);
    }

    /// The calls so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// The call with this number, once it is here.
    pub(crate) async fn arrived(&self, number: usize) -> Seen {
        let mut seen = self.shared.seen.subscribe();
        let seen = within("a call", seen.wait_for(|seen| seen.len() >= number)).await;
        seen.unwrap()[number - 1].clone()
    }

    /// The call with this input, once it is here.
    pub(crate) async fn asked(&self, input: &Value) -> Seen {
        let find = |seen: &[Seen]| {
            seen.iter()
                .find(|call| call.body["input"] == *input)
                .cloned()
        };
        let mut seen = self.shared.seen.subscribe();
        let seen = within("a call", seen.wait_for(|seen| find(seen).is_some())).await;
        find(&seen.unwrap()).unwrap()
    }

    /// Returns once no call is under way, by an answer or because its caller hung up.
    pub(crate) async fn idle(&self) {
        let mut under_way = self.shared.under_way.subscribe();
        let idle = within("no call under way", under_way.wait_for(|count| *count == 0)).await;
        drop(idle.unwrap());
    }

    /// The most calls that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // A caller that hangs up is part of what is tested.
            let _ = connection.await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let _under_way = UnderWay::new(&shared);
    let mut seen = Seen {
        number: 0,
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap(),
    };
    shared.seen.send_modify(|all| {
        seen.number = all.len() + 1;
        all.push(seen.clone());
    });
    if let Ok(permit) = shared.permits.acquire().await {
        permit.forget();
    }
    let reply = (shared.script)(&seen);
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
    for (name, value) in reply.headers {
        response.headers_mut().append(name, value.parse().unwrap());
    }
    Ok(response)
}
