//! What a debug build can be told to do wrong, for crash tests; a release build has none of it.
//!
//! **Invariant:** does nothing unless a hidden flag asks for it.

use std::sync::Arc;

use crate::config::Config;
use crate::scheduler::{PlaneRunner, Runner};

/// The plane's runner.
#[cfg(not(debug_assertions))]
pub(super) fn runner(_: &Config, runner: PlaneRunner) -> Arc<dyn Runner> {
    Arc::new(runner)
}

/// The plane's runner, as the tests want it.
#[cfg(debug_assertions)]
pub(super) fn runner(config: &Config, runner: PlaneRunner) -> Arc<dyn Runner> {
    match &config.test_abort_on {
        None => Arc::new(runner),
        Some(text) => Arc::new(aborting::Aborting {
            text: text.clone().into_bytes(),
            runner,
        }),
    }
}

#[cfg(debug_assertions)]
mod aborting {
    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use crate::execution::{Attempt, Ran};
    use crate::scheduler::Runner;

    /// Dies of certain inputs, as of a fault in our own code that no guard catches.
    pub(super) struct Aborting<R> {
        pub(super) text: Vec<u8>,
        pub(super) runner: R,
    }

    #[async_trait]
    impl<R: Runner> Runner for Aborting<R> {
        async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
            let input = &attempt.input.body;
            if input
                .windows(self.text.len().max(1))
                .any(|part| *part == self.text)
            {
                std::process::abort();
            }
            self.runner.run(attempt, stop).await
        }
    }
}
