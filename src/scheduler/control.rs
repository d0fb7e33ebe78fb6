//! Orders from outside: complete, cancel, redrive, remove a function, changed settings.
//!
//! **Invariant:** each order is one event for [`crate::execution::step`]; nothing here decides by itself.

use std::sync::Arc;

use super::decide::{Change, Decided};
use super::state::{ClaimLog, Home, Live, Settling};
use super::{CallError, Completed, Scheduler};
use crate::execution::{Completion, Event, Rejected, step};
use crate::model::{ExecutionId, Fence, FunctionName, Output, VersionNumber};
use crate::registry::{self, Function};
use crate::store::{self, ExecutionRecord, Guard, Transition};

impl Scheduler {
    /// Takes a result from outside. `None`: there is no such execution.
    ///
    /// # Errors
    /// The store's.
    pub async fn complete(
        &self,
        id: ExecutionId,
        fence: Option<Fence>,
        completion: Completion,
        output: Option<Output>,
    ) -> Result<Option<Completed>, CallError> {
        let scheduler = self.clone();
        self.detached(async move {
            let event = Event::Complete { fence, completion };
            let change = Change {
                output,
                ..Change::of(event)
            };
            match scheduler.decide(id, change).await? {
                Decided::Done(_) => Ok(Some(Completed::Applied)),
                Decided::Rejected(_) => Ok(Some(Completed::Ignored)),
                Decided::NotLive => {
                    let known = scheduler.execution(id).await?;
                    Ok(known.map(|_| Completed::Ignored))
                }
            }
        })
        .await
    }

    /// Ends an execution as `cancelled`; one that has ended stays as it is. `None`: there is no such one.
    ///
    /// # Errors
    /// The store's.
    pub async fn cancel(&self, id: ExecutionId) -> Result<Option<Arc<ExecutionRecord>>, CallError> {
        let scheduler = self.clone();
        self.detached(async move {
            match scheduler.decide(id, Change::of(Event::Cancel)).await? {
                Decided::Done(record) => Ok(Some(record)),
                Decided::Rejected(_) | Decided::NotLive => scheduler.execution(id).await,
            }
        })
        .await
    }

    /// Sends an execution that ended as `error` or `timeout` back to its queue, with the active version
    /// unless another is named. `None`: no such one.
    ///
    /// # Errors
    /// The store's; [`CallError`] says why it cannot be.
    pub async fn redrive(
        &self,
        id: ExecutionId,
        version: Option<VersionNumber>,
    ) -> Result<Option<Arc<ExecutionRecord>>, CallError> {
        let scheduler = self.clone();
        self.detached(async move { scheduler.redrive_now(id, version).await })
            .await
    }

    async fn redrive_now(
        &self,
        id: ExecutionId,
        version: Option<VersionNumber>,
    ) -> Result<Option<Arc<ExecutionRecord>>, CallError> {
        if self.lock().live.contains_key(&id) {
            return Err(CallError::NotRedrivable(id));
        }
        let Some(record) = self.inner.store.execution(id).await? else {
            return Ok(None);
        };
        let found = self.inner.registry.get_by_id(record.function_id);
        let function = found.ok_or_else(|| self.no_function_of(&record))?;
        if !record.input_kept {
            return Err(CallError::InputNotKept(id));
        }
        let number = version.unwrap_or(function.active.number);
        let version = function.version(number).cloned();
        let version =
            version.ok_or_else(|| CallError::UnknownVersion(unknown_version(&function, number)))?;
        let mut live = live_from(&record, &function);
        live.version = version;
        live.settling = Settling::Accepting(Vec::new());
        let now = self.inner.clock.now();
        let policy = live.policy(self.inner.options.faults_max, super::state::Removed::No);
        let stepped = step(&live.execution, &Event::Redrive, &policy, now)
            .map_err(|_: Rejected| CallError::NotRedrivable(id))?;
        let transition = Transition {
            id,
            guard: Guard::Redrivable,
            next: stepped.next.clone(),
            version: Some(number),
            output: None,
            attempt: None,
        };
        {
            let mut state = self.lock();
            self.ensure_function(&mut state, &function)?;
            if state.live.contains_key(&id) {
                return Err(CallError::NotRedrivable(id));
            }
            state.insert(live);
        }
        let applied = self.write(transition).await;
        let applied = applied.inspect_err(|_| self.forget(&mut self.lock(), id))?;
        match self.finish_settling(id, stepped, None, Ok(applied))? {
            Decided::Done(record) => Ok(Some(record)),
            Decided::Rejected(_) | Decided::NotLive => Err(CallError::NotRedrivable(id)),
        }
    }

    /// Why an execution whose function is gone cannot run again.
    fn no_function_of(&self, record: &ExecutionRecord) -> CallError {
        let name = record.function.clone();
        match self.inner.registry.get(&name) {
            Some(_) => CallError::FunctionReplaced(record.id, name),
            None => CallError::UnknownFunction(name),
        }
    }

    /// Deletes a function: its queued work ends as error `FUNCTION_REMOVED` and its waiters are woken.
    ///
    /// # Errors
    /// The registry's.
    pub async fn remove_function(
        &self,
        name: &FunctionName,
    ) -> Result<Arc<Function>, registry::Error> {
        let (scheduler, name) = (self.clone(), name.clone());
        let removal = self.inner.tasks.spawn(async move {
            let function = scheduler.inner.registry.remove(&name).await?;
            scheduler.end_work_of(&function).await?;
            Ok(function)
        });
        match removal.await {
            Ok(result) => result,
            Err(_) => Err(store::Error::Failed("the deletion ended unexpectedly".into()).into()),
        }
    }

    /// Ends what a function that is gone has waiting. What runs goes on and is recorded.
    pub(super) async fn end_work_of(&self, function: &Function) -> store::Result<()> {
        let ids = {
            let mut state = self.lock();
            state.queues.remove_function(function.id);
            state.functions.remove(&function.id);
            self.inner.metrics.remove_function(&function.name);
            // One that was made again under the name meanwhile gets series of its own.
            if let Some(successor) = self.inner.registry.get(&function.name)
                && let Some(known) = state.functions.get_mut(&successor.id)
            {
                known.metrics = self.inner.metrics.function(&function.name);
            }
            let mine = state
                .live
                .values_mut()
                .filter(|live| live.function_id == function.id);
            let mut ids = Vec::new();
            for live in mine {
                live.place = None;
                ids.push(live.id);
            }
            ids
        };
        // Running work goes on and rejects this; so does work that has ended meanwhile.
        let events = ids.into_iter().map(|id| (id, Event::RemoveFunction));
        self.decide_all(events.collect()).await
    }

    /// Looks for work again after a function's settings changed.
    pub fn settings_changed(&self, name: &FunctionName) {
        let Some(function) = self.inner.registry.get(name) else {
            return;
        };
        let claims = {
            let mut state = self.lock();
            if self.ensure_function(&mut state, &function).is_err() {
                return;
            }
            self.claim_ready(&mut state)
        };
        self.spawn_dispatches(claims);
    }
}

/// A live entry for an execution that is known from the store only.
pub(super) fn live_from(record: &ExecutionRecord, function: &Function) -> Live {
    let identity = (record.function_id, record.function.clone());
    let version = function.version(record.version);
    let version = Arc::clone(version.unwrap_or(&function.active));
    let execution = record.execution.clone();
    Live {
        claim_log: ClaimLog::Ahead,
        input_bytes: record.input_bytes,
        trace_id: record.trace_id.clone(),
        parent: record.parent,
        cold_start: record.cold_start,
        init_ms: record.init_ms,
        ..Live::new(record.id, identity, version, execution, Home::Durable)
    }
}

fn unknown_version(function: &Function, number: VersionNumber) -> String {
    let first = function
        .versions
        .first()
        .map_or(1, |version| version.number.0);
    let last = function
        .versions
        .last()
        .map_or(1, |version| version.number.0);
    format!(
        "{} has no version {number}: it has {first} to {last}",
        function.name
    )
}
