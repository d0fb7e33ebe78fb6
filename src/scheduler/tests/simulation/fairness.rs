//! Whether functions take turns: while one could run and waits for a slot of the plane, each other one of its
//! kind gets one turn at most.
//!
//! **Invariant:** looks at what the queues say between two steps, and at the order of turns; decides nothing.

use std::collections::BTreeMap;

use crate::model::FunctionId;
use crate::scheduler::Scheduler;
use crate::scheduler::queue::{Turn, Turns};

/// Since when a function waits.
#[derive(Debug, Clone, Copy)]
struct Waits {
    /// Its oldest ready entry then.
    oldest: Turn,
    /// Turns that had been taken by then.
    turns: usize,
}

/// Watches the turns of one plane whose work moves by itself.
#[derive(Debug, Default)]
pub(super) struct Fairness {
    waiting: BTreeMap<FunctionId, Waits>,
    /// How often a function waited for another one's turn.
    pub(super) passed_over: usize,
}

impl Fairness {
    /// Forgets who waits since when: bounds are changing, and a slot may have been lost meanwhile.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Looks, and panics where somebody was passed over.
    #[track_caller]
    pub(super) fn observe(&mut self, scheduler: &Scheduler) {
        let (turns, ready) = {
            let state = scheduler.lock();
            (state.queues.turns(), state.queues.ready_with_slot())
        };
        for (function, waits) in std::mem::take(&mut self.waiting) {
            let still = ready.contains(&waits.oldest);
            if self.check(function, waits, &turns, still) && still {
                self.waiting.insert(function, waits);
            }
        }
        for &oldest in &ready {
            self.waiting.entry(oldest.function).or_insert(Waits {
                oldest,
                turns: turns.len(),
            });
        }
    }

    /// Judges the wait of one function up to its own turn; whether it goes on.
    #[track_caller]
    fn check(&mut self, function: FunctionId, waits: Waits, turns: &Turns, still: bool) -> bool {
        let since = &turns[waits.turns.min(turns.len())..];
        // If the entry has gone another way than by a turn, nobody knows since when.
        if !still && !since.contains(&waits.oldest) {
            return false;
        }
        let mut others: BTreeMap<FunctionId, usize> = BTreeMap::new();
        for turn in since {
            if turn.function == function {
                return false;
            }
            if turn.class == waits.oldest.class {
                self.passed_over += 1;
                let count = others.entry(turn.function).or_default();
                *count += 1;
                assert!(
                    *count <= 1,
                    "{function:?} waits, and another had turn after turn: {others:?}"
                );
            }
        }
        true
    }
}
