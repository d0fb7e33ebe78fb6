//! What an attempt needs before its guest can start: its code, and a place in the pool.
//!
//! **Invariant:** whoever waits for a place stands in line for it, and no instance that only waits for a call keeps it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::Runtime;
use super::code::{Loaded, Temperature};
use super::shelf::Holds;
use crate::execution::{Attempt, Outcome};
use crate::model::{Digest, Failure};

impl Runtime {
    /// What [`Runtime::ready`] gives, if it is there to be taken: warm code of the plain pool, and free permits.
    pub(super) fn ready_at_once(&self, digest: &Digest) -> Option<Ready<'_>> {
        let loaded = self.inner.codes.get_warm(digest)?;
        if !Arc::ptr_eq(&loaded.unit, self.inner.codes.engines().plain()) {
            return None;
        }
        let count = loaded.permits.min(self.inner.pool.guests);
        let permit = self.inner.permits.try_acquire_many(count).ok()?;
        Some(Ready {
            loaded,
            init_duration: None,
            permit,
            own: None,
        })
    }

    /// Code and the permits to run it.
    pub(super) async fn ready(&self, digest: Digest) -> Result<Ready<'_>, Outcome> {
        let begun = Instant::now();
        let (loaded, temperature) = self.inner.codes.get(digest).await.map_err(|error| {
            Outcome::Fault(format!("the function's code cannot be loaded: {error}"))
        })?;
        let init_duration = match temperature {
            Temperature::Warm => None,
            Temperature::Cold => Some(begun.elapsed()),
        };
        // The async pool's first, then those of all: always in this order, so that nobody waits in a circle.
        let own = self.own_permits(&loaded).await?;
        // A guest that needs more than there is runs alone, which the pool has room for.
        let count = loaded.permits.min(self.inner.pool.guests);
        let needed = Holds {
            permits: count,
            ..Holds::default()
        };
        let acquiring = self.inner.permits.acquire_many(count);
        let permit = self.making_room(needed, acquiring).await?;
        Ok(Ready {
            loaded,
            init_duration,
            permit,
            own,
        })
    }

    /// The permits of a pool that may be smaller than the plane.
    async fn own_permits(&self, loaded: &Loaded) -> Result<Option<OwnedSemaphorePermit>, Outcome> {
        let unit = &loaded.unit;
        if Arc::ptr_eq(unit, self.inner.codes.engines().plain()) {
            return Ok(None);
        }
        let count = loaded.permits.min(unit.report.guests);
        let needed = Holds {
            own_permits: count,
            ..Holds::default()
        };
        let acquiring = Arc::clone(&unit.permits).acquire_many_owned(count);
        self.making_room(needed, acquiring).await.map(Some)
    }

    /// Waits for permits, for which instances that only wait for a call have to go.
    async fn making_room<T>(
        &self,
        needed: Holds,
        acquiring: impl Future<Output = Result<T, AcquireError>>,
    ) -> Result<T, Outcome> {
        let mut acquiring = pin!(acquiring);
        let acquired = match poll_immediate(&mut acquiring).await {
            Some(acquired) => acquired,
            None => {
                // In the line by now: whatever is given up goes to those who stand there, and each of them has
                // made room for itself.
                let _waiting = self.inner.shelf.make_room(needed);
                acquiring.await
            }
        };
        acquired.map_err(|_| Outcome::Fault("the runtime is closed".to_owned()))
    }
}

/// What an attempt has before its guest starts.
pub(super) struct Ready<'a> {
    pub(super) loaded: Arc<Loaded>,
    pub(super) init_duration: Option<Duration>,
    pub(super) permit: SemaphorePermit<'a>,
    pub(super) own: Option<OwnedSemaphorePermit>,
}

/// Waits for what an attempt needs, as long as its time lasts and nobody stops it. Returns the attempt with the time
/// that is left to it, which began at `begun`.
pub(super) async fn in_time<'a>(
    readying: impl Future<Output = Result<Ready<'a>, Outcome>>,
    begun: Instant,
    attempt: &Attempt,
    stop: &CancellationToken,
) -> (Result<Ready<'a>, Outcome>, Attempt) {
    let ready = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Outcome::Interrupted),
        ready = readying => ready,
        () = tokio::time::sleep(attempt.time_limit) => {
            Err(Outcome::TimedOut(never_started(attempt)))
        }
    };
    let time_limit = attempt.time_limit.saturating_sub(begun.elapsed());
    let shortened = Attempt {
        time_limit,
        ..attempt.clone()
    };
    (ready, shortened)
}

/// What is told of an attempt whose guest did not start in time.
pub(super) fn never_started(attempt: &Attempt) -> Failure {
    Failure::new(
        "TIMEOUT",
        format!(
            "the attempt's {} ms passed before its guest could start: all slots are busy, or its code was \
             being loaded",
            attempt.time_limit.as_millis()
        ),
    )
}
