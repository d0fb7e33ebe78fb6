//! Stored forms: what specs, settings, metadata, logs and words look like on disk, each with a format version.
//!
//! Changing the model does not change the disk, and a change of the disk is a new format here that
//! still reads the old one.
//!
//! **Invariant:** no type of the model is ever serialised itself, and nothing that is read back is
//! trusted: a value out of range is [`Unreadable`], never a panic.

mod runtime_config;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::execution::Status;
use crate::model::{
    Backoff, Code, Digest, Encoding, ExecutionMode, FunctionSettings, InvalidHostName, RecordMode,
    Shape, Timestamp, Version, VersionNumber, VersionSpec, limits,
};

mod logs;
mod reach;
mod reuse;

pub(crate) use logs::{decode_logs, encode_logs};
use reach::{StoredSecretUse, load_hosts, load_secret_use, store_hosts, store_secret_use};
use reuse::{StoredReuse, load_reuse, store_reuse};
pub(crate) use runtime_config::{decode_runtime_overrides, encode_runtime_overrides};

/// Something stored that cannot be understood; the text says what and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

impl Unreadable {
    fn of(what: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("stored {what}: {why}"))
    }
}

/// The format of settings and versions that this build writes; it reads every one up to it.
///
/// Format 2 added what is optional and absent in format 1: `hosts`, `invoke_path`, `allow_hosts`, `secrets`. Format
/// 3 added `reuse`.
const FORMAT: u32 = 3;

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct StoredSettings {
    format: u32,
    concurrency: u32,
    queue_size: u32,
    rate_per_second: Option<u32>,
    burst: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    format: u32,
    code: StoredCode,
    spec: StoredSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredCode {
    Wasm {
        digest: String,
        shape: StoredShape,
        size: u64,
    },
    Echo,
    Endpoint {
        url: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredShape {
    Handler,
    Http02,
    Http03,
    Command02,
    Command03,
    CoreCommand,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredMode {
    Local,
    Pool,
    Deployment,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredRecordMode {
    Auto,
    Full,
    Summary,
}

#[derive(Serialize, Deserialize)]
struct StoredSpec {
    timeout_ms: u64,
    cpu_ms: Option<u64>,
    memory_mb: u64,
    output_bytes_max: u64,
    log_bytes_max: u64,
    max_retries: u32,
    base_delay_ms: u64,
    max_delay_ms: u64,
    max_requeues: u32,
    max_age_ms: u64,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    config: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow_hosts: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, StoredSecretUse>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invoke_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reuse: Option<StoredReuse>,
    record: StoredRecordMode,
    execution_mode: Option<StoredMode>,
    image: Option<String>,
    endpoint_url: Option<String>,
    ignored: BTreeMap<String, String>,
}

/// Parses JSON after a look at its format, so that a newer one is named instead of misread.
fn parse<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, Unreadable> {
    let FormatOnly { format } =
        serde_json::from_str(text).map_err(|error| Unreadable::of(what, error))?;
    if format == 0 || format > FORMAT {
        return Err(Unreadable::of(
            what,
            format_args!("format {format} is unknown; this build reads 1 to {FORMAT}"),
        ));
    }
    serde_json::from_str(text).map_err(|error| Unreadable::of(what, error))
}

fn print<T: Serialize>(what: &str, value: &T) -> Result<String, Unreadable> {
    serde_json::to_string(value).map_err(|error| Unreadable::of(what, error))
}

fn in_range(
    what: &str,
    field: &str,
    value: impl Into<u64>,
    range: &RangeInclusive<u64>,
) -> Result<(), Unreadable> {
    let value = value.into();
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    Err(Unreadable::of(
        what,
        format_args!("{field} is {value}, not within {least} to {most}"),
    ))
}

/// A function's settings as text.
pub(crate) fn encode_settings(settings: &FunctionSettings) -> Result<String, Unreadable> {
    let stored = StoredSettings {
        format: FORMAT,
        concurrency: settings.concurrency,
        queue_size: settings.queue_size,
        rate_per_second: settings.rate_per_second,
        burst: settings.burst,
        hosts: settings.hosts.iter().map(ToString::to_string).collect(),
    };
    print("settings", &stored)
}

/// The settings in this text.
pub(crate) fn decode_settings(text: &str) -> Result<FunctionSettings, Unreadable> {
    const WHAT: &str = "settings";
    let stored: StoredSettings = parse(WHAT, text)?;
    in_range(
        WHAT,
        "concurrency",
        stored.concurrency,
        &limits::CONCURRENCY,
    )?;
    in_range(WHAT, "queue_size", stored.queue_size, &limits::QUEUE_SIZE)?;
    if let Some(rate) = stored.rate_per_second {
        in_range(WHAT, "rate_per_second", rate, &limits::RATE)?;
    }
    if let Some(burst) = stored.burst {
        in_range(WHAT, "burst", burst, &limits::RATE)?;
    }
    let hosts = stored.hosts.iter().map(|host| host.parse());
    Ok(FunctionSettings {
        hosts: hosts
            .collect::<Result<_, _>>()
            .map_err(|error: InvalidHostName| Unreadable::of(WHAT, error))?,
        concurrency: stored.concurrency,
        queue_size: stored.queue_size,
        rate_per_second: stored.rate_per_second,
        burst: stored.burst,
    })
}

/// Code and spec of a version as text; number and time have columns of their own.
pub(crate) fn encode_version(version: &Version) -> Result<String, Unreadable> {
    let stored = StoredVersion {
        format: FORMAT,
        code: store_code(&version.code),
        spec: store_spec(&version.spec),
    };
    print("version", &stored)
}

/// The version in this text.
pub(crate) fn decode_version(
    number: VersionNumber,
    created_at: Timestamp,
    text: &str,
) -> Result<Version, Unreadable> {
    let stored: StoredVersion = parse("version", text)?;
    Ok(Version {
        number,
        code: load_code(stored.code)?,
        spec: load_spec(stored.spec)?,
        created_at,
    })
}

fn store_code(code: &Code) -> StoredCode {
    match code {
        Code::Wasm {
            digest,
            shape,
            size,
        } => StoredCode::Wasm {
            digest: digest.to_string(),
            shape: match shape {
                Shape::Handler => StoredShape::Handler,
                Shape::Http02 => StoredShape::Http02,
                Shape::Http03 => StoredShape::Http03,
                Shape::Command02 => StoredShape::Command02,
                Shape::Command03 => StoredShape::Command03,
                Shape::CoreCommand => StoredShape::CoreCommand,
            },
            size: *size,
        },
        Code::Echo => StoredCode::Echo,
        Code::Endpoint { url } => StoredCode::Endpoint {
            url: url.to_string(),
        },
    }
}

fn load_code(stored: StoredCode) -> Result<Code, Unreadable> {
    Ok(match stored {
        StoredCode::Wasm {
            digest,
            shape,
            size,
        } => Code::Wasm {
            digest: digest
                .parse::<Digest>()
                .map_err(|error| Unreadable::of("digest", error))?,
            shape: match shape {
                StoredShape::Handler => Shape::Handler,
                StoredShape::Http02 => Shape::Http02,
                StoredShape::Http03 => Shape::Http03,
                StoredShape::Command02 => Shape::Command02,
                StoredShape::Command03 => Shape::Command03,
                StoredShape::CoreCommand => Shape::CoreCommand,
            },
            size,
        },
        StoredCode::Echo => Code::Echo,
        StoredCode::Endpoint { url } => Code::Endpoint {
            url: Arc::from(url),
        },
    })
}

fn store_spec(spec: &VersionSpec) -> StoredSpec {
    StoredSpec {
        timeout_ms: spec.timeout_ms,
        cpu_ms: spec.cpu_ms,
        memory_mb: spec.memory_mb,
        output_bytes_max: spec.output_bytes_max,
        log_bytes_max: spec.log_bytes_max,
        max_retries: spec.max_retries,
        base_delay_ms: spec.retry_backoff.base_delay_ms,
        max_delay_ms: spec.retry_backoff.max_delay_ms,
        max_requeues: spec.max_requeues,
        max_age_ms: spec.max_age_ms,
        args: spec.args.clone(),
        env: spec.env.clone(),
        config: spec.config.clone(),
        allow_hosts: spec.allow_hosts.as_deref().map(store_hosts),
        secrets: spec.secrets.iter().map(store_secret_use).collect(),
        invoke_path: spec.invoke_path.clone(),
        reuse: spec.reuse.map(store_reuse),
        record: match spec.record {
            RecordMode::Auto => StoredRecordMode::Auto,
            RecordMode::Full => StoredRecordMode::Full,
            RecordMode::Summary => StoredRecordMode::Summary,
        },
        execution_mode: spec.execution_mode.map(|mode| match mode {
            ExecutionMode::Local => StoredMode::Local,
            ExecutionMode::Pool => StoredMode::Pool,
            ExecutionMode::Deployment => StoredMode::Deployment,
        }),
        image: spec.image.clone(),
        endpoint_url: spec.endpoint_url.clone(),
        ignored: spec.ignored.clone(),
    }
}

fn load_spec(stored: StoredSpec) -> Result<VersionSpec, Unreadable> {
    let check = |field, value: u64, range| in_range("version", field, value, &range);
    check("timeout_ms", stored.timeout_ms, limits::TIMEOUT_MS)?;
    if let Some(cpu_ms) = stored.cpu_ms {
        check("cpu_ms", cpu_ms, limits::CPU_MS)?;
    }
    check("memory_mb", stored.memory_mb, limits::MEMORY_MB)?;
    check(
        "output_bytes_max",
        stored.output_bytes_max,
        limits::OUTPUT_BYTES_MAX,
    )?;
    check("log_bytes_max", stored.log_bytes_max, limits::LOG_BYTES_MAX)?;
    check(
        "max_retries",
        stored.max_retries.into(),
        limits::MAX_RETRIES,
    )?;
    check("base_delay_ms", stored.base_delay_ms, limits::BASE_DELAY_MS)?;
    check("max_delay_ms", stored.max_delay_ms, limits::MAX_DELAY_MS)?;
    check(
        "max_requeues",
        stored.max_requeues.into(),
        limits::MAX_REQUEUES,
    )?;
    check("max_age_ms", stored.max_age_ms, limits::MAX_AGE_MS)?;
    Ok(VersionSpec {
        timeout_ms: stored.timeout_ms,
        cpu_ms: stored.cpu_ms,
        memory_mb: stored.memory_mb,
        output_bytes_max: stored.output_bytes_max,
        log_bytes_max: stored.log_bytes_max,
        max_retries: stored.max_retries,
        retry_backoff: Backoff {
            base_delay_ms: stored.base_delay_ms,
            max_delay_ms: stored.max_delay_ms,
        },
        max_requeues: stored.max_requeues,
        max_age_ms: stored.max_age_ms,
        args: stored.args,
        env: stored.env,
        config: stored.config,
        allow_hosts: stored.allow_hosts.map(load_hosts).transpose()?,
        secrets: stored
            .secrets
            .into_iter()
            .map(load_secret_use)
            .collect::<Result<_, _>>()?,
        invoke_path: stored.invoke_path,
        reuse: stored.reuse.as_ref().map(load_reuse).transpose()?,
        record: match stored.record {
            StoredRecordMode::Auto => RecordMode::Auto,
            StoredRecordMode::Full => RecordMode::Full,
            StoredRecordMode::Summary => RecordMode::Summary,
        },
        execution_mode: stored.execution_mode.map(|mode| match mode {
            StoredMode::Local => ExecutionMode::Local,
            StoredMode::Pool => ExecutionMode::Pool,
            StoredMode::Deployment => ExecutionMode::Deployment,
        }),
        image: stored.image,
        endpoint_url: stored.endpoint_url,
        ignored: stored.ignored,
    })
}

/// A call's metadata as text; none where there is nothing to store.
pub(crate) fn encode_metadata(metadata: &[(String, String)]) -> Result<Option<String>, Unreadable> {
    if metadata.is_empty() {
        return Ok(None);
    }
    print("metadata", &metadata).map(Some)
}

/// The metadata in this text.
pub(crate) fn decode_metadata(text: Option<&str>) -> Result<Arc<[(String, String)]>, Unreadable> {
    let Some(text) = text else {
        return Ok(Arc::from([]));
    };
    serde_json::from_str::<Vec<(String, String)>>(text)
        .map(Arc::from)
        .map_err(|error| Unreadable::of("metadata", error))
}

/// The number that stands for a status. These never change their meaning.
pub(crate) fn status_code(status: Status) -> i64 {
    match status {
        Status::Queued => 0,
        Status::Running => 1,
        Status::Success => 2,
        Status::Error => 3,
        Status::Timeout => 4,
        Status::Cancelled => 5,
    }
}

/// The status of this number.
pub(crate) fn status_of(code: i64) -> Result<Status, Unreadable> {
    Status::ALL
        .into_iter()
        .find(|status| status_code(*status) == code)
        .ok_or_else(|| Unreadable::of("status", code))
}

/// The number that stands for an output's encoding.
pub(crate) fn encoding_code(encoding: Encoding) -> i64 {
    match encoding {
        Encoding::Json => 0,
        Encoding::Text => 1,
        Encoding::Base64 => 2,
    }
}

/// The encoding of this number.
pub(crate) fn encoding_of(code: i64) -> Result<Encoding, Unreadable> {
    match code {
        0 => Ok(Encoding::Json),
        1 => Ok(Encoding::Text),
        2 => Ok(Encoding::Base64),
        _ => Err(Unreadable::of("encoding", code)),
    }
}

/// What a run may have come to; see [`super::AttemptRecord::outcome`].
const OUTCOMES: [&str; 8] = [
    "success",
    "error",
    "retry",
    "requeue",
    "timeout",
    "limit",
    "fault",
    "interrupted",
];

/// The outcome of this name.
pub(crate) fn outcome_of(text: &str) -> Result<&'static str, Unreadable> {
    OUTCOMES
        .into_iter()
        .find(|outcome| *outcome == text)
        .ok_or_else(|| Unreadable::of("outcome", text))
}

#[cfg(test)]
mod tests;
