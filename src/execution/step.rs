//! The one function that decides every transition.
//!
//! **Invariant:** no `_` arm over states or events: a new one does not compile until all its pairs are decided here.

use super::{Event, Execution, Policy, Rejected};
use crate::model::Timestamp;

/// A decision: what the execution becomes, and what has to be done once that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// The new record.
    pub next: Execution,
    /// What follows.
    pub effects: Effects,
}

/// What follows a transition. Each is safe to repeat after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// Stop the guest that runs under the claim that was current before.
    pub stop_guest: bool,
    /// It left the queue other than by a claim: take its entry out.
    pub unqueue: bool,
    /// It went back to the queue.
    pub requeue: Option<Requeued>,
    /// It ended: publish the result and wake those who wait.
    pub publish: bool,
}

/// Why an execution is back in its queue, and from when on it may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// The policy allows another attempt.
    Retry(Timestamp),
    /// The function asked to be run later.
    Later(Timestamp),
    /// We failed it, or a planned stop cut it.
    Fault(Timestamp),
    /// An operator sent it back.
    Redrive(Timestamp),
}

impl Requeued {
    /// When it may be claimed.
    pub fn due(self) -> Timestamp {
        match self {
            Self::Retry(due) | Self::Later(due) | Self::Fault(due) | Self::Redrive(due) => due,
        }
    }
}

/// Decides what `event` does to `execution` under `policy` at `now`.
///
/// # Errors
/// [`Rejected`] says why nothing changes.
pub fn step(
    execution: &Execution,
    event: &Event,
    policy: &Policy,
    now: Timestamp,
) -> Result<Stepped, Rejected> {
    let _ = (execution, event, policy, now);
    unimplemented!("helper A")
}
