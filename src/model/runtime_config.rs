//! What an operator may change while the plane runs: the plane's rate, and how synchronous calls wait.
//!
//! The names are nanofaas's. A value is the start's (flags) until somebody changes it; what was changed is
//! kept apart, so that the rest goes on following the flags.
//!
//! **Invariant:** the ranges of every value stand here and nowhere else; [`RuntimeConfig::complaints`] is
//! empty for every configuration that is in force because somebody asked for it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::id::Timestamp;

/// Ranges, one row each.
pub mod runtime_limits {
    use std::ops::RangeInclusive;

    /// Calls a second in the whole plane.
    pub const RATE_MAX_PER_SECOND: RangeInclusive<u64> = 1..=1_000_000_000;
    /// Synchronous callers that wait in queues, in the whole plane.
    pub const SYNC_QUEUE_MAX_DEPTH: RangeInclusive<u64> = 1..=1_000_000;
    /// Both waits, in ms; a fraction of a millisecond is one.
    pub const SYNC_QUEUE_WAIT_MS: RangeInclusive<u64> = 1..=86_400_000;
    /// What a refused synchronous caller is told at least, in s.
    pub const SYNC_QUEUE_RETRY_AFTER_S: RangeInclusive<u64> = 1..=3600;
}

/// The values in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Calls a second that the whole plane takes, synchronous and queued together.
    pub rate_max_per_second: u32,
    /// Whether the three bounds below hold for synchronous calls: depth, estimate and wait. Off: only a
    /// function's own queue size and rate refuse them.
    pub sync_queue_enabled: bool,
    /// Whether a synchronous call is refused that would wait too long by the estimate.
    pub sync_queue_admission_enabled: bool,
    /// Synchronous callers that may wait in queues at once, in the whole plane.
    pub sync_queue_max_depth: u32,
    /// A call that would wait longer than this before it begins is refused.
    pub sync_queue_max_estimated_wait: Duration,
    /// A call without a key that has waited as long as this and has not begun is given back to its caller.
    pub sync_queue_max_queue_wait: Duration,
    /// What a refused synchronous caller is told at least as the time to come back, in s.
    pub sync_queue_retry_after_s: u32,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            rate_max_per_second: 1_000_000,
            sync_queue_enabled: true,
            sync_queue_admission_enabled: true,
            sync_queue_max_depth: 4096,
            sync_queue_max_estimated_wait: Duration::from_secs(300),
            sync_queue_max_queue_wait: Duration::from_secs(300),
            sync_queue_retry_after_s: 2,
        }
    }
}

/// One change; `None` goes back to the value of the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeSetting {
    /// See [`RuntimeConfig::rate_max_per_second`].
    RateMaxPerSecond(Option<u32>),
    /// See [`RuntimeConfig::sync_queue_enabled`].
    SyncQueueEnabled(Option<bool>),
    /// See [`RuntimeConfig::sync_queue_admission_enabled`].
    SyncQueueAdmissionEnabled(Option<bool>),
    /// See [`RuntimeConfig::sync_queue_max_depth`].
    SyncQueueMaxDepth(Option<u32>),
    /// See [`RuntimeConfig::sync_queue_max_estimated_wait`].
    SyncQueueMaxEstimatedWait(Option<Duration>),
    /// See [`RuntimeConfig::sync_queue_max_queue_wait`].
    SyncQueueMaxQueueWait(Option<Duration>),
    /// See [`RuntimeConfig::sync_queue_retry_after_s`].
    SyncQueueRetryAfterS(Option<u32>),
}

/// What was changed since the plane was set up; the rest is the start's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuntimeOverrides {
    /// See [`RuntimeConfig::rate_max_per_second`].
    pub rate_max_per_second: Option<u32>,
    /// See [`RuntimeConfig::sync_queue_enabled`].
    pub sync_queue_enabled: Option<bool>,
    /// See [`RuntimeConfig::sync_queue_admission_enabled`].
    pub sync_queue_admission_enabled: Option<bool>,
    /// See [`RuntimeConfig::sync_queue_max_depth`].
    pub sync_queue_max_depth: Option<u32>,
    /// See [`RuntimeConfig::sync_queue_max_estimated_wait`].
    pub sync_queue_max_estimated_wait: Option<Duration>,
    /// See [`RuntimeConfig::sync_queue_max_queue_wait`].
    pub sync_queue_max_queue_wait: Option<Duration>,
    /// See [`RuntimeConfig::sync_queue_retry_after_s`].
    pub sync_queue_retry_after_s: Option<u32>,
}

/// The overrides with the number that every change raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuntimeRevision {
    /// 0 until the first change.
    pub number: u64,
    /// When it was made.
    pub changed_at: Timestamp,
    /// All that was changed up to here.
    pub overrides: RuntimeOverrides,
}

impl RuntimeOverrides {
    /// The overrides after some changes.
    #[must_use]
    pub fn changed(mut self, settings: &[RuntimeSetting]) -> Self {
        for setting in settings {
            match *setting {
                RuntimeSetting::RateMaxPerSecond(value) => self.rate_max_per_second = value,
                RuntimeSetting::SyncQueueEnabled(value) => self.sync_queue_enabled = value,
                RuntimeSetting::SyncQueueAdmissionEnabled(value) => {
                    self.sync_queue_admission_enabled = value;
                }
                RuntimeSetting::SyncQueueMaxDepth(value) => self.sync_queue_max_depth = value,
                RuntimeSetting::SyncQueueMaxEstimatedWait(value) => {
                    self.sync_queue_max_estimated_wait = value;
                }
                RuntimeSetting::SyncQueueMaxQueueWait(value) => {
                    self.sync_queue_max_queue_wait = value;
                }
                RuntimeSetting::SyncQueueRetryAfterS(value) => {
                    self.sync_queue_retry_after_s = value;
                }
            }
        }
        self
    }
}

impl RuntimeConfig {
    /// These values with what was changed on top. An estimated wait that nobody asked for follows a shorter
    /// queue wait.
    #[must_use]
    pub fn with(self, overrides: &RuntimeOverrides) -> Self {
        let queue_wait = overrides
            .sync_queue_max_queue_wait
            .unwrap_or(self.sync_queue_max_queue_wait);
        Self {
            rate_max_per_second: overrides
                .rate_max_per_second
                .unwrap_or(self.rate_max_per_second),
            sync_queue_enabled: overrides
                .sync_queue_enabled
                .unwrap_or(self.sync_queue_enabled),
            sync_queue_admission_enabled: overrides
                .sync_queue_admission_enabled
                .unwrap_or(self.sync_queue_admission_enabled),
            sync_queue_max_depth: overrides
                .sync_queue_max_depth
                .unwrap_or(self.sync_queue_max_depth),
            sync_queue_max_estimated_wait: overrides
                .sync_queue_max_estimated_wait
                .unwrap_or(self.sync_queue_max_estimated_wait.min(queue_wait)),
            sync_queue_max_queue_wait: queue_wait,
            sync_queue_retry_after_s: overrides
                .sync_queue_retry_after_s
                .unwrap_or(self.sync_queue_retry_after_s),
        }
    }

    /// Everything that is wrong with these values together, a sentence each that begins with the name.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut whole = |name: &str, value: u32, range: &RangeInclusive<u64>| {
            if !range.contains(&u64::from(value)) {
                complaints.push(whole_complaint(name, value, range));
            }
        };
        whole(
            "rateMaxPerSecond",
            self.rate_max_per_second,
            &runtime_limits::RATE_MAX_PER_SECOND,
        );
        whole(
            "syncQueueMaxDepth",
            self.sync_queue_max_depth,
            &runtime_limits::SYNC_QUEUE_MAX_DEPTH,
        );
        whole(
            "syncQueueRetryAfterSeconds",
            self.sync_queue_retry_after_s,
            &runtime_limits::SYNC_QUEUE_RETRY_AFTER_S,
        );
        let estimated = self.sync_queue_max_estimated_wait;
        let waited = self.sync_queue_max_queue_wait;
        for (name, wait) in [
            ("syncQueueMaxEstimatedWait", estimated),
            ("syncQueueMaxQueueWait", waited),
        ] {
            let most = Duration::from_millis(*runtime_limits::SYNC_QUEUE_WAIT_MS.end());
            if wait.is_zero() || wait > most {
                complaints.push(wait_complaint(name));
            }
        }
        if estimated > waited {
            complaints.push(
                "syncQueueMaxEstimatedWait: must not be longer than syncQueueMaxQueueWait: a call that is \
                 expected to wait longer than it may is refused at once"
                    .to_owned(),
            );
        }
        complaints
    }

    /// What of these values does nothing, and why, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.sync_queue_enabled {
            warnings.push(
                "syncQueueEnabled is false: syncQueueAdmissionEnabled, syncQueueMaxDepth and both waits do \
                 nothing, and only a function's own queueSize and rate refuse synchronous calls"
                    .to_owned(),
            );
        } else if !self.sync_queue_admission_enabled {
            warnings.push(
                "syncQueueAdmissionEnabled is false: syncQueueMaxEstimatedWait does nothing, and calls are \
                 taken that will run out of time in the queue"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// What is said of a number that is out of its range.
pub fn whole_complaint(
    name: &str,
    value: impl std::fmt::Display,
    range: &RangeInclusive<u64>,
) -> String {
    let (least, most) = (range.start(), range.end());
    format!("{name}: must be a whole number from {least} to {most}, not {value}")
}

/// What is said of a wait that is out of its range.
pub fn wait_complaint(name: &str) -> String {
    format!("{name}: must be longer than nothing and at most a day, such as PT2S or PT0.5S")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_order() {
        assert_eq!(RuntimeConfig::default().complaints(), [""; 0]);
        assert_eq!(RuntimeConfig::default().warnings(), [""; 0]);
    }

    #[test]
    fn what_was_changed_stands_and_the_rest_follows_the_start() {
        let overrides = RuntimeOverrides::default().changed(&[
            RuntimeSetting::RateMaxPerSecond(Some(7)),
            RuntimeSetting::SyncQueueEnabled(Some(false)),
            RuntimeSetting::SyncQueueMaxDepth(Some(9)),
        ]);
        let start = RuntimeConfig {
            sync_queue_max_depth: 3,
            sync_queue_retry_after_s: 5,
            ..RuntimeConfig::default()
        };
        let config = start.with(&overrides);
        assert_eq!(config.rate_max_per_second, 7);
        assert!(!config.sync_queue_enabled);
        assert_eq!(config.sync_queue_max_depth, 9);
        assert_eq!(config.sync_queue_retry_after_s, 5);
        let back = overrides.changed(&[RuntimeSetting::SyncQueueMaxDepth(None)]);
        assert_eq!(start.with(&back).sync_queue_max_depth, 3);
    }

    #[test]
    fn an_estimate_that_nobody_asked_for_follows_a_shorter_wait() {
        let two_seconds = Duration::from_secs(2);
        let shorter = RuntimeOverrides::default()
            .changed(&[RuntimeSetting::SyncQueueMaxQueueWait(Some(two_seconds))]);
        let config = RuntimeConfig::default().with(&shorter);
        assert_eq!(config.sync_queue_max_estimated_wait, two_seconds);
        assert!(config.complaints().is_empty());
        let asked = shorter.changed(&[RuntimeSetting::SyncQueueMaxEstimatedWait(Some(
            Duration::from_secs(3),
        ))]);
        let complaints = RuntimeConfig::default().with(&asked).complaints();
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("syncQueueMaxEstimatedWait: must not be longer"));
    }

    #[test]
    fn all_complaints_come_at_once() {
        let config = RuntimeConfig {
            rate_max_per_second: 0,
            sync_queue_max_depth: 0,
            sync_queue_max_estimated_wait: Duration::from_secs(1),
            sync_queue_max_queue_wait: Duration::ZERO,
            sync_queue_retry_after_s: 3601,
            ..RuntimeConfig::default()
        };
        let complaints = config.complaints();
        let names: Vec<_> = complaints
            .iter()
            .filter_map(|complaint| complaint.split(':').next())
            .collect();
        assert_eq!(
            names,
            [
                "rateMaxPerSecond",
                "syncQueueMaxDepth",
                "syncQueueRetryAfterSeconds",
                "syncQueueMaxQueueWait",
                "syncQueueMaxEstimatedWait"
            ]
        );
    }
}
