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
    let text = |text: &Option<String>| text.clone().map(String::into_bytes);
    let (abort_on, panic_on) = (text(&config.test_abort_on), text(&config.test_panic_on));
    if abort_on.is_none() && panic_on.is_none() {
        return Arc::new(runner);
    }
    Arc::new(failing::Failing {
        abort_on,
        panic_on,
        runner,
    })
}

#[cfg(debug_assertions)]
mod failing {
    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use crate::execution::{Attempt, Ran};
    use crate::runtime::Exchange;
    use crate::scheduler::Runner;

    /// Fails at certain inputs, as of a fault in our own code.
    pub(super) struct Failing<R> {
        /// Dies of it, and no guard catches that.
        pub(super) abort_on: Option<Vec<u8>>,
        /// Panics.
        pub(super) panic_on: Option<Vec<u8>>,
        pub(super) runner: R,
    }

    #[async_trait]
    impl<R: Runner> Runner for Failing<R> {
        async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
            let has = |text: &Option<Vec<u8>>| {
                let input = &attempt.input.body;
                text.as_ref().is_some_and(|text| {
                    let mut parts = input.windows(text.len().max(1));
                    parts.any(|part| part == text)
                })
            };
            if has(&self.abort_on) {
                std::process::abort();
            }
            assert!(
                !has(&self.panic_on),
                "asked to panic\non two lines, \u{1b}[31mone of them red"
            );
            self.runner.run(attempt, stop).await
        }

        async fn serve(
            &self,
            attempt: &Attempt,
            exchange: Box<Exchange>,
            stop: &CancellationToken,
        ) -> Ran {
            self.runner.serve(attempt, exchange, stop).await
        }
    }
}
