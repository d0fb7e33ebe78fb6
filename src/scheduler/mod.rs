//! Takes calls in, decides what runs when, runs it, and records what it came to.
//!
//! All volatile state (live executions, ready queues, claims) is one structure behind one short lock;
//! every decision about an execution is [`crate::execution::step`]'s. Work moves when something happened:
//! an enqueue, a freed slot, a due time, a changed setting. Nothing polls.
//!
//! **Invariant:** knows no HTTP, no wasmtime and no database; never holds its lock across an await.

mod call;

pub use call::{
    Call, CallError, Completed, DrainOptions, Drained, Enqueued, Finalized, Invoked, Options,
};

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::execution::Completion;
use crate::model::{ExecutionId, Fence, FunctionName, Output, VersionNumber};
use crate::registry::{self, Function};
use crate::store::{AttemptRecord, ExecutionRecord, Filter};

/// A cheap handle on the scheduler.
#[derive(Clone)]
pub struct Scheduler {
    _inner: Arc<()>,
}

impl Scheduler {
    /// Queues a call. The answer comes after the execution is on disk.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn enqueue(&self, call: Call) -> Result<Enqueued, CallError> {
        let _ = call;
        unimplemented!("scheduler")
    }

    /// Calls and waits. Dropping the future means that the caller hung up: without a key the execution
    /// ends as `timeout` `CALLER_GONE`.
    ///
    /// # Errors
    /// See [`CallError`]. A function's failure and a timeout are results, not errors.
    pub async fn invoke(&self, call: Call) -> Result<Invoked, CallError> {
        let _ = call;
        unimplemented!("scheduler")
    }

    /// Claims the next ready execution of a function and spawns its dispatch; `None` if nothing is ready
    /// or no slot is free. The handle ends once the outcome is recorded.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`], [`CallError::Stopping`].
    pub fn tick_once(
        &self,
        function: &FunctionName,
    ) -> Result<Option<JoinHandle<Finalized>>, CallError> {
        let _ = function;
        unimplemented!("scheduler")
    }

    /// Dispatches by hand and waits for every dispatch to be recorded. Dropping the future does not
    /// cancel a dispatch.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`], [`CallError::Stopping`], the store's.
    pub async fn drain(
        &self,
        function: &FunctionName,
        options: DrainOptions,
    ) -> Result<Drained, CallError> {
        let _ = (function, options);
        unimplemented!("scheduler")
    }

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
        let _ = (id, fence, completion, output);
        unimplemented!("scheduler")
    }

    /// Ends an execution as `cancelled`; one that has ended stays as it is. `None`: there is no such one.
    ///
    /// # Errors
    /// The store's.
    pub async fn cancel(&self, id: ExecutionId) -> Result<Option<ExecutionRecord>, CallError> {
        let _ = id;
        unimplemented!("scheduler")
    }

    /// One execution, as it stands.
    ///
    /// # Errors
    /// The store's.
    pub async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRecord>, CallError> {
        let _ = id;
        unimplemented!("scheduler")
    }

    /// A page of executions, newest first, without outputs.
    ///
    /// # Errors
    /// The store's.
    pub async fn executions(
        &self,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<ExecutionRecord>, CallError> {
        let _ = (filter, limit);
        unimplemented!("scheduler")
    }

    /// The ended runs of an execution, oldest first, with their logs.
    ///
    /// # Errors
    /// The store's.
    pub async fn attempts(&self, id: ExecutionId) -> Result<Vec<AttemptRecord>, CallError> {
        let _ = id;
        unimplemented!("scheduler")
    }

    /// Deletes a function: its queued work ends as error `FUNCTION_REMOVED` and its waiters are woken.
    ///
    /// # Errors
    /// The registry's.
    pub async fn remove_function(
        &self,
        name: &FunctionName,
    ) -> Result<Arc<Function>, registry::Error> {
        let _ = name;
        unimplemented!("scheduler")
    }

    /// Looks for work again after a function's settings changed.
    pub fn settings_changed(&self, name: &FunctionName) {
        let _ = name;
        unimplemented!("scheduler")
    }

    /// Whether new calls are taken (false while stopping).
    pub fn is_accepting(&self) -> bool {
        unimplemented!("scheduler")
    }

    /// Sends an execution that ended as `error` or `timeout` back to its queue. `None`: no such one.
    ///
    /// # Errors
    /// The store's; [`CallError`] says why it cannot be.
    pub async fn redrive(
        &self,
        id: ExecutionId,
        version: Option<VersionNumber>,
    ) -> Result<Option<ExecutionRecord>, CallError> {
        let _ = (id, version);
        unimplemented!("scheduler")
    }
}
