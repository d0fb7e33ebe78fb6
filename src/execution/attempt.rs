//! What a runner is given and what it gives back, whoever the runner is.
//!
//! **Invariant:** says nothing about how code runs: the runtime and the endpoint share these words and
//! know nothing of each other.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    ContentType, ExecutionId, Failure, Fence, FunctionName, IdempotencyKey, Input, Logs,
    OpenSecret, Version,
};

/// One run of a function's code for an execution.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Whose attempt.
    pub execution_id: ExecutionId,
    /// The function's name.
    pub function: FunctionName,
    /// Code and spec; the attempt's other limits are in here.
    pub version: Arc<Version>,
    /// 1 for the first.
    pub number: u32,
    /// How many there may be.
    pub max_attempts: u32,
    /// How often the execution was put back without spending one.
    pub requeues: u32,
    /// How often something else than the function has ended an attempt of it: we, or another call in its instance.
    pub faults: u32,
    /// The claim; `X-Dispatch-Attempt` for a service behind a URL.
    pub fence: Fence,
    /// Real time for this attempt: the lesser of the spec's limit and what is left to a synchronous caller.
    pub time_limit: Duration,
    /// The caller's key, if there was one.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The caller's `X-Trace-Id`.
    pub trace_id: Option<Arc<str>>,
    /// The caller's W3C `traceparent`.
    pub traceparent: Option<Arc<str>>,
    /// The caller's metadata.
    pub metadata: Arc<[(String, String)]>,
    /// The input.
    pub input: Input,
    /// The secrets that it is given, open.
    pub secrets: Arc<[OpenSecret]>,
}

/// What one run came to. Codes of failures are the ones that users see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function answered.
    Success {
        /// What the guest called its output, if it said.
        content_type: Option<ContentType>,
        /// The output.
        body: bytes::Bytes,
    },
    /// The function says: final.
    Error(Failure),
    /// The function says: may work next time. Traps and failed connections are this too.
    Retry(Failure),
    /// The function says: not now. The delay in ms, if it named one.
    Requeue(Option<u64>),
    /// `time_limit` passed; counts as a failed attempt, and as state `timeout` if it was the last.
    TimedOut(Failure),
    /// A limit of memory, CPU, output or the like was reached: final, the code names the limit.
    Limit(Failure),
    /// The run was stopped from outside (shutdown, cancel, completion): nobody's failure.
    Interrupted,
    /// Ours: pool exhausted, code unreadable, a panic. Not the function's failure.
    Fault(String),
}

impl Outcome {
    /// Why the run did not succeed, where the function or a limit says so.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Error(failure)
            | Self::Retry(failure)
            | Self::TimedOut(failure)
            | Self::Limit(failure) => Some(failure),
            Self::Success { .. } | Self::Requeue(_) | Self::Interrupted | Self::Fault(_) => None,
        }
    }

    /// The outcome in one word, as attempts are recorded under.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Success { .. } => "success",
            Self::Error(_) => "error",
            Self::Retry(_) => "retry",
            Self::Requeue(_) => "requeue",
            Self::TimedOut(_) => "timeout",
            Self::Limit(_) => "limit",
            Self::Interrupted => "interrupted",
            Self::Fault(_) => "fault",
        }
    }
}

/// An outcome and what was seen on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What it came to.
    pub outcome: Outcome,
    /// What the guest wrote.
    pub logs: Logs,
    /// Whether code had to be loaded first (wasm), or the service said so (POOL).
    pub cold_start: bool,
    /// How long that took.
    pub init_duration: Option<Duration>,
    /// Time spent inside the guest (wasm only).
    pub cpu: Option<Duration>,
    /// What went past, where input and output were streams between a caller and the guest.
    pub streamed: Option<Streamed>,
}

/// Sizes of bodies of which nothing is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streamed {
    /// Bytes that the guest received.
    pub input_bytes: u64,
    /// Bytes that the guest sent.
    pub output_bytes: u64,
}

impl Ran {
    /// An outcome without anything beside it.
    pub fn bare(outcome: Outcome) -> Self {
        Self {
            outcome,
            logs: Logs::default(),
            cold_start: false,
            init_duration: None,
            cpu: None,
            streamed: None,
        }
    }
}
