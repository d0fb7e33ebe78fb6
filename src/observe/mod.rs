//! What the plane tells of itself: metrics in Prometheus text format 0.0.4, under nanofaas's names.
//!
//! **Invariant:** recording never fails, never waits and takes no lock on the path of a call; names and
//! meanings stand here and nowhere else.

use std::sync::Arc;

use crate::model::FunctionName;

/// A cheap handle on all metrics of one plane.
#[derive(Clone)]
pub struct Metrics {
    _inner: Arc<()>,
}

impl Metrics {
    /// The metrics of one function; the same ones for the same name. Callers keep the handle.
    pub fn function(&self, name: &FunctionName) -> Arc<FunctionMetrics> {
        let _ = name;
        unimplemented!("observe")
    }

    /// Forgets a deleted function's series.
    pub fn remove_function(&self, name: &FunctionName) {
        let _ = name;
        unimplemented!("observe")
    }

    /// All metrics as text.
    pub fn render(&self) -> String {
        unimplemented!("observe")
    }
}

/// Why a call was refused at admission; the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The queue is full.
    Depth,
    /// The rate is used up.
    Rate,
}

/// The series of one function, resolved once.
#[derive(Debug)]
pub struct FunctionMetrics {}

impl FunctionMetrics {
    /// A new execution entered the queue (`function_enqueue_total`).
    pub fn enqueued(&self) {}
    /// An attempt began (`function_dispatch_total`).
    pub fn dispatched(&self) {}
    /// An execution ended (`function_success_total`, `function_error_total`, `function_timeout_total`, `function_cancelled_total`),
    /// `e2e` after it was accepted (`function_e2e_latency_ms`).
    pub fn ended(&self, status: crate::execution::Status, e2e: std::time::Duration) {
        let _ = (status, e2e);
    }
    /// A failed attempt went back to the queue (`function_retry_total`).
    pub fn retried(&self) {}
    /// The function asked to be run later (`function_requeue_total`).
    pub fn requeued(&self) {}
    /// A fault of ours (`function_fault_total`).
    pub fn faulted(&self) {}
    /// A call was refused (`function_queue_rejected_total`).
    pub fn rejected(&self, reason: RejectReason) {
        let _ = reason;
    }
    /// An attempt waited this long between being ready and being claimed (`function_queue_wait_ms`).
    pub fn waited(&self, wait: std::time::Duration) {
        let _ = wait;
    }
    /// An attempt ended after this long (`function_latency_ms`); cold or warm (`function_cold_start_total`,
    /// `function_warm_start_total`, `function_init_duration_ms`).
    pub fn ran(&self, run: std::time::Duration, cold_start: Option<std::time::Duration>) {
        let _ = (run, cold_start);
    }
    /// Executions waiting, ready and deferred together (`function_queue_depth`).
    pub fn set_queue_depth(&self, waiting: usize) {
        let _ = waiting;
    }
    /// Attempts running (`function_inFlight`).
    pub fn set_in_flight(&self, running: usize) {
        let _ = running;
    }
}
