//! What a guest writes: its standard output and error, kept up to the limits of its spec.
//!
//! **Invariant:** memory used here is bounded by the spec whatever the guest writes; what was cut is marked.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::host_limits::{LOG_LINES_MAX, STDERR_TAIL_BYTES, STREAM_PERMIT_BYTES};
use crate::model::{LogLine, LogStream, Logs};

/// What a log says where it begins to be of several calls.
const SHARED: &str = "other calls are in the instance from here on: a line may be any one's";
/// What it says where it is of one again.
const ALONE: &str = "no other call is in the instance from here on";

/// A command wrote more than its spec allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the output is larger than {0} bytes")]
pub(super) struct OutputTooLarge(pub(super) usize);

/// Where one attempt's writing goes; clones share it.
#[derive(Clone)]
pub(super) struct Capture(Arc<Mutex<Written>>);

/// What one attempt wrote.
pub(super) struct Written {
    logs: Logs,
    /// Bytes that logs may still take.
    log_bytes_left: usize,
    /// The unfinished lines of stdout and stderr.
    unfinished: [Vec<u8>; 2],
    /// The end of stderr, for error messages; kept even where the logs are cut.
    stderr_tail: Vec<u8>,
    /// A command's output; without it stdout goes to the logs.
    output: Option<Collected>,
    /// Where it goes instead, while these calls share an instance.
    listeners: Vec<Capture>,
    /// Whether what comes may be another call's that is in the same instance.
    is_shared: bool,
    /// Whether some of it may be another call's.
    was_shared: bool,
}

/// The output of a command as far as it was written.
struct Collected {
    bytes: BytesMut,
    max: usize,
    overflowed: bool,
}

impl Capture {
    /// Both streams go to the logs, of which at most `log_bytes_max` are kept.
    pub(super) fn logs_only(log_bytes_max: usize) -> Self {
        Self::new(log_bytes_max, None)
    }

    /// Stdout is the output, at most `output_bytes_max`; stderr goes to the logs.
    pub(super) fn with_output(log_bytes_max: usize, output_bytes_max: usize) -> Self {
        let output = Collected {
            bytes: BytesMut::new(),
            max: output_bytes_max,
            overflowed: false,
        };
        Self::new(log_bytes_max, Some(output))
    }

    fn new(log_bytes_max: usize, output: Option<Collected>) -> Self {
        Self(Arc::new(Mutex::new(Written::new(log_bytes_max, output))))
    }

    /// Forgets all that was written: what comes now, by the same streams, is another call's.
    pub(super) fn renew(&self, log_bytes_max: usize) {
        *self.written() = Written::new(log_bytes_max, None);
    }

    /// From now on what is written here goes to all of these, and is marked if there are several: an instance does not
    /// say for which of its calls it writes.
    pub(super) fn tell(&self, listeners: Vec<Self>) {
        self.written().listeners = listeners;
    }

    /// Takes a line that is complete, whatever characters it has.
    pub(super) fn line(&self, stream: LogStream, text: &str) {
        let _ = self.each(|written| {
            written.line(stream, text);
            Ok(())
        });
    }

    /// Does this with what was written by whoever is meant.
    fn each(
        &self,
        write: impl Fn(&mut Written) -> Result<(), OutputTooLarge>,
    ) -> Result<(), OutputTooLarge> {
        let mut own = self.written();
        if own.listeners.is_empty() {
            return write(&mut own);
        }
        let is_shared = own.listeners.len() > 1;
        for listener in &own.listeners {
            let mut written = listener.written();
            written.mark_shared(is_shared);
            write(&mut written)?;
        }
        Ok(())
    }

    /// The writing end that a guest gets as one of its standard streams.
    pub(super) fn stream(&self, stream: LogStream) -> Stream {
        Stream {
            stream,
            capture: self.clone(),
        }
    }

    /// What was written so far. Nothing in here can fail half-way, so a poisoned lock is as good as any.
    pub(super) fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn new(log_bytes_max: usize, output: Option<Collected>) -> Self {
        Self {
            logs: Logs::default(),
            log_bytes_left: log_bytes_max,
            unfinished: [Vec::new(), Vec::new()],
            stderr_tail: Vec::new(),
            output,
            listeners: Vec::new(),
            is_shared: false,
            was_shared: false,
        }
    }

    fn write(&mut self, stream: LogStream, bytes: &[u8]) -> Result<(), OutputTooLarge> {
        match (stream, &mut self.output) {
            (LogStream::Stdout, Some(output)) => return output.write(bytes),
            (LogStream::Stdout, None) => {}
            (LogStream::Stderr, _) => self.remember_tail(bytes),
            // Nobody writes these byte by byte: see `line`.
            (LogStream::Logging | LogStream::Plane, _) => {}
        }
        self.log(stream, bytes);
        Ok(())
    }

    /// Says in the log where it begins to be of several calls, and where it ends.
    fn mark_shared(&mut self, is_shared: bool) {
        if self.is_shared == is_shared {
            return;
        }
        self.is_shared = is_shared;
        self.was_shared |= is_shared;
        self.finish_lines();
        let mark = match is_shared {
            true => SHARED,
            false => ALONE,
        };
        self.line(LogStream::Plane, mark);
    }

    fn finish_lines(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if !self.logs.truncated && !self.unfinished[slot(stream)].is_empty() {
                self.finish_line(stream);
            }
        }
    }

    fn log(&mut self, stream: LogStream, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.logs.truncated {
                return;
            }
            let unfinished = &mut self.unfinished[slot(stream)];
            // One byte more than fits is enough to know that the line has to be cut.
            let room = (self.log_bytes_left + 1).saturating_sub(unfinished.len());
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            unfinished.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() || unfinished.len() > self.log_bytes_left {
                self.finish_line(stream);
            }
        }
    }

    /// Adds a line of ours to what the guest wrote to its standard error.
    pub(super) fn note(&mut self, line: &str) {
        if !self.unfinished[slot(LogStream::Stderr)].is_empty() {
            self.log(LogStream::Stderr, b"\n");
        }
        self.log(LogStream::Stderr, line.as_bytes());
        self.log(LogStream::Stderr, b"\n");
    }

    fn finish_line(&mut self, stream: LogStream) {
        let raw = std::mem::take(&mut self.unfinished[slot(stream)]);
        let raw = raw.strip_suffix(b"\r").unwrap_or(&raw);
        let text = String::from_utf8_lossy(raw).into_owned();
        self.push_line(stream, text);
    }

    /// Whether there is room for any more lines.
    pub(super) fn takes_lines(&self) -> bool {
        !self.logs.truncated
    }

    /// Takes a line that is complete, whatever characters it has.
    pub(super) fn line(&mut self, stream: LogStream, text: &str) {
        if self.logs.truncated {
            return;
        }
        // One byte more than fits is enough to know that the line has to be cut.
        let end = text.ceil_char_boundary(self.log_bytes_left + 1);
        self.push_line(stream, text[..end.min(text.len())].to_owned());
    }

    fn push_line(&mut self, stream: LogStream, mut text: String) {
        if self.logs.lines.len() >= LOG_LINES_MAX {
            self.logs.truncated = true;
            return;
        }
        if text.len() > self.log_bytes_left {
            text.truncate(text.floor_char_boundary(self.log_bytes_left));
            self.logs.truncated = true;
        }
        self.log_bytes_left -= text.len();
        if !(self.logs.truncated && text.is_empty()) {
            self.logs.lines.push(LogLine { stream, text });
        }
    }

    fn remember_tail(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
        self.stderr_tail.extend_from_slice(bytes);
        // Shifting at twice the size keeps single-byte writes cheap.
        if self.stderr_tail.len() > 2 * STDERR_TAIL_BYTES {
            let cut = self.stderr_tail.len() - STDERR_TAIL_BYTES;
            self.stderr_tail.drain(..cut);
        }
    }

    /// The logs, with unfinished lines as they are. To be called once, when the guest is gone.
    pub(super) fn take_logs(&mut self) -> Logs {
        self.finish_lines();
        std::mem::take(&mut self.logs)
    }

    /// A command's output. To be called once, when the guest is gone.
    pub(super) fn take_output(&mut self) -> Bytes {
        match &mut self.output {
            Some(output) => std::mem::take(&mut output.bytes).freeze(),
            None => Bytes::new(),
        }
    }

    /// The limit of the output, if it was passed.
    pub(super) fn overflow(&self) -> Option<OutputTooLarge> {
        let output = self.output.as_ref()?;
        output.overflowed.then_some(OutputTooLarge(output.max))
    }

    /// The last lines of stderr that say something, joined, at most `bytes_max`; empty if there are none, or if they may
    /// be another call's: a message reaches whoever called.
    pub(super) fn last_words(&self, bytes_max: usize) -> String {
        if self.was_shared {
            return String::new();
        }
        let tail = String::from_utf8_lossy(&self.stderr_tail);
        let mut words = String::new();
        let telling = tail.lines().rev().map(str::trim).filter(|line| {
            !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE=")
        });
        for line in telling.take(LAST_WORDS_LINES) {
            let longer = if words.is_empty() {
                line.to_owned()
            } else {
                format!("{line} | {words}")
            };
            if longer.len() > bytes_max {
                if words.is_empty() {
                    words = longer[..longer.floor_char_boundary(bytes_max)].to_owned();
                }
                break;
            }
            words = longer;
        }
        words
    }
}

/// Lines of stderr that an error message quotes, at most: a Rust panic says where in one and what in the next.
const LAST_WORDS_LINES: usize = 2;

impl Collected {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputTooLarge> {
        if bytes.len() > self.max - self.bytes.len() {
            self.overflowed = true;
            return Err(OutputTooLarge(self.max));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn slot(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr | LogStream::Logging | LogStream::Plane => 1,
    }
}

/// The writing end of a guest's standard stream. Always ready; ends the guest when its output is too large.
#[derive(Clone)]
pub(super) struct Stream {
    stream: LogStream,
    capture: Capture,
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {
        // Preview 1 writes a buffer of any size in small pieces within one host call: without this, nothing
        // else would get a turn, and no limit in time, until the last piece.
        tokio::task::coop::consume_budget().await;
    }
}

#[async_trait::async_trait]
impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let written = self.capture.each(|to| to.write(self.stream, &bytes));
        written.map_err(|error| StreamError::Trap(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STREAM_PERMIT_BYTES)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.capture.each(|to| to.write(self.stream, bytes));
        Poll::Ready(written.map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
