//! Who runs an attempt: the wasm runtime, a service behind a URL, or the built-in echo.
//!
//! **Invariant:** the scheduler sees one trait; what it gets back is an outcome, whoever ran it.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::queue::Class;
use crate::endpoint::Endpoint;
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::Code;
use crate::runtime::{Exchange, Runtime};
use crate::secrets::Vault;

/// Runs one attempt. Implementations stop within milliseconds once `stop` is cancelled.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Runs it to its outcome. A panic in here is caught and counts as a fault.
    async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran;

    /// Runs it for a caller who speaks with the function through `exchange`. Unless the runner knows better,
    /// the function is run as always, and the caller told how it ended.
    async fn serve(
        &self,
        attempt: &Attempt,
        exchange: Box<Exchange>,
        stop: &CancellationToken,
    ) -> Ran {
        let teller = exchange.teller();
        let ran = self.run(attempt, stop).await;
        teller.tell(&ran.outcome);
        ran
    }
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
            Code::Wasm { .. } if attempt.version.spec.secrets.is_empty() => {
                self.runtime.run(attempt, stop).await
            }
            Code::Wasm { .. } => match self.opened(attempt) {
                Ok(attempt) => self.runtime.run(&attempt, stop).await,
                Err(ran) => *ran,
            },
            // Apart, so that the future of a guest's run, which is copied to the heap, stays small.
            Code::Endpoint { .. } => Box::pin(self.endpoint.run(attempt, stop)).await,
            Code::Echo => Ran::bare(Outcome::Success {
                content_type: Some(attempt.input.content_type.clone()),
                body: attempt.input.body.clone(),
            }),
        }
    }

    async fn serve(
        &self,
        attempt: &Attempt,
        exchange: Box<Exchange>,
        stop: &CancellationToken,
    ) -> Ran {
        let teller = exchange.teller();
        let ran = match attempt.version.code {
            Code::Wasm { .. } if attempt.version.spec.secrets.is_empty() => {
                self.runtime.serve(attempt, *exchange, stop).await
            }
            Code::Wasm { .. } => match self.opened(attempt) {
                Ok(attempt) => self.runtime.serve(&attempt, *exchange, stop).await,
                Err(ran) => {
                    teller.tell_unready();
                    return *ran;
                }
            },
            Code::Endpoint { .. } | Code::Echo => self.run(attempt, stop).await,
        };
        teller.tell(&ran.outcome);
        ran
    }
}

impl PlaneRunner {
    /// The attempt with its secrets, or what it came to without them.
    fn opened(&self, attempt: &Attempt) -> Result<Box<Attempt>, Box<Ran>> {
        match self.vault.open_for(&attempt.version.spec.secrets) {
            // Another try would not find them either; whoever sets them right can redrive.
            Err(failure) => Err(Box::new(Ran::bare(Outcome::Error(failure)))),
            Ok(secrets) => Ok(Box::new(Attempt {
                secrets,
                ..attempt.clone()
            })),
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
