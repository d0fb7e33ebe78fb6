//! The runtime config as JSON: what is asked for, and what is in force.
//!
//! A change may be wrong in two ways, which clients of nanofaas tell apart: it cannot be read (400), or it can and
//! its values cannot be meant (422). A member that is null goes back to the value of the start.
//!
//! **Invariant:** every complaint comes at once; a value that is passed on is within its own range.

use std::fmt::Display;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use serde_json::{Number, Value};

use super::duration;
use super::fields::shown;
use super::json::{List, Object};
use super::spec::object;
use super::spec_names;
use crate::api::error::{Error, quoted};
use crate::model::{
    RuntimeConfig, RuntimeSetting, runtime_limits, wait_complaint, whole_complaint,
};
use crate::scheduler::RuntimeChange;

const EXPECTED_REVISION: &str = "expectedRevision";

/// Every member that a change may have.
const NAMES: &[&str] = &[
    EXPECTED_REVISION,
    "rateMaxPerSecond",
    "syncQueueEnabled",
    "syncQueueAdmissionEnabled",
    "syncQueueMaxDepth",
    "syncQueueMaxEstimatedWait",
    "syncQueueMaxQueueWait",
    "syncQueueRetryAfterSeconds",
];

/// The longest value that an answer repeats as it was sent, in bytes.
const VALUE_BYTES_MAX: usize = 80;

/// What a change asks for.
#[derive(Debug, Default)]
pub(in crate::api) struct RuntimeConfigBody {
    /// The revision that the client has seen.
    pub(in crate::api) expected_revision: Option<u64>,
    /// What it wants changed; values that are out of range are left out.
    pub(in crate::api) settings: Vec<RuntimeSetting>,
    /// What is wrong with those.
    pub(in crate::api) invalid: Vec<String>,
}

/// Whether a body has to name a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Revision {
    Needed,
    Optional,
}

#[derive(Default)]
struct Reading {
    body: RuntimeConfigBody,
    unreadable: Vec<String>,
    /// The first member that cannot be read, as it was sent.
    first: Option<(String, Value)>,
}

impl RuntimeConfigBody {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// 400 with all complaints, those about values included.
    pub(in crate::api) fn parse(body: &Bytes, revision: Revision) -> Result<Self, Error> {
        let mut reading = Reading::default();
        for (name, value) in object(body)? {
            reading.member(&name, value);
        }
        let Reading {
            body,
            mut unreadable,
            first,
        } = reading;
        let missing = body.expected_revision.is_none() && revision == Revision::Needed;
        let said = format!("{EXPECTED_REVISION}:");
        if missing && !unreadable.iter().any(|one| one.starts_with(&said)) {
            unreadable.push(format!(
                "{said} is needed: the revision that GET /v1/admin/runtime-config shows"
            ));
        }
        if unreadable.is_empty() {
            return Ok(body);
        }
        unreadable.extend(body.invalid);
        Err(Error::unreadable_config(unreadable, first))
    }
}

impl Reading {
    fn member(&mut self, name: &str, value: Value) {
        use RuntimeSetting as S;
        match name {
            EXPECTED_REVISION => match value.as_u64() {
                Some(revision) => self.body.expected_revision = Some(revision),
                // As good as absent.
                None if value.is_null() => {}
                None => self.unreadable(name, value, "must be a whole number from 0"),
            },
            "rateMaxPerSecond" => {
                let range = &runtime_limits::RATE_MAX_PER_SECOND;
                self.whole(name, value, range, S::RateMaxPerSecond);
            }
            "syncQueueEnabled" => self.flag(name, value, S::SyncQueueEnabled),
            "syncQueueAdmissionEnabled" => self.flag(name, value, S::SyncQueueAdmissionEnabled),
            "syncQueueMaxDepth" => {
                let range = &runtime_limits::SYNC_QUEUE_MAX_DEPTH;
                self.whole(name, value, range, S::SyncQueueMaxDepth);
            }
            "syncQueueMaxEstimatedWait" => self.wait(name, value, S::SyncQueueMaxEstimatedWait),
            "syncQueueMaxQueueWait" => self.wait(name, value, S::SyncQueueMaxQueueWait),
            "syncQueueRetryAfterSeconds" => {
                let range = &runtime_limits::SYNC_QUEUE_RETRY_AFTER_S;
                self.whole(name, value, range, S::SyncQueueRetryAfterS);
            }
            "revision" => self.unreadable(
                name,
                value,
                "is raised by every change and cannot be set: expectedRevision names the one you have seen",
            ),
            unknown => {
                let complaint = match spec_names::nearest_of(unknown, NAMES) {
                    Some(near) => format!("there is no such setting, did you mean {near}?"),
                    None => format!("there is no such setting: there are {}", NAMES.join(", ")),
                };
                self.unreadable(&quoted(unknown), value, complaint);
            }
        }
    }

    fn unreadable(&mut self, name: &str, value: Value, complaint: impl Display) {
        self.unreadable
            .push(format!("{name}: {complaint}, not {}", shown(&value)));
        // As it was sent, unless that is long.
        let value = match value {
            Value::String(text) if text.len() > VALUE_BYTES_MAX => shown(&text.into()).into(),
            Value::Array(_) | Value::Object(_) => shown(&value).into(),
            short @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => short,
        };
        self.first.get_or_insert((name.to_owned(), value));
    }

    fn set(&mut self, setting: RuntimeSetting) {
        self.body.settings.push(setting);
    }

    fn whole(
        &mut self,
        name: &str,
        value: Value,
        range: &RangeInclusive<u64>,
        setting: fn(Option<u32>) -> RuntimeSetting,
    ) {
        let number = match &value {
            Value::Null => return self.set(setting(None)),
            Value::Number(number) if !number.is_f64() => number.clone(),
            Value::Number(_)
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => return self.unreadable(name, value, "must be a whole number"),
        };
        let in_range = Number::as_u64(&number).filter(|number| range.contains(number));
        // Every range ends below 2^32.
        match in_range.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => self.set(setting(Some(number))),
            None => self.body.invalid.push(whole_complaint(name, number, range)),
        }
    }

    fn flag(&mut self, name: &str, value: Value, setting: fn(Option<bool>) -> RuntimeSetting) {
        match value {
            Value::Null => self.set(setting(None)),
            Value::Bool(flag) => self.set(setting(Some(flag))),
            other @ (Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                self.unreadable(name, other, "must be true or false")
            }
        }
    }

    fn wait(
        &mut self,
        name: &str,
        value: Value,
        setting: fn(Option<std::time::Duration>) -> RuntimeSetting,
    ) {
        if value.is_null() {
            return self.set(setting(None));
        }
        let Some(wait) = value.as_str().and_then(duration::parse) else {
            let complaint =
                "must be a duration of ISO 8601 in days, hours, minutes or seconds, such as PT2S";
            return self.unreadable(name, value, complaint);
        };
        let most = std::time::Duration::from_millis(*runtime_limits::SYNC_QUEUE_WAIT_MS.end());
        if wait.is_zero() || wait > most {
            self.body.invalid.push(wait_complaint(name));
        } else {
            self.set(setting(Some(wait)));
        }
    }
}

/// The values in force, and their revision.
pub(in crate::api) fn runtime_config(revision: u64, config: &RuntimeConfig) -> Bytes {
    let mut buffer = BytesMut::new();
    write_config(&mut buffer, revision, config);
    buffer.freeze()
}

/// What a change came to.
pub(in crate::api) fn runtime_change(change: &RuntimeChange) -> Bytes {
    let mut buffer = BytesMut::new();
    let mut object = Object::open(&mut buffer);
    object.number("revision", change.revision);
    write_config(
        object.member("effectiveConfig"),
        change.revision,
        &change.config,
    );
    object.time_or_null("appliedAt", Some(change.applied_at));
    object.plain("changeId", &change.change_id);
    write_texts(object.member("warnings"), &change.warnings);
    object.close();
    buffer.freeze()
}

/// That a change could be made.
pub(in crate::api) fn runtime_config_valid(warnings: &[String]) -> Bytes {
    let mut buffer = BytesMut::new();
    let mut object = Object::open(&mut buffer);
    object.flag("valid", true);
    write_texts(object.member("warnings"), warnings);
    object.close();
    buffer.freeze()
}

fn write_config(buffer: &mut BytesMut, revision: u64, config: &RuntimeConfig) {
    let mut object = Object::open(buffer);
    object.number("revision", revision);
    object.number("rateMaxPerSecond", config.rate_max_per_second.into());
    object.flag("syncQueueEnabled", config.sync_queue_enabled);
    object.flag(
        "syncQueueAdmissionEnabled",
        config.sync_queue_admission_enabled,
    );
    object.number("syncQueueMaxDepth", config.sync_queue_max_depth.into());
    object.plain(
        "syncQueueMaxEstimatedWait",
        &duration::iso(config.sync_queue_max_estimated_wait),
    );
    object.plain(
        "syncQueueMaxQueueWait",
        &duration::iso(config.sync_queue_max_queue_wait),
    );
    object.number(
        "syncQueueRetryAfterSeconds",
        config.sync_queue_retry_after_s.into(),
    );
    object.close();
}

fn write_texts(buffer: &mut BytesMut, texts: &[String]) {
    let mut list = List::open(buffer);
    for text in texts {
        list.text(text);
    }
    list.close();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(body: &str, revision: Revision) -> Result<RuntimeConfigBody, Error> {
        RuntimeConfigBody::parse(&Bytes::copy_from_slice(body.as_bytes()), revision)
    }

    #[track_caller]
    fn refused(body: &str) -> String {
        format!("{:?}", parse(body, Revision::Needed).expect_err("was read"))
    }

    #[test]
    fn every_setting_is_read() {
        let body = parse(
            r#"{"expectedRevision": 3, "rateMaxPerSecond": 5, "syncQueueEnabled": false, "syncQueueAdmissionEnabled": true,
                "syncQueueMaxDepth": 6, "syncQueueMaxEstimatedWait": "PT0.5S", "syncQueueMaxQueueWait": "PT2S",
                "syncQueueRetryAfterSeconds": 7}"#,
            Revision::Needed,
        )
        .unwrap();
        assert_eq!(body.expected_revision, Some(3));
        assert!(body.invalid.is_empty());
        let overrides = crate::model::RuntimeOverrides::default().changed(&body.settings);
        let config = RuntimeConfig::default().with(&overrides);
        let expected = RuntimeConfig {
            rate_max_per_second: 5,
            sync_queue_enabled: false,
            sync_queue_admission_enabled: true,
            sync_queue_max_depth: 6,
            sync_queue_max_estimated_wait: Duration::from_millis(500),
            sync_queue_max_queue_wait: Duration::from_secs(2),
            sync_queue_retry_after_s: 7,
        };
        assert_eq!(config, expected);
        assert_eq!(body.settings.len(), NAMES.len() - 1);
        let shown = runtime_config(3, &config);
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        for name in NAMES.iter().filter(|name| **name != EXPECTED_REVISION) {
            assert!(!shown[name].is_null(), "{name} is not shown");
        }
    }

    #[test]
    fn null_goes_back_to_the_start() {
        let body = parse(
            r#"{"rateMaxPerSecond": null, "syncQueueMaxQueueWait": null, "expectedRevision": null}"#,
            Revision::Optional,
        )
        .unwrap();
        assert_eq!(
            body.settings,
            [
                RuntimeSetting::RateMaxPerSecond(None),
                RuntimeSetting::SyncQueueMaxQueueWait(None)
            ]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_told_from_what_cannot_be_read() {
        for (member, complaint) in [
            (r#""rateMaxPerSecond": 0"#, "from 1 to 1000000000, not 0"),
            (r#""rateMaxPerSecond": -1"#, "not -1"),
            (r#""rateMaxPerSecond": 5000000000"#, "not 5000000000"),
            (
                r#""syncQueueMaxDepth": 0"#,
                "syncQueueMaxDepth: must be a whole number",
            ),
            (r#""syncQueueMaxQueueWait": "PT0S""#, "longer than nothing"),
            (r#""syncQueueMaxQueueWait": "-PT1S""#, "longer than nothing"),
            (r#""syncQueueMaxEstimatedWait": "P2D""#, "at most a day"),
            (
                r#""syncQueueRetryAfterSeconds": 0"#,
                "syncQueueRetryAfterSeconds",
            ),
        ] {
            let body = parse(&format!("{{{member}}}"), Revision::Optional).unwrap();
            assert_eq!(body.invalid.len(), 1, "{member}");
            assert!(body.invalid[0].contains(complaint), "{:?}", body.invalid);
            assert!(body.settings.is_empty());
        }
        for (member, complaint) in [
            (r#""rateMaxPerSecond": "5""#, "must be a whole number, not"),
            (
                r#""rateMaxPerSecond": 1.5"#,
                "must be a whole number, not 1.5",
            ),
            (r#""syncQueueEnabled": 1"#, "must be true or false, not 1"),
            (r#""syncQueueMaxQueueWait": "5s""#, "such as PT2S"),
            (r#""syncQueueMaxQueueWait": 5"#, "such as PT2S, not 5"),
            (r#""expectedRevision": -1"#, "from 0, not -1"),
            (r#""revision": 3"#, "expectedRevision names"),
            (r#""rateMaxPerSec": 3"#, "did you mean rateMaxPerSecond?"),
        ] {
            let error = refused(&format!("{{{member}}}"));
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn all_complaints_come_at_once_with_the_first_member() {
        let error = refused(
            r#"{"rateMaxPerSecond": 0, "syncQueueEnabled": "no", "syncQueueMaxQueueWait": "5s"}"#,
        );
        for part in [
            "rateMaxPerSecond",
            "syncQueueEnabled",
            "syncQueueMaxQueueWait",
            "expectedRevision: is needed",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(
            error.contains(r#""field": String("syncQueueEnabled")"#),
            "{error}"
        );
        assert!(error.contains(r#""value": String("no")"#), "{error}");
    }
}
