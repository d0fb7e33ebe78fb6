//! Functions over real connections: HTTP/1.1 and HTTP/2, bodies without end, clients that leave, heads that no
//! server should take.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pelton::app::{App, CompilerProgram};
use pelton::config::{Config, Options};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::web_guests::{http02, http03};
use crate::support::world::within;

const BOTH: [&str; 2] = ["http02", "http03"];

type Body = BoxBody<Bytes, Infallible>;

/// A plane with both versions of the function.
struct Site {
    app: App,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            listen: "127.0.0.1:0".to_owned(),
            management_listen: "127.0.0.1:0".to_owned(),
            data_dir: folder.path().to_owned(),
            ..Options::default()
        };
        let compiler = CompilerProgram::At(PathBuf::from(env!("CARGO_BIN_EXE_pelton")));
        let app = App::start_with(Config::try_from(options).unwrap(), compiler);
        let site = Self {
            app: app.await.unwrap(),
            _folder: folder,
        };
        for (name, wasm) in [("http02", http02()), ("http03", http03())] {
            let request = request(Method::PUT, &format!("/v1/functions/{name}"))
                .header("content-type", "application/wasm")
                .body(full(wasm));
            let response = site.once(request.unwrap()).await;
            assert_eq!(response.status(), 201);
        }
        site
    }

    fn addr(&self) -> SocketAddr {
        self.app.addr()
    }

    /// A connection that speaks HTTP/1.1.
    async fn http1(&self) -> http1::SendRequest<Body> {
        let stream = TcpStream::connect(self.addr()).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A connection that speaks HTTP/2 from its first byte.
    async fn http2(&self) -> http2::SendRequest<Body> {
        let stream = TcpStream::connect(self.addr()).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// The response on a connection of its own.
    async fn once(&self, request: Request<Body>) -> Response<Incoming> {
        let mut sender = self.http1().await;
        within("a head", sender.send_request(request))
            .await
            .unwrap()
    }

    async fn execution(&self, id: &str) -> Value {
        let request = request(Method::GET, &format!("/v1/executions/{id}")).body(empty());
        let response = self.once(request.unwrap()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// The execution once it has ended.
    async fn ended(&self, id: &str) -> Value {
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

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
}

fn empty() -> Body {
    Empty::new().boxed()
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

fn id_of<B>(response: &Response<B>) -> String {
    response.headers()["x-execution-id"]
        .to_str()
        .unwrap()
        .to_owned()
}

async fn text(response: Response<Incoming>) -> String {
    let body = within("a body", response.into_body().collect())
        .await
        .unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// Sends bytes as they are and reads until the other side closes.
async fn raw(site: &Site, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.addr()).await.unwrap();
    // Whoever refuses a long head may close before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_one_request_after_the_other() {
    let site = Site::start().await;
    for name in BOTH {
        let mut sender = site.http1().await;
        for i in 0..5 {
            sender.ready().await.unwrap();
            let request =
                request(Method::POST, &format!("/fn/{name}/echo")).body(full(format!("{i}")));
            let response = within("a head", sender.send_request(request.unwrap()))
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(text(response).await, i.to_string());
        }
        // A HEAD leaves the connection in order, whatever the function says about a body.
        for path in [
            "/with?body=text&h=content-length:4",
            "/with?body=text",
            "/with?status=204",
            "/stall",
        ] {
            sender.ready().await.unwrap();
            let request = request(Method::HEAD, &format!("/fn/{name}{path}")).body(empty());
            let response = within("a head", sender.send_request(request.unwrap()))
                .await
                .unwrap();
            let length = response.headers().get("content-length");
            let length = length.map(|length| length.to_str().unwrap().to_owned());
            let expected = path.contains("content-length").then(|| "4".to_owned());
            assert_eq!(length, expected, "{name}{path}");
            assert_eq!(text(response).await, "");
        }
        sender.ready().await.unwrap();
        let request = request(Method::GET, &format!("/fn/{name}/headers")).body(empty());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let said = text(response).await;
        assert!(said.contains("x-forwarded-for: 127.0.0.1\n"), "{said}");
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_carries_many_requests_at_once_and_trailers() {
    let site = Site::start().await;
    for name in BOTH {
        let sender = site.http2().await;
        let path = |path: &str| format!("http://localhost/fn/{name}{path}");
        let ask = |i: usize| {
            let mut sender = sender.clone();
            let request = Request::post(path("/echo")).body(full(format!("{i}")));
            async move {
                let response = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(text(response).await, i.to_string());
            }
        };
        within("all", futures_util::future::join_all((0..20).map(ask))).await;

        let trailers = [("x-given".parse().unwrap(), "seven".parse().unwrap())];
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"body"))),
            Ok(Frame::trailers(trailers.into_iter().collect())),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        let request = Request::post(path("/trailers")).body(body);
        let response = sender.clone().send_request(request.unwrap()).await.unwrap();
        let collected = within("a body", response.into_body().collect())
            .await
            .unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(
            (&trailers["x-given"], &trailers["x-bytes"]),
            (&"seven".parse().unwrap(), &"4".parse().unwrap())
        );

        let request = Request::get(path("/stall")).body(empty());
        let response = sender.clone().send_request(request.unwrap()).await.unwrap();
        let id = id_of(&response);
        drop(response);
        assert_eq!(
            site.ended(&id).await["error"]["code"],
            "CALLER_GONE",
            "a stream that is reset"
        );
        let request = Request::get(path("/panic-late")).body(empty());
        let response = sender.clone().send_request(request.unwrap()).await.unwrap();
        assert!(
            within("a body", response.into_body().collect())
                .await
                .is_err()
        );
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_trailers_come_to_who_asks_for_them() {
    let site = Site::start().await;
    for name in BOTH {
        let head = format!(
            "POST /fn/{name}/trailers HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\nconnection: te, close\r\n\
             transfer-encoding: chunked\r\ntrailer: x-given\r\n\r\n4\r\nbody\r\n0\r\nx-given: seven\r\n\r\n"
        );
        let answer = raw(&site, head.as_bytes()).await;
        assert!(
            answer.ends_with("4\r\nbody\r\n0\r\nx-given: seven\r\nx-bytes: 4\r\n\r\n"),
            "{answer}"
        );
    }
    site.app.stop().await.unwrap();
}

/// This process's memory in use, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_takes_the_same_memory() {
    const BYTES: u64 = 256 << 20;
    const PIECE: usize = 64 << 10;
    let site = Site::start().await;
    for name in BOTH {
        let before = resident_mib();
        let mut most = before;
        let request = request(Method::GET, &format!("/fn/{name}/down?bytes={BYTES}")).body(empty());
        let mut body = site.once(request.unwrap()).await.into_body();
        let mut bytes = 0;
        while let Some(frame) = within("a frame", body.frame()).await {
            bytes += frame.unwrap().into_data().unwrap().len() as u64;
            most = most.max(resident_mib());
        }
        assert_eq!(bytes, BYTES);
        assert!(
            most < before + 64,
            "down: {before} MiB before, {most} MiB at most"
        );

        let piece = Bytes::from(vec![1_u8; PIECE]);
        let frames = (0..BYTES / PIECE as u64).map(move |_| Ok(Frame::data(piece.clone())));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        let request = self::request(Method::POST, &format!("/fn/{name}/up")).body(body);
        let mut sender = site.http1().await;
        let sent = sender.send_request(request.unwrap());
        let mut sent = std::pin::pin!(sent);
        let response = loop {
            tokio::select! {
                response = &mut sent => break response.unwrap(),
                () = tokio::task::yield_now() => most = most.max(resident_mib()),
            }
        };
        assert_eq!(text(response).await, format!("{BYTES} {BYTES}"));
        assert!(
            most < before + 64,
            "up: {before} MiB before, {most} MiB at most"
        );
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_stops_the_function() {
    let site = Site::start().await;
    for name in BOTH {
        for path in ["/stall", "/down?bytes=1000000000"] {
            let request = request(Method::GET, &format!("/fn/{name}{path}")).body(empty());
            let response = site.once(request.unwrap()).await;
            let id = id_of(&response);
            let mut body = response.into_body();
            assert!(within("a frame", body.frame()).await.unwrap().is_ok());
            drop(body);
            let execution = site.ended(&id).await;
            assert_eq!(
                execution["error"]["code"], "CALLER_GONE",
                "{name}{path}: {execution}"
            );
        }
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let site = Site::start().await;
    for name in BOTH {
        let head = format!(
            "POST /fn/{name}/early HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\nand more"
        );
        let answer = raw(&site, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("too much"), "{answer}");
    }
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_no_server_should_take_are_refused() {
    let site = Site::start().await;
    let get = |target: &str, rest: &str| {
        format!("GET {target} HTTP/1.1\r\nconnection: close\r\n{rest}\r\n")
    };
    let host = "host: localhost\r\n";
    let many = "x-filler: 1\r\n".repeat(1_000);
    let large = format!("x-filler: {}\r\n", "x".repeat(1 << 20));
    for (head, status) in [
        (get("/fn/http02/with", &format!("{host}{many}")), "431"),
        (get("/fn/http02/with", &format!("{host}{large}")), "431"),
        (
            get("/fn/http02/with", &format!("{host}bad header: 1\r\n")),
            "400",
        ),
        (get("/fn/http02/with", &format!("{host}x\0y: 1\r\n")), "400"),
        (
            get("/fn/http02/with", &format!("{host}x: 1\r\n folded\r\n")),
            "400",
        ),
        (get("/fn/http02/with", &format!("{host}{host}")), "400"),
        (get("/fn/http02/with", ""), "400"),
        (get("/fn/http02/with", "host: a@b\r\n"), "400"),
        (get("/fn/http02/with\u{7f}", host), "400"),
        (
            get(
                "/fn/http02/up",
                &format!("{host}content-length: 1\r\ncontent-length: 2\r\n"),
            ),
            "400",
        ),
        (
            get("/fn/http02/up", &format!("{host}content-length: +1\r\n")),
            "400",
        ),
        (
            get(
                "/fn/http02/up",
                &format!("{host}transfer-encoding: chunked, identity\r\n"),
            ),
            "400",
        ),
    ] {
        let answer = raw(&site, head.as_bytes()).await;
        let shown = answer.chars().take(200).collect::<String>();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:.200?}: {shown}"
        );
    }
    // Two lengths of which one is chunked: the chunks count, and nothing behind them is another request.
    let both = format!(
        "POST /fn/http02/up HTTP/1.1\r\n{host}connection: close\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /fn/http02/with?body=smuggled HTTP/1.1\r\n{host}\r\n"
    );
    let answer = raw(&site, both.as_bytes()).await;
    assert!(!answer.contains("smuggled"), "{answer}");
    site.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_flows_end_and_breaks_off_what_does_not() {
    let site = Site::start().await;
    let request = request(Method::GET, "/fn/http02/later?ms=200").body(empty());
    let mut sender = site.http1().await;
    let mut waiting = std::pin::pin!(sender.send_request(request.unwrap()));
    tokio::select! {
        _ = &mut waiting => panic!("it sleeps"),
        () = running(&site) => {}
    }
    let (response, stopped) = futures_util::join!(waiting, site.app.stop());
    stopped.unwrap();
    assert_eq!(text(response.unwrap()).await, "later");
}

/// Returns once an execution runs.
async fn running(site: &Site) {
    within("a running execution", async {
        loop {
            let request = request(Method::GET, "/v1/executions?status=running").body(empty());
            let response = site.once(request.unwrap()).await;
            if text(response).await.contains("\"running\"") {
                return;
            }
        }
    })
    .await;
}
