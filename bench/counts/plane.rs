//! A whole plane in this process, without sockets, on one thread beside the store's own.
//!
//! **Invariant:** what it does depends on neither clock nor chance, as far as they are parameters: time stands still
//! and the dice are seeded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::{BoxFuture, poll_immediate};
use http_body_util::BodyExt as _;
use pelton::clock::Clock;
use pelton::endpoint::Endpoint;
use pelton::model::{Dice, FunctionName, Timestamp};
use pelton::observe::Metrics;
use pelton::registry::{PlaneCode, Registry};
use pelton::runtime::{self, InProcessCompiler, Runtime, Slots, Wipe};
use pelton::scheduler::{self, Parts, PlaneRunner, Scheduler};
use pelton::shutdown::Tasks;
use pelton::store::Store;
use pelton::store::sqlite::{self, SqliteStore, Stats};
use pelton::{api, endpoint, registry};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::gate::Gate;
use crate::{Job, Tool};

/// Where the plane's time stands, in ms since 1970.
const NOW: Timestamp = Timestamp(1_764_000_000_000);
/// Calls of a function at once and in its queue: more than any phase makes.
const CALLS_MAX: u32 = 10_000;
/// Few looks, because they are counted too.
const WRITER_LOOKED_AT_EVERY: Duration = Duration::from_millis(50);

/// Whether work runs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    ByItself,
    ByHand,
}

/// See the module.
pub(crate) struct Plane {
    router: BoxCloneSyncService<Request<Body>, Response, Infallible>,
    scheduler: Scheduler,
    store: Arc<SqliteStore>,
    gate: Arc<Gate>,
}

/// The store's writer stands still, and this is what it was stopped with.
pub(crate) struct Held<'p> {
    plane: &'p Plane,
    errand: BoxFuture<'p, Result<()>>,
}

impl Plane {
    /// A plane of its own, on an empty folder; only compiled code is left of others.
    pub(crate) async fn start(job: &Job, work: Work, name: &str) -> Result<Self> {
        let options = runtime::Options {
            slots: match job.tool {
                Tool::None | Tool::Callgrind => Slots::OnDemand,
                Tool::Strace => Slots::Pool,
            },
            ..runtime::Options::new(job.folder.join("code"))
        };
        let runtime = Runtime::open(&options, Arc::new(InProcessCompiler::new()?))?;
        let wipe = runtime.stats().pool.wipe;
        ensure!(
            job.tool != Tool::Strace || wipe == Wipe::TouchedPages,
            "the pool wipes {wipe} on this machine: its system calls are others than those that have bounds"
        );
        let folder = job.folder.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let gate = Arc::new(Gate::default());
        let store = Arc::new(SqliteStore::open(sqlite::Options {
            faults: Some(Arc::<Gate>::clone(&gate)),
            ..sqlite::Options::new(folder)
        })?);
        let (router, scheduler) = wire(runtime, &store, work).await?;
        Ok(Self {
            router,
            scheduler,
            store,
            gate,
        })
    }

    /// The answer to a request.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(u16, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:8080")
            .header("content-type", content_type)
            .header("content-length", body.len())
            .body(Body::from(body))?;
        let answer = self.router.clone().oneshot(request).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    pub(crate) async fn deploy(&self, name: &str, wasm: Vec<u8>) -> Result<()> {
        let path = format!("/v1/functions/{name}");
        let put = self.ask("PUT", &path, "application/wasm", wasm.into());
        let (status, body) = put.await?;
        ensure!(status == 201, "{status} {body:?}");
        let spec = format!("{{\"concurrency\": {CALLS_MAX}, \"queueSize\": {CALLS_MAX}}}");
        let patch = self.ask("PATCH", &path, "application/json", spec.into());
        let (status, body) = patch.await?;
        ensure!(status == 200, "{status} {body:?}");
        Ok(())
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    pub(crate) fn stats(&self) -> Stats {
        self.store.stats()
    }

    /// Returns when all that ended is on disk.
    pub(crate) async fn flush(&self) -> Result<()> {
        Ok(self.store.flush().await?)
    }

    /// Stops the store's writer once everything before is on disk: what is handed to it from here on shares a commit.
    pub(crate) async fn hold(&self) -> Result<Held<'_>> {
        self.flush().await?;
        self.gate.shut();
        // Something to commit that changes nothing.
        let nobody = "NOBODY".parse()?;
        let store = Arc::clone(&self.store);
        let mut errand: BoxFuture<'_, Result<()>> = Box::pin(async move {
            store.delete_secret(&nobody).await?;
            Ok(())
        });
        let done = poll_immediate(&mut errand).await;
        ensure!(done.is_none(), "the writer did not stop");
        self.gate.wait_reached();
        Ok(Held {
            plane: self,
            errand,
        })
    }
}

impl Held<'_> {
    /// Lets the writer go on, and keeps this thread from running until it has answered everybody: who wakes whom
    /// would be another matter in every run.
    pub(crate) async fn release(self) -> Result<()> {
        self.plane.gate.open();
        while self.plane.stats().writing_us > 0 {
            std::thread::sleep(WRITER_LOOKED_AT_EVERY);
        }
        self.errand.await
    }
}

async fn wire(
    runtime: Runtime,
    store: &Arc<SqliteStore>,
    work: Work,
) -> Result<(
    BoxCloneSyncService<Request<Body>, Response, Infallible>,
    Scheduler,
)> {
    let store: Arc<dyn Store> = Arc::<SqliteStore>::clone(store);
    let clock = Clock::manual(NOW);
    let (tasks, metrics) = (Tasks::default(), Metrics::default());
    let endpoint = Endpoint::new(endpoint::Options::default());
    let registry = Registry::open(
        registry::Options::default(),
        Arc::clone(&store),
        Arc::new(PlaneCode {
            runtime: runtime.clone(),
            endpoint: endpoint.clone(),
        }),
        clock.clone(),
        tasks.clone(),
    )
    .await?;
    let parts = Parts {
        clock,
        dice: Dice::seeded(1),
        store: Arc::clone(&store),
        registry: registry.clone(),
        runner: Arc::new(PlaneRunner {
            runtime,
            endpoint,
            vault: registry.vault().clone(),
        }),
        metrics: metrics.clone(),
        tasks,
    };
    let options = scheduler::Options {
        manual: work == Work::ByHand,
        guests_max: CALLS_MAX,
        ..scheduler::Options::default()
    };
    let scheduler = Scheduler::start(options, parts).await?;
    let state = api::State::new(
        registry,
        scheduler.clone(),
        metrics,
        store,
        api::Options::default(),
    );
    Ok((BoxCloneSyncService::new(api::router(state)), scheduler))
}

/// The name of a function of ours.
pub(crate) fn function(name: &str) -> Result<FunctionName> {
    name.parse().context("no name of a function")
}
