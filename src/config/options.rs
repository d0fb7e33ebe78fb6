//! What was typed: flags and their variables, before anybody asked whether they make sense.
//!
//! **Invariant:** nothing here is checked beyond its syntax; [`super::Config`] is what the plane reads.

use std::path::PathBuf;

use super::limits::Limits;
use super::{env, secrets};
use crate::model::SecretValue;

/// Options of `pelton serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address of the API; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = env::LISTEN, hide_env_values = true, default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Address for health and metrics alone; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = env::MANAGEMENT_LISTEN, hide_env_values = true, default_value = "127.0.0.1:8081")]
    pub management_listen: String,
    /// Folder of everything that is kept; made if missing
    #[arg(long, value_name = "DIR", env = env::DATA_DIR, hide_env_values = true, default_value = "./pelton-data")]
    pub data_dir: PathBuf,
    /// Run nothing by itself: work moves when it is drained by hand
    #[arg(long, env = env::MANUAL, hide_env_values = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub manual: bool,
    /// Listen on addresses that others reach, though Pelton checks no credentials yet
    #[arg(long, env = env::INSECURE, hide_env_values = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub insecure: bool,
    /// A name that requests may carry as Host, beside loopback and the listen address (repeatable)
    #[arg(long, value_name = "NAME", env = env::ALLOW_HOST, hide_env_values = true, value_delimiter = ',')]
    pub allow_host: Vec<String>,
    /// A private range that functions may call and POOL functions may live in, such as 10.0.0.0/8 (repeatable)
    #[arg(long, value_name = "CIDR", env = env::ALLOW_PRIVATE_RANGE, hide_env_values = true, value_delimiter = ',')]
    pub allow_private_range: Vec<String>,
    /// Addresses of reverse proxies whose X-Forwarded headers functions may believe, such as 10.0.0.0/8,
    /// beside loopback (repeatable)
    #[arg(long, value_name = "CIDR", env = env::TRUST_PROXY, hide_env_values = true, value_delimiter = ',')]
    pub trust_proxy: Vec<String>,
    /// A file with the key that secrets are encrypted with: 32 random bytes in base64 or hexadecimal digits. The
    /// variable PELTON_SECRETS_KEY may hold the key itself instead
    #[arg(long, value_name = "FILE", env = env::SECRETS_KEY_FILE, hide_env_values = true)]
    pub secrets_key_file: Option<PathBuf>,
    /// The key itself, which the environment may hold.
    #[arg(skip = secrets::key_of_environment(env::SECRETS_KEY))]
    pub secrets_key: Option<SecretValue>,
    /// A file with the key that secrets were encrypted with before: those that still are get encrypted with the new
    /// one at the start. The variable PELTON_SECRETS_OLD_KEY may hold the key itself instead
    #[arg(long, value_name = "FILE", env = env::SECRETS_OLD_KEY_FILE, hide_env_values = true)]
    pub secrets_old_key_file: Option<PathBuf>,
    /// The old key itself, which the environment may hold.
    #[arg(skip = secrets::key_of_environment(env::SECRETS_OLD_KEY))]
    pub secrets_old_key: Option<SecretValue>,
    /// Whether limits can be changed over HTTP while the plane runs (/v1/admin/runtime-config)
    #[arg(long, value_enum, value_name = "WHEN", env = env::RUNTIME_CONFIG, hide_env_values = true, default_value_t)]
    pub runtime_config: RuntimeConfigWhen,
    /// Refuse synchronous calls only for their function's own queue and rate, whatever the --sync-queue limits say
    #[arg(long, env = env::NO_SYNC_QUEUE, hide_env_values = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub no_sync_queue: bool,
    /// Take synchronous calls in, however long they are expected to wait
    #[arg(long, env = env::NO_SYNC_QUEUE_ADMISSION, hide_env_values = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub no_sync_queue_admission: bool,
    /// Time that an idempotency key is remembered, in ms; not less than --retention-ms
    /// [default: a day, or the retention if that is longer]
    #[arg(long, value_name = "N", env = env::IDEMPOTENCY_TTL_MS, hide_env_values = true)]
    pub idempotency_ttl_ms: Option<u64>,
    /// The limits.
    #[command(flatten)]
    pub limits: Limits,
    /// How logs are written.
    #[command(flatten)]
    pub log: LogOptions,
    /// For crash tests, in debug builds alone: the process aborts when the input of an attempt has this
    /// text in it
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "TEXT", hide = true)]
    pub test_abort_on: Option<String>,
    /// The same, but the attempt panics
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "TEXT", hide = true)]
    pub test_panic_on: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            management_listen: "127.0.0.1:8081".to_owned(),
            data_dir: PathBuf::from("./pelton-data"),
            manual: false,
            insecure: false,
            allow_host: Vec::new(),
            allow_private_range: Vec::new(),
            trust_proxy: Vec::new(),
            secrets_key_file: None,
            secrets_key: None,
            secrets_old_key_file: None,
            secrets_old_key: None,
            runtime_config: RuntimeConfigWhen::default(),
            no_sync_queue: false,
            no_sync_queue_admission: false,
            idempotency_ttl_ms: None,
            limits: Limits::default(),
            log: LogOptions::default(),
            #[cfg(debug_assertions)]
            test_abort_on: None,
            #[cfg(debug_assertions)]
            test_panic_on: None,
        }
    }
}

/// See [`Options::runtime_config`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RuntimeConfigWhen {
    /// Where the API listens on loopback.
    #[default]
    Auto,
    /// Wherever it listens.
    On,
    /// Nowhere.
    Off,
}

/// How logs are written: always to standard error.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct LogOptions {
    /// Lines for people or JSON for machines
    #[arg(long, value_enum, env = env::LOG_FORMAT, hide_env_values = true, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by module (`info,pelton::scheduler=debug`)
    #[arg(long, value_name = "FILTER", env = env::LOG_FILTER, hide_env_values = true, default_value = "info")]
    pub log_filter: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            log_format: LogFormat::default(),
            log_filter: "info".to_owned(),
        }
    }
}

/// See [`LogOptions::log_format`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Pretty,
    /// One JSON object an event.
    Json,
}
