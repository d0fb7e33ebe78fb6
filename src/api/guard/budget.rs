//! Memory that requests and answers may take together: counted as it is taken, given back when it is dropped.
//!
//! **Invariant:** nobody waits for room. Large ones never take the last eighth: small ones find room however many
//! of them there are.

use std::sync::Arc;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What is counted at once: a permit stands for this many bytes.
const PERMIT_BYTES: usize = 1024;
/// What goes beyond this many permits is large.
const SMALL_PERMITS: usize = 64;
/// The part of a budget that is for small ones alone.
const SMALL_PART: usize = 8;

/// Bytes that some kind of request may take together.
#[derive(Debug)]
pub(in crate::api) struct Budget {
    all: Share,
    /// What large ones take, which counts in `all` too.
    large: Share,
    shortage: Notify,
}

#[derive(Debug)]
struct Share {
    permits: Arc<Semaphore>,
    max: usize,
}

/// Bytes taken from a [`Budget`]; they are free again when this is dropped.
#[derive(Debug, Default)]
pub(in crate::api) struct Room {
    all: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

/// There is no room for it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct NoRoom;

impl Budget {
    /// A budget of `bytes`, in which one of the `largest` size always fits.
    pub(in crate::api) fn new(bytes: usize, largest: usize) -> Self {
        let largest = largest.div_ceil(PERMIT_BYTES);
        let all = bytes.div_ceil(PERMIT_BYTES).max(largest);
        let all = all.clamp(1, Semaphore::MAX_PERMITS);
        let large = (all - all / SMALL_PART).max(largest).min(all);
        Self {
            all: Share::new(all),
            large: Share::new(large),
            shortage: Notify::new(),
        }
    }

    /// Takes `bytes`, or nothing if they are not free.
    pub(in crate::api) fn take(&self, bytes: usize) -> Option<Room> {
        let mut room = Room::default();
        self.grow(&mut room, bytes.max(1)).ok()?;
        Some(room)
    }

    /// Makes `room` one for `bytes`, if there are as many free.
    ///
    /// # Errors
    /// [`NoRoom`], and the room is as it was. Who holds room for long hears of it.
    pub(in crate::api) fn grow(&self, room: &mut Room, bytes: usize) -> Result<(), NoRoom> {
        let permits = bytes.div_ceil(PERMIT_BYTES);
        let large = self.large.more(&room.large, large_part(permits));
        let all = self.all.more(&room.all, permits);
        let (Ok(large), Ok(all)) = (large, all) else {
            self.shortage.notify_waiters();
            return Err(NoRoom);
        };
        add(&mut room.large, large);
        add(&mut room.all, all);
        Ok(())
    }

    /// Looks whether `bytes` are free now, without taking them.
    ///
    /// # Errors
    /// [`NoRoom`]. Who holds room for long hears of it.
    pub(in crate::api) fn check(&self, bytes: usize) -> Result<(), NoRoom> {
        let permits = bytes.div_ceil(PERMIT_BYTES);
        if self.all.has(permits) && self.large.has(large_part(permits)) {
            return Ok(());
        }
        self.shortage.notify_waiters();
        Err(NoRoom)
    }

    /// Ends when somebody finds no room.
    pub(in crate::api) fn shortage(&self) -> Notified<'_> {
        self.shortage.notified()
    }
}

/// What counts as taken by a large one.
fn large_part(permits: usize) -> usize {
    if permits > SMALL_PERMITS { permits } else { 0 }
}

impl Share {
    fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Permits that make `held` as many as are wanted; whoever wants more than there are wants all.
    fn more(
        &self,
        held: &Option<OwnedSemaphorePermit>,
        wanted: usize,
    ) -> Result<Option<OwnedSemaphorePermit>, NoRoom> {
        let held = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = wanted.min(self.max).saturating_sub(held);
        if missing == 0 {
            return Ok(None);
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.permits).try_acquire_many_owned(missing);
        permits.map(Some).map_err(|_| NoRoom)
    }

    fn has(&self, wanted: usize) -> bool {
        self.permits.available_permits() >= wanted.min(self.max)
    }
}

fn add(held: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (held.as_mut(), more) {
        (Some(held), Some(more)) => held.merge(more),
        (None, more) => *held = more,
        (Some(_), None) => {}
    }
}

impl Room {
    /// Whether it is more than a small one takes.
    pub(in crate::api) fn is_large(&self) -> bool {
        self.large.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_counted_and_given_back() {
        let budget = Budget::new(10 * PERMIT_BYTES, 1);
        let most = budget.take(9 * PERMIT_BYTES + 1).unwrap();
        assert!(budget.take(1).is_none());
        drop(most);
        let small = budget.take(0).unwrap();
        assert!(budget.take(10 * PERMIT_BYTES).is_none());
        drop(small);
        // One of the largest size always fits, however small the budget is said to be.
        for largest in [5 * PERMIT_BYTES, 500 * PERMIT_BYTES] {
            assert!(Budget::new(1, largest).take(largest).is_some());
        }
        // One that is larger than everything takes everything.
        let all = budget.take(usize::MAX).unwrap();
        assert!(budget.take(1).is_none());
        drop(all);
        assert!(budget.take(10 * PERMIT_BYTES).is_some());
    }

    #[test]
    fn room_grows_by_what_is_missing_and_a_refusal_changes_nothing() {
        let budget = Budget::new(10 * PERMIT_BYTES, 1);
        let mut room = Room::default();
        for bytes in [1, PERMIT_BYTES, 4 * PERMIT_BYTES, 2] {
            budget.grow(&mut room, bytes).unwrap();
        }
        assert!(budget.check(6 * PERMIT_BYTES).is_ok());
        assert!(budget.check(6 * PERMIT_BYTES + 1).is_err());
        let other = budget.take(6 * PERMIT_BYTES).unwrap();
        assert_eq!(budget.grow(&mut room, 5 * PERMIT_BYTES), Err(NoRoom));
        drop(other);
        assert!(budget.check(6 * PERMIT_BYTES).is_ok());
        drop(room);
        assert!(budget.check(10 * PERMIT_BYTES).is_ok());
    }

    #[test]
    fn large_ones_leave_room_for_small_ones() {
        let small = SMALL_PERMITS * PERMIT_BYTES;
        let budget = Budget::new(80 * small, 1);
        let mut large = Vec::new();
        while let Some(room) = budget.take(2 * small) {
            assert!(room.is_large());
            large.push(room);
        }
        assert!(budget.check(2 * small).is_err());
        let left = budget.take(small).unwrap();
        assert!(!left.is_large());
        drop(large);
        assert!(budget.take(2 * small).is_some());
    }
}
