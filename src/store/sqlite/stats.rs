//! What the store counts of itself, for metrics.
//!
//! **Invariant:** counting takes no lock and never fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets of commit times, in µs, up to a minute; one more bucket takes the rest.
pub const COMMIT_US_BUCKETS: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    2_500_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Upper bounds of the buckets of commits by the operations and claims in them; one more takes the rest.
pub const BATCH_OPS_BUCKETS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000];

/// A commit that takes longer than this counts as a stall, in µs.
pub const STALL_US: u64 = 100_000;

/// Figures since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Commits.
    pub commits: u64,
    /// Operations and logged claims committed.
    pub ops: u64,
    /// The most operations and claims in one commit so far.
    pub batch_ops_highest: u64,
    /// Time spent in COMMIT, the sync included, in µs.
    pub commit_us_total: u64,
    /// Commits by time: up to each of [`COMMIT_US_BUCKETS`], then the rest. Not cumulative.
    pub commit_us_buckets: [u64; COMMIT_US_BUCKETS.len() + 1],
    /// Commits by the operations and claims in them: up to each of [`BATCH_OPS_BUCKETS`], then the rest. Not
    /// cumulative.
    pub batch_ops_buckets: [u64; BATCH_OPS_BUCKETS.len() + 1],
    /// Commits that took longer than [`STALL_US`].
    pub stalls: u64,
    /// How long the commit that is under way has been, in µs; 0 if none is.
    pub committing_us: u64,
    /// Batches that were done again, one operation at a time, because one of them failed.
    pub batches_isolated: u64,
    /// Claims that were not written because a later transition was in the same batch.
    pub claims_superseded: u64,
    /// Claims that were not logged because too many waited.
    pub claims_lost: u64,
    /// Operations that wait.
    pub queue_ops: u64,
    /// Bytes in the write-behind buffer.
    pub write_behind_bytes: u64,
    /// Bytes that it holds at most.
    pub write_behind_bytes_max: u64,
    /// Ended executions of which only a summary was kept, for lack of room.
    pub summarised_records: u64,
    /// Ended executions of which nothing was kept.
    pub dropped_records: u64,
    /// Checkpoints, whole or in part.
    pub checkpoints: u64,
}

/// The counters that the writer keeps.
#[derive(Debug)]
pub(super) struct Counters {
    origin: Instant,
    commits: AtomicU64,
    ops: AtomicU64,
    batch_ops_highest: AtomicU64,
    commit_us_total: AtomicU64,
    buckets: [AtomicU64; COMMIT_US_BUCKETS.len() + 1],
    batches: [AtomicU64; BATCH_OPS_BUCKETS.len() + 1],
    stalls: AtomicU64,
    /// µs after `origin`; 0 if no commit is under way.
    committing_since: AtomicU64,
    batches_isolated: AtomicU64,
    claims_superseded: AtomicU64,
    checkpoints: AtomicU64,
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            commits: AtomicU64::new(0),
            ops: AtomicU64::new(0),
            batch_ops_highest: AtomicU64::new(0),
            commit_us_total: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            batches: std::array::from_fn(|_| AtomicU64::new(0)),
            stalls: AtomicU64::new(0),
            committing_since: AtomicU64::new(0),
            batches_isolated: AtomicU64::new(0),
            claims_superseded: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
        }
    }

    pub(super) fn commit_begins(&self) {
        let since = us(self.origin.elapsed()).max(1);
        self.committing_since.store(since, Ordering::Relaxed);
    }

    pub(super) fn commit_failed(&self) {
        self.committing_since.store(0, Ordering::Relaxed);
    }

    pub(super) fn commit_ended(&self, ops: usize, took: Duration) {
        let took = us(took);
        self.committing_since.store(0, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.ops.fetch_add(count(ops), Ordering::Relaxed);
        self.batch_ops_highest
            .fetch_max(count(ops), Ordering::Relaxed);
        self.commit_us_total.fetch_add(took, Ordering::Relaxed);
        for (bounds, buckets, value) in [
            (&COMMIT_US_BUCKETS[..], &self.buckets[..], took),
            (&BATCH_OPS_BUCKETS[..], &self.batches[..], count(ops)),
        ] {
            let bucket = bounds.partition_point(|bound| *bound < value);
            if let Some(bucket) = buckets.get(bucket) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        if took > STALL_US {
            self.stalls.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn batch_isolated(&self) {
        self.batches_isolated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn claims_superseded(&self, claims: usize) {
        self.claims_superseded
            .fetch_add(count(claims), Ordering::Relaxed);
    }

    pub(super) fn checkpointed(&self) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// The writer's share of the figures; the rest is zero.
    pub(super) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let committing_us = match get(&self.committing_since) {
            0 => 0,
            since => us(self.origin.elapsed()).saturating_sub(since),
        };
        Stats {
            commits: get(&self.commits),
            ops: get(&self.ops),
            batch_ops_highest: get(&self.batch_ops_highest),
            commit_us_total: get(&self.commit_us_total),
            commit_us_buckets: std::array::from_fn(|i| get(&self.buckets[i])),
            batch_ops_buckets: std::array::from_fn(|i| get(&self.batches[i])),
            stalls: get(&self.stalls),
            committing_us,
            batches_isolated: get(&self.batches_isolated),
            claims_superseded: get(&self.claims_superseded),
            checkpoints: get(&self.checkpoints),
            ..Stats::default()
        }
    }
}
