//! Times of functions in both units that nanofaas's tools read: a histogram in milliseconds, and beside it the
//! same observations as a summary in seconds, under the name that its Java server gives them.
//!
//! **Invariant:** an observation is recorded once; the summary is worked out when somebody reads it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Metric, MetricFamily, MetricType, Quantile, Summary};
use prometheus::{Histogram, HistogramOpts, HistogramVec};

/// Upper bounds of the histograms' buckets, in ms: from ten microseconds to five minutes.
pub(super) const BUCKETS_MS: [f64; 22] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0,
    1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0, 300_000.0,
];

/// The quantiles of the summaries.
const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];
/// The summaries' quantiles are of at least this time, and of at most twice as much where somebody reads often.
const WINDOW: Duration = Duration::from_secs(60);

/// Two families of one name: `NAME` in ms and `NAME_seconds`. A cheap handle.
#[derive(Clone)]
pub(super) struct Timers {
    inner: Arc<Inner>,
}

struct Inner {
    ms: HistogramVec,
    seconds: Desc,
    windows: Mutex<HashMap<String, Window>>,
}

impl Timers {
    pub(super) fn new(name: &str, help: &str) -> prometheus::Result<Self> {
        let options = HistogramOpts::new(name, format!("{help}, in ms"));
        let ms = HistogramVec::new(options.buckets(BUCKETS_MS.to_vec()), &["function"])?;
        let seconds = Desc::new(
            format!("{name}_seconds"),
            format!("{help}, in s; quantiles of the last one to two minutes"),
            vec!["function".to_owned()],
            HashMap::new(),
        )?;
        Ok(Self {
            inner: Arc::new(Inner {
                ms,
                seconds,
                windows: Mutex::default(),
            }),
        })
    }

    /// The series with this label, made where they do not exist.
    pub(super) fn with_label(&self, label: &str) -> Histogram {
        self.inner.ms.with_label_values(&[label])
    }

    /// Removes the series with this label.
    pub(super) fn remove(&self, label: &str) {
        // An error says that there was no such series, which is what is wanted.
        let _ = self.inner.ms.remove_label_values(&[label]);
        self.windows(|windows| windows.remove(label));
    }

    fn windows<T>(&self, act: impl FnOnce(&mut HashMap<String, Window>) -> T) -> T {
        let mut windows = self
            .inner
            .windows
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        act(&mut windows)
    }

    fn seconds_of(&self, ms: &MetricFamily, now: Instant) -> MetricFamily {
        let metrics = self.windows(|windows| {
            let metrics = ms.get_metric().iter();
            metrics
                .map(|metric| {
                    let label = metric.get_label().first().map_or("", |label| label.value());
                    let window = windows
                        .entry(label.to_owned())
                        .or_insert_with(|| Window::since(now));
                    in_seconds(metric, window, now)
                })
                .collect()
        });
        let mut family = MetricFamily::default();
        family.set_name(self.inner.seconds.fq_name.clone());
        family.set_help(self.inner.seconds.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics);
        family
    }
}

impl Collector for Timers {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.inner.ms.desc();
        all.push(&self.inner.seconds);
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.inner.ms.collect();
        let seconds: Vec<_> = families
            .iter()
            .map(|ms| self.seconds_of(ms, Instant::now()))
            .collect();
        families.extend(seconds);
        families
    }
}

fn in_seconds(metric: &Metric, window: &mut Window, now: Instant) -> Metric {
    let histogram = metric.get_histogram();
    let buckets = histogram.get_bucket().iter().map(Bucket::cumulative_count);
    let all = histogram.get_sample_count();
    let recent = window.look(buckets.chain([all]).collect(), now);
    let quantiles = QUANTILES.map(|wanted| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(wanted);
        quantile.set_value(quantile_ms(&recent, wanted) / 1_000.0);
        quantile
    });
    let mut summary = Summary::default();
    summary.set_sample_count(all);
    summary.set_sample_sum(histogram.get_sample_sum() / 1_000.0);
    summary.set_quantile(quantiles.into());
    let mut seconds = Metric::from_label(metric.get_label().to_vec());
    seconds.set_summary(summary);
    seconds
}

/// What a histogram held a while ago: cumulative counts of its buckets, and of all.
struct Window {
    older: Vec<u64>,
    newer: Vec<u64>,
    newer_since: Instant,
}

impl Window {
    fn since(now: Instant) -> Self {
        Self {
            older: Vec::new(),
            newer: Vec::new(),
            newer_since: now,
        }
    }

    /// How much of `counts` came in since the older of the two times.
    fn look(&mut self, counts: Vec<u64>, now: Instant) -> Vec<u64> {
        let before = |bucket: usize| self.older.get(bucket).copied().unwrap_or(0);
        let recent = counts.iter().enumerate();
        let recent = recent
            .map(|(bucket, count)| count.saturating_sub(before(bucket)))
            .collect();
        if now.duration_since(self.newer_since) >= WINDOW {
            self.older = std::mem::replace(&mut self.newer, counts);
            self.newer_since = now;
        }
        recent
    }
}

/// The quantile of these cumulative counts, as if the values of a bucket lay evenly in it; 0 where there are none,
/// as nanofaas has it. Beyond the last bound it is that bound.
fn quantile_ms(cumulative: &[u64], wanted: f64) -> f64 {
    let all = cumulative.last().copied().unwrap_or(0);
    if all == 0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts beyond 2^53 are none, and an estimate is what is asked for"
    )]
    let float = |count: u64| count as f64;
    let rank = wanted * float(all);
    let (mut lower, mut below) = (0.0, 0);
    for (count, upper) in cumulative.iter().zip(BUCKETS_MS) {
        if float(*count) >= rank && *count > below {
            let share = (rank - float(below)) / float(*count - below);
            return lower + (upper - lower) * share.clamp(0.0, 1.0);
        }
        (lower, below) = (upper, *count);
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cumulative counts of these values in ms.
    fn counts(values: &[f64]) -> Vec<u64> {
        let up_to = |bound: f64| values.iter().filter(|value| **value <= bound).count() as u64;
        let buckets = BUCKETS_MS.map(up_to);
        buckets.into_iter().chain([values.len() as u64]).collect()
    }

    #[test]
    fn quantiles_lie_in_the_right_bucket() {
        assert_eq!(quantile_ms(&counts(&[]), 0.99), 0.0);
        assert_eq!(quantile_ms(&[], 0.5), 0.0);
        let values: Vec<_> = (1..=100).map(f64::from).collect();
        let counts = counts(&values);
        let within = |wanted, least: f64, most: f64| {
            let found = quantile_ms(&counts, wanted);
            assert!((least..=most).contains(&found), "{wanted}: {found}");
        };
        within(0.5, 49.0, 51.0);
        within(0.95, 94.0, 96.0);
        within(0.99, 98.0, 100.0);
        // All in one bucket, and beyond the last.
        assert_eq!(quantile_ms(&super::tests::counts(&[7.0, 8.0]), 0.5), 7.5);
        assert_eq!(quantile_ms(&super::tests::counts(&[1e9]), 0.5), 300_000.0);
    }

    #[test]
    fn a_window_forgets_what_is_older_than_two_of_it() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut window = Window::since(begun);
        assert_eq!(window.look(vec![1, 4], at(10)), [1, 4]);
        assert_eq!(window.look(vec![1, 5], at(60)), [1, 5]);
        assert_eq!(window.look(vec![1, 6], at(119)), [1, 6]);
        assert_eq!(window.look(vec![1, 7], at(120)), [1, 7]);
        assert_eq!(window.look(vec![1, 8], at(130)), [0, 3], "since second 60");
        assert_eq!(window.look(vec![1, 8], at(180)), [0, 3]);
        assert_eq!(window.look(vec![1, 8], at(300)), [0, 1]);
        assert_eq!(window.look(vec![1, 8], at(301)), [0, 0]);
    }
}
