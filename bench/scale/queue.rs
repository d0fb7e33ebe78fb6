//! A backlog: queued, killed, found again, run.
//!
//! **Invariant:** every execution that was accepted succeeds; while they wait, their inputs are not in memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::figures::{self, Disk, Meter};
use crate::load::{self, Load, Until};
use crate::pelton::{self, Client};
use crate::server::{self, Server};
use crate::{Row, Setup, http, machine, megabytes, row, say, seconds};

/// Connections that enqueue.
const CONNECTIONS: u32 = 64;
/// The default of `--queued-input-bytes-max`.
const INPUT_BYTES_MAX: u64 = 268_435_456;
/// The function's name.
const ECHO: &str = "echo";
/// Time between two looks at how many executions have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time without any execution ending after which something is wrong.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Time that a server is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn measure(setup: &Setup, queued: u32, input_bytes: u32) -> Result<Vec<Row>> {
    let backlog = Backlog {
        setup,
        folder: server::folder()?,
        call: call(input_bytes)?,
        queued,
        what: format!("{queued} executions of {input_bytes} bytes each"),
    };
    let mut rows = backlog.queue().await?;
    rows.extend(backlog.find_again().await?);
    rows.extend(backlog.run().await?);
    Ok(rows)
}

/// What is queued, and where.
struct Backlog<'a> {
    setup: &'a Setup,
    folder: TempDir,
    call: Value,
    queued: u32,
    what: String,
}

impl Backlog<'_> {
    /// A server of this backlog.
    fn serve(&self, flags: &[&str]) -> Result<Server> {
        Server::pelton_with(&self.setup.pelton, self.folder.path(), flags)
    }

    /// Queues it; the server is killed then.
    async fn queue(&self) -> Result<Vec<Row>> {
        let Self { what, queued, .. } = self;
        say(&format!("queueing {what}"));
        let server = self.serve(&["--manual"])?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.setup.echo, *queued).await?;
        let load = Load {
            address: server.address,
            connections: CONNECTIONS,
            request: http::request(
                "POST",
                server.address,
                &pelton::enqueue_path(ECHO),
                http::JSON,
                self.call.to_string().as_bytes(),
            ),
            status: 202,
            check: pelton::accepted(),
        };
        let meter = Meter::begin(&server)?;
        let served = load::run(load, Until::Calls(*queued)).await?;
        let rate = figures::rate(u64::from(*queued), meter.used()?);
        // A connection that was silent for so long is closed.
        let mut client = Client::new(server.address).await?;
        let inputs = client.metric("pelton_queued_input_bytes").await?;
        ensure!(
            inputs <= INPUT_BYTES_MAX,
            "{inputs} bytes of inputs are in memory"
        );
        let Disk {
            database_mb,
            log_mb,
        } = Disk::of(self.folder.path())?;
        let rows = vec![
            row(format!("queueing {what}, {CONNECTIONS} connections"), rate),
            row(
                format!("{what}: p50 / p99 of a 202"),
                figures::tail(&served),
            ),
            meter.memory(&format!("{what}, queueing"))?,
            row(
                format!("{what}: database and its log on disk"),
                format!("{} + {}", megabytes(database_mb), megabytes(log_mb)),
            ),
        ];
        // Dropped, a server is killed where it stands.
        drop(server);
        Ok(rows)
    }

    /// The first start after the kill.
    async fn find_again(&self) -> Result<Vec<Row>> {
        let Self { what, queued, .. } = self;
        let began = Instant::now();
        let server = self.serve(&["--manual"])?;
        let took = seconds(began);
        let mut client = Client::new(server.address).await?;
        let live = client.metric("pelton_live_executions").await?;
        ensure!(
            live == u64::from(*queued),
            "{live} of {queued} were found again"
        );
        let inputs = client.metric("pelton_queued_input_bytes").await?;
        ensure!(
            inputs == 0,
            "{inputs} bytes of inputs were read before their turn"
        );
        let rows = vec![
            row(
                format!("{what}: start after kill -9, all found again"),
                took,
            ),
            row(
                format!("{what}: resident with the backlog, inputs on disk"),
                megabytes(machine::resident_mb(server.pid())?),
            ),
        ];
        server.stop()?;
        Ok(rows)
    }

    /// A start that lets it run.
    async fn run(&self) -> Result<Vec<Row>> {
        let Self { what, queued, .. } = self;
        let began = Instant::now();
        let server = self.serve(&[])?;
        let meter = Meter::begin(&server)?;
        let mut client = Client::new(server.address).await?;
        all_succeed(&mut client, ECHO, u64::from(*queued)).await?;
        let rate = figures::rate(u64::from(*queued), meter.used()?);
        let mut rows = vec![row(
            format!("{what}: start until all have succeeded"),
            format!("{} ({rate})", seconds(began)),
        )];
        client.check_newest(ECHO, &self.call).await?;
        let faults = format!("function_fault_total{{function=\"{ECHO}\"}}");
        let faults = client.metric(&faults).await?;
        ensure!(faults == 0, "some of them were failed by us");
        tokio::time::sleep(REST).await;
        rows.push(meter.memory(&format!("{what}, running"))?);
        let database_mb = Disk::of(self.folder.path())?.database_mb;
        rows.push(row(
            format!("{what}: database with all results"),
            megabytes(database_mb),
        ));
        server.stop()?;
        Ok(rows)
    }
}

/// A call whose input has so many bytes.
fn call(input_bytes: u32) -> Result<Value> {
    // Two quotes are part of the text.
    let letters = usize::try_from(input_bytes)?.saturating_sub(2);
    Ok(json!({"input": "x".repeat(letters)}))
}

/// Waits until so many executions of a function have ended well.
pub(crate) async fn all_succeed(client: &mut Client, name: &str, executions: u64) -> Result<()> {
    let (mut seen, mut changed) = (0, Instant::now());
    loop {
        let succeeded = client.succeeded(name).await?;
        if succeeded == executions {
            return Ok(());
        }
        if succeeded != seen {
            (seen, changed) = (succeeded, Instant::now());
        }
        ensure!(
            succeeded < executions && changed.elapsed() < STALLED_AFTER,
            "{succeeded} of {executions} succeeded"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Client {
    /// A figure of the metrics.
    pub(crate) async fn metric(&mut self, series: &str) -> Result<u64> {
        let text = self.metrics().await?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.with_context(|| format!("there is no {series}"))?;
        value
            .parse()
            .with_context(|| format!("{series} is {value}"))
    }
}
