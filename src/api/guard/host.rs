//! Which hosts are this server.
//!
//! **Invariant:** what does not parse strictly is nobody's: no octal addresses, no user names, no odd ports.

use std::net::{IpAddr, SocketAddr};

/// The names under which this server answers, beside the loopback ones.
#[derive(Debug)]
pub(in crate::api) struct Hosts {
    listen: Vec<IpAddr>,
    allowed: Vec<(Host, Option<u16>)>,
}

/// One host as it was written, made comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// Lower case, no final dot.
    Name(String),
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }
}

impl Hosts {
    /// Loopback, the addresses of `listen`, and what `allowed` says as `name`, `name:port` or an IPv6
    /// address. An allowed host that does not parse is logged and left out.
    pub(in crate::api) fn new(listen: &[SocketAddr], allowed: &[String]) -> Self {
        let parsed = allowed.iter().filter_map(|text| {
            let host = parse(text).or_else(|| bare_address(text));
            if host.is_none() {
                tracing::warn!(
                    host = text,
                    "this allowed host cannot be read and is left out"
                );
            }
            host
        });
        Self {
            listen: listen
                .iter()
                .map(|address| address.ip().to_canonical())
                .collect(),
            allowed: parsed.collect(),
        }
    }

    /// Whether a request for this `host[:port]` is one for us.
    pub(in crate::api) fn answers(&self, authority: &str) -> bool {
        // What nearly every request says, without making anything of it.
        let port = ["localhost", "127.0.0.1"].into_iter();
        let port = port.filter_map(|host| authority.strip_prefix(host)).next();
        if port.is_some_and(|port| {
            port.is_empty() || port.strip_prefix(':').and_then(parse_port).is_some()
        }) {
            return true;
        }
        let Some((host, port)) = parse(authority) else {
            return false;
        };
        let listened = matches!(&host, Host::Address(address) if self.listen.contains(address));
        host.is_loopback() || listened || self.allows(&host, port)
    }

    /// The name that a request for this `host[:port]` asks for, comparable; none where that is an address, or
    /// cannot be read.
    pub(in crate::api) fn name_in(authority: &str) -> Option<String> {
        match parse(authority)? {
            (Host::Name(name), _) => Some(name),
            (Host::Address(_), _) => None,
        }
    }

    /// Whether a page from `origin` may make a request for `authority`: one that came from there, or one
    /// of a host that the configuration names.
    pub(super) fn admits_origin(&self, origin: &str, authority: Option<&str>) -> bool {
        let (rest, default_port) = match origin.split_once("://") {
            Some(("http", rest)) => (rest, 80),
            Some(("https", rest)) => (rest, 443),
            _ => return false,
        };
        let Some((host, port)) = parse(rest) else {
            return false;
        };
        if self.allows(&host, port) {
            return true;
        }
        let Some((own_host, own_port)) = authority.and_then(parse) else {
            return false;
        };
        host == own_host && port.unwrap_or(default_port) == own_port.unwrap_or(default_port)
    }

    fn allows(&self, host: &Host, port: Option<u16>) -> bool {
        self.allowed.iter().any(|(allowed, allowed_port)| {
            allowed == host && (allowed_port.is_none() || *allowed_port == port)
        })
    }
}

/// Takes `host[:port]` apart.
fn parse(authority: &str) -> Option<(Host, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        return Some((Host::Address(address.to_canonical()), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (authority, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(is_name) {
        return None;
    }
    let host = match host.parse::<IpAddr>() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(host.to_ascii_lowercase()),
    };
    Some((host, port))
}

/// An IPv6 address without the brackets that a `Host` puts around it.
fn bare_address(text: &str) -> Option<(Host, Option<u16>)> {
    let address: std::net::Ipv6Addr = text.parse().ok()?;
    Some((Host::Address(address.to_canonical()), None))
}

/// Digits only: `parse` would take a sign too.
fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_allowed_host_that_cannot_be_read_allows_nothing() {
        let hosts = Hosts::new(&[], &["http://x".to_owned(), "*".to_owned()]);
        assert!(hosts.allowed.is_empty());
        assert!(!hosts.answers("x"));
    }

    #[test]
    fn an_allowed_address_needs_no_brackets() {
        let hosts = Hosts::new(&[], &["fd00::1".to_owned()]);
        assert!(hosts.answers("[fd00::1]:8080"));
        assert!(!hosts.answers("[fd00::2]:8080"));
        // In a request it does: without them nobody knows where the port begins.
        assert!(!hosts.answers("fd00::1"));
    }

    proptest! {
        #[test]
        fn only_known_hosts_are_answered(authority in "[a-z0-9.:\\[\\]@%-]{0,24}") {
            let hosts = Hosts::new(&[], &[]);
            if hosts.answers(&authority) {
                let (host, _) = parse(&authority).unwrap();
                prop_assert!(host.is_loopback());
            }
        }

        #[test]
        fn any_text_can_be_asked_about(authority in ".*", origin in ".*") {
            let hosts = Hosts::new(&[], std::slice::from_ref(&authority));
            let _ = hosts.answers(&authority);
            let _ = hosts.admits_origin(&origin, Some(&authority));
        }
    }
}
