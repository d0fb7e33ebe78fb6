//! Runs HTTP functions: a request in, a response out, and the status says how it went.
//!
//! wasmtime's own handler would do most of this, and hide why a guest failed; here the trap, the cut and the
//! mistake in a body each get their name.
//!
//! **Invariant:** whatever a guest answers is held in memory up to a limit and no further: a guest that is not
//! listened to waits.

mod http02;
mod http03;
mod outcome;
mod reply;
mod request;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use self::reply::{Gathered, Reply};
use super::host::Ctx;
use super::output::Capture;
use super::run::{Life, usize_of};
use super::watch::Reins;
use crate::execution::{Attempt, Ran};

/// Runs one attempt of a `wasi:http/incoming-handler@0.2` component.
pub(super) async fn run_02(code: &ProxyPre<Ctx>, attempt: &Attempt, reins: &Reins<'_>) -> Ran {
    let request = match request::of_attempt(attempt) {
        Ok(request) => request,
        Err(outcome) => return Ran::bare(outcome),
    };
    let mut life = begin(code.engine(), attempt, reins);
    let reply = Arc::new(Reply::new(usize_of(attempt.version.spec.output_bytes_max)));
    let guest = http02::call(code, &mut life.store, request, &reply);
    let lived = life.watch.live(drive(guest, &reply)).await;
    life.end(lived).judge_all(attempt, |result, witness| {
        outcome::of(result, reply.take(), witness)
    })
}

/// Runs one attempt of a `wasi:http/handler@0.3` component.
pub(super) async fn run_03(code: &ServicePre<Ctx>, attempt: &Attempt, reins: &Reins<'_>) -> Ran {
    let request = match request::of_attempt(attempt) {
        Ok(request) => request,
        Err(outcome) => return Ran::bare(outcome),
    };
    let mut life = begin(code.engine(), attempt, reins);
    let reply = Arc::new(Reply::new(usize_of(attempt.version.spec.output_bytes_max)));
    let guest = http03::call(code, &mut life.store, request, &reply);
    let lived = life.watch.live(drive(guest, &reply)).await;
    life.end(lived).judge_all(attempt, |result, witness| {
        outcome::of(result, reply.take(), witness)
    })
}

fn begin(engine: &wasmtime::Engine, attempt: &Attempt, reins: &Reins<'_>) -> Life {
    let capture = Capture::logs_only(usize_of(attempt.version.spec.log_bytes_max));
    Life::begin(engine, attempt, reins, Bytes::new(), capture)
}

/// Runs the guest and takes what it answers as it comes, so that it never waits for room that there is. Ends
/// early when the guest answers with more than is wanted.
async fn drive(
    guest: impl Future<Output = wasmtime::Result<()>>,
    reply: &Reply,
) -> wasmtime::Result<()> {
    let mut guest = pin!(guest);
    std::future::poll_fn(|cx| {
        loop {
            let polled = guest.as_mut().poll(cx);
            // While the store lives: what a body's end means can be told only then.
            let gathered = reply.gather(cx);
            if let Poll::Ready(result) = polled {
                if result.is_ok() {
                    reply.guest_returned();
                }
                return Poll::Ready(result);
            }
            match gathered {
                Gathered::Some => {}
                Gathered::Nothing => return Poll::Pending,
                Gathered::TooMuch => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}
