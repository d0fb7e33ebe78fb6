//! Fairness on the queue: functions that are called now and then, beside one with a backlog.
//!
//! **Invariant:** the backlog lasts longer than what is measured beside it, and every execution that was accepted
//! succeeds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::echo::ECHO;
use crate::figure::{Figure, Metric, Subject};
use crate::http::{self, JSON};
use crate::load::{self, Load, Served, Until};
use crate::machine::Watch;
use crate::open_loop::{self, Open, OpenLoad, Schedule};
use crate::pelton::{self, Client};
use crate::plan;
use crate::report::Found;
use crate::server::{self, Server};
use crate::{Bench, QUEUE_SIZE, guests};

/// The function with the backlog.
const HOT: &str = "hot";
/// Functions that are called now and then, and how often each.
const COLD: u32 = 20;
const COLD_EVERY: Duration = Duration::from_millis(50);
/// Connections that enqueue the backlog, and all others.
const HOT_CONNECTIONS: u32 = 64;
const COLD_CONNECTIONS: u32 = 16;
/// Time between two looks at how many executions have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time within which what was accepted must have ended.
const ENDED_WITHIN: Duration = Duration::from_secs(60);
/// Executions on one page of a list.
const PAGE: u32 = 500;

impl Bench {
    /// Enqueues, and looks at how long what was enqueued waited.
    pub(crate) async fn queue(&self, what: plan::Load) -> Result<Found<Figure>> {
        let plan::Load { hot, with_cold } = what;
        let folder = server::folder()?;
        let serve = |flags: &[&str]| Server::pelton_with(&self.setup.pelton, folder.path(), flags);
        // By hand, so that the backlog is whole when it begins to run.
        let server = serve(&["--manual"])?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.echo.wasm, QUEUE_SIZE).await?;
        for number in 0..COLD {
            let name = cold(number);
            client.deploy(&name, &self.echo.wasm, QUEUE_SIZE).await?;
        }
        if let Some(at_once) = hot {
            self.heat(&server, &mut client, at_once).await?;
        }
        server.stop()?;
        let server = serve(&["--start-ramp-ms", "0"])?;
        let mut client = Client::new(server.address).await?;
        // The code of all cold functions: no figure has a first call in it.
        client.invoke(ECHO, &self.echo.call).await?;
        let hot_before = client.succeeded(HOT).await?;
        let watch = Watch::begin(server.pid())?;
        let enqueued = match with_cold {
            true => Some(open_loop::run(self.cold_calls(&server)).await?),
            false => {
                tokio::time::sleep(self.setup.time).await;
                None
            }
        };
        let used = watch.end(server.pid())?;
        // It may have been idle for too long.
        let mut client = Client::new(server.address).await?;
        let mut figures = Vec::new();
        if let Some(at_once) = hot {
            let rate = self.hot_rate(&mut client, hot_before, used.elapsed_s);
            let subject = match with_cold {
                true => Subject::HotBesideCold(at_once),
                false => Subject::Hot(at_once),
            };
            figures.push((Figure(subject, Metric::Rate), rate.await?));
        }
        if let Some(enqueued) = enqueued {
            let subject = Subject::Cold(hot);
            figures.extend(cold_figures(subject, &enqueued, &mut client).await?);
        }
        // What is left of the backlog is nobody's concern: killed, the server is gone at once.
        drop(server);
        Ok(Found {
            figures,
            other_cores: used.other_cores,
        })
    }

    /// Makes a backlog of which so many will run at once.
    async fn heat(&self, server: &Server, client: &mut Client, at_once: u32) -> Result<()> {
        let wasm = wat::parse_str(guests::COMPUTES).context("the hot function's text")?;
        client.deploy(HOT, &wasm, self.setup.queued).await?;
        client.patch(HOT, &json!({"concurrency": at_once})).await?;
        let load = Load {
            connections: HOT_CONNECTIONS,
            ..self.enqueues(server, HOT)
        };
        load::run(load, Until::Calls(self.setup.queued)).await?;
        Ok(())
    }

    /// Each cold function once in [`COLD_EVERY`], evenly spaced.
    fn cold_calls(&self, server: &Server) -> OpenLoad {
        let more = (1..COLD).map(|number| self.enqueues(server, &cold(number)).request);
        OpenLoad {
            load: self.enqueues(server, &cold(0)),
            more: more.collect(),
            schedule: Schedule::even(COLD_EVERY / COLD, self.setup.time),
        }
    }

    fn enqueues(&self, server: &Server, function: &str) -> Load {
        let body = self.echo.call.to_string();
        let path = pelton::enqueue_path(function);
        Load {
            address: server.address,
            connections: COLD_CONNECTIONS,
            request: http::request("POST", server.address, &path, JSON, body.as_bytes()),
            status: 202,
            check: pelton::accepted(),
        }
    }

    /// Executions of the backlog a second, which must not have come to its end.
    async fn hot_rate(&self, client: &mut Client, before: u64, elapsed_s: f64) -> Result<f64> {
        let done = client.succeeded(HOT).await?;
        ensure!(
            done < u64::from(self.setup.queued),
            "the backlog came to its end: say a larger --queued or fewer --seconds"
        );
        #[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 calls")]
        Ok((done - before) as f64 / elapsed_s)
    }
}

fn cold(number: u32) -> String {
    format!("cold-{number}")
}

/// How long the executions of the cold functions waited, and their 202.
async fn cold_figures(
    subject: Subject,
    enqueued: &Open,
    client: &mut Client,
) -> Result<Vec<(Figure, f64)>> {
    let mut waits_us = Vec::new();
    let began = Instant::now();
    for number in 0..COLD {
        let name = cold(number);
        let count = u64::from(COLD);
        let calls = u64::try_from(enqueued.served.calls())?;
        let calls = calls / count + u64::from(u64::from(number) < calls % count);
        while client.succeeded(&name).await? < calls {
            ensure!(
                began.elapsed() < ENDED_WITHIN,
                "not all of the {calls} executions of {name} succeeded"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let waited = client.waits_us(&name).await?;
        ensure!(
            u64::try_from(waited.len())? == calls,
            "{calls} executions of {name} were accepted and {} are listed",
            waited.len()
        );
        waits_us.extend(waited);
    }
    let waits: Served = waits_us.into_iter().collect();
    let figures = [
        (Metric::WaitP50, waits.within_ms(0.5)),
        (Metric::WaitP99, waits.within_ms(0.99)),
        (Metric::WaitMost, waits.within_ms(1.0)),
        (Metric::AcceptP50, enqueued.served.within_ms(0.5)),
        (Metric::AcceptP99, enqueued.served.within_ms(0.99)),
        (Metric::Late99, enqueued.late.within_ms(0.99)),
    ];
    let figures = figures.map(|(metric, ms)| (Figure(subject, metric), ms));
    Ok(figures.into())
}

impl Client {
    /// How long each execution of a function waited for its beginning, in µs, as far as ms tell.
    async fn waits_us(&mut self, function: &str) -> Result<Vec<u32>> {
        let mut waits_us = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("/v1/executions?function={function}&limit={PAGE}{next}");
            let page = self.ask("GET", &path, b"").await?.json(&[200])?;
            for execution in page["items"].as_array().context("no items in the list")? {
                ensure!(execution["status"] == "success", "{execution}");
                let wait_ms = time_ms(&execution["startedAt"])? - time_ms(&execution["createdAt"])?;
                waits_us.push(u32::try_from(wait_ms.max(0) * 1000)?);
            }
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => return Ok(waits_us),
            }
        }
    }
}

fn time_ms(value: &Value) -> Result<i64> {
    let text = value.as_str().context("no time")?;
    let time: jiff::Timestamp = text.parse().context("no time")?;
    Ok(time.as_millisecond())
}
