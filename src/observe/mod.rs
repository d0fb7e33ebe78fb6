//! What the plane tells of itself: metrics in Prometheus text format 0.0.4, under nanofaas's names.
//!
//! Series of functions are resolved once per function and then only counted; figures of the whole plane
//! (store, pool, queues) are set by whoever knows them, or sampled just before they are rendered.
//!
//! **Invariant:** recording never fails, never waits and takes no lock on the path of a call; names and
//! meanings stand in this folder and nowhere else.

mod families;
mod function;
mod plane;
mod runtime_config;
mod sync_queue;
mod timers;

pub use function::FunctionMetrics;
pub use plane::{Counter, Distribution, Gauge, Spread};
pub use runtime_config::RuntimeConfigUpdate;
pub use sync_queue::SyncQueueMetrics;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::TextEncoder;

use self::families::Families;
use self::function::Shelf;
use self::plane::Plane;
use self::runtime_config::RuntimeConfigSeries;
use crate::model::FunctionName;

/// Functions with series of their own unless said otherwise: each that was called costs about 180 lines of text.
pub const FUNCTIONS_MAX_DEFAULT: usize = 1000;

/// The label of all functions that came after the bound was reached. No function can be called this: a
/// name starts with a letter.
const OTHER: &str = "_other";

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Sets gauges from what it sees, just before they are rendered.
type Sampler = Box<dyn Fn(&Metrics) + Send + Sync>;

/// A cheap handle on all metrics of one plane.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: prometheus::Registry,
    shelf: Arc<Shelf>,
    plane: Plane,
    runtime_config: RuntimeConfigSeries,
    functions: RwLock<HashMap<FunctionName, Arc<FunctionMetrics>>>,
    samplers: RwLock<Vec<Sampler>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(FUNCTIONS_MAX_DEFAULT)
    }
}

impl Metrics {
    /// Metrics with a registry of their own. Beyond `functions_max` functions that were called, the series of
    /// one more are those of the label `_other`.
    pub fn new(functions_max: usize) -> Self {
        let registry = prometheus::Registry::new();
        let families = Families::register(&registry);
        let plane = Plane::register(&registry);
        let runtime_config = RuntimeConfigSeries::register(&registry);
        Self {
            inner: Arc::new(Inner {
                registry,
                shelf: Arc::new(Shelf::new(families, functions_max)),
                plane,
                runtime_config,
                functions: RwLock::default(),
                samplers: RwLock::default(),
            }),
        }
    }

    /// The metrics of one function; the same ones for the same name. Callers keep the handle. There are series
    /// of it once something is counted.
    pub fn function(&self, name: &FunctionName) -> Arc<FunctionMetrics> {
        let inner = &*self.inner;
        let known = inner
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return Arc::clone(known);
        }
        drop(known);

        let mut functions = inner
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let known = functions.entry(name.clone()).or_insert_with(|| {
            let shelf = Arc::clone(&inner.shelf);
            Arc::new(FunctionMetrics::new(shelf, name.clone()))
        });
        Arc::clone(known)
    }

    /// Forgets a deleted function's series. What is still recorded under an old handle goes nowhere.
    pub fn remove_function(&self, name: &FunctionName) {
        let mut functions = self
            .inner
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = functions.remove(name) {
            known.leave();
        }
    }

    /// Sets a figure of the whole plane.
    pub fn set_gauge(&self, gauge: Gauge, value: u64) {
        self.inner.plane.set(gauge, value);
    }

    /// Adds to a count of the whole plane.
    pub fn add(&self, counter: Counter, by: u64) {
        self.inner.plane.add(counter, by);
    }

    /// Says how a distribution of the whole plane stands.
    pub fn set_distribution(&self, distribution: Distribution, spread: Spread) {
        self.inner.plane.set_distribution(distribution, spread);
    }

    /// A request was answered with an error of this code (`pelton_errors_total`), which is one of a short list.
    pub fn refused(&self, code: &'static str) {
        self.inner.plane.refused(code);
    }

    /// Calls `sampler` before every [`Metrics::render`], so that figures are true when they are read and
    /// nobody polls for them. A sampler that keeps a handle on what owns these metrics keeps it alive.
    pub fn sample_with(&self, sampler: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.inner
            .samplers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(sampler));
    }

    /// All metrics as text, of the type [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let samplers = self
            .inner
            .samplers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for sampler in samplers.iter() {
            sampler(self);
        }
        drop(samplers);

        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.inner.registry.gather(), &mut text)
        {
            // Only a family without series can fail to encode, and `gather` leaves those out.
            tracing::error!(%error, "metrics could not be rendered completely");
        }
        text
    }
}

/// Why a call was refused at admission; the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// There is no room: the queue is full, or too many callers wait.
    Depth,
    /// A synchronous call would wait too long.
    EstimatedWait,
    /// The rate is used up.
    Rate,
    /// A synchronous call waited too long for its beginning.
    Timeout,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::execution::Status;

    fn name(text: &str) -> FunctionName {
        text.parse().unwrap()
    }

    /// The value of the series that starts with `series` and a blank.
    #[track_caller]
    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.render();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    #[test]
    fn every_name_of_the_strict_gate_exists_as_soon_as_a_function_was_called() {
        let metrics = Metrics::default();
        metrics.function(&name("echo")).set_concurrency(3);
        metrics.function(&name("echo")).set_work(0, 0, 0);
        let text = metrics.render();
        assert!(!text.contains("echo"), "nobody called it: {text}");
        metrics.function(&name("echo")).sync_queue().admitted();
        let concurrency = "function_effective_concurrency{function=\"echo\"}";
        assert_eq!(value(&metrics, concurrency), Some(3.0));
        for series in [
            "function_enqueue_total",
            "function_dispatch_total",
            "function_success_total",
            "function_error_total",
            "function_timeout_total",
            "function_cancelled_total",
            "function_retry_total",
            "function_requeue_total",
            "function_fault_total",
            "function_cold_start_total",
            "function_warm_start_total",
            "function_queue_depth",
            "function_inFlight",
            "function_latency_ms_count",
            "function_init_duration_ms_count",
            "function_queue_wait_ms_count",
            "function_e2e_latency_ms_count",
        ] {
            let series = format!("{series}{{function=\"echo\"}}");
            assert_eq!(value(&metrics, &series), Some(0.0), "{series}");
        }
        let rejected = "function_queue_rejected_total{function=\"echo\",reason=\"depth\"}";
        assert_eq!(value(&metrics, rejected), Some(0.0));
    }

    #[test]
    fn each_event_moves_its_own_series() {
        let metrics = Metrics::default();
        let echo = metrics.function(&name("echo"));
        let series = |metric: &str| value(&metrics, &format!("{metric}{{function=\"echo\"}}"));

        echo.enqueued();
        echo.dispatched();
        echo.dispatched();
        echo.retried();
        echo.requeued();
        echo.faulted();
        echo.rejected(RejectReason::Rate);
        echo.waited(Duration::from_millis(3));
        echo.ran(
            "retry",
            Duration::from_micros(1500),
            Some(Duration::from_millis(20)),
        );
        echo.ran("success", Duration::from_micros(500), None);
        echo.ended(Status::Success, Duration::from_millis(8));
        echo.ended(Status::Timeout, Duration::from_millis(2));

        assert_eq!(series("function_enqueue_total"), Some(1.0));
        assert_eq!(series("function_dispatch_total"), Some(2.0));
        assert_eq!(series("function_retry_total"), Some(1.0));
        assert_eq!(series("function_requeue_total"), Some(1.0));
        assert_eq!(series("function_fault_total"), Some(1.0));
        assert_eq!(series("function_queue_wait_ms_sum"), Some(3.0));
        assert_eq!(series("function_latency_ms_sum"), Some(2.0));
        assert_eq!(series("function_latency_ms_count"), Some(2.0));
        assert_eq!(series("function_cold_start_total"), Some(1.0));
        assert_eq!(series("function_warm_start_total"), Some(1.0));
        assert_eq!(series("function_init_duration_ms_sum"), Some(20.0));
        assert_eq!(series("function_success_total"), Some(1.0));
        assert_eq!(series("function_timeout_total"), Some(1.0));
        assert_eq!(series("function_error_total"), Some(0.0));
        assert_eq!(series("function_e2e_latency_ms_sum"), Some(10.0));
        let rejected = "function_queue_rejected_total{function=\"echo\",reason=\"rate\"}";
        assert_eq!(value(&metrics, rejected), Some(1.0));
    }

    #[test]
    fn every_outcome_has_a_series_of_its_own() {
        use crate::execution::Outcome;
        use crate::model::Failure;
        let failure = || Failure::new("C", "m");
        let metrics = Metrics::default();
        let echo = metrics.function(&name("echo"));
        for outcome in [
            Outcome::Success {
                content_type: None,
                body: Default::default(),
            },
            Outcome::Error(failure()),
            Outcome::Retry(failure()),
            Outcome::Requeue(None),
            Outcome::TimedOut(failure()),
            Outcome::Limit(failure()),
            Outcome::Interrupted,
            Outcome::Fault(String::new()),
        ] {
            echo.ran(outcome.word(), Duration::ZERO, None);
            let word = outcome.word();
            let series = format!("function_attempt_total{{function=\"echo\",outcome=\"{word}\"}}");
            assert_eq!(value(&metrics, &series), Some(1.0), "{series}");
        }
    }

    #[test]
    fn a_deleted_function_has_no_series_and_a_new_one_starts_at_zero() {
        let metrics = Metrics::default();
        metrics.function(&name("gone")).enqueued();
        metrics.remove_function(&name("gone"));
        assert!(!metrics.render().contains("gone"));
        metrics.function(&name("gone")).dispatched();
        let series = "function_enqueue_total{function=\"gone\"}";
        assert_eq!(value(&metrics, series), Some(0.0));

        let late = metrics.function(&name("late"));
        metrics.remove_function(&name("late"));
        late.enqueued();
        late.set_work(3, 2, 1);
        let text = metrics.render();
        assert!(
            !text.contains("\"late\"") && !text.contains(OTHER),
            "{text}"
        );
    }

    #[test]
    fn a_function_that_nobody_called_takes_no_place_and_work_from_before_is_shown() {
        let metrics = Metrics::new(2);
        for number in 0..100 {
            let idle = metrics.function(&name(&format!("idle{number}")));
            idle.set_concurrency(4);
        }
        metrics.function(&name("busy")).rejected(RejectReason::Rate);
        metrics.function(&name("found")).set_work(5, 1, 0);
        metrics.function(&name("third")).enqueued();
        let text = metrics.render();
        assert!(!text.contains("\"idle") && !text.contains("\"third"));
        for line in [
            "function_queue_rejected_total{function=\"busy\",reason=\"rate\"} 1",
            "function_queue_depth{function=\"found\"} 5",
            "sync_queue_depth{function=\"found\"} 1",
            "function_enqueue_total{function=\"_other\"} 1",
        ] {
            assert!(text.contains(line), "no {line}: {text}");
        }
    }

    #[test]
    fn functions_beyond_the_bound_are_counted_together() {
        let metrics = Metrics::new(1);
        metrics.function(&name("first")).enqueued();
        let (second, third) = (
            metrics.function(&name("second")),
            metrics.function(&name("third")),
        );
        second.enqueued();
        third.enqueued();
        second.set_work(5, 0, 0);
        third.set_work(2, 0, 0);
        second.set_work(4, 0, 0);
        let depth = "function_queue_depth{function=\"_other\"}";
        assert_eq!(value(&metrics, depth), Some(6.0));
        metrics.remove_function(&name("second"));
        assert_eq!(value(&metrics, depth), Some(2.0));
        let enqueued = "function_enqueue_total{function=\"_other\"}";
        assert_eq!(value(&metrics, enqueued), Some(2.0));
        assert!(!metrics.render().contains("third"));

        metrics.remove_function(&name("first"));
        metrics.function(&name("fourth")).enqueued();
        let fourth = "function_enqueue_total{function=\"fourth\"}";
        assert_eq!(value(&metrics, fourth), Some(1.0));
    }

    #[test]
    fn figures_of_the_plane_are_sampled_when_they_are_read() {
        let metrics = Metrics::default();
        metrics.sample_with(|metrics| metrics.set_gauge(Gauge::GuestsRunning, 7));
        metrics.add(Counter::StoreRowsDropped, 2);
        metrics.add(Counter::StoreRowsDropped, 3);
        assert_eq!(value(&metrics, "pelton_guests_running"), Some(7.0));
        assert_eq!(
            value(&metrics, "pelton_store_rows_dropped_total"),
            Some(5.0)
        );
    }

    #[test]
    fn the_text_says_what_each_series_is() {
        let metrics = Metrics::default();
        metrics.function(&name("echo")).enqueued();
        let text = metrics.render();
        assert!(text.contains("# TYPE function_enqueue_total counter"));
        assert!(text.contains("# TYPE function_inFlight gauge"));
        assert!(text.contains("# TYPE function_latency_ms histogram"));
        assert!(text.contains("# HELP pelton_guests_running "));
        assert!(text.contains("function_latency_ms_bucket{function=\"echo\",le=\"+Inf\"} 0"));
        assert!(text.ends_with('\n'));
    }
}
