//! Orders from outside: complete, cancel, remove a function, changed settings.
//!
//! **Invariant:** each order is one event for [`crate::execution::step`]; nothing here decides by itself.

use std::sync::Arc;

use super::decide::{Change, Decided};
use super::{CallError, Completed, Scheduler};
use crate::execution::{Completion, Event};
use crate::model::{ExecutionId, Fence, FunctionName, Output};
use crate::registry::{self, Function};
use crate::store::{self, ExecutionRecord};

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
