//! Obelisk, with an activity of wasm that echoes (`bench/peers/obelisk`), on its SQLite.
//!
//! **Invariant:** it is not asked how far it is while it works: the last execution is waited for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::engines::{self, CONNECTIONS, LOOK_EVERY, STALLED_AFTER};
use crate::figure::{Figure, Subject};
use crate::http::{self, Connection};
use crate::load::{self, Load, Until};
use crate::machine::{Used, Watch};
use crate::report::Found;
use crate::server::{self, Server};

/// What brings it: it takes too long to build for a benchmark to do it.
const INSTALL: &str = "cargo install obelisk --version 0.38.3 --locked, which needs protoc";
/// The activity's function.
const FUNCTION: &str = "bench:echo/activity.echo";
const EXECUTIONS: &str = "/v1/executions";
/// Time that the last execution may take to end.
const ENDED_WITHIN: Duration = Duration::from_secs(600);

/// The binary, and what it runs.
pub(crate) struct Obelisk {
    server: PathBuf,
    activity: PathBuf,
}

impl Obelisk {
    /// What was named, else on the search path; and the activity, built.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self> {
        let server = engines::program(named, "obelisk");
        let server = server.with_context(|| format!("to have it: {INSTALL}"))?;
        let target = ::pelton::guests::COMPONENT_TARGET;
        let built = engines::build("obelisk", &["--target", target])?;
        Ok(Self {
            server,
            activity: built.join(target).join("release/obelisk_echo.wasm"),
        })
    }

    /// Everything submitted until everything has ended well.
    pub(crate) async fn durable(&self, input: &Value, executions: u32) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let log = folder.path().join("obelisk.log");
        let [address] = engines::free_addresses()?;
        let mut server = self.serve(folder.path(), &log, address)?;
        let sent = Sent {
            body: json!({"ffqn": FUNCTION, "params": [input.to_string()]}).to_string(),
            echoed: json!({"ok": input.to_string()}),
            executions,
        };
        let used = sent.measure(&mut server).await;
        let used = used.with_context(|| engines::said(&log))?;
        server.stop()?;
        Ok(engines::found(Subject::Obelisk, &used, executions))
    }

    /// As it comes, without its web pages, with all that it keeps in `folder`.
    fn serve(&self, folder: &Path, log: &Path, address: SocketAddr) -> Result<Server> {
        let config = folder.join("server.toml");
        let deployment = folder.join("deployment.toml");
        std::fs::write(
            &config,
            format!(
                "api.listening_addr = \"{address}\"\n\
                 webui.enabled = false\n\
                 external.enabled = false\n\
                 database.sqlite.directory = {:?}\n\
                 wasm.cache_directory = {:?}\n\
                 wasm.codegen_cache.directory = {:?}\n",
                folder.join("data"),
                folder.join("wasm"),
                folder.join("code"),
            ),
        )?;
        std::fs::write(
            &deployment,
            format!(
                "[[activity_wasm]]\nname = \"echo\"\nlocation = {:?}\n",
                self.activity
            ),
        )?;
        let mut command = engines::command(&self.server, "OBELISK__");
        command.current_dir(folder);
        command.args(["server", "run", "--server-config"]);
        command.arg(&config).arg("--deployment").arg(&deployment);
        Server::told(command, address, log)
    }
}

/// What the server is sent.
struct Sent {
    body: String,
    /// What an execution that has ended well answers.
    echoed: Value,
    executions: u32,
}

impl Sent {
    async fn measure(&self, server: &mut Server) -> Result<Used> {
        engines::ready(server, server.address, "/v1/functions").await?;
        self.last(server.address).await?;
        let watch = Watch::begin(server.pid())?;
        load::run(self.submits(server), Until::Calls(self.executions - 1)).await?;
        let mut client = self.last(server.address).await?;
        let asked = Instant::now();
        let used = loop {
            // As with Restate, the look at all of them is no part of the work.
            let used = watch.end(server.pid())?;
            let path = format!("{EXECUTIONS}?hide_finished=true&length=1");
            let waiting = client.send("GET", &path, "text/plain", b"").await?;
            waiting.expect(&[200])?;
            if waiting.body.is_empty() {
                break used;
            }
            ensure!(asked.elapsed() < STALLED_AFTER, "not all ended");
            tokio::time::sleep(LOOK_EVERY).await;
        };
        self.ended_well(&mut client).await?;
        Ok(used)
    }

    fn submits(&self, server: &Server) -> Load {
        let body = self.body.as_bytes();
        Load {
            address: server.address,
            connections: CONNECTIONS,
            request: http::request("POST", server.address, EXECUTIONS, http::JSON, body),
            status: 201,
            check: Rc::new(|answer| {
                ensure!(answer.body.starts_with(b"E_"), "no id: {answer:?}");
                Ok(())
            }),
        }
    }

    /// One more execution, until it has ended: what was submitted before it is as good as done by then.
    async fn last(&self, address: SocketAddr) -> Result<Connection> {
        let mut client = Connection::open(address).await?;
        let path = format!("{EXECUTIONS}?follow=true");
        let ended = client.send("POST", &path, http::JSON, self.body.as_bytes());
        let ended = tokio::time::timeout(ENDED_WITHIN, ended).await;
        let ended = ended.context("the last execution does not end")??;
        let ended = ended.json(&[201])?;
        ensure!(ended == self.echoed, "not what was sent: {ended}");
        Ok(client)
    }

    /// Counts what has ended well, the one before the load included.
    async fn ended_well(&self, client: &mut Connection) -> Result<()> {
        let path = format!("{EXECUTIONS}?length={}", self.executions + 2);
        let all = client.send("GET", &path, "text/plain", b"").await?;
        all.expect(&[200])?;
        let all = String::from_utf8_lossy(all.body);
        let well = all.lines().filter(|line| line.contains("`Finished: OK`"));
        let expected = usize::try_from(self.executions)? + 1;
        let well = well.count();
        ensure!(
            well == expected && all.lines().count() == expected,
            "{expected} executions were accepted and {well} ended well, for example {:?}",
            all.lines().next()
        );
        Ok(())
    }
}
