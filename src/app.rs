//! The composition root: builds a plane out of its parts, serves it, and takes it down in order.
//!
//! A start goes from the inside out: store, runtime, registry, scheduler (which finds all promised work
//! again), API, listeners. A stop goes the other way. What runs beside the calls is in `maintenance`.
//!
//! **Invariant:** the only place that knows which implementation stands behind a trait; decides nothing
//! about calls.

pub mod backup;
pub mod doctor;
mod hooks;
mod listener;
mod maintenance;
mod settings;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use self::listener::Listener;
use crate::api;
use crate::clock::Clock;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::model::Dice;
use crate::observe::Metrics;
use crate::registry::{PlaneCode, Registry};
use crate::runtime::{ChildCompiler, Runtime};
use crate::scheduler::{Parts, PlaneRunner, Scheduler};
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// Time for answers that are ready to reach their clients, once nothing runs any more.
const ANSWERS_GRACE: Duration = Duration::from_secs(5);
/// Time for what is interrupted to end. Guests end within milliseconds; a stop does not hang on the rest.
const INTERRUPTED_GRACE: Duration = Duration::from_secs(10);

/// Which program compiles uploads, as a child process.
#[derive(Debug, Clone)]
pub enum CompilerProgram {
    /// This very program: Pelton's own binary.
    ThisOne,
    /// Pelton's binary of the same build, for those who have the plane as a library.
    At(PathBuf),
}

/// A plane that serves.
pub struct App {
    api: Listener,
    management: Listener,
    scheduler: Scheduler,
    store: Arc<dyn Store>,
    tasks: Tasks,
    runtime: Runtime,
    shutdown_grace: Duration,
}

impl App {
    /// Builds a plane and serves it. When this returns, calls are taken and promised work moves.
    ///
    /// # Errors
    /// The folder is in use or unreadable, an address is taken, or the machine has no room for the runtime.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        Self::start_with(config, CompilerProgram::ThisOne).await
    }

    /// [`App::start`] with another program as the compiler's child.
    ///
    /// # Errors
    /// See [`App::start`].
    pub async fn start_with(config: Config, compiler: CompilerProgram) -> anyhow::Result<Self> {
        Self::start_at(config, compiler, Clock::system()).await
    }

    /// [`App::start_with`] with a clock, which a test may move.
    ///
    /// # Errors
    /// See [`App::start`].
    pub async fn start_at(
        config: Config,
        compiler: CompilerProgram,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let tasks = Tasks::default();
        let store = open_store(&config).await?;
        let started = Self::compose(&config, compiler, clock, Arc::clone(&store), &tasks).await;
        if started.is_err() {
            // What was started so far ends again, and the folder is free for the next one.
            tasks.stop().await;
            if let Err(error) = store.close().await {
                tracing::warn!(%error, "the store did not close in order");
            }
        }
        started
    }

    async fn compose(
        config: &Config,
        compiler: CompilerProgram,
        clock: Clock,
        sqlite: Arc<SqliteStore>,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let store: Arc<dyn Store> = Arc::clone(&sqlite) as _;
        let metrics = Metrics::default();
        let runtime = open_runtime(config, compiler)?;
        let endpoint = Endpoint::new(settings::endpoint(config));
        let code = PlaneCode {
            runtime: runtime.clone(),
            endpoint: endpoint.clone(),
        };
        let registry = Registry::open(
            settings::registry(config),
            Arc::clone(&store),
            Arc::new(code),
            clock.clone(),
            tasks.clone(),
        )
        .await
        .context("cannot read the functions and secrets")?;
        let runner = PlaneRunner {
            runtime: runtime.clone(),
            endpoint,
            vault: registry.vault().clone(),
        };
        let parts = Parts {
            clock: clock.clone(),
            dice: Dice::system(),
            store: Arc::clone(&store),
            registry: registry.clone(),
            runner: hooks::runner(config, runner),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
        };
        let guests_max = runtime.stats().permits_max;
        let scheduler = Scheduler::start(settings::scheduler(config, guests_max), parts)
            .await
            .context("cannot find the work that was promised")?;
        let upkeep = maintenance::Parts {
            clock,
            store: Arc::clone(&sqlite),
            registry: registry.clone(),
            runtime: runtime.clone(),
            scheduler: scheduler.clone(),
            metrics: metrics.clone(),
            retention_ms: settings::retention_ms(config),
            loop_deadline_ms: settings::loop_deadline_ms(config),
        };
        maintenance::start(upkeep, tasks);
        let state = api::State::new(
            registry,
            scheduler.clone(),
            metrics,
            Arc::clone(&store),
            settings::api(config),
        );
        let (api, management) = listen(config, &state, tasks).await?;
        Ok(Self {
            api,
            management,
            scheduler,
            store,
            tasks: tasks.clone(),
            runtime,
            shutdown_grace: settings::shutdown_grace(config),
        })
    }

    /// Where the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.api.addr()
    }

    /// Where health and metrics listen.
    pub fn management_addr(&self) -> SocketAddr {
        self.management.addr()
    }

    /// Returns the cause when the store takes no writes any more; never otherwise.
    pub async fn store_failed(&self) -> Arc<str> {
        self.store.wait_poisoned().await
    }

    /// Stops in order: no new connections and calls → no new claims → running calls get the grace period →
    /// guests are interrupted, to run again after the restart → instances that wait for calls end → the last batch is written, the store closes.
    ///
    /// Dropping the future leaves the rest undone, as a second signal does; nothing that was promised is lost.
    ///
    /// # Errors
    /// The store could not write its last batch.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.api.close();
        let grace = match self.store.poisoned() {
            None => self.shutdown_grace,
            // What runs now could not be recorded: waiting for it helps nobody.
            Some(_) => Duration::ZERO,
        };
        let most = grace.saturating_add(INTERRUPTED_GRACE);
        if tokio::time::timeout(most, self.scheduler.stop(grace))
            .await
            .is_err()
        {
            tracing::warn!(
                "some attempts did not end when they were interrupted; they run again after the restart"
            );
        }
        self.runtime.keep_none();
        if tokio::time::timeout(ANSWERS_GRACE, self.api.closed())
            .await
            .is_err()
        {
            tracing::warn!("some clients did not take their answers in time");
        }
        self.management.close();
        if tokio::time::timeout(INTERRUPTED_GRACE, self.tasks.stop())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end in time");
        }
        self.store
            .close()
            .await
            .context("the store did not close in order")
    }
}

/// The API's listener and the management's.
async fn listen(
    config: &Config,
    state: &Arc<api::State>,
    tasks: &Tasks,
) -> anyhow::Result<(Listener, Listener)> {
    let routes = api::router(Arc::clone(state));
    let bounds = settings::api_bounds(config);
    let api = Listener::open(config.listen, bounds, routes, tasks)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let routes = api::management_router(Arc::clone(state));
    let bounds = settings::management_bounds(config);
    let management = Listener::open(config.management_listen, bounds, routes, tasks)
        .await
        .with_context(|| format!("cannot listen on {}", config.management_listen))?;
    Ok((api, management))
}

async fn open_store(config: &Config) -> anyhow::Result<Arc<SqliteStore>> {
    let options = settings::store(config);
    // Opening reads, and may migrate or wait for the disk: not on a thread that serves.
    let store = tokio::task::spawn_blocking(|| SqliteStore::open(options))
        .await?
        .with_context(|| format!("cannot open the store in {}", config.data_dir.display()))?;
    Ok(Arc::new(store))
}

fn open_runtime(config: &Config, program: CompilerProgram) -> anyhow::Result<Runtime> {
    let options = settings::runtime(config);
    let compiler = match program {
        CompilerProgram::ThisOne => ChildCompiler::of_this_program(&options),
        CompilerProgram::At(path) => ChildCompiler::of_program(path, &options),
    };
    let compiler = compiler.context("cannot prepare the compiler")?;
    Ok(Runtime::open(&options, Arc::new(compiler))?)
}
