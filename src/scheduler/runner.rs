//! Who runs an attempt: the wasm runtime, a service behind a URL, or the built-in echo.
//!
//! **Invariant:** the scheduler sees one trait; what it gets back is an outcome, whoever ran it.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::queue::Class;
use crate::endpoint::Endpoint;
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::Code;
use crate::runtime::Runtime;
use crate::secrets::Vault;

/// Runs one attempt. Implementations stop within milliseconds once `stop` is cancelled.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Runs it to its outcome. A panic in here is caught and counts as a fault.
    async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran;
}

/// The runner of a real plane.
#[derive(Clone)]
pub struct PlaneRunner {
    /// For wasm.
    pub runtime: Runtime,
    /// For services behind a URL.
    pub endpoint: Endpoint,
    /// For the secrets that functions are given.
    pub vault: Vault,
}

#[async_trait]
impl Runner for PlaneRunner {
    async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        match attempt.version.code {
            Code::Wasm { .. } => self.run_wasm(attempt, stop).await,
            Code::Endpoint { .. } => self.endpoint.run(attempt, stop).await,
            Code::Echo => Ran::bare(Outcome::Success {
                content_type: Some(attempt.input.content_type.clone()),
                body: attempt.input.body.clone(),
            }),
        }
    }
}

impl PlaneRunner {
    async fn run_wasm(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        let uses = &attempt.version.spec.secrets;
        if uses.is_empty() {
            return self.runtime.run(attempt, stop).await;
        }
        match self.vault.open_for(uses) {
            // Another try would not find them either; whoever sets them right can redrive.
            Err(failure) => Ran::bare(Outcome::Error(failure)),
            Ok(secrets) => {
                let given = Attempt {
                    secrets,
                    ..attempt.clone()
                };
                self.runtime.run(&given, stop).await
            }
        }
    }
}

/// Which of the plane's bounds a version's attempts count against.
pub(super) fn class_of(code: &Code) -> Class {
    match code {
        Code::Wasm { .. } | Code::Echo => Class::Guest,
        Code::Endpoint { .. } => Class::Endpoint,
    }
}
