//! What an author says of a function: the settings of the function and the spec of a version.
//!
//! **Invariant:** the defaults and ranges of every field stand here and nowhere else; a value that
//! exists was checked against them by whoever built it (the API's wire module, the store's record module).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host::HostName;
use super::id::{Digest, Timestamp, VersionNumber};
use super::reach::HostPattern;
use super::secret::SecretUse;

/// Defaults and ranges of the spec's fields, one row each: the single source for validation, docs and errors.
pub mod limits {
    use std::ops::RangeInclusive;

    /// Longest and shortest time for one attempt, and for a synchronous caller's wait, in ms.
    pub const TIMEOUT_MS: RangeInclusive<u64> = 1..=300_000;
    /// Time for one attempt unless the spec says otherwise, in ms.
    pub const TIMEOUT_MS_DEFAULT: u64 = 30_000;
    /// Guest CPU time for one attempt, in ms; none by default.
    pub const CPU_MS: RangeInclusive<u64> = 1..=300_000;
    /// All memories and tables of one attempt together, in MiB.
    pub const MEMORY_MB: RangeInclusive<u64> = 1..=4096;
    /// Memory unless the spec says otherwise, in MiB.
    pub const MEMORY_MB_DEFAULT: u64 = 256;
    /// Largest output, in bytes.
    pub const OUTPUT_BYTES_MAX: RangeInclusive<u64> = 0..=67_108_864;
    /// Largest output unless the spec says otherwise, in bytes (6 MiB).
    pub const OUTPUT_BYTES_MAX_DEFAULT: u64 = 6 * 1024 * 1024;
    /// Log bytes kept of one attempt.
    pub const LOG_BYTES_MAX: RangeInclusive<u64> = 0..=4_194_304;
    /// Log bytes kept unless the spec says otherwise (64 KiB).
    pub const LOG_BYTES_MAX_DEFAULT: u64 = 64 * 1024;
    /// Attempts; 0 and 1 both mean one.
    pub const MAX_RETRIES: RangeInclusive<u64> = 0..=100;
    /// Attempts unless the spec says otherwise.
    pub const MAX_RETRIES_DEFAULT: u64 = 3;
    /// First retry delay, in ms.
    pub const BASE_DELAY_MS: RangeInclusive<u64> = 0..=86_400_000;
    /// First retry delay unless the spec says otherwise, in ms.
    pub const BASE_DELAY_MS_DEFAULT: u64 = 100;
    /// Longest retry delay, in ms.
    pub const MAX_DELAY_MS: RangeInclusive<u64> = 0..=86_400_000;
    /// Longest retry delay unless the spec says otherwise, in ms.
    pub const MAX_DELAY_MS_DEFAULT: u64 = 30_000;
    /// How often an execution may be put back without spending an attempt.
    pub const MAX_REQUEUES: RangeInclusive<u64> = 0..=1_000_000;
    /// Requeues unless the spec says otherwise.
    pub const MAX_REQUEUES_DEFAULT: u64 = 1000;
    /// How old an execution may get before it is no longer run, in ms (up to 30 days).
    pub const MAX_AGE_MS: RangeInclusive<u64> = 1..=2_592_000_000;
    /// Age unless the spec says otherwise, in ms (24 h).
    pub const MAX_AGE_MS_DEFAULT: u64 = 86_400_000;
    /// Attempts of one function that run at once.
    pub const CONCURRENCY: RangeInclusive<u64> = 1..=10_000;
    /// Concurrency unless the function says otherwise.
    pub const CONCURRENCY_DEFAULT: u64 = 4;
    /// New executions that may wait in one function's queue.
    pub const QUEUE_SIZE: RangeInclusive<u64> = 1..=10_000_000;
    /// Queue size unless the function says otherwise.
    pub const QUEUE_SIZE_DEFAULT: u64 = 100;
    /// Calls a second, and calls at once beyond that rate.
    pub const RATE: RangeInclusive<u64> = 1..=1_000_000;
    /// Host names of one function.
    pub const HOST_NAMES_MAX: usize = 64;
    /// Entries of `args`, of `env` and of `config`.
    pub const ENTRIES_MAX: usize = 256;
    /// Bytes of all names and values of `args`, of `env` and of `config`, each.
    pub const ENTRIES_BYTES_MAX: usize = 65_536;
    /// Entries of `allowHosts`, and of the `hosts` of one placeholder.
    pub const HOSTS_MAX: usize = 128;
    /// Entries of `secrets`.
    pub const SECRETS_MAX: usize = 64;
    /// Bytes of one secret's value.
    pub const SECRET_BYTES: RangeInclusive<u64> = 1..=65_536;
    /// Calls that one reused instance answers, at most.
    pub const REUSE_MAX_CALLS: RangeInclusive<u64> = 1..=1_000_000;
    /// Calls of one reused instance unless the spec says otherwise.
    pub const REUSE_MAX_CALLS_DEFAULT: u64 = 128;
    /// Calls that one reused instance answers at once, where its shape can: they share its memory, its log and its end.
    pub const REUSE_MAX_CONCURRENT: RangeInclusive<u64> = 1..=64;
    /// How long a reused instance waits for its next call, in ms.
    pub const REUSE_IDLE_MS: RangeInclusive<u64> = 100..=3_600_000;
    /// How long it waits unless the spec says otherwise, in ms.
    pub const REUSE_IDLE_MS_DEFAULT: u64 = 10_000;
    /// Longest `image`, `endpointUrl` and `invokePath`, in bytes.
    pub const TEXT_BYTES_MAX: usize = 2048;
}

/// What a file of wasm is, found at upload by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The typed world `pelton:function/function`.
    Handler,
    /// `wasi:http/incoming-handler@0.2.x`.
    Http02,
    /// `wasi:http/handler@0.3.x`.
    Http03,
    /// A `wasi:cli/run@0.2.x` component.
    Command02,
    /// A `wasi:cli/run@0.3.x` component.
    Command03,
    /// A preview 1 or `wasi_unstable` module with `_start`.
    CoreCommand,
}

/// What runs when a version is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// Wasm in this process.
    Wasm {
        /// Names the file.
        digest: Digest,
        /// How it is run.
        shape: Shape,
        /// The file's size in bytes.
        size: u64,
    },
    /// `builtin:echo`: the input is the output. nanofaas's LOCAL functions do this.
    Echo,
    /// A service behind `endpointUrl` (POOL).
    Endpoint {
        /// Where attempts are POSTed to: absolute, http or https.
        url: Arc<str>,
    },
}

/// The word that a client asked for; what it gets is [`Version::effective_mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionMode {
    /// In this process.
    Local,
    /// Behind a URL.
    Pool,
    /// nanofaas's managed containers: acts as POOL where there is a URL, else it is refused.
    Deployment,
}

/// What is kept of executions that nobody was promised would be kept (synchronous, no key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordMode {
    /// Everything while the write-behind buffer is less than half full, then summaries, then nothing.
    #[default]
    Auto,
    /// Input and output always, as long as the buffer has room at all.
    Full,
    /// Id, function, version, status, error, times and sizes.
    Summary,
}

/// Delays between attempts: full jitter, doubling from `base` up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Delay before the second attempt, in ms; 0 retries at once, always.
    pub base_delay_ms: u64,
    /// No delay is longer, in ms.
    pub max_delay_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base_delay_ms: limits::BASE_DELAY_MS_DEFAULT,
            max_delay_ms: limits::MAX_DELAY_MS_DEFAULT,
        }
    }
}

/// How instances are used for more than one call, where a function asks for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// Calls that one instance answers before it ends.
    pub max_calls: u32,
    /// Calls that one instance answers at once.
    pub max_concurrent: u32,
    /// How long an instance waits for its next call before it ends, in ms.
    pub idle_ms: u64,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            max_calls: limits::REUSE_MAX_CALLS_DEFAULT as u32,
            max_concurrent: 1,
            idle_ms: limits::REUSE_IDLE_MS_DEFAULT,
        }
    }
}

/// Settings of the function itself: they act at once and make no version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSettings {
    /// Attempts that run at once.
    pub concurrency: u32,
    /// New executions that may wait.
    pub queue_size: u32,
    /// Calls a second, if limited.
    pub rate_per_second: Option<u32>,
    /// Calls at once beyond the rate; the rate itself unless said otherwise.
    pub burst: Option<u32>,
    /// Host names whose requests are this function's, whatever their path.
    pub hosts: BTreeSet<HostName>,
}

impl Default for FunctionSettings {
    fn default() -> Self {
        Self {
            concurrency: limits::CONCURRENCY_DEFAULT as u32,
            queue_size: limits::QUEUE_SIZE_DEFAULT as u32,
            rate_per_second: None,
            burst: None,
            hosts: BTreeSet::new(),
        }
    }
}

/// The spec of one version, complete: every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSpec {
    /// Limit of one attempt, in ms.
    pub timeout_ms: u64,
    /// Limit of guest CPU time of one attempt, in ms.
    pub cpu_ms: Option<u64>,
    /// Limit of all memories and tables of one attempt together, in MiB.
    pub memory_mb: u64,
    /// Largest output, in bytes.
    pub output_bytes_max: u64,
    /// Log bytes kept of one attempt.
    pub log_bytes_max: u64,
    /// Attempts; 0 and 1 both mean one (nanofaas's meaning of the word).
    pub max_retries: u32,
    /// Delays between attempts.
    pub retry_backoff: Backoff,
    /// Requeues before the execution ends as error.
    pub max_requeues: u32,
    /// Age beyond which no attempt starts any more, in ms.
    pub max_age_ms: u64,
    /// Command line arguments after the program's name.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Values for `wasi:config/store`.
    pub config: BTreeMap<String, String>,
    /// Hosts that the function may call. None: it may not call out, and code that wants to is refused at deploy
    /// (unless its world always imports that); empty: it may call nobody.
    pub allow_hosts: Option<Vec<HostPattern>>,
    /// Secrets that the function is given, by the name that it knows them by.
    pub secrets: BTreeMap<String, SecretUse>,
    /// Path and query that calls of an HTTP function are POSTed to; `/` unless said.
    pub invoke_path: Option<String>,
    /// How its instances are reused. None: every call gets a fresh one.
    pub reuse: Option<Reuse>,
    /// What is kept of calls that were promised nothing.
    pub record: RecordMode,
    /// What the client asked for, if it did.
    pub execution_mode: Option<ExecutionMode>,
    /// What the client wrote as `image`, if it did.
    pub image: Option<String>,
    /// What the client wrote as `endpointUrl`, if it did.
    pub endpoint_url: Option<String>,
    /// nanofaas's fields that mean nothing here: name and JSON text, echoed and listed as ignored.
    pub ignored: BTreeMap<String, String>,
}

impl Default for VersionSpec {
    fn default() -> Self {
        Self {
            timeout_ms: limits::TIMEOUT_MS_DEFAULT,
            cpu_ms: None,
            memory_mb: limits::MEMORY_MB_DEFAULT,
            output_bytes_max: limits::OUTPUT_BYTES_MAX_DEFAULT,
            log_bytes_max: limits::LOG_BYTES_MAX_DEFAULT,
            max_retries: limits::MAX_RETRIES_DEFAULT as u32,
            retry_backoff: Backoff::default(),
            max_requeues: limits::MAX_REQUEUES_DEFAULT as u32,
            max_age_ms: limits::MAX_AGE_MS_DEFAULT,
            args: Vec::new(),
            env: BTreeMap::new(),
            config: BTreeMap::new(),
            allow_hosts: None,
            secrets: BTreeMap::new(),
            invoke_path: None,
            reuse: None,
            record: RecordMode::Auto,
            execution_mode: None,
            image: None,
            endpoint_url: None,
            ignored: BTreeMap::new(),
        }
    }
}

impl VersionSpec {
    /// How many attempts an execution may spend: at least one.
    pub fn max_attempts(&self) -> u32 {
        self.max_retries.max(1)
    }
}

/// Everything an author may say, function and version together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// Acts at once.
    pub settings: FunctionSettings,
    /// Makes a version.
    pub version: VersionSpec,
}

/// One immutable pair of code and spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number within the function.
    pub number: VersionNumber,
    /// What runs.
    pub code: Code,
    /// Under which rules.
    pub spec: VersionSpec,
    /// When it was deployed.
    pub created_at: Timestamp,
}

impl Version {
    /// How the version really runs, whatever was asked for.
    pub fn effective_mode(&self) -> ExecutionMode {
        match self.code {
            Code::Wasm { .. } | Code::Echo => ExecutionMode::Local,
            Code::Endpoint { .. } => ExecutionMode::Pool,
        }
    }
}
