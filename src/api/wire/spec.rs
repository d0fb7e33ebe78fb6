//! A function's spec as JSON: read with every complaint at once, written with every default filled in.
//!
//! **Invariant:** what [`to_object`] writes, [`read`] reads back as the same spec. Ranges and defaults are
//! those of [`limits`]; none is repeated here.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::uri::PathAndQuery;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::call::parse_json_of;
use super::fields::{Bounds, Fields, shown};
use super::{reach, reuse, spec_names};
use crate::api::error::Error;
use crate::model::{
    Backoff, ExecutionMode, FunctionName, FunctionSettings, HostName, RecordMode, Spec,
    VersionSpec, limits,
};

pub(super) const ENTRIES: Bounds = Bounds {
    entries_max: limits::ENTRIES_MAX,
    bytes_max: limits::ENTRIES_BYTES_MAX,
};

/// Variables that every attempt gets from the plane.
pub(super) const OWN_VARIABLES: [&str; 4] =
    ["EXECUTION_ID", "TRACE_ID", "ATTEMPT", "FUNCTION_NAME"];

const MODES: [(&str, ExecutionMode); 3] = [
    ("LOCAL", ExecutionMode::Local),
    ("POOL", ExecutionMode::Pool),
    ("DEPLOYMENT", ExecutionMode::Deployment),
];

const RECORDS: [(&str, RecordMode); 3] = [
    ("auto", RecordMode::Auto),
    ("full", RecordMode::Full),
    ("summary", RecordMode::Summary),
];

const RUNTIME_MODES: [(&str, &str); 3] = [("HTTP", "HTTP"), ("STDIO", "STDIO"), ("FILE", "FILE")];

/// nanofaas's word for a mode.
pub(super) fn mode_word(mode: ExecutionMode) -> &'static str {
    match mode {
        ExecutionMode::Local => "LOCAL",
        ExecutionMode::Pool => "POOL",
        ExecutionMode::Deployment => "DEPLOYMENT",
    }
}

fn record_word(record: RecordMode) -> &'static str {
    match record {
        RecordMode::Auto => "auto",
        RecordMode::Full => "full",
        RecordMode::Summary => "summary",
    }
}

/// A function to be created, as `POST /v1/functions` says it.
#[derive(Debug)]
pub(in crate::api) struct NewFunction {
    /// Its name.
    pub(in crate::api) name: FunctionName,
    /// Its spec.
    pub(in crate::api) spec: Spec,
}

impl NewFunction {
    /// Reads name and spec.
    ///
    /// # Errors
    /// 400 with all complaints.
    pub(in crate::api) fn parse(body: &Bytes) -> Result<Self, Error> {
        let object = object(body)?;
        let mut complaints = Vec::new();
        let name = match object.get("name").and_then(Value::as_str).map(str::parse) {
            Some(Ok(name)) => Some(name),
            Some(Err(error)) => {
                complaints.push(format!("name: {error}"));
                None
            }
            None => {
                complaints.push("name: is needed, and is a string".to_owned());
                None
            }
        };
        let spec = read(object, &mut complaints);
        if spec.version.image.is_none() && spec.version.endpoint_url.is_none() {
            // Not where the field itself was complained of.
            let said = complaints.iter().any(|complaint| {
                complaint.starts_with("image:") || complaint.starts_with("endpointUrl:")
            });
            if !said {
                complaints.push(
                    "image: is needed where there is no endpointUrl: \"builtin:echo\", or \
                     \"sha256:…\" of a file that was uploaded before"
                        .to_owned(),
                );
            }
        }
        match name {
            Some(name) if complaints.is_empty() => Ok(Self { name, spec }),
            _ => Err(Error::invalid(complaints)),
        }
    }
}

/// The members of a body that is a JSON object.
///
/// # Errors
/// 400.
pub(in crate::api) fn object(body: &Bytes) -> Result<Map<String, Value>, Error> {
    object_of("the body", body)
}

/// The members of a JSON object that stands in `what`: the body, or a part of it.
///
/// # Errors
/// 400.
pub(in crate::api) fn object_of(what: &str, body: &Bytes) -> Result<Map<String, Value>, Error> {
    let value: Value = parse_json_of(what, body)?;
    let what_else = shown(&value);
    let Value::Object(object) = value else {
        let complaint = format!("{what} has to be a JSON object, and is {what_else}");
        return Err(Error::bad_request(complaint));
    };
    Ok(object)
}

/// The whole spec that an object says for the function `name`.
///
/// # Errors
/// All complaints.
pub(in crate::api) fn full_spec(
    object: Map<String, Value>,
    name: &FunctionName,
) -> Result<Spec, Vec<String>> {
    spec_of(object, Some(name))
}

/// The same, where the path may name no function.
///
/// # Errors
/// All complaints.
pub(in crate::api) fn spec_of(
    object: Map<String, Value>,
    name: Option<&FunctionName>,
) -> Result<Spec, Vec<String>> {
    let mut complaints = Vec::new();
    if let Some(name) = name {
        check_name(&object, name, &mut complaints);
    }
    let spec = read(object, &mut complaints);
    if complaints.is_empty() {
        Ok(spec)
    } else {
        Err(complaints)
    }
}

/// The spec that a JSON merge patch makes of `base`: a member replaces, null goes back to the default. What
/// only answers say must not be in it: it would change nothing.
///
/// # Errors
/// All complaints.
pub(in crate::api) fn merge_patch(
    base: &Spec,
    patch: Map<String, Value>,
    name: &FunctionName,
) -> Result<Spec, Vec<String>> {
    patched(base, patch, Some(name))
}

fn patched(
    base: &Spec,
    mut patch: Map<String, Value>,
    name: Option<&FunctionName>,
) -> Result<Spec, Vec<String>> {
    let mut complaints = Vec::new();
    // Before merging, which would hide a misspelt field that is set to null.
    spec_names::check(&patch, &mut complaints);
    if let Some(name) = name {
        check_name(&patch, name, &mut complaints);
        spec_names::check_read_only(&patch, name, &mut complaints);
    }
    take_alias(&mut patch, &mut complaints);
    let mut merged = to_object(base);
    merge(&mut merged, patch);
    merged.retain(|name, _| !spec_names::is_unknown(name));
    let spec = read(merged, &mut complaints);
    if complaints.is_empty() {
        Ok(spec)
    } else {
        Err(complaints)
    }
}

/// The spec that a patch makes of `base` for code that is uploaded with it (the path may name no function): what `base` says of the code that ran
/// before does not count.
///
/// # Errors
/// All complaints.
pub(in crate::api) fn patched_with_code(
    base: &Spec,
    patch: Map<String, Value>,
    name: Option<&FunctionName>,
) -> Result<Spec, Vec<String>> {
    let mut base = base.clone();
    base.version.image = None;
    base.version.endpoint_url = None;
    base.version.execution_mode = None;
    patched(&base, patch, name)
}

/// RFC 7396. The depth is that of the body, which the parser bounds.
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(patch) => {
                let member = target.entry(name).or_insert(Value::Null);
                if !member.is_object() {
                    *member = Value::Object(Map::new());
                }
                if let Value::Object(member) = member {
                    merge(member, patch);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name, value);
            }
        }
    }
}

fn check_name(object: &Map<String, Value>, name: &FunctionName, complaints: &mut Vec<String>) {
    match object.get("name") {
        None | Some(Value::Null) => {}
        Some(Value::String(said)) if said == name.as_str() => {}
        Some(other) => complaints.push(format!(
            "name: must be the one of the path, {name}, not {}",
            shown(other)
        )),
    }
}

/// Gives the alias `timeoutMillis` its name.
fn take_alias(object: &mut Map<String, Value>, complaints: &mut Vec<String>) {
    let Some(alias) = object.remove("timeoutMillis") else {
        return;
    };
    match object.get("timeoutMs") {
        None | Some(Value::Null) => {
            object.insert("timeoutMs".to_owned(), alias);
        }
        Some(said) if alias.is_null() || *said == alias => {}
        Some(_) => {
            complaints.push("timeoutMillis: is the same as timeoutMs and says otherwise".to_owned())
        }
    }
}

/// Reads a spec; what cannot be read is complained of and stays at its default.
fn read(mut object: Map<String, Value>, complaints: &mut Vec<String>) -> Spec {
    spec_names::check(&object, complaints);
    take_alias(&mut object, complaints);
    let mut fields = Fields::new(object, complaints);
    let settings = settings(&mut fields);
    let version = version(&mut fields);
    Spec { settings, version }
}

fn settings(fields: &mut Fields<'_>) -> FunctionSettings {
    let default = FunctionSettings::default();
    let rate_per_second = fields.small_number("ratePerSecond", &limits::RATE);
    let burst = fields.small_number("burst", &limits::RATE);
    if burst.is_some() && rate_per_second.is_none() {
        fields.complain("burst", "means something only beside ratePerSecond");
    }
    FunctionSettings {
        concurrency: fields
            .small_number("concurrency", &limits::CONCURRENCY)
            .unwrap_or(default.concurrency),
        queue_size: fields
            .small_number("queueSize", &limits::QUEUE_SIZE)
            .unwrap_or(default.queue_size),
        rate_per_second,
        burst,
        hosts: hosts(fields),
    }
}

fn hosts(fields: &mut Fields<'_>) -> BTreeSet<HostName> {
    let bounds = Bounds {
        entries_max: limits::HOST_NAMES_MAX,
        ..ENTRIES
    };
    let mut hosts = BTreeSet::new();
    for text in fields.texts("hosts", bounds).unwrap_or_default() {
        match text.parse() {
            Ok(host) => {
                hosts.insert(host);
            }
            Err(error) => {
                let shown = crate::api::error::quoted(&text);
                fields.complain("hosts", format_args!("{shown} is none: {error}"));
            }
        }
    }
    hosts
}

fn version(fields: &mut Fields<'_>) -> VersionSpec {
    let default = VersionSpec::default();
    let (env, config) = (env(fields), config(fields));
    let secrets = reach::secrets(fields, &env, &config);
    let allow_hosts = reach::allow_hosts(fields, &secrets);
    VersionSpec {
        timeout_ms: fields
            .number("timeoutMs", &limits::TIMEOUT_MS)
            .unwrap_or(default.timeout_ms),
        cpu_ms: fields.number("cpuMs", &limits::CPU_MS),
        memory_mb: fields
            .number("memoryMb", &limits::MEMORY_MB)
            .unwrap_or(default.memory_mb),
        output_bytes_max: fields
            .number("outputBytesMax", &limits::OUTPUT_BYTES_MAX)
            .unwrap_or(default.output_bytes_max),
        log_bytes_max: fields
            .number("logBytesMax", &limits::LOG_BYTES_MAX)
            .unwrap_or(default.log_bytes_max),
        max_retries: fields
            .small_number("maxRetries", &limits::MAX_RETRIES)
            .unwrap_or(default.max_retries),
        retry_backoff: backoff(fields),
        max_requeues: fields
            .small_number("maxRequeues", &limits::MAX_REQUEUES)
            .unwrap_or(default.max_requeues),
        max_age_ms: fields
            .number("maxAgeMs", &limits::MAX_AGE_MS)
            .unwrap_or(default.max_age_ms),
        args: args(fields),
        env,
        config,
        allow_hosts,
        secrets,
        invoke_path: invoke_path(fields),
        reuse: reuse::read(fields),
        record: fields.word("record", &RECORDS).unwrap_or_default(),
        execution_mode: fields.word("executionMode", &MODES),
        image: fields.text("image", limits::TEXT_BYTES_MAX),
        endpoint_url: fields.text("endpointUrl", limits::TEXT_BYTES_MAX),
        ignored: ignored(fields),
    }
}

fn backoff(fields: &mut Fields<'_>) -> Backoff {
    let default = Backoff::default();
    let Some(mut fields) = fields.nested("retryBackoff", "retryBackoff.") else {
        return default;
    };
    let backoff = Backoff {
        base_delay_ms: fields
            .number("baseDelayMs", &limits::BASE_DELAY_MS)
            .unwrap_or(default.base_delay_ms),
        max_delay_ms: fields
            .number("maxDelayMs", &limits::MAX_DELAY_MS)
            .unwrap_or(default.max_delay_ms),
    };
    for name in fields.left() {
        let name = crate::api::error::quoted(&name);
        fields.complain(
            &name,
            "there is no such field: there are baseDelayMs and maxDelayMs",
        );
    }
    backoff
}

fn args(fields: &mut Fields<'_>) -> Vec<String> {
    let args = fields.texts("args", ENTRIES).unwrap_or_default();
    if args.iter().any(|arg| arg.contains('\0')) {
        fields.complain("args", "must not contain NUL characters");
    }
    args
}

fn env(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let env = fields.text_map("env", ENTRIES).unwrap_or_default();
    for (name, value) in &env {
        let shown = crate::api::error::quoted(name);
        if name.is_empty() || name.contains(['=', '\0']) {
            let rule = "a variable's name is not empty and has no '=' and no NUL character";
            fields.complain("env", format_args!("{shown} is no name: {rule}"));
        } else if OWN_VARIABLES.contains(&name.as_str()) {
            fields.complain(
                "env",
                format_args!("{shown} is set by the plane for every attempt"),
            );
        }
        if value.contains('\0') {
            let complaint = format!("the value of {shown} must not contain NUL characters");
            fields.complain("env", complaint);
        }
    }
    env
}

fn config(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    fields.text_map("config", ENTRIES).unwrap_or_default()
}

fn invoke_path(fields: &mut Fields<'_>) -> Option<String> {
    let path = fields.text("invokePath", limits::TEXT_BYTES_MAX)?;
    let is_path = path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
    if !is_path || path.contains('#') {
        let rule = "must be a path, and may have a query, as in /hooks/orders?dry-run=1";
        fields.complain("invokePath", rule);
        return None;
    }
    Some(path)
}

/// nanofaas's fields: checked as far as its clients would stumble over them, and kept as text.
fn ignored(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for name in spec_names::IGNORED {
        let value = match *name {
            "runtimeMode" => fields.word(name, &RUNTIME_MODES).map(Value::from),
            "command" | "commands" | "imagePullSecrets" => {
                fields.texts(name, ENTRIES).map(Value::from)
            }
            "runtimeCommand" => fields.text(name, limits::TEXT_BYTES_MAX).map(Value::from),
            _ => fields.take(name),
        };
        let Some(value) = value else {
            continue;
        };
        let text = value.to_string();
        if text.len() > limits::ENTRIES_BYTES_MAX {
            let (bytes, max) = (text.len(), limits::ENTRIES_BYTES_MAX);
            fields.complain(name, format_args!("has {bytes} bytes, and may have {max}"));
            continue;
        }
        kept.insert((*name).to_owned(), text);
    }
    kept
}

/// A spec as an object: every field with its value, null where there is none.
pub(super) fn to_object(spec: &Spec) -> Map<String, Value> {
    let Spec { settings, version } = spec;
    let fields = json!({
        "timeoutMs": version.timeout_ms,
        "cpuMs": version.cpu_ms,
        "memoryMb": version.memory_mb,
        "outputBytesMax": version.output_bytes_max,
        "logBytesMax": version.log_bytes_max,
        "maxRetries": version.max_retries,
        "retryBackoff": {
            "baseDelayMs": version.retry_backoff.base_delay_ms,
            "maxDelayMs": version.retry_backoff.max_delay_ms,
        },
        "maxRequeues": version.max_requeues,
        "maxAgeMs": version.max_age_ms,
        "args": version.args,
        "env": version.env,
        "config": version.config,
        "allowHosts": version.allow_hosts.as_deref().map(reach::shown_hosts),
        "secrets": reach::shown_secrets(&version.secrets),
        "invokePath": version.invoke_path,
        "reuse": reuse::to_value(version.reuse),
        "record": record_word(version.record),
        "concurrency": settings.concurrency,
        "queueSize": settings.queue_size,
        "ratePerSecond": settings.rate_per_second,
        "burst": settings.burst,
        "hosts": settings.hosts.iter().map(HostName::as_str).collect::<Vec<_>>(),
        "executionMode": version.execution_mode.map(mode_word),
        "endpointUrl": version.endpoint_url,
        "image": version.image,
    });
    let mut object = match fields {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    for (name, text) in &version.ignored {
        // Kept as the text of a value that was read here; a store that spoilt it spoils only an echo.
        object.insert(name.clone(), serde_json::from_str(text).unwrap_or_default());
    }
    object
}
