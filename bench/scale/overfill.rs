//! A queue that is filled faster than it drains, for long.
//!
//! **Invariant:** every execution that was accepted ends well; everything else was refused with the time after which it
//! may come again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::{JoinSet, LocalSet};

use crate::callers::{naps, refused};
use crate::figures::{self, Disk, Meter, trend};
use crate::http::{self, Connection};
use crate::load::Served;
use crate::pelton::{self, Client};
use crate::queue::all_succeed;
use crate::server::{self, Server};
use crate::{Row, Setup, machine, megabytes, row, say, seconds};

/// Connections that enqueue without a pause, whatever they are told.
const CONNECTIONS: u32 = 64;
/// The function's name.
const NAPS: &str = "naps";
/// How long an execution takes, and how many run at once: at most 800 end in a second.
const NAP_MS: u32 = 10;
const AT_ONCE: u32 = 8;
/// How many may run at once when all is taken in.
const AT_ONCE_THEN: u32 = 256;
/// Time that a server is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);
/// Growth that is none: of sizes in MB, and of times in ms.
const SLACK_MB: f64 = 10.0;
const SLACK_MS: f64 = 2.0;

pub(crate) async fn measure(setup: &Setup, seconds_all: u32, queue: u32) -> Result<Vec<Row>> {
    let folder = server::folder()?;
    let what = format!("overfilled for {seconds_all} s, queueSize {queue}");
    say(&what);
    let server = Server::pelton_with(&setup.pelton, folder.path(), &[])?;
    let mut client = Client::new(server.address).await?;
    client.deploy(NAPS, &naps(NAP_MS)?, queue).await?;
    client.patch(NAPS, &json!({"concurrency": AT_ONCE})).await?;
    let meter = Meter::begin(&server)?;
    let shared = Rc::new(Shared {
        until: Instant::now() + Duration::from_secs(u64::from(seconds_all)),
        accepted: Cell::new(0),
        refused: Cell::new(0),
        window: RefCell::default(),
    });
    // Ten seconds apart, or sixty times if that is shorter.
    let every = Duration::from_millis((u64::from(seconds_all) * 1000 / 60).clamp(200, 10_000));
    let samples = fill(&server, &folder, &shared, every).await?;
    let used = meter.used()?;
    let accepted = shared.accepted.get();
    let calls = accepted + shared.refused.get();
    let mut rows = vec![row(
        format!("{what}, {CONNECTIONS} connections: calls"),
        figures::rate(calls, used),
    )];
    rows.extend(report(&what, &samples, queue));

    let began = Instant::now();
    // A connection that was silent for so long is closed.
    let mut client = Client::new(server.address).await?;
    let waiting = client.metric("pelton_live_executions").await?;
    client
        .patch(NAPS, &json!({"concurrency": AT_ONCE_THEN}))
        .await?;
    all_succeed(&mut client, NAPS, accepted).await?;
    let live = client.metric("pelton_live_executions").await?;
    ensure!(live == 0, "{live} more than the accepted ones are there");
    rows.push(row(
        format!("{what}: accepted, all of which succeeded; refused; the last {waiting} took"),
        format!("{accepted}; {}; {}", shared.refused.get(), seconds(began)),
    ));
    tokio::time::sleep(REST).await;
    rows.push(meter.memory(&what)?);
    server.stop()?;
    let began = Instant::now();
    let server = Server::pelton_with(&setup.pelton, folder.path(), &[])?;
    rows.push(row(
        format!("{what}: start with {accepted} ended executions"),
        seconds(began),
    ));
    server.stop()?;
    Ok(rows)
}

/// What clients share with whoever watches.
struct Shared {
    until: Instant,
    accepted: Cell<u64>,
    refused: Cell<u64>,
    /// What the calls since the last sample took.
    window: RefCell<Window>,
}

#[derive(Default)]
struct Window {
    accepted_us: Vec<u32>,
    refused_us: Vec<u32>,
}

/// What is seen at one moment; rates and times are those since the moment before.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at_s: f64,
    waiting: f64,
    accepted_per_s: f64,
    refused_per_s: f64,
    ended_per_s: f64,
    accept_p99_ms: f64,
    refuse_p99_ms: f64,
    resident_mb: f64,
    disk: Disk,
}

async fn fill(
    server: &Server,
    folder: &TempDir,
    shared: &Rc<Shared>,
    every: Duration,
) -> Result<Vec<Sample>> {
    let request: Rc<[u8]> = http::request(
        "POST",
        server.address,
        &pelton::enqueue_path(NAPS),
        http::JSON,
        br#"{"input": 1}"#,
    )
    .into();
    LocalSet::new()
        .run_until(async {
            let mut clients = JoinSet::new();
            for _ in 0..CONNECTIONS {
                let connection = Connection::open(server.address).await?;
                let (request, shared) = (Rc::clone(&request), Rc::clone(shared));
                clients.spawn_local(enqueue(connection, request, shared));
            }
            let samples = watch(server, folder, shared, every).await?;
            while let Some(client) = clients.join_next().await {
                client.context("a client panicked")??;
            }
            Ok(samples)
        })
        .await
}

async fn enqueue(mut connection: Connection, request: Rc<[u8]>, shared: Rc<Shared>) -> Result<()> {
    while Instant::now() < shared.until {
        let sent = Instant::now();
        let answer = connection.call(&request).await?;
        let took_us = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut window = shared.window.borrow_mut();
        if answer.status == 202 {
            shared.accepted.set(shared.accepted.get() + 1);
            window.accepted_us.push(took_us);
        } else {
            refused(&answer)?;
            shared.refused.set(shared.refused.get() + 1);
            window.refused_us.push(took_us);
        }
    }
    Ok(())
}

/// Looks at the server until the clients' time is over.
async fn watch(
    server: &Server,
    folder: &TempDir,
    shared: &Shared,
    every: Duration,
) -> Result<Vec<Sample>> {
    let mut client = Client::new(server.address).await?;
    let mut samples = Vec::new();
    let began = Instant::now();
    let (mut seen_at, mut seen_ended) = (began, 0);
    while Instant::now() + every <= shared.until {
        tokio::time::sleep_until((seen_at + every).into()).await;
        let ended = client.succeeded(NAPS).await?;
        let waiting = client.metric("pelton_live_executions").await?;
        let now = Instant::now();
        let passed_s = (now - seen_at).as_secs_f64();
        let per_s = |count: u64| as_f64(count) / passed_s;
        let Window {
            accepted_us,
            refused_us,
        } = shared.window.take();
        let accepted_per_s = per_s(accepted_us.len() as u64);
        let refused_per_s = per_s(refused_us.len() as u64);
        let sample = Sample {
            at_s: (now - began).as_secs_f64(),
            waiting: as_f64(waiting),
            accepted_per_s,
            refused_per_s,
            ended_per_s: per_s(ended - seen_ended),
            accept_p99_ms: Served::from(accepted_us).within_ms(0.99),
            refuse_p99_ms: Served::from(refused_us).within_ms(0.99),
            resident_mb: machine::resident_mb(server.pid())?,
            disk: Disk::of(folder.path())?,
        };
        (seen_at, seen_ended) = (now, ended);
        say(&format!(
            "  {:.0} s: {:.0} waiting, {:.0}/s accepted, {:.0}/s refused, {:.0}/s ended, 202 p99 {:.1} ms, {:.0} MB resident, \
             {:.0} MB database, {:.0} MB log",
            sample.at_s,
            sample.waiting,
            sample.accepted_per_s,
            sample.refused_per_s,
            sample.ended_per_s,
            sample.accept_p99_ms,
            sample.resident_mb,
            sample.disk.database_mb,
            sample.disk.log_mb,
        ));
        samples.push(sample);
    }
    Ok(samples)
}

/// A figure of a sample, and how much of growth is none; no trend is told where growth is meant.
struct Figure {
    name: &'static str,
    slack: Option<f64>,
    of: fn(&Sample) -> f64,
}

const FIGURES: [Figure; 9] = [
    Figure {
        name: "waiting",
        slack: None,
        of: |sample| sample.waiting,
    },
    Figure {
        name: "accepted a second",
        slack: None,
        of: |sample| sample.accepted_per_s,
    },
    Figure {
        name: "refused a second",
        slack: None,
        of: |sample| sample.refused_per_s,
    },
    Figure {
        name: "ended a second",
        slack: None,
        of: |sample| sample.ended_per_s,
    },
    Figure {
        name: "p99 of a 202, ms",
        slack: Some(SLACK_MS),
        of: |sample| sample.accept_p99_ms,
    },
    Figure {
        name: "p99 of a refusal, ms",
        slack: Some(SLACK_MS),
        of: |sample| sample.refuse_p99_ms,
    },
    Figure {
        name: "resident, MB",
        slack: Some(SLACK_MB),
        of: |sample| sample.resident_mb,
    },
    Figure {
        name: "log, MB",
        slack: Some(SLACK_MB),
        of: |sample| sample.disk.log_mb,
    },
    Figure {
        name: "database, MB (keeps all that ended)",
        slack: None,
        of: |sample| sample.disk.database_mb,
    },
];

/// The samples in short. Until the queue is full memory has to grow, with what waits; after that nothing has to.
fn report(what: &str, samples: &[Sample], queue: u32) -> Vec<Row> {
    let filled = |sample: &&Sample| sample.refused_per_s > 0.0;
    let full = samples.iter().position(|sample| filled(&sample));
    let (filling, full) = samples.split_at(full.unwrap_or(samples.len()));
    // In the first of these it became full.
    let full = full.get(1..).unwrap_or_default();
    let mut rows = Vec::new();
    for (phase, samples) in [("filling", filling), ("full", full)] {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            continue;
        };
        for Figure { name, slack, of } in &FIGURES {
            let values: Vec<f64> = samples.iter().map(of).collect();
            let most = values.iter().copied().fold(0.0, f64::max);
            if most == 0.0 {
                continue;
            }
            let slack = slack.filter(|_| phase == "full" || !name.starts_with("resident"));
            let trend = slack.map_or(String::new(), |slack| {
                format!("; {}", trend(&values, slack))
            });
            rows.push(row(
                format!("{what}, {phase}: {name}: first / last / most"),
                format!("{:.1} / {:.1} / {most:.1}{trend}", of(first), of(last)),
            ));
        }
    }
    if full.is_empty() {
        rows.push(row(format!("{what}: the {queue} places"), "never full"));
    }
    if let (Some(first), Some(last)) = (filling.first(), filling.last())
        && last.waiting > first.waiting
    {
        let bytes = (last.resident_mb - first.resident_mb) * 1e6 / (last.waiting - first.waiting);
        rows.push(row(
            format!("{what}: memory of each that waits"),
            format!(
                "{bytes:.0} bytes, {} in all",
                megabytes(bytes * f64::from(queue) / 1e6)
            ),
        ));
    }
    rows
}

fn as_f64(count: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "no count here has sixteen digits"
    )]
    let count = count as f64;
    count
}
