//! What a function may call: the entries of `allowHosts`, and the one spelling of a host that is taken.
//!
//! A host has many spellings, and who checks one may not be who resolves it: `2130706433`, `0x7f.1` and
//! `127.0.0.1` are one address to some and three names to others. Here only the usual spelling is a host.
//!
//! **Invariant:** two hosts are equal exactly if they are the same name or the same address; what is no host
//! in its usual spelling is none at all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// Longest name of a host, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
/// Longest label of a name, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Under TLS.
    Https,
}

impl Scheme {
    /// The word of URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where a URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A host in its usual spelling: a name in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name to be resolved.
    Name(Arc<str>),
    /// An address.
    Ip(IpAddr),
}

/// Text that is no host in its usual spelling; the message says what one looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Not a name of letters, digits, `-`, `_` and dots.
    #[error(
        "is no host: a name has letters, digits, '-', '_' and dots (other alphabets in their xn-- form)"
    )]
    Name,
    /// Digits that some take for an address.
    #[error("is no address in its usual spelling: write it like 192.0.2.7 or [2001:db8::7]")]
    Address,
}

impl Host {
    /// Whether it names this machine by its spelling alone: `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name.rsplit('.').next() == Some("localhost"),
            Self::Ip(ip) => ip.is_loopback(),
        }
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(InvalidHost::Address)?;
            let ip = inner.parse::<Ipv6Addr>();
            return ip
                .map(|ip| Self::Ip(ip.into()))
                .map_err(|_| InvalidHost::Address);
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        if is_number(last) {
            return Err(InvalidHost::Address);
        }
        let is_label = |label: &str| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if text.len() > NAME_BYTES_MAX || !text.split('.').all(is_label) {
            return Err(InvalidHost::Name);
        }
        Ok(Self::Name(text.to_ascii_lowercase().into()))
    }
}

/// Whether resolvers take a name that ends in this label for an address: decimal, octal or hexadecimal digits.
fn is_number(label: &str) -> bool {
    let digits = |text: &str, is_digit: fn(&u8) -> bool| text.as_bytes().iter().all(is_digit);
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(hex) => digits(hex, u8::is_ascii_hexdigit),
        None => !label.is_empty() && digits(label, u8::is_ascii_digit),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Where a request goes: what `allowHosts` is asked about, and what connections are kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// How.
    pub scheme: Scheme,
    /// To whom.
    pub host: Host,
    /// Where.
    pub port: u16,
}

impl Origin {
    /// Host and port as the `Host` header has them: the scheme's own port is left out.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

fn show_port(f: &mut fmt::Formatter<'_>, scheme: Scheme, port: u16) -> fmt::Result {
    if port == scheme.default_port() {
        return Ok(());
    }
    write!(f, ":{port}")
}

/// An entry of `allowHosts`: `[scheme://]host[:port]`. Without a scheme it is https, without a port the
/// scheme's own. The host may begin with `*.` (every name below it) or be `*` (every host).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPattern {
    scheme: Scheme,
    hosts: Hosts,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Hosts {
    /// Every one.
    All,
    /// Every name that ends in a dot and this.
    Below(Arc<str>),
    /// This one.
    One(Host),
}

/// Text that is no entry of `allowHosts`; the message stands after the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHostPattern {
    /// Another scheme.
    #[error("has a scheme other than http and https")]
    Scheme,
    /// `user@`.
    #[error("has credentials: leave them out")]
    Credentials,
    /// Anything behind the port.
    #[error("has a path or query: an entry is [scheme://]host[:port]")]
    Path,
    /// Not 1 to 65535.
    #[error("has no port from 1 to 65535 after its colon")]
    Port,
    /// `*` elsewhere than in front.
    #[error("has a * elsewhere than at the beginning: write *.example.org, or * for every host")]
    Wildcard,
    /// An IPv6 address without brackets.
    #[error("has an IPv6 address without brackets: write it like [2001:db8::7]")]
    Brackets,
    /// See [`InvalidHost`].
    #[error(transparent)]
    Host(InvalidHost),
}

impl HostPattern {
    /// Whether a request may go there as far as this entry is concerned.
    pub fn matches(&self, origin: &Origin) -> bool {
        self.scheme == origin.scheme && self.port == origin.port && self.hosts.contain(&origin.host)
    }

    /// Whether there is a request that both entries allow.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.port == other.port && self.hosts.overlap(&other.hosts)
    }
}

impl Hosts {
    fn contain(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::One(one), host) => one == host,
            (Self::Below(parent), Host::Name(name)) => name
                .strip_suffix(&**parent)
                .is_some_and(|rest| rest.ends_with('.')),
            (Self::Below(_), Host::Ip(_)) => false,
        }
    }

    fn overlap(&self, other: &Self) -> bool {
        let is_below = |name: &str, parent: &str| {
            let rest = name.strip_suffix(parent);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (hosts, Self::One(host)) | (Self::One(host), hosts) => hosts.contain(host),
            // What is below the longer of two names is below the shorter, if anything is below both.
            (Self::Below(a), Self::Below(b)) => is_below(a, b) || is_below(b, a),
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, InvalidHostPattern> {
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Https, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some(_) => return Err(InvalidHostPattern::Scheme),
        };
        if rest.contains('@') {
            return Err(InvalidHostPattern::Credentials);
        }
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(InvalidHostPattern::Path);
        }
        let (host, port) = split_port(rest)?;
        let hosts = match host.strip_prefix('*') {
            Some("") => Hosts::All,
            Some(below) => {
                let below = below
                    .strip_prefix('.')
                    .ok_or(InvalidHostPattern::Wildcard)?;
                match parse_host(below)? {
                    Host::Name(name) => Hosts::Below(name),
                    Host::Ip(_) => return Err(InvalidHostPattern::Wildcard),
                }
            }
            None => Hosts::One(parse_host(host)?),
        };
        Ok(Self {
            scheme,
            hosts,
            port: port.unwrap_or(scheme.default_port()),
        })
    }
}

fn parse_host(text: &str) -> Result<Host, InvalidHostPattern> {
    if text.contains('*') {
        return Err(InvalidHostPattern::Wildcard);
    }
    text.parse().map_err(InvalidHostPattern::Host)
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), InvalidHostPattern> {
    let end_of_host = text.find(']').map_or(0, |at| at + 1);
    let Some(colon) = text[end_of_host..].find(':') else {
        return Ok((text, None));
    };
    let (host, port) = text.split_at(end_of_host + colon);
    let port = &port[1..];
    if port.contains(':') {
        return Err(InvalidHostPattern::Brackets);
    }
    let is_number = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port) if port > 0 && is_number => Ok((host, Some(port))),
        Ok(_) | Err(_) => Err(InvalidHostPattern::Port),
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        match &self.hosts {
            Hosts::All => f.write_str("*")?,
            Hosts::Below(name) => write!(f, "*.{name}")?,
            Hosts::One(host) => host.fmt(f)?,
        }
        show_port(f, self.scheme, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse()
            .unwrap_or_else(|error| panic!("{text} {error}"))
    }

    fn origin(text: &str) -> Origin {
        let HostPattern {
            scheme,
            hosts: Hosts::One(host),
            port,
        } = pattern(text)
        else {
            panic!("{text} is no single origin");
        };
        Origin { scheme, host, port }
    }

    #[test]
    fn entries_read_what_they_print() {
        for (text, printed) in [
            ("example.org", "https://example.org"),
            ("Example.ORG", "https://example.org"),
            ("example.org:443", "https://example.org"),
            ("example.org:8443", "https://example.org:8443"),
            ("HTTP://example.org", "http://example.org"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("*.example.org", "https://*.example.org"),
            ("http://*", "http://*"),
            ("*:8443", "https://*:8443"),
            ("192.0.2.7", "https://192.0.2.7"),
            ("[2001:DB8:0::7]:1", "https://[2001:db8::7]:1"),
            ("under_score.internal", "https://under_score.internal"),
            ("xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(pattern(text).to_string(), printed);
            assert_eq!(pattern(printed), pattern(text));
        }
    }

    #[test]
    fn what_is_no_entry_is_told_why() {
        use InvalidHostPattern as Why;
        let address = Why::Host(InvalidHost::Address);
        let name = Why::Host(InvalidHost::Name);
        for (text, why) in [
            ("ftp://example.org", Why::Scheme),
            ("://example.org", Why::Scheme),
            ("https://user@example.org", Why::Credentials),
            ("https://example.org/", Why::Path),
            ("example.org/a", Why::Path),
            ("example.org?a", Why::Path),
            ("example.org#a", Why::Path),
            ("example.org\\a", Why::Path),
            ("example.org:", Why::Port),
            ("example.org:0", Why::Port),
            ("example.org:65536", Why::Port),
            ("example.org:+80", Why::Port),
            ("example.org:http", Why::Port),
            ("::1", Why::Brackets),
            ("2001:db8::7", Why::Brackets),
            ("*example.org", Why::Wildcard),
            ("a.*.example.org", Why::Wildcard),
            ("*.*.example.org", Why::Wildcard),
            ("*.192.0.2.7", Why::Wildcard),
            ("[::1", Why::Brackets),
            ("[fe80::1%eth0]", address),
            ("[127.0.0.1]", address),
            ("2130706433", address),
            ("0x7f.1", address),
            ("127.1", address),
            ("0177.0.0.1", address),
            ("127.0.0.0x1", address),
            ("1.2.3.4.5", address),
            ("256.1.1.1", address),
            ("", name),
            (" example.org", name),
            ("example..org", name),
            ("example.org.", name),
            (".org", name),
            ("b\u{fc}cher.example", name),
            ("ex%61mple.org", name),
        ] {
            assert_eq!(text.parse::<HostPattern>(), Err(why), "{text:?}");
        }
        let long = format!("{}.org", "a".repeat(64));
        assert_eq!(long.parse::<Host>(), Err(InvalidHost::Name));
        let long = format!("{}org", "a.".repeat(126));
        assert_eq!(long.parse::<Host>(), Err(InvalidHost::Name));
    }

    #[test]
    fn an_entry_allows_its_scheme_host_and_port_and_nothing_else() {
        let allows = |entry: &str, to: &str| pattern(entry).matches(&origin(to));
        assert!(allows("example.org", "https://example.org"));
        assert!(allows("EXAMPLE.org:443", "https://example.org"));
        assert!(!allows("example.org", "http://example.org"));
        assert!(!allows("example.org", "http://example.org:443"));
        assert!(!allows("example.org", "https://example.org:8443"));
        assert!(!allows("example.org", "https://www.example.org"));
        assert!(!allows("example.org", "https://example.org.evil.example"));
        assert!(allows("*.example.org", "https://www.example.org"));
        assert!(allows("*.example.org", "https://a.b.example.org"));
        assert!(!allows("*.example.org", "https://example.org"));
        assert!(!allows("*.example.org", "https://evilexample.org"));
        assert!(allows("*", "https://192.0.2.7"));
        assert!(!allows("*", "http://192.0.2.7"));
        assert!(allows("[::1]", "https://[0:0::1]"));
        assert!(!allows("127.0.0.1", "https://[::ffff:127.0.0.1]"));
    }

    #[test]
    fn entries_overlap_where_one_request_is_allowed_by_both() {
        for (a, b, overlap) in [
            ("example.org", "https://EXAMPLE.org:443", true),
            ("example.org", "http://example.org", false),
            ("example.org", "http://example.org:443", false),
            ("example.org", "example.org:8443", false),
            ("example.org", "www.example.org", false),
            ("*", "example.org", true),
            ("*", "*.example.org", true),
            ("*", "*", true),
            ("*", "http://*", false),
            ("*:8443", "example.org", false),
            ("*", "[::1]", true),
            ("*.example.org", "www.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "evilexample.org", false),
            ("*.example.org", "192.0.2.7", false),
            ("*.example.org", "*.a.example.org", true),
            ("*.example.org", "*.example.org", true),
            ("*.example.org", "*.evilexample.org", false),
            ("*.example.org", "*.example.com", false),
            ("*.example.org", "*.org", true),
        ] {
            assert_eq!(pattern(a).overlaps(&pattern(b)), overlap, "{a} {b}");
            assert_eq!(pattern(b).overlaps(&pattern(a)), overlap, "{b} {a}");
        }
    }

    #[test]
    fn loopback_is_told_by_its_spelling() {
        let is_loopback = |text: &str| text.parse::<Host>().unwrap().is_loopback();
        for text in ["localhost", "a.LOCALHOST", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(text), "{text}");
        }
        for text in ["localhost.example", "notlocalhost", "10.0.0.1", "[::2]"] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
