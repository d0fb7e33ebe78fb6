//! The embedded store: SQLite in a data folder, one writer, group commit, readers beside it.
//!
//! A write is handed to the inbox, committed together with whatever else waits, and answered after the
//! sync. Reads have connections of their own. Ended executions that were promised nothing go through
//! the write-behind buffer, which reads by id see.
//!
//! **Invariant:** one thread writes; a caller who was answered will find what was answered after any
//! crash; after a write failed nothing is written until the next start.

mod backup;
mod buffer;
mod bundle;
mod checkpoint;
mod connection;
mod inbox;
mod inspect;
mod open;
mod ops;
mod options;
mod read;
mod readers;
mod schema;
mod statements;
mod stats;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

pub use backup::{CopyError, Pages, Target, copy, digests, is_in_use};
pub use inspect::{Contents, Inspection, inspect};
pub use options::{OpenError, Options, Synchronous, WriteFaults};
pub use stats::{BATCH_OPS_BUCKETS, COMMIT_US_BUCKETS, STALL_US, Stats};

use super::lock::FolderLock;
use super::{
    Accepted, Applied, AttemptRecord, ClaimRecord, EndedExecution, Error, ExecutionRecord, Filter,
    FunctionRecord, KeyHolder, LiveExecution, NewExecution, Request, Result, Retention,
    SecretRecord, Store, Transition,
};
use crate::model::{
    ExecutionId, FunctionId, FunctionName, FunctionSettings, IdempotencyKey, RuntimeRevision,
    SecretName, Timestamp, Version, VersionNumber,
};
use buffer::{Buffer, Urgency};
use inbox::Inbox;
use readers::Readers;
use stats::Counters;

/// Transitions of one [`Store::transition_all`] that are applied as one operation.
const TRANSITIONS_AT_ONCE: usize = 256;

/// A store in a folder; see [`Options`]. Dropping it without [`Store::close`] does not wait: the
/// writer commits what it was handed and ends by itself, and the folder is free after that.
pub struct SqliteStore {
    boot: u32,
    readers: Readers,
    shared: Arc<Shared>,
    closing: AtomicBool,
}

/// What the handle, the writer and the checkpoint helper share.
struct Shared {
    inbox: Inbox,
    buffer: Buffer,
    poison: watch::Sender<Option<Arc<str>>>,
    /// Whether the writer's thread has ended.
    ended: watch::Sender<bool>,
    counters: Counters,
    /// Held until the store is closed, or nobody uses it any more.
    lock: Mutex<Option<FolderLock>>,
}

impl Shared {
    /// Refuses all writes from now on; the first reason stays and is returned.
    fn poison(&self, reason: &str) -> Arc<str> {
        let reason: Arc<str> = reason.into();
        let is_first = self.poison.send_if_modified(|poison| {
            let is_first = poison.is_none();
            if is_first {
                *poison = Some(Arc::clone(&reason));
            }
            is_first
        });
        if is_first {
            tracing::error!(error = %reason, "a write failed: the store takes no writes until a restart");
        }
        let first = self.poison.borrow().clone().unwrap_or(reason);
        self.inbox.end(Error::Poisoned(Arc::clone(&first)));
        first
    }
}

impl SqliteStore {
    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let (queue_ops, claims_lost) = self.shared.inbox.counts();
        let (write_behind_bytes, summarised_records, dropped_records) = self.shared.buffer.counts();
        let writing = self.shared.inbox.behind();
        Stats {
            writing_us: u64::try_from(writing.as_micros()).unwrap_or(u64::MAX),
            queue_ops: u64::try_from(queue_ops).unwrap_or(u64::MAX),
            claims_lost,
            write_behind_bytes,
            write_behind_bytes_max: self.shared.buffer.bytes_max(),
            summarised_records,
            dropped_records,
            ..self.shared.counters.read()
        }
    }

    /// The record of this id, if it is still on its way to the disk.
    fn buffered(&self, id: ExecutionId) -> Result<Option<Arc<buffer::Ended>>> {
        if self.readers.is_closed() {
            return Err(Error::Closed);
        }
        Ok(self.shared.buffer.get(id))
    }

    /// Waits for what was handed over before, unless all of it is committed already.
    async fn settle(&self) -> Result<()> {
        if self.shared.inbox.is_quiet() && self.shared.buffer.is_empty() {
            return self.shared.inbox.check_open();
        }
        self.shared.inbox.submit(ops::Barrier).await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn boot(&self) -> u32 {
        self.boot
    }

    async fn functions(&self) -> Result<Vec<FunctionRecord>> {
        self.readers.run(read::functions).await
    }

    async fn create_function(
        &self,
        name: &FunctionName,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<FunctionRecord> {
        let operation = ops::CreateFunction {
            name: name.clone(),
            settings: settings.clone(),
            version,
        };
        self.shared.inbox.submit(operation).await
    }

    async fn add_version(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<()> {
        let operation = ops::AddVersion {
            id,
            settings: settings.clone(),
            version,
        };
        self.shared.inbox.submit(operation).await
    }

    async fn set_function(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        active: VersionNumber,
        now: Timestamp,
    ) -> Result<()> {
        let operation = ops::SetFunction {
            id,
            settings: settings.clone(),
            active,
            now,
        };
        self.shared.inbox.submit(operation).await
    }

    async fn delete_function(&self, id: FunctionId) -> Result<()> {
        self.shared.inbox.submit(ops::DeleteFunction(id)).await
    }

    async fn secrets(&self) -> Result<Vec<SecretRecord>> {
        self.readers.run(read::secrets).await
    }

    async fn put_secret(
        &self,
        name: &SecretName,
        sealed: Arc<[u8]>,
        now: Timestamp,
    ) -> Result<SecretRecord> {
        let operation = ops::PutSecret {
            name: name.clone(),
            sealed,
            now,
        };
        self.shared.inbox.submit(operation).await
    }

    async fn delete_secret(&self, name: &SecretName) -> Result<Applied> {
        let operation = ops::DeleteSecret(name.clone());
        self.shared.inbox.submit(operation).await
    }

    async fn runtime_config(&self) -> Result<Option<RuntimeRevision>> {
        self.readers.run(read::runtime_config).await
    }

    async fn set_runtime_config(&self, expected: u64, next: RuntimeRevision) -> Result<Applied> {
        let operation = ops::SetRuntimeConfig { expected, next };
        self.shared.inbox.submit(operation).await
    }

    async fn accept(&self, new: NewExecution) -> Result<Accepted> {
        self.shared.inbox.submit(ops::Accept(new)).await
    }

    async fn key_holder(
        &self,
        function: FunctionId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<KeyHolder>> {
        let key = key.clone();
        self.readers
            .run(move |connection| Ok(write::key_holder(connection, function, key.as_str(), now)?))
            .await
    }

    fn log_claim(&self, claim: ClaimRecord) {
        self.shared.inbox.push_claim(claim);
    }

    async fn transition(&self, transition: Transition) -> Result<Applied> {
        self.shared.inbox.submit(ops::Transit(transition)).await
    }

    async fn transition_all(&self, transitions: Vec<Transition>) -> Result<Vec<Applied>> {
        let mut applied = Vec::with_capacity(transitions.len());
        let mut rest = transitions.into_iter().peekable();
        while rest.peek().is_some() {
            let some: Vec<_> = rest.by_ref().take(TRANSITIONS_AT_ONCE).collect();
            applied.extend(self.shared.inbox.submit(ops::TransitMany(some)).await?);
        }
        Ok(applied)
    }

    async fn add_attempt(&self, id: ExecutionId, attempt: AttemptRecord) -> Result<Applied> {
        let operation = ops::AddAttempt { id, attempt };
        self.shared.inbox.submit(operation).await
    }

    fn record_ended(&self, ended: EndedExecution) {
        if !self.shared.inbox.is_open() {
            self.shared.buffer.count_dropped();
            return;
        }
        match self.shared.buffer.push(ended) {
            Urgency::None => {}
            Urgency::Soon => self.shared.inbox.note_soon(),
            Urgency::Now => self.shared.inbox.note_now(),
        }
    }

    fn tidy(&self) {
        self.shared.buffer.free_some();
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRecord>> {
        if let Some(ended) = self.buffered(id)? {
            return Ok(Some(ended.record()?));
        }
        self.readers
            .run(move |connection| read::execution(connection, id))
            .await
    }

    async fn executions_of(&self, ids: &[ExecutionId]) -> Result<Vec<ExecutionRecord>> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let buffered = self.buffered(*id)?;
            found.push((*id, buffered.map(|ended| ended.record()).transpose()?));
        }
        self.readers
            .run(move |connection| {
                let found = found.into_iter().map(|(id, record)| match record {
                    Some(record) => Ok(Some(record)),
                    None => read::execution(connection, id),
                });
                found.filter_map(|read| read.transpose()).collect()
            })
            .await
    }

    async fn executions(&self, filter: &Filter, limit: u32) -> Result<Vec<ExecutionRecord>> {
        match self.settle().await {
            // A poisoned store still reads.
            Ok(()) | Err(Error::Poisoned(_)) => {}
            Err(error) => return Err(error),
        }
        let filter = filter.clone();
        self.readers
            .run(move |connection| read::executions(connection, &filter, limit))
            .await
    }

    async fn request(&self, id: ExecutionId) -> Result<Option<Request>> {
        if let Some(ended) = self.buffered(id)? {
            return Ok(ended.request()?);
        }
        self.readers
            .run(move |connection| read::request(connection, id))
            .await
    }

    async fn attempts(&self, id: ExecutionId) -> Result<Vec<AttemptRecord>> {
        if let Some(ended) = self.buffered(id)? {
            return Ok(ended.attempts()?);
        }
        self.readers
            .run(move |connection| read::attempts(connection, id))
            .await
    }

    async fn live_executions(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> Result<Vec<LiveExecution>> {
        self.readers
            .run(move |connection| read::live_executions(connection, after, limit))
            .await
    }

    async fn purge(&self, retention: Retention) -> Result<u32> {
        self.shared.inbox.submit(ops::Purge(retention)).await
    }

    async fn flush(&self) -> Result<()> {
        self.settle().await
    }

    fn poisoned(&self) -> Option<Arc<str>> {
        self.shared.poison.borrow().clone()
    }

    async fn wait_poisoned(&self) -> Arc<str> {
        let mut poison = self.shared.poison.subscribe();
        // The sender lives in `self`: waiting ends with a reason or not at all.
        match poison
            .wait_for(Option::is_some)
            .await
            .map(|found| found.clone())
        {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    async fn close(&self) -> Result<()> {
        if self.closing.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        self.readers.close().await;
        self.shared.inbox.close();
        // The sender lives in `self`: this ends when the writer has.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
        let mut lock = self
            .shared
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *lock = None;
        drop(lock);
        match self.poisoned() {
            Some(reason) => Err(Error::Poisoned(reason)),
            None => Ok(()),
        }
    }
}
