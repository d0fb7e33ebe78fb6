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
    /// Uploads that wait for the compiler; one more is answered 503
    compile_queue_max: u32 = 16, 1..=1000, "PELTON_COMPILE_QUEUE_MAX";
    /// Time for compiling one upload, in s
    compile_timeout_s: u64 = 120, 1..=3600, "PELTON_COMPILE_TIMEOUT_S";
    /// Memory of the compiling process, in bytes
    compile_memory_bytes_max: u64 = 2_147_483_648, 268_435_456..=68_719_476_736, "PELTON_COMPILE_MEMORY_BYTES_MAX";
    /// Compiled code kept in memory, in bytes; the rest is mapped from disk when it is called
    loaded_code_bytes_max: u64 = 536_870_912, 1_048_576..=1_099_511_627_776, "PELTON_LOADED_CODE_BYTES_MAX";
    /// Inputs of waiting executions kept in memory, in bytes; the rest is read back at its turn
    queued_input_bytes_max: u64 = 268_435_456, 0..=1_099_511_627_776, "PELTON_QUEUED_INPUT_BYTES_MAX";
    /// Bytes of results on their way to disk; beyond it nothing new is started until some have arrived
    uncommitted_result_bytes_max: u64 = 268_435_456, 65_536..=68_719_476_736, "PELTON_UNCOMMITTED_RESULT_BYTES_MAX";
    /// Bytes of the logs that a synchronous call without a key keeps of its attempts until it ends; the oldest go first
    waiting_call_log_bytes_max: u64 = 1_048_576, 4096..=1_073_741_824, "PELTON_WAITING_CALL_LOG_BYTES_MAX";
    /// Faults of ours that one execution survives before it ends as PLATFORM_FAULT
    faults_max: u32 = 20, 0..=1000, "PELTON_FAULTS_MAX";
    /// Age after its end at which an execution is forgotten, in ms
    retention_ms: u64 = 604_800_000, 1000..=315_360_000_000, "PELTON_RETENTION_MS";
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
