//! Runs one attempt in a fresh instance: a store of its own, under every limit, gone when the run returns.
//!
//! **Invariant:** nothing outlives an attempt: deadline, counters, streams and resources are made new for
//! each, and its slot in the pool is free once the run has returned.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use wasmtime::{Engine, Store};

use super::ending::{Ending, Failed};
use super::epoch::Epochs;
use super::exchange::Opened;
use super::given::Given;
use super::host::Ctx;
use super::host_limits::{HANDLES_MAX, HOST_COPY_BYTES_MAX};
use super::lane::Lane;
use super::limits::MemoryLimit;
use super::outgoing::Outgoing;
use super::output::Capture;
use super::runnable::Runnable;
use super::surroundings::Surroundings;
use super::watch::{Cut, Reins, Watch};
use super::{command, handler, web};
use crate::execution::{Attempt, Outcome, Ran};
use crate::net::Client;

/// Runs attempts, each on the engine of its code and in an instance of its own; [`super::reuse`] has the others.
pub(super) struct Runner {
    pub(super) epochs: Arc<Epochs>,
    pub(super) client: Client,
    pub(super) lane: Arc<Lane>,
}

impl Runner {
    /// A runner whose guests are made to look up by `epochs` and call out through `client`.
    pub(super) fn new(epochs: &Arc<Epochs>, client: Client) -> Self {
        Self {
            epochs: Arc::clone(epochs),
            client,
            lane: Arc::default(),
        }
    }

    /// [`Runner::serve`] for a caller who waits for the outcome.
    #[cfg(test)]
    pub(super) async fn run(
        &self,
        runnable: &Runnable,
        attempt: &Attempt,
        stop: &CancellationToken,
    ) -> Ran {
        self.serve(runnable, attempt, None, stop).await
    }

    /// Runs `attempt` to its end, its limits, or `stop`. What the guest did is in the answer; a caller who
    /// speaks HTTP gets the guest's response through `exchange`.
    pub(super) async fn serve(
        &self,
        runnable: &Runnable,
        attempt: &Attempt,
        exchange: Option<Box<Opened>>,
        stop: &CancellationToken,
    ) -> Ran {
        if stop.is_cancelled() {
            return Ran::bare(Outcome::Interrupted);
        }
        let _ticking = self.epochs.enter();
        let reins = &Reins {
            stop,
            lane: &self.lane,
            client: &self.client,
        };
        // Whoever awaits this would hold room for the largest of these futures, whichever it is, and copy all of it to
        // the heap: each is put there by itself.
        match runnable {
            Runnable::Handler(code) => Box::pin(handler::run(code, attempt, reins)).await,
            Runnable::Http02(code) => Box::pin(web::run_02(code, attempt, exchange, reins)).await,
            Runnable::Http03(code) => Box::pin(web::run_03(code, attempt, exchange, reins)).await,
            Runnable::Command02(code) => Box::pin(command::run_02(code, attempt, reins)).await,
            Runnable::Command03(code) => Box::pin(command::run_03(code, attempt, reins)).await,
            Runnable::Core(code) => Box::pin(command::run_core(code, attempt, reins)).await,
        }
    }
}

/// One attempt's store with everything that limits and records it.
pub(super) struct Life {
    /// The store; dropped at the [`Ending`].
    pub(super) store: Store<Ctx>,
    /// Its watch, which the store's epochs report to.
    pub(super) watch: Arc<Watch>,
    /// What the guest writes.
    pub(super) capture: Capture,
}

impl Life {
    /// A fresh store for `attempt`, whose time begins now.
    pub(super) fn begin(
        engine: &Engine,
        attempt: &Attempt,
        reins: &Reins<'_>,
        stdin: Bytes,
        capture: Capture,
    ) -> Self {
        Self::begin_under(
            watch(attempt, reins),
            engine,
            attempt,
            reins,
            stdin,
            capture,
        )
    }

    /// A fresh store for `attempt` under a watch that is there.
    pub(super) fn begin_under(
        watch: Arc<Watch>,
        engine: &Engine,
        attempt: &Attempt,
        reins: &Reins<'_>,
        stdin: Bytes,
        capture: Capture,
    ) -> Self {
        let spec = &attempt.version.spec;
        let given = Given::new(&attempt.secrets);
        let surroundings = Surroundings::new(attempt, given, stdin, capture.clone());
        let outgoing = Outgoing::new(reins.client, attempt, surroundings);
        let memory = MemoryLimit::new(usize_of(spec.memory_mb.saturating_mul(1 << 20)));
        let ctx = Ctx::new(memory, outgoing, Arc::clone(&watch));

        let mut store = Store::new(engine, ctx);
        store.limiter(|ctx| &mut ctx.memory);
        limit_call(&mut store, attempt);
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|store| Ok(store.data().watch.tick()));
        Self {
            store,
            watch,
            capture,
        }
    }

    /// Another call in a store that has had one, under limits that are its own. Its time begins now.
    pub(super) fn resume(
        store: Store<Ctx>,
        capture: Capture,
        attempt: &Attempt,
        reins: &Reins<'_>,
    ) -> Self {
        Self::resume_under(watch(attempt, reins), store, capture, attempt)
    }

    /// [`Life::resume`] under a watch that is there.
    pub(super) fn resume_under(
        watch: Arc<Watch>,
        mut store: Store<Ctx>,
        capture: Capture,
        attempt: &Attempt,
    ) -> Self {
        capture.renew(usize_of(attempt.version.spec.log_bytes_max));
        store.data_mut().renew(attempt, Arc::clone(&watch));
        limit_call(&mut store, attempt);
        Self {
            store,
            watch,
            capture,
        }
    }

    /// Ends a call whose guest has answered, and keeps its store for another if nothing of the call goes on.
    pub(super) fn pause<T>(mut self, answer: T) -> (Ending<T>, Option<(Store<Ctx>, Capture)>) {
        let ctx = self.store.data_mut();
        let is_done = ctx.end_call();
        let ending = Ending {
            result: Ok(answer),
            instantiated: ctx.instantiated,
            denial: ctx.memory.denial(),
            cpu: self.watch.cpu(),
            capture: self.capture.clone(),
        };
        let kept = is_done.then_some((self.store, self.capture));
        (ending, kept)
    }

    /// Takes the instance down and keeps what is to be told of it.
    pub(super) fn end<T>(self, lived: Result<wasmtime::Result<T>, Cut>) -> Ending<T> {
        // First the store: from here on the slot is free.
        let ctx = self.store.into_data();
        Ending {
            result: match lived {
                Ok(result) => result.map_err(Failed::Error),
                Err(cut) => Err(Failed::Cut(cut)),
            },
            instantiated: ctx.instantiated,
            denial: ctx.memory.denial(),
            cpu: self.watch.cpu(),
            capture: self.capture,
        }
    }
}

fn watch(attempt: &Attempt, reins: &Reins<'_>) -> Arc<Watch> {
    let cpu_limit = attempt.version.spec.cpu_ms.map(Duration::from_millis);
    Arc::new(Watch::new(attempt.time_limit, cpu_limit, reins))
}

/// What a store is held to for one call.
fn limit_call(store: &mut Store<Ctx>, attempt: &Attempt) {
    let output_bytes_max = attempt.version.spec.output_bytes_max;
    store.set_hostcall_fuel(usize_of(output_bytes_max) + HOST_COPY_BYTES_MAX);
    store.set_epoch_deadline(1);
}

/// A number of bytes in memory; what does not fit is more than any memory has.
pub(super) fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
