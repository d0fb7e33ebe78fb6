//! The series of one function, resolved once.
//!
//! **Invariant:** every method is a few atomic operations.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::RejectReason;
use super::families::{
    CONTROLLER_MODES, Families, OUTCOMES, REASON_DEPTH, REASON_ESTIMATED_WAIT, REASON_RATE,
    REASON_TIMEOUT,
};
use super::sync_queue::SyncQueueMetrics;
use crate::execution::Status;

/// The series of one function, resolved once.
#[derive(Debug)]
pub struct FunctionMetrics {
    enqueued: IntCounter,
    dispatched: IntCounter,
    succeeded: IntCounter,
    failed: IntCounter,
    timed_out: IntCounter,
    cancelled: IntCounter,
    retried: IntCounter,
    requeued: IntCounter,
    faulted: IntCounter,
    rejected_depth: IntCounter,
    rejected_estimated_wait: IntCounter,
    rejected_rate: IntCounter,
    rejected_timeout: IntCounter,
    cold_starts: IntCounter,
    warm_starts: IntCounter,
    attempts: [IntCounter; OUTCOMES.len()],
    queue_depth: Share,
    in_flight: Share,
    effective_concurrency: Share,
    target_in_flight: Share,
    controller_modes: [Share; CONTROLLER_MODES.len()],
    latency_ms: Histogram,
    init_duration_ms: Histogram,
    queue_wait_ms: Histogram,
    e2e_latency_ms: Histogram,
    sync_queue: SyncQueueMetrics,
}

impl FunctionMetrics {
    /// The series with this label, made where they do not exist.
    pub(super) fn resolve(families: &Families, label: &str) -> Self {
        let label = &[label];
        let rejected = |reason| families.rejected.with_label_values(&[label[0], reason]);
        Self {
            enqueued: families.enqueued.with_label_values(label),
            dispatched: families.dispatched.with_label_values(label),
            succeeded: families.succeeded.with_label_values(label),
            failed: families.failed.with_label_values(label),
            timed_out: families.timed_out.with_label_values(label),
            cancelled: families.cancelled.with_label_values(label),
            retried: families.retried.with_label_values(label),
            requeued: families.requeued.with_label_values(label),
            faulted: families.faulted.with_label_values(label),
            rejected_depth: rejected(REASON_DEPTH),
            rejected_estimated_wait: rejected(REASON_ESTIMATED_WAIT),
            rejected_rate: rejected(REASON_RATE),
            rejected_timeout: rejected(REASON_TIMEOUT),
            cold_starts: families.cold_starts.with_label_values(label),
            warm_starts: families.warm_starts.with_label_values(label),
            attempts: OUTCOMES
                .map(|outcome| families.attempts.with_label_values(&[label[0], outcome])),
            queue_depth: Share::of(families.queue_depth.with_label_values(label)),
            in_flight: Share::of(families.in_flight.with_label_values(label)),
            effective_concurrency: Share::of(
                families.effective_concurrency.with_label_values(label),
            ),
            target_in_flight: Share::of(families.target_in_flight.with_label_values(label)),
            controller_modes: CONTROLLER_MODES.map(|mode| {
                Share::of(
                    families
                        .controller_mode
                        .with_label_values(&[label[0], mode]),
                )
            }),
            latency_ms: families.times.latency.with_label(label[0]),
            init_duration_ms: families.times.init_duration.with_label(label[0]),
            queue_wait_ms: families.times.queue_wait.with_label(label[0]),
            e2e_latency_ms: families.times.e2e_latency.with_label(label[0]),
            sync_queue: SyncQueueMetrics::resolve(&families.sync_queue, label[0]),
        }
    }

    /// A new execution entered the queue (`function_enqueue_total`).
    pub fn enqueued(&self) {
        self.enqueued.inc();
    }

    /// An attempt began (`function_dispatch_total`).
    pub fn dispatched(&self) {
        self.dispatched.inc();
    }

    /// An execution ended (`function_success_total`, `function_error_total`, `function_timeout_total`,
    /// `function_cancelled_total`), `e2e` after it was accepted (`function_e2e_latency_ms`). A status that
    /// is not terminal is nobody's end and counts nowhere.
    pub fn ended(&self, status: Status, e2e: Duration) {
        let ended = match status {
            Status::Success => &self.succeeded,
            Status::Error => &self.failed,
            Status::Timeout => &self.timed_out,
            Status::Cancelled => &self.cancelled,
            Status::Queued | Status::Running => return,
        };
        ended.inc();
        self.e2e_latency_ms.observe(ms(e2e));
    }

    /// A failed attempt went back to the queue (`function_retry_total`).
    pub fn retried(&self) {
        self.retried.inc();
    }

    /// The function asked to be run later (`function_requeue_total`).
    pub fn requeued(&self) {
        self.requeued.inc();
    }

    /// A fault of ours (`function_fault_total`).
    pub fn faulted(&self) {
        self.faulted.inc();
    }

    /// A call was refused (`function_queue_rejected_total`).
    pub fn rejected(&self, reason: RejectReason) {
        match reason {
            RejectReason::Depth => self.rejected_depth.inc(),
            RejectReason::EstimatedWait => self.rejected_estimated_wait.inc(),
            RejectReason::Rate => self.rejected_rate.inc(),
            RejectReason::Timeout => self.rejected_timeout.inc(),
        }
    }

    /// The series of its synchronous calls.
    pub fn sync_queue(&self) -> &SyncQueueMetrics {
        &self.sync_queue
    }

    /// An attempt waited this long between being ready and being claimed (`function_queue_wait_ms`).
    pub fn waited(&self, wait: Duration) {
        self.queue_wait_ms.observe(ms(wait));
    }

    /// An attempt came to `outcome` (the word of an [`crate::execution::Outcome`]; `function_attempt_total`) after
    /// this long (`function_latency_ms`); cold or warm (`function_cold_start_total`, `function_warm_start_total`,
    /// `function_init_duration_ms`).
    pub fn ran(&self, outcome: &str, run: Duration, cold_start: Option<Duration>) {
        let known = OUTCOMES.iter().position(|word| *word == outcome);
        if let Some(attempts) = known.and_then(|known| self.attempts.get(known)) {
            attempts.inc();
        }
        self.latency_ms.observe(ms(run));
        match cold_start {
            Some(init) => {
                self.cold_starts.inc();
                self.init_duration_ms.observe(ms(init));
            }
            None => self.warm_starts.inc(),
        }
    }

    /// Executions waiting, ready and deferred together (`function_queue_depth`).
    pub fn set_queue_depth(&self, waiting: usize) {
        self.queue_depth.set(waiting);
    }

    /// Attempts that may run at once (`function_effective_concurrency`, `function_target_inflight_per_pod`).
    pub fn set_concurrency(&self, concurrency: u32) {
        let concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
        self.effective_concurrency.set(concurrency);
        self.target_in_flight.set(concurrency);
        let [fixed, ..] = &self.controller_modes;
        fixed.set(usize::from(concurrency > 0));
    }

    /// Takes its part out of what it shares with others.
    pub(super) fn leave(&self) {
        self.set_queue_depth(0);
        self.set_in_flight(0);
        self.set_concurrency(0);
        self.sync_queue.set_depth(0);
    }

    /// Attempts running (`function_inFlight`).
    pub fn set_in_flight(&self, running: usize) {
        self.in_flight.set(running);
    }
}

/// One function's part of a gauge. Several functions may share a gauge, which then shows their sum.
#[derive(Debug)]
pub(super) struct Share {
    gauge: IntGauge,
    last: AtomicI64,
}

impl Share {
    pub(super) fn of(gauge: IntGauge) -> Self {
        Self {
            gauge,
            last: AtomicI64::new(0),
        }
    }

    pub(super) fn set(&self, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let last = self.last.swap(value, Ordering::Relaxed);
        self.gauge.add(value.saturating_sub(last));
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
