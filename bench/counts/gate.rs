//! A hand on the store's writer: it waits before a commit until all that one phase makes has been handed to it.
//!
//! How many operations share a commit depends on the clock and on who runs when. Where instructions are counted, that
//! would be most of the difference between two runs.
//!
//! **Invariant:** while it is shut, at most one commit is on its way.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pelton::store::sqlite::WriteFaults;

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The next commit stops here.
    Shut,
    /// One has.
    Reached,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the next commit.
    pub(crate) fn shut(&self) {
        *self.state() = State::Shut;
    }

    /// Returns when a commit has stopped. Blocks the thread.
    pub(crate) fn wait_reached(&self) {
        self.wait(|state| *state != State::Shut);
    }

    /// Lets the commit that has stopped go on, and all that follow.
    pub(crate) fn open(&self) {
        *self.state() = State::Open;
        self.changed.notify_all();
    }

    fn wait(&self, is_over: impl Fn(&State) -> bool) {
        let waited = self
            .changed
            .wait_while(self.state(), |state| !is_over(state));
        drop(waited);
    }
}

impl WriteFaults for Gate {
    fn before_commit(&self) -> io::Result<()> {
        {
            let mut state = self.state();
            if *state == State::Shut {
                *state = State::Reached;
                self.changed.notify_all();
            }
        }
        self.wait(|state| *state == State::Open);
        Ok(())
    }
}
