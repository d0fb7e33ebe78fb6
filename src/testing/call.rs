//! A call that says more than its input: metadata, an idempotency key, a trace, how long the caller waits.
//!
//! **Invariant:** what a call is made of is checked when it is sent, and all in one place; a call that was
//! refused has left nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::{Execution, Harness, parse};
use crate::model::{ExecutionId, Input, JSON};
use crate::scheduler::{Call, body_hash};

/// A call in the making; [`enqueue`](Self::enqueue) or [`invoke`](Self::invoke) sends it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let plane = pelton::testing::Harness::start().await?;
/// # plane.deploy_echo("intake").await?;
/// let order = serde_json::json!({"orderId": "A-7"});
/// let call = || plane.call("intake", &order).metadata("shop", "north").idempotency_key("A-7");
/// let first = call().enqueue().await?;
/// assert_eq!(call().enqueue().await?, first, "the same key is the same execution");
/// # Ok(())
/// # }
/// ```
#[must_use = "a call does nothing until it is enqueued or invoked"]
pub struct CallBuilder<'a> {
    plane: &'a Harness,
    function: String,
    input: anyhow::Result<Bytes>,
    metadata: BTreeMap<String, String>,
    key: Option<String>,
    trace_id: Option<Arc<str>>,
    wait: Option<Duration>,
}

impl<'a> CallBuilder<'a> {
    pub(super) fn new(plane: &'a Harness, function: &str, input: &impl Serialize) -> Self {
        let input = serde_json::to_vec(input).context("the input has no JSON form");
        Self::with_bytes(plane, function, input.map(Bytes::from))
    }

    pub(super) fn with_text(plane: &'a Harness, function: &str, input: &str) -> Self {
        let checked = serde_json::from_str::<IgnoredAny>(input)
            .map(|_| Bytes::copy_from_slice(input.as_bytes()))
            .context("the input is not JSON");
        Self::with_bytes(plane, function, checked)
    }

    fn with_bytes(plane: &'a Harness, function: &str, input: anyhow::Result<Bytes>) -> Self {
        Self {
            plane,
            function: function.to_owned(),
            input,
            metadata: BTreeMap::new(),
            key: None,
            trace_id: None,
            wait: None,
        }
    }

    /// Adds a pair of metadata; a name that was there is replaced.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Gives the call a key: a second call with it is the same execution.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Gives the call a trace id.
    pub fn trace_id(mut self, id: &str) -> Self {
        self.trace_id = Some(id.into());
        self
    }

    /// How long (real time) a caller of [`invoke`](Self::invoke) waits, instead of the function's `timeoutMs`.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Queues the call.
    ///
    /// # Errors
    /// The call was refused: the text says why, and which functions there are where the name is none.
    pub async fn enqueue(self) -> anyhow::Result<ExecutionId> {
        let (plane, call) = self.build()?;
        let enqueued = plane.scheduler.enqueue(call).await;
        Ok(enqueued.map_err(|error| plane.explain(error))?.execution.id)
    }

    /// Calls and waits for the end. Where nothing moves by itself, the function is drained meanwhile,
    /// deferred retries and requeues too.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue). A function's own failure and a timeout are results.
    pub async fn invoke(self) -> anyhow::Result<Execution> {
        let (plane, call) = self.build()?;
        plane.invoke_call(call).await
    }

    fn build(self) -> anyhow::Result<(&'a Harness, Call)> {
        let body = self.input?;
        let metadata: Arc<[(String, String)]> = self.metadata.into_iter().collect();
        let key = match self.key {
            Some(key) => Some((key.parse()?, body_hash(&body, &metadata))),
            None => None,
        };
        let call = Call {
            function: parse(&self.function)?,
            input: Input {
                content_type: JSON,
                body,
            },
            metadata,
            trace_id: self.trace_id,
            traceparent: None,
            key,
            wait: self.wait,
            parent: None,
        };
        Ok((self.plane, call))
    }
}
