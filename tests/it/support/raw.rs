//! HTTP/1.1 as bytes on a real socket: requests go out exactly as a test writes them.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::world::within;

/// A connection that is kept.
pub(crate) struct Connection(BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `HTTP/1.1 200`: what a client that speaks only this has to see.
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON; null where there is none.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Itself, if it is plain HTTP/1.1 with this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.version, "HTTP/1.1", "{text}");
        assert_eq!(self.status, status, "{text}");
        self
    }
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
    }

    /// Sends a request: its head as lines without their ends, then its body.
    pub(crate) async fn ask(&mut self, head: &str, body: &[u8]) -> Answer {
        let lines = head.trim().lines().map(str::trim);
        let mut request: String = lines.map(|line| format!("{line}\r\n")).collect();
        request.push_str("\r\n");
        self.send(&[request.as_bytes(), body].concat()).await;
        self.answer().await
    }

    /// So many bytes, whatever they are.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = self.0.read_exact(&mut bytes);
        within("some bytes", read).await.unwrap();
        bytes
    }

    /// The next answer, an interim one (1xx) too.
    pub(crate) async fn answer(&mut self) -> Answer {
        within("an answer", self.read()).await
    }

    async fn read(&mut self) -> Answer {
        let first = self.line().await;
        let mut words = first.split(' ');
        let version = words.next().unwrap().to_owned();
        let status: u16 = words.next().unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut answer = Answer {
            version,
            status,
            headers,
            body: Vec::new(),
        };
        if answer.header("transfer-encoding") == "chunked" {
            answer.body = self.chunks().await;
        } else {
            let length = answer.header("content-length").parse().unwrap_or(0);
            answer.body = vec![0; length];
            self.0.read_exact(&mut answer.body).await.unwrap();
        }
        answer
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line().await, 16).unwrap();
            let mut chunk = vec![0; length];
            self.0.read_exact(&mut chunk).await.unwrap();
            self.line().await;
            if length == 0 {
                return body;
            }
            body.extend(chunk);
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        assert!(line.ends_with("\r\n"), "the connection ended in {line:?}");
        line.trim_end().to_owned()
    }
}
