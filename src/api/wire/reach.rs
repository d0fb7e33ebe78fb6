//! What a function may call and which secrets it is given, as fields of a spec.
//!
//! **Invariant:** names of secrets come and go here, their values never.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::{Bounds, Fields, shown};
use super::spec::{ENTRIES, OWN_VARIABLES};
use crate::api::error::quoted;
use crate::model::{Exposure, HostPattern, SecretName, SecretUse, limits};

const HOSTS: Bounds = Bounds {
    entries_max: limits::HOSTS_MAX,
    bytes_max: limits::ENTRIES_BYTES_MAX,
};

/// What a secret's entry looks like, for complaints.
const EXAMPLE: &str = r#"{"secret": "NAME", "as": "env"}"#;

/// How an entry says what the function is given.
#[derive(Clone, Copy)]
enum As {
    Config,
    Env,
    Placeholder,
}

const AS: [(&str, As); 3] = [
    ("config", As::Config),
    ("env", As::Env),
    ("placeholder", As::Placeholder),
];

/// `allowHosts`; none where it is absent. The placeholders among `secrets` may leave nowhere else.
pub(super) fn allow_hosts(
    fields: &mut Fields<'_>,
    secrets: &BTreeMap<String, SecretUse>,
) -> Option<Vec<HostPattern>> {
    let complained = fields.complained();
    let allowed = hosts(fields, "allowHosts");
    if fields.complained() == complained {
        check_placeholders(fields, secrets, allowed.as_deref().unwrap_or_default());
    }
    allowed
}

/// A placeholder's host that is never called is a mistake in one of the two lists: found here, and not by the call that
/// is refused.
fn check_placeholders(
    fields: &mut Fields<'_>,
    secrets: &BTreeMap<String, SecretUse>,
    allowed: &[HostPattern],
) {
    for (key, used) in secrets {
        let Exposure::Placeholder { hosts } = &used.exposure else {
            continue;
        };
        let is_allowed = |host: &&HostPattern| allowed.iter().any(|entry| entry.overlaps(host));
        if let Some(host) = hosts.iter().find(|host| !is_allowed(host)) {
            fields.complain(
                &format!("secrets.{}", quoted(key)),
                format_args!(
                    "hosts: allowHosts does not allow {host}, so the secret can never be sent there: list it there \
                     too, or leave it out here"
                ),
            );
        }
    }
}

fn hosts(fields: &mut Fields<'_>, name: &str) -> Option<Vec<HostPattern>> {
    let texts = fields.texts(name, HOSTS)?;
    let mut hosts = Vec::with_capacity(texts.len());
    for text in texts {
        match text.parse() {
            Ok(host) => hosts.push(host),
            Err(error) => fields.complain(name, format_args!("{} {error}", quoted(&text))),
        }
    }
    Some(hosts)
}

/// The hosts of a list, as they are shown.
pub(super) fn shown_hosts(hosts: &[HostPattern]) -> Value {
    hosts.iter().map(ToString::to_string).collect()
}

/// `secrets`. `env` and `config` are what the spec says beside them: a name has one meaning only.
pub(super) fn secrets(
    fields: &mut Fields<'_>,
    env: &BTreeMap<String, String>,
    config: &BTreeMap<String, String>,
) -> BTreeMap<String, SecretUse> {
    let mut uses = BTreeMap::new();
    let Some(value) = fields.take("secrets") else {
        return uses;
    };
    let Value::Object(members) = value else {
        fields.complain(
            "secrets",
            format_args!("must be an object of entries like {EXAMPLE}"),
        );
        return uses;
    };
    if members.len() > limits::SECRETS_MAX {
        let (count, max) = (members.len(), limits::SECRETS_MAX);
        fields.complain(
            "secrets",
            format_args!("has {count} entries, and may have {max}"),
        );
        return uses;
    }
    for (key, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
        let mut complaints = Vec::new();
        let secret = entry(value, &mut complaints);
        if let Some(secret) = &secret {
            check_key(&key, &secret.exposure, env, config, &mut complaints);
        }
        for complaint in complaints {
            fields.complain(&format!("secrets.{}", quoted(&key)), complaint);
        }
        if let Some(secret) = secret {
            uses.insert(key, secret);
        }
    }
    uses
}

fn entry(value: Value, complaints: &mut Vec<String>) -> Option<SecretUse> {
    let what_else = shown(&value);
    let Value::Object(members) = value else {
        complaints.push(format!("must be an object like {EXAMPLE}, not {what_else}"));
        return None;
    };
    let mut found = Vec::new();
    let mut fields = Fields::new(members, &mut found);
    let name = fields.text("secret", SecretName::LEN_MAX);
    let way = fields.word("as", &AS);
    let hosts = hosts(&mut fields, "hosts");
    for name in fields.left() {
        let name = quoted(&name);
        fields.complain(
            &name,
            "there is no such field: there are secret, as and hosts",
        );
    }
    let is_read = found.is_empty();
    complaints.append(&mut found);
    let (Some(name), Some(way)) = (name, way) else {
        if is_read {
            complaints.push(format!("needs secret and as, like {EXAMPLE}"));
        }
        return None;
    };
    let secret = name
        .parse()
        .map_err(|error| complaints.push(format!("secret: {} is no name: {error}", quoted(&name))))
        .ok()?;
    let exposure = match (way, hosts) {
        (As::Placeholder, Some(hosts)) if !hosts.is_empty() => Exposure::Placeholder { hosts },
        (As::Placeholder, _) => {
            if is_read {
                let rule = "hosts: is needed with placeholder: where the secret may be sent to, such as \
                            [\"api.example.org\"]";
                complaints.push(rule.to_owned());
            }
            return None;
        }
        (As::Config | As::Env, Some(_)) => {
            complaints.push("hosts: means something only with as placeholder".to_owned());
            return None;
        }
        (As::Config, None) => Exposure::Config,
        (As::Env, None) => Exposure::Env,
    };
    Some(SecretUse { secret, exposure })
}

fn check_key(
    key: &str,
    exposure: &Exposure,
    env: &BTreeMap<String, String>,
    config: &BTreeMap<String, String>,
    complaints: &mut Vec<String>,
) {
    if key.is_empty() || key.len() > ENTRIES.bytes_max || key.contains(['=', '\0']) {
        let rule = "a name is not empty and has no '=' and no NUL character";
        complaints.push(rule.to_owned());
    }
    let (in_env, in_config) = match exposure {
        Exposure::Config => (false, true),
        Exposure::Env => (true, false),
        // Whichever of the two a function reads.
        Exposure::Placeholder { .. } => (true, true),
    };
    if in_env && OWN_VARIABLES.contains(&key) {
        complaints.push("is set by the plane for every attempt".to_owned());
    }
    if in_env && env.contains_key(key) {
        complaints.push("is in env too: leave one of the two out".to_owned());
    }
    if in_config && config.contains_key(key) {
        complaints.push("is in config too: leave one of the two out".to_owned());
    }
}

/// The secrets of a spec, as they are shown: by name.
pub(super) fn shown_secrets(secrets: &BTreeMap<String, SecretUse>) -> Value {
    let entry = |(key, used): (&String, &SecretUse)| {
        let name = used.secret.as_str();
        let value = match &used.exposure {
            Exposure::Config => json!({ "secret": name, "as": "config" }),
            Exposure::Env => json!({ "secret": name, "as": "env" }),
            Exposure::Placeholder { hosts } => {
                json!({ "secret": name, "as": "placeholder", "hosts": shown_hosts(hosts) })
            }
        };
        (key.clone(), value)
    };
    Value::Object(secrets.iter().map(entry).collect::<Map<_, _>>())
}
