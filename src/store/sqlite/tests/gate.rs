//! A hand on the write path: holds commits back, or makes them fail.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use crate::store::sqlite::{Options, WriteFaults};

#[derive(Debug, Default)]
struct State {
    shut: bool,
    failing: bool,
    arrived: usize,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// Options for this folder with a gate that is open.
    pub(super) fn options(dir: &std::path::Path) -> (Options, Arc<Self>) {
        let gate = Arc::new(Self::default());
        let options = Options {
            faults: Some(Arc::clone(&gate) as Arc<dyn WriteFaults>),
            ..Options::new(dir)
        };
        (options, gate)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// The next commit waits before the gate.
    pub(super) fn shut(&self) {
        self.change(|state| (state.shut, state.arrived) = (true, 0));
    }

    pub(super) fn open(&self) {
        self.change(|state| state.shut = false);
    }

    /// Every commit that has not passed yet fails.
    pub(super) fn fail(&self) {
        self.change(|state| state.failing = true);
    }

    /// Blocks until a commit waits before the gate, or has failed there.
    pub(super) fn wait_for_arrival(&self) {
        let state = self.state.lock().unwrap();
        let _arrived = self
            .changed
            .wait_while(state, |state| state.arrived == 0)
            .unwrap();
    }

    /// Commits that came to the gate since it was shut last.
    pub(super) fn arrived(&self) -> usize {
        self.state.lock().unwrap().arrived
    }
}

impl WriteFaults for Gate {
    fn before_commit(&self) -> io::Result<()> {
        self.change(|state| state.arrived += 1);
        let state = self.state.lock().unwrap();
        let state = self.changed.wait_while(state, |state| state.shut).unwrap();
        if state.failing {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    }
}
