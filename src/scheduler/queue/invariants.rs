//! What must be true of the queues whenever nobody is changing them.
//!
//! **Invariant:** looks, and changes nothing.

use super::{Class, ExecutionId, Lane, Lanes, Place, Queues};
use crate::model::{Fence, FunctionId};

impl Queues {
    /// Every entry: whose, where.
    pub(in crate::scheduler) fn entries(&self) -> Vec<(FunctionId, ExecutionId, Place)> {
        let mut entries = Vec::new();
        for (&function, queue) in &self.functions {
            let all = queue.lanes.entries();
            entries.extend(all.map(|(place, item)| (function, item.id, place)));
        }
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
            let running = |fence: &&Fence| {
                let mut classes = self.running.iter();
                classes.any(|class| class.get(fence) == Some(&function))
            };
            let held = queue.claims.iter().filter(running).count();
            assert_eq!(
                held,
                queue.claims.len(),
                "a claim of {function:?} without a slot"
            );
            let counted = self.running.iter().flat_map(|class| class.values());
            let counted = counted.filter(|&&owner| owner == function).count();
            assert_eq!(counted, held, "a slot of {function:?} without a claim");
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
        for (running, max) in self.running.iter().zip(self.running_max) {
            assert!(running.len() <= max, "more attempts than the plane allows");
        }
    }

    /// Whether something could be claimed at once.
    pub(in crate::scheduler) fn has_startable(&self) -> bool {
        self.functions.values().any(|queue| {
            let next = queue.lanes.next();
            queue.has_slot() && next.is_some_and(|(_, item)| self.plane_has_slot(item.class))
        })
    }
}
