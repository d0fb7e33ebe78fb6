//! Restate's server, with a handler in Rust that echoes (`bench/peers/restate`).
//!
//! **Invariant:** the server's CPU time and the handler's are two figures; neither is in the other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Error, Result, bail, ensure};
use serde_json::{Value, json};

use crate::engines::{self, CONNECTIONS, LOOK_EVERY, STALLED_AFTER};
use crate::figure::{Figure, Metric, Subject};
use crate::http::{self, Connection};
use crate::load::{self, Load, Until};
use crate::machine::{Used, Watch};
use crate::report::Found;
use crate::server::{self, Server};
use crate::{say, tools};

/// What is fetched from npm if there is none.
const VERSION: &str = "1.7.12";
/// The handler, and the same without waiting for it.
const CALL: &str = "/Echo/echo";
const SEND: &str = "/Echo/echo/send";
/// Calls before anything is measured: every partition has taken some by then.
const FIRST_CALLS: u32 = 200;
/// The content type of a query, and a line that has it answered in the same.
const QUERY: &str = "application/json\r\nAccept: application/json";
/// All that was ever accepted, by what became of it.
const STATES: &str = "SELECT status, completion_result, COUNT(*) AS count FROM sys_invocation \
                      GROUP BY status, completion_result";

/// The binaries.
pub(crate) struct Restate {
    server: PathBuf,
    handler: PathBuf,
}

/// Where a server listens.
struct Addresses {
    nodes: SocketAddr,
    ingress: SocketAddr,
    admin: SocketAddr,
}

impl Restate {
    /// The server that was named, else on the search path, else fetched; and the handler, built.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self> {
        const NAME: &str = "restate-server";
        let server = match (engines::program(named, NAME), named) {
            (Ok(server), _) => server,
            (Err(error), Some(_)) => return Err(error),
            (Err(_), None) => engines::program(Some(&fetch()?), NAME)?,
        };
        let built = engines::build("restate", &[])?;
        Ok(Self {
            server,
            handler: built.join("release/restate-echo"),
        })
    }

    /// Everything sent until everything has ended well.
    pub(crate) async fn durable(
        &self,
        partitions: u32,
        input: &Value,
        executions: u32,
    ) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let log = folder.path().join("restate.log");
        let [nodes, ingress, admin] = engines::free_addresses()?;
        let addresses = Addresses {
            nodes,
            ingress,
            admin,
        };
        let mut handler = Server::start(Command::new(&self.handler)).context("the handler")?;
        let mut server = self.serve(folder.path(), &log, partitions, &addresses)?;
        let sent = Sent { input, executions };
        let used = sent.measure(&mut server, &mut handler, &addresses).await;
        let (of_server, of_handler) = used.with_context(|| engines::said(&log))?;
        server.stop()?;
        handler.stop()?;
        let mut found = engines::found(Subject::Restate(partitions), &of_server, executions);
        found.figures.push((
            Figure(Subject::RestateHandler(partitions), Metric::Cpu),
            of_handler.server_s * 1e6 / f64::from(executions),
        ));
        // To the server's watch the handler is somebody else.
        found.other_cores -= of_handler.server_s / of_handler.elapsed_s;
        found.other_cores = found.other_cores.max(0.0);
        Ok(found)
    }

    /// As it comes, on free ports of loopback, without reports to its makers.
    fn serve(
        &self,
        folder: &Path,
        log: &Path,
        partitions: u32,
        addresses: &Addresses,
    ) -> Result<Server> {
        let Addresses {
            nodes,
            ingress,
            admin,
        } = addresses;
        let config = folder.join("restate.toml");
        let text = format!(
            "node-name = \"bench\"\n\
             base-dir = {:?}\n\
             default-num-partitions = {partitions}\n\
             disable-telemetry = true\n\
             log-disable-ansi-codes = true\n\
             listen-mode = \"tcp\"\n\
             bind-address = \"{nodes}\"\n\
             advertised-address = \"http://{nodes}/\"\n\
             [ingress]\n\
             bind-address = \"{ingress}\"\n\
             [admin]\n\
             bind-address = \"{admin}\"\n",
            folder.join("data")
        );
        std::fs::write(&config, text)?;
        let mut command = engines::command(&self.server, "RESTATE_");
        command.args(["--no-logo", "--config-file"]).arg(&config);
        Server::told(command, *ingress, log)
    }
}

/// What the server is sent.
struct Sent<'a> {
    input: &'a Value,
    executions: u32,
}

impl Sent<'_> {
    /// What the server and the handler used.
    async fn measure(
        &self,
        server: &mut Server,
        handler: &mut Server,
        addresses: &Addresses,
    ) -> Result<(Used, Used)> {
        engines::ready(server, addresses.admin, "/health").await?;
        engines::ready(server, addresses.ingress, "/restate/health").await?;
        let mut admin = Connection::open(addresses.admin).await?;
        let deployment = json!({"uri": format!("http://{}", handler.address)}).to_string();
        let registered = admin.send("POST", "/deployments", http::JSON, deployment.as_bytes());
        registered.await?.expect(&[201])?;
        drop(admin);
        self.first_calls(server).await?;
        let of_server = Watch::begin(server.pid())?;
        let of_handler = Watch::begin(handler.pid())?;
        load::run(self.sends(server), Until::Calls(self.executions)).await?;
        let calls = u64::from(FIRST_CALLS) + u64::from(self.executions);
        called(handler, calls).await?;
        let asked = Instant::now();
        loop {
            // Looking at all of them is no part of the work: when they have ended, they had before the look.
            let used = (of_server.end(server.pid())?, of_handler.end(handler.pid())?);
            let states = states(addresses.admin).await?;
            let ended =
                json!([{"status": "completed", "completion_result": "success", "count": calls}]);
            if states == ended {
                return Ok(used);
            }
            ensure!(asked.elapsed() < STALLED_AFTER, "not all ended: {states}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Calls that are waited for, each of which must echo.
    async fn first_calls(&self, server: &Server) -> Result<()> {
        let mut ingress = Connection::open(server.address).await?;
        let body = self.input.to_string();
        for _ in 0..FIRST_CALLS {
            let answer = ingress.send("POST", CALL, http::JSON, body.as_bytes());
            let echoed = answer.await?.json(&[200])?;
            ensure!(echoed == *self.input, "not what was sent: {echoed}");
        }
        Ok(())
    }

    fn sends(&self, server: &Server) -> Load {
        let body = self.input.to_string();
        Load {
            address: server.address,
            connections: CONNECTIONS,
            request: http::request("POST", server.address, SEND, http::JSON, body.as_bytes()),
            status: 202,
            check: Rc::new(|answer| {
                let accepted = answer.json(&[202])?;
                ensure!(accepted["invocationId"].is_string(), "no id: {accepted}");
                Ok(())
            }),
        }
    }
}

/// Waits until the handler has ended this many calls.
async fn called(handler: &mut Server, calls: u64) -> Result<()> {
    let mut seen = 0;
    let mut changed = Instant::now();
    loop {
        let ended = handler.ask()?;
        let ended: u64 = ended.parse().context("the handler does not count")?;
        if ended >= calls {
            return Ok(());
        }
        if ended != seen {
            seen = ended;
            changed = Instant::now();
        }
        ensure!(
            changed.elapsed() < STALLED_AFTER,
            "{calls} calls were accepted and {ended} ended"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many invocations there are in which state, as the server says.
async fn states(admin: SocketAddr) -> Result<Value> {
    // A connection of its own: one that had been idle all the while might be closed.
    let mut admin = Connection::open(admin).await?;
    let query = json!({"query": STATES}).to_string();
    let answer = admin
        .send("POST", "/query", QUERY, query.as_bytes())
        .await?;
    Ok(answer.json(&[200])?["rows"].take())
}

/// The binary for this machine, out of the package that npm would choose for it.
fn fetch() -> Result<PathBuf> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => bail!("npm has none for {other}"),
    };
    let package = format!("@restatedev/restate-server-linux-{machine}");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers/restate");
    say("looking for Restate's server where an earlier run has put it, else fetching it");
    tools::npm(&folder, &[&format!("{package}@{VERSION}")]).map_err(Error::msg)?;
    let package = folder.join("node_modules").join(package);
    Ok(package.join("bin/restate-server"))
}
