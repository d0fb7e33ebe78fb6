//! What a guest answers, as far as it has come: head, body, and how the body ended.
//!
//! Whoever drives the guest [gathers](Reply::gather) what it says. A call through the API wants all of it. A
//! caller who speaks HTTP wants it as it comes: what the guest says before it first waits is gathered (most
//! answers are complete by then), the rest flows straight from the guest to the caller.
//!
//! **Invariant:** a body counts as whole only if the guest finished it and it is as long as its head says; where a
//! client expects none (of a HEAD, a 204, a 304) the head is the whole answer, whatever becomes of the body.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use hyper::body::Body as _;
use tokio::task::coop::unconstrained;
use wasmtime_wasi_http::WasiBody;

use super::measure::{Measure, no_final_status, no_length, too_many_headers};
use super::{Wanted, code};
use crate::answer::{FAILURE_BODY_BYTES_MAX, Meaning, meaning};
use crate::model::Failure;
use crate::runtime::host_limits::{GATHERED_BYTES_MAX, RESPONSE_TRAILERS_MAX};

/// The answer of one attempt's guest, shared by the guest's host calls, whoever drives it, and the caller's
/// end of a body that flows.
#[derive(Debug)]
pub(super) struct Reply(Mutex<State>);

#[derive(Debug)]
struct State {
    wanted: Wanted,
    head: Option<Parts>,
    /// Kept when the head has been handed over.
    status: Option<StatusCode>,
    mistake: Option<Failure>,
    body: Option<WasiBody>,
    measure: Measure,
    gathered: VecDeque<Bytes>,
    gathered_bytes: usize,
    trailers: Option<HeaderMap>,
    stage: Stage,
    is_whole: bool,
    /// Who waits for the guest's next piece.
    caller: Option<Waker>,
    /// Who waits for the body's end.
    driver: Option<Waker>,
}

/// Where the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is gathered here.
    Gathering,
    /// It flows to the caller.
    Flowing,
    /// The caller has gone with all that the head promised: what else comes is taken, so that the guest can end.
    Draining,
    /// The caller has gone before that: the guest is told so.
    Cut,
}

/// An answer as it stands when the guest has ended.
pub(super) struct Taken {
    /// Status and headers, if the guest got that far and they were not handed over.
    pub(super) head: Option<Parts>,
    /// The status, if the guest got that far.
    pub(super) status: Option<StatusCode>,
    /// The body, or the beginning of one that is no success.
    pub(super) body: Bytes,
    /// Whether there is to be one.
    pub(super) has_body: bool,
    /// What came behind it.
    pub(super) trailers: Option<HeaderMap>,
    /// Whether the body was finished, and as long as the head says.
    pub(super) is_whole: bool,
    /// What the guest did wrong in answering.
    pub(super) mistake: Option<Failure>,
    /// Whether the body is larger than the spec allows.
    pub(super) is_too_large: bool,
    /// Whether the caller left before the end.
    pub(super) caller_left: bool,
    /// Bytes of body that the guest sent.
    pub(super) sent_bytes: u64,
}

/// What there was to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Gathered {
    /// Nothing, for now; or there is no room for more.
    Nothing,
    /// A piece of the body, or its end.
    Some,
    /// Nobody wants more.
    Enough,
}

/// A piece of a flowing body.
pub(super) enum Flow {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// The guest did not finish it.
    Broken,
}

impl Reply {
    /// An answer that is awaited.
    pub(super) fn new(wanted: Wanted) -> Self {
        Self(Mutex::new(State {
            wanted,
            head: None,
            status: None,
            mistake: None,
            body: None,
            measure: Measure::default(),
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            trailers: None,
            stage: Stage::Gathering,
            is_whole: false,
            caller: None,
            driver: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest answers.
    pub(super) fn answer(&self, response: http::Response<WasiBody>) {
        let (head, body) = response.into_parts();
        let mut state = self.lock();
        let mistake = too_many_headers(&head.headers).or_else(|| match state.wanted {
            Wanted::All(_) => None,
            Wanted::AsItComes | Wanted::Head => {
                no_final_status(head.status).or_else(|| no_length(&head.headers))
            }
        });
        if mistake.is_some() {
            state.mistake = mistake;
            return;
        }
        state.status = Some(head.status);
        if state.wanted.has_body(head.status) {
            state.measure = Measure::of(&head.headers);
        }
        state.head = Some(head);
        state.body = Some(body);
    }

    /// The guest says that it cannot answer.
    pub(super) fn refuse(&self, why: &str) {
        let message = format!("the function answered with an error instead of a response: {why}");
        self.lock().mistake = Some(Failure::new(code::RESPONSE_ERROR, message));
    }

    /// Takes what there is of the body, as far as it is to be gathered.
    pub(super) fn gather(&self, cx: &mut Context<'_>) -> Gathered {
        let mut state = self.lock();
        let gathered = state.gather(cx, Reach::Room);
        if state.stage == Stage::Flowing {
            state.await_caller(cx);
        }
        gathered
    }

    /// The guest has returned, or trapped, and its store still lives: what is left of the body is taken. A
    /// body that it never finished is finished now, if it returned (some guests leave that to the end of
    /// their instance), else it is broken.
    pub(super) fn guest_ended(&self, cx: &mut Context<'_>, returned: bool) {
        let mut state = self.lock();
        // Unconstrained: what a task that has used up its turn does not see would be lost.
        let taking = unconstrained(poll_fn(|cx| Poll::Ready(state.gather(cx, Reach::All))));
        let _ = pin!(taking).poll(cx);
        if returned
            && state.body.is_some()
            && let Err(mistake) = state.end(None)
        {
            state.mistake = Some(mistake);
        }
        state.close();
    }

    /// The guest was cut: nothing more will come.
    pub(super) fn guest_cut(&self) {
        self.lock().close();
    }

    /// Returns once the body has come to its end, or nobody wants the rest. Gathers meanwhile.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.gather(cx, Reach::Room) == Gathered::Enough || state.body.is_none() {
            return Poll::Ready(());
        }
        state.await_caller(cx);
        Poll::Pending
    }

    /// What is to be done with the answer now that the guest waits for something, if it is the caller's turn.
    pub(super) fn handing_over(&self) -> Option<HandingOver> {
        let mut state = self.lock();
        if matches!(state.wanted, Wanted::All(_)) || state.mistake.is_some() {
            return None;
        }
        let head = state.head.as_ref()?;
        if !state.wanted.has_body(head.status) {
            state.body = None;
            state.is_whole = true;
            return Some(HandingOver::HeadIsAll);
        }
        let head = state.head.take()?;
        if state.is_whole {
            let (body, trailers) = (state.joined(), state.trailers.take());
            return Some(HandingOver::Whole(head, body, trailers));
        }
        state.stage = Stage::Flowing;
        Some(HandingOver::Flowing(head))
    }

    /// The next piece of a body that flows.
    pub(super) fn poll_flow(&self, cx: &mut Context<'_>) -> Poll<Flow> {
        let mut state = self.lock();
        if let Some(data) = state.gathered.pop_front() {
            state.gathered_bytes -= data.len();
            return Poll::Ready(Flow::Data(data));
        }
        if state.body.is_none() {
            let trailers = state.trailers.take();
            return Poll::Ready(match (trailers, state.is_whole) {
                (Some(trailers), _) => Flow::Trailers(trailers),
                (None, true) => Flow::End,
                (None, false) => Flow::Broken,
            });
        }
        match state.poll_body(cx) {
            Poll::Pending => {
                state.caller = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(Piece::Data(data)) => Poll::Ready(Flow::Data(data)),
            Poll::Ready(Piece::End) => {
                state.wake_driver();
                let trailers = state.trailers.take();
                Poll::Ready(trailers.map_or(Flow::End, Flow::Trailers))
            }
            Poll::Ready(Piece::Broken) => {
                state.wake_driver();
                Poll::Ready(Flow::Broken)
            }
        }
    }

    /// Whether it is complete and nothing is wrong with it, so that the guest can be asked again.
    pub(super) fn is_in_order(&self) -> bool {
        let state = self.lock();
        let is_cut = state.stage == Stage::Cut || state.mistake.is_some();
        state.is_whole && !is_cut && !state.is_too_large()
    }

    /// Whether the caller has got all that there will be.
    pub(super) fn has_flowed(&self) -> bool {
        self.lock().has_flowed()
    }

    /// The caller does not want the rest: a guest that goes on writing is told so.
    pub(super) fn caller_gone(&self) {
        let mut state = self.lock();
        if state.has_flowed() {
            state.stage = Stage::Draining;
        } else {
            state.stage = Stage::Cut;
            state.body = None;
        }
        state.gathered.clear();
        state.gathered_bytes = 0;
        state.wake_driver();
    }

    /// All of it. To be called once, when the guest is gone.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.lock();
        let is_too_large = state.is_too_large();
        // Of one that flows the rest is the caller's.
        let (body, trailers) = match state.stage {
            Stage::Gathering => (state.joined(), state.trailers.take()),
            Stage::Flowing | Stage::Draining | Stage::Cut => (Bytes::new(), None),
        };
        let has_body = state.head.is_some() && !state.has_all_in_head();
        Taken {
            has_body,
            head: state.head.take(),
            status: state.status,
            body,
            trailers,
            is_whole: state.is_whole,
            mistake: state.mistake.take(),
            is_too_large,
            caller_left: state.stage == Stage::Cut,
            sent_bytes: state.measure.seen(),
        }
    }
}

/// An answer that is ready for its caller.
pub(super) enum HandingOver {
    /// The body flows from here on.
    Flowing(Parts),
    /// It is complete already; the guest only works on.
    Whole(Parts, Bytes, Option<HeaderMap>),
    /// There is to be no body, so there is nothing more to wait for.
    HeadIsAll,
}

/// How far to gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// As long as there is room.
    Room,
    /// Everything: the guest has ended, so there is little.
    All,
}

enum Piece {
    Data(Bytes),
    End,
    Broken,
}

impl State {
    /// Whether there is a head and nobody wants more than that.
    fn has_all_in_head(&self) -> bool {
        self.status
            .is_some_and(|status| !self.wanted.has_body(status))
    }

    fn is_success(&self) -> bool {
        self.head
            .as_ref()
            .is_some_and(|head| meaning(head.status, &head.headers) == Meaning::Success)
    }

    fn is_too_large(&self) -> bool {
        match self.wanted {
            Wanted::All(bytes_max) => self.gathered_bytes > bytes_max && self.is_success(),
            Wanted::AsItComes | Wanted::Head => false,
        }
    }

    fn has_flowed(&self) -> bool {
        let nothing_left = self.gathered.is_empty() && self.trailers.is_none();
        nothing_left && (self.is_whole || self.measure.is_reached())
    }

    fn has_room(&self) -> bool {
        match self.wanted {
            Wanted::All(_) => true,
            Wanted::AsItComes | Wanted::Head => self.gathered_bytes < GATHERED_BYTES_MAX,
        }
    }

    fn gather(&mut self, cx: &mut Context<'_>, reach: Reach) -> Gathered {
        if self.stage == Stage::Cut && reach == Reach::Room {
            return Gathered::Enough;
        }
        let mut found = Gathered::Nothing;
        while self.body.is_some() && (reach == Reach::All || self.is_gathering()) {
            let Poll::Ready(piece) = self.poll_body(cx) else {
                break;
            };
            found = Gathered::Some;
            if let Piece::Data(data) = piece {
                self.keep(data);
            }
            if self.is_too_large() {
                return Gathered::Enough;
            }
        }
        found
    }

    fn is_gathering(&self) -> bool {
        match self.stage {
            Stage::Gathering => self.has_room(),
            Stage::Draining => true,
            Stage::Flowing | Stage::Cut => false,
        }
    }

    /// Whoever drives the guest is woken when the caller has got the body's end, or leaves.
    fn await_caller(&mut self, cx: &mut Context<'_>) {
        self.driver = Some(cx.waker().clone());
    }

    /// The next piece of the body; at its end the body is gone.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Piece::End);
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            return Poll::Pending;
        };
        let ended = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match self.measure.add(data.len()) {
                    Ok(()) => return Poll::Ready(Piece::Data(data)),
                    Err(mistake) => Err(mistake),
                },
                Err(frame) => self.end(frame.into_trailers().ok()),
            },
            Some(Err(error)) => Err(self.measure.aborted(&error)),
            None => self.end(None),
        };
        Poll::Ready(match ended {
            Ok(()) => Piece::End,
            // Such a head may state the length that the body would have had, and the guest's host calls take the
            // body that is not there for one that is too short.
            Err(_) if self.has_all_in_head() => {
                self.body = None;
                self.is_whole = true;
                Piece::End
            }
            Err(mistake) => {
                self.body = None;
                self.mistake = Some(mistake);
                Piece::Broken
            }
        })
    }

    fn keep(&mut self, data: Bytes) {
        let is_wanted = match self.wanted {
            // Of what is no success the beginning is enough; the rest is taken so that the guest can end.
            Wanted::All(_) => self.is_success() || self.gathered_bytes < FAILURE_BODY_BYTES_MAX,
            Wanted::AsItComes => !self.has_all_in_head(),
            Wanted::Head => false,
        };
        if is_wanted && matches!(self.stage, Stage::Gathering | Stage::Flowing) {
            self.gathered_bytes += data.len();
            self.gathered.push_back(data);
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        self.body = None;
        self.measure.end()?;
        if let Some(trailers) = trailers {
            if trailers.len() > RESPONSE_TRAILERS_MAX {
                let message = format!(
                    "the response has {} trailers, and may have {RESPONSE_TRAILERS_MAX}",
                    trailers.len()
                );
                return Err(Failure::new(code::HEADERS_TOO_LARGE, message));
            }
            self.trailers = Some(trailers);
        }
        self.is_whole = true;
        Ok(())
    }

    /// Nothing more comes; whoever waits for it is told.
    fn close(&mut self) {
        self.body = None;
        self.is_whole |= self.has_all_in_head();
        if let Some(waker) = self.caller.take() {
            waker.wake();
        }
    }

    fn wake_driver(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    /// What was gathered, as one; a single piece is not copied.
    fn joined(&mut self) -> Bytes {
        let mut pieces = std::mem::take(&mut self.gathered);
        let bytes = std::mem::take(&mut self.gathered_bytes);
        if pieces.len() == 1
            && let Some(piece) = pieces.pop_front()
        {
            return piece;
        }
        let mut whole = BytesMut::with_capacity(bytes);
        for piece in pieces {
            whole.extend_from_slice(&piece);
        }
        whole.freeze()
    }
}
