//! Addresses, host names and ranges as they are typed.
//!
//! **Invariant:** resolves no name and opens no socket: the same text always means the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A range of addresses: all that share the first `prefix_bits` bits of `network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The lowest address of the range.
    pub network: IpAddr,
    /// How many leading bits count.
    pub prefix_bits: u8,
}

/// Reads an address to listen on: `IP:PORT`, `[IPv6]:PORT` or `localhost:PORT`.
///
/// # Errors
/// A sentence for whoever typed it.
pub(super) fn listen_address(flag: &str, text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:")
        && let Ok(port) = port.parse()
    {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        format!(
            "--{flag} {text:?} is no address: write IP:PORT, as in 127.0.0.1:8080 or [::1]:8080"
        )
    })
}

/// Reads a host name or address as a `Host` header may carry it, without a port, in lower case.
///
/// # Errors
/// A sentence for whoever typed it.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(bare.to_ascii_lowercase());
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "--allow-host {text:?} is no host name: write it without scheme and port, as in pelton.example.org"
    ))
}

/// Reads a range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address alone.
///
/// # Errors
/// A sentence for whoever typed it.
pub(super) fn range(text: &str) -> Result<Range, String> {
    let complaint = |why: &str| {
        format!("--allow-private-range {text:?} {why}: write it like 10.0.0.0/8 or fd00::/8")
    };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let network: IpAddr = address
        .parse()
        .map_err(|_| complaint("does not begin with an address"))?;
    let width: u8 = if network.is_ipv4() { 32 } else { 128 };
    let prefix_bits = match bits {
        None => width,
        Some(bits) => bits
            .parse()
            .ok()
            .filter(|bits| *bits <= width)
            .ok_or_else(|| complaint(&format!("needs a prefix of 0 to {width} bits")))?,
    };
    let range = Range {
        network,
        prefix_bits,
    };
    if range.has_host_bits() {
        return Err(complaint("has bits set beyond its prefix"));
    }
    Ok(range)
}

impl Range {
    fn has_host_bits(&self) -> bool {
        let (bits, width) = match self.network {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32_u32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let host_bits = width.saturating_sub(u32::from(self.prefix_bits));
        let mask = 1_u128
            .checked_shl(host_bits)
            .map_or(u128::MAX, |high| high - 1);
        bits & mask != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_usually_written() {
        let read = |text| listen_address("listen", text).map(|address| address.to_string());
        assert_eq!(read("localhost:0").unwrap(), "127.0.0.1:0");
        assert_eq!(read("[::1]:80").unwrap(), "[::1]:80");
        assert!(read("8080").unwrap_err().contains("IP:PORT"));
        assert!(read("localhost:99999").is_err());
    }

    #[test]
    fn host_names_come_without_scheme_and_port() {
        assert_eq!(host_name("Plane.Example.org").unwrap(), "plane.example.org");
        assert_eq!(host_name("[FD00::1]").unwrap(), "fd00::1");
        for wrong in ["http://x", "x:80", "", "a..b", "a b"] {
            assert!(host_name(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn ranges_have_a_prefix_that_fits_and_nothing_behind_it() {
        assert_eq!(
            range("10.0.0.0/8").unwrap(),
            Range {
                network: "10.0.0.0".parse().unwrap(),
                prefix_bits: 8
            }
        );
        assert_eq!(range("fd00::1").unwrap().prefix_bits, 128);
        assert!(range("0.0.0.0/0").is_ok());
        assert!(range("::/0").is_ok());
        for wrong in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "ten/8",
            "fd00::/129",
            "10.0.0.0/",
            "::1/0",
        ] {
            assert!(range(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
