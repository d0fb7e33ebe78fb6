//! Memory that requests may take together: counted before it is taken, given back when it is dropped.
//!
//! **Invariant:** a request that does not fit is refused before it is read; nobody waits for room.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted at once: a permit stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// Bytes that some kind of request may take together.
#[derive(Debug)]
pub(in crate::api) struct Budget {
    permits: Arc<Semaphore>,
    permits_max: usize,
}

/// Bytes taken from a [`Budget`]; they are free again when this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Room {
    _permits: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `bytes`, in which one request of the `largest` size always fits.
    pub(in crate::api) fn new(bytes: usize, largest: usize) -> Self {
        let permits_max = bytes.max(largest).div_ceil(PERMIT_BYTES);
        let permits_max = permits_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
        }
    }

    /// Takes `bytes`, or nothing if they are not free.
    pub(in crate::api) fn take(&self, bytes: usize) -> Option<Room> {
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.permits_max);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.permits).try_acquire_many_owned(permits);
        permits.ok().map(|permits| Room { _permits: permits })
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
        assert!(
            Budget::new(1, 5 * PERMIT_BYTES)
                .take(5 * PERMIT_BYTES)
                .is_some()
        );
    }
}
