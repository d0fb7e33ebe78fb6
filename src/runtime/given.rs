//! The secrets that an attempt is given, as its guest sees them: values, or texts that stand for them.
//!
//! **Invariant:** the value behind a placeholder is not among what a guest can read.

use std::sync::Arc;

use crate::model::{Exposure, OpenSecret};
use crate::net::Placeholder;

/// What one attempt is given.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Nothing, mostly: even empty lists behind an `Arc` would be counted, by all threads at one place.
    some: Option<Secrets>,
}

#[derive(Debug)]
struct Secrets {
    secrets: Arc<[OpenSecret]>,
    placeholders: Arc<[Placeholder]>,
}

impl Given {
    /// Makes placeholders that are this attempt's alone.
    pub(super) fn new(secrets: &Arc<[OpenSecret]>) -> Self {
        if secrets.is_empty() {
            return Self::default();
        }
        let placeholder = |secret: &OpenSecret| match &secret.exposure {
            Exposure::Config | Exposure::Env => None,
            Exposure::Placeholder { hosts } => Some(Placeholder::new(
                Arc::clone(&secret.key),
                secret.value.clone(),
                hosts.clone(),
            )),
        };
        Self {
            some: Some(Secrets {
                placeholders: secrets.iter().filter_map(placeholder).collect(),
                secrets: Arc::clone(secrets),
            }),
        }
    }

    /// The texts that are replaced in what the guest sends.
    pub(super) fn placeholders(&self) -> Arc<[Placeholder]> {
        let some = self.some.as_ref();
        some.map_or_else(Arc::default, |some| Arc::clone(&some.placeholders))
    }

    /// Variables of the environment.
    pub(super) fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.of(|exposure| matches!(exposure, Exposure::Env))
    }

    /// Values for `wasi:config`.
    pub(super) fn config(&self) -> impl Iterator<Item = (&str, &str)> {
        self.of(|exposure| matches!(exposure, Exposure::Config))
    }

    /// The values of one kind, and the placeholders, which a guest finds in either place.
    fn of(&self, is_meant: fn(&Exposure) -> bool) -> impl Iterator<Item = (&str, &str)> {
        let secrets = self.some.iter().flat_map(|some| &*some.secrets);
        let values = secrets
            .filter(move |secret| is_meant(&secret.exposure))
            .map(|secret| (&*secret.key, secret.value.expose()));
        let texts = self.some.iter().flat_map(|some| &*some.placeholders);
        values.chain(texts.map(|placeholder| (placeholder.key(), placeholder.text())))
    }
}
