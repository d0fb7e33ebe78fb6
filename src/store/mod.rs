//! Where things are kept: one trait, stated as transitions, and its implementations.
//!
//! The scheduler decides (by [`crate::execution::step`]); the store makes decisions durable and refuses
//! those that come too late. A reply comes after the commit, so whoever has one may tell the world.
//!
//! **Invariant:** nothing outside this folder knows which database it is, and nothing in it knows HTTP,
//! wasm or queues.

mod ended;
mod lock;
pub mod memory;
mod record;
pub mod sqlite;

#[cfg(test)]
mod conformance;

pub use ended::EndedExecution;

use std::sync::Arc;

use async_trait::async_trait;

use crate::execution::{Execution, Status};
use crate::model::{
    ExecutionId, Failure, Fence, FunctionId, FunctionName, FunctionSettings, IdempotencyKey, Input,
    Logs, Output, RuntimeRevision, SecretName, Timestamp, Version, VersionNumber,
};

/// What went wrong with a store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A write failed earlier (disk full, I/O error, failed sync): reads work, writes do not, until a restart.
    #[error("the store takes no writes since this failed: {0}")]
    Poisoned(Arc<str>),
    /// The store is closed, or closing.
    #[error("the store is closed")]
    Closed,
    /// The name is taken.
    #[error("a function of this name exists")]
    NameTaken,
    /// The function or version that the change is about does not exist.
    #[error("no such function or version")]
    NoSuchFunction,
    /// This one operation failed (a row that cannot be read, a value out of range); others go on.
    #[error("the store could not do this: {0}")]
    Failed(Arc<str>),
}

/// Shorthand for results of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// A function with all its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRecord {
    /// Its identity.
    pub id: FunctionId,
    /// Its name.
    pub name: FunctionName,
    /// Its settings.
    pub settings: FunctionSettings,
    /// Which version new calls get.
    pub active: VersionNumber,
    /// All versions, ascending.
    pub versions: Vec<Arc<Version>>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last deployed or changed.
    pub updated_at: Timestamp,
}

/// A secret as it is kept: encrypted by somebody who has the key, which the store has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRecord {
    /// Its name.
    pub name: SecretName,
    /// Its value, encrypted.
    pub sealed: Arc<[u8]>,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last set.
    pub updated_at: Timestamp,
}

/// What a caller sent, kept until the execution needs it no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The input.
    pub input: Input,
    /// Metadata of the call.
    pub metadata: Arc<[(String, String)]>,
    /// `X-Trace-Id`.
    pub trace_id: Option<Arc<str>>,
    /// W3C trace context.
    pub traceparent: Option<Arc<str>>,
    /// The key, if there was one.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The execution that asked for this one.
    pub parent: Option<ExecutionId>,
}

impl Request {
    /// What its caller chose the size of takes in memory: the input and the metadata.
    pub fn bytes(&self) -> u64 {
        let entry = |(name, value): &(String, String)| {
            (size_of::<(String, String)>() + name.len() + value.len()) as u64
        };
        self.input.body.len() as u64 + self.metadata.iter().map(entry).sum::<u64>()
    }
}

/// A claim on an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyClaim {
    /// The key, unique per function.
    pub key: IdempotencyKey,
    /// SHA-256 of the raw input and the canonical metadata.
    pub body_hash: [u8; 32],
    /// When the key is forgotten.
    pub expires_at: Timestamp,
}

/// An execution to be made durable before anybody is told of it.
#[derive(Debug, Clone)]
pub struct NewExecution {
    /// Its id.
    pub id: ExecutionId,
    /// Whose.
    pub function_id: FunctionId,
    /// The function's name at that time.
    pub function: FunctionName,
    /// The version it is pinned to.
    pub version: VersionNumber,
    /// Its record, queued.
    pub execution: Execution,
    /// What the caller sent.
    pub request: Arc<Request>,
    /// The key to take with it.
    pub key: Option<KeyClaim>,
    /// When a synchronous caller stops waiting (plane's clock); after a restart it then ends as `timeout`.
    pub deadline: Option<Timestamp>,
}

/// What became of a [`NewExecution`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk.
    New,
    /// Its key belongs to an earlier one; nothing was written.
    Existing(KeyHolder),
}

/// The execution that a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHolder {
    /// The execution.
    pub id: ExecutionId,
    /// The hash of the body it was created with.
    pub body_hash: [u8; 32],
}

/// One run, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The claim it ran under.
    pub fence: Fence,
    /// Its number; several runs can have the same one (a requeue spends none).
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What it came to, in one word: `success`, `error`, `retry`, `requeue`, `timeout`, `limit`, `fault`, `interrupted`.
    pub outcome: &'static str,
    /// Why, where it did not succeed.
    pub failure: Option<Failure>,
    /// What it wrote.
    pub logs: Logs,
    /// Whether code had to be loaded first.
    pub cold_start: bool,
    /// How long that took, in ms.
    pub init_ms: Option<u64>,
    /// How long it ran, in µs.
    pub run_us: u64,
    /// Time inside the guest, in µs.
    pub cpu_us: Option<u64>,
}

/// What a stored row must be for a transition to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Not ended, and no claim later than this one is logged.
    Claim(Fence),
    /// Not ended.
    Live,
    /// Ended as error or timeout (a redrive). The row's deadline is cleared with it.
    Redrivable,
}

/// A decided transition of a durable execution.
#[derive(Debug, Clone)]
pub struct Transition {
    /// Whose.
    pub id: ExecutionId,
    /// The second wall: what must still be true of the row.
    pub guard: Guard,
    /// What it becomes.
    pub next: Execution,
    /// Another version, after a redrive.
    pub version: Option<VersionNumber>,
    /// The result, when it ended with one.
    pub output: Option<Output>,
    /// The run that led here.
    pub attempt: Option<AttemptRecord>,
}

/// What became of a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Committed.
    Done,
    /// The guard did not hold (or there is no such row): nothing was written.
    Stale,
}

/// A claim to be logged soon (at most 10 ms later); nobody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRecord {
    /// Whose.
    pub id: ExecutionId,
    /// The claim.
    pub fence: Fence,
    /// The attempt's number.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
}

/// An execution as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionRecord {
    /// Its id.
    pub id: ExecutionId,
    /// Whose.
    pub function_id: FunctionId,
    /// The function's name.
    pub function: FunctionName,
    /// The version it is pinned to.
    pub version: VersionNumber,
    /// Where it stands.
    pub execution: Execution,
    /// The result, where it is kept. Lists leave it out.
    pub output: Option<Output>,
    /// Size of the input in bytes, kept or not.
    pub input_bytes: u64,
    /// Size of the output in bytes, kept or not.
    pub output_bytes: Option<u64>,
    /// Whether the input is kept, so that a redrive is possible.
    pub input_kept: bool,
    /// Of the last attempt: whether code had to be loaded first.
    pub cold_start: bool,
    /// How long that took, in ms.
    pub init_ms: Option<u64>,
    /// `X-Trace-Id`.
    pub trace_id: Option<Arc<str>>,
    /// The execution that asked for this one.
    pub parent: Option<ExecutionId>,
}

/// A durable execution that has not ended, as a start finds it. Its payload stays in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveExecution {
    /// Its id.
    pub id: ExecutionId,
    /// Whose.
    pub function_id: FunctionId,
    /// The function's name.
    pub function: FunctionName,
    /// The version it is pinned to.
    pub version: VersionNumber,
    /// Where it stands: queued, or running under a claim of an earlier boot.
    pub execution: Execution,
    /// When its synchronous caller stopped waiting.
    pub deadline: Option<Timestamp>,
    /// Size of the input in bytes.
    pub input_bytes: u64,
    /// `X-Trace-Id`.
    pub trace_id: Option<Arc<str>>,
}

/// Which executions a list shows, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this function only.
    pub function: Option<FunctionName>,
    /// In this state only.
    pub status: Option<Status>,
    /// Created at this time or later.
    pub since: Option<Timestamp>,
    /// Created before this time.
    pub until: Option<Timestamp>,
    /// Only ids smaller than this one (newest first: the last of the page before).
    pub before: Option<ExecutionId>,
    /// Only ids greater than this one (oldest first: the last of the page before).
    pub after: Option<ExecutionId>,
    /// The order.
    pub order: Order,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// By id, descending.
    #[default]
    NewestFirst,
    /// By id, ascending.
    OldestFirst,
}

impl Filter {
    /// Whether an execution that stands so is one of those.
    pub fn admits(&self, id: ExecutionId, function: &FunctionName, execution: &Execution) -> bool {
        let created_at = execution.created_at;
        self.function
            .as_ref()
            .is_none_or(|wanted| wanted == function)
            && self
                .status
                .is_none_or(|wanted| wanted == execution.status())
            && self.since.is_none_or(|since| created_at >= since)
            && self.until.is_none_or(|until| created_at < until)
            && self.before.is_none_or(|before| id < before)
            && self.after.is_none_or(|after| id > after)
    }
}

/// What is old enough to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Ended executions that finished before this time, with their attempts and payloads.
    pub executions_before: Timestamp,
    /// Keys that expired before this time.
    pub keys_before: Timestamp,
    /// Rows to remove in one step, at most.
    pub rows_max: u32,
}

/// A durable store. Every method that returns has committed, unless it says otherwise.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The number of this start: greater than that of every start before, durably.
    fn boot(&self) -> u32;

    /// All functions with their versions.
    async fn functions(&self) -> Result<Vec<FunctionRecord>>;

    /// Creates a function with its first version.
    async fn create_function(
        &self,
        name: &FunctionName,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<FunctionRecord>;

    /// Adds a version, makes it the active one and sets the settings, all or nothing.
    async fn add_version(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<()>;

    /// Changes settings and the active version; makes no version.
    async fn set_function(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        active: VersionNumber,
        now: Timestamp,
    ) -> Result<()>;

    /// Removes a function, its versions and its keys. Executions stay until they are old.
    async fn delete_function(&self, id: FunctionId) -> Result<()>;

    /// All secrets, by name.
    async fn secrets(&self) -> Result<Vec<SecretRecord>>;

    /// Keeps a secret under this name, instead of the one before; the record as it is kept.
    async fn put_secret(
        &self,
        name: &SecretName,
        sealed: Arc<[u8]>,
        now: Timestamp,
    ) -> Result<SecretRecord>;

    /// Removes a secret; [`Applied::Stale`] if there is none of this name.
    async fn delete_secret(&self, name: &SecretName) -> Result<Applied>;

    /// What was changed of the runtime config, if anything ever was.
    async fn runtime_config(&self) -> Result<Option<RuntimeRevision>>;

    /// Keeps a newer revision of the runtime config, if the one that stands has the number `expected` (0:
    /// none stands). Of several that expect the same one, one wins.
    async fn set_runtime_config(&self, expected: u64, next: RuntimeRevision) -> Result<Applied>;

    /// Makes a new execution durable, with its key. The key decides: if an earlier execution holds it at
    /// `execution.created_at`, nothing is written. Of several that arrive at once with one key, one wins.
    async fn accept(&self, new: NewExecution) -> Result<Accepted>;

    /// Who holds this key at this time.
    async fn key_holder(
        &self,
        function: FunctionId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<KeyHolder>>;

    /// Logs a claim with the next batch, at most 10 ms later. Does not wait and cannot fail: a claim
    /// that is not logged when the process dies costs the execution nothing but another run.
    fn log_claim(&self, claim: ClaimRecord);

    /// Writes a decided transition. The claim of [`Guard::Claim`] counts as logged from then on; a run
    /// recorded again under the same claim replaces the first record of it. [`Guard::Redrivable`] also
    /// removes the result and the deadline of the life before.
    async fn transition(&self, transition: Transition) -> Result<Applied>;

    /// Writes many, in batches; the answers in the same order. On an error some may have been written:
    /// writing them again is harmless, because the guards turn those away.
    async fn transition_all(&self, transitions: Vec<Transition>) -> Result<Vec<Applied>>;

    /// Adds a run whose claim decides nothing any more: its execution was cancelled, completed or sent on
    /// while it ran. Nothing else of the execution changes but what it says of its last run, if this is it; a
    /// run that is recorded under this claim already stays. Commits with the next batch, at most 10 ms later.
    /// [`Applied::Stale`]: there is no such execution, or only its summary is kept.
    async fn add_attempt(&self, id: ExecutionId, attempt: AttemptRecord) -> Result<Applied>;

    /// Takes an ended execution into the write-behind buffer, as much of it as there is room for: a
    /// summary has no input, output, runs or logs. An id that is known already is not recorded again.
    fn record_ended(&self, ended: EndedExecution);

    /// Does what [`Store::record_ended`] leaves to be done, for a thread that holds no lock: who hands over many
    /// calls this about as often.
    fn tidy(&self) {}

    /// One execution; sees the write-behind buffer.
    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRecord>>;

    /// Those of these executions that there are, with their outputs, in the order of the ids; sees the
    /// write-behind buffer.
    async fn executions_of(&self, ids: &[ExecutionId]) -> Result<Vec<ExecutionRecord>> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.execution(*id).await?);
        }
        Ok(found)
    }

    /// A page without outputs; first waits for the batch that was open when it was called.
    async fn executions(&self, filter: &Filter, limit: u32) -> Result<Vec<ExecutionRecord>>;

    /// What the caller sent, where it is kept.
    async fn request(&self, id: ExecutionId) -> Result<Option<Request>>;

    /// The runs of an execution, oldest first, at most the latest 1,000; sees the write-behind buffer.
    async fn attempts(&self, id: ExecutionId) -> Result<Vec<AttemptRecord>>;

    /// Durable executions that have not ended, ids greater than `after`, ascending.
    async fn live_executions(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> Result<Vec<LiveExecution>>;

    /// Removes one step's worth of what is old; returns how many rows (executions, attempts and keys)
    /// went. 0 means that nothing old is left.
    async fn purge(&self, retention: Retention) -> Result<u32>;

    /// Waits until everything handed over before this call is committed.
    async fn flush(&self) -> Result<()>;

    /// Whether writes are refused, and why.
    fn poisoned(&self) -> Option<Arc<str>>;

    /// Returns when the store is poisoned; never otherwise.
    async fn wait_poisoned(&self) -> Arc<str>;

    /// Flushes and closes. Later calls answer [`Error::Closed`].
    async fn close(&self) -> Result<()>;
}
