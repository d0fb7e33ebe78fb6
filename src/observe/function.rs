//! The series of one function: made with the first thing there is to count, and resolved once.
//!
//! **Invariant:** every method is a few atomic operations, the first one of a function apart; a function that
//! nobody called has no series, and takes none of the places that there are.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use super::families::{
    CONTROLLER_MODES, Families, OUTCOMES, REASON_DEPTH, REASON_ESTIMATED_WAIT, REASON_RATE,
    REASON_TIMEOUT,
};
use super::sync_queue::SyncQueueMetrics;
use super::{OTHER, RejectReason};
use crate::execution::Status;
use crate::model::FunctionName;

/// Where the series of functions are made, and how many may have their own.
pub(super) struct Shelf {
    families: Families,
    functions_max: usize,
    /// The functions that have series of their own.
    named: Mutex<HashSet<FunctionName>>,
}

impl Shelf {
    pub(super) fn new(families: Families, functions_max: usize) -> Self {
        Self {
            families,
            functions_max,
            named: Mutex::default(),
        }
    }

    fn named(&self) -> MutexGuard<'_, HashSet<FunctionName>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is counted of one function. Its series are made when there is something to count, and not before.
pub struct FunctionMetrics {
    name: FunctionName,
    shelf: Arc<Shelf>,
    series: OnceLock<Series>,
    concurrency: AtomicUsize,
    /// The function was deleted; set under the shelf's lock.
    gone: AtomicBool,
}

impl fmt::Debug for FunctionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionMetrics")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl FunctionMetrics {
    pub(super) fn new(shelf: Arc<Shelf>, name: FunctionName) -> Self {
        Self {
            name,
            shelf,
            series: OnceLock::new(),
            concurrency: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
        }
    }

    /// The series; made by the first that asks. Those of a deleted function go nowhere.
    fn series(&self) -> &Series {
        self.series.get_or_init(|| {
            let mut named = self.shelf.named();
            let series = if self.gone.load(Ordering::Relaxed) {
                Series::resolve(&Families::register(&Registry::new()), OTHER)
            } else if named.len() < self.shelf.functions_max {
                named.insert(self.name.clone());
                Series::resolve(&self.shelf.families, self.name.as_str())
            } else {
                Series::resolve(&self.shelf.families, OTHER)
            };
            series.set_concurrency(self.concurrency.load(Ordering::Relaxed));
            series
        })
    }

    /// Forgets the series; its part in the sums of the functions that share theirs goes with them.
    pub(super) fn leave(&self) {
        let mut named = self.shelf.named();
        self.gone.store(true, Ordering::Relaxed);
        if named.remove(&self.name) {
            self.shelf.families.remove(self.name.as_str());
        } else if let Some(series) = self.series.get() {
            series.leave();
        }
    }

    /// A new execution entered the queue (`function_enqueue_total`).
    pub fn enqueued(&self) {
        self.series().enqueued.inc();
    }

    /// An attempt began (`function_dispatch_total`).
    pub fn dispatched(&self) {
        self.series().dispatched.inc();
    }

    /// An execution ended (`function_success_total`, `function_error_total`, `function_timeout_total`,
    /// `function_cancelled_total`), `e2e` after it was accepted (`function_e2e_latency_ms`). A status that
    /// is not terminal is nobody's end and counts nowhere.
    pub fn ended(&self, status: Status, e2e: Duration) {
        let series = self.series();
        let ended = match status {
            Status::Success => &series.succeeded,
            Status::Error => &series.failed,
            Status::Timeout => &series.timed_out,
            Status::Cancelled => &series.cancelled,
            Status::Queued | Status::Running => return,
        };
        ended.inc();
        series.e2e_latency_ms.observe(ms(e2e));
    }

    /// A failed attempt went back to the queue (`function_retry_total`).
    pub fn retried(&self) {
        self.series().retried.inc();
    }

    /// The function asked to be run later (`function_requeue_total`).
    pub fn requeued(&self) {
        self.series().requeued.inc();
    }

    /// A fault of ours (`function_fault_total`).
    pub fn faulted(&self) {
        self.series().faulted.inc();
    }

    /// A call was refused (`function_queue_rejected_total`).
    pub fn rejected(&self, reason: RejectReason) {
        let series = self.series();
        match reason {
            RejectReason::Depth => series.rejected_depth.inc(),
            RejectReason::EstimatedWait => series.rejected_estimated_wait.inc(),
            RejectReason::Rate => series.rejected_rate.inc(),
            RejectReason::Timeout => series.rejected_timeout.inc(),
        }
    }

    /// The series of its synchronous calls.
    pub fn sync_queue(&self) -> &SyncQueueMetrics {
        &self.series().sync_queue
    }

    /// An attempt waited this long between being ready and being claimed (`function_queue_wait_ms`).
    pub fn waited(&self, wait: Duration) {
        self.series().queue_wait_ms.observe(ms(wait));
    }

    /// An attempt came to `outcome` (the word of an [`crate::execution::Outcome`]; `function_attempt_total`) after
    /// this long (`function_latency_ms`); cold or warm (`function_cold_start_total`, `function_warm_start_total`,
    /// `function_init_duration_ms`).
    pub fn ran(&self, outcome: &str, run: Duration, cold_start: Option<Duration>) {
        let series = self.series();
        let known = OUTCOMES.iter().position(|word| *word == outcome);
        if let Some(attempts) = known.and_then(|known| series.attempts.get(known)) {
            attempts.inc();
        }
        series.latency_ms.observe(ms(run));
        match cold_start {
            Some(init) => {
                series.cold_starts.inc();
                series.init_duration_ms.observe(ms(init));
            }
            None => series.warm_starts.inc(),
        }
    }

    /// What there is of it now: executions waiting, ready and deferred together (`function_queue_depth`), those
    /// of them with a synchronous caller (`sync_queue_depth`), and attempts running (`function_inFlight`).
    /// Nothing at all is nothing to show for a function that has no series yet.
    pub fn set_work(&self, waiting: usize, callers_waiting: usize, running: usize) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        let series = match self.series.get() {
            None if waiting == 0 && running == 0 => return,
            None => self.series(),
            Some(series) => series,
        };
        series.queue_depth.set(waiting);
        series.sync_queue.set_depth(callers_waiting);
        series.in_flight.set(running);
        // Whoever made the series may have missed a change.
        series.set_concurrency(self.concurrency.load(Ordering::Relaxed));
    }

    /// Attempts that may run at once (`function_effective_concurrency`, `function_target_inflight_per_pod`).
    pub fn set_concurrency(&self, concurrency: u32) {
        let concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
        self.concurrency.store(concurrency, Ordering::Relaxed);
        if let Some(series) = self.series.get() {
            series.set_concurrency(concurrency);
        }
    }
}

/// The series of one function, resolved once.
struct Series {
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

impl Series {
    /// The series with this label, made where they do not exist.
    fn resolve(families: &Families, label: &str) -> Self {
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

    fn set_concurrency(&self, concurrency: usize) {
        self.effective_concurrency.set(concurrency);
        self.target_in_flight.set(concurrency);
        let [fixed, ..] = &self.controller_modes;
        fixed.set(usize::from(concurrency > 0));
    }

    /// Takes its part out of what it shares with others.
    fn leave(&self) {
        self.queue_depth.set(0);
        self.in_flight.set(0);
        self.set_concurrency(0);
        self.sync_queue.set_depth(0);
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
