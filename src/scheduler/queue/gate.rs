//! What may run at once in the whole plane: attempts of each kind, the bytes of their inputs, fewer of both just
//! after a start that found a backlog, and [suspects](super::suspects).
//!
//! **Invariant:** free slots are derived from the set of live claims, never from a counter of their own.

use std::time::Duration;

use tokio::time::Instant;

use super::suspects::Suspects;
use super::{Class, Company, Item};
use crate::model::{Fence, FunctionId, IdMap};

/// Steps in which the bounds grow after a start.
pub(in crate::scheduler) const RAMP_STEPS: u32 = 16;

/// The plane's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct PlaneBounds {
    /// Wasm attempts.
    pub(in crate::scheduler) guests_max: u32,
    /// Calls to services.
    pub(in crate::scheduler) endpoint_calls_max: u32,
    /// Bytes of the inputs of either kind; one larger input runs alone of its kind.
    pub(in crate::scheduler) input_bytes_max: u64,
    /// How long a suspect holds the others back.
    pub(in crate::scheduler) suspect_alone_max: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    function: FunctionId,
    input_bytes: u64,
    #[cfg(test)]
    company: Company,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    running: [IdMap<Fence, Running>; 2],
    input_bytes: [u64; 2],
    bounds: PlaneBounds,
    /// Of [`RAMP_STEPS`].
    ramp: u32,
    pub(super) suspects: Suspects,
}

impl Gate {
    pub(super) fn new(bounds: PlaneBounds) -> Self {
        Self {
            running: Default::default(),
            input_bytes: [0; 2],
            bounds,
            ramp: RAMP_STEPS,
            suspects: Suspects::new(bounds.suspect_alone_max),
        }
    }

    /// Lets so many sixteenths of the bounds be used.
    pub(super) fn set_ramp(&mut self, steps: u32) {
        self.ramp = steps.clamp(1, RAMP_STEPS);
    }

    /// Slots of a class, as many as the ramp lets be used.
    pub(super) fn slots_max(&self, class: Class) -> usize {
        let max = match class {
            Class::Guest => self.bounds.guests_max,
            Class::Endpoint => self.bounds.endpoint_calls_max,
        };
        let ramped = u64::from(max) * u64::from(self.ramp) / u64::from(RAMP_STEPS);
        usize::try_from(ramped.max(1)).unwrap_or(usize::MAX)
    }

    /// Whether an ordinary execution of this class would find a slot.
    pub(super) fn has_slot(&self, class: Class) -> bool {
        !self.suspects.hold_others() && self.count(class) < self.slots_max(class)
    }

    /// Whether there is room for this one beside what runs.
    pub(super) fn has_room(&self, item: Item) -> bool {
        if item.company == Company::NoSuspect && self.suspects.is_running() {
            return false;
        }
        let class = item.class;
        let bytes = self.input_bytes[class as usize].saturating_add(item.input_bytes);
        let fits = bytes <= self.bounds.input_bytes_max || self.count(class) == 0;
        fits && self.count(class) < self.slots_max(class)
    }

    pub(super) fn claim(&mut self, function: FunctionId, item: Item, fence: Fence) {
        let class = item.class as usize;
        let running = Running {
            function,
            input_bytes: item.input_bytes,
            #[cfg(test)]
            company: item.company,
        };
        if self.running[class].insert(fence, running).is_none() {
            self.input_bytes[class] += item.input_bytes;
        }
        if item.company == Company::NoSuspect {
            self.suspects.began(fence);
        }
    }

    /// Frees a claim's slot; so many functions wait for a turn.
    pub(super) fn release(
        &mut self,
        fence: Fence,
        now: Instant,
        waiting: usize,
    ) -> Option<(FunctionId, Class)> {
        let classes = [Class::Guest, Class::Endpoint];
        let mut holds = classes.into_iter();
        let class = holds.find(|class| self.running[*class as usize].contains_key(&fence))?;
        let running = self.running[class as usize].remove(&fence)?;
        self.input_bytes[class as usize] -= running.input_bytes;
        self.suspects.ended(fence, now, waiting);
        Some((running.function, class))
    }

    /// Attempts that run: whose.
    #[cfg(test)]
    pub(super) fn running(&self) -> impl Iterator<Item = (Fence, FunctionId)> {
        let all = self.running.iter().flatten();
        all.map(|(&fence, running)| (fence, running.function))
    }

    /// Panics where a bound is passed, or a sum is wrong.
    #[cfg(test)]
    #[track_caller]
    pub(super) fn check(&self) {
        for (claims, bytes) in self.running.iter().zip(self.input_bytes) {
            let sum: u64 = claims.values().map(|running| running.input_bytes).sum();
            assert_eq!(bytes, sum, "bytes of running inputs");
            let one = claims.len() <= 1;
            assert!(
                one || bytes <= self.bounds.input_bytes_max,
                "too many bytes run"
            );
        }
        assert!(self.count(Class::Guest) <= self.bounds.guests_max as usize);
        assert!(self.count(Class::Endpoint) <= self.bounds.endpoint_calls_max as usize);
        let running = self.running.iter().flat_map(IdMap::values);
        let suspects = running.filter(|running| running.company == Company::NoSuspect);
        let expected = usize::from(self.suspects.is_running());
        assert_eq!(suspects.count(), expected, "suspects that run at once");
    }

    pub(super) fn count(&self, class: Class) -> usize {
        self.running[class as usize].len()
    }

    pub(super) fn count_all(&self) -> usize {
        self.running.iter().map(IdMap::len).sum()
    }
}
