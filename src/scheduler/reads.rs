//! What executions look like from outside.
//!
//! **Invariant:** reads change nothing; a live execution is shown as memory knows it, an ended one as the
//! store does.

use std::sync::Arc;

use super::queue::Class;
use super::state::Home;
use super::{CallError, Scheduler};
use crate::execution::Status;
use crate::model::{ExecutionId, FunctionName, Timestamp};
use crate::store::{AttemptRecord, ExecutionRecord, Filter};

/// How much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Executions that have not ended, those among them whose end is on its way to disk.
    pub live: usize,
    /// Executions that wait.
    pub queued: usize,
    /// Attempts that run.
    pub running: usize,
    /// How many of them run at services behind a URL.
    pub endpoint_calls: usize,
    /// Bytes of the inputs that are kept in memory for executions that are on disk too.
    pub queued_input_bytes: u64,
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

    /// A page of executions, newest first, without outputs. Those that live in memory are among them.
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
            let mine = state.live.values().filter(|live| live.home == Home::Memory);
            mine.map(|live| live.record(None))
                .filter(|record| matches(filter, record))
                .collect()
        };
        let mut page = self.inner.store.executions(filter, limit).await?;
        // One that ended between the two looks is in both: the stored row is the newer one.
        in_memory.retain(|live| page.iter().all(|stored| stored.id != live.id));
        page.append(&mut in_memory);
        page.sort_unstable_by_key(|record| std::cmp::Reverse(record.id));
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

    /// How much is going on in the whole plane.
    pub fn load(&self) -> Load {
        let state = self.lock();
        Load {
            live: state.live.len(),
            queued: state.count(Status::Queued),
            running: state.queues.running_all(),
            endpoint_calls: state.queues.running_in(Class::Endpoint),
            queued_input_bytes: state.queued_input_bytes(),
        }
    }

    /// Whether new calls are taken (false while stopping).
    pub fn is_accepting(&self) -> bool {
        !self.lock().stopping
    }
}

fn matches(filter: &Filter, record: &ExecutionRecord) -> bool {
    let status = record.execution.status();
    filter
        .function
        .as_ref()
        .is_none_or(|name| *name == record.function)
        && filter.status.is_none_or(|wanted| wanted == status)
        && filter
            .since
            .is_none_or(|since| record.execution.created_at >= since)
        && filter.before.is_none_or(|before| record.id < before)
}
