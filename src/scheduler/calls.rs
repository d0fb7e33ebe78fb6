//! Calls come in: admission, durability where something is promised.
//!
//! **Invariant:** a call that is refused leaves nothing behind: no key, no execution, no place in a queue.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::poll_immediate;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admission::{Entry, QueueLimit, RunTimes};
use super::decide::store_panicked;
use super::dispatch::Dispatching;
use super::queue::{Bounds, Lane};
use super::rate::Limiter;
use super::state::{Direct, FunctionState, Home, Live, Settling, State};
use super::waits::{CallerGuard, Coming};
use super::{Call, CallError, Enqueued, Invoked, Scheduler};
use crate::execution::Execution;
use crate::model::{ExecutionId, Timestamp};
use crate::registry::Function;
use crate::store::{self, Accepted, ExecutionRecord, KeyClaim, KeyHolder, NewExecution, Request};

/// What a repeated key found, or what a new call became.
enum Taken {
    New(Arc<ExecutionRecord>),
    Existing(KeyHolder),
}

/// What a synchronous call with a key waits for.
enum Keyed {
    Own(JoinHandle<Result<Arc<ExecutionRecord>, CallError>>),
    Existing(KeyHolder),
}

/// The synchronous caller of a new execution.
#[derive(Clone, Copy)]
struct Caller {
    wait: Duration,
    until: Instant,
    deadline: Timestamp,
}

/// A synchronous call that was let in.
pub(super) struct Started {
    pub(super) id: ExecutionId,
    /// Its dispatch, if it was claimed at once: for its caller to run.
    pub(super) own: Option<Dispatching>,
    pub(super) result: Coming,
    /// When its caller's time is over.
    pub(super) until: Instant,
    /// Until when it may wait in its queue, if that comes first.
    pub(super) queue_limit: Option<QueueLimit>,
}

impl Scheduler {
    /// Queues a call. The answer comes after the execution is on disk.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn enqueue(&self, call: Call) -> Result<Enqueued, CallError> {
        let function = self.look_up(&call)?;
        self.admit(&mut self.lock(), &function)?;
        let scheduler = self.clone();
        self.detached(async move {
            let body_hash = call.key.as_ref().map(|(_, hash)| *hash);
            let (execution, replayed) = match scheduler.accept(&function, call, None).await? {
                Taken::New(execution) => (execution, false),
                Taken::Existing(holder) => {
                    let id = scheduler.same_body(holder, body_hash)?;
                    (scheduler.must_exist(id).await?, true)
                }
            };
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
    pub fn invoke(&self, call: Call) -> impl Future<Output = Result<Invoked, CallError>> + Send {
        let found = self.look_up(&call);
        // What this block captures is there once; an async function would hold what it is given twice.
        async move {
            let function = found?;
            let spec = &function.active.spec;
            let wait = call.wait.unwrap_or(Duration::from_millis(spec.timeout_ms));
            if call.key.is_some() {
                self.admit(&mut self.lock(), &function)?;
                // What is rare is made when it comes to it: the future of every call is as large as its largest part.
                return Box::pin(self.invoke_with_key(function, call, wait)).await;
            }
            let Started {
                id,
                own,
                mut result,
                until,
                queue_limit,
            } = self.start_in_memory(&function, call, wait, None)?;
            let mut gone = CallerGuard {
                scheduler: self,
                id: Some(id),
            };
            if let Some(dispatch) = own {
                self.dispatch_here(dispatch).await;
            }
            // There already, nearly always: this very task has dispatched it.
            let execution = match poll_immediate(&mut result).await {
                Some(ended) => ended.map_err(|_| CallError::Stopping),
                None => {
                    let waiting = self.own_result(&function, id, &mut result, until, queue_limit);
                    Box::pin(waiting).await
                }
            };
            gone.id = None;
            Ok(Invoked {
                execution: execution?,
                replayed: false,
            })
        }
    }

    async fn own_result(
        &self,
        function: &Function,
        id: ExecutionId,
        result: &mut Coming,
        until: Instant,
        queue_limit: Option<QueueLimit>,
    ) -> Result<Arc<ExecutionRecord>, CallError> {
        match queue_limit {
            None => self.wait_or_expire(id, result, until).await,
            Some(limit) => {
                self.wait_in_queue_first(function, id, result, until, limit)
                    .await
            }
        }
    }

    /// Admits a call whose execution lives in memory, and queues it.
    pub(super) fn start_in_memory(
        &self,
        function: &Arc<Function>,
        call: Call,
        wait: Duration,
        direct: Option<Direct>,
    ) -> Result<Started, CallError> {
        let now = self.inner.clock.now();
        let id = self.inner.dice.execution_id(now);
        let (waiter, result) = oneshot::channel();
        let mut live = new_live(function, call, id, now, Home::Memory);
        let (accepted, until) = (live.accepted, live.accepted + wait);
        live.waiters = vec![waiter];
        live.caller_until = Some(until);
        live.direct = direct;
        let (queue_limit, mut claims) = {
            let mut state = self.lock();
            self.admit(&mut state, function)?;
            self.check_entry(&state, function, Entry::Caller(wait))?;
            if let Some(function) = state.functions.get(&function.id) {
                function.metrics.enqueued();
                function.metrics.sync_queue().admitted();
            }
            state.insert(live);
            state.push_at(id, now, (now, accepted));
            let claims = self.claim_ready(&mut state);
            (self.queue_limit(&state, accepted, until), claims)
        };
        let own = claims.iter().position(|claimed| claimed.is_guest_of(id));
        let own = own.map(|at| self.dispatching(claims.swap_remove(at)));
        self.spawn_dispatches(claims);
        Ok(Started {
            id,
            own,
            result,
            until,
            queue_limit,
        })
    }

    async fn invoke_with_key(
        &self,
        function: Arc<Function>,
        call: Call,
        wait: Duration,
    ) -> Result<Invoked, CallError> {
        let until = Instant::now() + wait;
        let body_hash = call.key.as_ref().map(|(_, hash)| *hash);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let caller = Caller {
            wait,
            until,
            deadline: self.inner.clock.now().plus_ms(wait_ms),
        };
        let scheduler = self.clone();
        let seen = self
            .detached(async move {
                match scheduler.accept(&function, call, Some(caller)).await? {
                    // Watched from here on, whether the caller stays or not.
                    Taken::New(execution) => {
                        Ok(Keyed::Own(scheduler.see_through(execution.id, until)))
                    }
                    Taken::Existing(holder) => Ok(Keyed::Existing(holder)),
                }
            })
            .await?;
        match seen {
            Keyed::Own(result) => Ok(Invoked {
                // The task fails only if the runtime is going away.
                execution: result.await.map_err(|_| CallError::Stopping)??,
                replayed: false,
            }),
            Keyed::Existing(holder) => {
                let id = self.same_body(holder, body_hash)?;
                Ok(Invoked {
                    execution: self.wait_for(id, until).await?,
                    replayed: true,
                })
            }
        }
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

    fn look_up(&self, call: &Call) -> Result<Arc<Function>, CallError> {
        let found = self.inner.registry.get(&call.function);
        found.ok_or_else(|| CallError::UnknownFunction(call.function.clone()))
    }

    /// Makes sure of the function and asks the rates. Replays count too: a caller that repeats itself is load.
    pub(super) fn admit(&self, state: &mut State, function: &Function) -> Result<(), CallError> {
        self.ensure_function(state, function)?;
        // It may have seen raised bounds before whoever raised them says so.
        let claims = self.claim_ready(state);
        self.spawn_dispatches(claims);
        self.check_rates(state, function)
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
        // Asked again under the lock: a call that looked the function up before it was changed must not
        // bring old settings back, and one that did so before it was deleted must not bring its queue back.
        let changes = self.inner.registry.changes();
        let mut known = state.functions.get_mut(&function.id);
        if known.as_ref().is_some_and(|known| known.seen == changes) {
            return Ok(());
        }
        let Some(present) = self.inner.registry.get_by_id(function.id) else {
            return Err(CallError::UnknownFunction(function.name.clone()));
        };
        if let Some(known) = &mut known
            && Arc::ptr_eq(&known.present, &present)
        {
            known.seen = changes;
            return Ok(());
        }
        let settings = &present.settings;
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
                runs: RunTimes::default(),
                present: Arc::clone(&present),
                seen: changes,
            });
        known.limiter.update(settings);
        known.metrics.set_concurrency(settings.concurrency);
        (known.present, known.seen) = (present, changes);
        Ok(())
    }

    /// Makes a new execution durable and puts it in its queue. Runs detached.
    async fn accept(
        &self,
        function: &Arc<Function>,
        call: Call,
        caller: Option<Caller>,
    ) -> Result<Taken, CallError> {
        // Until this ends, others with the same key wait, and then find what was made.
        let _turn = match &call.key {
            Some((key, _)) => Some(self.inner.keys.turn(function.id, key).await),
            None => None,
        };
        let now = self.inner.clock.now();
        if let Some((key, _)) = &call.key
            && let Some(holder) = self.inner.store.key_holder(function.id, key, now).await?
        {
            return Ok(Taken::Existing(holder));
        }
        let id = self.inner.dice.execution_id(now);
        let key = call.key.as_ref().map(|(key, body_hash)| KeyClaim {
            key: key.clone(),
            body_hash: *body_hash,
            expires_at: now.plus_ms(self.inner.options.idempotency_ttl_ms),
        });
        let deadline = caller.map(|caller| caller.deadline);
        let mut live = new_live(function, call, id, now, Home::Durable);
        live.settling = Settling::Accepting(Vec::new());
        live.caller_until = caller.map(|caller| caller.until);
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
        let entry = match caller {
            Some(caller) => Entry::Caller(caller.wait),
            None => Entry::Queued,
        };
        {
            let mut state = self.lock();
            // It may have been deleted since it was looked up.
            self.ensure_function(&mut state, function)?;
            self.check_entry(&state, function, entry)?;
            state.queues.reserve(function.id, entry.lane());
            state.insert(live);
        }
        // A panic of the store must not keep the promised place for ever.
        let accepted = AssertUnwindSafe(self.inner.store.accept(new)).catch_unwind();
        let accepted = accepted.await.unwrap_or_else(|_| Err(store_panicked()));
        self.accepted(function, id, (now, entry.lane()), accepted)
    }

    fn accepted(
        &self,
        function: &Function,
        id: ExecutionId,
        (now, lane): (Timestamp, Lane),
        accepted: store::Result<Accepted>,
    ) -> Result<Taken, CallError> {
        let (taken, claims) = {
            let mut state = self.lock();
            state.queues.unreserve(function.id, lane);
            let taken = match accepted {
                Ok(Accepted::New) => {
                    state.settled(id);
                    state.push(id, now, now);
                    if let Some(known) = state.functions.get(&function.id) {
                        known.metrics.enqueued();
                        if lane == Lane::Caller {
                            known.metrics.sync_queue().admitted();
                        }
                    }
                    let live = state.live.get(&id).ok_or(CallError::StoppingFirst(id));
                    live.map(|live| Taken::New(Arc::new(live.record(None))))
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
        self.inner.calmer.notify_waiters();
        self.spawn_dispatches(claims);
        taken
    }
}

/// The live entry of a new call.
pub(super) fn new_live(
    function: &Function,
    call: Call,
    id: ExecutionId,
    now: Timestamp,
    home: Home,
) -> Live {
    let input_bytes = call.input.body.len() as u64;
    let request = Request {
        input: call.input,
        metadata: call.metadata,
        trace_id: call.trace_id.clone(),
        traceparent: call.traceparent,
        idempotency_key: call.key.map(|(key, _)| key),
        parent: call.parent,
    };
    let identity = (function.id, function.name.clone());
    let version = Arc::clone(&function.active);
    Live {
        request: Some(Arc::new(request)),
        input_bytes,
        trace_id: call.trace_id,
        parent: call.parent,
        ..Live::new(id, identity, version, Execution::queued(now), home)
    }
}
