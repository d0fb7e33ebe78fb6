//! Secrets: their names, how a function is given one, and a value that does not print itself.
//!
//! **Invariant:** no value of a secret is ever part of a text that is made for people: it has no `Display`, its
//! `Debug` says nothing, and its memory is overwritten when the last holder is gone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::reach::HostPattern;

/// The name of a secret: a letter, then up to 62 letters, digits, `.`, `_`, `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(Arc<str>);

/// A name was refused; the message says what a name looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a secret's name starts with a letter and has 1 to 63 letters, digits, '.', '_' or '-' in all"
)]
pub struct InvalidSecretName;

impl SecretName {
    /// Longest name, in bytes.
    pub const LEN_MAX: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = InvalidSecretName;

    fn from_str(text: &str) -> Result<Self, InvalidSecretName> {
        let mut bytes = text.bytes();
        let first_is_letter = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
        let rest_fits = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first_is_letter && rest_fits && text.len() <= Self::LEN_MAX {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSecretName)
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretName({})", self.0)
    }
}

/// The value of a secret. Clones share it.
#[derive(Clone)]
pub struct SecretValue(Arc<Zeroizing<String>>);

impl SecretValue {
    /// Takes a value over.
    pub fn new(value: String) -> Self {
        Self(Arc::new(Zeroizing::new(value)))
    }

    /// The value itself: for those who hand it to a guest or put it into a request, and nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// How a function is given a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exposure {
    /// As a value of `wasi:config/store`.
    Config,
    /// As an environment variable.
    Env,
    /// Not at all: the function sees a text made up for the attempt, which is replaced in the headers of its
    /// requests to these hosts.
    Placeholder {
        /// Where the value may go; at least one.
        hosts: Vec<HostPattern>,
    },
}

/// An entry of a spec's `secrets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// Which secret.
    pub secret: SecretName,
    /// How the function is given it.
    pub exposure: Exposure,
}

/// A secret as an attempt is given it.
#[derive(Debug, Clone)]
pub struct OpenSecret {
    /// The name that the function knows it by.
    pub key: Arc<str>,
    /// How it is given.
    pub exposure: Exposure,
    /// What it is.
    pub value: SecretValue,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_does_not_print_itself() {
        let open = OpenSecret {
            key: "KEY".into(),
            exposure: Exposure::Env,
            value: SecretValue::new("hunter2".to_owned()),
        };
        assert_eq!(open.value.expose(), "hunter2");
        assert!(!format!("{open:?} {open:#?}").contains("hunter2"));
    }

    #[test]
    fn names_match_the_pattern_and_nothing_else() {
        for good in ["a", "stripe-live", "DB.url_2", &"x".repeat(63)] {
            assert!(good.parse::<SecretName>().is_ok(), "{good}");
        }
        for bad in ["", "1a", "a b", "a/b", "a:b", "\u{fc}", &"x".repeat(64)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
        }
    }
}
