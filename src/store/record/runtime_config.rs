//! The stored form of what was changed of the runtime config: the changed values alone.
//!
//! **Invariant:** waits are whole nanoseconds, so that what was asked for is what is read back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Unreadable, in_range, parse, print};
use crate::model::{RuntimeOverrides, runtime_limits};

const WHAT: &str = "runtime config";
/// The format that this build writes; it reads every one up to it.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct StoredOverrides {
    format: u32,
    rate_max_per_second: Option<u32>,
    sync_queue_enabled: Option<bool>,
    sync_queue_admission_enabled: Option<bool>,
    sync_queue_max_depth: Option<u32>,
    sync_queue_max_estimated_wait_ns: Option<u64>,
    sync_queue_max_queue_wait_ns: Option<u64>,
    sync_queue_retry_after_s: Option<u32>,
}

/// The overrides as text.
pub(crate) fn encode_runtime_overrides(overrides: &RuntimeOverrides) -> Result<String, Unreadable> {
    let stored = StoredOverrides {
        format: FORMAT,
        rate_max_per_second: overrides.rate_max_per_second,
        sync_queue_enabled: overrides.sync_queue_enabled,
        sync_queue_admission_enabled: overrides.sync_queue_admission_enabled,
        sync_queue_max_depth: overrides.sync_queue_max_depth,
        sync_queue_max_estimated_wait_ns: overrides
            .sync_queue_max_estimated_wait
            .map(nanoseconds)
            .transpose()?,
        sync_queue_max_queue_wait_ns: overrides
            .sync_queue_max_queue_wait
            .map(nanoseconds)
            .transpose()?,
        sync_queue_retry_after_s: overrides.sync_queue_retry_after_s,
    };
    print(WHAT, &stored)
}

/// The overrides in this text.
pub(crate) fn decode_runtime_overrides(text: &str) -> Result<RuntimeOverrides, Unreadable> {
    let stored: StoredOverrides = parse(WHAT, text)?;
    in_range(WHAT, "format", stored.format, &(1..=u64::from(FORMAT)))?;
    for (field, value, range) in [
        (
            "rate_max_per_second",
            stored.rate_max_per_second,
            &runtime_limits::RATE_MAX_PER_SECOND,
        ),
        (
            "sync_queue_max_depth",
            stored.sync_queue_max_depth,
            &runtime_limits::SYNC_QUEUE_MAX_DEPTH,
        ),
        (
            "sync_queue_retry_after_s",
            stored.sync_queue_retry_after_s,
            &runtime_limits::SYNC_QUEUE_RETRY_AFTER_S,
        ),
    ] {
        if let Some(value) = value {
            in_range(WHAT, field, value, range)?;
        }
    }
    let most_ns = runtime_limits::SYNC_QUEUE_WAIT_MS.end() * 1_000_000;
    for (field, value) in [
        (
            "sync_queue_max_estimated_wait_ns",
            stored.sync_queue_max_estimated_wait_ns,
        ),
        (
            "sync_queue_max_queue_wait_ns",
            stored.sync_queue_max_queue_wait_ns,
        ),
    ] {
        if let Some(value) = value {
            in_range(WHAT, field, value, &(1..=most_ns))?;
        }
    }
    Ok(RuntimeOverrides {
        rate_max_per_second: stored.rate_max_per_second,
        sync_queue_enabled: stored.sync_queue_enabled,
        sync_queue_admission_enabled: stored.sync_queue_admission_enabled,
        sync_queue_max_depth: stored.sync_queue_max_depth,
        sync_queue_max_estimated_wait: stored
            .sync_queue_max_estimated_wait_ns
            .map(Duration::from_nanos),
        sync_queue_max_queue_wait: stored
            .sync_queue_max_queue_wait_ns
            .map(Duration::from_nanos),
        sync_queue_retry_after_s: stored.sync_queue_retry_after_s,
    })
}

fn nanoseconds(wait: Duration) -> Result<u64, Unreadable> {
    u64::try_from(wait.as_nanos()).map_err(|_| Unreadable::of(WHAT, "a wait of centuries"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let some = RuntimeOverrides {
            rate_max_per_second: Some(5),
            sync_queue_enabled: Some(false),
            sync_queue_max_estimated_wait: Some(Duration::from_nanos(1)),
            sync_queue_max_queue_wait: Some(Duration::from_millis(500)),
            ..RuntimeOverrides::default()
        };
        for overrides in [RuntimeOverrides::default(), some] {
            let text = encode_runtime_overrides(&overrides).unwrap();
            assert_eq!(
                decode_runtime_overrides(&text).unwrap(),
                overrides,
                "{text}"
            );
        }
    }

    #[test]
    fn the_form_on_disk_stays_readable() {
        let text = r#"{"format":1,"rate_max_per_second":500,"sync_queue_enabled":null,"sync_queue_admission_enabled":false,"sync_queue_max_depth":null,"sync_queue_max_estimated_wait_ns":500000000,"sync_queue_max_queue_wait_ns":null,"sync_queue_retry_after_s":7}"#;
        let overrides = decode_runtime_overrides(text).unwrap();
        assert_eq!(overrides.rate_max_per_second, Some(500));
        assert_eq!(overrides.sync_queue_admission_enabled, Some(false));
        let half_a_second = Some(Duration::from_millis(500));
        assert_eq!(overrides.sync_queue_max_estimated_wait, half_a_second);
        assert_eq!(overrides.sync_queue_retry_after_s, Some(7));
        assert_eq!(encode_runtime_overrides(&overrides).unwrap(), text);
    }

    #[test]
    fn what_is_out_of_range_is_not_believed() {
        for (good, bad) in [
            ("\"rate_max_per_second\":500", "\"rate_max_per_second\":0"),
            ("\"format\":1", "\"format\":2"),
            ("_wait_ns\":7", "_wait_ns\":0"),
        ] {
            let text = r#"{"format":1,"rate_max_per_second":500,"sync_queue_enabled":null,"sync_queue_admission_enabled":null,"sync_queue_max_depth":null,"sync_queue_max_estimated_wait_ns":7,"sync_queue_max_queue_wait_ns":null,"sync_queue_retry_after_s":null}"#;
            assert!(decode_runtime_overrides(text).is_ok());
            assert!(decode_runtime_overrides(&text.replace(good, bad)).is_err());
        }
    }
}
