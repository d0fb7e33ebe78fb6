//! What a guest answers, as far as it has come: head, body, and how the body ended.
//!
//! **Invariant:** a body counts as whole only if the guest finished it and it is as long as its head says.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use hyper::body::Body as _;
use wasmtime_wasi_http::WasiBody;

use crate::answer::{FAILURE_BODY_BYTES_MAX, Meaning, meaning};
use crate::model::Failure;
use crate::runtime::host_limits::{RESPONSE_HEADER_BYTES_MAX, RESPONSE_HEADERS_MAX};

/// Codes of mistakes that only HTTP functions make.
pub(super) mod code {
    pub(in crate::runtime::web) const NO_RESPONSE: &str = "NO_RESPONSE";
    pub(in crate::runtime::web) const RESPONSE_ERROR: &str = "RESPONSE_ERROR";
    pub(in crate::runtime::web) const RESPONSE_SET_TWICE: &str = "RESPONSE_SET_TWICE";
    pub(in crate::runtime::web) const HEADERS_TOO_LARGE: &str = "RESPONSE_HEADERS_TOO_LARGE";
    pub(in crate::runtime::web) const BODY_TOO_LONG: &str = "BODY_TOO_LONG";
    pub(in crate::runtime::web) const BODY_TOO_SHORT: &str = "BODY_TOO_SHORT";
    pub(in crate::runtime::web) const BODY_ABORTED: &str = "BODY_ABORTED";
}

/// The answer of one attempt's guest, shared by the guest's host calls and whoever drives it.
pub(super) struct Reply(Mutex<State>);

struct State {
    bytes_max: usize,
    head: Option<Parts>,
    mistake: Option<Failure>,
    body: Option<WasiBody>,
    measure: Measure,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    is_whole: bool,
}

/// An answer as it stands when the guest has ended.
pub(super) struct Taken {
    /// Status and headers, if the guest got that far.
    pub(super) head: Option<Parts>,
    /// The body, or the beginning of one that is no success.
    pub(super) body: Bytes,
    /// Whether the body was finished, and as long as the head says.
    pub(super) is_whole: bool,
    /// What the guest did wrong in answering.
    pub(super) mistake: Option<Failure>,
    /// Whether the body is larger than the spec allows.
    pub(super) is_too_large: bool,
}

/// What there was to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gathered {
    /// Nothing, for now.
    Nothing,
    /// A piece of the body, or its end.
    Some,
    /// More than is wanted.
    TooMuch,
}

impl Reply {
    /// An answer that is awaited, whose body may have so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Mutex::new(State {
            bytes_max,
            head: None,
            mistake: None,
            body: None,
            measure: Measure::default(),
            kept: Vec::new(),
            kept_bytes: 0,
            is_whole: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest answers.
    pub(super) fn answer(&self, response: http::Response<WasiBody>) {
        let (head, body) = response.into_parts();
        let mut state = self.lock();
        if let Some(mistake) = too_many_headers(&head) {
            state.mistake = Some(mistake);
            return;
        }
        state.measure.stated = stated_length(&head);
        state.head = Some(head);
        state.body = Some(body);
    }

    /// The guest says that it cannot answer.
    pub(super) fn refuse(&self, why: &str) {
        let message = format!("the function answered with an error instead of a response: {why}");
        self.lock().mistake = Some(Failure::new(code::RESPONSE_ERROR, message));
    }

    /// Takes what there is of the body.
    pub(super) fn gather(&self, cx: &mut Context<'_>) -> Gathered {
        let mut state = self.lock();
        let mut gathered = Gathered::Nothing;
        while let Some(body) = &mut state.body {
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                break;
            };
            gathered = Gathered::Some;
            let result = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => state.keep(data),
                    // Trailers: the end, and nobody wants them.
                    Err(_) => state.end(),
                },
                Some(Err(error)) => Err(state.measure.aborted(&error)),
                None => state.end(),
            };
            if let Err(mistake) = result {
                state.body = None;
                state.mistake = Some(mistake);
            }
            if state.is_too_large() {
                return Gathered::TooMuch;
            }
        }
        gathered
    }

    /// Whether there is nothing more to come: no body, or its end.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().body.is_none()
    }

    /// The guest returned and did not trap: a body that it never finished is finished now. (Some guests leave
    /// that to the end of their instance.)
    pub(super) fn guest_returned(&self) {
        let mut state = self.lock();
        if state.body.is_some()
            && let Err(mistake) = state.end()
        {
            state.mistake = Some(mistake);
        }
    }

    /// All of it. To be called once, when the guest is gone.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.lock();
        let is_too_large = state.is_too_large();
        Taken {
            head: state.head.take(),
            body: joined(std::mem::take(&mut state.kept), state.kept_bytes),
            is_whole: state.is_whole,
            mistake: state.mistake.take(),
            is_too_large,
        }
    }
}

impl State {
    fn is_success(&self) -> bool {
        self.head
            .as_ref()
            .is_some_and(|head| meaning(head.status, &head.headers) == Meaning::Success)
    }

    fn is_too_large(&self) -> bool {
        self.kept_bytes > self.bytes_max && self.is_success()
    }

    fn keep(&mut self, data: Bytes) -> Result<(), Failure> {
        self.measure.add(data.len())?;
        // Of what is no success the beginning is enough; the rest is taken so that the guest can end.
        if self.is_success() || self.kept_bytes < FAILURE_BODY_BYTES_MAX {
            self.kept_bytes += data.len();
            self.kept.push(data);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.body = None;
        self.measure.end()?;
        self.is_whole = true;
        Ok(())
    }
}

/// Compares a body with the length that its head states.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    stated: Option<u64>,
    seen: u64,
}

impl Measure {
    fn add(&mut self, bytes: usize) -> Result<(), Failure> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.seen = self.seen.saturating_add(bytes);
        match self.stated {
            Some(stated) if self.seen > stated => Err(self.too_long(stated)),
            Some(_) | None => Ok(()),
        }
    }

    fn end(&self) -> Result<(), Failure> {
        match self.stated {
            Some(stated) if self.seen < stated => Err(self.too_short(stated)),
            Some(_) | None => Ok(()),
        }
    }

    /// What an error of the body says: the guest's host calls check the length too, and tell only the guest.
    fn aborted(&self, error: &wasmtime_wasi_http::Error) -> Failure {
        use wasmtime_wasi_http::Error;
        match (self.stated, error) {
            (Some(stated), Error::HttpResponseBodySize(Some(size))) if *size > stated => Self {
                seen: *size,
                ..*self
            }
            .too_long(stated),
            (Some(stated), _) if self.seen < stated => self.too_short(stated),
            _ => Failure::new(
                code::BODY_ABORTED,
                "the function gave up its response's body before it was finished",
            ),
        }
    }

    fn too_long(&self, stated: u64) -> Failure {
        let message = format!(
            "the response's body is longer than its Content-Length of {stated} bytes: at least {} bytes",
            self.seen
        );
        Failure::new(code::BODY_TOO_LONG, message)
    }

    fn too_short(&self, stated: u64) -> Failure {
        let message = format!(
            "the response's body is shorter than its Content-Length of {stated} bytes: it ended after {} bytes",
            self.seen
        );
        Failure::new(code::BODY_TOO_SHORT, message)
    }
}

fn stated_length(head: &Parts) -> Option<u64> {
    let length = head.headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    length.parse().ok()
}

fn too_many_headers(head: &Parts) -> Option<Failure> {
    let count = head.headers.len();
    let bytes: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if count <= RESPONSE_HEADERS_MAX && bytes <= RESPONSE_HEADER_BYTES_MAX {
        return None;
    }
    let message = format!(
        "the response has {count} header fields of {bytes} bytes, and may have {RESPONSE_HEADERS_MAX} of \
         {RESPONSE_HEADER_BYTES_MAX} bytes together"
    );
    Some(Failure::new(code::HEADERS_TOO_LARGE, message))
}

/// Pieces as one; a single one is not copied.
fn joined(mut pieces: Vec<Bytes>, bytes: usize) -> Bytes {
    if pieces.len() == 1
        && let Some(piece) = pieces.pop()
    {
        return piece;
    }
    let mut whole = BytesMut::with_capacity(bytes);
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}
