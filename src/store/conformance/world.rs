//! A store under test and the things that go into it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Opener;
use crate::execution::{Execution, State};
use crate::model::{
    Code, ContentType, Encoding, ExecutionId, Failure, Fence, FunctionSettings, IdempotencyKey,
    Input, JSON, LogLine, LogStream, Logs, Output, RecordMode, Timestamp, Version, VersionNumber,
    VersionSpec,
};
use crate::store::{
    Accepted, Applied, AttemptRecord, ClaimRecord, EndedExecution, FunctionRecord, Guard, KeyClaim,
    NewExecution, Request, Store, Transition,
};

/// The time at which everything here begins.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);

/// A store, and the way to open it again.
pub(crate) struct World {
    opener: Opener,
    store: Arc<dyn Store>,
    claims: AtomicU64,
}

impl Deref for World {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl World {
    pub(crate) fn new(opener: Opener) -> Self {
        let store = opener();
        Self {
            opener,
            store,
            claims: AtomicU64::new(0),
        }
    }

    /// The store, for a task of its own.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Closes and opens again.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await.expect("close");
        self.store = (self.opener)();
    }

    /// A function with one version.
    pub(crate) async fn function(&self, name: &str) -> FunctionRecord {
        self.store
            .create_function(
                &name.parse().expect("a name"),
                &FunctionSettings::default(),
                version(1),
            )
            .await
            .expect("create a function")
    }

    /// A fence later than all before.
    pub(crate) fn next_fence(&self) -> Fence {
        Fence::new(
            self.store.boot(),
            self.claims.fetch_add(1, Ordering::Relaxed) + 1,
        )
    }

    /// Accepts a new execution, created `ms` after the start.
    pub(crate) async fn accepted(&self, function: &FunctionRecord, ms: u64) -> NewExecution {
        let new = new_execution(function, ms);
        let accepted = self.store.accept(new.clone()).await;
        assert_eq!(accepted.expect("accept"), Accepted::New);
        new
    }

    /// Logs a claim, durably.
    pub(crate) async fn claim(&self, id: ExecutionId) -> Fence {
        let fence = self.next_fence();
        self.store.log_claim(claim(id, fence));
        self.store.flush().await.expect("flush");
        fence
    }

    /// Writes a transition that must take.
    #[track_caller]
    pub(crate) fn done(&self, transition: Transition) -> impl Future<Output = ()> + use<'_> {
        let store = Arc::clone(&self.store);
        async move {
            let applied = store.transition(transition).await;
            assert_eq!(applied.expect("transition"), Applied::Done);
        }
    }

    /// Writes a transition that must not.
    pub(crate) async fn stale(&self, transition: Transition) {
        let applied = self.store.transition(transition).await;
        assert_eq!(applied.expect("transition"), Applied::Stale);
    }
}

/// A version of the built-in echo.
pub(crate) fn version(number: u64) -> Arc<Version> {
    Arc::new(Version {
        number: VersionNumber(number),
        code: Code::Echo,
        spec: VersionSpec::default(),
        created_at: START.plus_ms(number),
    })
}

/// A new execution, created `ms` after the start, with metadata and trace.
pub(crate) fn new_execution(function: &FunctionRecord, ms: u64) -> NewExecution {
    let now = START.plus_ms(ms);
    let request = Request {
        input: Input {
            content_type: JSON,
            body: format!("{{\"ms\": {ms}}}").into(),
        },
        metadata: Arc::from([("tenant".to_owned(), "größe".to_owned())]),
        trace_id: Some("trace".into()),
        traceparent: Some("00-ab-cd-01".into()),
        idempotency_key: None,
        parent: None,
    };
    NewExecution {
        id: ExecutionId::new(now),
        function_id: function.id,
        function: function.name.clone(),
        version: function.active,
        execution: Execution::queued(now),
        request: Arc::new(request),
        key: None,
        deadline: None,
    }
}

/// The same with a key that lives for `ttl_ms`.
pub(crate) fn keyed(mut new: NewExecution, key: &str, ttl_ms: u64) -> NewExecution {
    let key: IdempotencyKey = key.parse().expect("a key");
    let request = Arc::make_mut(&mut new.request);
    request.idempotency_key = Some(key.clone());
    new.key = Some(KeyClaim {
        key,
        body_hash: [7; 32],
        expires_at: new.execution.created_at.plus_ms(ttl_ms),
    });
    new
}

pub(crate) fn claim(id: ExecutionId, fence: Fence) -> ClaimRecord {
    ClaimRecord {
        id,
        fence,
        attempt: 1,
        at: START.plus_ms(5_000),
    }
}

pub(crate) fn failure() -> Failure {
    Failure::new("OUT_OF_STOCK", "none left")
}

/// The record of an execution that ended in this state, `ms` after the start.
pub(crate) fn ended(new: &NewExecution, state: State, ms: u64) -> Execution {
    Execution {
        state,
        attempts: 1,
        started_at: Some(START.plus_ms(ms.saturating_sub(1))),
        finished_at: Some(START.plus_ms(ms)),
        ..new.execution.clone()
    }
}

pub(crate) fn output() -> Output {
    Output {
        content_type: Some(ContentType("text/plain".into())),
        encoding: Encoding::Text,
        body: "hello".into(),
    }
}

pub(crate) fn logs() -> Logs {
    let line = |stream, text: &str| LogLine {
        stream,
        text: text.to_owned(),
    };
    Logs {
        lines: vec![
            line(LogStream::Stdout, "first"),
            line(LogStream::Stderr, ""),
            line(LogStream::Stdout, "with\ttab and größe"),
        ],
        truncated: true,
    }
}

pub(crate) fn attempt(fence: Fence) -> AttemptRecord {
    AttemptRecord {
        fence,
        number: 1,
        started_at: START.plus_ms(10),
        finished_at: START.plus_ms(12),
        outcome: "success",
        failure: None,
        logs: logs(),
        cold_start: true,
        init_ms: Some(3),
        run_us: 1_234,
        cpu_us: Some(1_000),
    }
}

/// A transition without result or run.
pub(crate) fn transition(id: ExecutionId, guard: Guard, next: Execution) -> Transition {
    Transition {
        id,
        guard,
        next,
        version: None,
        output: None,
        attempt: None,
    }
}

/// The end of a life under this claim: success, with output and run.
pub(crate) fn success(new: &NewExecution, fence: Fence, ms: u64) -> Transition {
    Transition {
        output: Some(output()),
        attempt: Some(attempt(fence)),
        ..transition(new.id, Guard::Claim(fence), ended(new, State::Success, ms))
    }
}

/// An execution that lived in memory only and ended in this state.
pub(crate) fn ended_in_memory(
    function: &FunctionRecord,
    ms: u64,
    state: State,
    record: RecordMode,
) -> EndedExecution {
    let new = new_execution(function, ms);
    EndedExecution {
        execution: ended(&new, state, ms + 3),
        id: new.id,
        function_id: new.function_id,
        function: new.function,
        version: new.version,
        request: new.request,
        output: Some(output()),
        streamed: None,
        attempts: vec![attempt(Fence::new(1, ms + 1))],
        record,
    }
}
