//! How an instance with calls in it ends, and for whom.
//!
//! **Invariant:** a failure is the call's whose doing it was, if that can be told; nobody else's attempt is spent for it.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use wasmtime::component::GuestTaskId;

use super::inside::Stage;
use super::{Crowd, How, Told};
use crate::execution::Outcome;
use crate::runtime::ending::Failed;
use crate::runtime::limits::Denial;

/// Whose an end of the instance is.
pub(in crate::runtime) enum Blame {
    /// The call's under this number.
    Call(u64),
    /// It is that of somebody who has gone. Why, in words that fit behind "the instance ended: ".
    Gone(&'static str),
    /// Nothing tells.
    Unknown,
}

/// What became of the instance, as far as it concerns all.
#[derive(Clone, Copy)]
pub(in crate::runtime) struct Remains {
    pub(in crate::runtime) instantiated: bool,
    pub(in crate::runtime) denial: Option<Denial>,
    /// When the denial was.
    pub(in crate::runtime) denied_at: Option<Instant>,
}

impl Crowd {
    /// Whose it is that the instance has trapped, as this task was the one that ran.
    pub(in crate::runtime) fn blame(&self, task: Option<GuestTaskId>) -> Blame {
        let state = self.lock();
        if let Some(why) = state.cut_for {
            return Blame::Gone(why);
        }
        if let Some(id) = state.accused {
            return Blame::Call(id);
        }
        let Some(task) = task else {
            return Blame::Unknown;
        };
        if let Some(in_it) = state.calls.iter().find(|in_it| in_it.task == Some(task)) {
            return Blame::Call(in_it.id);
        }
        match state.left.contains_key(&task) {
            true => Blame::Gone("a call that had left it trapped"),
            false => Blame::Unknown,
        }
    }

    /// The guest has ended while its store still lives: what is left of the answers is taken.
    pub(in crate::runtime) fn guest_ended(&self, cx: &mut Context<'_>, returned: bool) {
        let mut state = self.lock();
        for in_it in state.in_guest() {
            in_it.call.conversation.guest_ended(cx, returned);
        }
    }

    /// Tells all who are still in it how it ended.
    pub(super) fn end(&self, result: Result<(), (wasmtime::Error, Blame)>, remains: Remains) {
        let calls = self.take_all();
        let last_left = self.lock().last_left;
        let (error, blame) = match result {
            Ok(()) => {
                for in_it in calls {
                    in_it.tell(Ok(()), remains);
                }
                return;
            }
            Err(failed) => failed,
        };
        let culprit = match (blame, &calls[..]) {
            (Blame::Call(id), _) => Some(id),
            // Nobody else can have done it.
            (Blame::Unknown, [alone]) => Some(alone.id),
            (Blame::Unknown, _) => None,
            (Blame::Gone(why), _) => {
                for in_it in calls {
                    in_it.stand_by(why, remains);
                }
                return;
            }
        };
        let Some(culprit) = culprit else {
            let error = Arc::new(error);
            for in_it in calls {
                // One that had not begun has no part in what the guest does, but for its making.
                if remains.instantiated && matches!(in_it.stage, Stage::Waiting(_)) {
                    in_it.stand_by("another call in it failed", remains);
                } else {
                    let remains = remains.since(in_it.began, last_left);
                    in_it.tell(Err(Failed::Shared(Arc::clone(&error))), remains);
                }
            }
            return;
        };
        let mut error = Some(error);
        for in_it in calls {
            match error.take_if(|_| in_it.id == culprit) {
                Some(error) => {
                    let remains = remains.since(in_it.began, last_left);
                    in_it.tell(Err(Failed::Error(error)), remains);
                }
                None => in_it.stand_by("another call in it failed", remains),
            }
        }
    }

    /// There will be no instance.
    pub(super) fn never(&self, outcome: &Outcome) {
        for in_it in self.take_all() {
            let _ = in_it.tell.send(Told {
                how: How::Never(outcome.clone()),
                init_duration: None,
            });
        }
    }
}

impl Remains {
    pub(super) const FINE: Self = Self {
        instantiated: true,
        denial: None,
        denied_at: None,
    };

    /// What of it concerns a call that began then, if others had. A refusal from before is not its; nor is one that
    /// somebody has seen who has left since, for a guest that does not get over one mostly traps at once.
    pub(super) fn since(self, began: Option<Instant>, last_left: Option<Instant>) -> Self {
        let is_before = |at| {
            let is_later = |it: Option<Instant>| it.is_some_and(|it| it >= at);
            is_later(began) || is_later(last_left)
        };
        match self.denied_at.is_some_and(is_before) {
            true => Self {
                denial: None,
                denied_at: None,
                ..self
            },
            false => self,
        }
    }
}
