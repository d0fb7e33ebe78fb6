//! Suspects: executions that were running at several deaths of the process, each of which may be what it died of.
//!
//! The first that waits gets a turn: for a short while nobody else starts, and as soon as nothing runs it begins. What
//! kills a process does so at once in nearly all cases, and then nothing is lost and blamed beside it. When the while is
//! over, the others go on, whether it has ended or not; if it could not begin, because something ran for long, it does
//! so beside them once there is room. Then the others have at least as long for themselves as they were held back, and
//! each function that waits has a turn.
//!
//! **Invariant:** no two suspects run at once, so whoever is none is blamed for another's deaths until it becomes one,
//! and then no more; and nobody who could start waits for a suspect longer than that while.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Class, Item, Queue, Queues};
use crate::model::{ExecutionId, Fence, FunctionId};

/// Who may have the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhoseTurn {
    /// Those who are no suspects.
    Others,
    /// A suspect, if there is room for it; else the others.
    SuspectFirst,
    /// A suspect, once nothing runs.
    SuspectAlone,
    /// Nobody: a suspect is by itself.
    Nobody,
}

/// How the others fare.
#[derive(Debug, Clone, Copy)]
enum Others {
    /// They do not start: for a suspect that is by itself, or waits until it can be.
    Held { since: Instant, until: Instant },
    /// They go on.
    Free {
        /// Not held again before this time.
        until: Option<Instant>,
        /// Nor before so many turns of theirs.
        turns: usize,
        /// They were held, and no suspect could begin.
        overdue: bool,
    },
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Suspects {
    alone_max: Duration,
    waiting: BTreeMap<u64, (FunctionId, Item)>,
    running: Option<Fence>,
    others: Others,
    /// The latest time that was told.
    seen: Option<Instant>,
}

impl Suspects {
    /// None; one has this long by itself.
    pub(super) fn new(alone_max: Duration) -> Self {
        Self {
            alone_max,
            waiting: BTreeMap::new(),
            running: None,
            others: Others::Free {
                until: None,
                turns: 0,
                overdue: false,
            },
            seen: None,
        }
    }

    /// One is ready.
    pub(super) fn push(&mut self, sequence: u64, function: FunctionId, item: Item) {
        self.waiting.insert(sequence, (function, item));
    }

    pub(super) fn remove(&mut self, sequence: u64) {
        self.waiting.remove(&sequence);
    }

    pub(super) fn remove_function(&mut self, function: FunctionId) {
        self.waiting.retain(|_, (owner, _)| *owner != function);
    }

    /// Those that are ready, the longest waiting first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, FunctionId, Item)> {
        let all = self.waiting.iter();
        all.map(|(&sequence, &(function, item))| (sequence, function, item))
    }

    /// How many of one function are ready.
    pub(super) fn waiting_of(&self, function: FunctionId) -> usize {
        self.iter().filter(|(_, of, _)| *of == function).count()
    }

    /// Time has passed. So many functions wait for a turn; `able` says whether a suspect's own function would let it
    /// run, without which nobody need be held for it.
    pub(super) fn advance(&mut self, now: Instant, waiting: usize, able: bool) {
        self.seen = Some(now);
        let wanted = self.running.is_none() && able;
        if let Others::Free { until, turns, .. } = &mut self.others {
            *turns = (*turns).min(waiting);
            if wanted && *turns == 0 && until.is_none_or(|until| until <= now) {
                self.hold(now);
            }
        }
        if let Others::Held { until, .. } = self.others {
            if until <= now {
                self.free(now, waiting);
                if let Others::Free { overdue, .. } = &mut self.others {
                    *overdue = wanted;
                }
            } else if !wanted && self.running.is_none() {
                // It was cancelled, or too old to run, or its function has no slot any more.
                self.free(now, waiting);
            }
        }
    }

    fn hold(&mut self, now: Instant) {
        self.others = Others::Held {
            since: now,
            until: now + self.alone_max,
        };
    }

    fn free(&mut self, now: Instant, waiting: usize) {
        if let Others::Held { since, .. } = self.others {
            self.others = Others::Free {
                until: Some(now + now.saturating_duration_since(since)),
                turns: waiting,
                overdue: false,
            };
        }
    }

    /// Whose turn it is, as of the time that was told last.
    pub(super) fn turn(&self) -> WhoseTurn {
        match self.others {
            Others::Held { .. } if self.running.is_some() => WhoseTurn::Nobody,
            Others::Held { .. } => WhoseTurn::SuspectAlone,
            Others::Free { overdue: true, .. }
                if self.running.is_none() && !self.waiting.is_empty() =>
            {
                WhoseTurn::SuspectFirst
            }
            Others::Free { .. } => WhoseTurn::Others,
        }
    }

    /// When to look again though nothing happens; later than the time that was told last.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self.others {
            Others::Held { until, .. } => Some(until),
            Others::Free { until, turns, .. } => {
                let wanted = self.running.is_none() && !self.waiting.is_empty();
                // With turns left it is those that are waited for, and later a slot of the suspect's function.
                let until = until.filter(|_| wanted && turns == 0);
                until.filter(|until| self.seen.is_none_or(|seen| seen < *until))
            }
        }
    }

    /// Whether none waits, and the others do as if there had never been one.
    pub(super) fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && matches!(self.others, Others::Free { turns: 0, .. })
    }

    /// Whether the others are held back.
    pub(super) fn hold_others(&self) -> bool {
        matches!(self.others, Others::Held { .. })
    }

    /// One is about to be taken by hand: it has its while by itself, too.
    pub(super) fn take_by_hand(&mut self, now: Instant) {
        self.hold(now);
    }

    /// Whether one runs by itself at this time.
    pub(super) fn is_alone(&self, now: Instant) -> bool {
        match self.others {
            Others::Held { until, .. } => self.running.is_some() && now < until,
            Others::Free { .. } => false,
        }
    }

    /// Whether one runs, by itself or not.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// One runs.
    pub(super) fn began(&mut self, fence: Fence) {
        self.running = Some(fence);
        if let Others::Free { overdue, .. } = &mut self.others {
            *overdue = false;
        }
    }

    /// A run has ended, of a suspect or not.
    pub(super) fn ended(&mut self, fence: Fence, now: Instant, waiting: usize) {
        if self.running == Some(fence) {
            self.running = None;
            self.free(now, waiting);
        }
    }

    /// One of the others had a turn.
    pub(super) fn others_had_one(&mut self) {
        if let Others::Free { turns, .. } = &mut self.others {
            *turns = turns.saturating_sub(1);
        }
    }

    /// Whose turn it is once it is seen what there is now.
    #[cfg(test)]
    pub(super) fn turn_now(&self, waiting: usize, able: bool) -> WhoseTurn {
        let mut looked = self.clone();
        if let Some(seen) = self.seen {
            looked.advance(seen, waiting, able);
        }
        looked.turn()
    }
}

impl Queues {
    /// Everything that waits in queues, suspects or not, without promised places. A sum that is kept: there may be
    /// millions, and others wait while they are counted.
    pub(in crate::scheduler) fn waiting_all(&self) -> usize {
        self.ready + self.due.len() + self.gate.suspects.waiting.len()
    }

    /// Whether there is nothing to take, now and as time passes.
    pub(in crate::scheduler) fn is_idle(&self) -> bool {
        self.functions_waiting() == 0 && self.gate.suspects.is_at_rest()
    }

    /// Time has passed.
    pub(super) fn advance(&mut self, now: Instant) {
        let (waiting, able) = (self.functions_waiting(), self.has_able_suspect());
        self.gate.suspects.advance(now, waiting, able);
    }

    /// When to look again though nothing happens. In real time, like all limits of what runs.
    pub(in crate::scheduler) fn wakes_at(&self) -> Option<Instant> {
        self.gate.suspects.wakes_at()
    }

    /// Whether a suspect waits whose function has a slot.
    pub(super) fn has_able_suspect(&self) -> bool {
        let mut suspects = self.gate.suspects.iter();
        suspects.any(|(_, function, _)| self.functions.get(&function).is_some_and(Queue::has_slot))
    }

    /// Takes the first suspect that a slot is free for.
    pub(super) fn take_suspect(&mut self) -> Option<(FunctionId, ExecutionId, Class)> {
        let (sequence, function, item) = self.startable_suspect()?;
        self.gate.suspects.remove(sequence);
        Some((function, item.id, item.class))
    }

    /// The first suspect that a slot is free for.
    pub(super) fn startable_suspect(&self) -> Option<(u64, FunctionId, Item)> {
        let mut suspects = self.gate.suspects.iter();
        suspects.find(|(_, function, item)| {
            let queue = self.functions.get(function);
            queue.is_some_and(Queue::has_slot) && self.gate.has_room(*item)
        })
    }
}
