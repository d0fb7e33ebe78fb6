//! The scheduler's vocabulary: what callers hand in and what they get back.
//!
//! **Invariant:** plain data; an error says what the caller can do about it, in words of no protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::execution::Status;
use crate::model::{ExecutionId, FunctionName, IdempotencyKey, Input, RuntimeConfig};
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
    /// Bytes of queued inputs kept in memory, with their metadata; beyond it they are read back from the store at their turn.
    pub queued_input_bytes_max: u64,
    /// Bytes of results that are not on disk yet, beyond which nothing new is claimed.
    pub uncommitted_result_bytes_max: u64,
    /// Bytes of its attempts' logs that an execution which lives in memory keeps.
    pub waiting_call_log_bytes_max: u64,
    /// Bytes of the inputs of attempts that run, of wasm and of POOL each; one larger input runs alone of its kind.
    pub running_input_bytes_max: u64,
    /// Time after a start that found a backlog in which what may run at once grows to its bounds, in ms; 0: at once.
    pub start_ramp_ms: u64,
    /// Deaths of the process after which an execution of wasm that was running at each is a suspect.
    pub suspect_faults: u32,
    /// How long a suspect runs by itself before others start beside it.
    pub suspect_alone: Duration,
    /// What an operator may change while the plane runs, as it is at the first start.
    pub runtime_config: RuntimeConfig,
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
            running_input_bytes_max: 256 * 1024 * 1024,
            start_ramp_ms: 0,
            suspect_faults: 2,
            suspect_alone: Duration::from_secs(1),
            runtime_config: RuntimeConfig::default(),
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

/// Why a call was refused: nothing has run, and no key is left behind. Nothing was stored either, but for
/// [`Crowded::Waited`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// There is no such function.
    #[error("there is no function named {0}")]
    UnknownFunction(FunctionName),
    /// There is no room for it, or none in time.
    #[error("{crowded}: try again in {retry_after_s} s")]
    QueueFull {
        /// What there is too much of.
        crowded: Crowded,
        /// When there may be room, in s.
        retry_after_s: u64,
    },
    /// More calls than a rate allows.
    #[error("{rated} takes {per_second} calls a second: try again in {retry_after_s} s")]
    RateLimited {
        /// Whose rate.
        rated: Rated,
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
    /// The version to run it with exists, and its code does not.
    #[error("{0}")]
    CodeGone(String),
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

/// Why there is no room for a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// Its function's queue holds as many new executions as it may.
    #[error("the queue of {function} is full ({queue_size} waiting)")]
    Queue {
        /// Whose queue.
        function: FunctionName,
        /// The bound.
        queue_size: u32,
    },
    /// As many synchronous callers wait in the whole plane as may.
    #[error("as many synchronous calls wait as the server takes ({callers_max})")]
    Callers {
        /// The bound.
        callers_max: u32,
    },
    /// A synchronous call would wait too long.
    #[error(
        "a call of {function} would wait for about {estimated_ms} ms before it begins, and may for {limit_ms} ms"
    )]
    Estimate {
        /// Whose.
        function: FunctionName,
        /// What is expected.
        estimated_ms: u64,
        /// The lesser of what the plane allows and of the caller's own time.
        limit_ms: u64,
    },
    /// A synchronous call has waited as long as it may, and never began: its execution ended as `timeout`.
    #[error("the call waited {limit_ms} ms in the queue of {function} and did not begin")]
    Waited {
        /// Whose.
        function: FunctionName,
        /// What the plane allows.
        limit_ms: u64,
        /// The execution.
        execution: ExecutionId,
    },
}

/// Whose rate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rated {
    /// A function's.
    Function(FunctionName),
    /// The whole plane's.
    Plane,
}

impl fmt::Display for Rated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(name) => name.fmt(f),
            Self::Plane => f.write_str("the server"),
        }
    }
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
