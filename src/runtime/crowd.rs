//! Several calls at once in one instance, where a function of WASI HTTP 0.3 asks for that: who is in it, what each is
//! held to, and how it ends for whom.
//!
//! - A [`Crowd`] is one busy time of one instance: from the call that finds none which it could join to the moment at
//!   which nobody is in it. Its state stands under one lock; the list of those that can be joined is [`Crowds`].
//! - The [keeper](keeper) is a task of its own. It owns the store, the place in the pool and the ticket of the shelf, and
//!   drives the store ([`super::web::attend`]) only while somebody is in it. Then the instance goes to the shelf like any
//!   other that is reused.
//! - A [`Seat`] is the caller's side of one call: it has the call's time and the stop, and judges how it ended, as if it
//!   had been alone. Whoever gives up a seat leaves the crowd.
//!
//! A call that has to be ended (its time is over, it was stopped, its CPU time is spent) leaves at once with its own
//! outcome. What it was doing inside cannot be ended alone, so nobody comes in any more, those who are there come to
//! their own ends, and the instance ends with the last of them; at once, if what was left behind goes on computing. A
//! trap ends the instance at once: it is the call's whose task trapped, and if that cannot be told, everybody's. Who
//! ends by what another did is a bystander.
//!
//! **Invariant:** whatever happens, each call is told its end once, and no instance runs that nobody is in.

mod end;
mod inside;
pub(super) mod keeper;
mod list;
mod seat;
#[cfg(test)]
mod tests;

pub(super) use end::{Blame, Remains};
pub(super) use list::Crowds;
pub(super) use seat::Seat;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wasmtime::component::GuestTaskId;

use self::inside::{InIt, Stage, State};
use super::ending::{Ending, Failed};
use super::output::Capture;
use super::run::usize_of;
use super::watch::Cut;
use super::web::{Conversation, Gathered, Request};
use crate::execution::{Attempt, Outcome};
use crate::model::{OpenSecret, Version};

/// Epochs (of 1 ms) for which what a call has left behind may compute: it may only be tidying up.
const LEFT_TICKS_MAX: u32 = 50;

/// One call, as its caller and its instance share it.
pub(super) struct Call {
    pub(super) attempt: Attempt,
    pub(super) conversation: Conversation,
    /// What it wrote, as far as that can be told.
    capture: Capture,
}

/// How a call ended in its instance.
pub(super) struct Told {
    how: How,
    /// How long loading its code took, if it is the one for which it was loaded.
    init_duration: Option<Duration>,
}

enum How {
    Ended(Ending<()>),
    /// There was no instance.
    Never(Outcome),
}

/// The calls in one instance.
pub(super) struct Crowd {
    version: Arc<Version>,
    secrets: Arc<[OpenSecret]>,
    at_once_max: usize,
    state: Mutex<State>,
}

impl Crowd {
    /// An empty one for calls of a version that are given these secrets. Its instance may be given so many more calls.
    fn new(
        version: &Arc<Version>,
        secrets: &Arc<[OpenSecret]>,
        at_once_max: u32,
        calls_left: u32,
    ) -> Self {
        Self {
            version: Arc::clone(version),
            secrets: Arc::clone(secrets),
            at_once_max: usize::try_from(at_once_max).unwrap_or(usize::MAX),
            state: Mutex::new(State::new(calls_left)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a call in, if there is room for it. Not into an instance that runs, if somebody waits for its place.
    fn join(
        self: &Arc<Self>,
        call: Call,
        request: Request,
        place_is_wanted: bool,
    ) -> Result<Seat, Box<(Call, Request)>> {
        let mut state = self.lock();
        let has_room = state.calls.len() < self.at_once_max && state.calls_left > 0;
        if state.is_closed || !has_room || (state.has_begun && place_is_wanted) {
            return Err(Box::new((call, request)));
        }
        let call = Arc::new(call);
        let (tell, told) = oneshot::channel();
        let id = state.next_id;
        state.next_id += 1;
        state.calls_left -= 1;
        state.calls.push(InIt {
            id,
            call: Arc::clone(&call),
            stage: Stage::Waiting(Box::new(request)),
            began: None,
            task: None,
            cpu: Duration::ZERO,
            init_duration: None,
            tell,
        });
        state.wake_keeper();
        drop(state);
        Ok(Seat::new(Arc::clone(self), id, call, told))
    }

    /// Takes a call out that gives up. Returns the CPU time that was counted for it, or none if it had not begun.
    ///
    /// # Errors
    /// It has ended already.
    fn leave(&self, id: u64) -> Result<Option<Duration>, Ended> {
        let mut state = self.lock();
        let at = state.position(id).ok_or(Ended)?;
        let in_it = state.calls.remove(at);
        let cpu = match in_it.stage {
            Stage::Waiting(_) => {
                state.calls_left += 1;
                None
            }
            Stage::Begun | Stage::Answering | Stage::Answered => {
                state.spoil();
                state.remember(
                    &in_it,
                    LEFT_TICKS_MAX,
                    "a call that was ended went on computing",
                );
                Some(in_it.cpu)
            }
        };
        state.tell_listeners();
        state.wake_keeper();
        Ok(cpu)
    }

    /// Nobody comes in any more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Whoever drives the instance is woken when something of this changes.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        match &mut state.keeper {
            Some(keeper) => keeper.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Whether nobody is in it any more; then nobody comes any more, either.
    pub(super) fn is_deserted(&self) -> bool {
        let mut state = self.lock();
        let is_deserted = state.calls.is_empty();
        state.is_closed |= is_deserted;
        is_deserted
    }

    /// The attempt that has waited for longest.
    fn first(&self) -> Option<Arc<Call>> {
        self.lock()
            .calls
            .first()
            .map(|first| Arc::clone(&first.call))
    }

    /// Its code is loaded and its place taken.
    fn make_ready(&self, init_duration: Option<Duration>) {
        self.lock().init_duration = init_duration;
    }

    /// The instance writes here.
    pub(super) fn begin(&self, capture: Capture) {
        let mut state = self.lock();
        state.has_begun = true;
        state.capture = Some(capture);
        let init_duration = state.init_duration;
        for in_it in &mut state.calls {
            in_it.init_duration = init_duration;
        }
        state.tell_listeners();
    }

    /// The calls that the guest is to be given now, and whether each is alone.
    pub(super) fn arrived(&self) -> Vec<(u64, Arc<Call>, Request, bool)> {
        let mut state = self.lock();
        let mut arrived = Vec::new();
        for (in_guest, in_it) in state.calls.iter_mut().enumerate() {
            let stage = std::mem::replace(&mut in_it.stage, Stage::Begun);
            match stage {
                Stage::Waiting(request) => {
                    in_it.began = (in_guest > 0).then(Instant::now);
                    arrived.push((in_it.id, Arc::clone(&in_it.call), *request, in_guest == 0));
                }
                stage @ (Stage::Begun | Stage::Answering | Stage::Answered) => in_it.stage = stage,
            }
        }
        if !arrived.is_empty() {
            state.tell_listeners();
        }
        arrived
    }

    /// The guest's task for a call.
    pub(super) fn began(&self, id: u64, task: GuestTaskId) {
        let mut state = self.lock();
        // Whoever had this number before is gone.
        state.left.remove(&task);
        if let Some(in_it) = state.find(id) {
            in_it.task = Some(task);
        }
    }

    /// A call failed by itself, and its instance with it.
    pub(super) fn accuse(&self, id: u64) {
        self.lock().accused = Some(id);
    }

    /// The guest has said what it answers.
    pub(super) fn answering(&self, id: u64) {
        if let Some(in_it) = self.lock().find(id) {
            in_it.stage = Stage::Answering;
        }
    }

    /// Looks whose answers are complete by now.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) {
        let mut state = self.lock();
        let mut is_spoilt = false;
        for in_it in &mut state.calls {
            if matches!(in_it.stage, Stage::Answering)
                && in_it.call.conversation.poll_ended(cx).is_ready()
            {
                in_it.stage = Stage::Answered;
                is_spoilt |= !in_it.call.conversation.is_in_order();
            }
        }
        if is_spoilt {
            state.spoil();
        }
    }

    /// Whether all that were given to the guest are answered.
    pub(super) fn is_answered(&self) -> bool {
        self.lock().is_answered()
    }

    /// Whether there is nothing to wait for once all are answered: the guest has no task left, or only such as nobody
    /// waits for.
    pub(super) fn is_abandoned(&self) -> bool {
        let state = self.lock();
        state.is_spoilt && state.is_answered()
    }

    /// Closes it, if nobody came meanwhile.
    pub(super) fn close_if_answered(&self) -> bool {
        let mut state = self.lock();
        let is_answered = state.is_answered();
        state.is_closed |= is_answered;
        is_answered
    }

    /// Whether the instance may answer other calls.
    pub(super) fn is_in_order(&self) -> bool {
        !self.lock().is_spoilt
    }

    fn calls_left(&self) -> u32 {
        self.lock().calls_left
    }

    /// The guest waits: takes what it has answered, as far as callers want it. Returns whether there was any.
    pub(super) fn gather(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.lock();
        let mut found = false;
        let mut is_spoilt = false;
        for in_it in state.in_guest() {
            match in_it.call.conversation.gather(cx) {
                Gathered::Some => found = true,
                Gathered::Nothing => {}
                Gathered::Enough => {
                    in_it.stage = Stage::Answered;
                    is_spoilt = true;
                    found = true;
                }
            }
        }
        if is_spoilt {
            state.spoil();
        }
        found
    }

    /// The guest waits: gives each caller what there is. Returns whether one has all that it wants.
    pub(super) fn hand_over(&self) -> bool {
        let mut state = self.lock();
        let mut is_one_done = false;
        for in_it in state.in_guest() {
            if in_it.call.conversation.hand_over() {
                in_it.stage = Stage::Answered;
                is_one_done = true;
            }
        }
        is_one_done
    }

    /// Lets those go whose answers are complete while others are in it. The last ones wait for what the guest still
    /// does, for it may be theirs.
    pub(super) fn release(&self) {
        let mut state = self.lock();
        if state.is_answered() {
            return;
        }
        let mut gone = Vec::new();
        while let Some(at) = state
            .calls
            .iter()
            .position(|in_it| matches!(in_it.stage, Stage::Answered))
        {
            let in_it = state.calls.remove(at);
            let ticks_max = in_it.ticks_max();
            state.remember(
                &in_it,
                ticks_max,
                "what a call did after its answer took too long",
            );
            gone.push(in_it);
        }
        if gone.is_empty() {
            return;
        }
        state.tell_listeners();
        drop(state);
        for in_it in gone {
            in_it.tell(Ok(()), Remains::FINE);
        }
    }

    /// Counts the CPU time that the instance has used until now: for the call whose task computes, if one is known,
    /// else for all alike. Those that have used up theirs are ended.
    pub(super) fn charge(&self, total: Duration, task: Option<GuestTaskId>) {
        let mut state = self.lock();
        let used = total.saturating_sub(state.charged);
        state.charged = total;
        state.share(used, task);
        while let Some(at) = state.calls.iter().position(InIt::has_spent_all) {
            let in_it = state.calls.remove(at);
            state.spoil();
            state.remember(
                &in_it,
                0,
                "a call that had used up its CPU time went on computing",
            );
            state.tell_listeners();
            // It may have been the last one: then nobody else would look.
            state.wake_keeper();
            in_it.tell(Err(Failed::Cut(Cut::CpuSpent)), Remains::FINE);
        }
    }

    /// An epoch has passed while this task computed. Whether the instance has to end.
    pub(super) fn must_end(&self, task: Option<GuestTaskId>) -> bool {
        let mut state = self.lock();
        if state.calls.is_empty() {
            state.is_closed = true;
            return true;
        }
        let Some(left) = task.and_then(|task| state.left.get_mut(&task)) else {
            return false;
        };
        left.ticks += 1;
        if left.ticks <= left.ticks_max {
            return false;
        }
        let why = left.why;
        state.cut_for = Some(why);
        state.is_closed = true;
        true
    }

    fn take_all(&self) -> Vec<InIt> {
        let mut state = self.lock();
        state.is_closed = true;
        std::mem::take(&mut state.calls)
    }
}

/// The call has ended already, or there is no room for it.
#[derive(Debug)]
pub(super) struct Ended;

impl Call {
    pub(super) fn new(attempt: Attempt, conversation: Conversation) -> Self {
        let capture = Capture::logs_only(usize_of(attempt.version.spec.log_bytes_max));
        Self {
            attempt,
            conversation,
            capture,
        }
    }
}

/// When a call that begins now has to end. A limit beyond the end of time is none; a century is as good.
fn deadline(time_limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time_limit)
        .unwrap_or(now + Duration::from_secs(3_155_760_000))
}
