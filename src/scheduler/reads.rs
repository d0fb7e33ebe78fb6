//! What executions look like from outside.
//!
//! **Invariant:** reads change nothing; a live execution is shown as memory knows it, an ended one as the
//! store does.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::queue::Class;
use super::state::Home;
use super::{CallError, Scheduler};
use crate::model::{ExecutionId, FunctionName, Timestamp};
use crate::store::{AttemptRecord, ExecutionRecord, Filter, Order};

/// How much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Executions that have not ended, those among them whose end is on its way to disk.
    pub live: usize,
    /// Executions that wait in their queues.
    pub queued: usize,
    /// Attempts that run.
    pub running: usize,
    /// How many of them run at services behind a URL.
    pub endpoint_calls: usize,
    /// Bytes of the inputs, with their metadata, that are kept in memory for executions that are on disk too.
    pub queued_input_bytes: u64,
    /// Bytes of results on their way to disk.
    pub uncommitted_result_bytes: u64,
}

impl Scheduler {
    /// One execution, as it stands.
    ///
    /// # Errors
    /// The store's.
    pub async fn execution(
        &self,
        id: ExecutionId,
    ) -> Result<Option<Arc<ExecutionRecord>>, CallError> {
        if let Some(live) = self.lock().live.get(&id).filter(|live| live.is_visible()) {
            return Ok(Some(Arc::new(live.record(None))));
        }
        Ok(self.inner.store.execution(id).await?.map(Arc::new))
    }

    /// Those of these executions that there are, as they stand, in the order of the ids.
    ///
    /// # Errors
    /// The store's.
    pub async fn executions_of(
        &self,
        ids: &[ExecutionId],
    ) -> Result<Vec<ExecutionRecord>, CallError> {
        let mut found: HashMap<ExecutionId, ExecutionRecord> = {
            let state = self.lock();
            let live = ids.iter().filter_map(|id| state.live.get(id));
            live.filter(|live| live.is_visible())
                .map(|live| (live.id, live.record(None)))
                .collect()
        };
        let mut stored = ids.to_vec();
        stored.retain(|id| !found.contains_key(id));
        let stored = self.inner.store.executions_of(&stored).await?;
        found.extend(stored.into_iter().map(|record| (record.id, record)));
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// A page of executions without outputs. Those that live in memory are among them.
    ///
    /// # Errors
    /// The store's.
    pub async fn executions(
        &self,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<ExecutionRecord>, CallError> {
        let mut in_memory: Vec<ExecutionRecord> = {
            let state = self.lock();
            let mine = state.in_memory.iter().filter_map(|id| state.live.get(id));
            mine.filter(|live| filter.admits(live.id, &live.function, &live.execution))
                .map(|live| live.record(None))
                .collect()
        };
        let mut page = self.inner.store.executions(filter, limit).await?;
        // One that ended between the two looks is in both: the stored row is the newer one.
        in_memory.retain(|live| page.iter().all(|stored| stored.id != live.id));
        page.append(&mut in_memory);
        match filter.order {
            Order::NewestFirst => page.sort_unstable_by_key(|record| Reverse(record.id)),
            Order::OldestFirst => page.sort_unstable_by_key(|record| record.id),
        }
        page.truncate(limit as usize);
        Ok(page)
    }

    /// The ended runs of an execution, oldest first, with their logs.
    ///
    /// # Errors
    /// The store's.
    pub async fn attempts(&self, id: ExecutionId) -> Result<Vec<AttemptRecord>, CallError> {
        if let Some(live) = self.lock().live.get(&id)
            && live.home == Home::Memory
        {
            return Ok(live.attempts.to_vec());
        }
        Ok(self.inner.store.attempts(id).await?)
    }

    /// When the next execution that waits in a function's queue is due; now if one is ready. `None`: none
    /// waits, or there is no such function.
    pub fn next_due(&self, function: &FunctionName) -> Option<Timestamp> {
        let function = self.inner.registry.get(function)?;
        let now = self.inner.clock.now();
        self.lock().queues.next_due_of(function.id, now)
    }

    /// How long ago the earliest deferred execution was due, in ms: 0 as long as the timer wakes what is due.
    pub fn timer_behind_ms(&self) -> u64 {
        let now = self.inner.clock.now();
        let next_due = self.lock().queues.next_due();
        next_due.map_or(0, |due| now.ms_since(due))
    }

    /// How much is going on in the whole plane.
    pub fn load(&self) -> Load {
        let state = self.lock();
        Load {
            live: state.live.len(),
            queued: state.queues.waiting_all(),
            running: state.queues.running_all(),
            endpoint_calls: state.queues.running_in(Class::Endpoint),
            queued_input_bytes: state.queued_input_bytes(),
            uncommitted_result_bytes: state.uncommitted_bytes(),
        }
    }

    /// Whether new calls are taken (false while stopping).
    pub fn is_accepting(&self) -> bool {
        !self.lock().stopping
    }
}
