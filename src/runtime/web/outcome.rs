//! What an HTTP function's answer means for its execution.
//!
//! **Invariant:** a response that came whole decides, whatever the guest did afterwards; without one, the
//! first thing that went wrong gives the code and the trap is told beside it.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::response::Parts;

use super::reply::{Taken, code};
use crate::answer::{self, Meaning};
use crate::execution::Outcome;
use crate::model::Failure;
use crate::runtime::ending::{Failed, Witness, media_type, shorten};
use crate::runtime::host_limits::FAILURE_MESSAGE_BYTES_MAX;

/// The function, in messages.
const FUNCTION: &str = "the function";
/// What wasmtime says of a handle that the guest does not have (any more).
const UNKNOWN_HANDLE: &str = "unknown handle index";

/// The outcome of a call through the API.
pub(super) fn of(result: Result<(), Failed>, taken: Taken, witness: &Witness<'_>) -> Outcome {
    if taken.is_too_large {
        return witness.output_too_large(witness.output_bytes_max());
    }
    if taken.head.is_some()
        && let Some(outcome) = set_twice(&result, witness)
    {
        return outcome;
    }
    match taken.head {
        Some(head) if taken.is_whole => {
            if let Err(failed) = &result {
                witness.note(failed);
            }
            by_status(&head, taken.body)
        }
        _ => broken(result, taken.mistake, witness),
    }
}

/// A guest that answered and then trapped over a handle that it does not have: the host is not asked about one
/// that was given away, so this is as near as one gets to a second answer.
fn set_twice(result: &Result<(), Failed>, witness: &Witness<'_>) -> Option<Outcome> {
    let Err(Failed::Error(error)) = result else {
        return None;
    };
    if !error.root_cause().to_string().contains(UNKNOWN_HANDLE) {
        return None;
    }
    let Outcome::Retry(mut trap) = witness.error(error) else {
        return None;
    };
    trap.code = Cow::Borrowed(code::RESPONSE_SET_TWICE);
    trap.message.insert_str(
        0,
        "the function used a handle that it had given away, most likely to set a second response: ",
    );
    Some(Outcome::Retry(trap))
}

/// What a whole response means.
fn by_status(head: &Parts, body: bytes::Bytes) -> Outcome {
    let nameless = || Cow::Owned(format!("HTTP_{}", head.status.as_u16()));
    let failure = |body: &[u8]| answer::failure(FUNCTION, head.status, body, nameless);
    match answer::meaning(head.status, &head.headers) {
        Meaning::Success => Outcome::Success {
            content_type: head.headers.get(CONTENT_TYPE).and_then(|value| {
                media_type(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }),
            body,
        },
        Meaning::Error => Outcome::Error(failure(&body)),
        Meaning::Retry => Outcome::Retry(failure(&body)),
        Meaning::Requeue => Outcome::Requeue(answer::delay_ms(&head.headers)),
        Meaning::Unexpected => {
            let advice = "set invokePath to the path that answers";
            Outcome::Error(answer::unexpected(
                FUNCTION,
                head.status,
                &head.headers,
                advice,
            ))
        }
    }
}

/// What it means that there is no whole response.
fn broken(result: Result<(), Failed>, mistake: Option<Failure>, witness: &Witness<'_>) -> Outcome {
    let outcome = match result {
        Ok(()) => None,
        Err(Failed::Cut(cut)) => return witness.cut(cut),
        Err(Failed::Error(error)) => Some(witness.error(&error)),
    };
    match (mistake, outcome) {
        (None, None) => Outcome::Retry(Failure::new(
            code::NO_RESPONSE,
            "the function ended without a response",
        )),
        (Some(mistake), None) => Outcome::Retry(mistake),
        (Some(mut mistake), Some(Outcome::Retry(trap))) => {
            mistake.message.push_str("; then the function trapped: ");
            mistake.message.push_str(&trap.message);
            shorten(&mut mistake.message, FAILURE_MESSAGE_BYTES_MAX);
            Outcome::Retry(mistake)
        }
        (_, Some(outcome)) => outcome,
    }
}
