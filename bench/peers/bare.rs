//! A loop over wasmtime and nothing around it: a fresh store and instance for each call, on one thread or more.
//!
//! What it leaves out is what Pelton adds to a guest: HTTP, limits, outcomes, records.
//!
//! **Invariant:** the first answer is compared with what is expected; every later one is at least an answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};

use self::bindings::{Function, FunctionPre};
use crate::machine::{Used, Watch};

/// The typed world of `wit/pelton.wit`, as Pelton's own host has it.
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "function",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use self::bindings::pelton::function::types as typed;

/// Calls that are made before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// An epoch that never comes.
const NEVER: u64 = 1 << 60;

/// What to do; by way of the command line, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) component: PathBuf,
    pub(crate) world: World,
    pub(crate) settings: Settings,
    pub(crate) threads: u32,
    pub(crate) load_ms: u64,
    /// The JSON that goes in.
    pub(crate) input: Value,
    /// The JSON that comes out has all this in it.
    pub(crate) expected: Value,
}

/// What the component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum World {
    /// The handler of `wit/pelton.wit`
    Typed,
    /// `wasi:http/incoming-handler@0.2`
    Web,
}

/// How the engine is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Settings {
    /// As Pelton sets up its own
    Pelton,
    /// The fastest that is known for small guests, without the means to stop one
    Fastest,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Looped {
    pub(crate) calls: u64,
    pub(crate) used: Used,
    /// Time of the middle call, in ms; none if calls were not timed.
    pub(crate) p50_ms: Option<f64>,
}

impl Looped {
    /// Starts this program in a role with a job, and waits for what it says.
    pub(crate) fn of<J: Serialize>(role: &str, job: &J) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let output = Command::new(own)
            .args(["--role", role, "--job"])
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{role}: {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// CPU time in µs per call.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.used.server_s * 1e6 / self.count()
    }

    /// Calls per second.
    pub(crate) fn rate(&self) -> f64 {
        self.count() / self.used.elapsed_s
    }

    #[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 calls")]
    fn count(&self) -> f64 {
        self.calls as f64
    }

    /// Says it to whoever started this.
    #[expect(clippy::print_stdout, reason = "the other process reads it there")]
    pub(crate) fn tell(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The role.
pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let engine = Engine::new(&job.settings.config())?;
    let component = load(&engine, &job)?;
    let guest = Arc::new(Guest::new(&engine, &component, &job)?);
    let gate = Arc::new(Barrier::new(usize::try_from(job.threads)? + 1));
    let time = Duration::from_millis(job.load_ms);
    let threads: Vec<_> = (0..job.threads)
        .map(|_| {
            let (guest, gate) = (Arc::clone(&guest), Arc::clone(&gate));
            let expected = job.expected.clone();
            std::thread::spawn(move || one_after_the_other(&guest, &gate, time, &expected))
        })
        .collect();
    gate.wait();
    let watch = Watch::before_start()?;
    let mut calls = 0;
    for thread in threads {
        calls += thread.join().expect("no call panics")?;
    }
    let used = watch.end_of_own()?;
    let looped = Looped {
        calls,
        used,
        p50_ms: None,
    };
    looped.tell()
}

/// Calls until the time is over; how often.
fn one_after_the_other(
    guest: &Guest,
    gate: &Barrier,
    time: Duration,
    expected: &Value,
) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Whatever comes of it, the others wait at the gate.
        let warmed_up = guest.warm_up(expected).await;
        gate.wait();
        warmed_up?;
        let began = Instant::now();
        let mut calls = 0;
        while began.elapsed() < time {
            guest.call().await?;
            calls += 1;
        }
        Ok(calls)
    })
}

fn check(answer: &[u8], expected: &Value) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)
        .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(answer)))?;
    ensure!(has(&answer, expected), "{answer} instead of {expected}");
    Ok(())
}

/// Whether a value is what is expected, or an object with all that is expected in it.
pub(crate) fn has(value: &Value, expected: &Value) -> bool {
    match expected.as_object() {
        Some(members) => members
            .iter()
            .all(|(name, member)| value.get(name) == Some(member)),
        None => value == expected,
    }
}

impl Settings {
    fn config(self) -> Config {
        let mut pool = PoolingAllocationConfig::new();
        let mut config = Config::new();
        config.concurrency_support(false).memory_init_cow(true);
        match self {
            Self::Pelton => {
                const KEEP_RESIDENT_BYTES: usize = 64 << 10;
                const KEEP_RESIDENT_TOUCHED_BYTES: usize = 1 << 20;
                const SLOTS: u32 = 288;
                pool.total_component_instances(SLOTS)
                    .total_core_instances(SLOTS * 100)
                    .total_memories(SLOTS * 2)
                    .total_tables(SLOTS * 8)
                    .total_stacks(SLOTS)
                    .max_core_instances_per_component(100)
                    .max_memories_per_component(20)
                    .max_tables_per_component(50)
                    .max_component_instance_size(16 << 20)
                    .max_core_instance_size(16 << 20)
                    .max_memory_size(4 << 30)
                    .table_elements(100_000)
                    .linear_memory_keep_resident(KEEP_RESIDENT_TOUCHED_BYTES)
                    .table_keep_resident(KEEP_RESIDENT_BYTES)
                    .async_stack_keep_resident(KEEP_RESIDENT_BYTES)
                    .max_unused_warm_slots(64)
                    .decommit_batch_size(1);
                config
                    .epoch_interruption(true)
                    .max_wasm_stack(1 << 20)
                    .async_stack_size(2 << 20);
            }
            Self::Fastest => {
                pool.table_elements(2_000)
                    .linear_memory_keep_resident(1 << 20)
                    .table_keep_resident(64 << 10)
                    .async_stack_keep_resident(64 << 10)
                    .decommit_batch_size(64);
            }
        }
        pool.pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config
    }
}

/// The component, compiled now or by an earlier run.
#[expect(
    unsafe_code,
    reason = "running code that this program compiled is what it is for"
)]
fn load(engine: &Engine, job: &Job) -> Result<Component> {
    let wasm = fs::read(&job.component)?;
    let mut key = blake3::Hasher::new();
    key.update(&wasm)
        .update(format!("{:?}", job.settings).as_bytes());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers/compiled");
    let path = folder.join(key.finalize().to_hex().as_str());
    if path.is_file() {
        // SAFETY: the file was written below, out of wasmtime's own hands, under a name that no other writer
        // uses, in this program's own folder. wasmtime refuses what another version or configuration made.
        if let Ok(component) = unsafe { Component::deserialize_file(engine, &path) } {
            return Ok(component);
        }
    }
    fs::create_dir_all(&folder)?;
    let compiled = engine.precompile_component(&wasm)?;
    let fresh = path.with_extension("part");
    fs::write(&fresh, compiled)?;
    fs::rename(fresh, &path)?;
    // SAFETY: as above, a moment ago.
    Ok(unsafe { Component::deserialize_file(engine, &path)? })
}

/// A component that is ready to be instantiated, and what it is called with.
struct Guest {
    engine: Engine,
    code: Code,
    input: Bytes,
}

enum Code {
    Typed(FunctionPre<Ctx>),
    Web(ProxyPre<Ctx>),
}

impl Guest {
    fn new(engine: &Engine, component: &Component, job: &Job) -> Result<Self> {
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        let pre = linker.instantiate_pre(component)?;
        Ok(Self {
            engine: engine.clone(),
            code: match job.world {
                World::Typed => Code::Typed(FunctionPre::new(pre)?),
                World::Web => Code::Web(ProxyPre::new(pre)?),
            },
            input: job.input.to_string().into(),
        })
    }

    async fn warm_up(&self, expected: &Value) -> Result<()> {
        check(&self.call().await?, expected)?;
        let began = Instant::now();
        while began.elapsed() < WARM_UP {
            self.call().await?;
        }
        Ok(())
    }

    async fn call(&self) -> Result<Bytes> {
        let mut store = Store::new(&self.engine, Ctx::default());
        store.set_epoch_deadline(NEVER);
        match &self.code {
            Code::Typed(code) => {
                let function = code.instantiate_async(&mut store).await?;
                self.handle(&function, &mut store).await
            }
            Code::Web(code) => {
                let proxy = code.instantiate_async(&mut store).await?;
                self.answer(&proxy, &mut store).await
            }
        }
    }

    async fn handle(&self, function: &Function, store: &mut Store<Ctx>) -> Result<Bytes> {
        let execution = typed::Execution {
            id: "0198c3f0-0000-7000-8000-000000000000",
            function: "echo",
            version: 1,
            attempt: 1,
            max_attempts: 1,
            time_left_ms: 30_000,
            requeues: 0,
            idempotency_key: None,
            trace_id: None,
            traceparent: None,
            metadata: &[],
        };
        let input = typed::PayloadParam {
            content_type: crate::http::JSON,
            body: &self.input,
        };
        let handler = function.pelton_function_handler();
        match handler.call_handle(store, execution, input).await? {
            typed::Outcome::Success(payload) => Ok(payload.body.into()),
            typed::Outcome::Error(failure) | typed::Outcome::Retry(failure) => {
                bail!("{}: {}", failure.code, failure.message)
            }
            typed::Outcome::Requeue(_) => bail!("requeued"),
        }
    }

    async fn answer(&self, proxy: &Proxy, store: &mut Store<Ctx>) -> Result<Bytes> {
        let request = ::http::Request::post("http://localhost/")
            .header("content-type", crate::http::JSON)
            .header("content-length", self.input.len())
            .body(Full::new(self.input.clone()).map_err(|never| -> HttpError { match never {} }))?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let out = http.new_response_outparam(sender)?;
        let guest = async {
            let handler = proxy.wasi_http_incoming_handler();
            anyhow::Ok(handler.call_handle(&mut *store, request, out).await?)
        };
        let answer = async {
            let response = receiver.await.context("no response")?;
            let response = response.map_err(|code| anyhow::format_err!("{code:?}"))?;
            ensure!(response.status() == 200, "{}", response.status());
            let body = response.into_body().collect().await;
            Ok(body
                .map_err(|error| anyhow::format_err!("{error:?}"))?
                .to_bytes())
        };
        let (ended, answer) = tokio::join!(guest, answer);
        ended?;
        answer
    }
}

/// What a guest finds around itself: nothing, built when it first looks.
#[derive(Default)]
struct Ctx {
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
    http: WasiHttpCtx,
    hooks: NoWayOut,
}

impl Ctx {
    fn wasi(
        wasi: &mut Option<Box<(WasiCtx, ResourceTable)>>,
    ) -> (&mut WasiCtx, &mut ResourceTable) {
        let (ctx, table) = &mut **wasi
            .get_or_insert_with(|| Box::new((WasiCtxBuilder::new().build(), ResourceTable::new())));
        (ctx, table)
    }
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (ctx, table) = Self::wasi(&mut self.wasi);
        WasiCtxView { ctx, table }
    }
}

impl WasiHttpView for Ctx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (_, table) = Self::wasi(&mut self.wasi);
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table,
            ctx: &mut self.http,
        }
    }
}

/// No guest here calls out.
#[derive(Default)]
struct NoWayOut;

type Boxed<T> = Box<dyn Future<Output = Result<T, HttpError>> + Send>;

impl WasiHttpHooks for NoWayOut {
    fn send_request(
        &mut self,
        _: ::http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Boxed<()>,
    ) -> Boxed<(::http::Response<WasiBody>, Boxed<()>)> {
        Box::new(async { Err(HttpError::HttpRequestDenied) })
    }
}
