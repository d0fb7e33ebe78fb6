//! A store in memory with a word to say about each write: it fails, stalls, panics or is poisoned on command, and
//! loses with its process what a store may lose.
//!
//! **Invariant:** what it answered as done is done; orders and counts outlive restarts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::scripted::{Counted, take_one};
use super::trace::Trace;
use crate::execution::{Execution, State, Status};
use crate::model::{
    ExecutionId, FunctionId, FunctionName, FunctionSettings, IdempotencyKey, RuntimeRevision,
    SecretName, Timestamp, Version, VersionNumber,
};
use crate::store::memory::MemoryStore;
use crate::store::{
    Accepted, Applied, AttemptRecord, ClaimRecord, EndedExecution, Error, ExecutionRecord, Filter,
    FunctionRecord, Guard, KeyHolder, LiveExecution, NewExecution, Request, Result, Retention,
    SecretRecord, Store, Transition,
};

/// How long a claim may wait for a write to travel with.
const CLAIM_WAITS_MAX: Duration = Duration::from_millis(10);
/// Decisions that are remembered to come once more.
const ECHOES_MAX: usize = 8;

/// Something that is on or off; those who wait for it to go off are woken in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Switch {
    on: AtomicBool,
    off: Notify,
}

impl Switch {
    pub(super) fn send_replace(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
        self.off.notify_waiters();
    }

    async fn wait_off(&self) {
        loop {
            let changed = self.off.notified();
            if !self.on.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}

/// What a test orders of a [`FaultyStore`], and what the store saw. Outlives restarts.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Writes that fail; nothing of them is kept.
    pub(super) failing: AtomicU32,
    /// Decisions (not acceptances) that fail.
    pub(super) failing_transitions: AtomicU32,
    /// Writes that panic.
    pub(super) panicking: AtomicU32,
    /// Writes before which an earlier decision comes once more, as one does that was sent twice and held up.
    pub(super) echoing: AtomicU32,
    /// Executions that such a decision has changed, though they had moved on.
    pub(super) moved_by_echoes: Mutex<Vec<ExecutionId>>,
    /// Decisions that may come once more, oldest first.
    echoes: Mutex<VecDeque<Transition>>,
    /// The next write poisons the store, and nobody knows whether it is on disk.
    pub(super) poisoning: Mutex<Option<Poisoned>>,
    /// Writes wait while this is on.
    pub(super) stalled: Switch,
    /// Writes that wait.
    pub(super) waiting: watch::Sender<u32>,
    /// Claims go out with the next write, as they do on a disk; a crash may lose them.
    pub(super) claims_wait: AtomicBool,
    /// Terminal states that were committed, per execution, since its last redrive.
    pub(super) ends: Mutex<BTreeMap<ExecutionId, Vec<Status>>>,
}

/// What a write that failed has come to all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poisoned {
    /// It is on disk.
    Written,
    /// It is not.
    Lost,
}

/// See the module.
pub(super) struct FaultyStore {
    inner: MemoryStore,
    orders: Arc<Orders>,
    trace: Trace,
    claims: Mutex<Vec<(Instant, ClaimRecord)>>,
    poison: watch::Sender<Option<Arc<str>>>,
}

impl FaultyStore {
    pub(super) fn new(inner: MemoryStore, orders: Arc<Orders>, trace: Trace) -> Self {
        Self {
            inner,
            orders,
            trace,
            claims: Mutex::default(),
            poison: watch::Sender::default(),
        }
    }

    /// Lets a write pass; it may have to say what becomes of it.
    async fn gate(&self) -> Result<Option<Poisoned>> {
        self.orders.waiting.send_modify(|waiting| *waiting += 1);
        let waiting = Counted(&self.orders.waiting);
        self.orders.stalled.wait_off().await;
        drop(waiting);
        // A write takes its time: what comes in between sees it on its way.
        tokio::task::yield_now().await;
        assert!(
            !take_one(&self.orders.panicking),
            "a store that panics, as the test said"
        );
        self.check_poison()?;
        if take_one(&self.orders.failing) {
            return Err(Error::Failed("as the test said".into()));
        }
        let poisoned = self.orders.poisoning.lock().unwrap().take();
        if poisoned.is_some() {
            self.trace.note(|| format!("store: {poisoned:?}"));
            let why = Arc::from("as the test said");
            self.poison.send_replace(Some(why));
        }
        if poisoned == Some(Poisoned::Lost) {
            self.check_poison()?;
        }
        self.log_claims(Duration::ZERO);
        if take_one(&self.orders.echoing) {
            self.echo().await?;
        }
        Ok(poisoned)
    }

    /// An earlier decision comes once more, after its execution has moved on: the store itself turns it away.
    async fn echo(&self) -> Result<()> {
        let echoes = self.orders.echoes.lock().unwrap().clone();
        for echo in echoes {
            let id = echo.id;
            let before = self.inner.execution(id).await?;
            let Some(record) = before.filter(|record| has_moved_on(&record.execution, echo.guard))
            else {
                continue;
            };
            let applied = self.inner.transition(echo).await?;
            self.trace
                .note(|| format!("store {id}: an echo {applied:?}"));
            if applied != Applied::Stale || self.inner.execution(id).await? != Some(record) {
                self.orders.moved_by_echoes.lock().unwrap().push(id);
            }
        }
        Ok(())
    }

    fn remember(&self, transition: Transition) {
        let mut echoes = self.orders.echoes.lock().unwrap();
        echoes.push_back(transition);
        if echoes.len() > ECHOES_MAX {
            echoes.pop_front();
        }
    }

    fn check_poison(&self) -> Result<()> {
        match &*self.poison.borrow() {
            None => Ok(()),
            Some(why) => Err(Error::Poisoned(Arc::clone(why))),
        }
    }

    /// Writes the claims that have waited for so long.
    fn log_claims(&self, at_least: Duration) {
        if at_least > Duration::ZERO && self.check_poison().is_err() {
            return;
        }
        let mut claims = self.claims.lock().unwrap();
        while let Some((since, claim)) = claims.first().copied() {
            if since.elapsed() < at_least {
                break;
            }
            claims.remove(0);
            self.inner.log_claim(claim);
        }
    }

    /// A read, before which time may have passed.
    async fn read(&self) {
        tokio::task::yield_now().await;
        self.log_claims(CLAIM_WAITS_MAX);
    }

    fn note_end(&self, id: ExecutionId, status: Status, is_redrive: bool) {
        let mut ends = self.orders.ends.lock().unwrap();
        let ends = ends.entry(id).or_default();
        if is_redrive {
            ends.clear();
        }
        if status.is_terminal() {
            ends.push(status);
        }
    }
}

/// Whether a decision that was written under this guard is a thing of the past: its execution has ended, or is in
/// the hands of a later claim.
fn has_moved_on(execution: &Execution, guard: Guard) -> bool {
    match (guard, &execution.state) {
        (Guard::Redrivable, _) => false,
        (Guard::Claim(fence), State::Running { fence: later }) => fence < *later,
        (Guard::Claim(_) | Guard::Live, _) => execution.status().is_terminal(),
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn boot(&self) -> u32 {
        self.inner.boot()
    }
    async fn functions(&self) -> Result<Vec<FunctionRecord>> {
        self.inner.functions().await
    }
    async fn create_function(
        &self,
        name: &FunctionName,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<FunctionRecord> {
        self.check_poison()?;
        self.inner.create_function(name, settings, version).await
    }
    async fn add_version(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        version: Arc<Version>,
    ) -> Result<()> {
        tokio::task::yield_now().await;
        self.check_poison()?;
        self.inner.add_version(id, settings, version).await
    }
    async fn set_function(
        &self,
        id: FunctionId,
        settings: &FunctionSettings,
        active: VersionNumber,
        now: Timestamp,
    ) -> Result<()> {
        tokio::task::yield_now().await;
        self.check_poison()?;
        self.inner.set_function(id, settings, active, now).await
    }
    async fn delete_function(&self, id: FunctionId) -> Result<()> {
        tokio::task::yield_now().await;
        self.check_poison()?;
        self.inner.delete_function(id).await?;
        self.trace.note(|| format!("store: {id:?} is gone"));
        tokio::task::yield_now().await;
        Ok(())
    }
    async fn secrets(&self) -> Result<Vec<SecretRecord>> {
        self.inner.secrets().await
    }
    async fn put_secret(
        &self,
        name: &SecretName,
        sealed: Arc<[u8]>,
        now: Timestamp,
    ) -> Result<SecretRecord> {
        self.inner.put_secret(name, sealed, now).await
    }
    async fn delete_secret(&self, name: &SecretName) -> Result<Applied> {
        self.inner.delete_secret(name).await
    }
    async fn runtime_config(&self) -> Result<Option<RuntimeRevision>> {
        self.inner.runtime_config().await
    }
    async fn set_runtime_config(&self, expected: u64, next: RuntimeRevision) -> Result<Applied> {
        let poisoned = self.gate().await?;
        let applied = self.inner.set_runtime_config(expected, next).await;
        if poisoned.is_some() {
            self.check_poison()?;
        }
        applied
    }
    async fn accept(&self, new: NewExecution) -> Result<Accepted> {
        let poisoned = self.gate().await?;
        let id = new.id;
        let accepted = self.inner.accept(new).await;
        self.trace
            .note(|| format!("store accepts {id}: {accepted:?}"));
        if poisoned.is_some() {
            self.check_poison()?;
        }
        tokio::task::yield_now().await;
        accepted
    }
    async fn key_holder(
        &self,
        function: FunctionId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<KeyHolder>> {
        self.read().await;
        self.inner.key_holder(function, key, now).await
    }
    fn log_claim(&self, claim: ClaimRecord) {
        self.trace
            .note(|| format!("claim {} {}", claim.id, claim.fence));
        if self.orders.claims_wait.load(Ordering::SeqCst) {
            let mut claims = self.claims.lock().unwrap();
            claims.push((Instant::now(), claim));
        } else {
            self.inner.log_claim(claim);
        }
    }
    async fn transition(&self, transition: Transition) -> Result<Applied> {
        let poisoned = self.gate().await?;
        if take_one(&self.orders.failing_transitions) {
            return Err(Error::Failed("as the test said".into()));
        }
        let (id, status) = (transition.id, transition.next.status());
        let is_redrive = transition.guard == Guard::Redrivable;
        let echo = transition.clone();
        let applied = self.inner.transition(transition).await?;
        self.trace
            .note(|| format!("store {id}: {} {applied:?}", status.as_str()));
        if applied == Applied::Done {
            self.remember(echo);
            self.note_end(id, status, is_redrive);
        }
        if poisoned.is_some() {
            self.check_poison()?;
        }
        tokio::task::yield_now().await;
        Ok(applied)
    }
    async fn transition_all(&self, all: Vec<Transition>) -> Result<Vec<Applied>> {
        let mut applied = Vec::new();
        for transition in all {
            applied.push(self.transition(transition).await?);
        }
        Ok(applied)
    }
    async fn add_attempt(&self, id: ExecutionId, attempt: AttemptRecord) -> Result<Applied> {
        let poisoned = self.gate().await?;
        let fence = attempt.fence;
        let applied = self.inner.add_attempt(id, attempt).await;
        self.trace
            .note(|| format!("store {id}: late run {fence} {applied:?}"));
        if poisoned.is_some() {
            self.check_poison()?;
        }
        applied
    }
    fn record_ended(&self, ended: EndedExecution) {
        let (id, status) = (ended.id, ended.execution.status());
        self.trace
            .note(|| format!("store {id}: recorded as {}", status.as_str()));
        self.note_end(id, status, false);
        self.inner.record_ended(ended);
    }
    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRecord>> {
        self.read().await;
        self.inner.execution(id).await
    }
    async fn executions(&self, filter: &Filter, limit: u32) -> Result<Vec<ExecutionRecord>> {
        self.inner.executions(filter, limit).await
    }
    async fn request(&self, id: ExecutionId) -> Result<Option<Request>> {
        self.read().await;
        self.inner.request(id).await
    }
    async fn attempts(&self, id: ExecutionId) -> Result<Vec<AttemptRecord>> {
        self.inner.attempts(id).await
    }
    async fn live_executions(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> Result<Vec<LiveExecution>> {
        self.inner.live_executions(after, limit.min(3)).await
    }
    async fn purge(&self, retention: Retention) -> Result<u32> {
        self.inner.purge(retention).await
    }
    async fn flush(&self) -> Result<()> {
        tokio::task::yield_now().await;
        self.check_poison()?;
        self.log_claims(Duration::ZERO);
        self.inner.flush().await
    }
    fn poisoned(&self) -> Option<Arc<str>> {
        self.poison.borrow().clone()
    }
    async fn wait_poisoned(&self) -> Arc<str> {
        self.inner.wait_poisoned().await
    }
    async fn close(&self) -> Result<()> {
        if self.check_poison().is_ok() {
            self.log_claims(Duration::ZERO);
        }
        self.inner.close().await
    }
}
