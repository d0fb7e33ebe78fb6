//! Outgoing requests against hostile and clumsy servers, hosts and guests.

mod addresses;
mod answers;
mod connections;
mod limits;
mod placeholders;
mod requests;
mod tls;

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
