//! What a plane does beside its calls: forgets what is old, removes code that nobody has any more, and
//! samples its figures when they are asked for.
//!
//! **Invariant:** each step is small and bounded in time; a step that fails is logged and tried again at the
//! next turn, and never ends the loop.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{Code, Digest, Timestamp};
use crate::observe::{Counter, Gauge, Metrics};
use crate::registry::Registry;
use crate::runtime::{Runtime, Wipe};
use crate::scheduler::Scheduler;
use crate::shutdown::Tasks;
use crate::store::sqlite::{self, SqliteStore};
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
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) store: Arc<SqliteStore>,
    pub(super) registry: Registry,
    pub(super) runtime: Runtime,
    pub(super) scheduler: Scheduler,
    pub(super) metrics: Metrics,
    pub(super) retention_ms: u64,
}

/// Starts the loops, which end when all tasks are told to stop, and the sampling of figures.
pub(super) fn start(parts: Parts, tasks: &Tasks) {
    let metrics = parts.metrics.clone();
    let upkeep = Arc::new(Upkeep {
        parts,
        counted: Mutex::default(),
    });
    // The metrics must not keep alive what they measure, for that keeps them too.
    let weak = Arc::downgrade(&upkeep);
    metrics.sample_with(move |metrics| {
        if let Some(upkeep) = weak.upgrade() {
            upkeep.sample(metrics);
        }
    });
    let stop = tasks.stop_token().clone();
    drop(tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = upkeep.purge_again_and_again() => {}
            () = upkeep.sweep_again_and_again() => {}
        }
    }));
}

struct Upkeep {
    parts: Parts,
    /// What the store's counters stood at when they were last sampled.
    counted: Mutex<sqlite::Stats>,
}

impl Upkeep {
    async fn purge_again_and_again(&self) {
        let Parts { clock, metrics, .. } = &self.parts;
        let pause_ms = PURGE_EVERY_MS.min(self.parts.retention_ms / 10).max(100);
        loop {
            let now = clock.now();
            metrics.set_gauge(Gauge::PurgeProgress, u64::try_from(now.0).unwrap_or(0));
            match tokio::time::timeout(STEP_TIMEOUT, self.purge(now)).await {
                Ok(Ok(0)) => {}
                // Perhaps there is more.
                Ok(Ok(PURGE_ROWS_MAX..)) => continue,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "old executions could not be removed"),
                Err(_) => tracing::warn!("removing old executions takes too long"),
            }
            clock.sleep_until(now.plus_ms(pause_ms)).await;
        }
    }

    async fn purge(&self, now: Timestamp) -> store::Result<u32> {
        let Parts { store, metrics, .. } = &self.parts;
        let retention = Retention {
            executions_before: before(now, self.parts.retention_ms),
            keys_before: now,
            rows_max: PURGE_ROWS_MAX,
        };
        let removed = store.purge(retention).await?;
        metrics.add(Counter::StoreRowsPurged, removed.into());
        Ok(removed)
    }

    async fn sweep_again_and_again(&self) {
        let Parts { clock, runtime, .. } = &self.parts;
        loop {
            clock.sleep_until(clock.now().plus_ms(SWEEP_EVERY_MS)).await;
            let (runtime, used) = (runtime.clone(), self.digests_in_use());
            match tokio::task::spawn_blocking(move || runtime.sweep(&used)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(files)) => tracing::info!(files, "removed code that no version names"),
                Ok(Err(error)) => tracing::warn!(%error, "old code could not be removed"),
                Err(error) => tracing::warn!(%error, "removing old code ended unexpectedly"),
            }
        }
    }

    fn digests_in_use(&self) -> HashSet<Digest> {
        let functions = self.parts.registry.list();
        let versions = functions.iter().flat_map(|function| &function.versions);
        versions
            .filter_map(|version| match version.code {
                Code::Wasm { digest, .. } => Some(digest),
                Code::Echo | Code::Endpoint { .. } => None,
            })
            .collect()
    }

    fn sample(&self, metrics: &Metrics) {
        let Parts {
            store,
            registry,
            runtime,
            scheduler,
            ..
        } = &self.parts;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (load, runtime, stats) = (scheduler.load(), runtime.stats(), store.stats());
        let figures = [
            (Gauge::Functions, count(registry.list().len())),
            (Gauge::LiveExecutions, count(load.live)),
            (Gauge::QueuedInputBytes, load.queued_input_bytes),
            (
                Gauge::GuestsRunning,
                count(load.running - load.endpoint_calls),
            ),
            (Gauge::GuestsMax, runtime.permits_max.into()),
            (Gauge::EndpointCallsRunning, count(load.endpoint_calls)),
            (Gauge::PoolSlots, runtime.pool.slots.into()),
            (
                Gauge::PoolPagemapScan,
                u64::from(runtime.pool.wipe == Wipe::TouchedPages),
            ),
            (Gauge::LoadedCodeBytes, runtime.loaded_bytes),
            (Gauge::CompilationsWaiting, count(runtime.compiling)),
            (Gauge::StoreWritesWaiting, stats.queue_ops),
            (Gauge::StoreBufferBytes, stats.write_behind_bytes),
            (Gauge::StorePoisoned, u64::from(store.poisoned().is_some())),
        ];
        for (gauge, value) in figures {
            metrics.set_gauge(gauge, value);
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = [
            (Counter::StoreCommits, stats.commits, counted.commits),
            (
                Counter::StoreRowsSummarised,
                stats.summarised_records,
                counted.summarised_records,
            ),
            (
                Counter::StoreRowsDropped,
                stats.dropped_records,
                counted.dropped_records,
            ),
        ];
        for (counter, now, before) in grown {
            metrics.add(counter, now.saturating_sub(before));
        }
        *counted = stats;
    }
}

fn before(now: Timestamp, ms: u64) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}
