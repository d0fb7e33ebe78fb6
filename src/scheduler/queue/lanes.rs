//! What waits for one function, in two lanes: executions with a caller who waits, and queued ones.
//!
//! Where both lanes have ready work, turns are dealt: up to [`CALLER_TURNS`] in a row for callers, then one for
//! queued work. So a backlog of queued work does not make callers wait for all of it, and callers who keep
//! coming do not keep queued work from moving. Within a lane the order is that of arrival.
//!
//! **Invariant:** pure; neither lane waits for more than a bounded number of the other's turns, and one kind of
//! work alone never holds more than the queue's size of new executions.

use std::collections::{BTreeMap, HashSet};

use super::line::Line;
use super::{Class, Company, Place};
use crate::model::{ExecutionId, Timestamp};

/// Turns that callers get for one of queued work, while both wait.
pub(super) const CALLER_TURNS: usize = 3;

/// The part of the queue's size (one in so many places) that each kind of work has for itself when the
/// other has taken all the rest; at least one place, unless there is only one in all.
const OWN_PART: usize = 4;

/// The places that each kind of work has for itself.
fn own_places(queue_size: usize) -> usize {
    match queue_size {
        0 | 1 => 0,
        _ => (queue_size / OWN_PART).max(1),
    }
}

/// Whether somebody waits for an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::scheduler) enum Lane {
    /// A synchronous caller made it, and its time is running.
    Caller,
    /// Nobody's time is running.
    Queued,
}

impl Lane {
    #[cfg(test)]
    const ALL: [Self; 2] = [Self::Caller, Self::Queued];

    fn other(self) -> Self {
        match self {
            Self::Caller => Self::Queued,
            Self::Queued => Self::Caller,
        }
    }
}

/// One execution that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) struct Item {
    pub(in crate::scheduler) id: ExecutionId,
    pub(in crate::scheduler) class: Class,
    pub(in crate::scheduler) lane: Lane,
    pub(in crate::scheduler) company: Company,
    pub(in crate::scheduler) input_bytes: u64,
}

#[derive(Debug, Default)]
struct OneLane {
    ready: Line,
    deferred: BTreeMap<(Timestamp, u64), Item>,
    /// Places promised to executions that are on their way to disk.
    reserved: usize,
}

impl OneLane {
    fn waiting(&self) -> usize {
        self.ready.len() + self.deferred.len() + self.reserved
    }
}

/// Both lanes of one function.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: [OneLane; 2],
    /// Turns of callers in a row while queued work was ready.
    caller_turns: usize,
}

impl Lanes {
    fn of(&self, lane: Lane) -> &OneLane {
        &self.lanes[lane as usize]
    }

    fn of_mut(&mut self, lane: Lane) -> &mut OneLane {
        &mut self.lanes[lane as usize]
    }

    /// Everything that waits, promised places included.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(OneLane::waiting).sum()
    }

    /// What waits in one lane, promised places included.
    pub(super) fn waiting_in(&self, lane: Lane) -> usize {
        self.of(lane).waiting()
    }

    /// What could be claimed at once.
    pub(super) fn ready(&self) -> usize {
        self.lanes.iter().map(|lane| lane.ready.len()).sum()
    }

    /// Whether a new execution fits: while the queue's size is not reached, and beyond it as long as its own
    /// kind holds less than a part of it.
    pub(super) fn has_room(&self, lane: Lane, queue_size: usize) -> bool {
        self.waiting() < queue_size || self.waiting_in(lane) < own_places(queue_size)
    }

    pub(super) fn reserve(&mut self, lane: Lane) {
        self.of_mut(lane).reserved += 1;
    }

    pub(super) fn unreserve(&mut self, lane: Lane) {
        let lane = self.of_mut(lane);
        lane.reserved = lane.reserved.saturating_sub(1);
    }

    pub(super) fn push_ready(&mut self, sequence: u64, item: Item) {
        self.of_mut(item.lane).ready.insert(sequence, item);
    }

    pub(super) fn push_deferred(&mut self, due: Timestamp, sequence: u64, item: Item) {
        self.of_mut(item.lane)
            .deferred
            .insert((due, sequence), item);
    }

    /// Takes an entry out, in whichever lane it is.
    pub(super) fn remove(&mut self, place: Place) -> Option<Item> {
        self.lanes.iter_mut().find_map(|lane| match place {
            Place::Ready(sequence) => lane.ready.remove(sequence),
            Place::Deferred(due, sequence) => lane.deferred.remove(&(due, sequence)),
            // Suspects stand apart.
            Place::Suspect(_) => None,
        })
    }

    /// Whose turn it is, if both have ready work.
    fn turn(&self) -> Lane {
        if self.caller_turns < CALLER_TURNS {
            Lane::Caller
        } else {
            Lane::Queued
        }
    }

    /// The next ready execution.
    pub(super) fn next(&self) -> Option<(u64, Item)> {
        let turn = self.turn();
        let first = |lane: Lane| self.of(lane).ready.first();
        first(turn).or_else(|| first(turn.other()))
    }

    /// The next ready execution that `skip` does not name.
    pub(super) fn next_but(&self, skip: &HashSet<ExecutionId>) -> Option<(u64, Item)> {
        let turn = self.turn();
        let first = |lane: Lane| {
            let mut ready = self.of(lane).ready.iter();
            ready.find(|(_, item)| !skip.contains(&item.id))
        };
        first(turn).or_else(|| first(turn.other()))
    }

    /// The earliest deferred execution that `skip` does not name.
    pub(super) fn deferred_but(&self, skip: &HashSet<ExecutionId>) -> Option<(Place, Item)> {
        let firsts = self.lanes.iter().filter_map(|lane| {
            let mut entries = lane.deferred.iter();
            entries.find(|(_, item)| !skip.contains(&item.id))
        });
        let (&(due, sequence), &item) = firsts.min_by_key(|(at, _)| **at)?;
        Some((Place::Deferred(due, sequence), item))
    }

    /// When the earliest deferred execution is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let firsts = self.lanes.iter().filter_map(|lane| {
            let (&(due, _), _) = lane.deferred.first_key_value()?;
            Some(due)
        });
        firsts.min()
    }

    /// Takes a ready execution out as its lane's turn.
    pub(super) fn take(&mut self, sequence: u64, lane: Lane) -> Option<Item> {
        let item = self.of_mut(lane).ready.remove(sequence)?;
        self.caller_turns = match lane {
            Lane::Caller if !self.of(Lane::Queued).ready.is_empty() => self.caller_turns + 1,
            Lane::Caller | Lane::Queued => 0,
        };
        Some(item)
    }

    /// How many get their turn before a caller who comes now: the callers who are here, and the turns of
    /// queued work in between.
    pub(super) fn before_a_caller(&self) -> usize {
        let here = |lane: Lane| self.of(lane).ready.len() + self.of(lane).reserved;
        let callers = here(Lane::Caller);
        let turns = (self.caller_turns + callers) / CALLER_TURNS;
        callers + turns.min(here(Lane::Queued))
    }

    /// Every deferred entry's key.
    pub(super) fn deferred_keys(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        self.lanes
            .iter()
            .flat_map(|lane| lane.deferred.keys().copied())
    }

    /// Every entry with its place.
    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = (Place, Item)> {
        self.lanes.iter().flat_map(|lane| {
            let ready = lane.ready.iter();
            let ready = ready.map(|(sequence, item)| (Place::Ready(sequence), item));
            let deferred = lane.deferred.iter();
            let deferred = deferred.map(|(&(due, seq), &item)| (Place::Deferred(due, seq), item));
            ready.chain(deferred)
        })
    }

    /// Places promised and not yet used.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.lanes.iter().map(|lane| lane.reserved).sum()
    }

    /// Panics where an entry stands in the wrong lane.
    #[cfg(test)]
    #[track_caller]
    pub(super) fn check(&self) {
        for lane in Lane::ALL {
            let (ready, deferred) = (&self.of(lane).ready, &self.of(lane).deferred);
            let ready = ready.iter().map(|(_, item)| item);
            for item in ready.chain(deferred.values().copied()) {
                assert_eq!(item.lane, lane, "{item:?} stands in the wrong lane");
            }
        }
        assert!(self.caller_turns <= CALLER_TURNS, "too many turns in a row");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn push(lanes: &mut Lanes, sequence: u64, lane: Lane) -> ExecutionId {
        let id = ExecutionId::new(NOW);
        let item = Item {
            id,
            class: Class::Guest,
            lane,
            company: Company::Any,
            input_bytes: 0,
        };
        lanes.push_ready(sequence, item);
        id
    }

    fn take(lanes: &mut Lanes) -> Option<Lane> {
        let (sequence, item) = lanes.next()?;
        lanes.take(sequence, item.lane).map(|item| item.lane)
    }

    fn word(lane: Lane) -> char {
        match lane {
            Lane::Caller => 'c',
            Lane::Queued => 'q',
        }
    }

    fn order(lanes: &mut Lanes) -> String {
        std::iter::from_fn(|| take(lanes)).map(word).collect()
    }

    #[test]
    fn callers_go_first_and_queued_work_moves_in_between() {
        let mut lanes = Lanes::default();
        for sequence in 0..4 {
            push(&mut lanes, sequence, Lane::Queued);
        }
        for sequence in 4..12 {
            push(&mut lanes, sequence, Lane::Caller);
        }
        assert_eq!(order(&mut lanes), "cccqcccqccqq");
    }

    #[test]
    fn a_lane_alone_goes_on_in_order_of_arrival() {
        for lane in Lane::ALL {
            let mut lanes = Lanes::default();
            let ids: Vec<_> = (0..5).map(|n| push(&mut lanes, n, lane)).collect();
            let mut taken = Vec::new();
            while let Some((sequence, item)) = lanes.next() {
                taken.extend(lanes.take(sequence, item.lane).map(|item| item.id));
            }
            assert_eq!(taken, ids);
        }
    }

    #[test]
    fn queued_work_that_comes_late_waits_three_turns_at_most() {
        let mut lanes = Lanes::default();
        for sequence in 0..20 {
            push(&mut lanes, sequence, Lane::Caller);
        }
        for _ in 0..10 {
            assert_eq!(take(&mut lanes), Some(Lane::Caller));
        }
        push(&mut lanes, 20, Lane::Queued);
        assert_eq!(&order(&mut lanes)[..4], "cccq");
    }

    #[test]
    fn what_is_counted_before_a_caller_is_what_is_taken_before_it() {
        for (callers, queued, taken) in [(0, 0, 0), (0, 5, 0), (5, 5, 0), (7, 1, 2), (9, 9, 4)] {
            let mut lanes = Lanes::default();
            for sequence in 0..queued {
                push(&mut lanes, sequence, Lane::Queued);
            }
            for sequence in 0..callers {
                push(&mut lanes, 100 + sequence, Lane::Caller);
            }
            for _ in 0..taken {
                take(&mut lanes);
            }
            let counted = lanes.before_a_caller();
            let new = push(&mut lanes, 1_000, Lane::Caller);
            let mut before = 0;
            while let Some((sequence, item)) = lanes.next() {
                if item.id == new {
                    break;
                }
                lanes.take(sequence, item.lane);
                before += 1;
            }
            assert_eq!(
                counted, before,
                "{callers} callers, {queued} queued, {taken} taken"
            );
        }
    }

    #[test]
    fn each_kind_has_a_part_of_the_queue_for_itself() {
        let mut lanes = Lanes::default();
        for sequence in 0..8 {
            assert!(lanes.has_room(Lane::Queued, 8));
            push(&mut lanes, sequence, Lane::Queued);
        }
        assert!(!lanes.has_room(Lane::Queued, 8));
        for sequence in 8..10 {
            assert!(lanes.has_room(Lane::Caller, 8));
            push(&mut lanes, sequence, Lane::Caller);
        }
        assert!(!lanes.has_room(Lane::Caller, 8));
        // In a small queue it is one place; a single place is nobody's own.
        for size in 1..8 {
            let mut small = Lanes::default();
            for sequence in 0..size {
                assert!(small.has_room(Lane::Queued, size as usize));
                push(&mut small, sequence, Lane::Queued);
            }
            assert!(!small.has_room(Lane::Queued, size as usize));
            assert_eq!(small.has_room(Lane::Caller, size as usize), size > 1);
            push(&mut small, size, Lane::Caller);
            assert!(!small.has_room(Lane::Caller, size as usize));
        }
    }

    #[test]
    fn a_drain_passes_over_what_it_is_told_to() {
        let mut lanes = Lanes::default();
        let caller = push(&mut lanes, 1, Lane::Caller);
        let queued = push(&mut lanes, 0, Lane::Queued);
        let next = |skip: &[ExecutionId]| {
            let skip = skip.iter().copied().collect();
            lanes.next_but(&skip).map(|(_, item)| item.id)
        };
        assert_eq!(next(&[]), Some(caller));
        assert_eq!(next(&[caller]), Some(queued));
        assert_eq!(next(&[caller, queued]), None);
    }
}
