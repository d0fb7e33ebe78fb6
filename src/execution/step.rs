//! The one function that decides every transition.
//!
//! **Invariant:** no `_` arm over states or events: a new one does not compile until all its pairs are decided here.

use super::{ClaimWhen, Completion, Event, Execution, Policy, Rejected, State, Verdict};
use super::{fault_delay_ms, reason, retry_delay_ms};
use crate::model::{Failure, Fence, Timestamp};

/// A decision: what the execution becomes, and what has to be done once that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// The new record.
    pub next: Execution,
    /// What follows.
    pub effects: Effects,
}

/// What follows a transition, to be done in the order of the fields. Each is safe to repeat after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// Stop the guest that runs under the claim that was current before.
    pub stop_guest: bool,
    /// It left its place in the queue other than by a claim: take its entry out.
    pub unqueue: bool,
    /// It (again) waits in the queue, with this due time: put an entry in.
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
    /// We failed it.
    Fault(Timestamp),
    /// A planned stop cut it.
    Interrupt(Timestamp),
    /// An operator sent it back.
    Redrive(Timestamp),
}

impl Requeued {
    /// When it may be claimed.
    pub fn due(self) -> Timestamp {
        match self {
            Self::Retry(due)
            | Self::Later(due)
            | Self::Fault(due)
            | Self::Interrupt(due)
            | Self::Redrive(due) => due,
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
    let case = Case {
        before: execution,
        policy,
        now,
    };
    match event {
        Event::Claim { fence, when } => case.claim(*fence, *when),
        Event::Finish { fence, verdict } => {
            case.require_claim(*fence)?;
            Ok(case.judge(verdict))
        }
        Event::Fault { fence, cause } => {
            case.require_claim(*fence)?;
            Ok(case.fault(cause))
        }
        Event::Interrupt { fence } => {
            case.require_claim(*fence)?;
            Ok(case.interrupt())
        }
        Event::Lost => {
            case.require_running()?;
            Ok(case.lost())
        }
        Event::Complete { fence, completion } => case.complete(*fence, completion),
        Event::Cancel => case.end_by_order(State::Cancelled(reason::cancelled(execution))),
        Event::Expire { by_hand } => {
            case.end_by_order(State::Timeout(reason::expired(execution, policy, *by_hand)))
        }
        Event::QueueTimeout { limit_ms } => case.queue_timeout(*limit_ms),
        Event::CallerGone => {
            case.end_by_order(State::Timeout(reason::caller_gone(execution, policy)))
        }
        Event::RemoveFunction => {
            case.require_queued()?;
            Ok(case.end(case.again(), State::Error(reason::function_removed())))
        }
        Event::AgeOut => case.age_out(),
        Event::Redrive => case.redrive(),
    }
}

/// One question to the state machine; its methods are the answers.
#[derive(Clone, Copy)]
struct Case<'a> {
    before: &'a Execution,
    policy: &'a Policy,
    now: Timestamp,
}

impl Case<'_> {
    fn claim(self, fence: Fence, when: ClaimWhen) -> Result<Stepped, Rejected> {
        let due = self.require_queued()?;
        if self.policy.function_removed {
            return Err(Rejected::FunctionRemoved);
        }
        if self.before.is_too_old(self.policy, self.now) {
            return Err(Rejected::TooOld);
        }
        match when {
            ClaimWhen::Due if due > self.now => return Err(Rejected::NotDue(due)),
            ClaimWhen::Due | ClaimWhen::Now => {}
        }
        let next = Execution {
            state: State::Running { fence },
            attempts: self.before.attempts.saturating_add(1),
            started_at: Some(self.now),
            ..self.again()
        };
        Ok(Stepped {
            next,
            effects: Effects::default(),
        })
    }

    /// What an ended attempt, whose claim was checked, comes to.
    fn judge(self, verdict: &Verdict) -> Stepped {
        match verdict {
            Verdict::Success => self.end(self.again(), State::Success),
            Verdict::Error(failure) => self.end(self.again(), State::Error(failure.clone())),
            Verdict::Retry(failure) => self.retry(self.acquitted(), failure, State::Error),
            Verdict::TimedOut(failure) => self.retry(self.acquitted(), failure, State::Timeout),
            Verdict::Requeue(delay_ms) => self.requeue(*delay_ms),
        }
    }

    /// Another attempt if the policy has one left; else the end, with the failure exactly as it came.
    /// An attempt that could only start beyond the allowed age is none: waiting for it would only
    /// replace the failure's cause by `MAX_AGE`.
    fn retry(self, spent: Execution, failure: &Failure, ends_as: fn(Failure) -> State) -> Stepped {
        let delay_ms = retry_delay_ms(
            self.policy.base_delay_ms,
            self.policy.max_delay_ms,
            spent.attempts.saturating_add(1),
            self.policy.jitter,
        );
        let due = self.now.plus_ms(delay_ms);
        let may_run_again = spent.attempts < self.policy.max_attempts
            && !self.policy.function_removed
            && !spent.is_too_old(self.policy, due);
        if may_run_again {
            self.put_back(spent, Requeued::Retry(due))
        } else {
            self.end(spent, ends_as(failure.clone()))
        }
    }

    /// The function's own "not now": the attempt is given back, the wish is counted. A wish without a
    /// delay waits the policy's base delay, without jitter.
    fn requeue(self, delay_ms: Option<u64>) -> Stepped {
        let delay_ms = delay_ms.unwrap_or(self.policy.base_delay_ms);
        let due = self.now.plus_ms(delay_ms);
        let given_back = Execution {
            requeues: self.before.requeues.saturating_add(1),
            deaths: 0,
            ..self.with_attempt_given_back()
        };
        let failure = if self.policy.function_removed {
            reason::removed_meanwhile("it had asked to be run later")
        } else if given_back.requeues > self.policy.max_requeues {
            reason::max_requeues(self.policy)
        } else if given_back.is_too_old(self.policy, due) {
            reason::requeued_beyond_age(self.policy, delay_ms)
        } else {
            return self.put_back(given_back, Requeued::Later(due));
        };
        self.end(given_back, State::Error(failure))
    }

    /// The process died while it ran: a fault that may be its own doing.
    fn lost(self) -> Stepped {
        let counted = Execution {
            deaths: self.before.deaths.saturating_add(1),
            ..self.again()
        };
        let case = Case {
            before: &counted,
            ..self
        };
        case.fault("the server stopped unexpectedly while the attempt ran")
    }

    /// A failure of ours: the attempt is given back, the fault is counted.
    fn fault(self, cause: &str) -> Stepped {
        let given_back = Execution {
            faults: self.before.faults.saturating_add(1),
            ..self.with_attempt_given_back()
        };
        let delay_ms = fault_delay_ms(given_back.faults, self.policy.jitter);
        let due = self.now.plus_ms(delay_ms);
        let failure = if given_back.faults > self.policy.max_faults {
            reason::platform_fault(&given_back, cause)
        } else if self.policy.function_removed {
            reason::removed_meanwhile(cause)
        } else if given_back.is_too_old(self.policy, due) {
            reason::failed_too_old(self.policy, cause)
        } else {
            return self.put_back(given_back, Requeued::Fault(due));
        };
        self.end(given_back, State::Error(failure))
    }

    /// A planned stop is nobody's failure: back to the queue at once, whatever its age (a claim that
    /// finds it too old says so).
    fn interrupt(self) -> Stepped {
        let given_back = self.with_attempt_given_back();
        if self.policy.function_removed {
            let failure = reason::removed_meanwhile("the attempt was interrupted");
            return self.end(given_back, State::Error(failure));
        }
        self.put_back(given_back, Requeued::Interrupt(self.now))
    }

    fn complete(self, fence: Option<Fence>, completion: &Completion) -> Result<Stepped, Rejected> {
        match (&self.before.state, fence) {
            (State::Running { .. }, Some(fence)) => self.require_claim(fence)?,
            (State::Queued { .. }, Some(_)) => return Err(Rejected::Stale),
            (State::Queued { .. } | State::Running { .. }, None) => {}
            (
                State::Success | State::Error(_) | State::Timeout(_) | State::Cancelled(_),
                Some(_) | None,
            ) => return Err(Rejected::Ended),
        }
        let mut stepped = match completion {
            Completion::Success => self.end(self.again(), State::Success),
            Completion::Error(failure) => self.end(self.again(), State::Error(failure.clone())),
            Completion::Timeout(failure) => self.end(self.again(), State::Timeout(failure.clone())),
            Completion::Retry(failure) => {
                self.retry(self.with_attempt_reported()?, failure, State::Error)
            }
        };
        stepped.effects.stop_guest = self.is_running();
        Ok(stepped)
    }

    /// Ends what has not ended, and stops the guest if one runs.
    fn end_by_order(self, state: State) -> Result<Stepped, Rejected> {
        self.require_live()?;
        let mut stepped = self.end(self.again(), state);
        stepped.effects.stop_guest = self.is_running();
        Ok(stepped)
    }

    fn queue_timeout(self, limit_ms: u64) -> Result<Stepped, Rejected> {
        self.require_queued()?;
        // An attempt that was reported from outside is one, too.
        if self.before.started_at.is_some() || self.before.attempts > 0 {
            return Err(Rejected::Begun);
        }
        let failure = reason::queue_timeout(limit_ms);
        Ok(self.end(self.again(), State::Timeout(failure)))
    }

    /// Judged here too, not only by the timer that sends it: work must not end because a clock was early.
    fn age_out(self) -> Result<Stepped, Rejected> {
        self.require_queued()?;
        if !self.before.is_too_old(self.policy, self.now) {
            let limit = self.before.age_since.plus_ms(self.policy.max_age_ms);
            return Err(Rejected::NotDue(limit.plus_ms(1)));
        }
        let failure = reason::too_old(self.before, self.policy);
        Ok(self.end(self.again(), State::Error(failure)))
    }

    /// A new life under the same id: counters and age start again, only `created_at` stays.
    fn redrive(self) -> Result<Stepped, Rejected> {
        match self.before.state {
            State::Error(_) | State::Timeout(_) => {}
            State::Queued { .. } | State::Running { .. } | State::Success | State::Cancelled(_) => {
                return Err(Rejected::NotRedrivable);
            }
        }
        if self.policy.function_removed {
            return Err(Rejected::FunctionRemoved);
        }
        let fresh = Execution {
            created_at: self.before.created_at,
            ..Execution::queued(self.now)
        };
        Ok(self.put_back(fresh, Requeued::Redrive(self.now)))
    }

    /// `record` in a terminal state.
    fn end(self, record: Execution, state: State) -> Stepped {
        Stepped {
            next: Execution {
                state,
                finished_at: Some(self.now),
                ..record
            },
            effects: Effects {
                unqueue: self.is_queued(),
                publish: true,
                ..Effects::default()
            },
        }
    }

    /// `record` in its queue.
    fn put_back(self, record: Execution, why: Requeued) -> Stepped {
        Stepped {
            next: Execution {
                state: State::Queued { due: why.due() },
                ..record
            },
            effects: Effects {
                unqueue: self.is_queued(),
                requeue: Some(why),
                ..Effects::default()
            },
        }
    }

    /// The record as it was, to be changed.
    fn again(self) -> Execution {
        self.before.clone()
    }

    /// The record of one whose attempt came to a verdict: whatever the process died of before, it was not this.
    fn acquitted(self) -> Execution {
        Execution {
            deaths: 0,
            ..self.again()
        }
    }

    fn with_attempt_given_back(self) -> Execution {
        Execution {
            attempts: self.before.attempts.saturating_sub(1),
            ..self.again()
        }
    }

    /// The record with the attempt counted that a report from outside speaks of: the running one is
    /// counted already; see [`Event::Complete`] for a queued execution.
    fn with_attempt_reported(self) -> Result<Execution, Rejected> {
        let mut spent = self.again();
        if self.is_queued() {
            if spent.attempts > 0 {
                return Err(Rejected::Stale);
            }
            spent.attempts = 1;
        }
        Ok(spent)
    }

    fn is_queued(self) -> bool {
        self.require_queued().is_ok()
    }

    fn is_running(self) -> bool {
        self.require_running().is_ok()
    }

    fn require_claim(self, claimed: Fence) -> Result<(), Rejected> {
        match self.before.state {
            State::Running { fence } if fence == claimed => Ok(()),
            State::Running { .. } | State::Queued { .. } => Err(Rejected::Stale),
            State::Success | State::Error(_) | State::Timeout(_) | State::Cancelled(_) => {
                Err(Rejected::Ended)
            }
        }
    }

    fn require_running(self) -> Result<(), Rejected> {
        match self.before.state {
            State::Running { .. } => Ok(()),
            State::Queued { .. } => Err(Rejected::NotRunning),
            State::Success | State::Error(_) | State::Timeout(_) | State::Cancelled(_) => {
                Err(Rejected::Ended)
            }
        }
    }

    fn require_queued(self) -> Result<Timestamp, Rejected> {
        match self.before.state {
            State::Queued { due } => Ok(due),
            State::Running { .. } => Err(Rejected::NotQueued),
            State::Success | State::Error(_) | State::Timeout(_) | State::Cancelled(_) => {
                Err(Rejected::Ended)
            }
        }
    }

    fn require_live(self) -> Result<(), Rejected> {
        match self.before.state {
            State::Queued { .. } | State::Running { .. } => Ok(()),
            State::Success | State::Error(_) | State::Timeout(_) | State::Cancelled(_) => {
                Err(Rejected::Ended)
            }
        }
    }
}
