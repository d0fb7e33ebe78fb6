//! The measurements: each starts its servers afresh, puts a load on them, and stops them.
//!
//! **Invariant:** both sides of a comparison are asked the same thing by the same number of connections, or loop
//! over the same component.

#[path = "tails.rs"]
pub(crate) mod tails;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::axum_echo;
use crate::bare::{self, Looped, Settings, World};
use crate::commits;
use crate::echo::{self, ECHO, Echo, Measured};
use crate::engines::{self, Engine, Engines};
use crate::figure::{Figure, Metric, Serve, Subject};
use crate::guests::{Component, Foreign};
use crate::hello;
use crate::http::{self, Connection};
use crate::load::Load;
use crate::pelton::{self, Client, with_mark};
use crate::plan::Only;
use crate::report::{self, Found};
use crate::say;
use crate::server::{self, Server};

/// Connections of the synchronous loads.
const CONNECTIONS: u32 = 16;
/// Executions in one commit of the bare loop.
const BATCH: u32 = 64;
/// Codes that are deployed and called in one measurement.
const FIRST_CALLS: u32 = 20;
/// Threads of a bare loop that is compared with a server.
const THREADS: u32 = 2;
/// Calls that may wait.
const QUEUE_SIZE: u32 = 1000;
/// The web function's name, its path, and what it answers.
const HELLO: &str = "hello";

/// What is measured and how long.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The binary.
    pub(crate) pelton: PathBuf,
    /// Another's binary, if it was named.
    pub(crate) wasmtime: Option<PathBuf>,
    /// Others' durable engines, if they were named.
    pub(crate) engines: engines::Named,
    /// Executions that are enqueued.
    pub(crate) executions: u32,
    /// Time that a load lasts.
    pub(crate) load: Duration,
}

/// What all measurements need.
pub(crate) struct Bench {
    setup: Setup,
    echo: Echo,
    echo_file: PathBuf,
    hello_file: PathBuf,
    /// What is started for `wasmtime serve`.
    wasmtime: Option<PathBuf>,
    foreign: Vec<(Foreign, Component)>,
    engines: Engines,
    missing: Vec<String>,
}

impl Bench {
    /// Builds the functions that a choice needs, and looks for peers.
    pub(crate) async fn prepare(setup: Setup, only: Option<Only>) -> Result<Self> {
        let wants = |group| only.is_none_or(|only| only == group);
        let mut missing = Vec::new();
        let wasmtime = if wants(Only::Http) || wants(Only::Tails) {
            match version(setup.wasmtime.as_deref()) {
                Ok((path, version)) => {
                    say(&format!("{} is {version}", path.display()));
                    Some(path)
                }
                Err(error) => {
                    missing.push(format!("`wasmtime serve` ({error:#})"));
                    None
                }
            }
        } else {
            None
        };
        let engines = match wants(Only::Engines) {
            true => Engines::prepare(&setup.engines, &mut missing),
            false => Engines::default(),
        };
        let echo = Echo::build()?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        std::fs::create_dir_all(&folder)?;
        let echo_file = folder.join("echo.wasm");
        std::fs::write(&echo_file, &echo.wasm)?;
        let mut bench = Self {
            setup,
            echo,
            echo_file,
            hello_file: hello::build()?,
            wasmtime,
            foreign: Vec::new(),
            engines,
            missing,
        };
        if wants(Only::Foreign) {
            bench.deploy_foreign().await?;
        }
        Ok(bench)
    }

    pub(crate) fn has_wasmtime(&self) -> bool {
        self.wasmtime.is_some()
    }

    /// Functions in other languages that could be built.
    pub(crate) fn foreign(&self) -> Vec<Foreign> {
        self.foreign.iter().map(|(which, _)| *which).collect()
    }

    /// Durable engines of others that are there.
    pub(crate) fn engines(&self) -> Vec<Engine> {
        self.engines.there()
    }

    /// Peers that are not there, and why.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.missing.clone()
    }

    /// The bare server: JSON in, JSON out.
    pub(crate) async fn axum(&self) -> Result<Found<Figure>> {
        let server = Server::axum_echo()?;
        let many = self
            .echo
            .bare(&server, axum_echo::PATH, CONNECTIONS, self.setup.load);
        let many = many.await?;
        let alone = self
            .echo
            .bare(&server, axum_echo::PATH, 1, self.setup.load / 2)
            .await?;
        server.stop()?;
        let mut found = served(Subject::Axum, &many);
        found.figures.push(p50(Subject::AxumAlone, &alone));
        Ok(found)
    }

    /// Synchronous calls of a typed function, each in an instance of its own.
    pub(crate) async fn echo(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.echo.wasm, QUEUE_SIZE).await?;
        let time = self.setup.load;
        let many = self.echo.sync(&server, &mut client, CONNECTIONS, time);
        let many = many.await?;
        let alone = self.echo.sync(&server, &mut client, 1, time / 2).await?;
        server.stop()?;
        let mut found = served(Subject::Echo, &many);
        found.figures.push(p50(Subject::EchoAlone, &alone));
        Ok(found)
    }

    /// The same in instances that answer several calls: as many at most as somebody gets who only asks for it.
    pub(crate) async fn reused_echo(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.echo.wasm, QUEUE_SIZE).await?;
        client.patch(ECHO, &json!({"reuse": {}})).await?;
        let time = self.setup.load;
        let many = self.echo.sync(&server, &mut client, CONNECTIONS, time);
        let many = many.await?;
        let reused = client.counted("pelton_reused_calls_total").await?;
        ensure!(
            usize::try_from(reused)? > many.served.calls() / 2,
            "{} calls were answered, and instances were used again for {reused} only",
            many.served.calls()
        );
        server.stop()?;
        Ok(served(Subject::ReusedEcho, &many))
    }

    /// The same function in a bare loop.
    pub(crate) fn bare_loop(&self, settings: Settings, threads: u32) -> Result<Found<Figure>> {
        let input = &self.echo.call["input"];
        let looped = Looped::of(
            "loop",
            &bare::Job {
                component: self.echo_file.clone(),
                world: World::Typed,
                settings,
                threads,
                load_ms: self.load_ms()?,
                input: input.clone(),
                expected: input.clone(),
            },
        )?;
        let subject = match settings {
            Settings::Pelton => Subject::Loop(threads),
            Settings::Fastest => Subject::FastLoop(threads),
        };
        Ok(of_loop(subject, &looped))
    }

    /// A web function under `/fn/`, an instance for each request.
    pub(crate) async fn hello(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        let wasm = std::fs::read(&self.hello_file)?;
        client.deploy(HELLO, &wasm, QUEUE_SIZE).await?;
        let path = format!("/fn/{HELLO}/{HELLO}");
        let measured = echo::measured(&server, || hello(&server, &path), self.setup.load).await?;
        let succeeded = usize::try_from(client.succeeded(HELLO).await?)?;
        ensure!(
            succeeded >= measured.served.calls(),
            "{} calls were answered and {succeeded} executions succeeded",
            measured.served.calls()
        );
        server.stop()?;
        Ok(served(Subject::Hello, &measured))
    }

    fn start_wasmtime(&self, serve: Serve) -> Result<Server> {
        let binary = self.wasmtime.as_deref().context("there is none")?;
        // What a component of Rust's standard library imports beside HTTP.
        let mut flags = vec!["-S", "cli"];
        match serve {
            Serve::Default => {}
            Serve::Tuned => flags.extend([
                "-O",
                "pooling-memory-keep-resident=65536",
                "-O",
                "pooling-table-keep-resident=65536",
                "-O",
                "pooling-async-stack-keep-resident=65536",
                "-O",
                "pooling-decommit-batch-size=16",
                "-O",
                "pooling-pagemap-scan=auto",
            ]),
            Serve::Reuse => flags.extend(["--max-instance-reuse-count", "128"]),
        }
        Server::wasmtime(binary, &self.hello_file, &flags)
    }

    /// The same component through `wasmtime serve`.
    pub(crate) async fn wasmtime_serve(&self, serve: Serve) -> Result<Found<Figure>> {
        let server = self.start_wasmtime(serve)?;
        let path = format!("/{HELLO}");
        let measured = echo::measured(&server, || hello(&server, &path), self.setup.load).await?;
        server.stop()?;
        Ok(served(Subject::Serve(serve), &measured))
    }

    /// The first call of code that was deployed a moment ago, many times.
    pub(crate) async fn first_calls(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut deployer = Client::new(server.address).await?;
        let mut caller = Connection::open(server.address).await?;
        let check = pelton::echoed(&self.echo.call);
        let body = self.echo.call.to_string();
        let mut first_ms = Vec::new();
        for number in 0..FIRST_CALLS {
            let name = format!("{ECHO}-{number}");
            let wasm = with_mark(&self.echo.wasm, number);
            let path = pelton::invoke_path(&name);
            let request = http::request("POST", server.address, &path, http::JSON, body.as_bytes());
            deployer.put(&name, &wasm).await?;
            let sent = Instant::now();
            let answer = caller.call(&request).await?;
            first_ms.push(sent.elapsed().as_secs_f64() * 1e3);
            answer.expect(&[200])?;
            check(&answer)?;
        }
        server.stop()?;
        let most = first_ms.iter().copied().fold(0.0, f64::max);
        Ok(Found {
            figures: vec![
                (
                    Figure(Subject::FirstCall, Metric::P50),
                    report::median(&first_ms),
                ),
                (Figure(Subject::FirstCall, Metric::Most), most),
            ],
            // Between the calls the compiler works in a process of its own, which is no disturbance.
            other_cores: 0.0,
        })
    }

    /// A function in another language: a typed one by `:invoke`, a web function under `/fn/`.
    pub(crate) async fn foreign_function(&self, which: Foreign) -> Result<Found<Figure>> {
        let component = self.component(which)?;
        let server = self.serve(&foreign_folder())?;
        let load = || {
            let expected = component.expected.clone();
            let (path, body) = match which.world() {
                World::Typed => (
                    pelton::invoke_path(which.name()),
                    json!({"input": component.input}),
                ),
                World::Web => (format!("/fn/{}/", which.name()), component.input.clone()),
            };
            let body = body.to_string();
            Load {
                address: server.address,
                connections: CONNECTIONS,
                request: http::request("POST", server.address, &path, http::JSON, body.as_bytes()),
                status: 200,
                check: Rc::new(move |answer| {
                    let answer = answer.json(&[200])?;
                    let output = match which.world() {
                        World::Typed => &answer["output"],
                        World::Web => &answer,
                    };
                    ensure!(bare::has(output, &expected), "not what was said: {answer}");
                    Ok(())
                }),
            }
        };
        let measured = echo::measured(&server, load, self.setup.load).await?;
        server.stop()?;
        Ok(served(Subject::Foreign(which), &measured))
    }

    /// The same component in a bare loop with the same settings.
    pub(crate) fn foreign_loop(&self, which: Foreign) -> Result<Found<Figure>> {
        let component = self.component(which)?;
        let looped = Looped::of(
            "loop",
            &bare::Job {
                component: component.file.clone(),
                world: which.world(),
                settings: Settings::Pelton,
                threads: THREADS,
                load_ms: self.load_ms()?,
                input: component.input.clone(),
                expected: component.expected.clone(),
            },
        )?;
        Ok(of_loop(Subject::ForeignLoop(which), &looped))
    }

    /// Bare commits, of many and of one.
    pub(crate) fn commits(&self) -> Result<Found<Figure>> {
        let looped = |batch, load_ms| {
            let folder = server::folder()?;
            let job = commits::Job {
                folder: folder.path().to_owned(),
                batch,
                load_ms,
            };
            Looped::of("commits", &job)
        };
        let many = looped(BATCH, self.load_ms()?)?;
        let alone = looped(1, self.load_ms()? / 2)?;
        let mut found = of_loop(Subject::Commits, &many);
        found.figures.extend(
            alone
                .p50_ms
                .map(|p50_ms| (Figure(Subject::CommitsAlone, Metric::P50), p50_ms)),
        );
        Ok(found)
    }

    /// Everything enqueued until everything has succeeded; and then one after the other.
    pub(crate) async fn durable(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        let executions = self.setup.executions;
        client.deploy(ECHO, &self.echo.wasm, executions).await?;
        let load = self
            .echo
            .durable(&server, &mut client, engines::CONNECTIONS, executions);
        let durable = load.await?.measured;
        client.check_newest(ECHO, &self.echo.call).await?;
        let load = || self.echo.enqueues(&server, 1);
        let alone = echo::measured(&server, load, self.setup.load / 2).await?;
        server.stop()?;
        Ok(Found {
            figures: vec![
                (Figure(Subject::Durable, Metric::Cpu), durable.cpu_us()),
                (Figure(Subject::Durable, Metric::Rate), durable.rate()),
                p50(Subject::EnqueueAlone, &alone),
            ],
            other_cores: durable.used.other_cores,
        })
    }

    /// The same through an engine of others.
    pub(crate) async fn engine(&self, engine: Engine) -> Result<Found<Figure>> {
        let (input, executions) = (&self.echo.call["input"], self.setup.executions);
        self.engines.take(engine, input, executions).await
    }

    fn serve(&self, folder: &Path) -> Result<Server> {
        Server::pelton(&self.setup.pelton, folder)
    }

    fn load_ms(&self) -> Result<u64> {
        Ok(u64::try_from(self.setup.load.as_millis())?)
    }

    fn component(&self, which: Foreign) -> Result<&Component> {
        let mut all = self.foreign.iter();
        let found = all.find(|(other, _)| *other == which);
        Ok(&found.context("it was not built")?.1)
    }

    /// Builds and deploys what can be built. The server's folder is kept for later runs: compiling takes long.
    async fn deploy_foreign(&mut self) -> Result<()> {
        for which in Foreign::ALL {
            match which.build() {
                Ok(component) => self.foreign.push((which, component)),
                Err(error) => self.missing.push(format!("{} ({error})", which.words())),
            }
        }
        let folder = foreign_folder();
        std::fs::create_dir_all(&folder)?;
        let server = match self.serve(&folder) {
            Ok(server) => server,
            Err(_) => {
                // Of another version.
                std::fs::remove_dir_all(&folder)?;
                std::fs::create_dir_all(&folder)?;
                self.serve(&folder)?
            }
        };
        let mut client = Client::new(server.address).await?;
        for (which, component) in &self.foreign {
            say(&format!("deploying {}", which.words()));
            let wasm = std::fs::read(&component.file)?;
            client.deploy_closed(which.name(), &wasm).await?;
        }
        server.stop()
    }
}

fn foreign_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers/foreign")
}

/// A request for a web function that says hello.
fn hello(server: &Server, path: &str) -> Load {
    Load {
        address: server.address,
        connections: CONNECTIONS,
        request: http::request("GET", server.address, path, "text/plain", b""),
        status: 200,
        check: Rc::new(|answer| {
            ensure!(answer.body == HELLO.as_bytes(), "not hello: {answer:?}");
            Ok(())
        }),
    }
}

/// `wasmtime` and what it says of its version.
fn version(named: Option<&Path>) -> Result<(PathBuf, String)> {
    let path = named.unwrap_or(Path::new("wasmtime"));
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run", path.display()))?;
    ensure!(output.status.success(), "{} is none", path.display());
    let version = String::from_utf8_lossy(&output.stdout);
    Ok((path.to_owned(), version.trim().to_owned()))
}

fn served(subject: Subject, measured: &Measured) -> Found<Figure> {
    Found {
        figures: vec![
            (Figure(subject, Metric::Cpu), measured.cpu_us()),
            (Figure(subject, Metric::Rate), measured.rate()),
            p50(subject, measured),
            (
                Figure(subject, Metric::P99),
                measured.served.within_ms(0.99),
            ),
        ],
        other_cores: measured.used.other_cores,
    }
}

fn p50(subject: Subject, measured: &Measured) -> (Figure, f64) {
    (Figure(subject, Metric::P50), measured.served.within_ms(0.5))
}

fn of_loop(subject: Subject, looped: &Looped) -> Found<Figure> {
    Found {
        figures: vec![
            (Figure(subject, Metric::Cpu), looped.cpu_us()),
            (Figure(subject, Metric::Rate), looped.rate()),
        ],
        other_cores: looped.used.other_cores,
    }
}
