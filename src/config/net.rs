//! Addresses, host names and ranges as they are typed.
//!
//! **Invariant:** resolves no name and opens no socket: the same text always means the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

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

/// Reads the range of `--allow-private-range`; see [`range`].
///
/// # Errors
/// A sentence for whoever typed it.
pub(super) fn private_range(text: &str) -> Result<IpNet, String> {
    range("allow-private-range", text)
}

/// Reads the range of `--trust-proxy`; see [`range`].
///
/// # Errors
/// A sentence for whoever typed it.
pub(super) fn proxy_range(text: &str) -> Result<IpNet, String> {
    range("trust-proxy", text)
}

/// Reads a range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address alone.
fn range(flag: &str, text: &str) -> Result<IpNet, String> {
    let complaint =
        |why: &str| format!("--{flag} {text:?} {why}: write it like 10.0.0.0/8 or fd00::/8");
    let range: IpNet = text
        .parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| complaint("is no range of addresses"))?;
    // Whoever writes 10.1.2.3/8 may mean one address or sixteen million.
    if range != range.trunc() {
        return Err(complaint("has bits set beyond its prefix"));
    }
    Ok(range)
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
            private_range("10.0.0.0/8").unwrap().to_string(),
            "10.0.0.0/8"
        );
        assert_eq!(private_range("fd00::1").unwrap().prefix_len(), 128);
        assert!(private_range("0.0.0.0/0").is_ok());
        assert!(private_range("::/0").is_ok());
        for wrong in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "ten/8",
            "fd00::/129",
            "10.0.0.0/",
            "::1/0",
        ] {
            assert!(private_range(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
