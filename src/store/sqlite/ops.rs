//! The operations that callers wait for, each as data: what it weighs, how it is applied, and the place
//! where its answer waits for the commit.
//!
//! **Invariant:** applying does not consume an operation: after a rollback it can be applied again.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::buffer::attempt_bytes;
use super::write::{Done, Problem, Writes};
use crate::model::{
    ExecutionId, FunctionId, FunctionName, FunctionSettings, RuntimeRevision, SecretName,
    Timestamp, Version, VersionNumber,
};
use crate::store::{
    Accepted, Applied, AttemptRecord, Error, FunctionRecord, Guard, NewExecution, Result,
    Retention, SecretRecord, Transition,
};

/// What an operation is counted as, beside its payload.
const OP_BYTES: u64 = 256;

/// How much of a batch and of the queue an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// Rows that it is about.
    pub(super) ops: u32,
    /// Bytes that it carries.
    pub(super) bytes: u32,
}

impl Weight {
    fn one(payload_bytes: u64) -> Self {
        Self::many(1, payload_bytes)
    }

    fn many(ops: usize, payload_bytes: u64) -> Self {
        let ops = u32::try_from(ops).unwrap_or(u32::MAX);
        let bytes = payload_bytes.saturating_add(OP_BYTES * u64::from(ops));
        Self {
            ops,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }
}

/// One operation.
pub(super) trait Operation: Send + 'static {
    /// What the caller gets.
    type Answer: Send + 'static;

    fn weight(&self) -> Weight;

    /// Does it inside the open transaction.
    fn apply(&self, writes: &Writes<'_, '_>) -> Done<Self::Answer>;

    /// The transitions it consists of: a claim that one of them supersedes need not be written.
    fn transitions(&self) -> &[Transition] {
        &[]
    }

    /// Whether it is worth a commit of its own.
    fn haste(&self) -> Haste {
        Haste::Now
    }
}

/// How soon an operation is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// With the next batch, which begins at once.
    Now,
    /// The same; and whoever asked for it may ask for more once it is answered.
    Asked,
    /// With the next batch, which leaves a client that has just been answered the time to ask again: both share
    /// a commit then, where each would wait for the other's.
    Shortly,
    /// With the next batch; it may wait a little for company.
    Soon,
}

/// An operation on its way, whatever its answer's type.
pub(super) trait Job: Send {
    fn weight(&self) -> Weight;
    fn transitions(&self) -> &[Transition];
    fn haste(&self) -> Haste;
    /// Applies it and keeps the answer, a refusal being one.
    ///
    /// # Errors
    /// [`Problem::Broken`] or [`Problem::Sql`]: it may be half done.
    fn apply(&mut self, writes: &Writes<'_, '_>) -> Done<()>;
    /// Keeps a failure as the answer.
    fn fail(&mut self, error: Error);
    /// Tells the caller, if the caller is still there: the answer kept, once that is committed, or
    /// what became of the commit.
    fn answer(self: Box<Self>, committed: Result<()>);
}

pub(super) struct Pending<O: Operation> {
    operation: O,
    answer: Option<Result<O::Answer>>,
    reply: oneshot::Sender<Result<O::Answer>>,
}

impl<O: Operation> Pending<O> {
    pub(super) fn new(operation: O) -> (Box<Self>, oneshot::Receiver<Result<O::Answer>>) {
        let (reply, receiver) = oneshot::channel();
        let pending = Self {
            operation,
            answer: None,
            reply,
        };
        (Box::new(pending), receiver)
    }
}

impl<O: Operation> Job for Pending<O> {
    fn weight(&self) -> Weight {
        self.operation.weight()
    }

    fn transitions(&self) -> &[Transition] {
        self.operation.transitions()
    }

    fn haste(&self) -> Haste {
        self.operation.haste()
    }

    fn apply(&mut self, writes: &Writes<'_, '_>) -> Done<()> {
        self.answer = Some(match self.operation.apply(writes) {
            Ok(answer) => Ok(answer),
            Err(Problem::Refused(error)) => Err(error),
            Err(problem @ (Problem::Broken(_) | Problem::Sql(_))) => return Err(problem),
        });
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.answer = Some(Err(error));
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let not_applied = || Err(Error::Failed("the operation was not applied".into()));
        let answer = match committed {
            Ok(()) => self.answer.unwrap_or_else(not_applied),
            Err(error) => Err(error),
        };
        // A caller that has gone does not mind.
        let _ = self.reply.send(answer);
    }
}

pub(super) struct CreateFunction {
    pub(super) name: FunctionName,
    pub(super) settings: FunctionSettings,
    pub(super) version: Arc<Version>,
}

impl Operation for CreateFunction {
    type Answer = FunctionRecord;

    fn weight(&self) -> Weight {
        Weight::one(0)
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<FunctionRecord> {
        writes.create_function(&self.name, &self.settings, &self.version)
    }
}

pub(super) struct AddVersion {
    pub(super) id: FunctionId,
    pub(super) settings: FunctionSettings,
    pub(super) version: Arc<Version>,
}

impl Operation for AddVersion {
    type Answer = ();

    fn weight(&self) -> Weight {
        Weight::one(0)
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<()> {
        writes.add_version(self.id, &self.settings, &self.version)
    }
}

pub(super) struct SetFunction {
    pub(super) id: FunctionId,
    pub(super) settings: FunctionSettings,
    pub(super) active: VersionNumber,
    pub(super) now: Timestamp,
}

impl Operation for SetFunction {
    type Answer = ();

    fn weight(&self) -> Weight {
        Weight::one(0)
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<()> {
        writes.set_function(self.id, &self.settings, self.active, self.now)
    }
}

pub(super) struct DeleteFunction(pub(super) FunctionId);

impl Operation for DeleteFunction {
    type Answer = ();

    fn weight(&self) -> Weight {
        Weight::one(0)
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<()> {
        writes.delete_function(self.0)
    }
}

pub(super) struct SetRuntimeConfig {
    pub(super) expected: u64,
    pub(super) next: RuntimeRevision,
}

impl Operation for SetRuntimeConfig {
    type Answer = Applied;

    fn weight(&self) -> Weight {
        Weight::one(0)
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<Applied> {
        writes.set_runtime_config(self.expected, &self.next)
    }
}

pub(super) struct PutSecret {
    pub(super) name: SecretName,
    pub(super) sealed: Arc<[u8]>,
    pub(super) now: Timestamp,
}

impl Operation for PutSecret {
    type Answer = SecretRecord;

    fn weight(&self) -> Weight {
        Weight::one(bytes(self.sealed.len()))
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<SecretRecord> {
        writes.put_secret(&self.name, &self.sealed, self.now)
    }
}

pub(super) struct DeleteSecret(pub(super) SecretName);

impl Operation for DeleteSecret {
    type Answer = Applied;

    fn weight(&self) -> Weight {
        Weight::one(0)
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<Applied> {
        writes.delete_secret(&self.0)
    }
}

pub(super) struct Accept(pub(super) NewExecution);

impl Operation for Accept {
    type Answer = Accepted;

    fn weight(&self) -> Weight {
        let request = &self.0.request;
        let metadata: usize = request
            .metadata
            .iter()
            .map(|(k, v)| k.len() + v.len())
            .sum();
        Weight::one(bytes(request.input.body.len() + metadata))
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<Accepted> {
        writes.accept(&self.0)
    }

    fn haste(&self) -> Haste {
        match self.0.deadline {
            None => Haste::Asked,
            // Its caller waits for the end of the run.
            Some(_) => Haste::Now,
        }
    }
}

pub(super) struct Transit(pub(super) Transition);

impl Operation for Transit {
    type Answer = Applied;

    fn weight(&self) -> Weight {
        Weight::one(transition_bytes(&self.0))
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<Applied> {
        writes.transition(&self.0)
    }

    fn transitions(&self) -> &[Transition] {
        std::slice::from_ref(&self.0)
    }

    fn haste(&self) -> Haste {
        match self.0.guard {
            // What a run ended with.
            Guard::Claim(_) => Haste::Shortly,
            Guard::Live | Guard::Redrivable => Haste::Now,
        }
    }
}

pub(super) struct TransitMany(pub(super) Vec<Transition>);

impl Operation for TransitMany {
    type Answer = Vec<Applied>;

    fn weight(&self) -> Weight {
        Weight::many(self.0.len(), self.0.iter().map(transition_bytes).sum())
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<Vec<Applied>> {
        self.0.iter().map(|t| writes.transition(t)).collect()
    }

    fn transitions(&self) -> &[Transition] {
        &self.0
    }
}

pub(super) struct AddAttempt {
    pub(super) id: ExecutionId,
    pub(super) attempt: AttemptRecord,
}

impl Operation for AddAttempt {
    type Answer = Applied;

    fn weight(&self) -> Weight {
        Weight::one(attempt_bytes(&self.attempt))
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<Applied> {
        writes.add_attempt(self.id, &self.attempt)
    }

    fn haste(&self) -> Haste {
        Haste::Soon
    }
}

pub(super) struct Purge(pub(super) Retention);

impl Operation for Purge {
    type Answer = u32;

    fn weight(&self) -> Weight {
        let rows = usize::try_from(self.0.rows_max).unwrap_or(usize::MAX);
        Weight::many(rows.max(1), 0)
    }

    fn apply(&self, writes: &Writes<'_, '_>) -> Done<u32> {
        writes.purge(&self.0)
    }
}

/// Does nothing; its answer says that everything handed over before it is committed.
pub(super) struct Barrier;

impl Operation for Barrier {
    type Answer = ();

    fn weight(&self) -> Weight {
        Weight::one(0)
    }

    fn apply(&self, _writes: &Writes<'_, '_>) -> Done<()> {
        Ok(())
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn transition_bytes(transition: &Transition) -> u64 {
    let output = transition.output.as_ref().map_or(0, |o| o.body.len());
    let attempt = transition.attempt.as_ref().map_or(0, attempt_bytes);
    bytes(output).saturating_add(attempt)
}
