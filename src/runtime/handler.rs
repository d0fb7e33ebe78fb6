//! Runs the typed world of `wit/pelton.wit`: bytes in, an explicit outcome out.
//!
//! **Invariant:** the input goes in as it came, the output comes out as the guest gave it; only the words
//! that guests choose for codes, messages and media types are bounded and cleaned.

use std::borrow::Cow;
use std::pin::pin;

use bytes::Bytes;

use super::ending::{Ending, Witness, media_type, shorten};
use super::host::{Ctx, Function, FunctionPre, typed};
use super::host_limits::{FAILURE_CODE_BYTES_MAX, FAILURE_MESSAGE_BYTES_MAX};
use super::output::Capture;
use super::run::{Life, usize_of};
use super::watch::Reins;
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{ExecutionId, Failure};

/// The code of a failure whose guest gave it none.
const NAMELESS: &str = "ERROR";

/// Runs one attempt of a handler.
pub(super) async fn run(code: &FunctionPre<Ctx>, attempt: &Attempt, reins: &Reins<'_>) -> Ran {
    let spec = &attempt.version.spec;
    let capture = Capture::logs_only(usize_of(spec.log_bytes_max));
    let mut life = Life::begin(code.engine(), attempt, reins, Bytes::new(), capture);
    let lived = {
        let guest = pin!(async {
            let function = code.instantiate_async(&mut life.store).await?;
            life.store.data_mut().instantiated = true;
            call(&function, &mut life.store, attempt).await
        });
        life.watch.live(guest).await
    };
    judge(life.end(lived), attempt)
}

/// What an ended call of a handler came to.
pub(super) fn judge(ending: Ending<typed::Outcome>, attempt: &Attempt) -> Ran {
    let output_bytes_max = usize_of(attempt.version.spec.output_bytes_max);
    ending.judge(attempt, |answer, witness| match answer {
        Ok(answer) => outcome(answer, output_bytes_max, witness),
        Err(error) => witness.error(&error),
    })
}

/// One call of a handler.
pub(super) async fn call(
    function: &Function,
    store: &mut wasmtime::Store<Ctx>,
    attempt: &Attempt,
) -> wasmtime::Result<typed::Outcome> {
    let mut room = [0; ExecutionId::TEXT_BYTES];
    let id = attempt.execution_id.text(&mut room);
    let metadata: Vec<(&str, &str)> = attempt
        .metadata
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let execution = typed::Execution {
        id,
        function: attempt.function.as_str(),
        version: attempt.version.number.0,
        attempt: attempt.number,
        max_attempts: attempt.max_attempts,
        time_left_ms: u64::try_from(attempt.time_limit.as_millis()).unwrap_or(u64::MAX),
        requeues: attempt.requeues,
        idempotency_key: attempt.idempotency_key.as_ref().map(|key| key.as_str()),
        trace_id: attempt.trace_id.as_deref(),
        traceparent: attempt.traceparent.as_deref(),
        metadata: &metadata,
    };
    let input = typed::PayloadParam {
        content_type: &attempt.input.content_type.0,
        body: &attempt.input.body,
    };
    let handler = function.pelton_function_handler();
    handler.call_handle(store, execution, input).await
}

fn outcome(answer: typed::Outcome, output_bytes_max: usize, witness: &Witness<'_>) -> Outcome {
    match answer {
        typed::Outcome::Success(payload) if payload.body.len() > output_bytes_max => {
            witness.output_too_large(output_bytes_max)
        }
        typed::Outcome::Success(payload) => Outcome::Success {
            content_type: media_type(payload.content_type),
            body: payload.body.into(),
        },
        typed::Outcome::Error(failed) => Outcome::Error(failure(failed)),
        typed::Outcome::Retry(failed) => Outcome::Retry(failure(failed)),
        typed::Outcome::Requeue(delay_ms) => Outcome::Requeue(delay_ms),
    }
}

fn failure(failed: typed::Failure) -> Failure {
    let mut message = failed.message;
    shorten(&mut message, FAILURE_MESSAGE_BYTES_MAX);
    Failure {
        code: failure_code(failed.code),
        message,
    }
}

/// A code is for programs and logs: printable, bounded, never empty.
fn failure_code(stated: String) -> Cow<'static, str> {
    let mut code = stated;
    code.retain(|c| !c.is_control());
    shorten(&mut code, FAILURE_CODE_BYTES_MAX);
    match code.trim() {
        "" => Cow::Borrowed(NAMELESS),
        trimmed if trimmed.len() == code.len() => Cow::Owned(code),
        trimmed => Cow::Owned(trimmed.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_printable_bounded_and_never_empty() {
        assert_eq!(failure_code("OUT_OF_STOCK".to_owned()), "OUT_OF_STOCK");
        assert_eq!(failure_code(" A\nB\u{7}\u{85} ".to_owned()), "AB");
        assert_eq!(failure_code("\r\n".to_owned()), NAMELESS);
        let long = failure_code("ö".repeat(100));
        assert_eq!(long.chars().count(), FAILURE_CODE_BYTES_MAX / 2);
    }
}
