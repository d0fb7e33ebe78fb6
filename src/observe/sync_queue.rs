//! How synchronous calls come in and wait: nanofaas's `sync_queue_*` families.
//!
//! nanofaas has two of them both with and without a label; here what has a label is the function's
//! (`sync_queue_wait_ms`, `sync_queue_depth`), and `sync_queue_wait_seconds` is the whole plane's.
//!
//! **Invariant:** every family but the plane's has the label `function`, so that one call removes a function
//! from all of them.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry,
};

use super::families::{counters, gauges, registered};
use super::function::{Share, ms};
use super::timers::BUCKETS_MS;

pub(super) struct SyncQueueFamilies {
    depth: IntGaugeVec,
    admitted: IntCounterVec,
    rejected: IntCounterVec,
    timed_out: IntCounterVec,
    wait_ms: HistogramVec,
    wait_seconds: Histogram,
}

impl SyncQueueFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        let counter = |name, help| counters(registry, name, help, &["function"]);
        let seconds = HistogramOpts::new(
            "sync_queue_wait_seconds",
            "Time that attempts with a synchronous caller waited to be claimed, all functions together, in s",
        )
        .buckets(BUCKETS_MS.iter().map(|ms| ms / 1000.0).collect());
        let ms = HistogramOpts::new(
            "sync_queue_wait_ms",
            "Time that attempts with a synchronous caller waited to be claimed, in ms",
        )
        .buckets(BUCKETS_MS.to_vec());
        Self {
            depth: gauges(
                registry,
                "sync_queue_depth",
                "Executions with a synchronous caller that wait",
                &["function"],
            ),
            admitted: counter("sync_queue_admitted_total", "Synchronous calls taken in"),
            rejected: counter(
                "sync_queue_rejected_total",
                "Synchronous calls refused because there was no room, or none in time",
            ),
            timed_out: counter(
                "sync_queue_timedout_total",
                "Synchronous calls given back because they waited too long for their beginning",
            ),
            wait_ms: registered(registry, HistogramVec::new(ms, &["function"])),
            wait_seconds: registered(registry, Histogram::with_opts(seconds)),
        }
    }

    /// Removes all series with this label.
    pub(super) fn remove(&self, label: &str) {
        // An error says that there was no such series, which is what is wanted.
        let _ = self.depth.remove_label_values(&[label]);
        for family in [&self.admitted, &self.rejected, &self.timed_out] {
            let _ = family.remove_label_values(&[label]);
        }
        let _ = self.wait_ms.remove_label_values(&[label]);
    }
}

/// The series of one function's synchronous calls, resolved once.
#[derive(Debug)]
pub struct SyncQueueMetrics {
    depth: Share,
    admitted: IntCounter,
    rejected: IntCounter,
    timed_out: IntCounter,
    wait_ms: Histogram,
    wait_seconds: Histogram,
}

impl SyncQueueMetrics {
    pub(super) fn resolve(families: &SyncQueueFamilies, label: &str) -> Self {
        let label = &[label];
        Self {
            depth: Share::of(families.depth.with_label_values(label)),
            admitted: families.admitted.with_label_values(label),
            rejected: families.rejected.with_label_values(label),
            timed_out: families.timed_out.with_label_values(label),
            wait_ms: families.wait_ms.with_label_values(label),
            wait_seconds: families.wait_seconds.clone(),
        }
    }

    /// A synchronous call was taken in as a new execution (`sync_queue_admitted_total`).
    pub fn admitted(&self) {
        self.admitted.inc();
    }

    /// One was refused (`sync_queue_rejected_total`).
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// One was given back (`sync_queue_timedout_total`).
    pub fn timed_out(&self) {
        self.timed_out.inc();
    }

    /// One waited this long between being ready and being claimed (`sync_queue_wait_ms`,
    /// `sync_queue_wait_seconds`).
    pub fn waited(&self, wait: Duration) {
        self.wait_ms.observe(ms(wait));
        self.wait_seconds.observe(wait.as_secs_f64());
    }

    /// Executions with a caller that wait (`sync_queue_depth`).
    pub(super) fn set_depth(&self, waiting: usize) {
        self.depth.set(waiting);
    }
}
