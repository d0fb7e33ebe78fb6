//! A store that forgets with its process: for harnesses and simulations, never for a server.
//!
//! It keeps the same promises as the others but the one about disks, and passes the same conformance suite.
//! What would be on disk is a [`Disk`], which outlives the store that works on it: opening it again is
//! what a restart is.
//!
//! **Invariant:** every method does its whole work under one lock and never waits.

mod row;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::row::{LastRun, Row};
use super::{
    Accepted, Applied, AttemptRecord, ClaimRecord, EndedExecution, Error, ExecutionRecord, Filter,
    FunctionRecord, KeyHolder, LiveExecution, NewExecution, Order, Request, Result, Retention,
    SecretRecord, Store, Transition,
};
use crate::execution::State;
use crate::model::{
    ExecutionId, FunctionId, FunctionName, FunctionSettings, IdempotencyKey, RuntimeRevision,
    SecretName, Timestamp, Version, VersionNumber,
};

/// What outlives a [`MemoryStore`].
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    boot: u32,
    last_function: i64,
    functions: BTreeMap<FunctionId, FunctionRecord>,
    secrets: BTreeMap<SecretName, SecretRecord>,
    rows: BTreeMap<ExecutionId, Row>,
    keys: HashMap<(FunctionId, IdempotencyKey), KeyRow>,
    runtime_config: Option<RuntimeRevision>,
}

#[derive(Debug, Clone, Copy)]
struct KeyRow {
    holder: KeyHolder,
    expires_at: Timestamp,
}

/// The store; see the module.
#[derive(Debug)]
pub struct MemoryStore {
    disk: Disk,
    boot: u32,
    closed: tokio_util::sync::CancellationToken,
}

impl MemoryStore {
    /// Opens a disk; the boot number grows with every opening.
    pub fn open(disk: &Disk) -> Self {
        let mut tables = disk.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.boot += 1;
        Self {
            disk: disk.clone(),
            boot: tables.boot,
            closed: tokio_util::sync::CancellationToken::new(),
        }
    }

    /// The tables, as they are whether somebody panicked over them or not: each change is one step.
    /// A store is closed by its owner, and by the next one that opens its disk.
    fn tables(&self) -> Result<MutexGuard<'_, Tables>> {
        let tables = self.disk.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.is_cancelled() || tables.boot != self.boot {
            return Err(Error::Closed);
        }
        Ok(tables)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn boot(&self) -> u32 {
        self.boot
    }

    async fn functions(&self) -> Result<Vec<FunctionRecord>> {
        Ok(self.tables()?.functions.values().cloned().collect())
    }

    async fn create_function(
        &self,
        name: &FunctionName,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<FunctionRecord> {
        let mut tables = self.tables()?;
        if tables
            .functions
            .values()
            .any(|function| function.name == *name)
        {
            return Err(Error::NameTaken);
        }
        tables.last_function += 1;
        let record = FunctionRecord {
            id: FunctionId(tables.last_function),
            name: name.clone(),
            settings: settings.clone(),
            active: version.number,
            created_at: version.created_at,
            updated_at: version.created_at,
            versions: vec![version],
        };
        tables.functions.insert(record.id, record.clone());
        Ok(record)
    }

    async fn add_version(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<()> {
        let mut tables = self.tables()?;
        let function = tables.functions.get_mut(&id).ok_or(Error::NoSuchFunction)?;
        let mut versions = function.versions.iter();
        if versions.any(|known| known.number == version.number) {
            let taken = format!("version {} exists", version.number);
            return Err(Error::Failed(taken.into()));
        }
        function.settings = settings.clone();
        function.active = version.number;
        function.updated_at = version.created_at;
        function.versions.push(version);
        Ok(())
    }

    async fn set_function(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        active: VersionNumber,
        now: Timestamp,
    ) -> Result<()> {
        let mut tables = self.tables()?;
        let function = tables.functions.get_mut(&id).ok_or(Error::NoSuchFunction)?;
        let mut versions = function.versions.iter();
        if !versions.any(|version| version.number == active) {
            return Err(Error::NoSuchFunction);
        }
        function.settings = settings.clone();
        function.active = active;
        function.updated_at = now;
        Ok(())
    }

    async fn delete_function(&self, id: FunctionId) -> Result<()> {
        let mut tables = self.tables()?;
        tables.functions.remove(&id).ok_or(Error::NoSuchFunction)?;
        tables.keys.retain(|(function, _), _| *function != id);
        Ok(())
    }

    async fn secrets(&self) -> Result<Vec<SecretRecord>> {
        Ok(self.tables()?.secrets.values().cloned().collect())
    }

    async fn put_secret(
        &self,
        name: &SecretName,
        sealed: Arc<[u8]>,
        now: Timestamp,
    ) -> Result<SecretRecord> {
        let mut tables = self.tables()?;
        let before = tables.secrets.get(name);
        let record = SecretRecord {
            name: name.clone(),
            sealed,
            created_at: before.map_or(now, |before| before.created_at),
            updated_at: now,
        };
        tables.secrets.insert(name.clone(), record.clone());
        Ok(record)
    }

    async fn delete_secret(&self, name: &SecretName) -> Result<Applied> {
        let removed = self.tables()?.secrets.remove(name);
        Ok(removed.map_or(Applied::Stale, |_| Applied::Done))
    }

    async fn runtime_config(&self) -> Result<Option<RuntimeRevision>> {
        Ok(self.tables()?.runtime_config)
    }

    async fn set_runtime_config(&self, expected: u64, next: RuntimeRevision) -> Result<Applied> {
        let mut tables = self.tables()?;
        let standing = tables.runtime_config.map_or(0, |revision| revision.number);
        if standing != expected {
            return Ok(Applied::Stale);
        }
        tables.runtime_config = Some(next);
        Ok(Applied::Done)
    }

    async fn accept(&self, new: NewExecution) -> Result<Accepted> {
        let mut tables = self.tables()?;
        if !tables.functions.contains_key(&new.function_id) {
            return Err(Error::NoSuchFunction);
        }
        if let Some(claim) = &new.key {
            let name = (new.function_id, claim.key.clone());
            let held = tables.keys.get(&name).copied();
            if let Some(held) = held.filter(|held| held.expires_at > new.execution.created_at) {
                return Ok(Accepted::Existing(held.holder));
            }
        }
        if tables.rows.contains_key(&new.id) {
            return Err(Error::Failed("an execution of this id exists".into()));
        }
        if let Some(claim) = &new.key {
            let name = (new.function_id, claim.key.clone());
            let holder = KeyHolder {
                id: new.id,
                body_hash: claim.body_hash,
            };
            tables.keys.insert(
                name,
                KeyRow {
                    holder,
                    expires_at: claim.expires_at,
                },
            );
        }
        tables.rows.insert(new.id, Row::of_new(new));
        Ok(Accepted::New)
    }

    async fn key_holder(
        &self,
        function: FunctionId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<KeyHolder>> {
        let tables = self.tables()?;
        let held = tables.keys.get(&(function, key.clone()));
        Ok(held
            .filter(|held| held.expires_at > now)
            .map(|held| held.holder))
    }

    fn log_claim(&self, claim: ClaimRecord) {
        let Ok(mut tables) = self.tables() else {
            return;
        };
        if let Some(row) = tables.rows.get_mut(&claim.id)
            && !row.execution.status().is_terminal()
            && row.claimed < claim.fence
        {
            row.claimed = claim.fence;
            row.execution.state = State::Running { fence: claim.fence };
            row.execution.attempts = claim.attempt;
            row.execution.started_at = Some(claim.at);
        }
    }

    async fn transition(&self, transition: Transition) -> Result<Applied> {
        let mut tables = self.tables()?;
        let row = tables.rows.get_mut(&transition.id);
        Ok(row.map_or(Applied::Stale, |row| row.apply(transition)))
    }

    async fn transition_all(&self, transitions: Vec<Transition>) -> Result<Vec<Applied>> {
        let mut applied = Vec::with_capacity(transitions.len());
        for transition in transitions {
            applied.push(self.transition(transition).await?);
        }
        Ok(applied)
    }

    async fn add_attempt(&self, id: ExecutionId, attempt: AttemptRecord) -> Result<Applied> {
        let mut tables = self.tables()?;
        let row = tables.rows.get_mut(&id);
        let Some(row) = row.filter(|row| row.keeps_attempts) else {
            return Ok(Applied::Stale);
        };
        if let Err(at) = row.run_under(attempt.fence) {
            if at == row.attempts.len() && row.execution.status().is_terminal() {
                row.last = LastRun::of(&attempt);
            }
            row.attempts.insert(at, attempt);
        }
        Ok(Applied::Done)
    }

    fn record_ended(&self, ended: EndedExecution) {
        if let Ok(mut tables) = self.tables() {
            let row = tables.rows.entry(ended.id);
            row.or_insert_with(|| Row::of_ended(ended));
        }
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRecord>> {
        let tables = self.tables()?;
        let row = tables.rows.get(&id);
        Ok(row.map(|row| row.record(id, row.output.clone())))
    }

    async fn executions(&self, filter: &Filter, limit: u32) -> Result<Vec<ExecutionRecord>> {
        let tables = self.tables()?;
        let admitted =
            |(id, row): &(&ExecutionId, &Row)| filter.admits(**id, &row.function, &row.execution);
        let record = |(id, row): (&ExecutionId, &Row)| row.record(*id, None);
        let (rows, limit) = (tables.rows.iter(), limit as usize);
        Ok(match filter.order {
            Order::NewestFirst => {
                let page = rows.rev().filter(admitted).take(limit);
                page.map(record).collect()
            }
            Order::OldestFirst => rows.filter(admitted).take(limit).map(record).collect(),
        })
    }

    async fn request(&self, id: ExecutionId) -> Result<Option<Request>> {
        let tables = self.tables()?;
        let row = tables.rows.get(&id);
        Ok(row.and_then(|row| row.request.as_deref().cloned()))
    }

    async fn attempts(&self, id: ExecutionId) -> Result<Vec<AttemptRecord>> {
        let tables = self.tables()?;
        let row = tables.rows.get(&id);
        Ok(row.map(|row| row.attempts.clone()).unwrap_or_default())
    }

    async fn live_executions(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> Result<Vec<LiveExecution>> {
        let tables = self.tables()?;
        let live = tables.rows.iter().filter(|(id, row)| {
            !row.execution.status().is_terminal() && after.is_none_or(|after| **id > after)
        });
        Ok(live
            .take(limit as usize)
            .map(|(id, row)| LiveExecution {
                id: *id,
                function_id: row.function_id,
                function: row.function.clone(),
                version: row.version,
                execution: row.execution.clone(),
                deadline: row.deadline,
                input_bytes: row.input_bytes,
                trace_id: row.trace_id.clone(),
            })
            .collect())
    }

    async fn purge(&self, retention: Retention) -> Result<u32> {
        let mut tables = self.tables()?;
        let mut left = retention.rows_max;
        let mut take = || {
            let is_left = left > 0;
            left = left.saturating_sub(1);
            is_left
        };
        tables.rows.retain(|_, row| {
            let finished = row.execution.finished_at;
            let is_old = row.execution.status().is_terminal()
                && finished.is_some_and(|at| at < retention.executions_before);
            if is_old {
                // One execution can have very many attempts: it may take several steps.
                row.attempts.retain(|_| !take());
            }
            !(is_old && row.attempts.is_empty() && take())
        });
        tables
            .keys
            .retain(|_, row| !(row.expires_at < retention.keys_before && take()));
        Ok(retention.rows_max - left)
    }

    async fn flush(&self) -> Result<()> {
        self.tables().map(drop)
    }

    fn poisoned(&self) -> Option<Arc<str>> {
        None
    }

    async fn wait_poisoned(&self) -> Arc<str> {
        std::future::pending().await
    }

    async fn close(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        self.closed.cancel();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Disk, MemoryStore};
    use crate::store::Store;
    use crate::store::conformance::{Opener, suite};

    fn new_place() -> Opener {
        let disk = Disk::default();
        Box::new(move || Arc::new(MemoryStore::open(&disk)) as Arc<dyn Store>)
    }

    suite!(new_place);
}
