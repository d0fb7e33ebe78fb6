//! What a plane does beside its calls: forgets what is old, removes code that nobody has any more, and
//! samples its figures when they are asked for.
//!
//! **Invariant:** each step is small and bounded in time; a step that fails is logged and tried again at the
//! next turn, and never ends the loop.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{Code, Digest, Timestamp};
use crate::observe::{Counter, Gauge, Metrics};
use crate::registry::Registry;
use crate::runtime::{Runtime, Wipe};
use crate::scheduler::Scheduler;
use crate::shutdown::Tasks;
use crate::store::{self, Retention, Store};

/// Between two looks for what is old; a shorter retention is looked after more often.
const PURGE_EVERY_MS: u64 = 60_000;
/// Rows removed in one step, so that calls get their turn in between.
const PURGE_ROWS_MAX: u32 = 500;
/// Time for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks for code that no version names.
const SWEEP_EVERY_MS: u64 = 3_600_000;

/// What upkeep works with.
#[derive(Clone)]
pub(super) struct Upkeep {
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) registry: Registry,
    pub(super) runtime: Runtime,
    pub(super) scheduler: Scheduler,
    pub(super) metrics: Metrics,
    pub(super) retention_ms: u64,
}

impl Upkeep {
    /// Starts the loops; they end when all tasks are told to stop.
    pub(super) fn start(self, tasks: &Tasks) {
        let sampler = self.clone();
        self.metrics
            .sample_with(move |metrics| sampler.sample(metrics));
        let (purging, sweeping) = (self.clone(), self);
        let until_stop = tasks.stop_token().clone();
        drop(tasks.spawn(async move {
            let loops = async {
                tokio::join!(
                    purging.purge_again_and_again(),
                    sweeping.sweep_again_and_again()
                )
            };
            tokio::select! {
                () = until_stop.cancelled() => {}
                _ = loops => {}
            }
        }));
    }

    async fn purge_again_and_again(&self) {
        let pause_ms = PURGE_EVERY_MS.min(self.retention_ms / 10).max(100);
        loop {
            let now = self.clock.now();
            match tokio::time::timeout(STEP_TIMEOUT, self.purge(now)).await {
                Ok(Ok(0)) => {}
                // Perhaps there is more.
                Ok(Ok(PURGE_ROWS_MAX..)) => continue,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "old executions could not be removed"),
                Err(_) => tracing::warn!("removing old executions takes too long"),
            }
            self.clock.sleep_until(now.plus_ms(pause_ms)).await;
        }
    }

    async fn purge(&self, now: Timestamp) -> store::Result<u32> {
        let removed = self
            .store
            .purge(Retention {
                executions_before: before(now, self.retention_ms),
                keys_before: now,
                rows_max: PURGE_ROWS_MAX,
            })
            .await?;
        self.metrics.add(Counter::StoreRowsPurged, removed.into());
        Ok(removed)
    }

    async fn sweep_again_and_again(&self) {
        loop {
            let next = self.clock.now().plus_ms(SWEEP_EVERY_MS);
            self.clock.sleep_until(next).await;
            let (runtime, used) = (self.runtime.clone(), self.digests_in_use());
            let swept = tokio::task::spawn_blocking(move || runtime.sweep(&used)).await;
            match swept {
                Ok(Ok(0)) => {}
                Ok(Ok(files)) => tracing::info!(files, "removed code that no version names"),
                Ok(Err(error)) => tracing::warn!(%error, "old code could not be removed"),
                Err(error) => tracing::warn!(%error, "removing old code ended unexpectedly"),
            }
        }
    }

    fn digests_in_use(&self) -> HashSet<Digest> {
        let functions = self.registry.list();
        let versions = functions.iter().flat_map(|function| &function.versions);
        versions
            .filter_map(|version| match version.code {
                Code::Wasm { digest, .. } => Some(digest),
                Code::Echo | Code::Endpoint { .. } => None,
            })
            .collect()
    }

    fn sample(&self, metrics: &Metrics) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let load = self.scheduler.load();
        let runtime = self.runtime.stats();
        let figures = [
            (Gauge::Functions, count(self.registry.list().len())),
            (
                Gauge::LiveExecutions,
                count(load.queued.saturating_add(load.running)),
            ),
            (Gauge::GuestsRunning, runtime.permits_used.into()),
            (Gauge::GuestsMax, runtime.permits_max.into()),
            (Gauge::LoadedCodeBytes, runtime.loaded_bytes),
            (Gauge::CompilationsWaiting, count(runtime.compiling)),
            (Gauge::PoolSlots, runtime.pool.slots.into()),
            (
                Gauge::PoolPagemapScan,
                u64::from(runtime.pool.wipe == Wipe::TouchedPages),
            ),
            (
                Gauge::StorePoisoned,
                u64::from(self.store.poisoned().is_some()),
            ),
        ];
        for (gauge, value) in figures {
            metrics.set_gauge(gauge, value);
        }
    }
}

fn before(now: Timestamp, ms: u64) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}
