//! Keeps an instance while several calls may be in it: finds it or makes it, drives it, puts it back.
//!
//! **Invariant:** what it holds (the store, its place, its ticket) is gone before those are told who were in it to the
//! end; if it is dropped itself, all are told.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio_util::sync::CancellationToken;

use super::list::Joined;
use super::{Call, Crowd, Seat};
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{Code, Digest, FunctionName, Reuse, Shape};
use crate::runtime::Runtime;
use crate::runtime::code::Loaded;
use crate::runtime::exchange::Opened;
use crate::runtime::ready::Ready;
use crate::runtime::reuse::{Guest, Kept, Room, Warm, are_same};
use crate::runtime::runnable::Runnable;
use crate::runtime::shelf::{Shelf, Ticket};
use crate::runtime::watch::Reins;
use crate::runtime::web::{self, Conversation};

/// A ticket that a task of its own can hold.
type OwnTicket = Ticket<Arc<Shelf<Warm>>, Warm>;

/// From this many faults on an execution has an instance for itself.
const FAULTS_ALONE: u32 = 2;

/// An instance that is there or is to be made.
struct Opening {
    ticket: OwnTicket,
    warm: Option<Warm>,
}

impl Runtime {
    /// Whether this attempt may share an instance with others. One whose execution has lost attempts that way before may
    /// not, so that no number of others who trap can use up its faults.
    pub(in crate::runtime) fn may_share(&self, reuse: Reuse, attempt: &Attempt) -> bool {
        if attempt.faults >= FAULTS_ALONE {
            return false;
        }
        let is_of_shape = match &attempt.version.code {
            Code::Wasm { shape, .. } => *shape == Shape::Http03,
            Code::Echo | Code::Endpoint { .. } => false,
        };
        reuse.max_concurrent > 1 && is_of_shape && self.inner.shelf.is_open()
    }

    /// Runs one attempt of a function whose instances take several at once.
    pub(in crate::runtime) async fn run_shared(
        &self,
        reuse: Reuse,
        digest: Digest,
        attempt: &Attempt,
        exchange: Option<Box<Opened>>,
        stop: &CancellationToken,
    ) -> Ran {
        if stop.is_cancelled() {
            return Ran::bare(Outcome::Interrupted);
        }
        let (leash, exchange) = web::tie(exchange);
        let (request, conversation) = match Conversation::begin(attempt, exchange) {
            Ok(begun) => begun,
            Err(ran) => return *ran,
        };
        let call = Call::new(attempt.clone(), conversation);
        let shelf = &self.inner.shelf;
        let open = || {
            let fits = |warm: &Warm| are_same(&warm.secrets, &attempt.secrets);
            let (function, version) = (&attempt.function, &attempt.version);
            let (ticket, warm) = Shelf::take_for(Arc::clone(shelf), function, version, fits);
            let calls_left = match &warm {
                Some(warm) => warm.calls_left,
                None => self.inner.reuse_calls.of(reuse),
            };
            (Opening { ticket, warm }, calls_left)
        };
        let is_wanted = shelf.is_wanted();
        let crowds = &self.inner.crowds;
        let seat = match crowds.join(call, request, reuse.max_concurrent, is_wanted, open) {
            Ok(Joined::Others(seat)) => {
                shelf.count_reused();
                seat
            }
            Ok(Joined::First(seat, crowd, opening)) => {
                self.begin_to_keep(crowd, opening, reuse, digest, &attempt.function);
                seat
            }
            Err(super::Ended) => {
                return Ran::bare(Outcome::Fault("its instance takes no calls".to_owned()));
            }
        };
        let ran = Seat::outcome(seat, stop).await;
        // The guest may still have the body, and the body the caller's connection.
        drop(leash);
        ran
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it ends once the calls in it have, for which a stop waits"
    )]
    fn begin_to_keep(
        &self,
        crowd: Arc<Crowd>,
        opening: Opening,
        reuse: Reuse,
        digest: Digest,
        function: &FunctionName,
    ) {
        let keeper = Keeper {
            runtime: self.clone(),
            function: function.clone(),
            crowd,
        };
        drop(tokio::spawn(async move {
            keeper.keep(opening, reuse, digest).await;
        }));
    }
}

/// Whoever keeps an instance.
struct Keeper {
    runtime: Runtime,
    function: FunctionName,
    crowd: Arc<Crowd>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.runtime
            .inner
            .crowds
            .forget(&self.function, &self.crowd);
        // Of those that are still in it nobody knows how they ended.
        drop(self.crowd.take_all());
    }
}

impl Keeper {
    async fn keep(&self, opening: Opening, reuse: Reuse, digest: Digest) {
        let inner = &*self.runtime.inner;
        let crowd = &self.crowd;
        let Opening { ticket, warm } = opening;
        let (loaded, room, kept) = match warm {
            Some(Warm {
                guest,
                loaded,
                room,
                ..
            }) => (loaded, room, guest.of_http03()),
            None => match self.ready(digest).await {
                Some(Ok((loaded, room))) => (loaded, room, None),
                Some(Err(outcome)) => return crowd.never(&outcome),
                None => return,
            },
        };
        let Runnable::Http03(code) = &loaded.runnable else {
            let outcome = Outcome::Fault("its code is not what it was deployed as".to_owned());
            return crowd.never(&outcome);
        };
        let Some(first) = crowd.first() else {
            return;
        };
        let ticking = inner.runner.epochs.enter();
        let stop = CancellationToken::new();
        let reins = &Reins {
            stop: &stop,
            lane: &inner.runner.lane,
            client: &inner.runner.client,
        };
        let attended = Box::pin(web::attend(code, kept, crowd, &first.attempt, reins)).await;
        drop(ticking);
        // Who comes from here on begins another one, which may be this.
        inner.crowds.forget(&self.function, crowd);
        if let Some(kept) = attended.kept {
            let warm = Warm {
                guest: Guest::Http03(kept),
                calls_left: crowd.calls_left(),
                secrets: Arc::clone(&crowd.secrets),
                loaded,
                room,
            };
            self.runtime.keep(&ticket, warm, reuse);
        } else {
            drop((loaded, room));
        }
        drop(ticket);
        crowd.end(attended.result, attended.remains);
    }

    /// Code and a place, or why there are none; nothing once nobody waits for them any more.
    async fn ready(&self, digest: Digest) -> Option<Result<(Arc<Loaded>, Room), Outcome>> {
        let deserted = poll_fn(|cx| {
            self.crowd.listen(cx);
            match self.crowd.is_deserted() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let mut deserted = pin!(deserted);
        let ready = tokio::select! {
            biased;
            () = &mut deserted => return None,
            ready = self.runtime.ready(digest) => ready,
        };
        Some(ready.map(|ready| {
            let Ready {
                loaded,
                init_duration,
                permit,
                own,
            } = ready;
            self.crowd.make_ready(init_duration);
            let room = Room::of(permit, own, &self.runtime.inner.permits);
            (loaded, room)
        }))
    }
}

impl Guest {
    /// The instance, if it is one of these.
    fn of_http03(self) -> Option<Kept<wasmtime_wasi_http::p3::bindings::Service>> {
        match self {
            Self::Http03(kept) => Some(kept),
            Self::Handler(_) | Self::Http02(_) => None,
        }
    }
}
