//! Answers several calls in one instance, where a function asks for that: typed handlers and HTTP functions, one
//! call after another.
//!
//! An instance is kept only when it has answered and nothing of the call goes on: its guest has returned (in WASI
//! 0.3, none of its tasks is left), its requests are over, the caller's body is taken away from it. Between two
//! calls nobody drives the store, so whatever a guest has left behind cannot compute there. Everything that limits
//! or records a call is made new for each; memory is the instance's.
//!
//! **Invariant:** an instance that is waiting holds its place of the pool; one that trapped, met a limit or was
//! cut is never kept.

use std::future::poll_fn;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p3::bindings::Service;

use super::code::Loaded;
use super::engine::Flavor;
use super::exchange::Opened;
use super::handler;
use super::host::{Ctx, Function, FunctionPre};
use super::output::Capture;
use super::ready::{Ready, in_time};
use super::run::{Life, Runner, usize_of};
use super::runnable::Runnable;
use super::shelf::{Holds, Shelf, Ticket};
use super::watch::{Cut, Reins};
use super::{Runtime, web};
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{Dice, Digest, OpenSecret, Reuse};

/// How many calls an instance is given.
#[derive(Debug, Clone, Default)]
pub enum ReuseCalls {
    /// As many as its function's spec says.
    #[default]
    AsSpecified,
    /// Any number up to that, each instance another: so that tests meet what an instance carries from one call
    /// into the next.
    Random(Dice),
}

impl ReuseCalls {
    pub(super) fn of(&self, reuse: Reuse) -> u32 {
        match self {
            Self::AsSpecified => reuse.max_calls,
            Self::Random(dice) => {
                let drawn = dice.number() % u64::from(reuse.max_calls.max(1));
                u32::try_from(drawn).map_or(1, |drawn| drawn + 1)
            }
        }
    }
}

/// An instance that may answer another call.
pub(super) struct Warm {
    pub(super) guest: Guest,
    pub(super) calls_left: u32,
    /// What it was given: it may remember, so whoever is given something else gets another instance.
    pub(super) secrets: Arc<[OpenSecret]>,
    // The order of what follows is that of its end: its code and its place are the last.
    pub(super) loaded: Arc<Loaded>,
    pub(super) room: Room,
}

pub(super) enum Guest {
    Handler(Kept<Function>),
    Http02(Kept<Proxy>),
    Http03(Kept<Service>),
}

/// An instance between two calls.
pub(super) struct Kept<G> {
    pub(super) store: Store<Ctx>,
    pub(super) capture: Capture,
    pub(super) guest: G,
}

impl<G> Kept<G> {
    /// An instance in a store that was kept.
    pub(super) fn of(kept: Option<(Store<Ctx>, Capture)>, guest: G) -> Option<Self> {
        kept.map(|(store, capture)| Self {
            store,
            capture,
            guest,
        })
    }
}

impl Guest {
    fn ctx(&self) -> &Ctx {
        match self {
            Self::Handler(kept) => kept.store.data(),
            Self::Http02(kept) => kept.store.data(),
            Self::Http03(kept) => kept.store.data(),
        }
    }
}

/// Permits that are given back when this is dropped.
pub(super) struct Room {
    permits: Arc<Semaphore>,
    count: u32,
    own: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// What was acquired, to be held for as long as an instance lives.
    pub(super) fn of(
        permit: SemaphorePermit<'_>,
        own: Option<OwnedSemaphorePermit>,
        permits: &Arc<Semaphore>,
    ) -> Self {
        let count = u32::try_from(permit.num_permits()).unwrap_or(u32::MAX);
        permit.forget();
        Self {
            permits: Arc::clone(permits),
            count,
            own,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.permits
            .add_permits(usize::try_from(self.count).unwrap_or(0));
    }
}

/// What a call needs beside its instance.
struct Place {
    loaded: Arc<Loaded>,
    room: Room,
    calls_left: u32,
    init_duration: Option<Duration>,
}

/// The life of a call in the instance that was kept, or in a fresh store.
pub(super) fn take_up<G>(
    engine: &Engine,
    kept: Option<Kept<G>>,
    attempt: &Attempt,
    reins: &Reins<'_>,
) -> (Life, Option<G>) {
    match kept {
        Some(Kept {
            store,
            capture,
            guest,
        }) => (Life::resume(store, capture, attempt, reins), Some(guest)),
        None => {
            let capture = Capture::logs_only(usize_of(attempt.version.spec.log_bytes_max));
            let life = Life::begin(engine, attempt, reins, Bytes::new(), capture);
            (life, None)
        }
    }
}

/// Waits for tasks that a guest has left running, where it can have any: a component may be made of parts that use
/// WASI 0.3, whatever its own world is.
pub(super) async fn settle(store: &mut Store<Ctx>, flavor: Flavor) -> wasmtime::Result<()> {
    if flavor == Flavor::Plain {
        return Ok(());
    }
    store
        .run_concurrent(async |accessor| {
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
        })
        .await
}

/// One call of a typed handler whose instance may answer another.
async fn reuse_handler(
    code: &FunctionPre<Ctx>,
    flavor: Flavor,
    kept: Option<Kept<Function>>,
    attempt: &Attempt,
    reins: &Reins<'_>,
) -> (Ran, Option<Kept<Function>>) {
    let (mut life, function) = take_up(code.engine(), kept, attempt, reins);
    let lived: Result<wasmtime::Result<_>, Cut> = {
        let guest = pin!(async {
            let function = match function {
                Some(function) => function,
                None => {
                    let function = code.instantiate_async(&mut life.store).await?;
                    life.store.data_mut().instantiated = true;
                    function
                }
            };
            let answer = handler::call(&function, &mut life.store, attempt).await?;
            settle(&mut life.store, flavor).await?;
            Ok((answer, function))
        });
        life.watch.live(guest).await
    };
    let (ending, kept) = match lived {
        Ok(Ok((answer, function))) => {
            let (ending, kept) = life.pause(answer);
            (ending, Kept::of(kept, function))
        }
        Ok(Err(error)) => (life.end(Ok(Err(error))), None),
        Err(cut) => (life.end(Err(cut)), None),
    };
    (handler::judge(ending, attempt), kept)
}

/// Whether an instance that came to this may answer another call: it said so itself, in order.
fn is_in_order(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Success { .. } | Outcome::Error(_) | Outcome::Requeue(_) => true,
        Outcome::Retry(failure) => !web::is_broken_answer(&failure.code),
        Outcome::TimedOut(_) | Outcome::Limit(_) | Outcome::Interrupted | Outcome::Fault(_) => {
            false
        }
    }
}

/// Whether an instance that knows these may answer for whoever is given those.
pub(super) fn are_same(known: &[OpenSecret], given: &[OpenSecret]) -> bool {
    known.len() == given.len()
        && known.iter().zip(given).all(|(known, given)| {
            known.key == given.key
                && known.exposure == given.exposure
                && known.value.expose() == given.value.expose()
        })
}

impl Runner {
    /// Runs `attempt` in the instance that is kept, or in a fresh one. Returns the instance if it may answer
    /// another call.
    async fn serve_again(
        &self,
        loaded: &Loaded,
        kept: Option<Guest>,
        attempt: &Attempt,
        exchange: Option<Box<Opened>>,
        stop: &CancellationToken,
    ) -> (Ran, Option<Guest>) {
        if stop.is_cancelled() {
            return (Ran::bare(Outcome::Interrupted), kept);
        }
        let _ticking = self.epochs.enter();
        let reins = &Reins {
            stop,
            lane: &self.lane,
            client: &self.client,
        };
        let (runnable, flavor) = (&loaded.runnable, loaded.unit.flavor);
        match (runnable, kept) {
            (Runnable::Handler(code), kept) => {
                let kept = match kept {
                    Some(Guest::Handler(kept)) => Some(kept),
                    _ => None,
                };
                let (ran, kept) = reuse_handler(code, flavor, kept, attempt, reins).await;
                (ran, kept.map(Guest::Handler))
            }
            (Runnable::Http02(code), kept) => {
                let kept = match kept {
                    Some(Guest::Http02(kept)) => Some(kept),
                    _ => None,
                };
                let call = web::reuse_02(code, flavor, kept, attempt, exchange, reins);
                let (ran, kept) = Box::pin(call).await;
                (ran, kept.map(Guest::Http02))
            }
            (Runnable::Http03(code), kept) => {
                let kept = match kept {
                    Some(Guest::Http03(kept)) => Some(kept),
                    _ => None,
                };
                let call = web::reuse_03(code, kept, attempt, exchange, reins);
                let (ran, kept) = Box::pin(call).await;
                (ran, kept.map(Guest::Http03))
            }
            // No version like this is deployed; one that a store had all the same is run as if it did not ask.
            (Runnable::Command02(_) | Runnable::Command03(_) | Runnable::Core(_), _) => (
                Box::pin(self.serve(runnable, attempt, exchange, stop)).await,
                None,
            ),
        }
    }
}

impl Runtime {
    /// Runs one attempt of a function that lets its instances be reused.
    pub(super) async fn run_reused(
        &self,
        reuse: Reuse,
        digest: Digest,
        attempt: &Attempt,
        exchange: Option<Box<Opened>>,
        stop: &CancellationToken,
    ) -> Ran {
        let inner = &*self.inner;
        let fits = |warm: &Warm| are_same(&warm.secrets, &attempt.secrets);
        let (ticket, warm) = inner.shelf.take(&attempt.function, &attempt.version, fits);
        let mut shortened = None;
        let (place, guest) = match warm {
            Some(warm) => {
                let Warm {
                    guest,
                    calls_left,
                    secrets: _,
                    loaded,
                    room,
                } = warm;
                let place = Place {
                    loaded,
                    room,
                    calls_left,
                    init_duration: None,
                };
                (place, Some(guest))
            }
            None => {
                let waiting = in_time(self.ready(digest), Instant::now(), attempt, stop);
                let (ready, late) = Box::pin(waiting).await;
                shortened = Some(late);
                match ready {
                    Ok(ready) => (self.place(ready, reuse), None),
                    Err(outcome) => return Ran::bare(outcome),
                }
            }
        };
        let attempt = shortened.as_ref().unwrap_or(attempt);
        let again = inner
            .runner
            .serve_again(&place.loaded, guest, attempt, exchange, stop);
        let (mut ran, guest) = again.await;
        if place.init_duration.is_some() {
            ran.cold_start = true;
            ran.init_duration = place.init_duration;
        }
        if let Some(guest) = guest
            && is_in_order(&ran.outcome)
        {
            let Place {
                loaded,
                room,
                calls_left,
                ..
            } = place;
            let warm = Warm {
                guest,
                calls_left: calls_left.saturating_sub(1),
                secrets: Arc::clone(&attempt.secrets),
                loaded,
                room,
            };
            self.keep(&ticket, warm, reuse);
        }
        ran
    }

    fn place(&self, ready: Ready<'_>, reuse: Reuse) -> Place {
        let Ready {
            loaded,
            init_duration,
            permit,
            own,
        } = ready;
        Place {
            room: Room::of(permit, own, &self.inner.permits),
            loaded,
            calls_left: self.inner.reuse_calls.of(reuse),
            init_duration,
        }
    }

    /// Puts an instance that has answered where the next call finds it, if it may answer one.
    pub(super) fn keep<S>(&self, ticket: &Ticket<S, Warm>, warm: Warm, reuse: Reuse)
    where
        S: Deref<Target = Shelf<Warm>>,
    {
        if warm.calls_left == 0 {
            return;
        }
        let own = warm.room.own.as_ref().map_or(0, |own| own.num_permits());
        let holds = Holds {
            bytes: u64::try_from(warm.guest.ctx().memory.used()).unwrap_or(u64::MAX),
            permits: warm.room.count,
            own_permits: u32::try_from(own).unwrap_or(u32::MAX),
        };
        let idle_for = Duration::from_millis(reuse.idle_ms);
        self.inner.shelf.put(ticket, warm, holds, idle_for);
    }

    /// Ends the instances of a function that wait for a call, and those in use once they have answered: to be called
    /// whenever the function has changed or is gone.
    pub fn retire(&self, function: &crate::model::FunctionName) {
        self.inner.shelf.retire(function);
        // In this order: who opens an instance in between has a ticket of the function as it is now, or is closed here.
        self.inner.crowds.retire(function);
    }

    /// Ends all instances that wait for a call, and keeps none from now on.
    pub fn keep_none(&self) {
        self.inner.shelf.close();
        self.inner.crowds.retire_all();
    }
}
