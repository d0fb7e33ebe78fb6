//! The runtime config: what an operator changes while the plane runs, with a revision that every change raises.
//!
//! A change is durable before it acts, and acts before it is answered. Two who change at once are told apart by
//! the revision that each of them has seen: the store lets one of them through.
//!
//! **Invariant:** what is in force is what the store has, over the start's values; a change that is refused
//! changes nothing.

use std::fmt::Write as _;

use tokio::time::Instant;

use super::Scheduler;
use super::admission::Admission;
use crate::model::{ExecutionId, RuntimeConfig, RuntimeRevision, RuntimeSetting, Timestamp};
use crate::observe::RuntimeConfigUpdate;
use crate::store::{self, Applied};

/// A change that was made.
#[derive(Debug, Clone)]
pub struct RuntimeChange {
    /// The revision that is in force now.
    pub revision: u64,
    /// The values that are.
    pub config: RuntimeConfig,
    /// When.
    pub applied_at: Timestamp,
    /// Names the change, in the log too.
    pub change_id: String,
    /// What of the values does nothing, and why.
    pub warnings: Vec<String>,
}

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeConfigError {
    /// The values cannot be meant; a sentence each.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// Somebody else has changed it meanwhile.
    #[error("the runtime config is at revision {current} by now: look at it again, then change it")]
    Conflict {
        /// The revision that is in force.
        current: u64,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Scheduler {
    /// The revision and the values in force.
    pub fn runtime_config(&self) -> (u64, RuntimeConfig) {
        let state = self.lock();
        (state.admission.revision.number, state.admission.config)
    }

    /// What the values would be after these changes; changes nothing.
    ///
    /// # Errors
    /// All complaints about the values.
    pub fn check_runtime_config(
        &self,
        settings: &[RuntimeSetting],
    ) -> Result<RuntimeConfig, Vec<String>> {
        let state = self.lock();
        let (_, config) = successor(&state.admission, settings, self.inner.clock.now())?;
        Ok(config)
    }

    /// Changes the runtime config, if its revision is still the one that the caller has seen. Values that are
    /// what they were already make no revision.
    ///
    /// # Errors
    /// See [`RuntimeConfigError`]; the values are judged before the revision.
    pub async fn change_runtime_config(
        &self,
        expected: u64,
        settings: Vec<RuntimeSetting>,
    ) -> Result<RuntimeChange, RuntimeConfigError> {
        let scheduler = self.clone();
        // Seen through even if the caller goes away: what is on disk must be in force.
        let change = async move { scheduler.change_now(expected, &settings).await };
        let changed = match self.inner.tasks.spawn(change).await {
            Ok(changed) => changed,
            Err(_) => Err(super::decide::store_panicked().into()),
        };
        self.inner.metrics.runtime_config_updated(match &changed {
            Ok(_) => RuntimeConfigUpdate::Success,
            Err(_) => RuntimeConfigUpdate::Failure,
        });
        changed
    }

    async fn change_now(
        &self,
        expected: u64,
        settings: &[RuntimeSetting],
    ) -> Result<RuntimeChange, RuntimeConfigError> {
        let began = Instant::now();
        let applied_at = self.inner.clock.now();
        let (before, next) = {
            let admission = &self.lock().admission;
            let (next, _) =
                successor(admission, settings, applied_at).map_err(RuntimeConfigError::Invalid)?;
            let current = admission.revision.number;
            if current != expected {
                return Err(RuntimeConfigError::Conflict { current });
            }
            if next.overrides == admission.revision.overrides {
                return Ok(unchanged(admission, applied_at));
            }
            (admission.config, next)
        };
        let store = &self.inner.store;
        if store.set_runtime_config(expected, next).await? == Applied::Stale {
            let standing = store.runtime_config().await?.unwrap_or_default();
            return Err(RuntimeConfigError::Conflict {
                current: standing.number,
            });
        }
        let config = {
            let mut state = self.lock();
            state.admission.change(next);
            state.admission.start.with(&next.overrides)
        };
        let change = RuntimeChange {
            revision: next.number,
            config,
            applied_at,
            change_id: change_id(applied_at),
            warnings: config.warnings(),
        };
        self.inner
            .metrics
            .runtime_config_applied(next.number, began.elapsed());
        tracing::info!(
            config.revision = next.number,
            config.change_id = change.change_id,
            "the runtime config was changed: {}",
            differences(&before, &config)
        );
        Ok(change)
    }

    /// Says at a start what differs from the flags because it was changed earlier.
    pub(super) fn announce_runtime_config(&self) {
        let admission = &self.lock().admission;
        let number = admission.revision.number;
        self.inner.metrics.set_runtime_config_revision(number);
        if number > 0 {
            tracing::info!(
                config.revision = number,
                "the runtime config was changed while an earlier process ran, and stays so: {}",
                differences(&admission.start, &admission.config)
            );
        }
    }
}

/// The next revision, and the values that it brings.
fn successor(
    admission: &Admission,
    settings: &[RuntimeSetting],
    changed_at: Timestamp,
) -> Result<(RuntimeRevision, RuntimeConfig), Vec<String>> {
    let next = RuntimeRevision {
        number: admission.revision.number + 1,
        changed_at,
        overrides: admission.revision.overrides.changed(settings),
    };
    let config = admission.start.with(&next.overrides);
    let complaints = config.complaints();
    if complaints.is_empty() {
        Ok((next, config))
    } else {
        Err(complaints)
    }
}

fn unchanged(admission: &Admission, now: Timestamp) -> RuntimeChange {
    let mut warnings = vec!["nothing was changed: these are the values already".to_owned()];
    warnings.extend(admission.config.warnings());
    RuntimeChange {
        revision: admission.revision.number,
        config: admission.config,
        applied_at: now,
        change_id: change_id(now),
        warnings,
    }
}

/// An id that sorts by time, made as those of executions are.
fn change_id(now: Timestamp) -> String {
    ExecutionId::new(now).to_string()
}

/// What differs, as `name: before -> after`.
fn differences(before: &RuntimeConfig, after: &RuntimeConfig) -> String {
    let mut text = String::new();
    for (was, is) in shown(before).into_iter().zip(shown(after)) {
        let (name, was, is) = (is.0, was.1, is.1);
        if was != is {
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to text cannot fail.
            let _ = write!(text, "{comma}{name}: {was} -> {is}");
        }
    }
    if text.is_empty() {
        text.push_str("to the same values");
    }
    text
}

fn shown(config: &RuntimeConfig) -> [(&'static str, String); 7] {
    [
        ("rateMaxPerSecond", config.rate_max_per_second.to_string()),
        ("syncQueueEnabled", config.sync_queue_enabled.to_string()),
        (
            "syncQueueAdmissionEnabled",
            config.sync_queue_admission_enabled.to_string(),
        ),
        ("syncQueueMaxDepth", config.sync_queue_max_depth.to_string()),
        (
            "syncQueueMaxEstimatedWait",
            format!("{:?}", config.sync_queue_max_estimated_wait),
        ),
        (
            "syncQueueMaxQueueWait",
            format!("{:?}", config.sync_queue_max_queue_wait),
        ),
        (
            "syncQueueRetryAfterSeconds",
            config.sync_queue_retry_after_s.to_string(),
        ),
    ]
}
