//! Results on their way to disk: counted, so that a disk which stalls does not fill the memory with them.
//!
//! **Invariant:** what is counted is taken off again once it has arrived or never will, and then work is looked for
//! again.

use super::Scheduler;
use super::history::log_bytes;
use super::state::State;
use crate::model::{ExecutionId, Output};
use crate::store::AttemptRecord;

impl State {
    /// Bytes of all results that are on their way to disk.
    pub(super) fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted_bytes
    }

    /// Counts a result that goes to disk from here on, until its execution is settled or gone.
    pub(super) fn count_uncommitted(
        &mut self,
        id: ExecutionId,
        output: Option<&Output>,
        attempt: Option<&AttemptRecord>,
    ) {
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let output = output.map_or(0, |output| output.body.len() as u64);
        let bytes = output + attempt.map_or(0, |attempt| log_bytes(&attempt.logs));
        live.uncommitted_bytes += bytes;
        self.uncommitted_bytes += bytes;
    }

    /// So many bytes have arrived, or never will.
    pub(super) fn committed(&mut self, bytes: u64) {
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
    }
}

impl Scheduler {
    /// Whether so many results wait for the disk that no more may come to them for now. Each decision that
    /// settles looks for work again.
    pub(super) fn is_behind(&self, state: &State) -> bool {
        state.uncommitted_bytes() > self.inner.options.uncommitted_result_bytes_max
    }
}

/// What a run that decides nothing any more has on its way to disk.
pub(super) struct Late<'a> {
    scheduler: &'a Scheduler,
    bytes: u64,
}

impl<'a> Late<'a> {
    pub(super) fn new(scheduler: &'a Scheduler, state: &mut State, run: &AttemptRecord) -> Self {
        let bytes = log_bytes(&run.logs);
        state.uncommitted_bytes += bytes;
        Self { scheduler, bytes }
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        self.scheduler.lock().committed(self.bytes);
    }
}
