//! What people are told when it was the plane, and not the function, that ended an execution.
//!
//! **Invariant:** every code that the state machine itself gives stands here, with a sentence that names
//! the limit or the order and says what to do.

use super::{Execution, Policy};
use crate::model::Failure;

/// The function asked to be run later once more than it may.
pub(super) fn max_requeues(policy: &Policy) -> Failure {
    let max = policy.max_requeues;
    Failure::new(
        "MAX_REQUEUES",
        format!(
            "the function asked to be run later more often than the {max} times that maxRequeues allows: \
             raise maxRequeues in its spec, or ask for longer delays"
        ),
    )
}

/// The time the function asked for lies beyond the age it may reach.
pub(super) fn requeued_beyond_age(policy: &Policy, delay_ms: u64) -> Failure {
    let max = policy.max_age_ms;
    Failure::new(
        "MAX_AGE",
        format!(
            "the function asked to be run again in {delay_ms} ms, when the execution would be older than \
             the {max} ms that maxAgeMs allows: raise maxAgeMs in its spec, or redrive the execution"
        ),
    )
}

/// Its turn came, or might have come, too late.
pub(super) fn too_old(execution: &Execution, policy: &Policy) -> Failure {
    let max = policy.max_age_ms;
    Failure::new(
        "MAX_AGE",
        format!(
            "the execution grew older than the {max} ms that maxAgeMs allows while it waited ({}): raise \
             maxAgeMs in the function's spec, or redrive the execution",
            history(execution)
        ),
    )
}

/// We failed it, and it is too old to be run again.
pub(super) fn failed_too_old(policy: &Policy, cause: &str) -> Failure {
    let max = policy.max_age_ms;
    Failure::new(
        "MAX_AGE",
        format!(
            "the platform could not finish the attempt ({cause}), and the execution is too old for another \
             one: maxAgeMs allows {max} ms. Raise maxAgeMs in the function's spec, or redrive the execution"
        ),
    )
}

/// We failed it too often.
pub(super) fn platform_fault(execution: &Execution, cause: &str) -> Failure {
    let faults = execution.faults;
    Failure::new(
        "PLATFORM_FAULT",
        format!(
            "the platform could not finish an attempt, {faults} time(s) over; the last time: {cause}. The \
             server's log has the details; redrive the execution once the cause is gone"
        ),
    )
}

/// The function went away before the execution could run.
pub(super) fn function_removed() -> Failure {
    Failure::new(
        "FUNCTION_REMOVED",
        "the function was deleted while the execution was waiting: deploy it again and call it anew",
    )
}

/// The function went away while an attempt ran that would have to be repeated.
pub(super) fn removed_meanwhile(why_again: &str) -> Failure {
    Failure::new(
        "FUNCTION_REMOVED",
        format!(
            "the function was deleted while the execution ran, so it could not be run again ({why_again}): \
             deploy it again and call it anew"
        ),
    )
}

/// Somebody asked for the end.
pub(super) fn cancelled(execution: &Execution) -> Failure {
    Failure::new(
        "CANCELLED",
        format!("the execution was cancelled {}", moment(execution)),
    )
}

/// The synchronous caller's time passed.
pub(super) fn expired(execution: &Execution, policy: &Policy, by_hand: bool) -> Failure {
    let waits_for_hand = by_hand && execution.fence().is_none();
    let advice = match (policy.is_direct, waits_for_hand) {
        (false, true) => {
            "nothing runs here until it is drained (--manual), so drain the function while the call waits, or \
             enqueue the call and drain it then"
        }
        (false, false) => {
            "allow more with X-Timeout-Ms or the function's timeoutMs, or enqueue the call"
        }
        (true, true) => {
            "nothing runs here until it is drained (--manual), so drain the function while the request waits"
        }
        (true, false) => {
            "a direct call has the function's timeoutMs, waiting for its turn included: raise that if it needs longer"
        }
    };
    Failure::new(
        "TIMEOUT",
        format!("the caller's time passed {}: {advice}", moment(execution)),
    )
}

/// The plane lets no synchronous call wait so long for its beginning.
pub(super) fn queue_timeout(limit_ms: u64) -> Failure {
    Failure::new(
        "QUEUE_TIMEOUT",
        format!(
            "the call waited {limit_ms} ms in the queue and did not begin, which is as long as \
             syncQueueMaxQueueWait allows: call again later, or enqueue the call"
        ),
    )
}

/// The code of an execution whose caller went away.
pub const CALLER_GONE: &str = "CALLER_GONE";

/// The synchronous caller went away.
pub(super) fn caller_gone(execution: &Execution, policy: &Policy) -> Failure {
    let advice = match policy.is_direct {
        false => "send an Idempotency-Key, or enqueue the call, to have it go on without you",
        true => "a direct call ends with its caller",
    };
    Failure::new(
        CALLER_GONE,
        format!("the caller hung up {}: {advice}", moment(execution)),
    )
}

/// Where an execution stood when somebody else ended it.
fn moment(execution: &Execution) -> String {
    match execution.fence() {
        Some(_) => format!("during attempt {}", execution.attempts),
        None => format!("while it waited in the queue ({})", history(execution)),
    }
}

fn history(execution: &Execution) -> String {
    let Execution {
        attempts,
        requeues,
        faults,
        ..
    } = execution;
    format!("attempts {attempts}, requeues {requeues}, faults {faults} so far")
}
