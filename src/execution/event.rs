//! Everything that can happen to an execution, and the rules it happens under.
//!
//! **Invariant:** plain data; whatever arrives from outside becomes one of these before it is judged.

use super::Outcome;
use crate::model::{Failure, Fence, Timestamp};

/// What an attempt came to, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Ended well.
    Success,
    /// Final failure: the function's own word, or a limit.
    Error(Failure),
    /// Failed; the policy decides whether there is another attempt.
    Retry(Failure),
    /// Spend no attempt; run again after this many ms (none: the policy's base delay).
    Requeue(Option<u64>),
    /// The attempt's time passed; retried like a failure, ends as `timeout`.
    TimedOut(Failure),
}

/// A result reported from outside (`:complete`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// Ended well.
    Success,
    /// Final (`status: error`).
    Error(Failure),
    /// A failure under the retry policy (`success: false`).
    Retry(Failure),
    /// Ended by time (`status: timeout`).
    Timeout(Failure),
}

/// How a claim treats the time an execution is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimWhen {
    /// Only work that is due (the background scheduler, and a drain that respects the schedule).
    Due,
    /// Deferred work too, at once: a drain moves time by hand.
    Now,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A scheduler takes the right to run it.
    Claim {
        /// The new claim; greater than any before.
        fence: Fence,
        /// Whether deferred work may be claimed before its time.
        when: ClaimWhen,
    },
    /// The attempt under this claim ended.
    Finish {
        /// The claim.
        fence: Fence,
        /// What it came to.
        verdict: Verdict,
    },
    /// The attempt under this claim failed through us. The attempt is given back, a fault is counted.
    Fault {
        /// The claim.
        fence: Fence,
        /// What went wrong, for people.
        cause: String,
    },
    /// A planned stop cut the attempt. It is given back and no fault is counted.
    Interrupt {
        /// The claim.
        fence: Fence,
    },
    /// Found running after a crash, under a claim of an earlier boot: like [`Event::Fault`].
    Lost,
    /// Somebody outside reports the result.
    ///
    /// Running: applied if `fence` is none or the current claim, else stale. Queued: there is no current
    /// claim, so whoever names one speaks of an attempt that is over (timed out, superseded) and is stale;
    /// without one it is applied. A failure under the retry policy ([`Completion::Retry`]) counts as the
    /// first attempt of a queued execution that has spent none; otherwise it is the second report of an
    /// attempt that was counted already (services that both answer and call back do this), and is stale.
    Complete {
        /// The claim it is meant for; none means the current one.
        fence: Option<Fence>,
        /// The result.
        completion: Completion,
    },
    /// Somebody asks for it to end.
    Cancel,
    /// The synchronous caller's time passed: state `timeout`.
    Expire {
        /// Whether work moves only when it is drained (`--manual`), which is what to do then.
        by_hand: bool,
    },
    /// It waited in its queue as long as a synchronous call may before it begins: state `timeout`, code
    /// `QUEUE_TIMEOUT`. One that has begun, even if it is back in its queue, goes on.
    QueueTimeout {
        /// How long that is, in ms.
        limit_ms: u64,
    },
    /// The synchronous caller hung up: state `timeout`, code `CALLER_GONE`.
    CallerGone,
    /// The function was deleted: queued work ends as error `FUNCTION_REMOVED`; running work goes on.
    RemoveFunction,
    /// It may not start any more because it is older than its function allows: error `MAX_AGE`.
    AgeOut,
    /// An operator sends an `error` or `timeout` back to the queue; counters and age start again.
    Redrive,
}

impl Event {
    /// What the scheduler reports when the attempt under `fence` came to `outcome`.
    pub fn of_outcome(fence: Fence, outcome: &Outcome) -> Self {
        let verdict = match outcome {
            Outcome::Success { .. } => Verdict::Success,
            Outcome::Error(failure) | Outcome::Limit(failure) => Verdict::Error(failure.clone()),
            Outcome::Retry(failure) => Verdict::Retry(failure.clone()),
            Outcome::Requeue(delay_ms) => Verdict::Requeue(*delay_ms),
            Outcome::TimedOut(failure) => Verdict::TimedOut(failure.clone()),
            Outcome::Interrupted => return Self::Interrupt { fence },
            Outcome::Fault(cause) => {
                let cause = cause.clone();
                return Self::Fault { fence, cause };
            }
        };
        Self::Finish { fence, verdict }
    }
}

/// The rules of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts; at least one.
    pub max_attempts: u32,
    /// First retry delay in ms.
    pub base_delay_ms: u64,
    /// Longest retry delay in ms.
    pub max_delay_ms: u64,
    /// Requeues.
    pub max_requeues: u32,
    /// Age in ms beyond which nothing goes back to the queue.
    pub max_age_ms: u64,
    /// Faults before it ends as `PLATFORM_FAULT`.
    pub max_faults: u32,
    /// A function that was deleted takes no work back.
    pub function_removed: bool,
    /// Its caller speaks with the function, and can do nothing but that.
    pub is_direct: bool,
    /// A random number in `0..=u32::MAX`, drawn by the caller, that full jitter uses.
    pub jitter: u32,
}

/// Why an event changes nothing. An answer, not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It has already ended.
    #[error("the execution has already ended")]
    Ended,
    /// The event names a claim that is not the current one.
    #[error("the claim is not the current one")]
    Stale,
    /// Only queued executions can do this.
    #[error("the execution is not queued")]
    NotQueued,
    /// Only executions that never began can do this.
    #[error("the execution has begun")]
    Begun,
    /// Only running executions can do this.
    #[error("the execution is not running")]
    NotRunning,
    /// Too early: it may not be claimed, or ended for its age, before this time.
    #[error("the execution is not due yet")]
    NotDue(Timestamp),
    /// It is older than its function allows and may not start: send [`Event::AgeOut`].
    #[error("the execution is too old to be run")]
    TooOld,
    /// Its function was deleted.
    #[error("the function of this execution was deleted")]
    FunctionRemoved,
    /// Only executions that ended as error or timeout can be redriven.
    #[error("only an execution that ended as error or timeout can be redriven")]
    NotRedrivable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_become_events_and_words() {
        let fence = Fence(3);
        let failure = || Failure::new("WHY", "because");
        let finish = |verdict| Event::Finish { fence, verdict };
        let fault = Event::Fault {
            fence,
            cause: "ours".to_owned(),
        };
        let success = Outcome::Success {
            content_type: None,
            body: bytes::Bytes::new(),
        };
        for (outcome, event, word) in [
            (success, finish(Verdict::Success), "success"),
            (
                Outcome::Error(failure()),
                finish(Verdict::Error(failure())),
                "error",
            ),
            (
                Outcome::Limit(failure()),
                finish(Verdict::Error(failure())),
                "limit",
            ),
            (
                Outcome::Retry(failure()),
                finish(Verdict::Retry(failure())),
                "retry",
            ),
            (
                Outcome::TimedOut(failure()),
                finish(Verdict::TimedOut(failure())),
                "timeout",
            ),
            (
                Outcome::Requeue(Some(7)),
                finish(Verdict::Requeue(Some(7))),
                "requeue",
            ),
            (
                Outcome::Interrupted,
                Event::Interrupt { fence },
                "interrupted",
            ),
            (Outcome::Fault("ours".to_owned()), fault, "fault"),
        ] {
            assert_eq!(Event::of_outcome(fence, &outcome), event);
            assert_eq!(outcome.word(), word);
        }
    }
}
