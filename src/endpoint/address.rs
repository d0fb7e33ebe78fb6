//! Which addresses may be called.
//!
//! **Invariant:** whatever is not plainly public is refused, unless the configuration lists it; an address
//! that carries another one inside (IPv4 in IPv6) is judged by both.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether services on this machine's loopback may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// Pelton itself listens on loopback: whoever reaches it can reach these services anyway.
    Allowed,
    /// Pelton is open to others, whom loopback services do not expect.
    Refused,
}

/// What an address is, where that is a reason not to call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Loopback,
    Private,
    LinkLocal,
    Shared,
    Multicast,
    Unspecified,
    Reserved,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address (cloud metadata services live there)",
            Self::Shared => "an address of a carrier's shared range",
            Self::Multicast => "a multicast address",
            Self::Unspecified => "an unspecified address",
            Self::Reserved => "an address of a reserved range",
        })
    }
}

/// An address was not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{ip} is {special}, which functions may not call: use a public address, or have the operator name the \
     range with --allow-private-range"
)]
pub(super) struct Refused {
    ip: IpAddr,
    special: Special,
}

/// The judge of addresses; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    loopback: Loopback,
    ranges_allowed: Arc<[IpNet]>,
}

impl Addresses {
    pub(super) fn new(loopback: Loopback, ranges_allowed: Vec<IpNet>) -> Self {
        Self {
            loopback,
            ranges_allowed: ranges_allowed.into(),
        }
    }

    /// Whether this address may be called.
    pub(super) fn check(&self, ip: IpAddr) -> Result<(), Refused> {
        let meant = embedded(ip).unwrap_or(ip);
        let is_listed = |ip: IpAddr| self.ranges_allowed.iter().any(|range| range.contains(&ip));
        if is_listed(ip) || is_listed(meant) {
            return Ok(());
        }
        match special(meant) {
            None => Ok(()),
            Some(Special::Loopback) if self.loopback == Loopback::Allowed => Ok(()),
            Some(special) => Err(Refused { ip, special }),
        }
    }

    /// Those of a name's addresses that may be called; the first refusal if there is none.
    pub(super) fn filter(
        &self,
        found: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Refused> {
        let mut allowed = Vec::new();
        let mut refusal = None;
        for address in found {
            match self.check(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(refused) => refusal = refusal.or(Some(refused)),
            }
        }
        match refusal {
            Some(refused) if allowed.is_empty() => Err(refused),
            Some(_) | None => Ok(allowed),
        }
    }
}

/// The address that stands in a URL in place of a name. The parser has turned its odd spellings
/// (decimal, octal, shortened) into the usual one.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// The IPv4 address that packets to this IPv6 address (or a translator on their way) really mean.
fn embedded(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(ip) = ip else { return None };
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0] if ip != Ipv6Addr::LOCALHOST && !ip.is_unspecified() => v4(g, h),
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        [..] => None,
    }
}

fn special(ip: IpAddr) -> Option<Special> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<Special> {
    match ip.octets() {
        [0, ..] => Some(Special::Unspecified),
        [127, ..] => Some(Special::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Special::Private),
        [169, 254, ..] => Some(Special::LinkLocal),
        [100, 64..=127, ..] => Some(Special::Shared),
        [224..=239, ..] => Some(Special::Multicast),
        // Protocol assignments, documentation, 6to4 relays, benchmarking, the future, broadcast.
        [192, 0, 0 | 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [240..=255, ..] => Some(Special::Reserved),
        [..] => None,
    }
}

fn special_v6(ip: Ipv6Addr) -> Option<Special> {
    if ip == Ipv6Addr::LOCALHOST {
        return Some(Special::Loopback);
    }
    if ip.is_unspecified() {
        return Some(Special::Unspecified);
    }
    match ip.segments() {
        [0xfc00..=0xfdff, ..] => Some(Special::Private),
        [0xfe80..=0xfebf, ..] => Some(Special::LinkLocal),
        [0xfec0..=0xfeff, ..] => Some(Special::Private),
        [0xff00..=0xffff, ..] => Some(Special::Multicast),
        // Only 2000::/3 is handed out; within it, Teredo, protocol assignments and documentation.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Some(Special::Reserved),
        [0x2000..=0x3fff, ..] => None,
        [..] => Some(Special::Reserved),
    }
}

/// Resolves names at every connect and gives the client only addresses that were checked, so that what
/// was checked is what is connected to.
#[derive(Debug, Clone)]
pub(super) struct CheckedResolver {
    addresses: Addresses,
}

impl CheckedResolver {
    pub(super) fn new(addresses: Addresses) -> Self {
        Self { addresses }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.addresses.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let checked: Addrs = Box::new(addresses.filter(found)?.into_iter());
            Ok(checked)
        })
    }
}
