//! What must be true of the scheduler's state between any two steps, and once all is quiet.
//!
//! **Invariant:** looks, and changes nothing.

use std::collections::HashMap;

use super::super::Scheduler;
use super::super::queue::Class;
use super::super::state::{Home, Settling};
use crate::execution::Status;

impl Scheduler {
    /// Panics where parts of the state contradict each other.
    #[track_caller]
    pub(super) fn check_invariants(&self) {
        let state = self.lock();
        state.queues.check();
        for (id, function) in &state.functions {
            let running = state.queues.running(*id);
            assert_eq!(function.runs.running(), running, "runs that are timed");
        }
        for class in [Class::Guest, Class::Endpoint] {
            let running = state.queues.running_in(class);
            assert_eq!(
                state.admission.running_in(class),
                running,
                "runs of {class:?}"
            );
        }
        let entries = state.queues.entries();
        let in_queues: HashMap<_, _> = entries
            .iter()
            .map(|&(function, id, place)| (id, (function, place)))
            .collect();
        assert_eq!(
            entries.len(),
            in_queues.len(),
            "an execution stands in a queue twice"
        );
        let mut placed = 0;
        let mut bytes = 0;
        for live in state.live.values() {
            let found = in_queues.get(&live.id).copied();
            let expected = live.place.map(|place| (live.function_id, place));
            assert_eq!(found, expected, "the place of {live:?}");
            placed += usize::from(live.place.is_some());
            if live.place.is_some() {
                assert_eq!(live.execution.status(), Status::Queued, "{live:?}");
                assert!(matches!(live.settling, Settling::No), "{live:?}");
            }
            // One that is being redriven shows its old end until it is back.
            let has_ended = live.execution.status().is_terminal();
            assert!(!has_ended || !live.is_visible(), "{live:?}");
            if let (Home::Durable, Some(request)) = (live.home, &live.request) {
                bytes += request.bytes();
            }
        }
        assert_eq!(placed, entries.len(), "a queue holds what is not live");
        assert_eq!(bytes, state.queued_input_bytes, "bytes of inputs in memory");
        let counted: u64 = state.live.values().map(|live| live.uncommitted_bytes).sum();
        assert!(
            counted <= state.uncommitted_bytes(),
            "bytes of results are forgotten"
        );
        let looks_for_work = !self.inner.options.manual && !state.stopping;
        if looks_for_work && !self.is_behind(&state) && !state.aged.is_more() {
            assert!(
                !state.queues.has_startable(),
                "work and a slot, and nobody claims: {:?}",
                state.queues
            );
        }
    }

    /// The same, when no task is under way: nothing runs, nothing settles, no place is promised, and every
    /// queued execution waits where it can be found.
    #[track_caller]
    pub(super) fn check_at_rest(&self) {
        self.check_invariants();
        let state = self.lock();
        assert!(state.is_calm(), "a slot or a decision has leaked");
        assert_eq!(state.queues.reserved(), 0, "a promised place has leaked");
        assert_eq!(state.uncommitted_bytes(), 0, "bytes of results have leaked");
        assert!(self.inner.keys.are_free(), "a key's turn has leaked");
        assert!(
            state.aged.is_done() || state.stopping,
            "work that is too old"
        );
        for live in state.live.values() {
            assert_eq!(live.execution.status(), Status::Queued, "{live:?}");
            assert!(live.place.is_some(), "nobody will ever claim {live:?}");
            assert!(live.run.is_none(), "{live:?}");
        }
    }

    /// How many executions are live.
    pub(super) fn live_count(&self) -> usize {
        self.lock().live.len()
    }
}
