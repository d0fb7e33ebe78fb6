//! The one thread that writes: takes what waits, commits it at once, then answers.
//!
//! While a commit is on its way to the disk the next batch gathers, so batches are as large as the
//! load makes them and a lonely operation does not wait. Operations of a batch share its transaction
//! without savepoints; if one of them fails, the batch is rolled back and done again with a savepoint
//! around each, so that only that one fails.
//!
//! **Invariant:** nobody is answered before the commit; after a failed commit nothing is written again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;

use super::Shared;
use super::buffer::Ended;
use super::bundle::Bundle;
use super::checkpoint::{Checkpointer, checkpoint};
use super::connection::is_about_one_statement;
use super::inbox::{Batch, Entry};
use super::options::WriteFaults;
use super::statements::Statements;
use super::write::{Done, Problem, Writes};
use crate::model::ExecutionId;
use crate::store::{Error, Guard, Result};

/// What the thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) next_seq: Cell<i64>,
    /// Where bundles are filled, one after another.
    pub(super) bundle: RefCell<Bundle>,
    pub(super) checkpointer: Checkpointer,
    pub(super) faults: Option<Arc<dyn WriteFaults>>,
    pub(super) shared: Arc<Shared>,
}

/// Whether operations of a batch are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    Shared,
    Savepoints,
}

/// Why a batch is not in the database.
enum Failure {
    /// One operation failed; the others are fine.
    OneOperation,
    /// The store cannot write any more.
    Fatal(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Fatal(error.to_string())
    }
}

/// Says that the thread has ended, however it ended.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the writer panicked");
        }
        self.0.inbox.end(Error::Closed);
        self.0.ended.send_replace(true);
    }
}

impl Writer {
    /// The thread's whole life.
    pub(super) fn run(self) {
        let _end = EndGuard(Arc::clone(&self.shared));
        self.write_all();
        self.checkpointer.stop();
        if self.shared.poison.borrow().is_some() {
            return;
        }
        if let Err(error) = checkpoint(&self.connection, "TRUNCATE") {
            // All of it is durable in the log, which the next start reads.
            tracing::warn!(%error, "the store's last checkpoint failed");
        }
    }

    fn write_all(&self) {
        let statements = Statements::new(&self.connection);
        while let Some(mut batch) = self.shared.inbox.take() {
            let behind = self.shared.buffer.take();
            let outcome = self.write(&statements, &mut batch, &behind);
            self.shared.inbox.release(&batch);
            answer(batch, &outcome);
            self.shared.buffer.spend(behind);
            if outcome.is_err() || self.checkpoint().is_err() {
                break;
            }
        }
        if self.shared.poison.borrow().is_none() {
            // What came in between the last batch and the closing of the door.
            let behind = self.shared.buffer.take();
            let last = self.write(&statements, &mut Batch::default(), &behind);
            if last.is_err() {
                tracing::warn!("the last ended executions could not be recorded");
            }
        }
    }

    /// Commits a batch. An error is the store's end.
    fn write(
        &self,
        statements: &Statements<'_>,
        batch: &mut Batch,
        behind: &[Arc<Ended>],
    ) -> Result<()> {
        let superseded = drop_superseded_claims(&mut batch.entries);
        self.shared.counters.claims_superseded(superseded);
        if batch.entries.is_empty() && behind.is_empty() {
            return Ok(());
        }
        let written = match self.transact(statements, batch, behind, Isolation::Shared) {
            Err(Failure::OneOperation) => {
                self.shared.counters.batch_isolated();
                self.transact(statements, batch, behind, Isolation::Savepoints)
            }
            other => other,
        };
        let reason = match written {
            Ok(()) => {
                self.shared.buffer.committed(behind);
                return Ok(());
            }
            Err(Failure::OneOperation) => "a failed operation could not be undone".to_owned(),
            Err(Failure::Fatal(reason)) => reason,
        };
        Err(Error::Poisoned(self.shared.poison(&reason)))
    }

    /// Sees to the log, once those are answered who waited for a batch: it is durable whatever becomes of this. An
    /// error is the store's end.
    fn checkpoint(&self) -> Result<()> {
        let checkpointed = self.checkpointer.after_commit(&self.connection);
        checkpointed.map_err(|error| {
            let reason = format!("a checkpoint failed: {error}");
            Error::Poisoned(self.shared.poison(&reason))
        })
    }

    fn transact(
        &self,
        statements: &Statements<'_>,
        batch: &mut Batch,
        behind: &[Arc<Ended>],
        isolation: Isolation,
    ) -> std::result::Result<(), Failure> {
        statements.execute("BEGIN IMMEDIATE", [])?;
        let outcome = self
            .apply(statements, batch, behind, isolation)
            .and_then(|()| self.commit(statements, batch.entries.len() + behind.len()));
        if outcome.is_err() && !self.connection.is_autocommit() {
            // If even this fails, the transaction ends with the connection.
            let undone = statements.execute("ROLLBACK", []);
            if undone.is_err() {
                return outcome.and(undone.map(drop).map_err(Failure::from));
            }
        }
        outcome
    }

    fn commit(&self, statements: &Statements<'_>, ops: usize) -> std::result::Result<(), Failure> {
        self.shared.counters.commit_begins();
        let began = Instant::now();
        let outcome = self.commit_with_faults(statements);
        match outcome {
            Ok(()) => self.shared.counters.commit_ended(ops, began.elapsed()),
            Err(_) => self.shared.counters.commit_failed(),
        }
        outcome
    }

    fn commit_with_faults(&self, statements: &Statements<'_>) -> std::result::Result<(), Failure> {
        if let Some(faults) = &self.faults {
            faults
                .before_commit()
                .map_err(|error| Failure::Fatal(error.to_string()))?;
        }
        statements.execute("COMMIT", [])?;
        Ok(())
    }

    /// What is written behind goes first: an operation that was handed over later may be about it.
    fn apply(
        &self,
        statements: &Statements<'_>,
        batch: &mut Batch,
        behind: &[Arc<Ended>],
        isolation: Isolation,
    ) -> std::result::Result<(), Failure> {
        let writes = Writes::new(&self.connection, statements, &self.next_seq, &self.bundle);
        let at_once = match isolation {
            Isolation::Shared => behind.len().max(1),
            Isolation::Savepoints => 1,
        };
        for some in behind.chunks(at_once) {
            if let Some(error) = apart(statements, isolation, || writes.record_ended(some))? {
                for ended in some {
                    tracing::warn!(execution.id = %ended.record.id, %error, "an ended execution could not be recorded");
                    self.shared.buffer.count_dropped();
                }
            }
        }
        for entry in &mut batch.entries {
            match entry {
                Entry::Job(job) => {
                    if let Some(error) = apart(statements, isolation, || job.apply(&writes))? {
                        job.fail(error);
                    }
                }
                Entry::Claim(claim) => {
                    if let Some(error) = apart(statements, isolation, || writes.log_claim(claim))? {
                        tracing::warn!(execution.id = %claim.id, %error, "a claim could not be logged");
                    }
                }
            }
        }
        Ok(())
    }
}

/// Runs one operation; with savepoints its failure is handed back and leaves no trace, without
/// them it is the batch's.
fn apart(
    statements: &Statements<'_>,
    isolation: Isolation,
    operation: impl FnOnce() -> Done<()>,
) -> std::result::Result<Option<Error>, Failure> {
    if isolation == Isolation::Savepoints {
        statements.execute("SAVEPOINT operation", [])?;
    }
    let problem = match operation() {
        Ok(()) => None,
        Err(Problem::Refused(error)) => Some(error),
        Err(Problem::Broken(text)) => Some(Error::Failed(text.into())),
        Err(Problem::Sql(error)) if is_about_one_statement(&error) => {
            Some(Error::Failed(error.to_string().into()))
        }
        Err(Problem::Sql(error)) => return Err(error.into()),
    };
    match (isolation, &problem) {
        (Isolation::Shared, None) => {}
        (Isolation::Shared, Some(_)) => return Err(Failure::OneOperation),
        (Isolation::Savepoints, None) => {
            statements.execute("RELEASE operation", [])?;
        }
        (Isolation::Savepoints, Some(_)) => {
            statements.execute("ROLLBACK TO operation", [])?;
            statements.execute("RELEASE operation", [])?;
        }
    }
    Ok(problem)
}

/// Takes out the claims that a later transition or claim of the same batch makes pointless; returns
/// how many. A transition under an older claim does not: the newer claim must make it stale.
fn drop_superseded_claims(entries: &mut Vec<Entry>) -> usize {
    let is_claim = |entry: &Entry| matches!(entry, Entry::Claim(_));
    if !entries.iter().any(is_claim) {
        return 0;
    }
    let before = entries.len();
    let mut latest: HashMap<ExecutionId, u64> = HashMap::new();
    let mut supersede = |id, fence| {
        let known = latest.entry(id).or_insert(0);
        let superseded = *known >= fence;
        *known = fence.max(*known);
        superseded
    };
    let mut keep: Vec<Entry> = Vec::with_capacity(before);
    for entry in std::mem::take(entries).into_iter().rev() {
        match &entry {
            Entry::Job(job) => {
                for transition in job.transitions() {
                    let fence = match transition.guard {
                        Guard::Claim(fence) => fence.0,
                        Guard::Live | Guard::Redrivable => u64::MAX,
                    };
                    supersede(transition.id, fence);
                }
            }
            Entry::Claim(claim) => {
                if supersede(claim.id, claim.fence.0) {
                    continue;
                }
            }
        }
        keep.push(entry);
    }
    keep.reverse();
    *entries = keep;
    before - entries.len()
}

/// Tells those who wait.
fn answer(batch: Batch, outcome: &Result<()>) {
    for entry in batch.entries {
        match entry {
            Entry::Job(job) => job.answer(outcome.clone()),
            Entry::Claim(_) => {}
        }
    }
}
