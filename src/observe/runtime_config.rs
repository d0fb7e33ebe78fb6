//! How the runtime config was changed: nanofaas's `controlplane_runtime_config_*` families.
//!
//! **Invariant:** both words of the label `status` exist from the start.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

use super::Metrics;
use super::families::{counters, registered};

pub(super) struct RuntimeConfigSeries {
    revision: IntGauge,
    succeeded: IntCounter,
    failed: IntCounter,
    apply_seconds: Histogram,
}

impl RuntimeConfigSeries {
    pub(super) fn register(registry: &Registry) -> Self {
        let updates = counters(
            registry,
            "controlplane_runtime_config_updates_total",
            "Changes of the runtime config that were asked for, made (success) or refused (failure)",
            &["status"],
        );
        let seconds = HistogramOpts::new(
            "controlplane_runtime_config_apply_duration_seconds",
            "Time between a change of the runtime config being judged and being in force, in s",
        );
        let revision = IntGauge::new(
            "controlplane_runtime_config_revision",
            "How often the runtime config was changed",
        );
        Self {
            revision: registered(registry, revision),
            succeeded: updates.with_label_values(&["success"]),
            failed: updates.with_label_values(&["failure"]),
            apply_seconds: registered(registry, Histogram::with_opts(seconds)),
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeConfigUpdate {
    /// It was made.
    Success,
    /// It was refused.
    Failure,
}

impl Metrics {
    /// A change of the runtime config was asked for (`controlplane_runtime_config_updates_total`).
    pub fn runtime_config_updated(&self, update: RuntimeConfigUpdate) {
        let series = &self.inner.runtime_config;
        match update {
            RuntimeConfigUpdate::Success => series.succeeded.inc(),
            RuntimeConfigUpdate::Failure => series.failed.inc(),
        }
    }

    /// A revision came into force, so long after it was judged
    /// (`controlplane_runtime_config_apply_duration_seconds`).
    pub fn runtime_config_applied(&self, revision: u64, took: Duration) {
        self.set_runtime_config_revision(revision);
        let seconds = took.as_secs_f64();
        self.inner.runtime_config.apply_seconds.observe(seconds);
    }

    /// The revision in force (`controlplane_runtime_config_revision`).
    pub fn set_runtime_config_revision(&self, revision: u64) {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        self.inner.runtime_config.revision.set(revision);
    }
}
