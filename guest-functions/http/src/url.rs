//! An address on the web, as far as a request needs it.
//!
//! **Invariant:** a [`Url`] has a scheme that can be asked, a host, no user and no fragment.

use std::fmt;

/// An absolute `http` or `https` address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// Whether the connection is encrypted.
    pub is_https: bool,
    /// Host and port, in lower case.
    pub authority: String,
    /// Path and query; begins with `/`.
    pub target: String,
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("not an absolute address")?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("neither http nor https"),
        };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("characters that have to be percent-encoded");
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err("a user or password in it");
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err("no host");
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            is_https,
            authority: authority.to_ascii_lowercase(),
            target: format!("{slash}{target}"),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written() {
        for (text, written) in [
            ("HTTP://Example.COM", "http://example.com/"),
            ("https://a:8443/B?c=d#e", "https://a:8443/B?c=d"),
            ("http://[::1]:80?q", "http://[::1]:80/?q"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_the_reason() {
        for (text, reason) in [
            ("/relative", "absolute"),
            ("ftp://a/b", "neither"),
            ("http://user:pass@a/", "password"),
            ("http:///a", "host"),
            ("http://:80/", "host"),
            ("http://a/b c", "percent-encoded"),
            ("http://a/ü", "percent-encoded"),
        ] {
            let said = Url::parse(text).unwrap_err();
            assert!(said.contains(reason), "{text}: {said}");
        }
    }
}
