//! Every limit of the plane: one row each with its name, variable, default, range and meaning.
//!
//! **Invariant:** a limit exists in this table or not at all: the flag, its help, its check and the test
//! of `docs/configuration.md` are made from the same row.

use std::ops::RangeInclusive;

/// What the table says of one limit, for help, checks and docs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The flag without its dashes; the unit is its last word.
    pub flag: String,
    /// The value if nothing is said.
    pub default: u64,
    /// The values that are taken.
    pub range: RangeInclusive<u64>,
}

impl Bound {
    fn help(&self, meaning: &str) -> String {
        let (least, most) = (self.range.start(), self.range.end());
        format!("{} [{least} to {most}]", meaning.trim())
    }
}

/// Makes the struct of all limits with its flags, and the list of their bounds, from the table below.
macro_rules! limits {
    ($( #[doc = $meaning:literal] $name:ident: $kind:ty = $default:expr, $range:expr, $env:literal; )+) => {
        /// The limits, as they were typed or by default. [`Limits::complaints`] checks them.
        #[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
        #[command(next_help_heading = "Limits")]
        pub struct Limits {
            $(
                #[doc = $meaning]
                #[arg(
                    long,
                    value_name = "N",
                    env = $env,
                    hide_env_values = true,
                    default_value_t = $default,
                    help = bound::<$kind>(stringify!($name), $default, &($range)).help($meaning)
                )]
                pub $name: $kind,
            )+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $( $name: $default, )+ }
            }
        }

        impl Limits {
            /// What the table says of each limit, in the order of the help.
            pub fn bounds() -> Vec<Bound> {
                vec![ $( bound::<$kind>(stringify!($name), $default, &($range)), )+ ]
            }

            /// The values in the same order.
            fn values(&self) -> Vec<u64> {
                vec![ $( u64::from(self.$name), )+ ]
            }
        }
    };
}

limits! {
    /// Wasm guests that run at once in the whole plane
    guests_max: u32 = 256, 1..=4096, "PELTON_GUESTS_MAX";
    /// Calls to services behind a URL (POOL) under way at once in the whole plane
    endpoint_calls_max: u32 = 1024, 1..=100_000, "PELTON_ENDPOINT_CALLS_MAX";
    /// Calls a second that the whole plane takes; more are answered 429
    rate_max_per_second: u32 = 1_000_000, 1..=1_000_000_000, "PELTON_RATE_MAX_PER_SECOND";
    /// Synchronous callers that wait in queues at once in the whole plane; one more is answered 429
    sync_queue_max_depth: u32 = 4096, 1..=1_000_000, "PELTON_SYNC_QUEUE_MAX_DEPTH";
    /// Time that a synchronous call may be expected to wait for its beginning, in ms; one that would wait longer is answered 429 at once
    sync_queue_max_estimated_wait_ms: u64 = 300_000, 1..=86_400_000, "PELTON_SYNC_QUEUE_MAX_ESTIMATED_WAIT_MS";
    /// Time that a synchronous call without a key may wait for its beginning, in ms; then it is answered 429
    sync_queue_max_queue_wait_ms: u64 = 300_000, 1..=86_400_000, "PELTON_SYNC_QUEUE_MAX_QUEUE_WAIT_MS";
    /// The least that a refused synchronous caller is told to wait, in s
    sync_queue_retry_after_s: u32 = 2, 1..=3600, "PELTON_SYNC_QUEUE_RETRY_AFTER_S";
    /// Functions that may exist
    functions_max: u32 = 10_000, 1..=1_000_000, "PELTON_FUNCTIONS_MAX";
    /// Versions that one function may have
    versions_max: u32 = 1000, 1..=100_000, "PELTON_VERSIONS_MAX";
    /// Open connections to the API; further ones wait in the system's backlog
    connections_max: u32 = 4096, 1..=1_000_000, "PELTON_CONNECTIONS_MAX";
    /// Headers of one request; more are answered 431
    headers_max: u32 = 100, 10..=1000, "PELTON_HEADERS_MAX";
    /// Bytes of one request's head, its line and headers; more are answered 431
    header_bytes_max: u32 = 65_536, 8192..=1_048_576, "PELTON_HEADER_BYTES_MAX";
    /// Time for a request's head to arrive, which also ends idle connections, in ms
    header_read_timeout_ms: u64 = 30_000, 100..=600_000, "PELTON_HEADER_READ_TIMEOUT_MS";
    /// Bytes of one request's body; more are answered 413
    body_bytes_max: u64 = 8_388_608, 1024..=1_073_741_824, "PELTON_BODY_BYTES_MAX";
    /// Bytes of all request bodies under way, those of waiting synchronous calls included; one more is answered 503
    body_bytes_in_flight_max: u64 = 268_435_456, 1024..=68_719_476_736, "PELTON_BODY_BYTES_IN_FLIGHT_MAX";
    /// Bytes of all answers that clients have not taken yet; one more is answered 503
    answer_bytes_in_flight_max: u64 = 268_435_456, 65_536..=68_719_476_736, "PELTON_ANSWER_BYTES_IN_FLIGHT_MAX";
    /// Time that a client may take nothing of what is sent to it before its connection is closed, in ms
    answer_stall_timeout_ms: u32 = 30_000, 100..=3_600_000, "PELTON_ANSWER_STALL_TIMEOUT_MS";
    /// Bytes of one uploaded wasm file; more are answered 413
    upload_bytes_max: u64 = 67_108_864, 1024..=1_073_741_824, "PELTON_UPLOAD_BYTES_MAX";
    /// Bytes of all uploads that are received at once; one more is answered 503
    upload_bytes_in_flight_max: u64 = 268_435_456, 1024..=68_719_476_736, "PELTON_UPLOAD_BYTES_IN_FLIGHT_MAX";
    /// Time for a request's body to arrive, in ms
    body_timeout_ms: u64 = 120_000, 100..=3_600_000, "PELTON_BODY_TIMEOUT_MS";
    /// Exports of executions under way at once; one more is answered 503
    exports_max: u32 = 8, 1..=1000, "PELTON_EXPORTS_MAX";
    /// Uploads that wait for the compiler; one more is answered 503
    compile_queue_max: u32 = 16, 1..=1000, "PELTON_COMPILE_QUEUE_MAX";
    /// Time for compiling one upload, in s
    compile_timeout_s: u64 = 120, 1..=3600, "PELTON_COMPILE_TIMEOUT_S";
    /// Memory of the compiling process, in bytes
    compile_memory_bytes_max: u64 = 2_147_483_648, 268_435_456..=68_719_476_736, "PELTON_COMPILE_MEMORY_BYTES_MAX";
    /// Compiled code kept in memory, in bytes; the rest is mapped from disk when it is called
    loaded_code_bytes_max: u64 = 536_870_912, 1_048_576..=1_099_511_627_776, "PELTON_LOADED_CODE_BYTES_MAX";
    /// Instances of functions with `reuse` that wait for their next call, of all functions; 0: none is reused
    warm_instances_max: u32 = 128, 0..=4096, "PELTON_WARM_INSTANCES_MAX";
    /// Memory of the instances that wait, in bytes
    warm_memory_bytes_max: u64 = 1_073_741_824, 0..=1_099_511_627_776, "PELTON_WARM_MEMORY_BYTES_MAX";
    /// Inputs of waiting executions kept in memory, with their metadata, in bytes; the rest is read back at its turn
    queued_input_bytes_max: u64 = 268_435_456, 0..=1_099_511_627_776, "PELTON_QUEUED_INPUT_BYTES_MAX";
    /// Bytes of results on their way to disk; beyond it nothing new is started until some have arrived
    uncommitted_result_bytes_max: u64 = 268_435_456, 65_536..=68_719_476_736, "PELTON_UNCOMMITTED_RESULT_BYTES_MAX";
    /// Bytes of the logs that a synchronous call without a key keeps of its attempts until it ends; the oldest go first
    waiting_call_log_bytes_max: u64 = 1_048_576, 4096..=1_073_741_824, "PELTON_WAITING_CALL_LOG_BYTES_MAX";
    /// Inputs of attempts that run, in bytes, of wasm and of POOL each; a larger one runs alone of its kind
    running_input_bytes_max: u64 = 268_435_456, 1024..=1_099_511_627_776, "PELTON_RUNNING_INPUT_BYTES_MAX";
    /// Time after a start with a backlog in which the attempts at once grow from a sixteenth to their bounds, in ms
    start_ramp_ms: u64 = 2000, 0..=600_000, "PELTON_START_RAMP_MS";
    /// Deaths of the server after which an execution of wasm that was running at each is suspected: no two such run at once
    suspect_faults: u32 = 2, 1..=1000, "PELTON_SUSPECT_FAULTS";
    /// Time that a suspect has by itself: others start again when it is over, in ms
    suspect_alone_ms: u32 = 1000, 0..=60_000, "PELTON_SUSPECT_ALONE_MS";
    /// Requests that one attempt of a function may send
    outgoing_requests_max: u32 = 1000, 0..=1_000_000, "PELTON_OUTGOING_REQUESTS_MAX";
    /// Requests of one attempt under way at once, unread answers included
    outgoing_requests_at_once_max: u32 = 32, 1..=10_000, "PELTON_OUTGOING_REQUESTS_AT_ONCE_MAX";
    /// Bytes of the body of one request that a function sends
    outgoing_request_bytes_max: u64 = 268_435_456, 0..=1_099_511_627_776, "PELTON_OUTGOING_REQUEST_BYTES_MAX";
    /// Bytes of the body of one answer that a function gets
    outgoing_response_bytes_max: u64 = 268_435_456, 0..=1_099_511_627_776, "PELTON_OUTGOING_RESPONSE_BYTES_MAX";
    /// Header fields of one request that a function sends, and of one answer that it gets
    outgoing_headers_max: u32 = 100, 10..=1000, "PELTON_OUTGOING_HEADERS_MAX";
    /// Bytes of the head of one request that a function sends, and of one answer that it gets
    outgoing_header_bytes_max: u32 = 65_536, 8192..=1_048_576, "PELTON_OUTGOING_HEADER_BYTES_MAX";
    /// Time for a function's request to be connected, name and TLS included, in ms
    outgoing_connect_timeout_ms: u64 = 5000, 1..=300_000, "PELTON_OUTGOING_CONNECT_TIMEOUT_MS";
    /// Time without a byte of an answer, or without a byte of a request being taken, in ms
    outgoing_silence_timeout_ms: u64 = 30_000, 1..=300_000, "PELTON_OUTGOING_SILENCE_TIMEOUT_MS";
    /// Connections of all functions' requests, idle ones included
    outgoing_connections_max: u32 = 1024, 1..=100_000, "PELTON_OUTGOING_CONNECTIONS_MAX";
    /// Connections of one function's requests, idle ones included
    outgoing_connections_per_function_max: u32 = 256, 1..=100_000, "PELTON_OUTGOING_CONNECTIONS_PER_FUNCTION_MAX";
    /// Idle connections kept for further requests, of all functions
    outgoing_idle_connections_max: u32 = 256, 0..=100_000, "PELTON_OUTGOING_IDLE_CONNECTIONS_MAX";
    /// Idle connections kept for further requests, of one function
    outgoing_idle_connections_per_function_max: u32 = 16, 0..=100_000, "PELTON_OUTGOING_IDLE_CONNECTIONS_PER_FUNCTION_MAX";
    /// Time that an idle connection is kept, in ms
    outgoing_idle_timeout_ms: u64 = 30_000, 0..=3_600_000, "PELTON_OUTGOING_IDLE_TIMEOUT_MS";
    /// Secrets that may be kept
    secrets_max: u32 = 1000, 0..=100_000, "PELTON_SECRETS_MAX";
    /// Faults of ours that one execution survives before it ends as PLATFORM_FAULT
    faults_max: u32 = 20, 0..=1000, "PELTON_FAULTS_MAX";
    /// Age after its end at which an execution is forgotten, in ms
    retention_ms: u64 = 604_800_000, 1000..=315_360_000_000, "PELTON_RETENTION_MS";
    /// Time for one step of retention and of removing old code, and how far a loop of ours may be behind before that is logged, in ms
    loop_deadline_ms: u64 = 60_000, 1000..=3_600_000, "PELTON_LOOP_DEADLINE_MS";
    /// Time that a stop leaves to running calls before it interrupts them, in ms
    shutdown_grace_ms: u64 = 30_000, 0..=3_600_000, "PELTON_SHUTDOWN_GRACE_MS";
}

fn bound<T: Copy + Into<u64>>(field: &str, default: T, range: &RangeInclusive<T>) -> Bound {
    Bound {
        flag: field.replace('_', "-"),
        default: default.into(),
        range: (*range.start()).into()..=(*range.end()).into(),
    }
}

impl Limits {
    /// A sentence for every value that is out of its range.
    pub fn complaints(&self) -> Vec<String> {
        Self::bounds()
            .into_iter()
            .zip(self.values())
            .filter(|(bound, value)| !bound.range.contains(value))
            .map(|(bound, value)| out_of_range(&bound.flag, value, &bound.range))
            .collect()
    }
}

/// The sentence for a number that is out of its range.
pub(super) fn out_of_range(flag: &str, value: u64, range: &RangeInclusive<u64>) -> String {
    let (least, most) = (range.start(), range.end());
    format!("--{flag} {value} is out of range: it may be {least} to {most}")
}
