//! The shelf where instances that may answer another call wait for it, in the order in which they were put there.
//!
//! What waits here holds a place of the pool, so whoever needs the place takes it away: see [`Shelf::make_room`].
//!
//! **Invariant:** an item comes back only to the very version that put it here, never after its function has
//! changed or gone, and never while a call of anybody waits for room.

mod holds;

pub(super) use holds::Holds;

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::model::{FunctionName, Version};

/// What may wait here at once, of all functions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// Items.
    pub(super) items: u32,
    /// Bytes of their memories.
    pub(super) bytes: u64,
}

/// What is on the shelf, and what became of what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WarmStats {
    /// Instances that wait for another call.
    pub idle: u32,
    /// Bytes of their memories.
    pub idle_bytes: u64,
    /// Calls that were answered by an instance that had answered one before.
    pub reused: u64,
    /// Instances that ended while they waited, because their place was needed.
    pub evicted: u64,
}

/// Items of all functions.
pub(super) struct Shelf<T> {
    capacity: Capacity,
    state: Mutex<State<T>>,
    /// Wakes whoever ends what has waited for too long.
    earlier: Arc<Notify>,
    reused: AtomicU64,
    evicted: AtomicU64,
}

struct State<T> {
    functions: HashMap<FunctionName, Row<T>>,
    /// By place: the one that has waited longest comes first.
    order: BTreeMap<u64, FunctionName>,
    next_place: u64,
    bytes: u64,
    /// Calls that wait for room.
    waiting: usize,
    is_closed: bool,
    /// When the next look for items that have waited for too long comes; none while nobody looks.
    next_look: Option<Instant>,
}

/// The items of one function; there while it has any, here or in use.
struct Row<T> {
    /// In the order of their places.
    idle: Vec<Idle<T>>,
    in_use: usize,
    /// Grows with each change of the function: what was taken before it does not come back.
    changes: u64,
}

struct Idle<T> {
    place: u64,
    version: Arc<Version>,
    until: Instant,
    holds: Holds,
    item: T,
}

/// Says that an item of a function is in use.
pub(super) struct Ticket<S, T>
where
    S: Deref<Target = Shelf<T>>,
{
    shelf: S,
    version: Arc<Version>,
    function: FunctionName,
    changes: u64,
}

impl<S, T> Drop for Ticket<S, T>
where
    S: Deref<Target = Shelf<T>>,
{
    fn drop(&mut self) {
        self.shelf.lock().give_back(&self.function);
    }
}

/// Says that a call waits for room: nothing is put on the shelf meanwhile.
pub(super) struct Waiting<'a, T>(&'a Shelf<T>);

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl<T> Shelf<T> {
    /// An empty one.
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            state: Mutex::new(State {
                functions: HashMap::new(),
                order: BTreeMap::new(),
                next_place: 0,
                bytes: 0,
                waiting: 0,
                is_closed: false,
                next_look: None,
            }),
            earlier: Arc::default(),
            reused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the version's item that was used last, if there is one that `fits`; those that do not end.
    pub(super) fn take(
        &self,
        function: &FunctionName,
        version: &Arc<Version>,
        fits: impl Fn(&T) -> bool,
    ) -> (Ticket<&Self, T>, Option<T>) {
        Self::take_for(self, function, version, fits)
    }

    /// [`Shelf::take`], with a ticket that holds on to the shelf in its own way.
    pub(super) fn take_for<S>(
        shelf: S,
        function: &FunctionName,
        version: &Arc<Version>,
        fits: impl Fn(&T) -> bool,
    ) -> (Ticket<S, T>, Option<T>)
    where
        S: Deref<Target = Self>,
    {
        let mut unfit = Vec::new();
        let mut found = None;
        let mut state = shelf.lock();
        while let Some(idle) = state.take(function, version) {
            if fits(&idle.item) {
                found = Some(idle.item);
                break;
            }
            unfit.push(idle);
        }
        let row = state
            .functions
            .entry(function.clone())
            .or_insert_with(Row::new);
        row.in_use += 1;
        let changes = row.changes;
        drop(state);
        if found.is_some() {
            shelf.count_reused();
        }
        let ticket = Ticket {
            shelf,
            version: Arc::clone(version),
            function: function.clone(),
            changes,
        };
        (ticket, found)
    }

    /// A call was given to an instance that had had one before.
    pub(super) fn count_reused(&self) {
        self.reused.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything may wait here at all.
    pub(super) fn is_open(&self) -> bool {
        self.capacity.items > 0 && !self.lock().is_closed
    }

    /// Whether a call waits for room.
    pub(super) fn is_wanted(&self) -> bool {
        self.lock().waiting > 0
    }

    /// Ends what waits until a call finds so much room, the oldest first, and lets nothing be put here until the
    /// answer is dropped.
    pub(super) fn make_room(&self, needed: Holds) -> Waiting<'_, T> {
        let mut gone = Vec::new();
        let mut freed = Holds::default();
        let mut state = self.lock();
        state.waiting += 1;
        while freed.permits < needed.permits
            && let Some(idle) = state.take_oldest(|_| true)
        {
            freed = freed.and(idle.holds);
            gone.push(idle);
        }
        while freed.own_permits < needed.own_permits
            && let Some(idle) = state.take_oldest(|holds| holds.own_permits > 0)
        {
            freed = freed.and(idle.holds);
            gone.push(idle);
        }
        drop(state);
        self.count_evicted(gone.len());
        Waiting(self)
    }

    fn count_evicted(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(0);
        self.evicted.fetch_add(count, Ordering::Relaxed);
    }

    /// Ends what waits for a function that has changed or is gone, and what is in use of it once it comes back.
    pub(super) fn retire(&self, function: &FunctionName) {
        let mut state = self.lock();
        let gone = state.empty_row(function);
        drop(state);
        drop(gone);
    }

    /// Ends all, and takes nothing any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let functions: Vec<_> = state.functions.keys().cloned().collect();
        let gone: Vec<_> = functions
            .iter()
            .map(|function| state.empty_row(function))
            .collect();
        drop(state);
        self.earlier.notify_one();
        drop(gone);
    }

    /// What is here.
    pub(super) fn stats(&self) -> WarmStats {
        let state = self.lock();
        WarmStats {
            idle: u32::try_from(state.order.len()).unwrap_or(u32::MAX),
            idle_bytes: state.bytes,
            reused: self.reused.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// Ends what has waited for too long. Returns when to look again; none if nothing waits.
    fn look(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        let late: Vec<_> = state
            .idle()
            .filter(|(_, idle)| idle.until <= now)
            .map(|(function, idle)| (idle.place, function.clone()))
            .collect();
        let gone: Vec<_> = late
            .into_iter()
            .filter_map(|(place, function)| state.take_place(place, &function))
            .collect();
        state.next_look = state.idle().map(|(_, idle)| idle.until).min();
        let next = state.next_look;
        drop(state);
        drop(gone);
        next
    }
}

impl<T: Send + 'static> Shelf<T> {
    /// Puts an item here, which then waits for so long; or ends it, if it may not come back or there is no room.
    /// Runs in the async runtime.
    pub(super) fn put<S>(
        self: &Arc<Self>,
        ticket: &Ticket<S, T>,
        item: T,
        holds: Holds,
        idle_for: Duration,
    ) where
        S: Deref<Target = Self>,
    {
        let now = Instant::now();
        let until = now.checked_add(idle_for).unwrap_or(now);
        let mut gone = Vec::new();
        let mut state = self.lock();
        let is_current = state
            .functions
            .get(&ticket.function)
            .is_some_and(|row| row.changes == ticket.changes);
        let fits = self.capacity.items > 0 && holds.bytes <= self.capacity.bytes;
        if state.is_closed || state.waiting > 0 || !is_current || !fits {
            // Outside the lock: an instance takes its time to end.
            drop(state);
            drop(item);
            return;
        }
        while !self.has_room(&state, holds)
            && let Some(oldest) = state.take_oldest(|_| true)
        {
            gone.push(oldest);
        }
        state.put(ticket, item, holds, until);
        let look = match state.next_look {
            None => {
                state.next_look = Some(until);
                Look::Begin
            }
            Some(next) if until < next => {
                state.next_look = Some(until);
                Look::Earlier
            }
            Some(_) => Look::Enough,
        };
        drop(state);
        self.count_evicted(gone.len());
        drop(gone);
        match look {
            Look::Begin => self.begin_to_look(),
            Look::Earlier => self.earlier.notify_one(),
            Look::Enough => {}
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the shelf, and has nothing that a stop would have to wait for"
    )]
    fn begin_to_look(self: &Arc<Self>) {
        let looking = keep_looking(Arc::downgrade(self), Arc::clone(&self.earlier));
        drop(tokio::spawn(looking));
    }

    fn has_room(&self, state: &State<T>, holds: Holds) -> bool {
        let items = u32::try_from(state.order.len()).unwrap_or(u32::MAX);
        items < self.capacity.items
            && state.bytes.saturating_add(holds.bytes) <= self.capacity.bytes
    }
}

/// What an item that was put here means for whoever looks for late ones.
enum Look {
    Begin,
    Earlier,
    Enough,
}

impl<T> Drop for Shelf<T> {
    fn drop(&mut self) {
        self.earlier.notify_one();
    }
}

/// Ends what has waited for too long: one timer for all, and none while nothing waits.
async fn keep_looking<T: Send + 'static>(shelf: Weak<Shelf<T>>, earlier: Arc<Notify>) {
    let mut looking = Looking(Some(Weak::clone(&shelf)));
    loop {
        let next = match shelf.upgrade() {
            Some(shelf) => shelf.look(Instant::now()),
            None => None,
        };
        let Some(next) = next else {
            // The shelf knows; whoever looks by now is another.
            looking.0 = None;
            return;
        };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = earlier.notified() => {}
        }
    }
}

/// Tells the shelf that nobody looks any more if the async runtime ends first.
struct Looking<T>(Option<Weak<Shelf<T>>>);

impl<T> Drop for Looking<T> {
    fn drop(&mut self) {
        if let Some(shelf) = self.0.take().and_then(|shelf| shelf.upgrade()) {
            shelf.lock().next_look = None;
        }
    }
}

impl<T> Row<T> {
    fn new() -> Self {
        Self {
            idle: Vec::new(),
            in_use: 0,
            changes: 0,
        }
    }
}

impl<T> State<T> {
    fn idle(&self) -> impl Iterator<Item = (&FunctionName, &Idle<T>)> {
        self.functions
            .iter()
            .flat_map(|(function, row)| row.idle.iter().map(move |idle| (function, idle)))
    }

    fn put<S>(&mut self, ticket: &Ticket<S, T>, item: T, holds: Holds, until: Instant)
    where
        S: Deref<Target = Shelf<T>>,
    {
        let place = self.next_place;
        let Some(row) = self.functions.get_mut(&ticket.function) else {
            return;
        };
        row.idle.push(Idle {
            place,
            version: Arc::clone(&ticket.version),
            until,
            holds,
            item,
        });
        self.next_place += 1;
        self.order.insert(place, ticket.function.clone());
        self.bytes = self.bytes.saturating_add(holds.bytes);
    }

    /// The version's item that was put here last. Versions are the same only if they are one in memory: what has
    /// the same name and number may be another function by now.
    fn take(&mut self, function: &FunctionName, version: &Arc<Version>) -> Option<Idle<T>> {
        let row = self.functions.get(function)?;
        let of_version = |idle: &&Idle<T>| Arc::ptr_eq(&idle.version, version);
        let place = row.idle.iter().rev().find(of_version)?.place;
        self.take_place(place, function)
    }

    fn take_oldest(&mut self, is_meant: impl Fn(Holds) -> bool) -> Option<Idle<T>> {
        let meant = self.order.iter().find(|(place, function)| {
            let row = self.functions.get(*function);
            let idle = row.and_then(|row| row.idle.iter().find(|idle| idle.place == **place));
            idle.is_some_and(|idle| is_meant(idle.holds))
        });
        let (place, function) = meant.map(|(place, function)| (*place, function.clone()))?;
        self.take_place(place, &function)
    }

    fn take_place(&mut self, place: u64, function: &FunctionName) -> Option<Idle<T>> {
        let row = self.functions.get_mut(function)?;
        let at = row.idle.iter().position(|idle| idle.place == place)?;
        let idle = row.idle.remove(at);
        self.order.remove(&place);
        self.bytes = self.bytes.saturating_sub(idle.holds.bytes);
        self.forget_if_unused(function);
        Some(idle)
    }

    fn empty_row(&mut self, function: &FunctionName) -> Vec<Idle<T>> {
        let Some(row) = self.functions.get_mut(function) else {
            return Vec::new();
        };
        row.changes += 1;
        let gone = std::mem::take(&mut row.idle);
        for idle in &gone {
            self.order.remove(&idle.place);
            self.bytes = self.bytes.saturating_sub(idle.holds.bytes);
        }
        self.forget_if_unused(function);
        gone
    }

    fn give_back(&mut self, function: &FunctionName) {
        if let Some(row) = self.functions.get_mut(function) {
            row.in_use -= 1;
        }
        self.forget_if_unused(function);
    }

    fn forget_if_unused(&mut self, function: &FunctionName) {
        let row = self.functions.get(function);
        if row.is_some_and(|row| row.idle.is_empty() && row.in_use == 0) {
            self.functions.remove(function);
        }
    }
}

#[cfg(test)]
mod tests;
