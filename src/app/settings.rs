//! What the configuration means for each part of the plane.
//!
//! **Invariant:** every limit of [`Config`] is handed to the part that keeps it, here and nowhere else.

use std::time::Duration;

use super::listener::Bounds;
use crate::config::{Config, Dispatching, Switch};
use crate::model::RuntimeConfig;
use crate::store::sqlite;
use crate::{api, endpoint, net, registry, runtime, scheduler, secrets};

/// Connections to the management port: health checks and one or two scrapers.
const MANAGEMENT_CONNECTIONS_MAX: u32 = 64;
/// The folder of wasm and compiled code below the data folder.
pub(super) const CODE_DIR: &str = "code";

pub(super) fn store(config: &Config) -> sqlite::Options {
    sqlite::Options::new(&config.data_dir)
}

pub(super) fn runtime(config: &Config) -> runtime::Options {
    let limits = &config.limits;
    runtime::Options {
        code_dir: config.data_dir.join(CODE_DIR),
        guests_max: limits.guests_max,
        slots: runtime::Slots::Pool,
        loaded_bytes_max: limits.loaded_code_bytes_max,
        warm_instances_max: limits.warm_instances_max,
        warm_memory_bytes_max: limits.warm_memory_bytes_max,
        reuse_calls: runtime::ReuseCalls::default(),
        compile_queue_max: limits.compile_queue_max,
        compile_timeout_s: limits.compile_timeout_s,
        compile_memory_bytes_max: limits.compile_memory_bytes_max,
        outgoing: outgoing(config),
    }
}

pub(super) fn endpoint(config: &Config) -> endpoint::Options {
    endpoint::Options {
        loopback: loopback(config),
        ranges_allowed: config.private_ranges.clone(),
        ..endpoint::Options::default()
    }
}

/// Whoever reaches a plane on loopback can reach its neighbours there anyway.
fn loopback(config: &Config) -> net::Loopback {
    if config.listen.ip().is_loopback() {
        net::Loopback::Allowed
    } else {
        net::Loopback::Refused
    }
}

/// What guests' requests are held to.
pub(super) fn outgoing(config: &Config) -> net::Options {
    let limits = &config.limits;
    net::Options {
        loopback: loopback(config),
        ranges_allowed: config.private_ranges.clone(),
        requests_max: limits.outgoing_requests_max,
        requests_at_once_max: limits.outgoing_requests_at_once_max,
        request_bytes_max: limits.outgoing_request_bytes_max,
        response_bytes_max: limits.outgoing_response_bytes_max,
        headers_max: limits.outgoing_headers_max,
        header_bytes_max: limits.outgoing_header_bytes_max,
        connect_timeout_ms: limits.outgoing_connect_timeout_ms,
        silence_timeout_ms: limits.outgoing_silence_timeout_ms,
        connections_max: limits.outgoing_connections_max,
        connections_per_function_max: limits.outgoing_connections_per_function_max,
        idle_connections_max: limits.outgoing_idle_connections_max,
        idle_connections_per_function_max: limits.outgoing_idle_connections_per_function_max,
        idle_timeout_ms: limits.outgoing_idle_timeout_ms,
        ..net::Options::default()
    }
}

pub(super) fn registry(config: &Config) -> registry::Options {
    registry::Options {
        functions_max: config.limits.functions_max,
        versions_max: config.limits.versions_max,
        secrets: secrets::Options {
            key: config.secrets_key.clone(),
            old_key: config.secrets_old_key.clone(),
            secrets_max: config.limits.secrets_max,
        },
    }
}

/// `guests_max` is what the runtime has room for, which may be less than was asked for.
pub(super) fn scheduler(config: &Config, guests_max: u32) -> scheduler::Options {
    let limits = &config.limits;
    scheduler::Options {
        manual: config.dispatching == Dispatching::Manual,
        guests_max,
        endpoint_calls_max: limits.endpoint_calls_max,
        faults_max: limits.faults_max,
        idempotency_ttl_ms: config.idempotency_ttl_ms,
        queued_input_bytes_max: limits.queued_input_bytes_max,
        running_input_bytes_max: limits.running_input_bytes_max,
        uncommitted_result_bytes_max: limits.uncommitted_result_bytes_max,
        waiting_call_log_bytes_max: limits.waiting_call_log_bytes_max,
        start_ramp_ms: limits.start_ramp_ms,
        suspect_faults: limits.suspect_faults,
        suspect_alone: Duration::from_millis(limits.suspect_alone_ms.into()),
        runtime_config: runtime_config(config),
    }
}

/// What an operator may change while the plane runs, as the flags say it.
fn runtime_config(config: &Config) -> RuntimeConfig {
    let limits = &config.limits;
    let queue_wait = Duration::from_millis(limits.sync_queue_max_queue_wait_ms);
    let estimated_wait = Duration::from_millis(limits.sync_queue_max_estimated_wait_ms);
    RuntimeConfig {
        rate_max_per_second: limits.rate_max_per_second,
        sync_queue_enabled: config.sync_queue == Switch::On,
        sync_queue_admission_enabled: config.sync_queue_admission == Switch::On,
        sync_queue_max_depth: limits.sync_queue_max_depth,
        // What may not wait so long need not be expected to.
        sync_queue_max_estimated_wait: estimated_wait.min(queue_wait),
        sync_queue_max_queue_wait: queue_wait,
        sync_queue_retry_after_s: limits.sync_queue_retry_after_s,
    }
}

pub(super) fn api(config: &Config) -> api::Options {
    let limits = &config.limits;
    api::Options {
        body_bytes_max: size(limits.body_bytes_max),
        answer_bytes_in_flight_max: size(limits.answer_bytes_in_flight_max),
        upload_bytes_max: size(limits.upload_bytes_max),
        body_bytes_in_flight_max: size(limits.body_bytes_in_flight_max),
        upload_bytes_in_flight_max: size(limits.upload_bytes_in_flight_max),
        body_timeout: Duration::from_millis(limits.body_timeout_ms),
        exports_max: size(limits.exports_max.into()),
        listen: vec![config.listen, config.management_listen],
        allowed_hosts: config.allowed_hosts.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        runtime_config: match config.runtime_config {
            Switch::On => api::RuntimeConfigApi::On,
            Switch::Off => api::RuntimeConfigApi::Off,
        },
        ..api::Options::default()
    }
}

pub(super) fn api_bounds(config: &Config) -> Bounds {
    let limits = &config.limits;
    Bounds {
        connections_max: limits.connections_max,
        headers_max: size(limits.headers_max.into()),
        header_bytes_max: limits.header_bytes_max,
        answer_stall_timeout_ms: limits.answer_stall_timeout_ms,
        header_read_timeout: Duration::from_millis(limits.header_read_timeout_ms),
    }
}

pub(super) fn management_bounds(config: &Config) -> Bounds {
    Bounds {
        connections_max: MANAGEMENT_CONNECTIONS_MAX,
        ..api_bounds(config)
    }
}

/// Age after its end at which an execution is forgotten, in ms.
pub(super) fn retention_ms(config: &Config) -> u64 {
    config.limits.retention_ms
}

/// How long a loop of ours may take for a step, in ms.
pub(super) fn loop_deadline_ms(config: &Config) -> u64 {
    config.limits.loop_deadline_ms
}

/// Time that a stop leaves to running calls.
pub(super) fn shutdown_grace(config: &Config) -> Duration {
    Duration::from_millis(config.limits.shutdown_grace_ms)
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
