//! What stands under a crowd's lock: who is in it, how far each has come, and what others have left behind.
//!
//! **Invariant:** whoever is taken out of it is told its end, or has given up by itself.

use std::collections::HashMap;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wasmtime::component::GuestTaskId;

use super::{Call, How, Remains, Told};
use crate::runtime::ending::{Ending, Failed};
use crate::runtime::output::Capture;
use crate::runtime::web::Request;
use std::sync::Arc;

/// All of it.
pub(super) struct State {
    /// Nobody comes in any more.
    pub(super) is_closed: bool,
    /// The instance is there.
    pub(super) has_begun: bool,
    /// The instance may not answer other calls after these.
    pub(super) is_spoilt: bool,
    pub(super) calls: Vec<InIt>,
    pub(super) calls_left: u32,
    pub(super) next_id: u64,
    /// When one that the guest had was last taken out.
    pub(super) last_left: Option<Instant>,
    /// The tasks of calls that are not in it any more.
    pub(super) left: HashMap<GuestTaskId, Left>,
    /// Why what was left behind had to be ended.
    pub(super) cut_for: Option<&'static str>,
    /// The call that failed by itself, where one is known.
    pub(super) accused: Option<u64>,
    /// CPU time that is charged to somebody.
    pub(super) charged: Duration,
    pub(super) capture: Option<Capture>,
    pub(super) init_duration: Option<Duration>,
    pub(super) keeper: Option<Waker>,
}

/// A call that is in it.
pub(super) struct InIt {
    pub(super) id: u64,
    pub(super) call: Arc<Call>,
    pub(super) stage: Stage,
    /// When it was given to the guest, if that had others then.
    pub(super) began: Option<Instant>,
    pub(super) task: Option<GuestTaskId>,
    pub(super) cpu: Duration,
    pub(super) init_duration: Option<Duration>,
    pub(super) tell: oneshot::Sender<Told>,
}

/// How far a call has come.
pub(super) enum Stage {
    /// It waits to be begun.
    Waiting(Box<Request>),
    /// The guest has it.
    Begun,
    /// The guest has said what it answers, and the body is on its way.
    Answering,
    /// The answer is complete, or nobody wants the rest.
    Answered,
}

/// What a call that is gone has left behind.
pub(super) struct Left {
    pub(super) ticks: u32,
    pub(super) ticks_max: u32,
    pub(super) why: &'static str,
}

impl InIt {
    pub(super) fn tell(self, result: Result<(), Failed>, remains: Remains) {
        self.call.conversation.guest_cut();
        let ending = Ending {
            result,
            instantiated: remains.instantiated,
            denial: remains.denial,
            cpu: self.cpu,
            capture: self.call.capture.clone(),
        };
        // Whoever has given up was told by itself.
        let _ = self.tell.send(Told {
            how: How::Ended(ending),
            init_duration: self.init_duration,
        });
    }

    pub(super) fn stand_by(self, why: &str, remains: Remains) {
        let why = format!(
            "the instance that this call shared with others ended before it was done: {why}"
        );
        self.tell(Err(Failed::Bystander(why)), remains);
    }

    pub(super) fn has_spent_all(&self) -> bool {
        let limit = self.call.attempt.version.spec.cpu_ms;
        limit.is_some_and(|limit| self.cpu >= Duration::from_millis(limit))
    }

    /// Epochs for which what it does after its answer may compute.
    pub(super) fn ticks_max(&self) -> u32 {
        let attempt = &self.call.attempt;
        let time_ms = u64::try_from(attempt.time_limit.as_millis()).unwrap_or(u64::MAX);
        let cpu_ms = attempt.version.spec.cpu_ms.unwrap_or(u64::MAX);
        u32::try_from(time_ms.min(cpu_ms)).unwrap_or(u32::MAX)
    }
}

impl State {
    /// Nobody is in it yet.
    pub(super) fn new(calls_left: u32) -> Self {
        Self {
            is_closed: false,
            has_begun: false,
            is_spoilt: false,
            calls: Vec::new(),
            calls_left,
            next_id: 0,
            last_left: None,
            left: HashMap::new(),
            cut_for: None,
            accused: None,
            charged: Duration::ZERO,
            capture: None,
            init_duration: None,
            keeper: None,
        }
    }

    pub(super) fn position(&self, id: u64) -> Option<usize> {
        self.calls.iter().position(|in_it| in_it.id == id)
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut InIt> {
        self.calls.iter_mut().find(|in_it| in_it.id == id)
    }

    /// Those that the guest has, and has not answered in full.
    pub(super) fn in_guest(&mut self) -> impl Iterator<Item = &mut InIt> {
        self.calls
            .iter_mut()
            .filter(|in_it| matches!(in_it.stage, Stage::Begun | Stage::Answering))
    }

    pub(super) fn is_answered(&self) -> bool {
        self.calls
            .iter()
            .all(|in_it| matches!(in_it.stage, Stage::Answered))
    }

    pub(super) fn spoil(&mut self) {
        self.is_spoilt = true;
        self.is_closed = true;
    }

    /// A call that the guest had is taken out.
    pub(super) fn remember(&mut self, in_it: &InIt, ticks_max: u32, why: &'static str) {
        self.last_left = Some(Instant::now());
        if let Some(task) = in_it.task {
            let left = Left {
                ticks: 0,
                ticks_max,
                why,
            };
            self.left.insert(task, left);
        }
    }

    /// What is used by a task that is nobody's any more is its own affair, and so held to epochs.
    pub(super) fn share(&mut self, used: Duration, task: Option<GuestTaskId>) {
        if let Some(task) = task {
            if let Some(in_it) = self.calls.iter_mut().find(|it| it.task == Some(task)) {
                in_it.cpu += used;
                return;
            }
            if self.left.contains_key(&task) {
                return;
            }
        }
        let has_guest = |in_it: &&mut InIt| !matches!(in_it.stage, Stage::Waiting(_));
        let sharing = self.calls.iter_mut().filter(has_guest).count();
        let share = used / u32::try_from(sharing).unwrap_or(u32::MAX).max(1);
        // Before the guest has any it is made for all of them.
        for in_it in &mut self.calls {
            if sharing == 0 || !matches!(in_it.stage, Stage::Waiting(_)) {
                in_it.cpu += share;
            }
        }
    }

    /// Those whose lines these may be: whom the guest has; before it has any, whom it was made for.
    pub(super) fn tell_listeners(&self) {
        let Some(capture) = &self.capture else {
            return;
        };
        let is_in_guest = |in_it: &&InIt| !matches!(in_it.stage, Stage::Waiting(_));
        let of = |in_it: &InIt| in_it.call.capture.clone();
        let mut listeners: Vec<_> = self.calls.iter().filter(is_in_guest).map(of).collect();
        if listeners.is_empty() {
            listeners = self.calls.iter().map(of).collect();
        }
        capture.tell(listeners);
    }

    pub(super) fn wake_keeper(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }
}
