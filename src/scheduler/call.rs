//! The scheduler's vocabulary: what callers hand in and what they get back.
//!
//! **Invariant:** plain data; an error says what the caller can do about it, in words of no protocol.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::execution::Status;
use crate::model::{ExecutionId, FunctionName, IdempotencyKey, Input};
use crate::store::{self, ExecutionRecord};

/// Settings of the scheduler.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nothing runs unless it is drained by hand (`--manual`, the harness).
    pub manual: bool,
    /// Wasm attempts that run at once in the whole plane.
    pub guests_max: u32,
    /// Attempts of POOL functions under way at once in the whole plane.
    pub endpoint_calls_max: u32,
    /// Faults of one execution before it ends as `PLATFORM_FAULT`.
    pub faults_max: u32,
    /// How long an idempotency key is remembered, in ms.
    pub idempotency_ttl_ms: u64,
    /// Bytes of queued inputs kept in memory; beyond it they are read back from the store at their turn.
    pub queued_input_bytes_max: u64,
    /// Bytes of results that are not on disk yet, beyond which nothing new is claimed.
    pub uncommitted_result_bytes_max: u64,
    /// Bytes of its attempts' logs that an execution which lives in memory keeps.
    pub waiting_call_log_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            manual: false,
            guests_max: 256,
            endpoint_calls_max: 1024,
            faults_max: 20,
            idempotency_ttl_ms: 24 * 60 * 60 * 1000,
            queued_input_bytes_max: 256 * 1024 * 1024,
            uncommitted_result_bytes_max: 256 * 1024 * 1024,
            waiting_call_log_bytes_max: 1024 * 1024,
        }
    }
}

/// One call of a function.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which function.
    pub function: FunctionName,
    /// The input.
    pub input: Input,
    /// Metadata.
    pub metadata: Arc<[(String, String)]>,
    /// `X-Trace-Id`.
    pub trace_id: Option<Arc<str>>,
    /// W3C trace context.
    pub traceparent: Option<Arc<str>>,
    /// The key and the SHA-256 of the raw input and the canonical metadata.
    pub key: Option<(IdempotencyKey, [u8; 32])>,
    /// How long a synchronous caller waits; the version's `timeoutMs` unless said.
    pub wait: Option<Duration>,
    /// The execution that makes this call, if one does.
    pub parent: Option<ExecutionId>,
}

/// What two calls with the same idempotency key have to agree in: SHA-256 of the input as it was written
/// and of the metadata in the order of its names.
pub fn body_hash(input: &[u8], metadata: &[(String, String)]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        hash.update(length.to_le_bytes());
        hash.update(bytes);
    };
    add(input);
    for (name, value) in metadata {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    hash.finalize().into()
}

/// A queued call.
#[derive(Debug, Clone)]
pub struct Enqueued {
    /// The execution, as it stands: durable.
    pub execution: Arc<ExecutionRecord>,
    /// Whether an earlier call with the same key made it.
    pub replayed: bool,
}

/// A synchronous call's result. For a replay that ran out of waiting time the status is not terminal.
#[derive(Debug, Clone)]
pub struct Invoked {
    /// The execution, as it stands.
    pub execution: Arc<ExecutionRecord>,
    /// Whether an earlier call with the same key made it.
    pub replayed: bool,
}

/// Why a call was refused. Nothing was stored and no key is left behind.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// There is no such function.
    #[error("there is no function named {0}")]
    UnknownFunction(FunctionName),
    /// Its queue holds as many new executions as it may.
    #[error(
        "the queue of {function} is full ({queue_size} waiting): try again in {retry_after_s} s"
    )]
    QueueFull {
        /// Whose.
        function: FunctionName,
        /// The bound.
        queue_size: u32,
        /// When a place may be free.
        retry_after_s: u64,
    },
    /// More calls than its rate allows.
    #[error("{function} takes {per_second} calls a second: try again in {retry_after_s} s")]
    RateLimited {
        /// Whose.
        function: FunctionName,
        /// The rate.
        per_second: u32,
        /// When the next one fits.
        retry_after_s: u64,
    },
    /// The key belongs to a call with another body.
    #[error("this Idempotency-Key was used for execution {0} with another body: use a new key")]
    KeyReused(ExecutionId),
    /// The key belongs to a call whose execution is older than the retention.
    #[error(
        "execution {0}, which this Idempotency-Key made, is older than the retention: use a new key"
    )]
    Forgotten(ExecutionId),
    /// It cannot be sent back to its queue; the text says why.
    #[error("execution {0} cannot be redriven: only one that ended as error or timeout can")]
    NotRedrivable(ExecutionId),
    /// Its function was deleted, and another has its name.
    #[error(
        "execution {0} cannot be redriven: its function was deleted, and the one that is named {1} now was made \
         later; call that one with the same input"
    )]
    FunctionReplaced(ExecutionId, FunctionName),
    /// Its input was not kept, so it cannot run again.
    #[error("the input of execution {0} was not kept, so it cannot run again")]
    InputNotKept(ExecutionId),
    /// The version to run it with does not exist.
    #[error("{0}")]
    UnknownVersion(String),
    /// The plane is stopping.
    #[error("the server is stopping: try again in a moment")]
    Stopping,
    /// The plane is stopping before an execution that was promised has ended.
    #[error(
        "the server is stopping before execution {0} has ended: it goes on after the restart; ask for it then"
    )]
    StoppingFirst(ExecutionId),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What a dispatch came to, once it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finalized {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Where it stands now.
    pub status: Status,
}

/// How a drain moves work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainOptions {
    /// Dispatches at most; by default 1, or 10,000 with `recursive`.
    pub limit: Option<u32>,
    /// Leave deferred work alone until it is due.
    pub respect_schedule: bool,
    /// Go on until nothing is left, or only work that was requeued during this drain.
    pub recursive: bool,
}

/// What a drain did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drained {
    /// Every dispatch, in order; each is recorded.
    pub items: Vec<Finalized>,
    /// Whether it ended because no slot was free.
    pub busy: bool,
}

/// What a completion from outside did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// It ended the execution, or sent it back for a retry.
    Applied,
    /// It came too late, or for a claim that is not the current one.
    Ignored,
}
