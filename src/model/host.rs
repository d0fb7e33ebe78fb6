//! Names of hosts that functions may own.
//!
//! **Invariant:** every value is a host name in lower case that is nobody's address and never means this machine.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A host name in lower case, as `shop.example.org`: no port, no address, not `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// A host name was refused; the message says what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a host name is written in lower case without scheme and port, as in shop.example.org; addresses and \
     localhost are this server's own"
)]
pub struct InvalidHostName;

impl HostName {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 253;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        // What ends in digits is read as an address by browsers, in decimal, octal or hexadecimal.
        let like_an_address = last.starts_with(|c: char| c.is_ascii_digit());
        if text.len() <= Self::LEN_MAX
            && text.split('.').all(is_label)
            && !like_an_address
            && last != "localhost"
        {
            Ok(Self(text.into()))
        } else {
            Err(InvalidHostName)
        }
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_all_else_is_not() {
        for name in [
            "shop.example.org",
            "a",
            "xn--bcher-kva.example",
            "1.example",
        ] {
            assert_eq!(name.parse::<HostName>().unwrap().as_str(), name);
        }
        let long = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(63),
        ]
        .join(".");
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "Shop.example",
            "shop.example:80",
            "http://shop",
            "-a.b",
            "a-.b",
            "a_b.c",
            "localhost",
            "x.localhost",
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "example.0x7f",
            "[::1]",
            "::1",
            "bücher.example",
            "a b",
            "*.example",
            &long,
        ] {
            assert!(name.parse::<HostName>().is_err(), "{name:?} was taken");
        }
    }
}
