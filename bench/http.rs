//! A client of HTTP/1.1 that does little per call, so that the load generator is not what is measured.
//!
//! **Invariant:** an answer is complete or an error: it has a stated length and exactly that many bytes
//! followed its head. One call at a time on a connection that is kept open.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer's head may have this many bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The content type of JSON.
pub(crate) const JSON: &str = "application/json";

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A connection that is kept open.
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
}

/// An answer, until the next call on the connection.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// The body as JSON, if the status is one of `expected`.
    pub(crate) fn json(&self, expected: &[u16]) -> Result<serde_json::Value> {
        self.expect(expected)?;
        serde_json::from_slice(self.body)
            .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(self.body)))
    }

    /// An error with the body, unless the status is one of `expected`.
    pub(crate) fn expect(&self, expected: &[u16]) -> Result<()> {
        ensure!(
            expected.contains(&self.status),
            "answered {} instead of {expected:?}: {}",
            self.status,
            String::from_utf8_lossy(self.body)
        );
        Ok(())
    }
}

/// A request's bytes, to be sent any number of times.
pub(crate) fn request(
    method: &str,
    address: SocketAddr,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            address,
            received: Vec::with_capacity(4096),
        })
    }

    /// Sends a request once.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Answer<'_>> {
        let request = request(method, self.address, path, content_type, body);
        self.call(&request).await
    }

    /// Sends the bytes of one [`request`] and reads its answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let head = loop {
            let seen = self.received.len();
            self.receive().await?;
            // The mark may straddle two reads.
            let from = seen.saturating_sub(END_OF_HEAD.len());
            if let Some(at) = find(&self.received[from..], END_OF_HEAD) {
                break Head::parse(&self.received[..from + at])?;
            }
            ensure!(
                self.received.len() <= HEAD_BYTES_MAX,
                "the answer's head has no end"
            );
        };
        let body = head.body();
        while self.received.len() < body.end {
            self.receive().await?;
        }
        ensure!(
            self.received.len() == body.end,
            "the answer is longer than it says"
        );
        Ok(Answer {
            status: head.status,
            body: &self.received[body],
        })
    }

    async fn receive(&mut self) -> Result<()> {
        let count = self.stream.read_buf(&mut self.received).await?;
        ensure!(count > 0, "the server closed the connection");
        Ok(())
    }
}

/// What an answer's head says.
struct Head {
    status: u16,
    /// Bytes of the head with the empty line that ends it.
    length: usize,
    body_length: usize,
}

impl Head {
    /// Reads a head without the empty line that ends it.
    fn parse(head: &[u8]) -> Result<Self> {
        let length = head.len() + END_OF_HEAD.len();
        let head = str::from_utf8(head).context("the answer's head is no text")?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("no HTTP/1.1 answer: {head}"))?;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                bail!("no header: {line}");
            };
            if name.eq_ignore_ascii_case("content-length") {
                let body_length = value.trim().parse().context("no length")?;
                return Ok(Self {
                    status,
                    length,
                    body_length,
                });
            }
        }
        // A 204 would be one; nothing that is called here answers so.
        bail!("the answer does not state its length: {head}")
    }

    fn body(&self) -> Range<usize> {
        self.length..self.length.saturating_add(self.body_length)
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
