//! One at a time makes an execution under a key; who comes with the same key meanwhile waits, and finds it.
//!
//! Without this each of them would ask for a place in the queue of its own, and be refused where the first got
//! the last one.
//!
//! **Invariant:** a key is somebody's as long as its [`Turn`] lives; turns are given in the order of arrival, and
//! nothing is kept of a key that nobody asks for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::model::{FunctionId, IdempotencyKey};

type Key = (FunctionId, IdempotencyKey);
/// Who waits for each key that is somebody's.
type Lines = HashMap<Key, VecDeque<oneshot::Sender<Turn>>>;

/// The keys under which executions are being made.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Arc<Mutex<Lines>>);

/// The right to make an execution under a key. It goes to the next in line when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    keys: Keys,
    /// Whose it is; nothing once it was handed over.
    key: Option<Key>,
}

impl Keys {
    /// Waits until nobody else makes an execution under this key.
    pub(super) async fn turn(&self, function: FunctionId, key: &IdempotencyKey) -> Turn {
        let key = (function, key.clone());
        loop {
            let handed_over = {
                let mut lines = self.lock();
                let Some(line) = lines.get_mut(&key) else {
                    lines.insert(key.clone(), VecDeque::new());
                    return self.turn_of(key);
                };
                let (hand_over, handed_over) = oneshot::channel();
                line.push_back(hand_over);
                handed_over
            };
            // A line ends only with its last turn, so this fails for nobody.
            if let Ok(turn) = handed_over.await {
                return turn;
            }
        }
    }

    fn turn_of(&self, key: Key) -> Turn {
        Turn {
            keys: self.clone(),
            key: Some(key),
        }
    }

    /// Whether nobody has a turn.
    #[cfg(test)]
    pub(super) fn are_free(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut key) = self.key.take() else {
            return;
        };
        loop {
            let next = {
                let mut lines = self.keys.lock();
                match lines.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(next) => next,
                    None => {
                        lines.remove(&key);
                        return;
                    }
                }
            };
            // One who has gone away is passed over.
            let Err(mut turn) = next.send(self.keys.turn_of(key)) else {
                return;
            };
            let Some(returned) = turn.key.take() else {
                return;
            };
            key = returned;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn turns_come_one_after_another_whoever_goes_away() {
        let keys = Keys::default();
        let key: IdempotencyKey = "key".parse().unwrap();
        let first = keys.turn(FunctionId(1), &key).await;
        let other_function = keys.turn(FunctionId(2), &key).await;
        let mut second = Box::pin(keys.turn(FunctionId(1), &key));
        let mut gone = Box::pin(keys.turn(FunctionId(1), &key));
        let mut third = Box::pin(keys.turn(FunctionId(1), &key));
        let mut never_looks = Box::pin(keys.turn(FunctionId(1), &key));
        let mut last = Box::pin(keys.turn(FunctionId(1), &key));
        for waiting in [
            &mut second,
            &mut gone,
            &mut third,
            &mut never_looks,
            &mut last,
        ] {
            assert!(poll!(waiting).is_pending());
        }
        drop(gone);
        drop(first);
        assert!(poll!(&mut third).is_pending());
        drop(second.await);
        drop(third.await);
        // It has the turn and goes away before it knows.
        drop(never_looks);
        drop(last.await);
        drop(other_function);
        assert!(keys.are_free());
    }
}
