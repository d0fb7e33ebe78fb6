//! What may run at once in the whole plane: attempts of each kind, the bytes of their inputs, fewer of both just
//! after a start that found a backlog, and suspects by themselves.
//!
//! A suspect is an execution that was running at several deaths of the process. It runs when nothing else does, so
//! that if it dies again nobody is blamed beside it; between two suspects the others have a turn each.
//!
//! **Invariant:** free slots are derived from the set of live claims, never from a counter of their own.

use std::collections::BTreeMap;

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
}

#[derive(Debug, Clone, Copy)]
struct Running {
    function: FunctionId,
    input_bytes: u64,
}

/// Who may have the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turns {
    /// Anybody: no suspect waits.
    Others,
    /// The others, as long as one of them can; else the first suspect.
    OthersFirst,
    /// The first suspect, once nothing runs.
    Suspect,
    /// Nobody: a suspect runs.
    Nobody,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    running: [IdMap<Fence, Running>; 2],
    input_bytes: [u64; 2],
    bounds: PlaneBounds,
    /// Of [`RAMP_STEPS`].
    ramp: u32,
    suspects: BTreeMap<u64, (FunctionId, Item)>,
    /// The claim of the suspect that runs.
    alone: Option<Fence>,
    /// Turns that others have before the next suspect.
    turns_of_others: usize,
}

impl Gate {
    pub(super) fn new(bounds: PlaneBounds) -> Self {
        Self {
            running: Default::default(),
            input_bytes: [0; 2],
            bounds,
            ramp: RAMP_STEPS,
            suspects: BTreeMap::new(),
            alone: None,
            turns_of_others: 0,
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
        self.turns() == Turns::Others && self.count(class) < self.slots_max(class)
    }

    /// Whether this one may run beside what runs.
    pub(super) fn has_room(&self, item: Item) -> bool {
        if self.alone.is_some() || (item.company == Company::None && self.count_all() > 0) {
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
        };
        if self.running[class].insert(fence, running).is_none() {
            self.input_bytes[class] += item.input_bytes;
        }
        if item.company == Company::None {
            self.alone = Some(fence);
        }
    }

    /// Frees a claim's slot; `functions` is how many others wait for a turn now.
    pub(super) fn release(&mut self, fence: Fence, waiting: usize) -> Option<(FunctionId, Class)> {
        let classes = [Class::Guest, Class::Endpoint];
        let mut holds = classes.into_iter();
        let class = holds.find(|class| self.running[*class as usize].contains_key(&fence))?;
        let running = self.running[class as usize].remove(&fence)?;
        self.input_bytes[class as usize] -= running.input_bytes;
        if self.alone == Some(fence) {
            self.alone = None;
            self.turns_of_others = waiting;
        }
        Some((running.function, class))
    }

    /// A suspect is ready.
    pub(super) fn push_suspect(&mut self, sequence: u64, function: FunctionId, item: Item) {
        self.suspects.insert(sequence, (function, item));
    }

    pub(super) fn remove_suspect(&mut self, sequence: u64) {
        self.suspects.remove(&sequence);
    }

    pub(super) fn remove_function(&mut self, function: FunctionId) {
        self.suspects.retain(|_, (owner, _)| *owner != function);
    }

    /// Suspects that are ready, the longest waiting first.
    pub(super) fn suspects(&self) -> impl Iterator<Item = (u64, FunctionId, Item)> {
        let all = self.suspects.iter();
        all.map(|(&sequence, &(function, item))| (sequence, function, item))
    }

    pub(super) fn suspects_of(&self, function: FunctionId) -> usize {
        self.suspects().filter(|(_, of, _)| *of == function).count()
    }

    /// Whether the others may have a turn now, and whether the first suspect may.
    pub(super) fn turns(&self) -> Turns {
        if self.suspects.is_empty() {
            Turns::Others
        } else if self.alone.is_some() {
            Turns::Nobody
        } else if self.turns_of_others > 0 {
            Turns::OthersFirst
        } else {
            Turns::Suspect
        }
    }

    /// One of the others had a turn that it has before the next suspect.
    pub(super) fn others_had_one(&mut self) {
        self.turns_of_others = self.turns_of_others.saturating_sub(1);
    }

    /// Takes the first suspect, if nothing else runs.
    pub(super) fn take_suspect(&mut self) -> Option<(FunctionId, Item)> {
        if self.count_all() > 0 {
            return None;
        }
        self.turns_of_others = 0;
        self.suspects.pop_first().map(|(_, suspect)| suspect)
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
        if let Some(alone) = self.alone {
            let running: Vec<_> = self.running().map(|(fence, _)| fence).collect();
            assert_eq!(running, [alone], "a suspect has company");
        }
    }

    pub(super) fn count(&self, class: Class) -> usize {
        self.running[class as usize].len()
    }

    pub(super) fn count_all(&self) -> usize {
        self.running.iter().map(IdMap::len).sum()
    }
}
