//! Runs HTTP functions: a request in, a response out, and the status says how it went.
//!
//! A call through the API becomes a request, and its whole response an outcome. An [`Exchange`](super::Exchange)
//! brings a request of its own and takes the response as it comes. wasmtime's own handler would do most of
//! this, and hide why a guest failed; here the trap, the cut and the mistake in a body each get their name.
//!
//! **Invariant:** whatever a guest answers is held in memory up to a limit and no further: a guest that is not
//! listened to waits.

mod http02;
mod http03;
mod leash;
mod measure;
mod nudge;
mod outcome;
mod outflow;
mod reply;
mod request;
mod together;

pub(super) use leash::{Leash, tie};
pub(super) use reply::Gathered;
pub(super) use together::attend;
#[cfg(test)]
pub(super) use together::drive;

pub use outflow::{BrokenOff, Outflow};

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::response::Parts;
use http::{Response, StatusCode};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use self::nudge::Nudge;
use self::reply::{HandingOver, Reply};
use super::ending::{Ending, Failed};
use super::engine::Flavor;
use super::exchange::{Desk, Opened};
use super::host::Ctx;
use super::output::Capture;
use super::reuse::{Kept, settle, take_up};
use super::run::{Life, usize_of};
use super::watch::{Cut, Reins, Watch};
use crate::execution::{Attempt, Ran, Streamed};

/// Codes of what only HTTP functions do wrong.
mod code {
    pub(super) const NO_RESPONSE: &str = "NO_RESPONSE";
    pub(super) const RESPONSE_ERROR: &str = "RESPONSE_ERROR";
    pub(super) const RESPONSE_SET_TWICE: &str = "RESPONSE_SET_TWICE";
    pub(super) const HEADERS_TOO_LARGE: &str = "RESPONSE_HEADERS_TOO_LARGE";
    pub(super) const UNEXPECTED_STATUS: &str = "UNEXPECTED_STATUS";
    pub(super) const BODY_TOO_LONG: &str = "BODY_TOO_LONG";
    pub(super) const BODY_TOO_SHORT: &str = "BODY_TOO_SHORT";
    pub(super) const BODY_ABORTED: &str = "BODY_ABORTED";
    pub(super) const CONTENT_LENGTH_INVALID: &str = "CONTENT_LENGTH_INVALID";
    pub(super) const ALL: [&str; 9] = [
        NO_RESPONSE,
        RESPONSE_ERROR,
        RESPONSE_SET_TWICE,
        HEADERS_TOO_LARGE,
        UNEXPECTED_STATUS,
        BODY_TOO_LONG,
        BODY_TOO_SHORT,
        BODY_ABORTED,
        CONTENT_LENGTH_INVALID,
    ];
}

/// Whether a failure of this code means that there is no answer of the function's, not even one that says no.
pub(super) fn is_broken_answer(failure_code: &str) -> bool {
    failure_code == super::ending::TRAP || code::ALL.contains(&failure_code)
}

/// What of a response somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All of it at the end, at most so many bytes of body.
    All(usize),
    /// The body as it comes.
    AsItComes,
    /// No body.
    Head,
}

impl Wanted {
    /// Whether anybody wants the body of a response with this status.
    fn has_body(self, status: StatusCode) -> bool {
        match self {
            Self::All(_) => true,
            Self::Head => false,
            // Of these a client expects none, whatever the head says.
            Self::AsItComes => !matches!(
                status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
            ),
        }
    }
}

/// How often a guest is asked again within one turn.
const ASKED_AGAIN_MAX: u32 = 64;

/// Epochs for which a guest may compute between its response's head and whatever comes next before the caller
/// gets the head: what goes wrong until then can still be answered with an error.
const YIELDS_MAX: u32 = 8;

/// Runs one attempt of a `wasi:http/incoming-handler@0.2` component.
pub(super) async fn run_02(
    code: &ProxyPre<Ctx>,
    attempt: &Attempt,
    exchange: Option<Box<Opened>>,
    reins: &Reins<'_>,
) -> Ran {
    let (request, conversation) = match Conversation::begin(attempt, exchange) {
        Ok(begun) => begun,
        Err(ran) => return *ran,
    };
    let mut life = begin(code.engine(), attempt, reins);
    let lived = {
        let guest = pin!(http02::call(
            code,
            &mut life.store,
            request,
            &conversation.reply
        ));
        let driven = pin!(conversation.drive(guest, &life.watch, None));
        life.watch.live(driven).await
    };
    conversation.conclude(attempt, life, lived)
}

/// Runs one attempt of a `wasi:http/handler@0.3` component.
pub(super) async fn run_03(
    code: &ServicePre<Ctx>,
    attempt: &Attempt,
    exchange: Option<Box<Opened>>,
    reins: &Reins<'_>,
) -> Ran {
    let (request, conversation) = match Conversation::begin(attempt, exchange) {
        Ok(begun) => begun,
        Err(ran) => return *ran,
    };
    let mut life = begin(code.engine(), attempt, reins);
    let lived = {
        let guest = pin!(http03::call(
            code,
            &mut life.store,
            request,
            &conversation.reply
        ));
        let driven = pin!(conversation.drive(guest, &life.watch, Some(Nudge::new())));
        life.watch.live(driven).await
    };
    conversation.conclude(attempt, life, lived)
}

/// One call of a `wasi:http/incoming-handler@0.2` component whose instance may answer another: in the one that is
/// kept, or in a fresh one.
pub(super) async fn reuse_02(
    code: &ProxyPre<Ctx>,
    flavor: Flavor,
    kept: Option<Kept<Proxy>>,
    attempt: &Attempt,
    exchange: Option<Box<Opened>>,
    reins: &Reins<'_>,
) -> (Ran, Option<Kept<Proxy>>) {
    let (leash, exchange) = leash::tie(exchange);
    let (request, conversation) = match Conversation::begin(attempt, exchange) {
        Ok(begun) => begun,
        Err(ran) => return (*ran, kept),
    };
    let (mut life, proxy) = take_up(code.engine(), kept, attempt, reins);
    let mut done = None;
    let lived = {
        let guest = pin!(async {
            let proxy = match proxy {
                Some(proxy) => proxy,
                None => http02::instantiate(code, &mut life.store).await?,
            };
            http02::call_in(&proxy, &mut life.store, request, &conversation.reply).await?;
            settle(&mut life.store, flavor).await?;
            done = Some(proxy);
            Ok(())
        });
        let driven = pin!(conversation.drive(guest, &life.watch, None));
        life.watch.live(driven).await
    };
    conversation.conclude_and_keep(attempt, life, lived, done, leash)
}

/// The same for a `wasi:http/handler@0.3` component.
pub(super) async fn reuse_03(
    code: &ServicePre<Ctx>,
    kept: Option<Kept<Service>>,
    attempt: &Attempt,
    exchange: Option<Box<Opened>>,
    reins: &Reins<'_>,
) -> (Ran, Option<Kept<Service>>) {
    let (leash, exchange) = leash::tie(exchange);
    let (request, conversation) = match Conversation::begin(attempt, exchange) {
        Ok(begun) => begun,
        Err(ran) => return (*ran, kept),
    };
    let (mut life, service) = take_up(code.engine(), kept, attempt, reins);
    let mut done = None;
    let lived = {
        let guest = pin!(async {
            let service = match service {
                Some(service) => service,
                None => http03::instantiate(code, &mut life.store).await?,
            };
            http03::call_in(&service, &mut life.store, request, &conversation.reply).await?;
            done = Some(service);
            Ok(())
        });
        let driven = pin!(conversation.drive(guest, &life.watch, Some(Nudge::new())));
        life.watch.live(driven).await
    };
    conversation.conclude_and_keep(attempt, life, lived, done, leash)
}

fn begin(engine: &wasmtime::Engine, attempt: &Attempt, reins: &Reins<'_>) -> Life {
    let capture = Capture::logs_only(usize_of(attempt.version.spec.log_bytes_max));
    Life::begin(engine, attempt, reins, Bytes::new(), capture)
}

/// One attempt's answer and whoever waits for it.
pub(super) struct Conversation {
    reply: Arc<Reply>,
    caller: Option<Caller>,
}

/// A caller who speaks HTTP.
struct Caller {
    desk: Arc<Desk>,
    received: super::exchange::Received,
}

pub(super) type Request = http::Request<wasmtime_wasi_http::WasiBody>;

impl Conversation {
    /// The request, and what its answer goes to.
    pub(super) fn begin(
        attempt: &Attempt,
        exchange: Option<Box<Opened>>,
    ) -> Result<(Request, Self), Box<Ran>> {
        let (request, wanted, caller) = match exchange {
            None => {
                let request = request::of_attempt(attempt);
                let request = request.map_err(|outcome| Box::new(Ran::bare(outcome)))?;
                let bytes_max = usize_of(attempt.version.spec.output_bytes_max);
                (request, Wanted::All(bytes_max), None)
            }
            Some(opened) => {
                let Opened {
                    mut request,
                    received,
                    desk,
                } = *opened;
                request::label(request.headers_mut(), attempt);
                let wanted = match *request.method() == http::Method::HEAD {
                    true => Wanted::Head,
                    false => Wanted::AsItComes,
                };
                (request, wanted, Some(Caller { desk, received }))
            }
        };
        let reply = Arc::new(Reply::new(wanted));
        Ok((request, Self { reply, caller }))
    }

    /// Runs the guest and takes what it answers as it comes, so that it never waits for room that there is.
    /// Ends early when nobody wants more. With a `nudge` a guest that only has to be asked again is.
    async fn drive(
        &self,
        mut guest: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
        watch: &Watch,
        nudge: Option<Arc<Nudge>>,
    ) -> wasmtime::Result<()> {
        let nudged = nudge.as_ref().map(|nudge| Waker::from(Arc::clone(nudge)));
        let mut yields = 0;
        std::future::poll_fn(|cx| {
            let mut asked_again = 0;
            loop {
                let polled = match (&nudge, &nudged) {
                    (Some(nudge), Some(nudged)) => {
                        nudge.listen(cx);
                        guest.as_mut().poll(&mut Context::from_waker(nudged))
                    }
                    _ => guest.as_mut().poll(cx),
                };
                if let Poll::Ready(result) = polled {
                    // While the store lives: what a body's end means can be told only then.
                    self.reply.guest_ended(cx, result.is_ok());
                    return Poll::Ready(result);
                }
                match self.reply.gather(cx) {
                    Gathered::Some => continue,
                    Gathered::Enough => return Poll::Ready(Ok(())),
                    Gathered::Nothing => {}
                }
                let was_woken = nudge.as_ref().is_some_and(|nudge| nudge.was_woken());
                if was_woken && asked_again < ASKED_AGAIN_MAX {
                    asked_again += 1;
                    continue;
                }
                if watch.has_yielded() && yields < YIELDS_MAX {
                    yields += 1;
                    return Poll::Pending;
                }
                return match self.hand_over() {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                };
            }
        })
        .await
    }

    /// Gives the caller what there is, now that the guest waits for something. Returns whether that is all
    /// that the caller wants.
    pub(super) fn hand_over(&self) -> bool {
        let Some(Caller { desk, .. }) = &self.caller else {
            return false;
        };
        match self.reply.handing_over() {
            None => {}
            Some(HandingOver::HeadIsAll) => return true,
            Some(HandingOver::Whole(head, body, trailers)) => {
                desk.put_and_wake(Response::from_parts(head, Outflow::whole(body, trailers)));
            }
            Some(HandingOver::Flowing(head)) => {
                let body = Outflow::flowing(Arc::clone(&self.reply));
                desk.put_and_wake(Response::from_parts(head, body));
            }
        }
        false
    }

    /// What the run came to, once its store is gone; a response that came whole is handed over.
    fn conclude(
        self,
        attempt: &Attempt,
        life: Life,
        lived: Result<wasmtime::Result<()>, Cut>,
    ) -> Ran {
        // Before the store goes: a body whose guest is gone looks as if it had ended.
        self.reply.guest_cut();
        self.judge(attempt, life.end(lived))
    }

    /// [`Conversation::conclude`], and the instance if it is done with this call and fit for another. One that was
    /// left before it was done is not: what it was about to do would be done in the next call.
    fn conclude_and_keep<G>(
        self,
        attempt: &Attempt,
        life: Life,
        lived: Result<wasmtime::Result<()>, Cut>,
        done: Option<G>,
        leash: Option<Leash>,
    ) -> (Ran, Option<Kept<G>>) {
        self.reply.guest_cut();
        // The guest may still have the body, and the body the caller's connection.
        drop(leash);
        let (ending, kept) = match (lived, done) {
            (Ok(Ok(())), Some(guest)) => {
                let (ending, kept) = life.pause(());
                (ending, Kept::of(kept, guest))
            }
            (lived, _) => (life.end(lived), None),
        };
        let ran = self.judge(attempt, ending);
        (ran, kept)
    }

    /// What an ended run came to. To be asked once.
    pub(super) fn judge(&self, attempt: &Attempt, ending: Ending<()>) -> Ran {
        let taken = self.reply.take();
        let Some(Caller { desk, received }) = &self.caller else {
            return ending.judge_all(attempt, |result, witness| {
                outcome::of_call(result, taken, witness)
            });
        };
        let streamed = Streamed {
            input_bytes: received.bytes(),
            output_bytes: taken.sent_bytes,
        };
        let mut complete = None;
        let ran = ending.judge_all(attempt, |result: Result<(), Failed>, witness| {
            let left = match (taken.caller_left, received.is_broken()) {
                (true, _) => Left::BeforeTheEnd,
                (false, true) => Left::BrokenBody,
                (false, false) => Left::No,
            };
            outcome::of_exchange(result, taken, left, witness, &mut complete)
        });
        if let Some((head, body)) = complete {
            desk.put_complete(Response::from_parts(head, body));
        }
        Ran {
            streamed: Some(streamed),
            ..ran
        }
    }
}

/// Whether a caller went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    No,
    /// With a part of the response.
    BeforeTheEnd,
    /// The request's body broke off: what the function makes of that is its own affair, its failing is not.
    BrokenBody,
}

/// A response that its caller has not got yet.
type Complete = Option<(Parts, Outflow)>;
