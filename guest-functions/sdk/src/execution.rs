//! What a function may know about the run it is in.
//!
//! **Invariant:** plain data; asking for it costs no call to the host.

use std::time::Duration;

/// The execution that this attempt belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The execution's id: the same for all its attempts, so a good key for calls that must not count twice.
    pub id: String,
    /// The function's name.
    pub function: String,
    /// The version that the execution was accepted for.
    pub version: u64,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How many attempts the retry policy allows.
    pub max_attempts: u32,
    /// What is left before this attempt is stopped.
    pub time_left: Duration,
    /// How often the execution was put back without spending an attempt.
    pub requeues: u32,
    /// The caller's key, if it gave one.
    pub idempotency_key: Option<String>,
    /// The caller's trace id, if it gave one.
    pub trace_id: Option<String>,
    /// The caller's W3C trace context, if it gave one.
    pub traceparent: Option<String>,
    /// Pairs that the caller sent along.
    pub metadata: Vec<(String, String)>,
}

impl Execution {
    /// Whether the retry policy allows no attempt after this one.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }
}

/// The first attempt of three of an execution without a past: a start for unit tests.
impl Default for Execution {
    fn default() -> Self {
        Self {
            id: "test".to_owned(),
            function: "test".to_owned(),
            version: 1,
            attempt: 1,
            max_attempts: 3,
            time_left: Duration::from_secs(30),
            requeues: 0,
            idempotency_key: None,
            trace_id: None,
            traceparent: None,
            metadata: Vec::new(),
        }
    }
}
