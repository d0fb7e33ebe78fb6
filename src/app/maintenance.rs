//! What a plane does beside its calls: forgets what is old, removes code that nobody has any more, watches its
//! own loops, and samples its figures when they are asked for.
//!
//! **Invariant:** each step is small and bounded in time; a step that fails is logged and tried again at the
//! next turn, and never ends the loop.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::watch::Watch;
use crate::clock::Clock;
use crate::model::{Code, Digest, Timestamp};
use crate::observe::{Counter, Distribution, Gauge, Metrics, Spread};
use crate::registry::Registry;
use crate::runtime::{self, Runtime, Wipe};
use crate::scheduler::Scheduler;
use crate::shutdown::Tasks;
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{self, Retention, Store};

/// Between two looks for what is old; a shorter retention is looked after more often.
const PURGE_EVERY_MS: u64 = 60_000;
/// Rows removed in one step, so that calls get their turn in between.
const PURGE_ROWS_MAX: u32 = 500;
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
    /// Time for one step of a loop, and how far one may be behind before that is logged.
    pub(super) loop_deadline_ms: u64,
}

/// Starts the loops, which end when all tasks are told to stop, and the sampling of figures.
pub(super) fn start(parts: Parts, tasks: &Tasks) {
    let metrics = parts.metrics.clone();
    let clock = parts.clock.clone();
    let sweeps_at = clock.now().plus_ms(SWEEP_EVERY_MS);
    let upkeep = Arc::new(Upkeep {
        watch: Watch::new(clock, parts.loop_deadline_ms, sweeps_at),
        parts,
        counted: Mutex::default(),
        warm: Mutex::default(),
    });
    // The metrics must not keep alive what they measure, for that keeps them too.
    let weak = Arc::downgrade(&upkeep);
    metrics.sample_with(move |metrics| {
        if let Some(upkeep) = weak.upgrade() {
            upkeep.sample(metrics);
        }
    });
    // Tasks of their own, so that none takes another one with it.
    let loops = [Loop::Purge, Loop::Sweep, Loop::Watch];
    for each in loops {
        let (stop, upkeep) = (tasks.stop_token().clone(), Arc::clone(&upkeep));
        drop(tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = upkeep.run(each) => {}
            }
        }));
    }
}

struct Upkeep {
    parts: Parts,
    watch: Watch,
    /// What the store's counters stood at when they were last sampled.
    counted: Mutex<sqlite::Stats>,
    warm: Mutex<runtime::WarmStats>,
}

/// What goes on for as long as the plane does.
#[derive(Debug, Clone, Copy)]
enum Loop {
    Purge,
    Sweep,
    Watch,
}

impl Upkeep {
    async fn run(&self, each: Loop) {
        match each {
            Loop::Purge => self.purge_again_and_again().await,
            Loop::Sweep => self.sweep_again_and_again().await,
            Loop::Watch => self.watch.run(|| self.behind()).await,
        }
    }

    async fn purge_again_and_again(&self) {
        let Parts { clock, .. } = &self.parts;
        let pause_ms = PURGE_EVERY_MS.min(self.parts.retention_ms / 10).max(100);
        loop {
            let now = clock.now();
            let next = now.plus_ms(pause_ms);
            match tokio::time::timeout(self.step_timeout(), self.purge(now)).await {
                // Perhaps there is more.
                Ok(Ok(PURGE_ROWS_MAX..)) => {
                    self.watch.purge.next(clock.now());
                    continue;
                }
                Ok(Ok(_)) => self.watch.purge.next(next),
                Ok(Err(error)) => tracing::warn!(%error, "old executions could not be removed"),
                Err(_) => tracing::warn!("removing old executions takes too long"),
            }
            self.parts.runtime.outgoing().tidy();
            clock.sleep_until(next).await;
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
            let next = clock.now().plus_ms(SWEEP_EVERY_MS);
            self.watch.sweep.next(next);
            clock.sleep_until(next).await;
            let (runtime, used) = (runtime.clone(), self.digests_in_use());
            let mut sweeping = tokio::task::spawn_blocking(move || runtime.sweep(&used));
            // A thread cannot be cut: one that hangs is waited for, so that there are never two.
            let in_time = tokio::time::timeout(self.step_timeout(), &mut sweeping).await;
            let swept = match in_time {
                Ok(swept) => swept,
                Err(_) => {
                    tracing::warn!("removing old code takes too long");
                    sweeping.await
                }
            };
            match swept {
                Ok(Ok(0)) => {}
                Ok(Ok(files)) => tracing::info!(files, "removed code that no version names"),
                Ok(Err(error)) => tracing::warn!(%error, "old code could not be removed"),
                Err(error) => tracing::warn!(%error, "removing old code ended unexpectedly"),
            }
        }
    }

    fn step_timeout(&self) -> Duration {
        Duration::from_millis(self.parts.loop_deadline_ms)
    }

    /// How far the loops are.
    fn behind(&self) -> [u64; 5] {
        self.watch
            .look(&self.parts.scheduler, &self.parts.store.stats())
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
        let load = self.parts.scheduler.load();
        let figures = [
            (Gauge::Functions, count(self.parts.registry.list().len())),
            (Gauge::LiveExecutions, count(load.live)),
            (Gauge::QueuedInputBytes, load.queued_input_bytes),
            (Gauge::UncommittedResultBytes, load.uncommitted_result_bytes),
            (
                Gauge::GuestsRunning,
                count(load.running - load.endpoint_calls),
            ),
            (Gauge::EndpointCallsRunning, count(load.endpoint_calls)),
        ];
        for (gauge, value) in figures {
            metrics.set_gauge(gauge, value);
        }
        let stats = self.parts.runtime.stats();
        sample_runtime(&stats, metrics);
        self.count_reuse(stats.warm, metrics);
        self.sample_store(metrics);
    }

    fn count_reuse(&self, now: runtime::WarmStats, metrics: &Metrics) {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *warm, now);
        metrics.add(Counter::ReusedCalls, now.reused.saturating_sub(was.reused));
        metrics.add(
            Counter::WarmEvicted,
            now.evicted.saturating_sub(was.evicted),
        );
    }

    fn sample_store(&self, metrics: &Metrics) {
        let store = &self.parts.store;
        let stats = store.stats();
        let figures = [
            (Gauge::StoreWritesWaiting, stats.queue_ops),
            (Gauge::StoreCommitUnderWay, stats.committing_us / 1_000),
            (Gauge::StoreBufferBytes, stats.write_behind_bytes),
            (Gauge::StoreBufferBytesMax, stats.write_behind_bytes_max),
            (Gauge::StorePoisoned, u64::from(store.poisoned().is_some())),
        ];
        for (gauge, value) in figures {
            metrics.set_gauge(gauge, value);
        }
        let behind = self.watch.look(&self.parts.scheduler, &stats);
        self.watch.show(&behind, metrics);
        let commits = Spread {
            bounds: scaled(&sqlite::COMMIT_US_BUCKETS, 1_000.0),
            counts: stats.commit_us_buckets.into(),
            sum: float(stats.commit_us_total) / 1_000.0,
        };
        metrics.set_distribution(Distribution::StoreCommitMs, commits);
        let batches = Spread {
            bounds: scaled(&sqlite::BATCH_OPS_BUCKETS, 1.0),
            counts: stats.batch_ops_buckets.into(),
            sum: float(stats.ops),
        };
        metrics.set_distribution(Distribution::StoreCommitWrites, batches);

        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *counted, stats);
        let grown = [
            (Counter::StoreCommits, stats.commits, was.commits),
            (Counter::StoreWrites, stats.ops, was.ops),
            (Counter::StoreStalls, stats.stalls, was.stalls),
            (
                Counter::StoreCheckpoints,
                stats.checkpoints,
                was.checkpoints,
            ),
            (
                Counter::StoreBatchesIsolated,
                stats.batches_isolated,
                was.batches_isolated,
            ),
            (Counter::StoreClaimsLost, stats.claims_lost, was.claims_lost),
            (
                Counter::StoreRowsSummarised,
                stats.summarised_records,
                was.summarised_records,
            ),
            (
                Counter::StoreRowsDropped,
                stats.dropped_records,
                was.dropped_records,
            ),
        ];
        for (counter, now, before) in grown {
            metrics.add(counter, now.saturating_sub(before));
        }
    }
}

fn sample_runtime(stats: &runtime::Stats, metrics: &Metrics) {
    let pool = &stats.pool_use;
    let figures = [
        (Gauge::GuestsMax, stats.permits_max.into()),
        (Gauge::PoolSlots, stats.pool.slots.into()),
        (Gauge::PoolSlotsUsed, stats.permits_used.into()),
        (Gauge::PoolMemories, pool.memories),
        (Gauge::PoolTables, pool.tables),
        (Gauge::PoolStacks, pool.stacks),
        (Gauge::PoolResidentBytes, pool.resident_bytes),
        (
            Gauge::PoolPagemapScan,
            u64::from(stats.pool.wipe == Wipe::TouchedPages),
        ),
        (Gauge::WarmInstances, stats.warm.idle.into()),
        (Gauge::WarmMemoryBytes, stats.warm.idle_bytes),
        (Gauge::LoadedCode, stats.loaded_entries),
        (Gauge::LoadedCodeBytes, stats.loaded_bytes),
        (
            Gauge::CompilationsWaiting,
            count(stats.compilations_waiting),
        ),
        (
            Gauge::CompilationsRunning,
            count(stats.compilations_running),
        ),
    ];
    for (gauge, value) in figures {
        metrics.set_gauge(gauge, value);
    }
    let times = Spread {
        bounds: scaled(&runtime::COMPILATION_MS_BUCKETS, 1.0),
        counts: stats.compilation_times.buckets.into(),
        sum: float(stats.compilation_times.total_ms),
    };
    metrics.set_distribution(Distribution::CompilationMs, times);
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are floating-point numbers; beyond 2^53 they are near enough"
)]
fn float(number: u64) -> f64 {
    number as f64
}

/// Bounds in another unit.
fn scaled(bounds: &[u64], by: f64) -> Vec<f64> {
    bounds.iter().map(|bound| float(*bound) / by).collect()
}

fn before(now: Timestamp, ms: u64) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}
