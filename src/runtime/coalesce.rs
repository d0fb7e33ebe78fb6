//! Makes several callers who want the same thing at once share one piece of work.
//!
//! **Invariant:** the work runs only while somebody waits for it, and nothing is left behind when nobody does.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::model::Digest;

/// Work in flight, by the digest that it is about.
pub(super) struct Coalesce<V> {
    flights: Mutex<HashMap<Digest, Arc<OnceCell<V>>>>,
}

impl<V> Default for Coalesce<V> {
    fn default() -> Self {
        Self {
            flights: Mutex::default(),
        }
    }
}

/// One caller's part in a flight; the last one to leave takes the flight off the list.
struct Seat<'a, V> {
    of: &'a Coalesce<V>,
    digest: Digest,
    flight: Arc<OnceCell<V>>,
}

impl<V: Clone> Coalesce<V> {
    /// The result of `work`, or of the same work begun by somebody else. If that somebody leaves before it
    /// is done, `work` takes over.
    pub(super) async fn join(&self, digest: Digest, work: impl Future<Output = V>) -> V {
        let seat = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            Seat {
                of: self,
                digest,
                flight: Arc::clone(flights.entry(digest).or_default()),
            }
        };
        seat.flight.get_or_init(|| work).await.clone()
    }
}

impl<V> Drop for Seat<'_, V> {
    fn drop(&mut self) {
        let mut flights = self
            .of
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let listed = flights
            .get(&self.digest)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        // A finished flight takes no more passengers; the list's and our own are the last two references.
        if listed && (self.flight.initialized() || Arc::strong_count(&self.flight) == 2) {
            flights.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const DIGEST: [u8; 32] = [7; 32];

    #[tokio::test]
    async fn many_callers_share_one_piece_of_work() {
        let coalesce = Coalesce::default();
        let begun = AtomicUsize::new(0);
        let work = async || {
            begun.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            42
        };
        let digest = Digest::from_bytes(DIGEST);
        let (a, b, c) = tokio::join!(
            coalesce.join(digest, work()),
            coalesce.join(digest, work()),
            coalesce.join(digest, work()),
        );
        assert_eq!((a, b, c), (42, 42, 42));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(coalesce.flights.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn another_caller_takes_over_when_the_first_leaves() {
        let coalesce = Coalesce::default();
        let digest = Digest::from_bytes(DIGEST);
        {
            let mut first = Box::pin(coalesce.join(digest, std::future::pending()));
            assert!(futures_util::poll!(first.as_mut()).is_pending());
            let mut second = Box::pin(coalesce.join(digest, async { 7 }));
            assert!(futures_util::poll!(second.as_mut()).is_pending());
            drop(first);
            assert_eq!(second.await, 7);
        }
        {
            let mut left = Box::pin(coalesce.join(digest, std::future::pending()));
            assert!(futures_util::poll!(left.as_mut()).is_pending());
        }
        assert!(coalesce.flights.lock().unwrap().is_empty());
    }
}
