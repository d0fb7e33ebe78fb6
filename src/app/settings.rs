//! What the configuration means for each part of the plane.
//!
//! **Invariant:** every limit of [`Config`] is handed to the part that keeps it, here and nowhere else.

use std::time::Duration;

use super::listener::Bounds;
use crate::config::{Config, Dispatching};
use crate::store::sqlite;
use crate::{api, endpoint, registry, runtime, scheduler};

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
        compile_queue_max: limits.compile_queue_max,
        compile_timeout_s: limits.compile_timeout_s,
        compile_memory_bytes_max: limits.compile_memory_bytes_max,
    }
}

pub(super) fn endpoint(config: &Config) -> endpoint::Options {
    endpoint::Options {
        loopback: if config.listen.ip().is_loopback() {
            endpoint::Loopback::Allowed
        } else {
            endpoint::Loopback::Refused
        },
        ranges_allowed: config.private_ranges.clone(),
        ..endpoint::Options::default()
    }
}

pub(super) fn registry(config: &Config) -> registry::Options {
    registry::Options {
        functions_max: config.limits.functions_max,
        versions_max: config.limits.versions_max,
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
    }
}

pub(super) fn api(config: &Config) -> api::Options {
    let limits = &config.limits;
    api::Options {
        body_bytes_max: size(limits.body_bytes_max),
        upload_bytes_max: size(limits.upload_bytes_max),
        body_bytes_in_flight_max: size(limits.body_bytes_in_flight_max),
        upload_bytes_in_flight_max: size(limits.upload_bytes_in_flight_max),
        body_timeout: Duration::from_millis(limits.body_timeout_ms),
        listen: vec![config.listen, config.management_listen],
        allowed_hosts: config.allowed_hosts.clone(),
        ..api::Options::default()
    }
}

pub(super) fn api_bounds(config: &Config) -> Bounds {
    let limits = &config.limits;
    Bounds {
        connections_max: limits.connections_max,
        headers_max: size(limits.headers_max.into()),
        header_bytes_max: limits.header_bytes_max,
        header_read_timeout: Duration::from_millis(limits.header_read_timeout_ms),
    }
}

pub(super) fn management_bounds(config: &Config) -> Bounds {
    Bounds {
        connections_max: MANAGEMENT_CONNECTIONS_MAX,
        ..api_bounds(config)
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
