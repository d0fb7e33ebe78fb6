//! What the plane is told: flags and variables as they were typed ([`Options`]), and what they mean ([`Config`]).
//!
//! A `Config` is made from `Options` in one go, before any port opens or any file is touched, and every
//! complaint comes at once.
//!
//! **Invariant:** whoever holds a [`Config`] need not check it again.

pub mod env;
mod limits;
mod net;
mod options;
mod secrets;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::secrets::Key;

pub use limits::{Bound, Limits};
pub use options::{LogFormat, LogOptions, Options, RuntimeConfigWhen};
pub use secrets::exposed_key_file;

/// A day: how long a key is remembered unless the retention is longer.
const DAY_MS: u64 = 86_400_000;
/// The longest time that a key may be remembered: as long as an execution may be kept.
const IDEMPOTENCY_TTL_MS: std::ops::RangeInclusive<u64> = 1000..=315_360_000_000;

/// Who moves work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatching {
    /// The plane, as soon as there is work and a free slot.
    Automatic,
    /// Only drains by hand.
    Manual,
}

/// Something that is done, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl Switch {
    fn on_if(yes: bool) -> Self {
        match yes {
            true => Self::On,
            false => Self::Off,
        }
    }
}

/// What a plane is built from: checked, complete.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the API.
    pub listen: SocketAddr,
    /// Address for health and metrics alone.
    pub management_listen: SocketAddr,
    /// Folder of everything that is kept.
    pub data_dir: PathBuf,
    /// Who moves work.
    pub dispatching: Dispatching,
    /// Names that requests may carry as `Host`, beside loopback and the listen address; lower case, no port.
    pub allowed_hosts: Vec<String>,
    /// Private ranges that functions may call and POOL functions may live in.
    pub private_ranges: Vec<IpNet>,
    /// Reverse proxies that functions may believe about their callers, beside those on this machine.
    pub trusted_proxies: Vec<IpNet>,
    /// What secrets are encrypted with, if there may be any.
    pub secrets_key: Option<Key>,
    /// What they were encrypted with before, if they are to be encrypted anew.
    pub secrets_old_key: Option<Key>,
    /// What is taken as it is and should be otherwise, for the log.
    pub warnings: Vec<String>,
    /// Whether the runtime config can be seen and changed over HTTP.
    pub runtime_config: Switch,
    /// Whether the bounds of synchronous calls hold, until an operator says otherwise.
    pub sync_queue: Switch,
    /// Whether one of them, the estimate, does.
    pub sync_queue_admission: Switch,
    /// How long an idempotency key is remembered, in ms.
    pub idempotency_ttl_ms: u64,
    /// All other limits, each within its range.
    pub limits: Limits,
    /// For crash tests: see [`Options::test_abort_on`].
    #[cfg(debug_assertions)]
    pub test_abort_on: Option<String>,
    /// For crash tests: see [`Options::test_panic_on`].
    #[cfg(debug_assertions)]
    pub test_panic_on: Option<String>,
}

/// Everything that is wrong with what was typed, a sentence each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Complaints(pub Vec<String>);

impl TryFrom<Options> for Config {
    type Error = Complaints;

    fn try_from(typed: Options) -> Result<Self, Complaints> {
        let mut check = Check::default();
        let listen = check.take(net::listen_address("listen", &typed.listen));
        let management_listen = check.take(net::listen_address(
            "management-listen",
            &typed.management_listen,
        ));
        if !typed.insecure {
            check.refuse_others("listen", listen);
            check.refuse_others("management-listen", management_listen);
        }
        if let (Some(api), Some(management)) = (listen, management_listen)
            && api == management
            && api.port() != 0
        {
            check.complain(format!(
                "--listen and --management-listen are both {api}: give one of them another port"
            ));
        }
        if typed.data_dir.as_os_str().is_empty() {
            check.complain("--data-dir is empty: name a folder".to_owned());
        }
        let allowed_hosts = check.take_all(&typed.allow_host, net::host_name);
        let private_ranges = check.take_all(&typed.allow_private_range, net::private_range);
        let trusted_proxies = check.take_all(&typed.trust_proxy, net::proxy_range);
        check.complaints.extend(typed.limits.complaints());
        let secrets = check.take(secrets::keys(&typed)).unwrap_or_default();
        let warnings = secrets::warnings(&typed);
        let idempotency_ttl_ms = check.idempotency_ttl_ms(&typed);
        let complaints = Complaints(check.complaints);
        match (listen, management_listen) {
            (Some(listen), Some(management_listen)) if complaints.0.is_empty() => Ok(Self {
                listen,
                management_listen,
                data_dir: typed.data_dir,
                dispatching: match typed.manual {
                    true => Dispatching::Manual,
                    false => Dispatching::Automatic,
                },
                allowed_hosts,
                private_ranges,
                trusted_proxies,
                secrets_key: secrets.key,
                secrets_old_key: secrets.old,
                warnings,
                runtime_config: Switch::on_if(match typed.runtime_config {
                    RuntimeConfigWhen::Auto => listen.ip().is_loopback(),
                    RuntimeConfigWhen::On => true,
                    RuntimeConfigWhen::Off => false,
                }),
                sync_queue: Switch::on_if(!typed.no_sync_queue),
                sync_queue_admission: Switch::on_if(!typed.no_sync_queue_admission),
                idempotency_ttl_ms,
                limits: typed.limits,
                #[cfg(debug_assertions)]
                test_abort_on: typed.test_abort_on,
                #[cfg(debug_assertions)]
                test_panic_on: typed.test_panic_on,
            }),
            _ => Err(complaints),
        }
    }
}

/// Collects complaints while values are read.
#[derive(Default)]
struct Check {
    complaints: Vec<String>,
}

impl Check {
    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    fn take<T>(&mut self, read: Result<T, String>) -> Option<T> {
        read.map_err(|complaint| self.complain(complaint)).ok()
    }

    fn take_all<T>(&mut self, texts: &[String], read: fn(&str) -> Result<T, String>) -> Vec<T> {
        texts
            .iter()
            .filter_map(|text| self.take(read(text.trim())))
            .collect()
    }

    fn refuse_others(&mut self, flag: &str, address: Option<SocketAddr>) {
        let Some(address) = address.filter(|address| !address.ip().is_loopback()) else {
            return;
        };
        self.complain(format!(
            "--{flag} {address} can be reached from other machines, and Pelton checks no credentials yet: \
             whoever reaches it may deploy code and read every result. Listen on loopback behind a reverse \
             proxy that ends TLS, authenticates every request, passes the Host of a name given with \
             --allow-host and keeps /v1/internal, /v1/admin and /actuator to itself; or say --insecure if \
             the network itself keeps others out"
        ));
    }

    fn idempotency_ttl_ms(&mut self, typed: &Options) -> u64 {
        let retention_ms = typed.limits.retention_ms;
        let Some(ttl_ms) = typed.idempotency_ttl_ms else {
            return retention_ms.max(DAY_MS);
        };
        if !IDEMPOTENCY_TTL_MS.contains(&ttl_ms) {
            let flag = "idempotency-ttl-ms";
            self.complain(limits::out_of_range(flag, ttl_ms, &IDEMPOTENCY_TTL_MS));
        } else if ttl_ms < retention_ms {
            self.complain(format!(
                "--idempotency-ttl-ms {ttl_ms} is shorter than --retention-ms {retention_ms}: a key must \
                 live as long as the execution that it names"
            ));
        }
        ttl_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn complaints(options: Options) -> Vec<String> {
        Config::try_from(options).expect_err("was taken").0
    }

    #[test]
    fn the_defaults_are_in_order() {
        let config = Config::try_from(Options::default()).unwrap();
        assert_eq!(config.dispatching, Dispatching::Automatic);
        assert_eq!(config.idempotency_ttl_ms, config.limits.retention_ms);
    }

    #[test]
    fn every_default_is_within_its_own_range() {
        for bound in Limits::bounds() {
            assert!(bound.range.contains(&bound.default), "{bound:?}");
        }
    }

    #[test]
    fn all_complaints_come_at_once() {
        let mut options = Options {
            listen: "nowhere".to_owned(),
            management_listen: "0.0.0.0:1".to_owned(),
            data_dir: PathBuf::new(),
            allow_host: vec!["http://x".to_owned(), "fine.example".to_owned()],
            allow_private_range: vec!["10.1.2.3/8".to_owned()],
            trust_proxy: vec!["proxy.example".to_owned()],
            idempotency_ttl_ms: Some(1),
            ..Options::default()
        };
        options.limits.guests_max = 0;
        options.limits.retention_ms = 1;
        let complaints = complaints(options);
        let expected = [
            "--listen \"nowhere\"",
            "--management-listen 0.0.0.0:1 can be reached",
            "--data-dir is empty",
            "--allow-host \"http://x\"",
            "--allow-private-range \"10.1.2.3/8\"",
            "--trust-proxy \"proxy.example\"",
            "--guests-max 0 is out of range: it may be 1 to 4096",
            "--retention-ms 1 is out of range",
            "--idempotency-ttl-ms 1 is out of range",
        ];
        assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
        for (complaint, start) in complaints.iter().zip(expected) {
            assert!(complaint.starts_with(start), "{complaint}");
        }
    }

    #[test]
    fn others_are_let_in_only_if_somebody_insists() {
        let mut options = Options {
            listen: "0.0.0.0:0".to_owned(),
            ..Options::default()
        };
        let refusal = complaints(options.clone());
        assert!(refusal[0].contains("reverse proxy"), "{refusal:?}");
        options.insecure = true;
        assert!(Config::try_from(options).is_ok());
    }

    #[test]
    fn the_runtime_config_is_there_on_loopback_unless_somebody_says_otherwise() {
        for (listen, when, expected) in [
            ("127.0.0.1:0", RuntimeConfigWhen::Auto, Switch::On),
            ("127.0.0.1:0", RuntimeConfigWhen::Off, Switch::Off),
            ("0.0.0.0:0", RuntimeConfigWhen::Auto, Switch::Off),
            ("0.0.0.0:0", RuntimeConfigWhen::On, Switch::On),
        ] {
            let config = Config::try_from(Options {
                listen: listen.to_owned(),
                insecure: true,
                runtime_config: when,
                ..Options::default()
            });
            assert_eq!(
                config.unwrap().runtime_config,
                expected,
                "{listen} {when:?}"
            );
        }
    }

    #[test]
    fn a_key_lives_as_long_as_what_it_names() {
        let mut options = Options {
            idempotency_ttl_ms: Some(DAY_MS),
            ..Options::default()
        };
        assert!(complaints(options.clone())[0].contains("shorter than --retention-ms"));
        options.limits.retention_ms = 1000;
        let config = Config::try_from(options.clone()).unwrap();
        assert_eq!(config.idempotency_ttl_ms, DAY_MS);
        options.idempotency_ttl_ms = None;
        let config = Config::try_from(options).unwrap();
        assert_eq!(config.idempotency_ttl_ms, DAY_MS);
    }

    #[test]
    fn two_listeners_do_not_share_a_port() {
        let options = Options {
            management_listen: "127.0.0.1:8080".to_owned(),
            ..Options::default()
        };
        assert!(complaints(options)[0].contains("another port"));
    }
}
