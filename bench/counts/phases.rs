//! What the plane is made to do, phase by phase, while a tool counts.
//!
//! Under callgrind the store's writer is stopped during each phase, so that what is handed to it shares one commit in
//! every run. Under strace it goes its own way, so that who wakes whom, and how often, is what it is in a server.
//!
//! **Invariant:** every phase does its work the same number of times, and what it did has succeeded.

use std::future::Future;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future::{join_all, poll_immediate};
use pelton::execution::Status;

use crate::plane::{Held, Plane, Work, function};
use crate::{Job, Tool, payload};

/// Calls before anything is counted: what is made at first use is made then.
const WARM_UP: u32 = 20;

const ECHO: &str = "echo";
const INVOKE: &str = "/v1/functions/echo:invoke";
const ENQUEUE: &str = "/v1/functions/echo:enqueue";
const HELLO: &str = "hello";
const GREET: &str = "/fn/hello/hello";
const JSON: &str = "application/json";

/// What comes before the first phase, and between phases: nobody asks what it takes.
pub(crate) const BETWEEN: &str = "between";

/// What the mark of a phase's end begins with.
pub(crate) const MARK: &str = "phase";

/// Does what the job says.
pub(crate) async fn run(job: &Job) -> Result<()> {
    let phases = Phases { job };
    phases.synchronous().await?;
    if job.tool != Tool::None {
        phases.durable().await?;
    }
    Ok(())
}

struct Phases<'j> {
    job: &'j Job,
}

/// Whether a phase counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    WarmUp,
    Counted,
}

impl Phases<'_> {
    /// The end of a phase, in which this much was done, in this many commits.
    fn end(&self, phase: &str, commits: u64) -> Result<()> {
        let line = format!("{MARK} {phase} {} {commits}\n", self.job.calls);
        // At once and whole, as one system call.
        io::stdout().lock().write_all(line.as_bytes())?;
        phase_ends();
        Ok(())
    }

    /// Everything up to here belongs to no phase.
    fn begin(&self) -> Result<()> {
        self.end(BETWEEN, 0)
    }

    /// Stops the store's writer, where that belongs to the job.
    async fn hold<'p>(&self, plane: &'p Plane) -> Result<Option<Held<'p>>> {
        match self.job.tool {
            Tool::None | Tool::Callgrind => Ok(Some(plane.hold().await?)),
            Tool::Strace => {
                plane.flush().await?;
                Ok(None)
            }
        }
    }

    async fn synchronous(&self) -> Result<()> {
        let plane = Plane::start(self.job, Work::ByItself, "synchronous").await?;
        plane.deploy(ECHO, read(&self.job.echo)?).await?;
        plane.deploy(HELLO, read(&self.job.hello)?).await?;
        let call = Bytes::from(payload::call().to_string());
        let typed = || async {
            let (status, body) = plane.ask("POST", INVOKE, JSON, call.clone()).await?;
            ensure!(status == 200, "{status} {body:?}");
            Ok(body)
        };
        let web = || async {
            let (status, body) = plane.ask("GET", GREET, "text/plain", Bytes::new()).await?;
            ensure!(status == 200 && body == HELLO, "{status} {body:?}");
            Ok(body)
        };
        for _ in 0..WARM_UP {
            let answer: serde_json::Value = serde_json::from_slice(&typed().await?)?;
            ensure!(answer["status"] == "success", "{answer}");
            web().await?;
        }
        self.calls(&plane, "typed_call", Some("typed_record"), typed)
            .await?;
        self.calls(&plane, "http_call", None, web).await
    }

    /// Calls one after the other, and what the store makes of them: a phase of its own if it has a name.
    async fn calls<F: Future<Output = Result<Bytes>>>(
        &self,
        plane: &Plane,
        name: &str,
        record: Option<&str>,
        call: impl Fn() -> F,
    ) -> Result<()> {
        let held = self.hold(plane).await?;
        let commits = plane.stats().commits;
        self.begin()?;
        for _ in 0..self.job.calls {
            call().await?;
        }
        match held {
            None => {
                plane.flush().await?;
                self.end(name, plane.stats().commits - commits)
            }
            Some(held) => {
                self.end(name, 0)?;
                held.release().await?;
                plane.flush().await?;
                self.end(record.unwrap_or(BETWEEN), 0)
            }
        }
    }

    async fn durable(&self) -> Result<()> {
        let plane = Plane::start(self.job, Work::ByHand, "durable").await?;
        plane.deploy(ECHO, read(&self.job.echo)?).await?;
        let call = Bytes::from(payload::call().to_string());
        for round in [Round::WarmUp, Round::Counted] {
            self.accept(&plane, &call, round).await?;
            self.execute(&plane, round).await?;
        }
        Ok(())
    }

    fn count(&self, round: Round) -> u32 {
        match round {
            Round::WarmUp => WARM_UP,
            Round::Counted => self.job.calls,
        }
    }

    /// Enqueues many calls at once.
    async fn accept(&self, plane: &Plane, call: &Bytes, round: Round) -> Result<()> {
        let count = self.count(round);
        let held = self.hold(plane).await?;
        let commits = plane.stats().commits;
        self.begin()?;
        let mut accepts =
            join_all((0..count).map(|_| plane.ask("POST", ENQUEUE, JSON, call.clone())));
        if let Some(held) = held {
            while plane.stats().queue_ops < u64::from(count) {
                ensure!(poll_immediate(&mut accepts).await.is_none(), "no commit");
                tokio::task::yield_now().await;
            }
            held.release().await?;
        }
        for answer in accepts.await {
            let (status, body) = answer?;
            ensure!(status == 202, "{status} {body:?}");
        }
        self.end_round("accept", round, plane.stats().commits - commits)
    }

    /// Runs what waits in the queue.
    async fn execute(&self, plane: &Plane, round: Round) -> Result<()> {
        let count = self.count(round);
        let held = self.hold(plane).await?;
        let echo = function(ECHO)?;
        let commits = plane.stats().commits;
        self.begin()?;
        let mut handles = Vec::new();
        for _ in 0..count {
            let ticked = plane.scheduler().tick_once(&echo)?;
            handles.push(ticked.context("nothing to do")?);
        }
        if let Some(held) = held {
            self.end_round("tick", round, 0)?;
            while plane.stats().queue_ops < u64::from(count) {
                tokio::task::yield_now().await;
            }
            self.end_round("run", round, 0)?;
            held.release().await?;
        }
        for handle in handles {
            let finalized = handle.await?;
            ensure!(finalized.status == Status::Success, "{finalized:?}");
        }
        let name = match self.job.tool {
            Tool::None | Tool::Callgrind => "finish",
            Tool::Strace => "execution",
        };
        self.end_round(name, round, plane.stats().commits - commits)
    }

    fn end_round(&self, name: &str, round: Round, commits: u64) -> Result<()> {
        match round {
            Round::WarmUp => self.begin(),
            Round::Counted => self.end(name, commits),
        }
    }
}

/// Callgrind writes down what it has counted whenever this returns: its name is that of an option of ours.
#[inline(never)]
fn phase_ends() {
    black_box(());
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
