//! A plane in process that does each thing a set number of times, for tools that count: instructions under
//! callgrind, system calls under strace.
//!
//! One thread runs everything but the store's writer; nothing waits for the clock. Each phase ends with a
//! call of a function of its own name, at which callgrind writes down what it has counted since the last.

use std::convert::Infallible;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use clap::Parser as _;
use http_body_util::BodyExt as _;
use pelton::clock::Clock;
use pelton::endpoint::Endpoint;
use pelton::model::Dice;
use pelton::observe::Metrics;
use pelton::registry::{PlaneCode, Registry};
use pelton::runtime::{self, InProcessCompiler, Runtime};
use pelton::scheduler::{self, Parts, PlaneRunner, Scheduler};
use pelton::shutdown::Tasks;
use pelton::store::Store;
use pelton::store::sqlite::{self, SqliteStore};
use pelton::{api, endpoint, registry};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

mod payload;

#[derive(Debug, clap::Parser)]
struct Args {
    /// Folder with what an earlier run has compiled
    #[arg(long)]
    dir: PathBuf,
    /// The echo function
    #[arg(long)]
    wasm: PathBuf,
    #[arg(long, default_value_t = 200)]
    calls: u32,
    #[arg(long)]
    pool: bool,
    #[arg(long)]
    bench: bool,
}

#[inline(never)]
fn phase_begins() {
    black_box(1_u32);
}

#[inline(never)]
fn phase_typed_call() {
    black_box(2_u32);
}

#[inline(never)]
fn phase_accept() {
    black_box(3_u32);
}

#[inline(never)]
fn phase_run() {
    black_box(4_u32);
}

#[inline(never)]
fn phase_end() {
    black_box(5_u32);
}

struct Plane {
    router: BoxCloneSyncService<Request<Body>, Response, Infallible>,
    scheduler: Scheduler,
    store: Arc<dyn Store>,
}

async fn plane(args: &Args, manual: bool, name: &str) -> Result<Plane> {
    let runtime = runtime::Options {
        guests_max: 1,
        slots: if args.pool {
            runtime::Slots::Pool
        } else {
            runtime::Slots::OnDemand
        },
        ..runtime::Options::new(args.dir.join("code"))
    };
    let runtime = Runtime::open(&runtime, Arc::new(InProcessCompiler::new()?))?;
    let data = args.dir.join(name);
    let _ = std::fs::remove_dir_all(&data);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(sqlite::Options::new(data))?);
    let (clock, tasks, metrics) = (Clock::system(), Tasks::default(), Metrics::default());
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
        dice: Dice::system(),
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
        manual,
        ..scheduler::Options::default()
    };
    let scheduler = Scheduler::start(options, parts).await?;
    let state = api::State::new(
        registry,
        scheduler.clone(),
        metrics,
        Arc::clone(&store),
        api::Options::default(),
    );
    Ok(Plane {
        router: BoxCloneSyncService::new(api::router(state)),
        scheduler,
        store,
    })
}

impl Plane {
    async fn send(
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

    async fn deploy(&self, wasm: &[u8]) -> Result<()> {
        let (status, body) = self
            .send(
                "PUT",
                "/v1/functions/echo",
                "application/wasm",
                Bytes::copy_from_slice(wasm),
            )
            .await?;
        ensure!(status == 201, "{status} {body:?}");
        let spec = Bytes::from_static(b"{\"concurrency\": 64, \"queueSize\": 100000}");
        let (status, _) = self
            .send("PATCH", "/v1/functions/echo", "application/json", spec)
            .await?;
        ensure!(status == 200);
        Ok(())
    }

    async fn post(&self, path: &str, call: &Bytes, expected: u16) -> Result<()> {
        let (status, body) = self
            .send("POST", path, "application/json", call.clone())
            .await?;
        ensure!(status == expected, "{status} {body:?}");
        Ok(())
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(count(&args))
}

async fn count(args: &Args) -> Result<()> {
    let wasm = std::fs::read(&args.wasm).context("no wasm")?;
    let call = Bytes::from(payload::call().to_string());
    let plane1 = plane(args, false, "sync").await?;
    plane1.deploy(&wasm).await?;
    for _ in 0..20 {
        plane1.post("/v1/functions/echo:invoke", &call, 200).await?;
    }
    plane1.store.flush().await?;
    phase_begins();
    for _ in 0..args.calls {
        plane1.post("/v1/functions/echo:invoke", &call, 200).await?;
    }
    plane1.store.flush().await?;
    phase_typed_call();
    drop(plane1);
    let plane2 = plane(args, true, "durable").await?;
    plane2.deploy(&wasm).await?;
    phase_begins();
    let accepts = (0..args.calls).map(|_| plane2.post("/v1/functions/echo:enqueue", &call, 202));
    for accepted in futures_util::future::join_all(accepts).await {
        accepted?;
    }
    phase_accept();
    let name = "echo".parse()?;
    for _ in 0..args.calls {
        let handle = plane2
            .scheduler
            .tick_once(&name)?
            .context("nothing to do")?;
        handle.await?;
    }
    phase_run();
    phase_end();
    Ok(())
}
