//! The harness: the real plane in process, for tests of functions and of services that use them.
//!
//! Same scheduler, same state machine, same runtime and limits as `pelton serve`; no socket, a clock that
//! stands still until it is moved, and work that moves when it is drained (or by itself, if asked for).
//!
//! ```no_run
//! use pelton::testing::Harness;
//!
//! # async fn example() -> anyhow::Result<()> {
//! let plane = Harness::start().await?;
//! plane.deploy("greet", std::fs::read("greet.wasm")?).await?;
//! let id = plane.enqueue("greet", r#"{"name": "Ada"}"#).await?;
//! assert_eq!(plane.drain_once("greet").await?.unwrap().status.as_str(), "success");
//! assert_eq!(plane.output_json(id).await?, serde_json::json!("Hello, Ada"));
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** nothing here decides anything: every method is a call of the plane that a server has.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;

use crate::clock::Clock;
use crate::endpoint::{self, Endpoint, Loopback};
use crate::model::{ExecutionId, FunctionName, Input, JSON, Spec, Timestamp};
use crate::observe::Metrics;
use crate::registry::{self, Deployed, Function, PlaneCode, Registry};
use crate::runtime::{self, InProcessCompiler, Runtime};
use crate::scheduler::{
    self, Call, DrainOptions, Drained, Finalized, Invoked, Parts, PlaneRunner, Scheduler,
};
use crate::shutdown::Tasks;
use crate::store::memory::{Disk, MemoryStore};
use crate::store::sqlite::{self, SqliteStore, Synchronous};
use crate::store::{ExecutionRecord, Store};

/// 2026-01-01T00:00:00Z, where every harness's clock starts unless told otherwise.
pub const START: Timestamp = Timestamp(1_767_225_600_000);

/// Who moves work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Movement {
    /// Nothing runs unless it is drained.
    #[default]
    Drained,
    /// The scheduler runs work as soon as it is ready, as a server does.
    Background,
}

/// Where the harness keeps what is durable.
#[derive(Clone, Default)]
pub enum Home {
    /// In memory; gone with the harness.
    #[default]
    Memory,
    /// On a disk in memory that outlives the harness: starting again on it is a restart. Uploaded code is
    /// not on that disk but in the runtime: keep one in [`Setup::runtime`] over the restart.
    Disk(Disk),
    /// The embedded database in this folder, not synced: it survives the harness, not the machine. The code
    /// lies beside it.
    Folder(std::path::PathBuf),
    /// A store of the tester's own: one that fails or stalls, or one that is looked into. As with a disk, the
    /// code is elsewhere.
    Store(Arc<dyn Store>),
}

/// How a harness is set up.
#[derive(Clone)]
pub struct Setup {
    /// Who moves work.
    pub movement: Movement,
    /// Where things are kept.
    pub home: Home,
    /// The plane's clock.
    pub clock: Clock,
    /// The scheduler's settings; `manual` is set from `movement`.
    pub scheduler: scheduler::Options,
    /// The settings of the registry of functions.
    pub registry: registry::Options,
    /// The settings of calls to services behind a URL.
    pub endpoint: endpoint::Options,
    /// A runtime to use instead of the one that all harnesses of a process share.
    pub runtime: Option<Runtime>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            movement: Movement::Drained,
            home: Home::Memory,
            clock: Clock::manual(START),
            scheduler: scheduler::Options::default(),
            registry: registry::Options::default(),
            endpoint: endpoint::Options {
                loopback: Loopback::Allowed,
                ..endpoint::Options::default()
            },
            runtime: None,
        }
    }
}

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
        let (runtime, shared) = match (setup.runtime, &setup.home) {
            (Some(runtime), _) => (runtime, None),
            (None, Home::Folder(dir)) => (open_runtime(&dir.join("code"))?, None),
            (None, Home::Memory | Home::Disk(_) | Home::Store(_)) => {
                let shared = SharedRuntime::get()?;
                (shared.runtime.clone(), Some(shared))
            }
        };
        let store = open_store(setup.home).await?;
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
            store: Arc::clone(&store),
            registry: registry.clone(),
            runner: Arc::new(PlaneRunner { runtime, endpoint }),
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
            tasks,
            _shared: shared,
        })
    }

    /// Deploys wasm under a name; the spec stays, or is the default one.
    ///
    /// # Errors
    /// The wasm was refused; the text says why.
    pub async fn deploy(&self, name: &str, wasm: impl Into<Bytes>) -> anyhow::Result<Deployed> {
        Ok(self
            .registry
            .deploy(&parse(name)?, wasm.into(), None)
            .await?)
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
        Ok(self
            .registry
            .deploy(&parse(name)?, wasm.into(), Some(edit))
            .await?)
    }

    /// Creates a function from a spec alone: `builtin:echo`, or a service behind a URL.
    ///
    /// # Errors
    /// The spec was refused.
    pub async fn create(&self, name: &str, spec: Spec) -> anyhow::Result<Arc<Function>> {
        Ok(self.registry.create(&parse(name)?, spec).await?)
    }

    /// Calls a function with JSON input and waits. Where work is drained by hand, somebody else has to
    /// drain meanwhile: see [`Harness::invoke_draining`].
    ///
    /// # Errors
    /// The call was refused. A function's own failure is a result.
    pub async fn invoke(&self, name: &str, input: &str) -> anyhow::Result<Arc<ExecutionRecord>> {
        let invoked: Invoked = self.scheduler.invoke(json_call(name, input)?).await?;
        Ok(invoked.execution)
    }

    /// Calls a function with JSON input and drains it until the call has its answer.
    ///
    /// # Errors
    /// As [`Harness::invoke`].
    pub async fn invoke_draining(
        &self,
        name: &str,
        input: &str,
    ) -> anyhow::Result<Arc<ExecutionRecord>> {
        let function = parse(name)?;
        let call = self.scheduler.invoke(json_call(name, input)?);
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return Ok(answer?.execution),
                drained = self.scheduler.drain(&function, DrainOptions::default()) => {
                    drained?;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Queues a call with JSON input.
    ///
    /// # Errors
    /// The call was refused.
    pub async fn enqueue(&self, name: &str, input: &str) -> anyhow::Result<ExecutionId> {
        let enqueued = self.scheduler.enqueue(json_call(name, input)?).await?;
        Ok(enqueued.execution.id)
    }

    /// Dispatches the next execution of a function, deferred ones too, and waits until it is recorded.
    /// `None`: there was nothing to run.
    ///
    /// # Errors
    /// There is no such function.
    pub async fn drain_once(&self, name: &str) -> anyhow::Result<Option<Finalized>> {
        let drained = self.drain(name, DrainOptions::default()).await?;
        Ok(drained.items.first().copied())
    }

    /// Dispatches by hand; see [`DrainOptions`].
    ///
    /// # Errors
    /// There is no such function.
    pub async fn drain(&self, name: &str, options: DrainOptions) -> anyhow::Result<Drained> {
        Ok(self.scheduler.drain(&parse(name)?, options).await?)
    }

    /// One execution, as it stands.
    ///
    /// # Errors
    /// There is no such execution.
    pub async fn execution(&self, id: ExecutionId) -> anyhow::Result<Arc<ExecutionRecord>> {
        let found = self.scheduler.execution(id).await?;
        found.ok_or_else(|| anyhow!("there is no execution {id}"))
    }

    /// The output of an execution as JSON.
    ///
    /// # Errors
    /// It has none, or none that is JSON; the text says how the execution stands.
    pub async fn output_json(&self, id: ExecutionId) -> anyhow::Result<serde_json::Value> {
        let execution = self.execution(id).await?;
        let output = execution.output.as_ref().with_context(|| {
            format!(
                "execution {id} has no output: it is {:?}",
                execution.execution.state
            )
        })?;
        serde_json::from_slice(&output.body).context("the output is not JSON")
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
}

/// A call with JSON input and nothing else.
///
/// # Errors
/// The name or the input is none.
pub fn json_call(name: &str, input: &str) -> anyhow::Result<Call> {
    serde_json::from_str::<serde::de::IgnoredAny>(input).context("the input is not JSON")?;
    Ok(Call {
        function: parse(name)?,
        input: Input {
            content_type: JSON,
            body: Bytes::copy_from_slice(input.as_bytes()),
        },
        metadata: Arc::from([]),
        trace_id: None,
        traceparent: None,
        key: None,
        wait: None,
        parent: None,
    })
}

fn parse(name: &str) -> anyhow::Result<FunctionName> {
    name.parse()
        .with_context(|| format!("{name:?} is no function's name"))
}

async fn open_store(home: Home) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match home {
        Home::Memory => Arc::new(MemoryStore::open(&Disk::default())),
        Home::Disk(disk) => Arc::new(MemoryStore::open(&disk)),
        Home::Store(store) => store,
        Home::Folder(dir) => {
            let options = sqlite::Options {
                synchronous: Synchronous::Off,
                ..sqlite::Options::new(dir)
            };
            Arc::new(SqliteStore::open(options)?)
        }
    })
}

/// One runtime for all harnesses of a process: its pool of instances is the expensive part.
struct SharedRuntime {
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

static SHARED: Mutex<Weak<SharedRuntime>> = Mutex::new(Weak::new());

impl SharedRuntime {
    fn get() -> anyhow::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = shared.upgrade() {
            return Ok(there);
        }
        let dir = tempfile::tempdir().context("no temporary folder for compiled code")?;
        let made = Arc::new(Self {
            runtime: open_runtime(dir.path())?,
            _dir: dir,
        });
        *shared = Arc::downgrade(&made);
        Ok(made)
    }
}

/// A runtime that compiles in this process, for code that the tester trusts.
///
/// # Errors
/// The folder or the machine does not do.
pub fn open_runtime(code_dir: &Path) -> anyhow::Result<Runtime> {
    let compiler = InProcessCompiler::new()?;
    Ok(Runtime::open(
        &runtime::Options::new(code_dir),
        Arc::new(compiler),
    )?)
}
