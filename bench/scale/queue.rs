//! A backlog: queued, killed, found again, run.
//!
//! **Invariant:** every execution that was accepted succeeds; while they wait, their inputs are not in memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::load::{self, Load, Until};
use crate::pelton::{self, Client};
use crate::server::{self, Server};
use crate::{Row, Setup, http, machine, megabytes, row, say, seconds};

/// Connections that enqueue.
const CONNECTIONS: u32 = 64;
/// The function's name.
const ECHO: &str = "echo";
/// Time between two looks at how many executions have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time without any execution ending after which something is wrong.
const STALLED_AFTER: Duration = Duration::from_secs(60);

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
pub(crate) async fn measure(setup: &Setup, queued: u32, input_bytes: u32) -> Result<Vec<Row>> {
    let folder = server::folder()?;
    let call = call(input_bytes)?;
    let by_hand = || Server::pelton_with(&setup.pelton, folder.path(), &["--manual"]);
    say(&format!(
        "queueing {queued} executions of {input_bytes} bytes"
    ));
    let server = by_hand()?;
    let mut client = Client::new(server.address).await?;
    client.deploy(ECHO, &setup.echo, queued).await?;
    let empty_mb = machine::resident_mb(server.pid())?;
    let load = Load {
        address: server.address,
        connections: CONNECTIONS,
        request: http::request(
            "POST",
            server.address,
            &pelton::enqueue_path(ECHO),
            http::JSON,
            call.to_string().as_bytes(),
        ),
        status: 202,
        check: pelton::accepted(),
    };
    let began = Instant::now();
    load::run(load, Until::Calls(queued)).await?;
    let what = format!("{queued} executions of {input_bytes} bytes each");
    let rate = f64::from(queued) / began.elapsed().as_secs_f64();
    let queued_mb = machine::resident_mb(server.pid())?;
    let mut rows = vec![
        row(
            format!("queueing {what}"),
            format!("{} ({rate:.0}/s)", seconds(began)),
        ),
        row(
            "resident before / with them queued",
            format!("{} / {}", megabytes(empty_mb), megabytes(queued_mb)),
        ),
    ];
    // Dropped, a server is killed where it stands.
    drop(server);

    let began = Instant::now();
    let server = by_hand()?;
    rows.push(row("start after kill -9, all found again", seconds(began)));
    let mut client = Client::new(server.address).await?;
    let live = client.metric("pelton_live_executions").await?;
    ensure!(
        live == u64::from(queued),
        "{live} of {queued} were found again"
    );
    let inputs = client.metric("pelton_queued_input_bytes").await?;
    ensure!(
        inputs == 0,
        "{inputs} bytes of inputs were read before their turn"
    );
    rows.push(row(
        "resident with the backlog, inputs on disk",
        megabytes(machine::resident_mb(server.pid())?),
    ));
    server.stop()?;

    let began = Instant::now();
    let server = Server::pelton_with(&setup.pelton, folder.path(), &[])?;
    let mut client = Client::new(server.address).await?;
    all_succeed(&mut client, u64::from(queued)).await?;
    let rate = f64::from(queued) / began.elapsed().as_secs_f64();
    rows.push(row(
        "start until all have succeeded",
        format!("{} ({rate:.0}/s)", seconds(began)),
    ));
    rows.push(row(
        "most resident meanwhile",
        megabytes(machine::status_mb(server.pid(), "VmHWM:")?),
    ));
    client.check_newest(ECHO, &call).await?;
    let faults = format!("function_fault_total{{function=\"{ECHO}\"}}");
    let faults = client.metric(&faults).await?;
    ensure!(faults == 0, "some of them were failed by us");
    Ok(rows)
}

/// A call whose input has so many bytes.
fn call(input_bytes: u32) -> Result<Value> {
    // Two quotes are part of the text.
    let letters = usize::try_from(input_bytes)?.saturating_sub(2);
    Ok(json!({"input": "x".repeat(letters)}))
}

async fn all_succeed(client: &mut Client, executions: u64) -> Result<()> {
    let (mut seen, mut changed) = (0, Instant::now());
    loop {
        let succeeded = client.succeeded(ECHO).await?;
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
