//! How long compilations take, for metrics.
//!
//! **Invariant:** counting takes no lock and never fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of compilation times, in ms; one more bucket takes the rest.
pub const COMPILATION_MS_BUCKETS: [u64; 14] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000,
];

const BUCKETS: usize = COMPILATION_MS_BUCKETS.len() + 1;

/// Compilations by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompilationTimes {
    /// Up to each of [`COMPILATION_MS_BUCKETS`], then the rest. Not cumulative.
    pub buckets: [u64; BUCKETS],
    /// All of it together, in ms.
    pub total_ms: u64,
}

/// Counts compilations.
#[derive(Debug, Default)]
pub(super) struct Times {
    buckets: [AtomicU64; BUCKETS],
    total_ms: AtomicU64,
}

impl Times {
    /// One took so long.
    pub(super) fn record(&self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let bucket = COMPILATION_MS_BUCKETS.partition_point(|bound| *bound < ms);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.total_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> CompilationTimes {
        CompilationTimes {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)),
            total_ms: self.total_ms.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_into_the_bucket_that_holds_it() {
        let times = Times::default();
        for ms in [1, 10, 11, 400_000] {
            times.record(Duration::from_millis(ms));
        }
        let read = times.read();
        assert_eq!((read.buckets[0], read.buckets[1]), (2, 1));
        assert_eq!(read.buckets[BUCKETS - 1], 1);
        assert_eq!(read.total_ms, 400_022);
    }
}
