//! A server on loopback that functions call: answers what its script says, byte for byte, and remembers what it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::world::within;

/// How slow a slow answer is.
const BETWEEN_BYTES: Duration = Duration::from_millis(10);

/// What becomes of a connection after an answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Sends this and waits for the next request.
    Send(String),
    /// Sends this and then nothing more.
    Stall(String),
    /// Sends chunks for ever.
    Endless,
    /// Sends a byte now and then, for ever.
    Trickle,
}

/// `200 OK` with this body.
pub(crate) fn ok(body: &str) -> Reply {
    let length = body.len();
    Reply::Send(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

type Script = dyn Fn(&str) -> Reply + Send + Sync;

/// The server; gone with this value.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: watch::Sender<Vec<String>>,
    connections: watch::Sender<(usize, usize)>,
    _accepting: JoinSet<()>,
}

impl Origin {
    /// Answers every request as the script says of it.
    pub(crate) async fn answering(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Arc<Script> = Arc::new(script);
        let seen = watch::Sender::new(Vec::new());
        let connections = watch::Sender::new((0, 0));
        let mut accepting = JoinSet::new();
        let (all, counted) = (seen.clone(), connections.clone());
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (script, all, counted) = (Arc::clone(&script), all.clone(), counted.clone());
                counted.send_modify(|(made, open)| (*made, *open) = (*made + 1, *open + 1));
                open.spawn(async move {
                    serve(connection, &*script, &all).await;
                    counted.send_modify(|(_, open)| *open -= 1);
                });
            }
        });
        Self {
            address,
            seen,
            connections,
            _accepting: accepting,
        }
    }

    /// Scheme, host and port.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What arrived so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }

    /// What arrived last.
    #[track_caller]
    pub(crate) fn last(&self) -> String {
        self.seen.borrow().last().expect("a request").clone()
    }

    /// Connections that were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.borrow().0
    }

    /// Returns once every connection is closed.
    pub(crate) async fn left_alone(&self) {
        let mut connections = self.connections.subscribe();
        let closed = connections.wait_for(|(_, open)| *open == 0);
        drop(within("closed connections", closed).await.unwrap());
    }
}

async fn serve(mut connection: TcpStream, script: &Script, all: &watch::Sender<Vec<String>>) {
    loop {
        let request = read_request(&mut connection).await;
        if request.is_empty() {
            return;
        }
        let reply = script(&request);
        all.send_modify(|all| all.push(request));
        match reply {
            Reply::Send(text) => {
                if connection.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Reply::Stall(text) => {
                let _ = connection.write_all(text.as_bytes()).await;
                // Until the other side closes.
                let _ = connection.read_to_end(&mut Vec::new()).await;
                return;
            }
            Reply::Trickle => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = connection.write_all(head).await;
                while connection.write_all(b"1\r\nt\r\n").await.is_ok() {
                    tokio::time::sleep(BETWEEN_BYTES).await;
                }
                return;
            }
            Reply::Endless => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = connection.write_all(head).await;
                let chunk = format!("{:x}\r\n{}\r\n", 65_536, "m".repeat(65_536));
                while connection.write_all(chunk.as_bytes()).await.is_ok() {}
                return;
            }
        }
    }
}

async fn read_request(connection: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map(|length| length.parse::<usize>().unwrap());
            let is_whole = match length {
                Some(length) => body.len() >= length,
                None => !head.contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n"),
            };
            if is_whole {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return String::new(),
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
}
