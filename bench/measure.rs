//! The measurements: each starts its servers afresh, puts a load on them, and stops them.
//!
//! **Invariant:** a measurement counts only what was answered rightly; how many executions succeeded is
//! compared with how many calls were made.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::load::{self, Load, Until};
use crate::machine::{self, Used, Watch};
use crate::pelton::{self, Client};
use crate::report::{self, Figure};
use crate::server::{self, Server};
use crate::{axum_echo, http, payload, say};

/// Connections of the synchronous loads.
const SYNC_CONNECTIONS: u32 = 16;
/// Connections that enqueue.
const DURABLE_CONNECTIONS: u32 = 64;
/// Functions deployed when a start, or a server at rest, is measured.
const FUNCTIONS: u32 = 100;
/// Starts in one measurement; the middle one counts.
const STARTS: u32 = 5;
/// Load that is put on before a measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// Time that a server is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);
/// Time between two looks at how many executions have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time without any execution ending after which something is wrong.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Calls that may wait in the queue of a function that is called synchronously.
const QUEUE_SIZE: u32 = 1000;
/// The function's name.
const ECHO: &str = "echo";

/// What is measured and how long.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The binary.
    pub(crate) pelton: PathBuf,
    /// Time that a load lasts, in s.
    pub(crate) seconds: u32,
    /// Executions of the durable load.
    pub(crate) executions: u32,
}

/// What all measurements need.
pub(crate) struct Bench {
    setup: Setup,
    /// The echo function's code.
    wasm: Vec<u8>,
    call: Value,
    /// A folder with [`FUNCTIONS`] functions, each with code of its own that is compiled already.
    deployed: Option<TempDir>,
}

/// What one measurement found.
pub(crate) struct Found {
    pub(crate) figures: Vec<(Figure, f64)>,
    /// What other processes took of the machine meanwhile, in cores.
    pub(crate) other_cores: f64,
}

impl Bench {
    /// Builds the function.
    pub(crate) fn prepare(setup: Setup) -> Result<Self> {
        let folder = ::pelton::guests::find(None)?;
        let built = ::pelton::guests::build(&folder, &mut |line| say(line))?;
        let echo = built.iter().find(|built| built.guest.name == ECHO);
        let echo = echo.context("there is no guest named echo")?;
        Ok(Self {
            setup,
            wasm: std::fs::read(&echo.component)?,
            call: payload::call(),
            deployed: None,
        })
    }

    /// The bare server: JSON in, JSON out.
    pub(crate) async fn bare(&self) -> Result<Found> {
        let server = Server::axum_echo()?;
        let load = || {
            let sent = self.call.clone();
            Load {
                address: server.address,
                connections: SYNC_CONNECTIONS,
                request: self.post(&server, axum_echo::PATH),
                status: 200,
                check: Rc::new(move |answer| {
                    ensure!(answer.json(&[200])? == sent, "not what was sent");
                    Ok(())
                }),
            }
        };
        load::run(load(), Until::After(WARM_UP)).await?;
        let watch = Watch::begin(server.pid())?;
        let served = load::run(load(), self.while_measured()).await?;
        let used = watch.end(server.pid())?;
        server.stop()?;
        Ok(Found {
            figures: vec![
                (Figure::BareCpu, per_call_us(&used, served.calls())),
                (Figure::BareRate, per_second(&used, served.calls())),
                (Figure::BareP50, served.within_ms(0.5)),
                (Figure::BareP99, served.within_ms(0.99)),
            ],
            other_cores: used.other_cores,
        })
    }

    /// Synchronous calls, each in an instance of its own.
    pub(crate) async fn sync(&self) -> Result<Found> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.wasm, QUEUE_SIZE).await?;
        load::run(self.invokes(&server, ECHO), Until::After(WARM_UP)).await?;
        let before = client.succeeded(ECHO).await?;
        let watch = Watch::begin(server.pid())?;
        let served = load::run(self.invokes(&server, ECHO), self.while_measured()).await?;
        let used = watch.end(server.pid())?;
        let succeeded = client.succeeded(ECHO).await? - before;
        ensure!(
            usize::try_from(succeeded)? == served.calls(),
            "{} calls were answered and {succeeded} executions succeeded",
            served.calls()
        );
        server.stop()?;
        Ok(Found {
            figures: vec![
                (Figure::SyncCpu, per_call_us(&used, served.calls())),
                (Figure::SyncRate, per_second(&used, served.calls())),
                (Figure::SyncP50, served.within_ms(0.5)),
                (Figure::SyncP99, served.within_ms(0.99)),
            ],
            other_cores: used.other_cores,
        })
    }

    /// Everything enqueued until everything has succeeded.
    pub(crate) async fn durable(&self) -> Result<Found> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        let executions = self.setup.executions;
        client.deploy(ECHO, &self.wasm, executions).await?;
        let watch = Watch::begin(server.pid())?;
        let load = Load {
            address: server.address,
            connections: DURABLE_CONNECTIONS,
            request: self.post(&server, &pelton::enqueue_path(ECHO)),
            status: 202,
            check: pelton::accepted(),
        };
        let served = load::run(load, Until::Calls(executions)).await?;
        let accepted_s = watch.end(server.pid())?.elapsed_s;
        ended(&mut client, u64::from(executions)).await?;
        let used = watch.end(server.pid())?;
        let resident_mb = machine::resident_mb(server.pid())?;
        client.check_newest(ECHO, &self.call).await?;
        server.stop()?;
        Ok(Found {
            figures: vec![
                (Figure::DurableRate, per_second(&used, served.calls())),
                (Figure::DurableCpu, per_call_us(&used, served.calls())),
                (Figure::AcceptRate, f64::from(executions) / accepted_s),
                (Figure::AcceptP50, served.within_ms(0.5)),
                (Figure::AcceptP99, served.within_ms(0.99)),
                (Figure::MemoryAfterDurable, resident_mb),
            ],
            other_cores: used.other_cores,
        })
    }

    /// From starting the process to the first answer of a function.
    pub(crate) async fn start(&mut self) -> Result<Found> {
        let folder = self.deployed().await?;
        let mut listening_ms = Vec::new();
        let mut answered_ms = Vec::new();
        let mut other_cores = 0.0;
        for start in 0..STARTS {
            let watch = Watch::before_start()?;
            let began = Instant::now();
            let server = self.serve(&folder)?;
            listening_ms.push(milliseconds(began));
            let mut client = Client::new(server.address).await?;
            // Never the same one twice running: no start leaves more of its function in caches than of others.
            let function = name(start * 37 % FUNCTIONS);
            client.invoke(&function, &self.call).await?;
            answered_ms.push(milliseconds(began));
            other_cores += watch.end(server.pid())?.other_cores / f64::from(STARTS);
            server.stop()?;
        }
        Ok(Found {
            figures: vec![
                (Figure::FirstAnswer, report::median(&answered_ms)),
                (Figure::Listening, report::median(&listening_ms)),
            ],
            other_cores,
        })
    }

    /// Resident memory at rest, before and after a load.
    pub(crate) async fn memory(&mut self) -> Result<Found> {
        let folder = self.deployed().await?;
        let server = self.serve(&folder)?;
        let watch = Watch::begin(server.pid())?;
        tokio::time::sleep(REST).await;
        let idle_mb = machine::resident_mb(server.pid())?;
        load::run(self.invokes(&server, &name(0)), self.while_measured()).await?;
        tokio::time::sleep(REST).await;
        let after_mb = machine::resident_mb(server.pid())?;
        let used = watch.end(server.pid())?;
        server.stop()?;
        Ok(Found {
            figures: vec![
                (Figure::MemoryIdle, idle_mb),
                (Figure::MemoryAfterSync, after_mb),
            ],
            other_cores: used.other_cores,
        })
    }

    fn serve(&self, folder: &Path) -> Result<Server> {
        Server::pelton(&self.setup.pelton, folder)
    }

    fn post(&self, server: &Server, path: &str) -> Vec<u8> {
        let body = self.call.to_string();
        http::request("POST", server.address, path, http::JSON, body.as_bytes())
    }

    /// Synchronous calls of a function.
    fn invokes(&self, server: &Server, function: &str) -> Load {
        Load {
            address: server.address,
            connections: SYNC_CONNECTIONS,
            request: self.post(server, &pelton::invoke_path(function)),
            status: 200,
            check: pelton::echoed(&self.call),
        }
    }

    fn while_measured(&self) -> Until {
        Until::After(Duration::from_secs(self.setup.seconds.into()))
    }

    /// The folder with many functions; filled when it is first asked for.
    async fn deployed(&mut self) -> Result<PathBuf> {
        if let Some(folder) = &self.deployed {
            return Ok(folder.path().to_owned());
        }
        say(&format!("deploying {FUNCTIONS} functions"));
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        for number in 0..FUNCTIONS {
            let wasm = with_mark(&self.wasm, number);
            client.deploy(&name(number), &wasm, QUEUE_SIZE).await?;
        }
        server.stop()?;
        let path = folder.path().to_owned();
        self.deployed = Some(folder);
        Ok(path)
    }
}

/// Waits until this many executions have succeeded.
async fn ended(client: &mut Client, executions: u64) -> Result<()> {
    let mut seen = 0;
    let mut changed = Instant::now();
    loop {
        let succeeded = client.succeeded(ECHO).await?;
        if succeeded == executions {
            return Ok(());
        }
        if succeeded != seen {
            seen = succeeded;
            changed = Instant::now();
        }
        ensure!(
            succeeded < executions && changed.elapsed() < STALLED_AFTER,
            "{executions} executions were accepted and {succeeded} succeeded"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same component, told apart by a custom section, so that it is stored and compiled by itself.
fn with_mark(wasm: &[u8], number: u32) -> Vec<u8> {
    const CUSTOM: u8 = 0;
    const NAME: &[u8] = b"\x04mark";
    let mut marked = wasm.to_vec();
    marked.extend([CUSTOM, 9]);
    marked.extend(NAME);
    marked.extend(number.to_le_bytes());
    marked
}

fn name(number: u32) -> String {
    format!("echo-{number}")
}

fn per_call_us(used: &Used, calls: usize) -> f64 {
    used.server_s * 1e6 / count(calls)
}

fn per_second(used: &Used, calls: usize) -> f64 {
    count(calls) / used.elapsed_s
}

#[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 calls")]
fn count(calls: usize) -> f64 {
    calls as f64
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}
