//! Texts that stand for secrets: a guest puts one into a header, and the secret leaves in its place.
//!
//! **Invariant:** the secret stands only in headers of requests to its own hosts, and there it is marked as
//! sensitive, so that nobody prints it by accident.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use http::header::{HeaderMap, HeaderValue};

use crate::model::{HostPattern, Origin, SecretValue};

/// What every placeholder begins with, so that one is recognised where it went astray.
const PREFIX: &str = "pelton-secret-";

/// A text that stands for a secret during one attempt.
#[derive(Clone)]
pub struct Placeholder {
    key: Arc<str>,
    text: String,
    value: SecretValue,
    hosts: Vec<HostPattern>,
}

impl fmt::Debug for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Placeholder({})", self.key)
    }
}

/// What became of the placeholders in a request's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replaced {
    /// Each was replaced, or there was none.
    InOrder,
    /// There is one, and the request goes elsewhere than to these hosts.
    WrongHost(String),
    /// The secret cannot stand in a header.
    NoHeaderValue,
}

impl Placeholder {
    /// A placeholder that nobody can guess, for the secret that the function knows by `key`.
    pub fn new(key: Arc<str>, value: SecretValue, hosts: Vec<HostPattern>) -> Self {
        let random: u128 = rand::random();
        Self {
            key,
            text: format!("{PREFIX}{random:032x}"),
            value,
            hosts,
        }
    }

    /// The name that the function knows the secret by.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the function sees.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a URL carries it, where it stays as it is.
    pub(super) fn is_in(&self, uri: &Uri) -> bool {
        uri.path_and_query()
            .is_some_and(|path| path.as_str().contains(&self.text))
    }

    /// Puts the secret in its place.
    pub(super) fn replace_in(&self, headers: &mut HeaderMap, origin: &Origin) -> Replaced {
        let carries = |value: &HeaderValue| {
            let text = self.text.as_bytes();
            value
                .as_bytes()
                .windows(text.len())
                .any(|part| part == text)
        };
        if !headers.values().any(carries) {
            return Replaced::InOrder;
        }
        if !self.hosts.iter().any(|host| host.matches(origin)) {
            let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
            return Replaced::WrongHost(hosts.join(", "));
        }
        for value in headers.values_mut().filter(|value| carries(value)) {
            match self.filled_in(value) {
                Some(filled_in) => *value = filled_in,
                None => return Replaced::NoHeaderValue,
            }
        }
        Replaced::InOrder
    }

    fn filled_in(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        let text = zeroize::Zeroizing::new(text.replace(&self.text, self.value.expose()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}
