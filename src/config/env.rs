//! The names of the environment variables that Pelton reads, each the twin of a flag.
//!
//! **Invariant:** a variable that is not named here (or in the table of [`super::Limits`]), or by whoever types
//! `run --secret`, is not read; a flag that is typed beats its variable.

use std::env::VarError;
use std::path::PathBuf;

use crate::model::SecretValue;

/// `--listen`.
pub const LISTEN: &str = "PELTON_LISTEN";
/// `--management-listen`.
pub const MANAGEMENT_LISTEN: &str = "PELTON_MANAGEMENT_LISTEN";
/// `--data-dir`.
pub const DATA_DIR: &str = "PELTON_DATA_DIR";
/// `--manual`.
pub const MANUAL: &str = "PELTON_MANUAL";
/// `--insecure`.
pub const INSECURE: &str = "PELTON_INSECURE";
/// `--allow-host`, several with commas between them.
pub const ALLOW_HOST: &str = "PELTON_ALLOW_HOST";
/// `--allow-private-range`, several with commas between them.
pub const ALLOW_PRIVATE_RANGE: &str = "PELTON_ALLOW_PRIVATE_RANGE";
/// `--trust-proxy`, several with commas between them.
pub const TRUST_PROXY: &str = "PELTON_TRUST_PROXY";
/// `--secrets-key-file`.
pub const SECRETS_KEY_FILE: &str = "PELTON_SECRETS_KEY_FILE";
/// The key that secrets are encrypted with. It has no flag: arguments show in lists of processes.
pub const SECRETS_KEY: &str = "PELTON_SECRETS_KEY";
/// `--secrets-old-key-file`.
pub const SECRETS_OLD_KEY_FILE: &str = "PELTON_SECRETS_OLD_KEY_FILE";
/// The key that they were encrypted with before. It has no flag either.
pub const SECRETS_OLD_KEY: &str = "PELTON_SECRETS_OLD_KEY";
/// `--runtime-config`.
pub const RUNTIME_CONFIG: &str = "PELTON_RUNTIME_CONFIG";
/// `--no-sync-queue`.
pub const NO_SYNC_QUEUE: &str = "PELTON_NO_SYNC_QUEUE";
/// `--no-sync-queue-admission`.
pub const NO_SYNC_QUEUE_ADMISSION: &str = "PELTON_NO_SYNC_QUEUE_ADMISSION";
/// `--idempotency-ttl-ms`.
pub const IDEMPOTENCY_TTL_MS: &str = "PELTON_IDEMPOTENCY_TTL_MS";
/// `--log-format`.
pub const LOG_FORMAT: &str = "PELTON_LOG_FORMAT";
/// `--log-filter`.
pub const LOG_FILTER: &str = "PELTON_LOG_FILTER";
/// `--server` of the client commands.
pub const SERVER: &str = "PELTON_SERVER";
/// `--cache-dir` of `run`.
pub const CACHE_DIR: &str = "PELTON_CACHE_DIR";

/// The folder in which programs of this user keep what can be had again: `XDG_CACHE_HOME`, else `~/.cache`.
pub fn user_cache_dir() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
}

/// The value of a variable that `run --secret` names.
///
/// # Errors
/// There is no such variable, or its value is not UTF-8; that value must not be shown.
pub fn secret(variable: &str) -> Result<SecretValue, VarError> {
    // No variable has such a name, and the system must not be asked for one.
    if variable.is_empty() || variable.contains(['=', '\0']) {
        return Err(VarError::NotPresent);
    }
    let value = std::env::var_os(variable).ok_or(VarError::NotPresent)?;
    let value = value.into_string().map_err(VarError::NotUnicode)?;
    Ok(SecretValue::new(value))
}
