//! A real plane with the same HTTP function in both versions, and clients that speak to it over connections.
#![expect(
    clippy::disallowed_methods,
    reason = "what a test starts beside itself ends with its runtime"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pelton::app::{App, CompilerProgram};
use pelton::config::{Config, Options};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::web_guests::{http02, http03};
use super::world::within;

/// How long an upload is waited for.
const COMPILED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A plane with both versions of the function.
pub(crate) struct Site {
    pub(crate) app: App,
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let site = Self::on(tempfile::tempdir().unwrap()).await;
        for (name, wasm) in [("http02", http02()), ("http03", http03())] {
            let request = request(Method::PUT, &format!("/v1/functions/{name}"))
                .header("content-type", "application/wasm")
                .body(full(wasm));
            // Compiled by a child that leaves everything else the way: beside other tests that takes a while.
            let mut sender = site.http1().await;
            let uploaded =
                tokio::time::timeout(COMPILED_WITHIN, sender.send_request(request.unwrap()));
            let response = uploaded.await.expect("an uploaded function").unwrap();
            assert_eq!(response.status(), 201);
        }
        site
    }

    async fn on(folder: tempfile::TempDir) -> Self {
        let options = Options {
            listen: "127.0.0.1:0".to_owned(),
            management_listen: "127.0.0.1:0".to_owned(),
            data_dir: folder.path().to_owned(),
            ..Options::default()
        };
        let compiler = CompilerProgram::At(PathBuf::from(env!("CARGO_BIN_EXE_pelton")));
        let app = App::start_with(Config::try_from(options).unwrap(), compiler);
        Self {
            app: app.await.unwrap(),
            folder,
        }
    }

    /// The same, after a restart.
    pub(crate) async fn restarted(self) -> Self {
        self.app.stop().await.unwrap();
        Self::on(self.folder).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.app.addr()
    }

    /// A connection that speaks HTTP/1.1.
    pub(crate) async fn http1(&self) -> http1::SendRequest<Body> {
        let stream = TcpStream::connect(self.addr()).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A connection that speaks HTTP/2 from its first byte.
    pub(crate) async fn http2(&self) -> http2::SendRequest<Body> {
        let stream = TcpStream::connect(self.addr()).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// The response on a connection of its own.
    pub(crate) async fn once(&self, request: Request<Body>) -> Response<Incoming> {
        let mut sender = self.http1().await;
        within("a head", sender.send_request(request))
            .await
            .unwrap()
    }

    pub(crate) async fn execution(&self, id: &str) -> Value {
        let request = request(Method::GET, &format!("/v1/executions/{id}")).body(empty());
        let response = self.once(request.unwrap()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// The execution once it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        within("an end", async {
            loop {
                let execution = self.execution(id).await;
                if !["queued", "running"].contains(&execution["status"].as_str().unwrap()) {
                    return execution;
                }
            }
        })
        .await
    }
}

pub(crate) fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
}

pub(crate) fn empty() -> Body {
    Empty::new().boxed()
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

pub(crate) fn id_of<B>(response: &Response<B>) -> String {
    response.headers()["x-execution-id"]
        .to_str()
        .unwrap()
        .to_owned()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = within("a body", response.into_body().collect())
        .await
        .unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// A connection on which these bytes were sent as they are.
pub(crate) async fn sent(site: &Site, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(site.addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Reads until this was said, and returns all of it.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    within(end, async {
        while !String::from_utf8_lossy(&answer).contains(end) {
            let read = stream.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        }
    })
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) async fn raw(site: &Site, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.addr()).await.unwrap();
    // Whoever refuses a long head may close before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The function's execution that runs, once one does.
pub(crate) async fn running(site: &Site, name: &str) -> String {
    within("a running execution", async {
        loop {
            let path = format!("/v1/executions?status=running&function={name}");
            let response = site
                .once(request(Method::GET, &path).body(empty()).unwrap())
                .await;
            let list: Value = serde_json::from_str(&text(response).await).unwrap();
            if let Some(id) = list["items"][0]["executionId"].as_str() {
                return id.to_owned();
            }
        }
    })
    .await
}
