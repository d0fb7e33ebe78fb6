//! The life of an execution, pure: states, events, and the one function that decides every transition.
//!
//! [`step`] takes a record, an event, the policy and the time and says what the record becomes and what
//! has to be done about it once that is durable. Store, scheduler and API never compare states themselves.
//!
//! **Invariant:** no clock, no randomness, no I/O, no serde: the same arguments give the same answer.

mod attempt;
mod backoff;
mod event;
mod reason;
mod step;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod table;

pub use attempt::{Attempt, Outcome, Ran, Streamed};
pub use backoff::{fault_delay_ms, retry_delay_ms};
pub use event::{ClaimWhen, Completion, Event, Policy, Rejected, Verdict};
pub use reason::CALLER_GONE;
pub use step::{Effects, Requeued, Stepped, step};

use crate::model::{Failure, Fence, Timestamp};

/// Where an execution stands; each variant carries what exists in that state only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waits in its function's queue; may be claimed when `due` has come.
    Queued {
        /// Not before this time (work that is ready at once is due when it was queued).
        due: Timestamp,
    },
    /// Somebody holds the right to run it.
    Running {
        /// Names that right.
        fence: Fence,
    },
    /// Ended well.
    Success,
    /// Ended badly, for good (but see [`Event::Redrive`]).
    Error(Failure),
    /// A limit in time passed: the last attempt's, or the synchronous caller's.
    Timeout(Failure),
    /// Somebody asked for it to end.
    Cancelled(Failure),
}

/// The state's name, as the API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// See [`State::Queued`].
    Queued,
    /// See [`State::Running`].
    Running,
    /// See [`State::Success`].
    Success,
    /// See [`State::Error`].
    Error,
    /// See [`State::Timeout`].
    Timeout,
    /// See [`State::Cancelled`].
    Cancelled,
}

impl Status {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Success,
        Self::Error,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// The word of the API, the store and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing but a redrive can change it.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Success | Self::Error | Self::Timeout | Self::Cancelled => true,
        }
    }
}

/// What transitions read and change of an execution. Ids, payloads and waiters belong to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// Where it stands.
    pub state: State,
    /// Attempts spent, the running one included. A requeue, a fault and an interruption give theirs back.
    pub attempts: u32,
    /// Failures of ours.
    pub faults: u32,
    /// Those of them that were deaths of the process while it ran, since an attempt of it last came to a verdict.
    pub deaths: u32,
    /// How often the function asked to be run later.
    pub requeues: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// From when on its age counts: `created_at`, or the last redrive.
    pub age_since: Timestamp,
    /// When the current or last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Execution {
    /// A new execution, ready at once.
    pub fn queued(now: Timestamp) -> Self {
        Self {
            state: State::Queued { due: now },
            attempts: 0,
            faults: 0,
            deaths: 0,
            requeues: 0,
            created_at: now,
            age_since: now,
            started_at: None,
            finished_at: None,
        }
    }

    /// Whether no attempt may start at `now` any more, because `policy` allows no such age.
    pub fn is_too_old(&self, policy: &Policy, now: Timestamp) -> bool {
        now.ms_since(self.age_since) > policy.max_age_ms
    }

    /// The state's name.
    pub fn status(&self) -> Status {
        match self.state {
            State::Queued { .. } => Status::Queued,
            State::Running { .. } => Status::Running,
            State::Success => Status::Success,
            State::Error(_) => Status::Error,
            State::Timeout(_) => Status::Timeout,
            State::Cancelled(_) => Status::Cancelled,
        }
    }

    /// Why it ended, where it ended badly.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.state {
            State::Error(failure) | State::Timeout(failure) | State::Cancelled(failure) => {
                Some(failure)
            }
            State::Queued { .. } | State::Running { .. } | State::Success => None,
        }
    }

    /// The claim under which it runs.
    pub fn fence(&self) -> Option<Fence> {
        match self.state {
            State::Running { fence } => Some(fence),
            State::Queued { .. }
            | State::Success
            | State::Error(_)
            | State::Timeout(_)
            | State::Cancelled(_) => None,
        }
    }
}
