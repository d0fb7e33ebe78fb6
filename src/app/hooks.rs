//! What a debug build can be told to do wrong, for crash tests; a release build has none of it.
//!
//! **Invariant:** does nothing unless a hidden flag asks for it.

use std::sync::Arc;

use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::runtime::Runtime;
use crate::scheduler::{PlaneRunner, Runner};

/// The plane's runner.
#[cfg(not(debug_assertions))]
pub(super) fn runner(_: &Config, runtime: Runtime, endpoint: Endpoint) -> Arc<dyn Runner> {
    Arc::new(PlaneRunner { runtime, endpoint })
}

/// The plane's runner, as the tests want it.
#[cfg(debug_assertions)]
pub(super) fn runner(config: &Config, runtime: Runtime, endpoint: Endpoint) -> Arc<dyn Runner> {
    let runner = PlaneRunner { runtime, endpoint };
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
    use crate::runtime::Exchange;
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

        async fn serve(
            &self,
            attempt: &Attempt,
            exchange: Exchange,
            stop: &CancellationToken,
        ) -> Ran {
            self.runner.serve(attempt, exchange, stop).await
        }
    }
}
