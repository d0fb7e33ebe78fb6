//! What an HTTP function's answer means for its execution.
//!
//! **Invariant:** a response that came whole decides, whatever the guest did afterwards; without one, the
//! first thing that went wrong gives the code and the trap is told beside it.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use wasmtime::Trap;

use super::reply::Taken;
use super::{Complete, Left, Outflow, code};
use crate::answer::{self, Meaning};
use crate::execution::CALLER_GONE;
use crate::execution::Outcome;
use crate::model::Failure;
use crate::runtime::ending::{
    Failed, Witness, bystander, instance_ended, media_type, shared, shorten,
};
use crate::runtime::host_limits::FAILURE_MESSAGE_BYTES_MAX;

/// The function, in messages.
const FUNCTION: &str = "the function";
/// What wasmtime says of a handle that the guest does not have (any more).
const UNKNOWN_HANDLE: &str = "unknown handle index";

/// What a task of 0.3 did that returned twice.
const SECOND_RESPONSE: &str = "the function returned a second response: ";

/// The outcome of a call through the API.
pub(super) fn of_call(result: Result<(), Failed>, taken: Taken, witness: &Witness<'_>) -> Outcome {
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
        _ => broken(result, taken.mistake, taken.status, witness),
    }
}

/// The outcome of an exchange: the response goes to its caller as it is, and is only recorded. One that was not
/// handed over yet and came whole is put into `complete`.
pub(super) fn of_exchange(
    result: Result<(), Failed>,
    taken: Taken,
    left: Left,
    witness: &Witness<'_>,
    complete: &mut Complete,
) -> Outcome {
    if left == Left::BeforeTheEnd {
        return caller_gone("the caller hung up before it had all of the response");
    }
    if taken.head.is_some()
        && let Some(outcome) = set_twice(&result, witness)
    {
        return outcome;
    }
    let Some(status) = taken.status.filter(|_| taken.is_whole) else {
        if let Err(Failed::Bystander(why)) = &result {
            // A direct call is not run again by us.
            return Outcome::Retry(instance_ended(why));
        }
        let outcome = broken(result, taken.mistake, taken.status, witness);
        return match (left, outcome) {
            (Left::BrokenBody, Outcome::Retry(_)) => caller_gone("the request's body broke off"),
            (_, outcome) => outcome,
        };
    };
    if let Err(failed) = &result {
        witness.note(failed);
    }
    let retry_after = taken.head.as_ref().map(|head| &head.headers);
    let meaning = answer::meaning(status, retry_after.unwrap_or(&HeaderMap::new()));
    if let Some(head) = taken.head {
        let body = match taken.has_body {
            true => Outflow::whole(taken.body, taken.trailers),
            false => Outflow::none(),
        };
        *complete = Some((head, body));
    }
    let failure = || Failure {
        code: Cow::Owned(format!("HTTP_{}", status.as_u16())),
        message: format!("{FUNCTION} answered {status}"),
    };
    match meaning {
        // Redirects are for the caller to follow.
        Meaning::Success | Meaning::Unexpected => Outcome::Success {
            content_type: None,
            body: bytes::Bytes::new(),
        },
        Meaning::Error | Meaning::Requeue => Outcome::Error(failure()),
        Meaning::Retry => Outcome::Retry(failure()),
    }
}

/// With the scheduler's own code for it, whichever of the two is first.
fn caller_gone(message: &'static str) -> Outcome {
    Outcome::TimedOut(Failure::new(CALLER_GONE, message))
}

/// A guest that answered and then trapped over a handle that it does not have: the host is not asked about one
/// that was given away, so this is as near as one gets to a second answer.
fn set_twice(result: &Result<(), Failed>, witness: &Witness<'_>) -> Option<Outcome> {
    let error = match result {
        Err(Failed::Error(error)) => error,
        Err(Failed::Shared(error)) => error,
        Err(Failed::Cut(_) | Failed::Bystander(_)) | Ok(()) => return None,
    };
    let what = if error.downcast_ref() == Some(&Trap::TaskCancelOrReturnTwice) {
        SECOND_RESPONSE
    } else if error.root_cause().to_string().contains(UNKNOWN_HANDLE) {
        "the function used a handle that it had given away, most likely to set a second response: "
    } else {
        return None;
    };
    let Outcome::Retry(mut trap) = witness.error(error) else {
        return None;
    };
    trap.code = Cow::Borrowed(code::RESPONSE_SET_TWICE);
    trap.message.insert_str(0, what);
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

/// The mistake of a guest that ended before its response did.
fn unfinished(status: Option<StatusCode>) -> Failure {
    match status {
        None => Failure::new(code::NO_RESPONSE, "the function ended without a response"),
        Some(status) => {
            let message =
                format!("the function answered {status} and ended before its response's body did");
            Failure::new(code::BODY_ABORTED, message)
        }
    }
}

/// Tasks of 0.3 trap for ending without a response, and for returning a second one in the turn of the first, which is
/// then not heard of.
fn name_missing_response(trap: &mut Failure, error: &wasmtime::Error) {
    let found = error.downcast_ref();
    let (code, what) = if found == Some(&Trap::NoAsyncResult) {
        (code::NO_RESPONSE, "the function ended without a response: ")
    } else if found == Some(&Trap::TaskCancelOrReturnTwice) {
        (code::RESPONSE_SET_TWICE, SECOND_RESPONSE)
    } else {
        return;
    };
    trap.code = Cow::Borrowed(code);
    trap.message.insert_str(0, what);
}

fn trapped(error: &wasmtime::Error, status: Option<StatusCode>, witness: &Witness<'_>) -> Outcome {
    let mut outcome = witness.error(error);
    if let (None, Outcome::Retry(trap)) = (status, &mut outcome) {
        name_missing_response(trap, error);
    }
    outcome
}

/// What it means that there is no whole response.
fn broken(
    result: Result<(), Failed>,
    mistake: Option<Failure>,
    status: Option<StatusCode>,
    witness: &Witness<'_>,
) -> Outcome {
    let outcome = match result {
        Ok(()) => None,
        Err(Failed::Cut(cut)) => return witness.cut(cut),
        Err(Failed::Bystander(why)) => return bystander(why),
        Err(Failed::Error(error)) => Some(trapped(&error, status, witness)),
        Err(Failed::Shared(error)) => Some(shared(trapped(&error, status, witness))),
    };
    match (mistake, outcome) {
        (None, None) => Outcome::Retry(unfinished(status)),
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
