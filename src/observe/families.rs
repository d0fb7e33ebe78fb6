//! The families of series that every function has: names, help and buckets.
//!
//! **Invariant:** every family has the label `function`, so that one call removes a function from all of them.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::sync_queue::SyncQueueFamilies;

/// Upper bounds of the histograms' buckets, in ms: from ten microseconds to five minutes.
pub(super) const BUCKETS_MS: [f64; 22] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0,
    1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0, 300_000.0,
];

pub(super) const REASON_DEPTH: &str = "depth";
pub(super) const REASON_ESTIMATED_WAIT: &str = "est_wait";
pub(super) const REASON_TIMEOUT: &str = "timeout";
pub(super) const REASON_RATE: &str = "rate";

pub(super) struct Families {
    pub(super) enqueued: IntCounterVec,
    pub(super) dispatched: IntCounterVec,
    pub(super) succeeded: IntCounterVec,
    pub(super) failed: IntCounterVec,
    pub(super) timed_out: IntCounterVec,
    pub(super) cancelled: IntCounterVec,
    pub(super) retried: IntCounterVec,
    pub(super) requeued: IntCounterVec,
    pub(super) faulted: IntCounterVec,
    pub(super) rejected: IntCounterVec,
    pub(super) cold_starts: IntCounterVec,
    pub(super) warm_starts: IntCounterVec,
    pub(super) queue_depth: IntGaugeVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) latency_ms: HistogramVec,
    pub(super) init_duration_ms: HistogramVec,
    pub(super) queue_wait_ms: HistogramVec,
    pub(super) e2e_latency_ms: HistogramVec,
    pub(super) sync_queue: SyncQueueFamilies,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        let counter = |name, help| counters(registry, name, help, &["function"]);
        let gauge = |name, help| gauges(registry, name, help);
        let histogram = |name, help| histograms(registry, name, help);
        Self {
            enqueued: counter("function_enqueue_total", "New executions taken in"),
            dispatched: counter("function_dispatch_total", "Attempts begun"),
            succeeded: counter("function_success_total", "Executions that ended well"),
            failed: counter("function_error_total", "Executions that ended as error"),
            timed_out: counter("function_timeout_total", "Executions that ended as timeout"),
            cancelled: counter("function_cancelled_total", "Executions that were cancelled"),
            retried: counter(
                "function_retry_total",
                "Failed attempts sent back to the queue",
            ),
            requeued: counter(
                "function_requeue_total",
                "Attempts that asked to be run later",
            ),
            faulted: counter(
                "function_fault_total",
                "Attempts that failed through the platform, not through the function",
            ),
            rejected: counters(
                registry,
                "function_queue_rejected_total",
                "Calls refused: no room (depth), none in time (est_wait), too many a second (rate), or waited too long and given back (timeout)",
                &["function", "reason"],
            ),
            cold_starts: counter(
                "function_cold_start_total",
                "Attempts that had to load code first",
            ),
            warm_starts: counter(
                "function_warm_start_total",
                "Attempts that found code loaded",
            ),
            queue_depth: gauge(
                "function_queue_depth",
                "Executions waiting, ready and deferred together",
            ),
            in_flight: gauge("function_inFlight", "Attempts running"),
            latency_ms: histogram("function_latency_ms", "Time of one attempt, in ms"),
            init_duration_ms: histogram(
                "function_init_duration_ms",
                "Time of cold attempts to load code, in ms",
            ),
            queue_wait_ms: histogram(
                "function_queue_wait_ms",
                "Time between being ready and being claimed, in ms",
            ),
            e2e_latency_ms: histogram(
                "function_e2e_latency_ms",
                "Time between being accepted and having ended, all attempts included, in ms",
            ),
            sync_queue: SyncQueueFamilies::register(registry),
        }
    }

    /// Removes all series with this label.
    pub(super) fn remove(&self, label: &str) {
        // An error says that there was no such series, which is what is wanted.
        for family in [
            &self.enqueued,
            &self.dispatched,
            &self.succeeded,
            &self.failed,
            &self.timed_out,
            &self.cancelled,
            &self.retried,
            &self.requeued,
            &self.faulted,
            &self.cold_starts,
            &self.warm_starts,
        ] {
            let _ = family.remove_label_values(&[label]);
        }
        self.sync_queue.remove(label);
        for reason in [
            REASON_DEPTH,
            REASON_ESTIMATED_WAIT,
            REASON_RATE,
            REASON_TIMEOUT,
        ] {
            let _ = self.rejected.remove_label_values(&[label, reason]);
        }
        for family in [&self.queue_depth, &self.in_flight] {
            let _ = family.remove_label_values(&[label]);
        }
        for family in [
            &self.latency_ms,
            &self.init_duration_ms,
            &self.queue_wait_ms,
            &self.e2e_latency_ms,
        ] {
            let _ = family.remove_label_values(&[label]);
        }
    }
}

/// Registers a family whose name and labels are literals of this folder.
pub(super) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: prometheus::Result<C>,
) -> C {
    let family = family.expect("names and labels are literals; a test builds them all");
    let copy = Box::new(family.clone());
    registry
        .register(copy)
        .expect("each name is registered once; a test builds them all");
    family
}

pub(super) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    registered(
        registry,
        IntGaugeVec::new(Opts::new(name, help), &["function"]),
    )
}

pub(super) fn histograms(registry: &Registry, name: &str, help: &str) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS_MS.to_vec());
    registered(registry, HistogramVec::new(options, &["function"]))
}
