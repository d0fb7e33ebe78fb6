//! HTTP/2 frame by frame, exactly as a test writes it: what no client would send, and what one would not do.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{PATIENCE, SocketAddr};

/// What a frame is.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Why something is given up.
pub(super) mod reason {
    pub(in super::super) const REFUSED_STREAM: u32 = 7;
    pub(in super::super) const CANCEL: u32 = 8;
    pub(in super::super) const ENHANCE_YOUR_CALM: u32 = 11;
}

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// As far as a window goes.
pub(super) const WIDE: u32 = (1 << 31) - 1;
/// Settings: the window that every stream begins with.
pub(super) const INITIAL_WINDOW: u16 = 4;
/// Settings: streams at once.
pub(super) const STREAMS_MAX: u16 = 3;
/// The window of a connection before anybody opens it further.
const CONNECTION_WINDOW: u32 = 65_535;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Its last number: the reason of a reset or of a farewell (which has no text here).
    pub(super) fn reason(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The bytes of a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A GET's head, compressed as little as can be.
pub(super) fn head(path: &str) -> Vec<u8> {
    // :method GET, :scheme http, and two names of the static table with their texts.
    let mut block = vec![0x82, 0x86];
    for (name, text) in [(0x01, "x"), (0x04, path)] {
        block.push(name);
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    }
    block
}

/// A header that nobody knows, with so many bytes.
pub(super) fn header(bytes: usize) -> Vec<u8> {
    let mut block = vec![0x00, 1, b'a', 0x7f];
    // The length: 7 bits are full, the rest follows in sevens.
    let mut rest = bytes.checked_sub(0x7f).unwrap();
    while rest >= 0x80 {
        block.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
        rest /= 0x80;
    }
    block.push(u8::try_from(rest).unwrap());
    block.resize(block.len() + bytes, b'b');
    block
}

/// GET on a stream.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &head(path))
}

/// Opens a window further; 0 is the connection's.
pub(super) fn open(stream: u32, by: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// Takes a request back.
pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &reason::CANCEL.to_be_bytes())
}

/// The numbers of the streams that a client may open.
pub(super) fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// A connection on which nothing happens by itself.
pub(super) struct Client(TcpStream);

impl Client {
    /// One whose streams begin with this window; the connection's own is wide. Its system takes little for it.
    pub(super) async fn open(addr: SocketAddr, window: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::on(socket.connect(addr).await.unwrap(), window).await
    }

    /// The same with as much room as usual.
    pub(super) async fn fast(addr: SocketAddr, window: u32) -> Self {
        Self::on(TcpStream::connect(addr).await.unwrap(), window).await
    }

    async fn on(stream: TcpStream, window: u32) -> Self {
        stream.set_nodelay(true).unwrap();
        let mut client = Self(stream);
        let mut settings = INITIAL_WINDOW.to_be_bytes().to_vec();
        settings.extend(window.to_be_bytes());
        let settings = frame(kind::SETTINGS, 0, 0, &settings);
        let wide = open(0, WIDE - CONNECTION_WINDOW);
        client.send(&[PREFACE, &settings, &wide].concat()).await;
        client
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// The same, where the other end may be gone.
    pub(super) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// The next frame; `None` at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let next = tokio::time::timeout(PATIENCE, self.read());
        next.await.expect("a frame or an end")
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            payload,
        })
    }

    /// The next frame of a kind, whatever comes before; `None` if the connection ends before.
    pub(super) async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        while let Some(frame) = self.next().await {
            if frame.kind == kind {
                return Some(frame);
            }
        }
        None
    }

    /// Returns once everything that was sent has been read at the other end.
    pub(super) async fn sync(&mut self) {
        self.send(&frame(kind::PING, 0, 0, b"in order")).await;
        while self.next_of(kind::PING).await.expect("an end").flags != ACK {}
    }
}
