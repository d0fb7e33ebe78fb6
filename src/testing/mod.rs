//! The harness: the real plane in process, for tests of functions and of services that use them.
//!
//! Same scheduler, same state machine, same runtime and limits as `pelton serve`; no socket, a clock that
//! stands still until it is moved, and work that moves when it is drained (or by itself, if asked for:
//! [`Movement`]). A plane in memory is there in milliseconds, so each test has its own.
//!
//! ```no_run
//! use pelton::testing::Harness;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! let plane = Harness::start().await?;
//! plane.deploy_file("greet", "target/wasm32-wasip2/release/greet.wasm").await?;
//! let greeted = plane.invoke("greet", r#"{"name": "Ada"}"#).await?;
//! greeted.assert_success();
//! assert_eq!(greeted.output_json(), "Hello, Ada");
//! # Ok(())
//! # }
//! ```
//!
//! What is queued waits until the test says so, and is recorded when the drain answers:
//!
//! ```
//! use std::time::Duration;
//! use pelton::testing::Harness;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! let plane = Harness::start().await?;
//! plane.deploy_echo("echo").await?; // answers its input: a stand-in that needs no wasm
//! let order = serde_json::json!({"orderId": "A-7"});
//! let id = plane.call("echo", &order).idempotency_key("A-7").enqueue().await?;
//! plane.drain_for("echo", Duration::from_secs(60)).await?;
//! let execution = plane.execution(id).await?;
//! execution.assert_success().assert_attempts(1);
//! assert_eq!(execution.output_json(), order);
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** nothing here decides anything: every method is a call of the plane that a server has.

mod call;
mod drain;
mod execution;
mod setup;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use serde::Serialize;

pub use crate::scheduler::{DrainOptions, Drained};
pub use call::CallBuilder;
pub use execution::Execution;
pub use setup::{Home, Movement, START, Setup, open_runtime};

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::model::{Dice, ExecutionId, FunctionName, LogLine, Spec};
use crate::observe::Metrics;
use crate::registry::{self, Deployed, Function, PlaneCode, Registry};
use crate::scheduler::{self, Call, CallError, Parts, PlaneRunner, Scheduler};
use crate::shutdown::Tasks;
use crate::store::Store;
use setup::SharedRuntime;

/// A plane in process.
pub struct Harness {
    /// Functions.
    pub registry: Registry,
    /// Calls and executions.
    pub scheduler: Scheduler,
    /// Figures.
    pub metrics: Metrics,
    /// Time; [`Harness::advance`] moves it.
    pub clock: Clock,
    /// What is durable.
    pub store: Arc<dyn Store>,
    movement: Movement,
    tasks: Tasks,
    _shared: Option<Arc<SharedRuntime>>,
}

impl Harness {
    /// A plane in memory whose work moves by draining.
    ///
    /// # Errors
    /// The runtime cannot be set up on this machine; the text says why.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(Setup::default()).await
    }

    /// A plane with this setup.
    ///
    /// # Errors
    /// As [`Harness::start`]; and a folder that cannot be used.
    pub async fn with(setup: Setup) -> anyhow::Result<Self> {
        let (runtime, shared) = setup::runtime_of(setup.runtime, &setup.home, setup.reuse_calls)?;
        let store = setup::open_store(setup.home)?;
        let tasks = Tasks::default();
        let endpoint = Endpoint::new(setup.endpoint);
        let metrics = Metrics::new(1_000);
        let registry = Registry::open(
            setup.registry,
            Arc::clone(&store),
            Arc::new(PlaneCode {
                runtime: runtime.clone(),
                endpoint: endpoint.clone(),
            }),
            setup.clock.clone(),
            tasks.clone(),
        )
        .await?;
        let options = scheduler::Options {
            manual: setup.movement == Movement::Drained,
            ..setup.scheduler
        };
        let parts = Parts {
            clock: setup.clock.clone(),
            dice: Dice::system(),
            store: Arc::clone(&store),
            registry: registry.clone(),
            runner: Arc::new(PlaneRunner {
                runtime,
                endpoint,
                vault: registry.vault().clone(),
            }),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
        };
        let scheduler = Scheduler::start(options, parts).await?;
        Ok(Self {
            registry,
            scheduler,
            metrics,
            clock: setup.clock,
            store,
            movement: setup.movement,
            tasks,
            _shared: shared,
        })
    }

    /// Deploys wasm under a name; the spec stays, or is the default one.
    ///
    /// # Errors
    /// The wasm was refused; the text says why.
    pub async fn deploy(&self, name: &str, wasm: impl Into<Bytes>) -> anyhow::Result<Deployed> {
        let name = parse(name)?;
        let deployed = self.registry.deploy(&name, wasm.into(), None).await;
        deployed.map_err(listed)
    }

    /// Deploys the wasm of a file.
    ///
    /// # Errors
    /// The file cannot be read, or its wasm was refused.
    pub async fn deploy_file(
        &self,
        name: &str,
        path: impl AsRef<Path>,
    ) -> anyhow::Result<Deployed> {
        let path = path.as_ref();
        let wasm = tokio::fs::read(path).await;
        let wasm = wasm.with_context(|| format!("cannot read {}", path.display()))?;
        self.deploy(name, wasm).await
    }

    /// Deploys wasm with a changed spec.
    ///
    /// # Errors
    /// The wasm or the spec was refused.
    pub async fn deploy_with(
        &self,
        name: &str,
        wasm: impl Into<Bytes>,
        edit: impl FnOnce(&mut Spec) + Send + 'static,
    ) -> anyhow::Result<Deployed> {
        let edit: registry::SpecEdit = Box::new(move |standing| {
            let mut spec = standing.clone();
            edit(&mut spec);
            Ok(spec)
        });
        let name = parse(name)?;
        let deployed = self.registry.deploy(&name, wasm.into(), Some(edit)).await;
        deployed.map_err(listed)
    }

    /// Creates a function that answers its input, as it was sent: a stand-in that needs no wasm.
    ///
    /// # Errors
    /// The name is taken, or none.
    pub async fn deploy_echo(&self, name: &str) -> anyhow::Result<Arc<Function>> {
        let mut spec = Spec::default();
        spec.version.image = Some("builtin:echo".to_owned());
        self.create(name, spec).await
    }

    /// Creates a function whose attempts are POSTed to a service, `{"input", "metadata"}`: one that the test
    /// itself listens with, on loopback, or one that is being developed.
    ///
    /// # Errors
    /// The name is taken, or none; the URL is none, or leads into a private network.
    pub async fn deploy_url(&self, name: &str, url: &str) -> anyhow::Result<Arc<Function>> {
        let mut spec = Spec::default();
        spec.version.endpoint_url = Some(url.to_owned());
        self.create(name, spec).await
    }

    /// Creates a function from a spec alone.
    ///
    /// # Errors
    /// The spec was refused.
    pub async fn create(&self, name: &str, spec: Spec) -> anyhow::Result<Arc<Function>> {
        let created = self.registry.create(&parse(name)?, spec).await;
        created.map_err(listed)
    }

    /// A call with any `serde` value as its input, to be enqueued or invoked; [`CallBuilder`] has what else
    /// it may say.
    pub fn call(&self, name: &str, input: &impl Serialize) -> CallBuilder<'_> {
        CallBuilder::new(self, name, input)
    }

    /// Calls a function with JSON input and waits for the end. Where nothing moves by itself, the function
    /// is drained meanwhile, deferred retries and requeues too.
    ///
    /// # Errors
    /// The call was refused. A function's own failure is a result.
    pub async fn invoke(&self, name: &str, input: &str) -> anyhow::Result<Execution> {
        CallBuilder::with_text(self, name, input).invoke().await
    }

    /// Queues a call with JSON input.
    ///
    /// # Errors
    /// The call was refused.
    pub async fn enqueue(&self, name: &str, input: &str) -> anyhow::Result<ExecutionId> {
        CallBuilder::with_text(self, name, input).enqueue().await
    }

    /// One execution, as it stands.
    ///
    /// # Errors
    /// There is no such execution.
    pub async fn execution(&self, id: ExecutionId) -> anyhow::Result<Execution> {
        let found = self.scheduler.execution(id).await?;
        let record = found.ok_or_else(|| anyhow!("there is no execution {id}"))?;
        Ok(Execution::new(record, self.scheduler.attempts(id).await?))
    }

    /// The output of an execution as JSON.
    ///
    /// # Errors
    /// It has none, or none that is JSON; the text says how the execution stands.
    pub async fn output_json(&self, id: ExecutionId) -> anyhow::Result<serde_json::Value> {
        let execution = self.execution(id).await?;
        let output = execution.output.as_ref();
        let output = output.with_context(|| format!("there is no output: {execution}"))?;
        serde_json::from_slice(&output.body).context("the output is not JSON")
    }

    /// What all runs of an execution wrote, oldest first.
    ///
    /// # Errors
    /// There is no such execution.
    pub async fn logs(&self, id: ExecutionId) -> anyhow::Result<Vec<LogLine>> {
        let execution = self.execution(id).await?;
        let lines = execution.runs().iter().flat_map(|run| &run.logs.lines);
        Ok(lines.cloned().collect())
    }

    /// Moves the plane's clock; deferred work comes due.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Stops in order: running attempts get `grace`, what is promised is on disk afterwards.
    ///
    /// # Errors
    /// The store could not be closed.
    pub async fn stop(self, grace: Duration) -> anyhow::Result<()> {
        self.scheduler.stop(grace).await;
        self.tasks.stop().await;
        Ok(self.store.close().await?)
    }

    async fn invoke_call(&self, call: Call) -> anyhow::Result<Execution> {
        let function = call.function.clone();
        let answer = self.scheduler.invoke(call);
        tokio::pin!(answer);
        let drains = self.movement == Movement::Drained;
        let invoked = loop {
            tokio::select! {
                biased;
                invoked = &mut answer => break invoked,
                drained = self.scheduler.drain(&function, DrainOptions::default()), if drains => {
                    drained.map_err(|error| self.explain(error))?;
                    tokio::task::yield_now().await;
                }
            }
        };
        let record = invoked.map_err(|error| self.explain(error))?.execution;
        let runs = self.scheduler.attempts(record.id).await?;
        Ok(Execution::new(record, runs))
    }

    /// An error in words that help a tester: an unknown function is told with those that there are.
    fn explain(&self, error: CallError) -> anyhow::Error {
        if !matches!(error, CallError::UnknownFunction(_)) {
            return error.into();
        }
        let all = self.registry.list();
        let names: Vec<&str> = all.iter().map(|function| function.name.as_str()).collect();
        let known = match names.as_slice() {
            [] => "nothing is deployed".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        anyhow::Error::new(error).context(known)
    }
}

/// A refusal with all complaints about the spec in its text.
fn listed(error: registry::Error) -> anyhow::Error {
    if let registry::Error::Invalid(complaints) = &error {
        let complaints = complaints.join("; ");
        return anyhow::Error::new(error).context(complaints);
    }
    error.into()
}

fn parse(name: &str) -> anyhow::Result<FunctionName> {
    name.parse()
        .with_context(|| format!("{name:?} is no function's name"))
}

/// The examples of the page on testing compile, and run where they need no wasm.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
struct Page;
