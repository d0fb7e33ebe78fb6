//! Who is next: ready queues per function, a ring for fairness between functions, deferred work apart.
//!
//! A function stands in a ring while it has ready work and a free slot; each turn of the ring takes one
//! execution and sends the function to the end, so a hot function cannot starve a cold one. Within a function
//! callers who wait and queued work have a lane each, and turns. Free slots are derived from the set of live
//! claims, never from a counter of their own.
//!
//! **Invariant:** pure. No clock, no lock, no task: the same calls give the same order.

mod gate;
mod lanes;
mod line;
mod suspects;

use std::collections::{BTreeSet, HashSet, VecDeque};

use gate::Gate;
pub(super) use gate::{PlaneBounds, RAMP_STEPS};
use lanes::Lanes;
pub(super) use lanes::{Item, Lane};
use suspects::WhoseTurn;
use tokio::time::Instant;

use crate::model::{ExecutionId, Fence, FunctionId, IdMap, IdSet, Timestamp};

/// What kind of place an attempt takes; each kind has a bound for the whole plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// A wasm instance in this process.
    Guest,
    /// A request to a service behind a URL.
    Endpoint,
}

/// Where an execution waits; needed to take it out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Among the ready ones, in arrival order.
    Ready(u64),
    /// Deferred until a time.
    Deferred(Timestamp, u64),
    /// Among the suspects that are ready, in arrival order.
    Suspect(u64),
}

/// In what company an execution may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Beside any others.
    Any,
    /// It is a suspect: by itself for a while, and never beside another one.
    NoSuspect,
}

/// Settings of one function that the queue obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Attempts at once.
    pub(super) concurrency: u32,
    /// New executions waiting.
    pub(super) queue_size: u32,
}

#[derive(Debug)]
struct Queue {
    bounds: Bounds,
    lanes: Lanes,
    claims: IdSet<Fence>,
    ring: Option<Class>,
}

impl Queue {
    fn has_slot(&self) -> bool {
        self.claims.len() < self.bounds.concurrency as usize
    }
}

/// A new execution does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// What taking by hand found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// This one is next; it has left the queue.
    Next(ExecutionId),
    /// There is work, but no slot.
    Busy,
    /// There is no work (that may be taken).
    Empty,
}

/// All queues of a plane.
#[derive(Debug)]
pub(super) struct Queues {
    functions: IdMap<FunctionId, Queue>,
    rings: [VecDeque<FunctionId>; 2],
    gate: Gate,
    due: BTreeSet<(Timestamp, u64, FunctionId)>,
    sequence: u64,
    /// Executions with a caller that wait, in all functions, promised places included.
    callers_waiting: usize,
    /// Executions that are ready, in all functions.
    ready: usize,
    #[cfg(test)]
    turns: Turns,
}

/// What a new execution with a caller would find in front of it, now that no slot is free for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowd {
    /// Turns of its own function that come before its own.
    pub(super) before: usize,
    /// Slots that these turns are taken by.
    pub(super) slots: usize,
    /// The whole plane's, where it is the plane that has no slot: turns that come before, and slots.
    pub(super) plane: Option<(usize, usize)>,
}

impl Queues {
    /// Empty queues of a plane with these bounds.
    pub(super) fn new(bounds: PlaneBounds) -> Self {
        Self {
            functions: IdMap::default(),
            rings: Default::default(),
            gate: Gate::new(bounds),
            due: BTreeSet::new(),
            sequence: 0,
            callers_waiting: 0,
            ready: 0,
            #[cfg(test)]
            turns: Turns::new(),
        }
    }

    /// Changes what waits for a function, and keeps the sums over all functions.
    fn change<T>(
        &mut self,
        function: FunctionId,
        change: impl FnOnce(&mut Queue) -> T,
    ) -> Option<T> {
        let queue = self.functions.get_mut(&function)?;
        let sums = |queue: &Queue| (queue.lanes.waiting_in(Lane::Caller), queue.lanes.ready());
        let (callers, ready) = sums(queue);
        let result = change(queue);
        let (callers_now, ready_now) = sums(queue);
        self.callers_waiting = (self.callers_waiting + callers_now).saturating_sub(callers);
        self.ready = (self.ready + ready_now).saturating_sub(ready);
        Some(result)
    }

    /// Whether this function has a queue here.
    pub(super) fn knows(&self, function: FunctionId) -> bool {
        self.functions.contains_key(&function)
    }

    /// Makes a function's queue, or changes its bounds; they act at once.
    pub(super) fn set_bounds(&mut self, function: FunctionId, bounds: Bounds) {
        let queue = self.functions.entry(function).or_insert_with(|| Queue {
            bounds,
            lanes: Lanes::default(),
            claims: IdSet::default(),
            ring: None,
        });
        if queue.bounds != bounds {
            queue.bounds = bounds;
            self.enter_ring(function);
        }
    }

    /// Forgets a function that has no work waiting; its running claims stay counted in the plane's bound.
    pub(super) fn remove_function(&mut self, function: FunctionId) {
        let gone = self.change(function, |queue| std::mem::take(&mut queue.lanes));
        for (due, sequence) in gone.iter().flat_map(Lanes::deferred_keys) {
            self.due.remove(&(due, sequence, function));
        }
        self.gate.suspects.remove_function(function);
        self.functions.remove(&function);
    }

    /// Whether a new execution fits.
    pub(super) fn room(&self, function: FunctionId, lane: Lane) -> Result<(), Full> {
        let queue = self.functions.get(&function).ok_or(Full)?;
        let fits = queue.lanes.has_room(lane, queue.bounds.queue_size as usize);
        if fits { Ok(()) } else { Err(Full) }
    }

    /// Promises a place to a new execution, for which there is [room](Self::room).
    pub(super) fn reserve(&mut self, function: FunctionId, lane: Lane) {
        self.change(function, |queue| queue.lanes.reserve(lane));
    }

    /// Gives a promised place back, used or not.
    pub(super) fn unreserve(&mut self, function: FunctionId, lane: Lane) {
        self.change(function, |queue| queue.lanes.unreserve(lane));
    }

    /// Puts an execution in its queue: ready now, or deferred until `due`.
    pub(super) fn push(
        &mut self,
        function: FunctionId,
        item: Item,
        due: Timestamp,
        now: Timestamp,
    ) -> Option<Place> {
        self.sequence += 1;
        let sequence = self.sequence;
        if due > now {
            let push = |queue: &mut Queue| queue.lanes.push_deferred(due, sequence, item);
            self.change(function, push)?;
            self.due.insert((due, sequence, function));
            return Some(Place::Deferred(due, sequence));
        }
        self.push_ready(function, sequence, item)
    }

    fn push_ready(&mut self, function: FunctionId, sequence: u64, item: Item) -> Option<Place> {
        match item.company {
            Company::Any => {
                self.change(function, |queue| queue.lanes.push_ready(sequence, item))?;
                self.enter_ring(function);
                Some(Place::Ready(sequence))
            }
            Company::NoSuspect => {
                self.functions.get(&function)?;
                self.gate.suspects.push(sequence, function, item);
                Some(Place::Suspect(sequence))
            }
        }
    }

    /// Takes an execution out before its turn.
    pub(super) fn remove(&mut self, function: FunctionId, place: Place) {
        self.change(function, |queue| queue.lanes.remove(place));
        match place {
            Place::Ready(_) => self.enter_ring(function),
            Place::Deferred(due, sequence) => {
                self.due.remove(&(due, sequence, function));
            }
            Place::Suspect(sequence) => self.gate.suspects.remove(sequence),
        }
    }

    /// Moves everything whose time has come to the ready ones; returns ids with their new places.
    pub(super) fn promote_due(&mut self, now: Timestamp) -> Vec<(ExecutionId, Place)> {
        let mut promoted = Vec::new();
        while let Some(&(due, sequence, function)) = self.due.first() {
            if due > now {
                break;
            }
            self.due.pop_first();
            // A new number: behind what is ready already, in order of due times.
            self.sequence += 1;
            let take = |queue: &mut Queue| queue.lanes.remove(Place::Deferred(due, sequence));
            if let Some(Some(item)) = self.change(function, take) {
                let place = self.push_ready(function, self.sequence, item);
                promoted.extend(place.map(|place| (item.id, place)));
            }
        }
        promoted
    }

    /// When the next deferred execution is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|&(due, _, _)| due)
    }

    /// When the next execution of one function is due: `now` if one is ready.
    pub(super) fn next_due_of(&self, function: FunctionId, now: Timestamp) -> Option<Timestamp> {
        let queue = self.functions.get(&function)?;
        if queue.lanes.ready() > 0 || self.gate.suspects.waiting_of(function) > 0 {
            return Some(now);
        }
        queue.lanes.next_due()
    }

    /// The next execution in fair order, if a slot is free; it has left its queue.
    pub(super) fn take_any(&mut self, now: Instant) -> Option<(FunctionId, ExecutionId, Class)> {
        self.advance(now);
        match self.gate.suspects.turn() {
            WhoseTurn::Others => self.take_from_rings(),
            WhoseTurn::SuspectFirst => self.take_suspect().or_else(|| self.take_from_rings()),
            WhoseTurn::SuspectAlone if self.gate.count_all() == 0 => self.take_suspect(),
            WhoseTurn::SuspectAlone | WhoseTurn::Nobody => None,
        }
    }

    /// Functions that wait for a turn.
    fn functions_waiting(&self) -> usize {
        self.rings.iter().map(VecDeque::len).sum()
    }

    fn take_from_rings(&mut self) -> Option<(FunctionId, ExecutionId, Class)> {
        for class in [Class::Guest, Class::Endpoint] {
            while let Some(&function) = self.rings[class as usize].front() {
                let head = self.head_with_slot(function);
                let head = head.filter(|(_, item)| item.class == class);
                // The first in line waits for room, and the line with it: a large input is not passed over by
                // small ones.
                if head.is_some_and(|(_, item)| !self.gate.has_room(item)) {
                    break;
                }
                self.rings[class as usize].pop_front();
                let Some(queue) = self.functions.get_mut(&function) else {
                    continue;
                };
                queue.ring = None;
                let Some((sequence, item)) = head else {
                    self.enter_ring(function);
                    continue;
                };
                self.change(function, |queue| queue.lanes.take(sequence, item.lane));
                self.gate.suspects.others_had_one();
                #[cfg(test)]
                self.turns.push(Turn {
                    function,
                    class,
                    id: item.id,
                });
                // Whether this one becomes a claim or not (it may be too old to run), the rest goes on.
                self.enter_ring(function);
                return Some((function, item.id, class));
            }
        }
        None
    }

    /// The next execution of one function, by hand: ready work first, then, if `early` allows, the
    /// earliest deferred. Those that `skip` names are passed over.
    pub(super) fn take_of(
        &mut self,
        function: FunctionId,
        early: Early,
        skip: &HashSet<ExecutionId>,
        now: Instant,
    ) -> Taken {
        let Some(queue) = self.functions.get(&function) else {
            return Taken::Empty;
        };
        let wanted =
            |(_, of, item): &(u64, FunctionId, Item)| *of == function && !skip.contains(&item.id);
        let suspect = self.gate.suspects.iter().find(wanted);
        let suspect = suspect.map(|(sequence, _, item)| (Place::Suspect(sequence), item));
        let ready = queue.lanes.next_but(skip);
        let ready = ready.map(|(sequence, item)| (Place::Ready(sequence), item));
        let ready = suspect.or(ready);
        let found = match early {
            Early::DueOnly => ready,
            Early::AnyTime => ready.or_else(|| queue.lanes.deferred_but(skip)),
        };
        let Some((place, item)) = found else {
            return Taken::Empty;
        };
        let is_suspect = item.company == Company::NoSuspect;
        let in_company = is_suspect && self.gate.count_all() > 0;
        if in_company || self.gate.suspects.is_alone(now) {
            return Taken::Busy;
        }
        if !queue.has_slot() || !self.gate.has_room(item) {
            return Taken::Busy;
        }
        if is_suspect {
            self.gate.suspects.take_by_hand(now);
        }
        match place {
            Place::Ready(sequence) => {
                self.change(function, |queue| queue.lanes.take(sequence, item.lane));
                self.enter_ring(function);
            }
            Place::Deferred(..) | Place::Suspect(_) => self.remove(function, place),
        }
        Taken::Next(item.id)
    }

    /// Takes a slot for a claim. The slot is free again when the claim is [released](Self::release).
    pub(super) fn claim(&mut self, function: FunctionId, item: Item, fence: Fence) {
        self.gate.claim(function, item, fence);
        if let Some(queue) = self.functions.get_mut(&function) {
            queue.claims.insert(fence);
        }
    }

    /// Frees a claim's slot; a claim is released once, whatever happens to its execution.
    pub(super) fn release(&mut self, fence: Fence, now: Instant) -> Option<(FunctionId, Class)> {
        let waiting = self.functions_waiting();
        let (function, class) = self.gate.release(fence, now, waiting)?;
        if let Some(queue) = self.functions.get_mut(&function) {
            queue.claims.remove(&fence);
        }
        self.enter_ring(function);
        Some((function, class))
    }

    /// Executions waiting in a function's queue, promised places included.
    pub(super) fn waiting(&self, function: FunctionId) -> usize {
        let queue = self.functions.get(&function);
        queue.map_or(0, |queue| queue.lanes.waiting()) + self.gate.suspects.waiting_of(function)
    }

    /// Those of them that have a caller.
    pub(super) fn waiting_callers(&self, function: FunctionId) -> usize {
        let queue = self.functions.get(&function);
        queue.map_or(0, |queue| queue.lanes.waiting_in(Lane::Caller))
    }

    /// Executions with a caller that wait in the whole plane, promised places included.
    pub(super) fn waiting_callers_all(&self) -> usize {
        self.callers_waiting
    }

    /// What would stand before a new execution with a caller; `None`: a slot would take it at once.
    pub(super) fn crowd(&self, function: FunctionId, class: Class) -> Option<Crowd> {
        let queue = self.functions.get(&function)?;
        let plane_is_full = !self.gate.has_slot(class);
        let free = (queue.bounds.concurrency as usize).saturating_sub(queue.claims.len());
        let before = queue.lanes.before_a_caller();
        if before < free && !plane_is_full {
            return None;
        }
        let before = before.saturating_sub(free);
        let slots_max = self.gate.slots_max(class);
        // Each turn of its own function is one of the ring, in which the others that stand there have theirs.
        let in_ring = self.rings[class as usize].len();
        let others = in_ring.saturating_sub(usize::from(queue.ring == Some(class)));
        let others = others
            .saturating_mul(before + 1)
            .min(self.ready.saturating_sub(queue.lanes.ready()));
        Some(Crowd {
            before,
            slots: slots_max.min(queue.bounds.concurrency as usize),
            plane: plane_is_full.then_some((before + others, slots_max)),
        })
    }

    /// Attempts of a function that run.
    pub(super) fn running(&self, function: FunctionId) -> usize {
        self.functions
            .get(&function)
            .map_or(0, |queue| queue.claims.len())
    }

    /// Attempts that run in the whole plane.
    pub(super) fn running_all(&self) -> usize {
        self.gate.count_all()
    }

    /// Attempts of one class that run in the whole plane.
    pub(super) fn running_in(&self, class: Class) -> usize {
        self.gate.count(class)
    }

    /// Lets so many of [`RAMP_STEPS`] parts of the plane's bounds be used.
    pub(super) fn set_ramp(&mut self, steps: u32) {
        self.gate.set_ramp(steps);
    }

    /// What a function would run next, if it has a slot.
    fn head_with_slot(&self, function: FunctionId) -> Option<(u64, Item)> {
        let queue = self.functions.get(&function)?;
        queue.lanes.next().filter(|_| queue.has_slot())
    }

    /// Puts a function in the ring of its first ready execution, if it has a slot and is not there yet.
    fn enter_ring(&mut self, function: FunctionId) {
        let Some(queue) = self.functions.get_mut(&function) else {
            return;
        };
        let Some((_, Item { class, .. })) = queue.lanes.next() else {
            return;
        };
        if queue.ring == Some(class) || !queue.has_slot() {
            return;
        }
        if let Some(other) = queue.ring.replace(class) {
            // What stood first has left, and what follows runs elsewhere (a version of another kind).
            self.rings[other as usize].retain(|waiting| *waiting != function);
        }
        self.rings[class as usize].push_back(function);
    }
}

/// Whether a drain takes work before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Early {
    /// Only what is due.
    DueOnly,
    /// Deferred work too, once nothing is ready.
    AnyTime,
}

#[cfg(test)]
mod invariants;
#[cfg(test)]
pub(super) use invariants::{Turn, Turns};

#[cfg(test)]
mod tests;
