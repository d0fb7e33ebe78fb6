//! The bindings, made from the repository's `wit/pelton.wit`, and the way between them and our types.
//!
//! **Invariant:** the only file that names the bindings.

use std::time::Duration;

use crate::{Execution, Failure, Handler, Outcome, Payload};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "function",
        pub_export_macro: true,
        default_bindings_module: "pelton_guest::__private",
    });
}

pub use bindings::exports::pelton::function::handler::Guest;
pub use bindings::pelton::function::types as wit;
pub use bindings::*;

/// One call from the host.
pub fn serve<H: Handler<Shape>, Shape>(
    handler: H,
    execution: wit::Execution,
    input: wit::Payload,
) -> wit::Outcome {
    let input = Payload {
        content_type: input.content_type,
        body: input.body,
    };
    handler.run(&execution.into(), input).into()
}

impl From<wit::Execution> for Execution {
    fn from(execution: wit::Execution) -> Self {
        Self {
            id: execution.id,
            function: execution.function,
            version: execution.version,
            attempt: execution.attempt,
            max_attempts: execution.max_attempts,
            time_left: Duration::from_millis(execution.time_left_ms),
            requeues: execution.requeues,
            idempotency_key: execution.idempotency_key,
            trace_id: execution.trace_id,
            traceparent: execution.traceparent,
            metadata: execution.metadata,
        }
    }
}

impl From<Outcome> for wit::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success(payload) => Self::Success(wit::Payload {
                content_type: payload.content_type,
                body: payload.body,
            }),
            Outcome::Error(failure) => Self::Error(failure.into()),
            Outcome::Retry(failure) => Self::Retry(failure.into()),
            Outcome::Requeue(delay) => Self::Requeue(delay.map(whole_ms)),
        }
    }
}

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message,
        }
    }
}

/// Rounds up: a short delay must not become none.
fn whole_ms(delay: Duration) -> u64 {
    u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
