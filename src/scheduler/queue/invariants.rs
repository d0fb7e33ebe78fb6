//! What must be true of the queues whenever nobody is changing them.
//!
//! **Invariant:** looks, and changes nothing.

use super::{Class, ExecutionId, Lane, Lanes, Place, Queues, WhoseTurn};
use crate::model::{Fence, FunctionId};

/// A turn that a function had, or would have next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct Turn {
    pub(in crate::scheduler) function: FunctionId,
    pub(in crate::scheduler) class: Class,
    pub(in crate::scheduler) id: ExecutionId,
}

/// Turns in their order.
pub(in crate::scheduler) type Turns = Vec<Turn>;

impl Queues {
    /// All turns so far; what is taken by hand is none.
    pub(in crate::scheduler) fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// The ready entries of functions that have a slot, the oldest of each function first.
    pub(in crate::scheduler) fn ready_with_slot(&self) -> Turns {
        let mut ready = Vec::new();
        for (&function, queue) in &self.functions {
            for (place, item) in queue.lanes.entries().filter(|_| queue.has_slot()) {
                if let Place::Ready(sequence) = place {
                    let (class, id) = (item.class, item.id);
                    ready.push((
                        sequence,
                        Turn {
                            function,
                            class,
                            id,
                        },
                    ));
                }
            }
        }
        ready.sort_unstable_by_key(|(sequence, _)| *sequence);
        ready.into_iter().map(|(_, turn)| turn).collect()
    }

    /// Every entry: whose, where.
    pub(in crate::scheduler) fn entries(&self) -> Vec<(FunctionId, ExecutionId, Place)> {
        let mut entries = Vec::new();
        for (&function, queue) in &self.functions {
            let all = queue.lanes.entries();
            entries.extend(all.map(|(place, item)| (function, item.id, place)));
        }
        let suspects = self.gate.suspects.iter();
        entries.extend(
            suspects
                .map(|(sequence, function, item)| (function, item.id, Place::Suspect(sequence))),
        );
        entries
    }

    /// Places promised and not yet used, over all functions.
    pub(in crate::scheduler) fn reserved(&self) -> usize {
        let queues = self.functions.values();
        queues.map(|queue| queue.lanes.reserved()).sum()
    }

    /// Panics where the parts contradict each other.
    #[track_caller]
    pub(in crate::scheduler) fn check(&self) {
        for (&function, queue) in &self.functions {
            let mine = |&(_, owner): &(Fence, FunctionId)| owner == function;
            let slots: Vec<_> = self.gate.running().filter(mine).collect();
            let held = slots.iter().all(|(fence, _)| queue.claims.contains(fence));
            assert!(held, "a slot of {function:?} without a claim");
            assert_eq!(
                slots.len(),
                queue.claims.len(),
                "a claim of {function:?} without a slot"
            );
            queue.lanes.check();
            for (due, sequence) in queue.lanes.deferred_keys() {
                assert!(
                    self.due.contains(&(due, sequence, function)),
                    "deferred work nobody wakes"
                );
            }
            if queue.lanes.ready() > 0 && queue.has_slot() {
                assert!(
                    queue.ring.is_some(),
                    "{function:?} could run, but has no turn"
                );
            }
            let turns = |class: Class| {
                let ring = self.rings[class as usize].iter();
                ring.filter(|&&turn| turn == function).count()
            };
            for class in [Class::Guest, Class::Endpoint] {
                let expected = usize::from(queue.ring == Some(class));
                assert_eq!(turns(class), expected, "turns of {function:?} as {class:?}");
            }
        }
        let deferred: usize = self
            .functions
            .values()
            .map(|queue| queue.lanes.deferred_keys().count())
            .sum();
        assert_eq!(deferred, self.due.len(), "due times without work");
        let sum = |count: fn(&Lanes) -> usize| -> usize {
            let queues = self.functions.values();
            queues.map(|queue| count(&queue.lanes)).sum()
        };
        let callers = sum(|lanes| lanes.waiting_in(Lane::Caller));
        assert_eq!(self.callers_waiting, callers, "the sum of waiting callers");
        assert_eq!(self.ready, sum(Lanes::ready), "the sum of ready work");
        assert_eq!(
            self.waiting_all(),
            self.entries().len(),
            "the sum of what waits"
        );
        self.gate.check();
    }

    /// Whose turn it is, of suspects and others.
    fn turn_now(&self) -> WhoseTurn {
        let (waiting, able) = (self.functions_waiting(), self.has_able_suspect());
        self.gate.suspects.turn_now(waiting, able)
    }

    /// Whether something could be claimed at once.
    pub(in crate::scheduler) fn has_startable(&self) -> bool {
        let in_rings = [Class::Guest, Class::Endpoint].into_iter().any(|class| {
            let mut ring = self.rings[class as usize].iter();
            let head = ring.find_map(|&function| {
                let (_, item) = self.head_with_slot(function)?;
                (item.class == class).then_some(item)
            });
            head.is_some_and(|head| self.gate.has_room(head))
        });
        match self.turn_now() {
            WhoseTurn::Others => in_rings,
            WhoseTurn::SuspectFirst => in_rings || self.startable_suspect().is_some(),
            WhoseTurn::SuspectAlone => self.gate.count_all() == 0,
            WhoseTurn::Nobody => false,
        }
    }
}
