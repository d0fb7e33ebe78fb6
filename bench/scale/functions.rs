//! Many functions: deployed, started with, called.
//!
//! **Invariant:** after the restart every function is there, and every different one answers.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};

use crate::http::Connection;
use crate::pelton::{Client, with_mark};
use crate::server::{self, Server};
use crate::{Row, Setup, machine, megabytes, payload, row, say, seconds, zipf};

/// Connections that deploy.
const DEPLOYERS: u32 = 32;
/// Starts; the middle one counts.
const STARTS: usize = 5;
/// What the start until the first answer may take, for any number of functions up to 10,000.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(1);
/// What may be resident at rest with 10,000 functions of 500 different codes.
const RESIDENT_MB_MAX: f64 = 150.0;
/// Time that a server is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn measure(
    setup: &Setup,
    functions: u32,
    different: u32,
    load_for: Duration,
) -> Result<Vec<Row>> {
    let different = different.min(functions);
    let folder = server::folder()?;
    let max = functions.to_string();
    let serve =
        |folder: &Path| Server::pelton_with(&setup.pelton, folder, &["--functions-max", &max]);
    say(&format!(
        "deploying {functions} functions, {different} of them different"
    ));
    let server = serve(folder.path())?;
    let began = Instant::now();
    // One after the other: the compiler takes one at a time.
    let one_by_one = Deploy {
        numbers: 0..different,
        different,
        connections: 1,
    };
    one_by_one.run(server.address, &setup.echo).await?;
    let mut rows = vec![row(
        format!("deploying {different} different functions, compiling each"),
        seconds(began),
    )];
    let began = Instant::now();
    let more = Deploy {
        numbers: different..functions,
        different,
        connections: DEPLOYERS,
    };
    more.run(server.address, &setup.echo).await?;
    rows.push(row(
        format!("deploying them under {} more names", functions - different),
        seconds(began),
    ));
    server.stop()?;

    let call = payload::call();
    let (mut listening, mut answered) = (Vec::new(), Vec::new());
    for start in 0..STARTS {
        let began = Instant::now();
        let server = serve(folder.path())?;
        listening.push(began.elapsed());
        let mut client = Client::new(server.address).await?;
        let one = u32::try_from(start)? * 37 % functions;
        client.invoke(&name(one), &call).await?;
        answered.push(began.elapsed());
        server.stop()?;
    }
    let middle = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times.get(STARTS / 2).map_or(0.0, Duration::as_secs_f64)
    };
    rows.push(row(
        format!("start to listening / to the first answer, {functions} functions"),
        format!(
            "{:.2} s / {:.2} s: {}",
            middle(&mut listening),
            middle(&mut answered),
            verdict(
                middle(&mut answered) <= FIRST_ANSWER_MAX.as_secs_f64(),
                "at most 1 s"
            )
        ),
    ));
    let server = serve(folder.path())?;
    rows.extend(at_work(&server, functions, different).await?);
    server.stop()?;
    rows.extend(zipf::measure(setup, folder.path(), functions, load_for).await?);
    Ok(rows)
}

/// Memory at rest, and once every function has been called.
async fn at_work(server: &Server, functions: u32, different: u32) -> Result<Vec<Row>> {
    tokio::time::sleep(REST).await;
    let resident_mb = machine::resident_mb(server.pid())?;
    let mut rows = vec![row(
        format!("resident at rest, {functions} functions"),
        format!(
            "{}: {}",
            megabytes(resident_mb),
            verdict(resident_mb <= RESIDENT_MB_MAX, "at most 150 MB")
        ),
    )];
    let mut client = Client::new(server.address).await?;
    let call = payload::call();
    for number in 0..different {
        client.invoke(&name(number), &call).await?;
    }
    rows.push(row(
        format!("resident once each of the {different} different ones was called"),
        megabytes(machine::resident_mb(server.pid())?),
    ));
    for number in different..functions {
        client.invoke(&name(number), &call).await?;
    }
    tokio::time::sleep(REST).await;
    rows.push(row(
        "resident once all were called",
        megabytes(machine::resident_mb(server.pid())?),
    ));
    let began = Instant::now();
    let mut connection = Connection::open(server.address).await?;
    let list = connection
        .send("GET", "/v1/functions", crate::http::JSON, b"")
        .await?
        .json(&[200])?;
    let count = list.as_array().context("no list of functions")?.len();
    ensure!(
        count == usize::try_from(functions)?,
        "{count} functions are listed"
    );
    rows.push(row("listing all functions", seconds(began)));
    Ok(rows)
}

fn verdict(is_met: bool, bound: &str) -> String {
    let word = if is_met { "meets" } else { "**misses**" };
    format!("{word} ({bound})")
}

/// Functions to deploy over several connections.
struct Deploy {
    numbers: Range<u32>,
    /// So many codes there are: every so many functions the same one comes again.
    different: u32,
    connections: u32,
}

impl Deploy {
    async fn run(self, address: SocketAddr, wasm: &[u8]) -> Result<()> {
        let last = self.numbers.end.saturating_sub(1);
        LocalSet::new()
            .run_until(async {
                let mut deployers = JoinSet::new();
                let numbers = self.numbers.clone();
                for number in numbers.take(usize::try_from(self.connections)?) {
                    let wasm = wasm.to_vec();
                    let (end, different) = (self.numbers.end, self.different);
                    let step = usize::try_from(self.connections)?;
                    deployers.spawn_local(async move {
                        let mut connection = Connection::open(address).await?;
                        for number in (number..end).step_by(step) {
                            let wasm = with_mark(&wasm, number % different);
                            let path = format!("/v1/functions/{}", name(number));
                            let answer = connection
                                .send("PUT", &path, "application/wasm", &wasm)
                                .await?;
                            answer.expect(&[201])?;
                        }
                        anyhow::Ok(())
                    });
                }
                while let Some(deployed) = deployers.join_next().await {
                    deployed.context("a deployer panicked")??;
                }
                anyhow::Ok(())
            })
            .await?;
        // What was answered can be called.
        let call = json!({"input": last});
        Client::new(address).await?.invoke(&name(last), &call).await
    }
}

pub(crate) fn name(number: u32) -> String {
    format!("function-{number}")
}
