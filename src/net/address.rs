//! Which addresses may be called.
//!
//! **Invariant:** whatever is not plainly public is refused, unless the configuration lists it; an address
//! that carries another one inside (IPv4 in IPv6) is judged by both.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

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
enum Special {
    Loopback,
    Private,
    LinkLocal,
    Shared,
    Multicast,
    Unspecified,
    Reserved,
    Platform,
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
            Self::Platform => "a cloud platform's own address for its machines",
        })
    }
}

/// An address was not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{ip} is {special}, which functions may not call: use a public address, or have the operator name the \
     range with --allow-private-range"
)]
pub struct Refused {
    ip: IpAddr,
    special: Special,
}

/// The judge of addresses; cheap to clone.
#[derive(Debug, Clone)]
pub struct Addresses {
    loopback: Loopback,
    ranges_allowed: Arc<[IpNet]>,
}

impl Addresses {
    /// A judge under these rules; `ranges_allowed` may be called although they are special.
    pub fn new(loopback: Loopback, ranges_allowed: Vec<IpNet>) -> Self {
        Self {
            loopback,
            ranges_allowed: ranges_allowed.into(),
        }
    }

    /// The same judge, to whom loopback is refused unless it is among the listed ranges.
    #[must_use]
    pub fn without_loopback(&self) -> Self {
        Self {
            loopback: Loopback::Refused,
            ranges_allowed: Arc::clone(&self.ranges_allowed),
        }
    }

    /// Whether this address may be called.
    ///
    /// # Errors
    /// [`Refused`] says what it is.
    pub fn check(&self, ip: IpAddr) -> Result<(), Refused> {
        let meant = embedded(ip).unwrap_or(ip);
        let is_listed = |ip: IpAddr| self.ranges_allowed.iter().any(|range| range.contains(&ip));
        if is_listed(ip) || is_listed(meant) {
            return Ok(());
        }
        match special(meant) {
            None => Ok(()),
            Some(Special::Loopback)
                if self.loopback == Loopback::Allowed && is_this_machine(ip) =>
            {
                Ok(())
            }
            Some(special) => Err(Refused { ip, special }),
        }
    }

    /// Those of a name's addresses that may be called.
    ///
    /// # Errors
    /// The first refusal, if none may be.
    pub fn filter(
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

/// Whether packets to this address stay on this machine. Those of another form that carries a loopback address go to a
/// translator, if anywhere.
fn is_this_machine(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            let mapped = ip.to_ipv4_mapped();
            ip.is_loopback() || mapped.is_some_and(|ip| ip.is_loopback())
        }
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
        // Public by its number, and answered by the host that a machine at Azure runs on.
        [168, 63, 129, 16] => Some(Special::Platform),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_addresses_are_refused_and_public_ones_are_not() {
        let addresses = Addresses::new(Loopback::Allowed, Vec::new());
        for bad in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "::",
            "168.63.129.16",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "::ffff:0:10.0.0.1",
            // Loopback, of whichever machine translates.
            "64:ff9b::7f00:1",
            "64:ff9b::127.9.9.9",
            "2002:7f00:1::",
            "2002:7f09:909::1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
        ] {
            assert!(addresses.check(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:127.9.9.9",
        ] {
            assert!(addresses.check(good.parse().unwrap()).is_ok(), "{good}");
        }
    }

    #[test]
    fn listed_ranges_are_allowed() {
        let ranges = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()];
        let addresses = Addresses::new(Loopback::Refused, ranges);
        let is_allowed = |ip: &str| addresses.check(ip.parse::<IpAddr>().unwrap()).is_ok();
        assert!(is_allowed("10.1.2.3") && is_allowed("::ffff:10.1.2.3") && is_allowed("fd00::7"));
        assert!(!is_allowed("192.168.0.1") && !is_allowed("fd01::7") && !is_allowed("127.0.0.1"));
    }

    #[test]
    fn of_a_names_addresses_only_checked_ones_are_left() {
        let addresses = Addresses::new(Loopback::Refused, Vec::new());
        let of = |texts: &[&str]| addresses.filter(texts.iter().map(|text| text.parse().unwrap()));
        let public: SocketAddr = "8.8.8.8:0".parse().unwrap();
        assert_eq!(
            of(&["10.0.0.1:0", "8.8.8.8:0", "127.0.0.1:0"]),
            Ok(vec![public])
        );
        let refused = of(&["10.0.0.1:0", "127.0.0.1:0"]).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("10.0.0.1 is a private address"),
            "{refused}"
        );
    }
}
