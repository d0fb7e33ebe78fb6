//! The measurements: each starts its servers afresh, puts a load on them, and stops them.
//!
//! **Invariant:** a measurement counts only what was answered rightly; how many executions succeeded is
//! compared with how many calls were made.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use tempfile::TempDir;

use crate::axum_echo;
use crate::echo::{ECHO, Echo};
use crate::figure::Figure;
use crate::load::{self, Until};
use crate::machine::{self, Watch};
use crate::pelton::{Client, with_mark};
use crate::report::{self, Found};
use crate::say;
use crate::server::{self, Server};

/// Connections of the synchronous loads.
const SYNC_CONNECTIONS: u32 = 16;
/// Connections that enqueue.
const DURABLE_CONNECTIONS: u32 = 64;
/// Functions deployed when a start, or a server at rest, is measured.
const FUNCTIONS: u32 = 100;
/// Starts in one measurement; the middle one counts.
const STARTS: u32 = 5;
/// Time that a server is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);
/// Calls that may wait in the queue of a function that is called synchronously.
const QUEUE_SIZE: u32 = 1000;

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
    echo: Echo,
    /// A folder with [`FUNCTIONS`] functions, each with code of its own that is compiled already.
    deployed: Option<TempDir>,
}

impl Bench {
    /// Builds the function.
    pub(crate) fn prepare(setup: Setup) -> Result<Self> {
        Ok(Self {
            setup,
            echo: Echo::build()?,
            deployed: None,
        })
    }

    /// The bare server: JSON in, JSON out.
    pub(crate) async fn bare(&self) -> Result<Found<Figure>> {
        let server = Server::axum_echo()?;
        let load = self
            .echo
            .bare(&server, axum_echo::PATH, SYNC_CONNECTIONS, self.time());
        let measured = load.await?;
        server.stop()?;
        Ok(Found {
            figures: vec![
                (Figure::BareCpu, measured.cpu_us()),
                (Figure::BareRate, measured.rate()),
                (Figure::BareP50, measured.served.within_ms(0.5)),
                (Figure::BareP99, measured.served.within_ms(0.99)),
            ],
            other_cores: measured.used.other_cores,
        })
    }

    /// The same at about the pace that Pelton has: what HTTP costs when the client waits for each answer.
    pub(crate) async fn bare_busy(&self) -> Result<Found<Figure>> {
        let server = Server::axum_echo()?;
        let path = axum_echo::BUSY_PATH;
        let load = self.echo.bare(&server, path, SYNC_CONNECTIONS, self.time());
        let measured = load.await?;
        server.stop()?;
        let computed_us = axum_echo::BUSY.as_secs_f64() * 1e6;
        Ok(Found {
            figures: vec![
                (Figure::BareBusyCpu, measured.cpu_us() - computed_us),
                (Figure::BareBusyRate, measured.rate()),
            ],
            other_cores: measured.used.other_cores,
        })
    }

    /// Synchronous calls, each in an instance of its own.
    pub(crate) async fn sync(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.echo.wasm, QUEUE_SIZE).await?;
        let load = self
            .echo
            .sync(&server, &mut client, SYNC_CONNECTIONS, self.time());
        let measured = load.await?;
        server.stop()?;
        Ok(Found {
            figures: vec![
                (Figure::SyncCpu, measured.cpu_us()),
                (Figure::SyncRate, measured.rate()),
                (Figure::SyncP50, measured.served.within_ms(0.5)),
                (Figure::SyncP99, measured.served.within_ms(0.99)),
            ],
            other_cores: measured.used.other_cores,
        })
    }

    /// Everything enqueued until everything has succeeded.
    pub(crate) async fn durable(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        let executions = self.setup.executions;
        client.deploy(ECHO, &self.echo.wasm, executions).await?;
        let load = self
            .echo
            .durable(&server, &mut client, DURABLE_CONNECTIONS, executions);
        let durable = load.await?;
        let resident_mb = machine::resident_mb(server.pid())?;
        client.check_newest(ECHO, &self.echo.call).await?;
        server.stop()?;
        let measured = durable.measured;
        Ok(Found {
            figures: vec![
                (Figure::DurableRate, measured.rate()),
                (Figure::DurableCpu, measured.cpu_us()),
                (
                    Figure::AcceptRate,
                    f64::from(executions) / durable.accepted_s,
                ),
                (Figure::AcceptP50, measured.served.within_ms(0.5)),
                (Figure::AcceptP99, measured.served.within_ms(0.99)),
                (Figure::MemoryAfterDurable, resident_mb),
            ],
            other_cores: measured.used.other_cores,
        })
    }

    /// From starting the process to the first answer of a function.
    pub(crate) async fn start(&mut self) -> Result<Found<Figure>> {
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
            client.invoke(&function, &self.echo.call).await?;
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
    pub(crate) async fn memory(&mut self) -> Result<Found<Figure>> {
        let folder = self.deployed().await?;
        let server = self.serve(&folder)?;
        let watch = Watch::begin(server.pid())?;
        tokio::time::sleep(REST).await;
        let idle_mb = machine::resident_mb(server.pid())?;
        let load = self.echo.invokes(&server, &name(0), SYNC_CONNECTIONS);
        load::run(load, Until::After(self.time())).await?;
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

    /// How long a load lasts.
    fn time(&self) -> Duration {
        Duration::from_secs(self.setup.seconds.into())
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
            let wasm = with_mark(&self.echo.wasm, number);
            client.deploy(&name(number), &wasm, QUEUE_SIZE).await?;
        }
        server.stop()?;
        let path = folder.path().to_owned();
        self.deployed = Some(folder);
        Ok(path)
    }
}

fn name(number: u32) -> String {
    format!("echo-{number}")
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}
