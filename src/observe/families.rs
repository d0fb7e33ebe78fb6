//! The families of series that every function has: names, help and buckets.
//!
//! **Invariant:** every family has the label `function`, so that one call removes a function from all of them.

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::sync_queue::SyncQueueFamilies;
use super::timers::Timers;

pub(super) const REASON_DEPTH: &str = "depth";
pub(super) const REASON_ESTIMATED_WAIT: &str = "est_wait";
pub(super) const REASON_TIMEOUT: &str = "timeout";
pub(super) const REASON_RATE: &str = "rate";

/// What an attempt can come to: the words of [`crate::execution::Outcome::word`].
pub(super) const OUTCOMES: [&str; 8] = [
    "success",
    "error",
    "retry",
    "requeue",
    "timeout",
    "limit",
    "interrupted",
    "fault",
];

/// The modes that nanofaas's control of concurrency has. There are no pods here: it is always the first.
pub(super) const CONTROLLER_MODES: [&str; 3] = ["FIXED", "STATIC_PER_POD", "ADAPTIVE_PER_POD"];

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
    pub(super) attempts: IntCounterVec,
    pub(super) queue_depth: IntGaugeVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) effective_concurrency: IntGaugeVec,
    pub(super) target_in_flight: IntGaugeVec,
    pub(super) controller_mode: IntGaugeVec,
    pub(super) sync_queue: SyncQueueFamilies,
    pub(super) times: Times,
}

/// The families of times.
pub(super) struct Times {
    pub(super) latency: Timers,
    pub(super) init_duration: Timers,
    pub(super) queue_wait: Timers,
    pub(super) e2e_latency: Timers,
}

impl Times {
    fn register(registry: &Registry) -> Self {
        let timer = |name, help| registered(registry, Timers::new(name, help));
        Self {
            latency: timer("function_latency_ms", "Time of one attempt"),
            init_duration: timer(
                "function_init_duration_ms",
                "Time of cold attempts to load code",
            ),
            queue_wait: timer(
                "function_queue_wait_ms",
                "Time between being ready and being claimed",
            ),
            e2e_latency: timer(
                "function_e2e_latency_ms",
                "Time between being accepted and having ended, all attempts included",
            ),
        }
    }
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        let counter = |name, help| counters(registry, name, help, &["function"]);
        let gauge = |name, help| gauges(registry, name, help, &["function"]);
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
            attempts: counters(
                registry,
                "function_attempt_total",
                "Attempts that ended, by what they came to",
                &["function", "outcome"],
            ),
            queue_depth: gauge(
                "function_queue_depth",
                "Executions waiting, ready and deferred together",
            ),
            in_flight: gauge("function_inFlight", "Attempts running"),
            effective_concurrency: gauge(
                "function_effective_concurrency",
                "Attempts that may run at once",
            ),
            target_in_flight: gauge(
                "function_target_inflight_per_pod",
                "Attempts that may run at once in one process, and there is one",
            ),
            controller_mode: gauges(
                registry,
                "function_concurrency_controller_mode",
                "1 for the way in which the concurrency is set, which is always FIXED",
                &["function", "mode"],
            ),
            sync_queue: SyncQueueFamilies::register(registry),
            times: Times::register(registry),
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
        for outcome in OUTCOMES {
            let _ = self.attempts.remove_label_values(&[label, outcome]);
        }
        for family in [
            &self.queue_depth,
            &self.in_flight,
            &self.effective_concurrency,
            &self.target_in_flight,
        ] {
            let _ = family.remove_label_values(&[label]);
        }
        for mode in CONTROLLER_MODES {
            let _ = self.controller_mode.remove_label_values(&[label, mode]);
        }
        for timers in [
            &self.times.latency,
            &self.times.init_duration,
            &self.times.queue_wait,
            &self.times.e2e_latency,
        ] {
            timers.remove(label);
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

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}
