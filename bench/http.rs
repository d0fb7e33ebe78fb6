//! A client of HTTP/1.1 that does little per call, so that the load generator is not what is measured.
//!
//! **Invariant:** an answer is complete or an error: it has a stated length and exactly that many bytes
//! followed its head, or it comes in chunks and nothing followed the last. One call at a time on a connection
//! that is kept open.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer's head may have this many bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The content type of JSON.
pub(crate) const JSON: &str = "application/json";

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const END_OF_LINE: &[u8] = b"\r\n";

/// A connection that is kept open.
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
    /// The last body that came in chunks, put together.
    joined: Vec<u8>,
}

/// An answer, until the next call on the connection.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// Seconds after which a refused call may come again, where the server names them.
    pub(crate) retry_after_s: Option<u32>,
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
            "answered {} (Retry-After {:?}) instead of {expected:?}: {}",
            self.status,
            self.retry_after_s,
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
            joined: Vec::new(),
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
        let Some(body_length) = head.body_length else {
            self.receive_chunks(head.length).await?;
            return Ok(Answer {
                status: head.status,
                retry_after_s: head.retry_after_s,
                body: &self.joined,
            });
        };
        let end = head.length.saturating_add(body_length);
        while self.received.len() < end {
            self.receive().await?;
        }
        ensure!(
            self.received.len() == end,
            "the answer is longer than it says"
        );
        Ok(Answer {
            status: head.status,
            retry_after_s: head.retry_after_s,
            body: &self.received[head.length..end],
        })
    }

    /// Joins the chunks that begin at `at`. There are no trailers.
    async fn receive_chunks(&mut self, mut at: usize) -> Result<()> {
        self.joined.clear();
        loop {
            let line_end = loop {
                if let Some(length) = find(&self.received[at..], END_OF_LINE) {
                    break at + length;
                }
                self.receive().await?;
            };
            let size = str::from_utf8(&self.received[at..line_end])?;
            let size = usize::from_str_radix(size, 16)
                .with_context(|| format!("no chunk's size: {size:?}"))?;
            let begin = line_end + END_OF_LINE.len();
            let end = begin.saturating_add(size);
            at = end.saturating_add(END_OF_LINE.len());
            while self.received.len() < at {
                self.receive().await?;
            }
            ensure!(
                self.received[end..at] == *END_OF_LINE,
                "a chunk is longer than it says"
            );
            if size == 0 {
                break;
            }
            self.joined.extend_from_slice(&self.received[begin..end]);
        }
        ensure!(
            self.received.len() == at,
            "something follows the last chunk"
        );
        Ok(())
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
    /// Looked for where a call was refused only.
    retry_after_s: Option<u32>,
    /// Bytes of the head with the empty line that ends it.
    length: usize,
    /// Bytes of the body; none if it comes in chunks.
    body_length: Option<usize>,
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
            let body_length = match () {
                () if name.eq_ignore_ascii_case("content-length") => {
                    Some(value.trim().parse().context("no length")?)
                }
                () if name.eq_ignore_ascii_case("transfer-encoding") => {
                    ensure!(value.trim() == "chunked", "unknown encoding: {value}");
                    None
                }
                () => continue,
            };
            return Ok(Self {
                status,
                retry_after_s: match status {
                    429 | 503 => retry_after_s(head),
                    _ => None,
                },
                length,
                body_length,
            });
        }
        // A 204 would be one; nothing that is called here answers so.
        bail!("the answer does not state where it ends: {head}")
    }
}

fn retry_after_s(head: &str) -> Option<u32> {
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    value.trim().parse().ok()
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
