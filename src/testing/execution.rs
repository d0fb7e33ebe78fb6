//! An execution as a test looks at it: what came of it, and assertions that tell the whole story.
//!
//! **Invariant:** a snapshot; looking at it asks nobody, and it never changes. Ask the harness again for a
//! later one.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::execution::{State, Status};
use crate::model::ExecutionId;
use crate::store::{AttemptRecord, ExecutionRecord};

/// One execution with its runs, as they stood when it was asked for. It is an [`ExecutionRecord`] too.
///
/// A failed assertion shows where the execution stands, why, and what each run wrote:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// let plane = pelton::testing::Harness::start().await?;
/// plane.deploy_echo("echo").await?;
/// let execution = plane.invoke("echo", r#"{"sku": "wheel", "pieces": 2}"#).await?;
/// execution.assert_success().assert_attempts(1);
/// assert_eq!(execution.output_json()["pieces"], 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Execution {
    record: Arc<ExecutionRecord>,
    runs: Vec<AttemptRecord>,
}

impl Execution {
    pub(super) fn new(record: Arc<ExecutionRecord>, runs: Vec<AttemptRecord>) -> Self {
        Self { record, runs }
    }

    /// Its id.
    pub fn id(&self) -> ExecutionId {
        self.record.id
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        self.record.execution.status()
    }

    /// Attempts spent. A requeue and a fault give theirs back.
    pub fn attempts(&self) -> u32 {
        self.record.execution.attempts
    }

    /// How often the function asked to be run later.
    pub fn requeues(&self) -> u32 {
        self.record.execution.requeues
    }

    /// The code of the error that it ended with.
    pub fn error_code(&self) -> Option<&str> {
        let failure = self.record.execution.failure()?;
        Some(&failure.code)
    }

    /// Every run of its code that has ended, oldest first: outcome, failure, times and logs. Runs that spent
    /// no attempt are among them.
    pub fn runs(&self) -> &[AttemptRecord] {
        &self.runs
    }

    /// The lines that all its runs wrote, oldest first.
    pub fn logs(&self) -> Vec<&str> {
        let lines = self.runs.iter().flat_map(|run| &run.logs.lines);
        lines.map(|line| line.text.as_str()).collect()
    }

    /// Its output as JSON.
    ///
    /// # Panics
    /// It has none, or one that is no JSON.
    #[track_caller]
    pub fn output_json(&self) -> Value {
        self.output_as()
    }

    /// Its output, read as JSON into a type of the test's.
    ///
    /// # Panics
    /// It has none, or one that does not fit.
    #[track_caller]
    pub fn output_as<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(self.output_bytes()) {
            Ok(value) => value,
            Err(error) => self.fail(&format!("an output that fits ({error})")),
        }
    }

    /// The bytes of its output.
    ///
    /// # Panics
    /// It has none.
    #[track_caller]
    pub fn output_bytes(&self) -> &[u8] {
        match &self.record.output {
            Some(output) => &output.body,
            None => self.fail("an output"),
        }
    }

    /// It ended in success.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        self.assert_status(Status::Success)
    }

    /// It ended in error, with this code.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn assert_error(&self, code: &str) -> &Self {
        if self.status() != Status::Error || self.error_code() != Some(code) {
            self.fail(&format!("status error with code {code}"));
        }
        self
    }

    /// It has this status.
    ///
    /// # Panics
    /// It has another.
    #[track_caller]
    pub fn assert_status(&self, status: Status) -> &Self {
        if self.status() != status {
            self.fail(&format!("status {}", status.as_str()));
        }
        self
    }

    /// It has spent so many attempts.
    ///
    /// # Panics
    /// It has spent more or fewer.
    #[track_caller]
    pub fn assert_attempts(&self, attempts: u32) -> &Self {
        if self.attempts() != attempts {
            self.fail(&format!("{attempts} attempt(s)"));
        }
        self
    }

    /// It was put back so often without spending an attempt.
    ///
    /// # Panics
    /// It was put back more or less often.
    #[track_caller]
    pub fn assert_requeues(&self, requeues: u32) -> &Self {
        if self.requeues() != requeues {
            self.fail(&format!("{requeues} requeue(s)"));
        }
        self
    }

    #[track_caller]
    fn fail(&self, expected: &str) -> ! {
        panic!("expected {expected}, but {self}");
    }
}

impl Deref for Execution {
    type Target = ExecutionRecord;

    fn deref(&self) -> &ExecutionRecord {
        &self.record
    }
}

/// Everything that a person needs to see why it is not as it should be.
impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &self.record;
        let (name, status) = (&record.function, self.status().as_str());
        write!(f, "execution {} of {name} is {status}", record.id)?;
        if let Some(failure) = record.execution.failure() {
            write!(f, " with code {}: {}", failure.code, failure.message)?;
        }
        if let State::Queued { due } = record.execution.state {
            write!(f, ", due at {} ms", due.0)?;
        }
        let (attempts, requeues) = (self.attempts(), self.requeues());
        write!(f, " ({attempts} attempt(s), {requeues} requeue(s))")?;
        for run in &self.runs {
            write!(f, "\n  attempt {}: {}", run.number, run.outcome)?;
            if let Some(failure) = &run.failure {
                write!(f, " {}: {}", failure.code, failure.message)?;
            }
            for line in &run.logs.lines {
                write!(f, "\n    | {}", line.text)?;
            }
        }
        if let Some(output) = &record.output {
            write!(f, "\n  output: {}", String::from_utf8_lossy(&output.body))?;
        }
        Ok(())
    }
}
