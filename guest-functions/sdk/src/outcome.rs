//! The four ways in which a run can end, and what turns into them.
//!
//! **Invariant:** nothing here decides whether there is another attempt; that is the plane's policy.

use std::time::Duration;

use serde::Serialize;

use crate::Payload;

/// Why a run did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Short and stable, for programs: `OUT_OF_STOCK`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure with a code for programs and a message for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Done: this is the answer.
    Success(Payload),
    /// Final: trying again would not help.
    Error(Failure),
    /// May work next time: the function's retry policy decides whether and when.
    Retry(Failure),
    /// Not now: run again after this delay (none: the policy's delay). Spends no attempt.
    Requeue(Option<Duration>),
}

impl Outcome {
    /// Done, with a value as JSON; an [`Outcome::Error`] if the value has no JSON form.
    pub fn success_json(value: &impl Serialize) -> Self {
        match Payload::from_json(value) {
            Ok(payload) => Self::Success(payload),
            Err(failure) => Self::Error(failure),
        }
    }

    /// A final error.
    pub fn error(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Error(Failure::new(code, message))
    }

    /// A failure that may be gone next time.
    pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Retry(Failure::new(code, message))
    }

    /// Not now: run again after `delay`. Less than a millisecond is rounded up.
    pub fn requeue_after(delay: Duration) -> Self {
        Self::Requeue(Some(delay))
    }

    /// Not now: run again when the function's policy says.
    pub fn requeue() -> Self {
        Self::Requeue(None)
    }
}

/// A failure that says no more is final.
impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Error(failure)
    }
}

/// What a handler may answer.
#[diagnostic::on_unimplemented(
    message = "a handler cannot answer `{Self}`",
    label = "not an answer",
    note = "return `Outcome`, `Payload`, or `Result<T, E>` where `T` is a serde type or `Payload`, and `E` is `Failure` or `Outcome`"
)]
pub trait IntoOutcome {
    /// The outcome that the answer stands for.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for Payload {
    fn into_outcome(self) -> Outcome {
        Outcome::Success(self)
    }
}

impl<T: IntoPayload, E: Into<Outcome>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => match value.into_payload() {
                Ok(payload) => Outcome::Success(payload),
                Err(failure) => Outcome::Error(failure),
            },
            Err(other) => other.into(),
        }
    }
}

/// What may stand in the `Ok` of an answer: a [`Payload`] as it is, any `serde` type as JSON.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written as JSON",
    note = "derive `serde::Serialize` for it, or answer a `Payload`"
)]
pub trait IntoPayload {
    /// The bytes and their media type.
    ///
    /// # Errors
    /// If the value has no JSON form.
    fn into_payload(self) -> Result<Payload, Failure>;
}

impl IntoPayload for Payload {
    fn into_payload(self) -> Result<Payload, Failure> {
        Ok(self)
    }
}

impl<T: Serialize> IntoPayload for T {
    fn into_payload(self) -> Result<Payload, Failure> {
        Payload::from_json(&self)
    }
}
