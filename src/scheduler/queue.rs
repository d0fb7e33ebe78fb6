//! Who is next: ready queues per function, a ring for fairness between functions, deferred work apart.
//!
//! A function stands in a ring while it has ready work and a free slot; each turn of the ring takes one
//! execution and sends the function to the end, so a hot function cannot starve a cold one. Free slots
//! are derived from the set of live claims, never from a counter of their own.
//!
//! **Invariant:** pure. No clock, no lock, no task: the same calls give the same order.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    id: ExecutionId,
    class: Class,
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
    ready: BTreeMap<u64, Item>,
    deferred: BTreeMap<(Timestamp, u64), Item>,
    /// Places promised to executions that are on their way to disk.
    reserved: usize,
    claims: IdSet<Fence>,
    ring: Option<Class>,
}

impl Queue {
    fn waiting(&self) -> usize {
        self.ready.len() + self.deferred.len() + self.reserved
    }

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
    running: [IdMap<Fence, FunctionId>; 2],
    running_max: [usize; 2],
    due: BTreeSet<(Timestamp, u64, FunctionId)>,
    sequence: u64,
}

impl Queues {
    /// Empty queues with plane-wide bounds on running guests and endpoint calls.
    pub(super) fn new(guests_max: u32, endpoint_calls_max: u32) -> Self {
        Self {
            functions: IdMap::default(),
            rings: Default::default(),
            running: Default::default(),
            running_max: [guests_max as usize, endpoint_calls_max as usize],
            due: BTreeSet::new(),
            sequence: 0,
        }
    }

    /// Whether this function has a queue here.
    pub(super) fn knows(&self, function: FunctionId) -> bool {
        self.functions.contains_key(&function)
    }

    /// Makes a function's queue, or changes its bounds; they act at once.
    pub(super) fn set_bounds(&mut self, function: FunctionId, bounds: Bounds) {
        let queue = self.functions.entry(function).or_insert_with(|| Queue {
            bounds,
            ready: BTreeMap::new(),
            deferred: BTreeMap::new(),
            reserved: 0,
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
        if let Some(queue) = self.functions.remove(&function) {
            for (due, sequence) in queue.deferred.into_keys() {
                self.due.remove(&(due, sequence, function));
            }
        }
    }

    /// Promises a place to a new execution.
    pub(super) fn reserve(&mut self, function: FunctionId) -> Result<(), Full> {
        let queue = self.functions.get_mut(&function).ok_or(Full)?;
        if queue.waiting() >= queue.bounds.queue_size as usize {
            return Err(Full);
        }
        queue.reserved += 1;
        Ok(())
    }

    /// Gives a promised place back, used or not.
    pub(super) fn unreserve(&mut self, function: FunctionId) {
        if let Some(queue) = self.functions.get_mut(&function) {
            queue.reserved = queue.reserved.saturating_sub(1);
        }
    }

    /// Puts an execution in its queue: ready now, or deferred until `due`.
    pub(super) fn push(
        &mut self,
        function: FunctionId,
        id: ExecutionId,
        class: Class,
        due: Timestamp,
        now: Timestamp,
    ) -> Option<Place> {
        self.sequence += 1;
        let sequence = self.sequence;
        let queue = self.functions.get_mut(&function)?;
        let item = Item { id, class };
        if due > now {
            queue.deferred.insert((due, sequence), item);
            self.due.insert((due, sequence, function));
            return Some(Place::Deferred(due, sequence));
        }
        queue.ready.insert(sequence, item);
        self.enter_ring(function);
        Some(Place::Ready(sequence))
    }

    /// Takes an execution out before its turn.
    pub(super) fn remove(&mut self, function: FunctionId, place: Place) {
        let Some(queue) = self.functions.get_mut(&function) else {
            return;
        };
        match place {
            Place::Ready(sequence) => {
                queue.ready.remove(&sequence);
                self.enter_ring(function);
            }
            Place::Deferred(due, sequence) => {
                queue.deferred.remove(&(due, sequence));
                self.due.remove(&(due, sequence, function));
            }
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
            if let Some(queue) = self.functions.get_mut(&function)
                && let Some(item) = queue.deferred.remove(&(due, sequence))
            {
                // A new number: behind what is ready already, in order of due times.
                self.sequence += 1;
                queue.ready.insert(self.sequence, item);
                promoted.push((item.id, Place::Ready(self.sequence)));
                self.enter_ring(function);
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
        if !queue.ready.is_empty() {
            return Some(now);
        }
        queue.deferred.first_key_value().map(|(&(due, _), _)| due)
    }

    /// The next execution in fair order, if a slot is free; it has left its queue.
    pub(super) fn take_any(&mut self) -> Option<(FunctionId, ExecutionId, Class)> {
        for class in [Class::Guest, Class::Endpoint] {
            while self.plane_has_slot(class) {
                let Some(function) = self.rings[class as usize].pop_front() else {
                    break;
                };
                let Some(queue) = self.functions.get_mut(&function) else {
                    continue;
                };
                queue.ring = None;
                let first = queue.ready.first_key_value().map(|(_, item)| item.class);
                if first != Some(class) || !queue.has_slot() {
                    self.enter_ring(function);
                    continue;
                }
                let (_, item) = queue.ready.pop_first()?;
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
    ) -> Taken {
        let Some(queue) = self.functions.get_mut(&function) else {
            return Taken::Empty;
        };
        let ready = queue
            .ready
            .iter()
            .find(|(_, item)| !skip.contains(&item.id))
            .map(|(&sequence, item)| (Place::Ready(sequence), *item));
        let deferred = || {
            let mut entries = queue.deferred.iter();
            entries
                .find(|(_, item)| !skip.contains(&item.id))
                .map(|(&(due, sequence), item)| (Place::Deferred(due, sequence), *item))
        };
        let found = match early {
            Early::DueOnly => ready,
            Early::AnyTime => ready.or_else(deferred),
        };
        let Some((place, item)) = found else {
            return Taken::Empty;
        };
        let has_slot = queue.has_slot();
        if !has_slot || !self.plane_has_slot(item.class) {
            return Taken::Busy;
        }
        self.remove(function, place);
        Taken::Next(item.id)
    }

    /// Takes a slot for a claim. The slot is free again when the claim is [released](Self::release).
    pub(super) fn claim(&mut self, function: FunctionId, class: Class, fence: Fence) {
        self.running[class as usize].insert(fence, function);
        if let Some(queue) = self.functions.get_mut(&function) {
            queue.claims.insert(fence);
        }
    }

    /// Frees a claim's slot; a claim is released once, whatever happens to its execution.
    pub(super) fn release(&mut self, fence: Fence) -> Option<FunctionId> {
        let [guests, endpoints] = &mut self.running;
        let function = guests.remove(&fence).or_else(|| endpoints.remove(&fence))?;
        if let Some(queue) = self.functions.get_mut(&function) {
            queue.claims.remove(&fence);
        }
        self.enter_ring(function);
        Some(function)
    }

    /// Executions waiting in a function's queue, promised places included.
    pub(super) fn waiting(&self, function: FunctionId) -> usize {
        self.functions.get(&function).map_or(0, Queue::waiting)
    }

    /// Attempts of a function that run.
    pub(super) fn running(&self, function: FunctionId) -> usize {
        self.functions
            .get(&function)
            .map_or(0, |queue| queue.claims.len())
    }

    /// Attempts that run in the whole plane.
    pub(super) fn running_all(&self) -> usize {
        self.running.iter().map(IdMap::len).sum()
    }

    /// Attempts of one class that run in the whole plane.
    pub(super) fn running_in(&self, class: Class) -> usize {
        self.running[class as usize].len()
    }

    fn plane_has_slot(&self, class: Class) -> bool {
        self.running[class as usize].len() < self.running_max[class as usize]
    }

    /// Puts a function in the ring of its first ready execution, if it has a slot and is not there yet.
    fn enter_ring(&mut self, function: FunctionId) {
        let Some(queue) = self.functions.get_mut(&function) else {
            return;
        };
        let Some((_, Item { class, .. })) = queue.ready.first_key_value() else {
            return;
        };
        let class = *class;
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
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn queues(guests_max: u32) -> Queues {
        let mut queues = Queues::new(guests_max, 8);
        for function in 1..=3 {
            queues.set_bounds(
                FunctionId(function),
                Bounds {
                    concurrency: 2,
                    queue_size: 4,
                },
            );
        }
        queues
    }

    fn push(queues: &mut Queues, function: i64, due: i64) -> ExecutionId {
        let id = ExecutionId::new(NOW);
        let place = queues.push(FunctionId(function), id, Class::Guest, Timestamp(due), NOW);
        assert!(place.is_some());
        id
    }

    #[test]
    fn functions_take_turns() {
        let mut queues = queues(100);
        let hot: Vec<_> = (0..3).map(|_| push(&mut queues, 1, 0)).collect();
        let cold = push(&mut queues, 2, 0);
        let order: Vec<_> = (0..)
            .map_while(|fence| {
                let (function, id, class) = queues.take_any()?;
                queues.claim(function, class, Fence(fence));
                Some(id)
            })
            .collect();
        // The third hot one waits: its function runs two at once.
        assert_eq!(order, [hot[0], cold, hot[1]]);
        queues.release(Fence(0));
        assert_eq!(queues.take_any().map(|(_, id, _)| id), Some(hot[2]));
    }

    #[test]
    fn the_plane_has_a_bound_of_its_own() {
        let mut queues = queues(1);
        push(&mut queues, 1, 0);
        let second = push(&mut queues, 2, 0);
        let (function, _, class) = queues.take_any().unwrap();
        queues.claim(function, class, Fence(1));
        assert_eq!(queues.take_any(), None);
        queues.release(Fence(1));
        queues.release(Fence(1));
        assert_eq!(queues.take_any().map(|(_, id, _)| id), Some(second));
        assert_eq!(queues.running_all(), 0);
    }

    #[test]
    fn deferred_work_waits_apart_and_comes_back_in_order() {
        let mut queues = queues(100);
        let late = push(&mut queues, 1, 3_000);
        let soon = push(&mut queues, 1, 2_000);
        let ready = push(&mut queues, 1, 0);
        assert_eq!(queues.next_due(), Some(Timestamp(2_000)));
        assert_eq!(queues.take_any().map(|(_, id, _)| id), Some(ready));
        assert_eq!(queues.take_any(), None);
        let promoted = queues.promote_due(Timestamp(3_000));
        assert_eq!(
            promoted.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [soon, late]
        );
        assert_eq!(queues.take_any().map(|(_, id, _)| id), Some(soon));
        assert_eq!(queues.next_due(), None);
    }

    #[test]
    fn only_new_work_is_refused() {
        let mut queues = queues(100);
        let function = FunctionId(1);
        for _ in 0..4 {
            assert_eq!(queues.reserve(function), Ok(()));
        }
        assert_eq!(queues.reserve(function), Err(Full));
        queues.unreserve(function);
        push(&mut queues, 1, 0);
        // A retry returns beyond the bound.
        push(&mut queues, 1, 0);
        assert_eq!(queues.waiting(function), 5);
        assert_eq!(queues.reserve(function), Err(Full));
    }

    #[test]
    fn a_drain_takes_ready_work_first_and_skips_what_it_put_back() {
        let mut queues = queues(100);
        let later = push(&mut queues, 1, 5_000);
        let ready = push(&mut queues, 1, 0);
        let mut skip = HashSet::new();
        let function = FunctionId(1);
        assert_eq!(
            queues.take_of(function, Early::AnyTime, &skip),
            Taken::Next(ready)
        );
        assert_eq!(
            queues.take_of(function, Early::DueOnly, &skip),
            Taken::Empty
        );
        skip.insert(later);
        assert_eq!(
            queues.take_of(function, Early::AnyTime, &skip),
            Taken::Empty
        );
        skip.clear();
        assert_eq!(
            queues.take_of(function, Early::AnyTime, &skip),
            Taken::Next(later)
        );
        assert_eq!(queues.next_due(), None);
    }

    #[test]
    fn what_follows_one_of_another_kind_is_not_kept_waiting_by_it() {
        let mut queues = Queues::new(1, 1);
        let [busy, mixed] = [FunctionId(1), FunctionId(2)];
        for function in [busy, mixed] {
            let bounds = Bounds {
                concurrency: 2,
                queue_size: 4,
            };
            queues.set_bounds(function, bounds);
        }
        let push = |queues: &mut Queues, function, class| {
            let id = ExecutionId::new(NOW);
            let place = queues.push(function, id, class, NOW, NOW).unwrap();
            (id, place)
        };
        // The only place for calls to services is taken, so the first one of `mixed` waits.
        push(&mut queues, busy, Class::Endpoint);
        let (function, _, class) = queues.take_any().unwrap();
        queues.claim(function, class, Fence(1));
        let (_, waiting) = push(&mut queues, mixed, Class::Endpoint);
        let (guest, _) = push(&mut queues, mixed, Class::Guest);
        assert_eq!(queues.take_any(), None);
        // It is cancelled: what follows it is a guest, and there is a place for one.
        queues.remove(mixed, waiting);
        assert_eq!(queues.take_any(), Some((mixed, guest, Class::Guest)));
        // The same where nothing follows yet.
        let (_, waiting) = push(&mut queues, mixed, Class::Endpoint);
        assert_eq!(queues.take_any(), None);
        queues.remove(mixed, waiting);
        let (guest, _) = push(&mut queues, mixed, Class::Guest);
        assert_eq!(queues.take_any(), Some((mixed, guest, Class::Guest)));
    }

    #[test]
    fn a_raised_concurrency_acts_at_once() {
        let mut queues = queues(100);
        for _ in 0..3 {
            push(&mut queues, 1, 0);
        }
        for fence in 0..2 {
            let (function, _, class) = queues.take_any().unwrap();
            queues.claim(function, class, Fence(fence));
        }
        assert_eq!(queues.take_any(), None);
        queues.set_bounds(
            FunctionId(1),
            Bounds {
                concurrency: 3,
                queue_size: 4,
            },
        );
        assert!(queues.take_any().is_some());
    }
}
