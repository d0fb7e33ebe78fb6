//! Outgoing requests against hostile and clumsy servers, hosts and guests.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::{Digest, HostPattern, SecretValue};

/// What a server does once it has read a request.
#[derive(Clone)]
enum Then {
    /// Sends this and keeps the connection.
    Answer(Vec<u8>),
    /// Sends this and closes.
    AnswerAndClose(Vec<u8>),
    /// Sends this and then nothing.
    Stall(Vec<u8>),
    /// Sends a head and then bytes for ever.
    Endless,
}

fn ok(body: &str) -> Then {
    let length = body.len();
    Then::Answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
}

/// A server that treats every request alike and shows them to the test.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: mpsc::Receiver<String>,
    _running: JoinSet<()>,
}

impl Server {
    async fn that(then: Then) -> Self {
        Self::start(then, None).await
    }

    async fn start(then: Then, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::channel(64);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (then, sender, tls) = (then.clone(), sender.clone(), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => serve(connection, then, sender).await,
                        Some(tls) => {
                            if let Ok(connection) = tls.accept(connection).await {
                                serve(connection, then, sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            connections,
            seen,
            _running: running,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/a", self.address)
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn request(&mut self) -> String {
        self.seen.recv().await.unwrap()
    }

    fn saw_nothing(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

async fn serve(
    mut connection: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    then: Then,
    seen: mpsc::Sender<String>,
) {
    loop {
        let request = read_request(&mut connection).await;
        if request.is_empty() {
            return;
        }
        let _ = seen.send(request).await;
        let (Then::Answer(bytes) | Then::AnswerAndClose(bytes) | Then::Stall(bytes)) = &then else {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = connection.write_all(head).await;
            let chunk = format!("{:x}\r\n{}\r\n", 65_536, "m".repeat(65_536));
            while connection.write_all(chunk.as_bytes()).await.is_ok() {}
            return;
        };
        let _ = connection.write_all(bytes).await;
        let _ = connection.flush().await;
        match then {
            Then::Answer(_) => {}
            Then::AnswerAndClose(_) => {
                let _ = connection.shutdown().await;
                return;
            }
            Then::Stall(_) | Then::Endless => std::future::pending().await,
        }
    }
}

async fn read_request(connection: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map(|length| length.parse::<usize>().unwrap());
            let is_chunked = head.contains("transfer-encoding: chunked");
            let is_whole = match length {
                Some(length) => body.len() >= length,
                None => !is_chunked || body.ends_with("0\r\n\r\n"),
            };
            if is_whole {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Answers for names as it was told to, differently at each time of asking.
#[derive(Default)]
struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    /// Each element is one answer; the last one stays.
    fn of(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let answers = |answers: &[&[&str]]| -> Vec<Vec<IpAddr>> {
            let parse = |ips: &&[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
            answers.iter().map(parse).collect()
        };
        let names = names
            .iter()
            .map(|(name, all)| ((*name).to_owned(), answers(all)));
        Arc::new(Self(Mutex::new(names.collect())))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str, _turn: OwnedSemaphorePermit) -> Lookup {
        let mut names = self.0.lock().unwrap();
        let answer = match names.get_mut(name) {
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            None => Err(io::Error::other("no such name")),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// A session, and what it wrote into the log.
struct Guest {
    session: Arc<Session>,
    notes: Arc<Mutex<Vec<String>>>,
}

fn options() -> Options {
    Options {
        loopback: Loopback::Allowed,
        ..Options::default()
    }
}

fn client(change: impl FnOnce(&mut Options)) -> Client {
    let mut options = options();
    change(&mut options);
    Client::new(options)
}

fn rules(allow_hosts: &[&str]) -> Rules {
    let allowed = allow_hosts.iter().map(|text| text.parse().unwrap());
    Rules {
        scope: Scope {
            function: "caller".parse().unwrap(),
            digest: Digest::from_bytes([7; 32]),
        },
        allow_hosts: Some(allowed.collect()),
        placeholders: Arc::new([]),
        traceparent: None,
    }
}

impl Guest {
    fn new(client: &Client, rules: Rules) -> Self {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&notes);
        let note: Note = Arc::new(move |line| written.lock().unwrap().push(line.to_owned()));
        Self {
            session: Arc::new(Session::new(client.clone(), rules, note)),
            notes,
        }
    }

    /// A guest that may call everything on this machine's loopback and nothing else.
    fn on_loopback(client: &Client, server: &Server) -> Self {
        let port = server.port();
        Self::new(client, rules(&[&format!("http://127.0.0.1:{port}")]))
    }

    async fn send(&self, request: Request<GuestBody>) -> Result<Response<Bytes>, Error> {
        let Answer { response, rest } = self.session.send(request, Timeouts::default()).await?;
        let (head, body) = response.into_parts();
        let mut rest = rest.fuse();
        let mut body = pin!(body.collect());
        let collected = loop {
            tokio::select! {
                biased;
                body = &mut body => break body,
                () = &mut rest, if !rest.is_terminated() => {}
            }
        };
        Ok(Response::from_parts(head, collected?.to_bytes()))
    }

    async fn get(&self, url: &str) -> Result<Response<Bytes>, Error> {
        self.send(get(url)).await
    }

    async fn refused(&self, url: &str) -> (Error, String) {
        let error = self.get(url).await.expect_err(url);
        (error, self.notes.lock().unwrap().pop().unwrap_or_default())
    }

    fn last_note(&self) -> String {
        let notes = self.notes.lock().unwrap();
        notes.last().cloned().unwrap_or_default()
    }
}

fn get(url: &str) -> Request<GuestBody> {
    Request::get(url).body(empty()).unwrap()
}

fn empty() -> GuestBody {
    Empty::new().map_err(Into::into).boxed_unsync()
}

fn full(text: &'static str) -> GuestBody {
    Full::from(text).map_err(Into::into).boxed_unsync()
}

/// A body that comes in pieces, and whose length nobody knows.
fn pieces(count: usize, size: usize) -> GuestBody {
    let piece = Bytes::from("p".repeat(size));
    let frames =
        futures_util::stream::iter((0..count).map(move |_| Ok(Frame::data(piece.clone()))));
    StreamBody::new(frames).boxed_unsync()
}

#[tokio::test]
async fn what_is_listed_is_called_and_its_answer_comes_whole() {
    let mut server = Server::that(ok("hello")).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let request = Request::post(format!("{}?b=c%20d", server.url()))
        .header("x-one", "1")
        .body(full("input"))
        .unwrap();
    let response = guest.send(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.body()[..]),
        (200, &b"hello"[..])
    );
    let seen = server.request().await;
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(lines[0], "POST /a?b=c%20d HTTP/1.1");
    assert!(lines.contains(&"x-one: 1"), "{head}");
    assert!(lines.contains(&"content-length: 5"), "{head}");
    assert_eq!(body, "input");
    assert!(guest.notes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn whatever_is_not_listed_is_refused_and_the_log_says_what_would_allow_it() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let client = client(|_| {});
    let guest = Guest::on_loopback(&client, &server);
    let (error, note) = guest.refused("https://example.org/secret?x").await;
    assert_eq!(error, Error::Denied);
    assert_eq!(
        note,
        "a request was refused: allowHosts does not list https://example.org"
    );
    let (error, note) = guest.refused(&format!("https://127.0.0.1:{port}/")).await;
    assert_eq!(error, Error::Denied);
    assert!(
        note.ends_with(&format!("does not list https://127.0.0.1:{port}")),
        "{note}"
    );
    let (error, _) = guest.refused(&format!("http://localhost:{port}/")).await;
    assert_eq!(error, Error::Denied);
    let (error, _) = guest.refused("http://127.0.0.1/").await;
    assert_eq!(error, Error::Denied);

    let without = Guest::new(
        &client,
        Rules {
            allow_hosts: None,
            ..rules(&[])
        },
    );
    let (error, note) = without.refused(&server.url()).await;
    assert_eq!(error, Error::Denied);
    assert!(
        note.contains("has no allowHosts: add \"http://127.0.0.1:"),
        "{note}"
    );
    let (error, _) = Guest::new(&client, rules(&[])).refused(&server.url()).await;
    assert_eq!(error, Error::Denied);
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn odd_spellings_of_hosts_are_no_hosts() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let guest = Guest::new(
        &client(|_| {}),
        rules(&[&format!("http://*:{port}"), "http://*"]),
    );
    for host in [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.0x1",
        "user@127.0.0.1",
        "user:word@127.0.0.1",
        "127.0.0.1.",
        "localhost.",
        "a..b",
        "[::1%25lo]",
        "127.0.0.1:",
        "%6cocalhost",
    ] {
        let url = format!("http://{host}:{port}/");
        let Ok(request) = Request::get(&url).body(empty()) else {
            // Not even a URL.
            continue;
        };
        let error = guest.send(request).await.expect_err(&url);
        assert_eq!(error, Error::UriInvalid, "{url}");
    }
    for url in [
        "ftp://127.0.0.1/",
        "/a",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
    ] {
        let Ok(request) = Request::get(url).body(empty()) else {
            continue;
        };
        assert_eq!(
            guest.send(request).await.err(),
            Some(Error::UriInvalid),
            "{url}"
        );
    }
    let (_, note) = guest.refused("http://user:word@127.0.0.1/").await;
    assert!(
        note.contains("credentials") && !note.contains("word@"),
        "{note}"
    );
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_by_number_and_by_name() {
    let names = Names::of(&[
        ("private.example", &[&["10.0.0.1"]]),
        ("metadata.example", &[&["169.254.169.254"]]),
        ("mapped.example", &[&["::ffff:10.0.0.1"]]),
        ("translated.example", &[&["64:ff9b::7f00:1"]]),
        ("here.example", &[&["127.0.0.1"]]),
        ("here6.example", &[&["::1"]]),
        ("nowhere.example", &[&["0.0.0.0"]]),
    ]);
    let client = client(|options| options.resolver = names);
    let guest = Guest::new(&client, rules(&["http://*", "http://*:8080"]));
    for url in [
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fd00::1]/",
        "http://0.0.0.0/",
        "http://private.example/",
        "http://private.example:8080/",
        "http://metadata.example/",
        "http://mapped.example/",
        "http://translated.example/",
        "http://nowhere.example/",
        // Loopback may be called here, but only by those who say so.
        "http://here.example/",
        "http://here6.example/",
    ] {
        let (error, note) = guest.refused(url).await;
        assert_eq!(error, Error::AddressProhibited, "{url}");
        assert!(note.contains("--allow-private-range"), "{url}: {note}");
    }
}

#[tokio::test]
async fn loopback_is_refused_unless_the_plane_allows_it() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let listed = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ];
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let closed = client(|options| options.loopback = Loopback::Refused);
    let guest = Guest::new(&closed, rules(&listed));
    for host in ["127.0.0.1", "localhost"] {
        let (error, _) = guest.refused(&format!("http://{host}:{port}/")).await;
        assert_eq!(error, Error::AddressProhibited);
    }
    assert!(server.saw_nothing());
    let guest = Guest::new(&client(|_| {}), rules(&listed));
    for host in ["127.0.0.1", "localhost"] {
        guest.get(&format!("http://{host}:{port}/")).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_checked_each_time_and_the_checked_address_is_called() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    // First an address that may be called, then one that may not: it is never asked in between.
    let names = Names::of(&[("turncoat.example", &[&["127.0.0.1"], &["10.0.0.1"]])]);
    let client = client(|options| {
        options.resolver = names;
        options.ranges_allowed = vec!["127.0.0.0/8".parse().unwrap()];
        options.idle_connections_per_function_max = 0;
    });
    let guest = Guest::new(
        &client,
        rules(&[&format!("http://turncoat.example:{port}")]),
    );
    let url = format!("http://turncoat.example:{port}/");
    guest.get(&url).await.unwrap();
    let seen = server.request().await.to_ascii_lowercase();
    assert!(
        seen.contains(&format!("host: turncoat.example:{port}\r\n")),
        "{seen}"
    );
    let (error, note) = guest.refused(&url).await;
    assert_eq!(error, Error::AddressProhibited);
    assert!(note.contains("10.0.0.1 is a private address"), "{note}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn of_several_addresses_those_that_may_not_be_called_are_left_out() {
    let server = Server::that(ok("")).await;
    let port = server.port();
    let names = Names::of(&[("both.example", &[&["10.0.0.1", "127.0.0.1"]])]);
    let client = client(|options| {
        options.resolver = names;
        options.ranges_allowed = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let guest = Guest::new(&client, rules(&[&format!("http://both.example:{port}")]));
    guest
        .get(&format!("http://both.example:{port}/"))
        .await
        .unwrap();
}

#[tokio::test]
async fn redirects_come_back_and_are_not_followed() {
    let answer =
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
    let server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let response = guest.get(&server.url()).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(response.headers()["location"], "http://169.254.169.254/");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_host_header_is_the_urls_and_nobody_elses() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let listed = format!("http://localhost:{port}");
    let guest = Guest::new(&client(|_| {}), rules(&[&listed]));
    let request = Request::get(format!("http://LOCALHOST:{port}/"))
        .header("host", "internal.example")
        .header("host", "other.example")
        .header("connection", "upgrade, x-one")
        .header("upgrade", "websocket")
        .header("transfer-encoding", "chunked")
        .header("proxy-authorization", "Basic eA==")
        .header("keep-alive", "timeout=100")
        .body(empty())
        .unwrap();
    guest.send(request).await.unwrap();
    let seen = server.request().await.to_ascii_lowercase();
    let head = seen.split("\r\n\r\n").next().unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(
        lines,
        ["get / http/1.1", &format!("host: localhost:{port}")],
        "{head}"
    );
}

#[tokio::test]
async fn a_request_cannot_be_smuggled_in_another() {
    let mut server = Server::that(ok("")).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    // A length that is too short: what is beyond it must not become the next request on the connection.
    let request = Request::post(server.url())
        .header("content-length", "4")
        .header("transfer-encoding", "chunked")
        .body(full("bodyGET /evil HTTP/1.1\r\nHost: x\r\n\r\n"))
        .unwrap();
    let _ = guest.send(request).await;
    let first = server.request().await;
    assert!(
        !first.to_ascii_lowercase().contains("transfer-encoding"),
        "{first}"
    );
    let _ = guest.get(&server.url()).await;
    let second = server.request().await;
    assert!(second.starts_with("GET /a HTTP/1.1"), "{second}");
    assert!(
        !first.contains("evil") && !second.contains("evil"),
        "{first}\n{second}"
    );
}

#[tokio::test]
async fn tunnels_are_refused() {
    let mut server = Server::that(ok("")).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let request = Request::connect(server.url()).body(empty()).unwrap();
    assert_eq!(guest.send(request).await.err(), Some(Error::MethodInvalid));
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn an_answer_that_changes_the_protocol_is_none() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    assert!(guest.get(&server.url()).await.is_err());
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_not_read_on() {
    let announced = Then::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n".to_vec());
    for then in [announced, Then::Endless] {
        let server = Server::that(then).await;
        let small = client(|options| options.response_bytes_max = 100_000);
        let guest = Guest::on_loopback(&small, &server);
        let error = guest.get(&server.url()).await.unwrap_err();
        assert_eq!(error, Error::ResponseBody(100_000));
        let note = guest.last_note();
        assert!(note.contains("--outgoing-response-bytes-max"), "{note}");
    }
    let server = Server::that(ok("12345")).await;
    let exact = client(|options| options.response_bytes_max = 5);
    let guest = Guest::on_loopback(&exact, &server);
    assert_eq!(guest.get(&server.url()).await.unwrap().body(), "12345");
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_not_sent_on() {
    let server = Server::that(ok("")).await;
    let small = client(|options| options.request_bytes_max = 1000);
    let guest = Guest::on_loopback(&small, &server);
    let post = |body| Request::post(server.url()).body(body).unwrap();
    let error = guest.send(post(pieces(11, 100))).await.unwrap_err();
    assert_eq!(error, Error::RequestBody(1000));
    assert!(guest.last_note().contains("--outgoing-request-bytes-max"));
    let announced = Full::from("x".repeat(1001))
        .map_err(Into::into)
        .boxed_unsync();
    assert_eq!(
        guest.send(post(announced)).await.unwrap_err(),
        Error::RequestBody(1000)
    );
    guest.send(post(pieces(10, 100))).await.unwrap();
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_neither_sent_nor_read() {
    let server = Server::that(ok("")).await;
    let small = client(|options| {
        options.headers_max = 10;
        options.header_bytes_max = 8192;
    });
    let guest = Guest::on_loopback(&small, &server);
    let mut many = get(&server.url());
    for number in 0..10 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        many.headers_mut().insert(name, "1".parse().unwrap());
    }
    let mut long = get(&server.url());
    long.headers_mut()
        .insert("x", "y".repeat(8192).parse().unwrap());
    for request in [many, long] {
        assert_eq!(guest.send(request).await.unwrap_err(), Error::RequestHeader);
        assert!(guest.last_note().contains("--outgoing-headers-max"));
    }
    let lines = "x: y\r\n".repeat(11);
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    for fields in [lines, long] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
        let server = Server::that(Then::Answer(answer.into_bytes())).await;
        let guest = Guest::on_loopback(&small, &server);
        assert_eq!(
            guest.get(&server.url()).await.unwrap_err(),
            Error::ResponseHeader
        );
        assert!(guest.last_note().contains("--outgoing-header-bytes-max"));
    }
}

#[tokio::test]
async fn silence_ends_a_request_before_and_within_the_answer() {
    let impatient = client(|options| options.silence_timeout_ms = 30);
    let nothing = Server::that(Then::Stall(Vec::new())).await;
    let guest = Guest::on_loopback(&impatient, &nothing);
    assert_eq!(
        guest.get(&nothing.url()).await.unwrap_err(),
        Error::ReadTimeout
    );
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec();
    let half = Server::that(Then::Stall(half)).await;
    let guest = Guest::on_loopback(&impatient, &half);
    assert_eq!(
        guest.get(&half.url()).await.unwrap_err(),
        Error::ReadTimeout
    );

    // A guest may be less patient than the server, never more.
    let patient = client(|_| {});
    let guest = Guest::on_loopback(&patient, &nothing);
    let timeouts = Timeouts {
        first_byte: Some(Duration::from_millis(10)),
        ..Timeouts::default()
    };
    let sent = guest.session.send(get(&nothing.url()), timeouts).await;
    assert_eq!(sent.err(), Some(Error::ReadTimeout));
    let guest = Guest::on_loopback(&impatient, &nothing);
    let timeouts = Timeouts {
        first_byte: Some(Duration::from_secs(600)),
        ..Timeouts::default()
    };
    let sent = guest.session.send(get(&nothing.url()), timeouts).await;
    assert_eq!(sent.err(), Some(Error::ReadTimeout));
}

#[tokio::test]
async fn a_guest_that_writes_slowly_is_not_cut_for_silence() {
    let mut server = Server::that(ok("")).await;
    let impatient = client(|options| options.silence_timeout_ms = 40);
    let guest = Guest::on_loopback(&impatient, &server);
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok(Frame::data(piece)), receiver))
    });
    let body: GuestBody = StreamBody::new(frames).boxed_unsync();
    let request = Request::post(server.url()).body(body).unwrap();
    let slow = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            sender.send(Bytes::from_static(b"p")).await.unwrap();
        }
        drop(sender);
    };
    let (sent, ()) = tokio::join!(guest.send(request), slow);
    assert_eq!(sent.unwrap().status(), 200);
    assert!(server.request().await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn answers_that_break_off_or_are_no_http_say_so() {
    let broken = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec();
    let server = Server::that(Then::AnswerAndClose(broken)).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    assert!(guest.get(&server.url()).await.is_err());
    let server = Server::that(Then::AnswerAndClose(b"SSH-2.0-x\r\n".to_vec())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let error = guest.get(&server.url()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
    let server = Server::that(Then::AnswerAndClose(Vec::new())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    assert_eq!(
        guest.get(&server.url()).await.unwrap_err(),
        Error::ResponseIncomplete
    );
}

#[tokio::test]
async fn who_cannot_be_reached_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let names = Names::of(&[("empty.example", &[&[]])]);
    let client = client(|options| options.resolver = names);
    let listed = format!("http://127.0.0.1:{port}");
    let guest = Guest::new(&client, rules(&[&listed, "http://*"]));
    assert_eq!(
        guest.get(&listed).await.unwrap_err(),
        Error::ConnectionRefused
    );
    for url in ["http://unknown.example/", "http://empty.example/"] {
        let error = guest.get(url).await.unwrap_err();
        assert!(matches!(error, Error::Dns(_)), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn connections_are_used_again_by_the_function_that_made_them_and_by_no_other() {
    let server = Server::that(ok("hello")).await;
    let client = client(|_| {});
    let one = Guest::on_loopback(&client, &server);
    for _ in 0..5 {
        one.get(&server.url()).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    // Another attempt of the same function.
    Guest::on_loopback(&client, &server)
        .get(&server.url())
        .await
        .unwrap();
    assert_eq!(server.connections(), 1);
    assert_eq!(client.connections(), (1, 1));
    let listed = format!("http://127.0.0.1:{}", server.port());
    let with_scope = |function: &str, digest: u8| Rules {
        scope: Scope {
            function: function.parse().unwrap(),
            digest: Digest::from_bytes([digest; 32]),
        },
        ..rules(&[&listed])
    };
    for (made, (function, digest)) in [(2, ("other", 7)), (3, ("caller", 8))] {
        let guest = Guest::new(&client, with_scope(function, digest));
        guest.get(&server.url()).await.unwrap();
        assert_eq!(server.connections(), made);
    }
    assert_eq!(client.connections(), (3, 3));
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_again() {
    let once = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = Server::that(Then::AnswerAndClose(once)).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    for made in 1..4 {
        guest.get(&server.url()).await.unwrap();
        assert_eq!(server.connections(), made);
    }
}

#[tokio::test]
async fn kept_connections_are_bounded_in_all_by_function_and_in_time() {
    let servers = [
        Server::that(ok("")).await,
        Server::that(ok("")).await,
        Server::that(ok("")).await,
    ];
    let listed: Vec<_> = servers
        .iter()
        .map(|server| format!("http://{}", server.address))
        .collect();
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let call_all = async |client: &Client, function: &str| {
        let mut rules = rules(&listed);
        rules.scope.function = function.parse().unwrap();
        let guest = Guest::new(client, rules);
        for server in &servers {
            guest.get(&server.url()).await.unwrap();
        }
        client.connections()
    };
    let by_function = client(|options| options.idle_connections_per_function_max = 2);
    assert_eq!(call_all(&by_function, "one").await, (2, 2));
    assert_eq!(call_all(&by_function, "two").await, (4, 4));
    let in_all = client(|options| options.idle_connections_max = 4);
    assert_eq!(call_all(&in_all, "one").await, (3, 3));
    assert_eq!(call_all(&in_all, "two").await, (4, 4));
    let in_time = client(|options| options.idle_timeout_ms = 0);
    assert_eq!(call_all(&in_time, "one").await, (0, 0));
    let in_time = client(|options| options.idle_timeout_ms = 30);
    assert_eq!(call_all(&in_time, "one").await, (3, 3));
    tokio::time::sleep(Duration::from_millis(50)).await;
    in_time.tidy();
    assert_eq!(in_time.connections(), (0, 0));
}

#[tokio::test]
async fn open_connections_are_bounded_and_idle_ones_make_way() {
    let stalled = Server::that(Then::Stall(Vec::new())).await;
    let server = Server::that(ok("")).await;
    let other = Server::that(ok("")).await;
    let listed: Vec<_> = [&stalled, &server, &other]
        .map(|server| format!("http://{}", server.address))
        .into();
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    for change in [
        (|options: &mut Options| options.connections_max = 2) as fn(&mut Options),
        |options| options.connections_per_function_max = 2,
    ] {
        let client = client(|options| {
            options.connect_timeout_ms = 50;
            change(options);
        });
        let guest = Guest::new(&client, rules(&listed));
        guest.get(&server.url()).await.unwrap();
        // The idle one makes way for this one, and for the next.
        guest.get(&other.url()).await.unwrap();
        guest.get(&server.url()).await.unwrap();
        let two = [get(&stalled.url()), get(&stalled.url())];
        let mut held: Vec<_> = two
            .into_iter()
            .map(|request| Box::pin(guest.session.send(request, Timeouts::default())))
            .collect();
        let full = async {
            while client.connections().0 < 2 || client.connections().1 > 0 {
                for held in &mut held {
                    assert!(futures_util::poll!(held).is_pending());
                }
                tokio::task::yield_now().await;
            }
        };
        full.await;
        assert_eq!(
            guest.get(&server.url()).await.unwrap_err(),
            Error::ConnectionLimit
        );
        assert!(guest.last_note().contains("--outgoing-connections-max"));
        drop(held);
        guest.get(&server.url()).await.unwrap();
    }
}

#[tokio::test]
async fn an_attempt_sends_so_many_requests_and_so_many_at_once() {
    let server = Server::that(ok("")).await;
    let few = client(|options| options.requests_max = 3);
    let guest = Guest::on_loopback(&few, &server);
    for _ in 0..3 {
        guest.get(&server.url()).await.unwrap();
    }
    let (error, note) = guest.refused(&server.url()).await;
    assert_eq!(error, Error::Denied);
    assert!(
        note.contains("may send 3 (the server's --outgoing-requests-max)"),
        "{note}"
    );
    // The next attempt begins anew.
    Guest::on_loopback(&few, &server)
        .get(&server.url())
        .await
        .unwrap();

    let server = Server::that(ok("unread")).await;
    let narrow = client(|options| {
        options.requests_at_once_max = 2;
        options.connect_timeout_ms = 50;
    });
    let guest = Guest::on_loopback(&narrow, &server);
    let send = || guest.session.send(get(&server.url()), Timeouts::default());
    let (first, second) = (send().await.unwrap(), send().await.unwrap());
    let third = send().await;
    assert_eq!(third.err(), Some(Error::ConnectionLimit));
    assert!(
        guest
            .last_note()
            .contains("--outgoing-requests-at-once-max")
    );
    drop(first);
    send().await.unwrap();
    drop(second);
}

#[tokio::test]
async fn the_trace_goes_on_unless_the_guest_has_one_of_its_own() {
    const OURS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut server = Server::that(ok("")).await;
    let listed = format!("http://{}", server.address);
    let traced = Rules {
        traceparent: Some(OURS.into()),
        ..rules(&[&listed])
    };
    let guest = Guest::new(&client(|_| {}), traced);
    guest.get(&server.url()).await.unwrap();
    assert!(
        server
            .request()
            .await
            .contains(&format!("traceparent: {OURS}\r\n"))
    );
    let mut own = get(&server.url());
    own.headers_mut()
        .insert("traceparent", "00-own".parse().unwrap());
    guest.send(own).await.unwrap();
    let seen = server.request().await;
    assert!(
        seen.contains("traceparent: 00-own\r\n") && !seen.contains(OURS),
        "{seen}"
    );
}

fn placeholder(value: &str, hosts: &[&str]) -> Placeholder {
    let hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    Placeholder::new("API_KEY".into(), SecretValue::new(value.to_owned()), hosts)
}

#[tokio::test]
async fn a_placeholder_becomes_the_secret_on_its_way_to_its_own_hosts_only() {
    let mut server = Server::that(ok("")).await;
    let port = server.port();
    let listed = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ];
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let secret = placeholder("s3cret", &listed[..1]);
    let text = secret.text().to_owned();
    assert!(!format!("{secret:?}").contains("s3cret"));
    let rules = Rules {
        placeholders: Arc::new([secret]),
        ..rules(&listed)
    };
    let guest = Guest::new(&client(|_| {}), rules);
    let carrying = |host: &str| {
        Request::get(format!("http://{host}:{port}/?key={text}"))
            .header("authorization", format!("Bearer {text}"))
            .header("x-twice", format!("{text} {text}"))
            .header("x-other", "plain")
            .body(empty())
            .unwrap()
    };
    guest.send(carrying("127.0.0.1")).await.unwrap();
    let seen = server.request().await;
    assert!(seen.contains("authorization: Bearer s3cret\r\n"), "{seen}");
    assert!(seen.contains("x-twice: s3cret s3cret\r\n"), "{seen}");
    assert!(
        seen.starts_with(&format!("GET /?key={text} HTTP/1.1")),
        "{seen}"
    );
    assert!(guest.last_note().contains("stands in a URL"));

    assert_eq!(
        guest.send(carrying("localhost")).await.unwrap_err(),
        Error::Denied
    );
    let note = guest.last_note();
    assert!(
        note.contains("placeholder of API_KEY, which may go to http://127.0.0.1"),
        "{note}"
    );
    assert!(!note.contains("s3cret"), "{note}");
    assert!(server.saw_nothing());
    // Without the placeholder the other host may be called.
    guest
        .get(&format!("http://localhost:{port}/"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_secret_that_would_break_the_header_is_not_sent() {
    let mut server = Server::that(ok("")).await;
    let listed = format!("http://{}", server.address);
    let secret = placeholder("a\r\nX-Evil: 1", &[&listed]);
    let text = secret.text().to_owned();
    let rules = Rules {
        placeholders: Arc::new([secret]),
        ..rules(&[&listed])
    };
    let guest = Guest::new(&client(|_| {}), rules);
    let request = Request::get(server.url())
        .header("x", text)
        .body(empty())
        .unwrap();
    assert_eq!(guest.send(request).await.unwrap_err(), Error::Denied);
    assert!(!guest.last_note().contains("Evil"));
    assert!(server.saw_nothing());
}

#[test]
fn placeholders_cannot_be_guessed() {
    let texts: std::collections::HashSet<_> = (0..100)
        .map(|_| placeholder("s", &["a.example"]).text().to_owned())
        .collect();
    assert_eq!(texts.len(), 100);
    assert!(
        texts
            .iter()
            .all(|text| text.len() == "pelton-secret-".len() + 32)
    );
}

/// A server under TLS with a certificate of its own for these names, and that certificate.
async fn tls_server(names: &[&str]) -> (Server, Vec<u8>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = Server::start(ok("under tls"), Some(TlsAcceptor::from(Arc::new(config)))).await;
    (server, made.cert.der().to_vec())
}

#[tokio::test]
async fn certificates_are_checked_against_the_name_that_was_asked_for() {
    let (mut server, root) = tls_server(&["right.example"]).await;
    let port = server.port();
    let names = Names::of(&[
        ("right.example", &[&["127.0.0.1"]]),
        ("wrong.example", &[&["127.0.0.1"]]),
    ]);
    let client = client(|options| {
        options.resolver = names;
        options.ranges_allowed = vec!["127.0.0.0/8".parse().unwrap()];
        options.roots = Some(vec![root]);
    });
    let guest = Guest::new(&client, rules(&[&format!("*:{port}")]));
    let response = guest
        .get(&format!("https://right.example:{port}/"))
        .await
        .unwrap();
    assert_eq!(response.body(), "under tls");
    let seen = server.request().await;
    assert!(
        seen.contains(&format!("host: right.example:{port}\r\n")),
        "{seen}"
    );
    for host in ["wrong.example", "127.0.0.1"] {
        let (error, note) = guest.refused(&format!("https://{host}:{port}/")).await;
        assert!(matches!(error, Error::Certificate(_)), "{error:?}");
        assert!(note.contains(host), "{note}");
    }
    // The connection is kept, and kept apart from one in the clear.
    guest
        .get(&format!("https://right.example:{port}/"))
        .await
        .unwrap();
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_accepted() {
    let (mut server, _) = tls_server(&["localhost"]).await;
    let (_, other) = tls_server(&["localhost"]).await;
    let port = server.port();
    let client = client(|options| options.roots = Some(vec![other]));
    let guest = Guest::new(&client, rules(&[&format!("localhost:{port}")]));
    let (error, _) = guest.refused(&format!("https://localhost:{port}/")).await;
    assert!(matches!(error, Error::Certificate(_)), "{error:?}");
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn a_body_streams_both_ways_at_once() {
    const PIECES: usize = 2_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mirror = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.write_all(answer).await.unwrap();
        // The chunks come back as they are while more are on their way.
        let (mut reader, mut writer) = connection.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    };
    let listed = format!("http://{address}");
    let guest = Guest::new(&client(|_| {}), rules(&[&listed]));
    let request = Request::post(format!("{listed}/"))
        .body(pieces(PIECES, 10_000))
        .unwrap();
    let sending = async {
        let answer = guest
            .session
            .send(request, Timeouts::default())
            .await
            .unwrap();
        let mut body = answer.response.into_body();
        let mut received = 0;
        let reading = async {
            while let Some(frame) = body.frame().await {
                received += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
        };
        let (_, ()) = tokio::join!(answer.rest, reading);
        received
    };
    let received = tokio::select! {
        received = sending => received,
        () = async { mirror.await; std::future::pending().await } => 0,
    };
    assert_eq!(received, PIECES * 10_000);
}

#[tokio::test]
async fn trailers_come_through() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n";
    let server = Server::that(Then::Answer(answer.into())).await;
    let guest = Guest::on_loopback(&client(|_| {}), &server);
    let answer = guest
        .session
        .send(get(&server.url()), Timeouts::default())
        .await
        .unwrap();
    assert!(!answer.response.headers().contains_key("transfer-encoding"));
    let body = answer.response.into_body().collect();
    let (body, ()) = tokio::join!(body, answer.rest);
    let trailers: HeaderMap = body.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["x-sum"], "7");
}

/// Proves it in a process of its own, whose environment names a proxy that nobody serves.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "net::tests::redirects_come_back_and_are_not_followed",
    ]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
