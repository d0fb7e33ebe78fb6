//! What is typed reaches the part that it is for.
//!
//! **Invariant:** every limit of the table in [`crate::config`] has a row here.

use std::collections::BTreeSet;

use clap::Parser as _;

use super::*;
use crate::config::{Limits, Options};
use crate::net::Loopback;

#[derive(clap::Parser)]
struct Typed {
    #[command(flatten)]
    options: Options,
}

/// The configuration that `pelton serve` with these arguments has.
fn typed(args: &[&str]) -> Config {
    let typed = Typed::try_parse_from(["serve"].iter().chain(args)).unwrap();
    Config::try_from(typed.options).unwrap()
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap()
}

/// Where a limit arrives.
type Arrives = fn(&Config) -> u64;

const LIMITS: &[(&str, Arrives)] = &[
    ("guests-max", |c| runtime(c).guests_max.into()),
    ("endpoint-calls-max", |c| {
        scheduler(c, 1).endpoint_calls_max.into()
    }),
    ("functions-max", |c| registry(c).functions_max.into()),
    ("versions-max", |c| registry(c).versions_max.into()),
    ("connections-max", |c| api_bounds(c).connections_max.into()),
    ("headers-max", |c| wide(api_bounds(c).headers_max)),
    ("headers-max", |c| wide(management_bounds(c).headers_max)),
    ("header-bytes-max", |c| {
        api_bounds(c).header_bytes_max.into()
    }),
    ("header-bytes-max", |c| {
        management_bounds(c).header_bytes_max.into()
    }),
    ("header-read-timeout-ms", |c| {
        ms(api_bounds(c).header_read_timeout)
    }),
    ("header-read-timeout-ms", |c| {
        ms(management_bounds(c).header_read_timeout)
    }),
    ("body-bytes-max", |c| wide(api(c).body_bytes_max)),
    ("body-bytes-in-flight-max", |c| {
        wide(api(c).body_bytes_in_flight_max)
    }),
    ("answer-bytes-in-flight-max", |c| {
        wide(api(c).answer_bytes_in_flight_max)
    }),
    ("answer-stall-timeout-ms", |c| {
        api_bounds(c).answer_stall_timeout_ms.into()
    }),
    ("answer-stall-timeout-ms", |c| {
        management_bounds(c).answer_stall_timeout_ms.into()
    }),
    ("upload-bytes-max", |c| wide(api(c).upload_bytes_max)),
    ("upload-bytes-in-flight-max", |c| {
        wide(api(c).upload_bytes_in_flight_max)
    }),
    ("body-timeout-ms", |c| ms(api(c).body_timeout)),
    ("compile-queue-max", |c| runtime(c).compile_queue_max.into()),
    ("compile-timeout-s", |c| runtime(c).compile_timeout_s),
    ("compile-memory-bytes-max", |c| {
        runtime(c).compile_memory_bytes_max
    }),
    ("warm-instances-max", |c| {
        runtime(c).warm_instances_max.into()
    }),
    ("warm-memory-bytes-max", |c| {
        runtime(c).warm_memory_bytes_max
    }),
    ("loaded-code-bytes-max", |c| runtime(c).loaded_bytes_max),
    ("queued-input-bytes-max", |c| {
        scheduler(c, 1).queued_input_bytes_max
    }),
    ("uncommitted-result-bytes-max", |c| {
        scheduler(c, 1).uncommitted_result_bytes_max
    }),
    ("waiting-call-log-bytes-max", |c| {
        scheduler(c, 1).waiting_call_log_bytes_max
    }),
    ("rate-max-per-second", |c| {
        scheduler(c, 1).runtime_config.rate_max_per_second.into()
    }),
    ("sync-queue-max-depth", |c| {
        scheduler(c, 1).runtime_config.sync_queue_max_depth.into()
    }),
    ("sync-queue-max-estimated-wait-ms", |c| {
        ms(scheduler(c, 1).runtime_config.sync_queue_max_estimated_wait)
    }),
    ("sync-queue-max-queue-wait-ms", |c| {
        ms(scheduler(c, 1).runtime_config.sync_queue_max_queue_wait)
    }),
    ("sync-queue-retry-after-s", |c| {
        scheduler(c, 1)
            .runtime_config
            .sync_queue_retry_after_s
            .into()
    }),
    ("exports-max", |c| wide(api(c).exports_max)),
    ("running-input-bytes-max", |c| {
        scheduler(c, 1).running_input_bytes_max
    }),
    ("start-ramp-ms", |c| scheduler(c, 1).start_ramp_ms),
    ("suspect-faults", |c| scheduler(c, 1).suspect_faults.into()),
    ("suspect-alone-ms", |c| ms(scheduler(c, 1).suspect_alone)),
    ("secrets-max", |c| registry(c).secrets.secrets_max.into()),
    ("loop-deadline-ms", loop_deadline_ms),
    ("outgoing-requests-max", |c| outgoing(c).requests_max.into()),
    ("outgoing-requests-at-once-max", |c| {
        outgoing(c).requests_at_once_max.into()
    }),
    ("outgoing-request-bytes-max", |c| {
        outgoing(c).request_bytes_max
    }),
    ("outgoing-response-bytes-max", |c| {
        outgoing(c).response_bytes_max
    }),
    ("outgoing-headers-max", |c| outgoing(c).headers_max.into()),
    ("outgoing-header-bytes-max", |c| {
        outgoing(c).header_bytes_max.into()
    }),
    ("outgoing-connect-timeout-ms", |c| {
        outgoing(c).connect_timeout_ms
    }),
    ("outgoing-silence-timeout-ms", |c| {
        outgoing(c).silence_timeout_ms
    }),
    ("outgoing-connections-max", |c| {
        outgoing(c).connections_max.into()
    }),
    ("outgoing-connections-per-function-max", |c| {
        outgoing(c).connections_per_function_max.into()
    }),
    ("outgoing-idle-connections-max", |c| {
        outgoing(c).idle_connections_max.into()
    }),
    ("outgoing-idle-connections-per-function-max", |c| {
        outgoing(c).idle_connections_per_function_max.into()
    }),
    ("outgoing-idle-timeout-ms", |c| outgoing(c).idle_timeout_ms),
    ("faults-max", |c| scheduler(c, 1).faults_max.into()),
    ("retention-ms", retention_ms),
    ("shutdown-grace-ms", |c| ms(shutdown_grace(c))),
];

#[test]
fn every_limit_reaches_the_part_that_keeps_it() {
    let bounds = Limits::bounds();
    for bound in &bounds {
        // Not the default, and within what other limits of the default allow.
        let value = match bound.default > *bound.range.start() {
            true => bound.default - 1,
            false => bound.default + 1,
        };
        let config = typed(&[&format!("--{}", bound.flag), &value.to_string()]);
        let rows = LIMITS.iter().filter(|(flag, _)| *flag == bound.flag);
        let arrived: BTreeSet<u64> = rows.map(|(_, arrives)| arrives(&config)).collect();
        assert_eq!(arrived, BTreeSet::from([value]), "{}", bound.flag);
    }
}

#[test]
fn what_is_no_limit_arrives_too() {
    let config = typed(&["--idempotency-ttl-ms", "700000000"]);
    assert_eq!(scheduler(&config, 7).idempotency_ttl_ms, 700_000_000);
    assert_eq!(scheduler(&config, 7).guests_max, 7);
    assert!(!scheduler(&config, 7).manual);
    assert!(scheduler(&typed(&["--manual"]), 7).manual);
    let config = typed(&["--data-dir", "/somewhere"]);
    assert!(runtime(&config).code_dir.starts_with("/somewhere"));
    assert_eq!(store(&config).dir, std::path::Path::new("/somewhere"));
    assert_eq!(
        management_bounds(&config).connections_max,
        MANAGEMENT_CONNECTIONS_MAX
    );
}

#[test]
fn who_may_ask_and_who_may_be_asked_follows_what_was_typed() {
    let config = typed(&[
        "--listen",
        "192.0.2.7:80",
        "--management-listen",
        "127.0.0.1:81",
        "--insecure",
        "--allow-host",
        "plane.example",
        "--allow-private-range",
        "10.0.0.0/8",
    ]);
    let asked = api(&config);
    assert_eq!(asked.allowed_hosts, ["plane.example"]);
    assert_eq!(asked.listen, [config.listen, config.management_listen]);
    let asks = endpoint(&config);
    assert_eq!(asks.ranges_allowed, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(asks.loopback, Loopback::Refused);
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let config = typed(&["--listen", loopback]);
        assert_eq!(endpoint(&config).loopback, Loopback::Allowed, "{loopback}");
        assert!(endpoint(&config).ranges_allowed.is_empty());
    }
}
