//! What a function may call and which secrets it is given, as stored.
//!
//! **Invariant:** holds names of secrets, never values.

use serde::{Deserialize, Serialize};

use super::Unreadable;
use crate::model::{Exposure, HostPattern, SecretUse};

#[derive(Serialize, Deserialize)]
pub(super) struct StoredSecretUse {
    secret: String,
    exposure: StoredExposure,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredExposure {
    Config,
    Env,
    Placeholder { hosts: Vec<String> },
}

pub(super) fn store_hosts(hosts: &[HostPattern]) -> Vec<String> {
    hosts.iter().map(ToString::to_string).collect()
}

pub(super) fn load_hosts(stored: Vec<String>) -> Result<Vec<HostPattern>, Unreadable> {
    let read = |text: &String| text.parse().map_err(|error| Unreadable::of("host", error));
    stored.iter().map(read).collect()
}

pub(super) fn store_secret_use((key, secret): (&String, &SecretUse)) -> (String, StoredSecretUse) {
    let exposure = match &secret.exposure {
        Exposure::Config => StoredExposure::Config,
        Exposure::Env => StoredExposure::Env,
        Exposure::Placeholder { hosts } => StoredExposure::Placeholder {
            hosts: store_hosts(hosts),
        },
    };
    let stored = StoredSecretUse {
        secret: secret.secret.to_string(),
        exposure,
    };
    (key.clone(), stored)
}

pub(super) fn load_secret_use(
    (key, stored): (String, StoredSecretUse),
) -> Result<(String, SecretUse), Unreadable> {
    let exposure = match stored.exposure {
        StoredExposure::Config => Exposure::Config,
        StoredExposure::Env => Exposure::Env,
        StoredExposure::Placeholder { hosts } => Exposure::Placeholder {
            hosts: load_hosts(hosts)?,
        },
    };
    let secret = stored.secret.parse();
    let secret = secret.map_err(|error| Unreadable::of("secret", error))?;
    Ok((key, SecretUse { secret, exposure }))
}
