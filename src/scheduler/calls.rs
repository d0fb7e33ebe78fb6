//! Calls come in: admission, durability where something is promised, and the wait of synchronous callers.
//!
//! **Invariant:** a call that is refused leaves nothing behind, no key and no execution; a caller that hangs
//! up leaves no waiter and no work that nobody asked to keep.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::decide::{Change, Decided};
use super::queue::{Bounds, Full};
use super::rate::{Limited, Limiter};
use super::state::{FunctionState, Home, Live, Settling, State, Waiter};
use super::{Call, CallError, Enqueued, Invoked, Scheduler};
use crate::execution::{Event, Execution};
use crate::model::{ExecutionId, Timestamp};
use crate::observe::RejectReason;
use crate::registry::Function;
use crate::store::{self, Accepted, ExecutionRecord, KeyClaim, KeyHolder, NewExecution, Request};

/// What a repeated key found, or what a new call became.
enum Taken {
    New(ExecutionId),
    Existing(KeyHolder),
}

/// The synchronous caller of a new execution.
struct Caller {
    waiter: Waiter,
    until: Instant,
    deadline: Timestamp,
}

impl Scheduler {
    /// Queues a call. The answer comes after the execution is on disk.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn enqueue(&self, call: Call) -> Result<Enqueued, CallError> {
        let function = self.admit(&call)?;
        let scheduler = self.clone();
        self.detached(async move {
            let body_hash = call.key.as_ref().map(|(_, hash)| *hash);
            let (id, replayed) = match scheduler.accept(&function, call, None).await? {
                Taken::New(id) => (id, false),
                Taken::Existing(holder) => (scheduler.same_body(holder, body_hash)?, true),
            };
            let execution = scheduler.must_exist(id).await?;
            Ok(Enqueued {
                execution,
                replayed,
            })
        })
        .await
    }

    /// Calls and waits. Dropping the future means that the caller hung up: without a key the execution
    /// ends as `timeout` `CALLER_GONE`.
    ///
    /// # Errors
    /// See [`CallError`]. A function's failure and a timeout are results, not errors.
    pub async fn invoke(&self, call: Call) -> Result<Invoked, CallError> {
        let function = self.admit(&call)?;
        let spec = &function.active.spec;
        let wait = call.wait.unwrap_or(Duration::from_millis(spec.timeout_ms));
        if call.key.is_some() {
            return self.invoke_with_key(function, call, wait).await;
        }
        let id = ExecutionId::new(self.inner.clock.now());
        let (waiter, result) = oneshot::channel();
        self.start_in_memory(&function, call, id, waiter, Instant::now() + wait)?;
        let mut gone = CallerGuard {
            scheduler: self,
            id: Some(id),
        };
        let execution = self.wait_or_expire(id, result, wait).await;
        gone.id = None;
        Ok(Invoked {
            execution: execution?,
            replayed: false,
        })
    }

    fn start_in_memory(
        &self,
        function: &Arc<Function>,
        call: Call,
        id: ExecutionId,
        waiter: Waiter,
        until: Instant,
    ) -> Result<(), CallError> {
        let now = self.inner.clock.now();
        let mut live = new_live(function, call, id, now, Home::Memory);
        live.waiters.push(waiter);
        live.caller_until = Some(until);
        let claims = {
            let mut state = self.lock();
            self.reserve(&mut state, function)?;
            state.queues.unreserve(function.id);
            if let Some(function) = state.functions.get(&function.id) {
                function.metrics.enqueued();
            }
            state.insert(live);
            state.push(id, now, now);
            self.claim_ready(&mut state)
        };
        self.spawn_dispatches(claims);
        Ok(())
    }

    /// Waits for a result of this caller's own execution; when time is over, ends the execution.
    async fn wait_or_expire(
        &self,
        id: ExecutionId,
        mut result: oneshot::Receiver<Arc<ExecutionRecord>>,
        wait: Duration,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        if let Ok(result) = tokio::time::timeout(wait, &mut result).await {
            return result.map_err(|_| CallError::Stopping);
        }
        match self.decide(id, Change::of(Event::Expire)).await? {
            Decided::Done(execution) => Ok(execution),
            // The result and the end of the wait met: the result is on its way.
            Decided::Rejected(_) | Decided::NotLive => {
                result.await.map_err(|_| CallError::Stopping)
            }
        }
    }

    async fn invoke_with_key(
        &self,
        function: Arc<Function>,
        call: Call,
        wait: Duration,
    ) -> Result<Invoked, CallError> {
        let until = Instant::now() + wait;
        let body_hash = call.key.as_ref().map(|(_, hash)| *hash);
        let (waiter, result) = oneshot::channel();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let deadline = self.inner.clock.now().plus_ms(wait_ms);
        let caller = Caller {
            waiter,
            until,
            deadline,
        };
        let scheduler = self.clone();
        let taken = self
            .detached(async move {
                let taken = scheduler.accept(&function, call, Some(caller)).await?;
                if let Taken::New(id) = taken {
                    scheduler.watch_deadline(id, until);
                }
                Ok(taken)
            })
            .await?;
        match taken {
            Taken::New(_) => {
                let execution = result.await.map_err(|_| CallError::Stopping)?;
                Ok(Invoked {
                    execution,
                    replayed: false,
                })
            }
            Taken::Existing(holder) => {
                let id = self.same_body(holder, body_hash)?;
                let execution = self.wait_for(id, until).await?;
                Ok(Invoked {
                    execution,
                    replayed: true,
                })
            }
        }
    }

    /// Ends an execution when its creator's time is over, whether the creator still waits or not.
    fn watch_deadline(&self, id: ExecutionId, until: Instant) {
        let scheduler = self.clone();
        drop(self.inner.tasks.spawn(async move {
            let Some(ended) = scheduler.subscribe(id) else {
                return;
            };
            if tokio::time::timeout_at(until, ended).await.is_ok() {
                return;
            }
            if let Err(error) = scheduler.decide(id, Change::of(Event::Expire)).await {
                tracing::error!(execution.id = %id, %error, "a timeout could not be recorded");
            }
        }));
    }

    fn subscribe(&self, id: ExecutionId) -> Option<oneshot::Receiver<Arc<ExecutionRecord>>> {
        let mut state = self.lock();
        let live = state.live.get_mut(&id)?;
        let (waiter, result) = oneshot::channel();
        live.waiters.push(waiter);
        Some(result)
    }

    /// Waits for somebody else's execution, at most until `until`; then tells how it stands.
    async fn wait_for(
        &self,
        id: ExecutionId,
        until: Instant,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        if let Some(result) = self.subscribe(id)
            && let Ok(Ok(execution)) = tokio::time::timeout_at(until, result).await
        {
            return Ok(execution);
        }
        self.must_exist(id).await
    }

    async fn must_exist(&self, id: ExecutionId) -> Result<Arc<ExecutionRecord>, CallError> {
        let found = self.execution(id).await?;
        found.ok_or_else(|| {
            let text = format!("execution {id} is not in the store any more");
            CallError::Store(store::Error::Failed(text.into()))
        })
    }

    fn same_body(
        &self,
        holder: KeyHolder,
        body_hash: Option<[u8; 32]>,
    ) -> Result<ExecutionId, CallError> {
        if body_hash == Some(holder.body_hash) {
            Ok(holder.id)
        } else {
            Err(CallError::KeyReused(holder.id))
        }
    }

    /// Looks the function up and asks its rate. Replays count too: a caller that repeats itself is load.
    fn admit(&self, call: &Call) -> Result<Arc<Function>, CallError> {
        let found = self.inner.registry.get(&call.function);
        let function = found.ok_or_else(|| CallError::UnknownFunction(call.function.clone()))?;
        let mut state = self.lock();
        self.ensure_function(&mut state, &function)?;
        let Some(known) = state.functions.get(&function.id) else {
            return Ok(Arc::clone(&function));
        };
        known.limiter.check().map_err(|limited: Limited| {
            known.metrics.rejected(RejectReason::Rate);
            CallError::RateLimited {
                function: function.name.clone(),
                per_second: limited.per_second,
                retry_after_s: limited.retry_after_s.max(1),
            }
        })?;
        Ok(Arc::clone(&function))
    }

    /// Makes the scheduler's side of a function, with its present settings.
    pub(super) fn ensure_function(
        &self,
        state: &mut State,
        function: &Function,
    ) -> Result<(), CallError> {
        if state.stopping {
            return Err(CallError::Stopping);
        }
        // A call that looked the function up before it was deleted must not bring its queue back.
        if !state.queues.knows(function.id) && self.inner.registry.get_by_id(function.id).is_none()
        {
            return Err(CallError::UnknownFunction(function.name.clone()));
        }
        let settings = &function.settings;
        let bounds = Bounds {
            concurrency: settings.concurrency,
            queue_size: settings.queue_size,
        };
        state.queues.set_bounds(function.id, bounds);
        let known = state
            .functions
            .entry(function.id)
            .or_insert_with(|| FunctionState {
                metrics: self.inner.metrics.function(&function.name),
                limiter: Limiter::new(settings),
            });
        known.limiter.update(settings);
        Ok(())
    }

    fn reserve(&self, state: &mut State, function: &Function) -> Result<(), CallError> {
        self.ensure_function(state, function)?;
        state.queues.reserve(function.id).map_err(|Full| {
            if let Some(known) = state.functions.get(&function.id) {
                known.metrics.rejected(RejectReason::Depth);
            }
            CallError::QueueFull {
                function: function.name.clone(),
                queue_size: function.settings.queue_size,
                retry_after_s: 1,
            }
        })
    }

    /// Makes a new execution durable and puts it in its queue. Runs detached.
    async fn accept(
        &self,
        function: &Arc<Function>,
        call: Call,
        caller: Option<Caller>,
    ) -> Result<Taken, CallError> {
        let now = self.inner.clock.now();
        if let Some((key, _)) = &call.key
            && let Some(holder) = self.inner.store.key_holder(function.id, key, now).await?
        {
            return Ok(Taken::Existing(holder));
        }
        let id = ExecutionId::new(now);
        let key = call.key.as_ref().map(|(key, body_hash)| KeyClaim {
            key: key.clone(),
            body_hash: *body_hash,
            expires_at: now.plus_ms(self.inner.options.idempotency_ttl_ms),
        });
        let deadline = caller.as_ref().map(|caller| caller.deadline);
        let mut live = new_live(function, call, id, now, Home::Durable);
        live.settling = Settling::Accepting(Vec::new());
        if let Some(caller) = caller {
            live.waiters.push(caller.waiter);
            live.caller_until = Some(caller.until);
        }
        let new = NewExecution {
            id,
            function_id: function.id,
            function: function.name.clone(),
            version: function.active.number,
            execution: live.execution.clone(),
            // A new execution has its request; an absent one cannot be.
            request: live.request.clone().ok_or(CallError::Stopping)?,
            key,
            deadline,
        };
        {
            let mut state = self.lock();
            self.reserve(&mut state, function)?;
            state.insert(live);
        }
        let accepted = self.inner.store.accept(new).await;
        self.accepted(function, id, now, accepted)
    }

    fn accepted(
        &self,
        function: &Function,
        id: ExecutionId,
        now: Timestamp,
        accepted: store::Result<Accepted>,
    ) -> Result<Taken, CallError> {
        let (taken, claims) = {
            let mut state = self.lock();
            state.queues.unreserve(function.id);
            let taken = match accepted {
                Ok(Accepted::New) => {
                    state.settled(id);
                    state.push(id, now, now);
                    if let Some(known) = state.functions.get(&function.id) {
                        known.metrics.enqueued();
                    }
                    Ok(Taken::New(id))
                }
                Ok(Accepted::Existing(holder)) => {
                    self.forget(&mut state, id);
                    Ok(Taken::Existing(holder))
                }
                Err(store::Error::NoSuchFunction) => {
                    self.forget(&mut state, id);
                    Err(CallError::UnknownFunction(function.name.clone()))
                }
                Err(error) => {
                    self.forget(&mut state, id);
                    Err(error.into())
                }
            };
            (taken, self.claim_ready(&mut state))
        };
        self.spawn_dispatches(claims);
        taken
    }
}

fn new_live(function: &Function, call: Call, id: ExecutionId, now: Timestamp, home: Home) -> Live {
    let real_now = Instant::now();
    let input_bytes = call.input.body.len() as u64;
    let request = Request {
        input: call.input,
        metadata: call.metadata,
        trace_id: call.trace_id.clone(),
        traceparent: call.traceparent,
        idempotency_key: call.key.map(|(key, _)| key),
        parent: call.parent,
    };
    Live {
        id,
        function_id: function.id,
        function: function.name.clone(),
        version: Arc::clone(&function.active),
        execution: Execution::queued(now),
        home,
        request: Some(Arc::new(request)),
        input_bytes,
        trace_id: call.trace_id,
        parent: call.parent,
        place: None,
        caller_until: None,
        accepted: real_now,
        ready: real_now,
        run: None,
        waiters: Vec::new(),
        attempts: Vec::new(),
        settling: Settling::No,
        unspent: false,
        cold_start: false,
        init_ms: None,
    }
}

/// Ends the execution of a caller that hung up.
struct CallerGuard<'a> {
    scheduler: &'a Scheduler,
    id: Option<ExecutionId>,
}

impl Drop for CallerGuard<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else {
            return;
        };
        let scheduler = self.scheduler.clone();
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        drop(self.scheduler.inner.tasks.spawn(async move {
            // It lives in memory, so nothing can fail but finding it ended already.
            let _ = scheduler.decide(id, Change::of(Event::CallerGone)).await;
        }));
    }
}
