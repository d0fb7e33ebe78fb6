//! The loads that more than one program puts on servers: the echo behind a bare server, called through Pelton,
//! and enqueued.
//!
//! **Invariant:** a measurement counts only what was answered rightly; how many executions succeeded is
//! compared with how many calls were made.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::load::{self, Load, Served, Until};
use crate::machine::{Used, Watch};
use crate::pelton::{self, Client};
use crate::server::Server;
use crate::{http, payload, say};

/// The function's name.
pub(crate) const ECHO: &str = "echo";
/// Load that is put on before a measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// Time between two looks at how many executions have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time without any execution ending after which something is wrong.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// The echo function, and what it is called with.
pub(crate) struct Echo {
    /// Its code.
    pub(crate) wasm: Vec<u8>,
    pub(crate) call: Value,
}

/// What came of executions that were enqueued.
pub(crate) struct Durable {
    /// Until the last one succeeded; the calls are those that enqueued.
    pub(crate) measured: Measured,
    /// Time until the last one was accepted, in s.
    pub(crate) accepted_s: f64,
}

/// What came of a load, and what the server used for it.
pub(crate) struct Measured {
    pub(crate) used: Used,
    pub(crate) served: Served,
}

impl Measured {
    /// CPU time of the server, in µs per call.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.used.server_s * 1e6 / count(self.served.calls())
    }

    /// Calls per second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.served.calls()) / self.used.elapsed_s
    }
}

#[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 calls")]
fn count(calls: usize) -> f64 {
    calls as f64
}

/// Warms a server up with a load and measures it then.
pub(crate) async fn measured(
    server: &Server,
    load: impl Fn() -> Load,
    time: Duration,
) -> Result<Measured> {
    load::run(load(), Until::After(WARM_UP)).await?;
    let watch = Watch::begin(server.pid())?;
    let served = load::run(load(), Until::After(time)).await?;
    let used = watch.end(server.pid())?;
    Ok(Measured { used, served })
}

impl Echo {
    /// Builds the function.
    pub(crate) fn build() -> Result<Self> {
        let folder = ::pelton::guests::find(None)?;
        let built = ::pelton::guests::build(&folder, &mut |line| say(line))?;
        let echo = built.iter().find(|built| built.guest.name == ECHO);
        let echo = echo.context("there is no guest named echo")?;
        Ok(Self {
            wasm: std::fs::read(&echo.component)?,
            call: payload::call(),
        })
    }

    /// Calls of a bare server, which get the JSON back.
    pub(crate) async fn bare(
        &self,
        server: &Server,
        path: &'static str,
        connections: u32,
        time: Duration,
    ) -> Result<Measured> {
        let load = || self.posts(server, path, connections);
        measured(server, load, time).await
    }

    /// Calls that get the JSON back that they send.
    pub(crate) fn posts(&self, server: &Server, path: &str, connections: u32) -> Load {
        let sent = self.call.clone();
        Load {
            address: server.address,
            connections,
            request: self.post(server, path),
            status: 200,
            check: Rc::new(move |answer| {
                ensure!(answer.json(&[200])? == sent, "not what was sent");
                Ok(())
            }),
        }
    }

    /// Synchronous calls of a function that is deployed as [`ECHO`], each in an instance of its own.
    pub(crate) async fn sync(
        &self,
        server: &Server,
        client: &mut Client,
        connections: u32,
        time: Duration,
    ) -> Result<Measured> {
        let load = || self.invokes(server, ECHO, connections);
        load::run(load(), Until::After(WARM_UP)).await?;
        let before = client.succeeded(ECHO).await?;
        let watch = Watch::begin(server.pid())?;
        let served = load::run(load(), Until::After(time)).await?;
        let used = watch.end(server.pid())?;
        let succeeded = client.succeeded(ECHO).await? - before;
        ensure!(
            usize::try_from(succeeded)? == served.calls(),
            "{} calls were answered and {succeeded} executions succeeded",
            served.calls()
        );
        Ok(Measured { used, served })
    }

    /// Enqueues [`ECHO`] this many times on a fresh server, and waits until everything has succeeded.
    pub(crate) async fn durable(
        &self,
        server: &Server,
        client: &mut Client,
        connections: u32,
        executions: u32,
    ) -> Result<Durable> {
        let watch = Watch::begin(server.pid())?;
        let load = self.enqueues(server, connections);
        let served = load::run(load, Until::Calls(executions)).await?;
        let accepted_s = watch.end(server.pid())?.elapsed_s;
        ended(client, u64::from(executions)).await?;
        let used = watch.end(server.pid())?;
        Ok(Durable {
            measured: Measured { used, served },
            accepted_s,
        })
    }

    /// Calls that are accepted and run later.
    pub(crate) fn enqueues(&self, server: &Server, connections: u32) -> Load {
        Load {
            address: server.address,
            connections,
            request: self.post(server, &pelton::enqueue_path(ECHO)),
            status: 202,
            check: pelton::accepted(),
        }
    }

    /// Synchronous calls of a function that echoes.
    pub(crate) fn invokes(&self, server: &Server, function: &str, connections: u32) -> Load {
        Load {
            address: server.address,
            connections,
            request: self.post(server, &pelton::invoke_path(function)),
            status: 200,
            check: pelton::echoed(&self.call),
        }
    }

    fn post(&self, server: &Server, path: &str) -> Vec<u8> {
        let body = self.call.to_string();
        http::request("POST", server.address, path, http::JSON, body.as_bytes())
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
