//! Durable engines of others: what an execution of the echo costs them.
//!
//! Each is started afresh on an empty folder and asked by as many connections as Pelton is. What is started, and how
//! it is asked, is in [`crate::restate`] and [`crate::obelisk`].
//!
//! **Invariant:** by the engine's own records everything that was accepted has ended well, else the run ends with an
//! error.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::figure::{Figure, Metric, Subject};
use crate::http::Connection;
use crate::machine::Used;
use crate::obelisk::Obelisk;
use crate::report::{Bound, Found, Readings};
use crate::restate::Restate;
use crate::say;
use crate::server::Server;

/// Connections that enqueue, as with Pelton.
pub(crate) const CONNECTIONS: u32 = 64;
/// Time between two looks at how far an engine is.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time without any execution ending after which something is wrong.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Time that an engine may take until it can be asked.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time that it may take to say whether it can.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Partitions of Restate: few, and what it comes with.
const PARTITIONS: [u32; 2] = [2, 24];
/// One execution in so many is asked of the engine that would take minutes for all.
const SLOW_SHARE: u32 = 5;
/// What the files of programs begin with.
const PROGRAM: &[u8] = b"\x7fELF";

/// An engine, set up in one way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Engine {
    Restate { partitions: u32 },
    Obelisk,
}

/// Others' binaries that were named.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) restate: Option<PathBuf>,
    pub(crate) obelisk: Option<PathBuf>,
}

/// The engines that are there.
#[derive(Default)]
pub(crate) struct Engines {
    restate: Option<Restate>,
    obelisk: Option<Obelisk>,
}

impl Engines {
    /// Looks for them and builds what they run; says which are not there, and why.
    pub(crate) fn prepare(named: &Named, missing: &mut Vec<String>) -> Self {
        let mut or_missing = |name: &str, error: anyhow::Error| {
            missing.push(format!("{name} ({error:#})"));
        };
        let restate = Restate::find(named.restate.as_deref());
        let obelisk = Obelisk::find(named.obelisk.as_deref());
        Self {
            restate: restate.map_err(|error| or_missing("Restate", error)).ok(),
            obelisk: obelisk.map_err(|error| or_missing("Obelisk", error)).ok(),
        }
    }

    /// What can be measured.
    pub(crate) fn there(&self) -> Vec<Engine> {
        let restate = self.restate.iter().flat_map(|_| {
            let all = PARTITIONS.into_iter();
            all.map(|partitions| Engine::Restate { partitions })
        });
        let obelisk = self.obelisk.iter().map(|_| Engine::Obelisk);
        restate.chain(obelisk).collect()
    }

    /// Everything enqueued until everything has ended well.
    pub(crate) async fn take(
        &self,
        engine: Engine,
        input: &Value,
        executions: u32,
    ) -> Result<Found<Figure>> {
        match engine {
            Engine::Restate { partitions } => {
                let restate = self.restate.as_ref().context("there is none")?;
                restate.durable(partitions, input, executions).await
            }
            Engine::Obelisk => {
                let obelisk = self.obelisk.as_ref().context("there is none")?;
                obelisk
                    .durable(input, (executions / SLOW_SHARE).max(1))
                    .await
            }
        }
    }
}

/// What is to be reached beside them. The work of Restate's handler, which stands for the guest that is a part of
/// Pelton's figure, does not count for Restate.
pub(crate) fn bounds(readings: &Readings<Figure>, bounds: &mut Vec<Bound>) {
    let cpu = |subject| readings.median(Figure(subject, Metric::Cpu));
    let engines = [
        (Subject::Restate(2), 0.25, "Restate's server, 2 partitions"),
        (Subject::Restate(24), 0.1, "Restate's server, 24 partitions"),
        (Subject::Obelisk, 0.08, "Obelisk"),
    ];
    for (engine, bound, words) in engines {
        if let (Some(ours), Some(theirs)) = (cpu(Subject::Durable), cpu(engine)) {
            let words = format!("durable echo, CPU / that of {words}, at most {bound}");
            bounds.push(Bound::at_most(words, ours / theirs, bound));
        }
    }
}

/// What so many executions took.
pub(crate) fn found(subject: Subject, used: &Used, executions: u32) -> Found<Figure> {
    let executions = f64::from(executions);
    Found {
        figures: vec![
            (
                Figure(subject, Metric::Cpu),
                used.server_s * 1e6 / executions,
            ),
            (Figure(subject, Metric::Rate), executions / used.elapsed_s),
        ],
        other_cores: used.other_cores,
    }
}

/// A program that was named, or the first of its name on the search path. Scripts that start a program are passed
/// over: its CPU time would not be theirs.
pub(crate) fn program(named: Option<&Path>, name: &str) -> Result<PathBuf> {
    let path = match named {
        Some(path) => {
            ensure!(is_program(path), "{} is no program", path.display());
            path.to_owned()
        }
        None => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let mut files = std::env::split_paths(&folders).map(|folder| folder.join(name));
            let found = files.find(|file| is_program(file));
            found.with_context(|| format!("no {name} on the search path"))?
        }
    };
    let output = Command::new(&path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run", path.display()))?;
    ensure!(output.status.success(), "{} is none", path.display());
    let version = String::from_utf8_lossy(&output.stdout);
    say(&format!("{} is {}", path.display(), version.trim()));
    Ok(path)
}

fn is_program(path: &Path) -> bool {
    let mut begin = [0; PROGRAM.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == PROGRAM
}

/// Builds the small project in a folder beside this file, and says where what it makes is.
pub(crate) fn build(name: &str, flags: &[&str]) -> Result<PathBuf> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers");
    let folder = peers.join(name);
    let target = folder.join("target");
    say(&format!("building {}", folder.display()));
    let status = ::pelton::guests::cargo(&folder)?
        .args(["build", "--release", "--locked", "--quiet"])
        .args(flags)
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        bail!("{} did not build: {status}", folder.display());
    }
    Ok(target)
}

/// A command of others, set up by nothing that this shell happens to set: defaults are measured.
pub(crate) fn command(program: &Path, prefix: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name == "RUST_LOG" || name.to_string_lossy().starts_with(prefix) {
            command.env_remove(name);
        }
    }
    command
}

/// Addresses of loopback that nobody listens at: for servers that cannot say which they took.
pub(crate) fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT]> {
    // All at once, so that none comes twice.
    let mut listeners = Vec::new();
    for _ in 0..COUNT {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}

/// Waits until a server answers a path with 200.
pub(crate) async fn ready(server: &mut Server, address: SocketAddr, path: &str) -> Result<()> {
    let asked = Instant::now();
    loop {
        let status = tokio::time::timeout(ANSWER_WITHIN, status(address, path)).await;
        if matches!(status, Ok(Ok(200))) {
            return Ok(());
        }
        ensure!(!server.has_ended()?, "it ended by itself");
        ensure!(
            asked.elapsed() < READY_WITHIN,
            "no 200 at {path} within {READY_WITHIN:?}: {status:?}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn status(address: SocketAddr, path: &str) -> Result<u16> {
    let mut connection = Connection::open(address).await?;
    let answer = connection.send("GET", path, "text/plain", b"").await?;
    Ok(answer.status)
}

/// The end of what a server said, for an error.
pub(crate) fn said(log: &Path) -> String {
    const BYTES: usize = 4000;
    let said = std::fs::read(log).unwrap_or_default();
    let end = &said[said.len().saturating_sub(BYTES)..];
    format!("the end of what it said:\n{}", String::from_utf8_lossy(end))
}
