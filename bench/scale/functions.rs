//! Many functions: deployed, started with, called.
//!
//! **Invariant:** after the restart every function is there, and every different one answers.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};

use crate::http::Connection;
use crate::pelton::{Client, with_mark};
use crate::server::{self, Server};
use crate::{Row, Setup, machine, megabytes, payload, row, say, seconds};

/// Connections that deploy.
const DEPLOYERS: u32 = 32;
/// Starts; the middle one counts.
const STARTS: usize = 5;
/// Time that a server is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn measure(setup: &Setup, functions: u32, different: u32) -> Result<Vec<Row>> {
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
    deploy(server.address, &setup.echo, 0..different, 1).await?;
    let mut rows = vec![row(
        format!("deploying {different} different functions, compiling each"),
        seconds(began),
    )];
    let began = Instant::now();
    deploy(server.address, &setup.echo, different..functions, DEPLOYERS).await?;
    rows.push(row(
        format!(
            "deploying one wasm under {} more names",
            functions - different
        ),
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
            "{:.2} s / {:.2} s",
            middle(&mut listening),
            middle(&mut answered)
        ),
    ));
    rows.extend(at_work(&serve(folder.path())?, functions, different).await?);
    Ok(rows)
}

/// Memory at rest, and once every function has been called.
async fn at_work(server: &Server, functions: u32, different: u32) -> Result<Vec<Row>> {
    tokio::time::sleep(REST).await;
    let mut rows = vec![row(
        format!("resident at rest, {functions} functions"),
        megabytes(machine::resident_mb(server.pid())?),
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

/// Deploys functions over several connections. The code of those below `different` is told apart.
async fn deploy(
    address: SocketAddr,
    wasm: &[u8],
    numbers: std::ops::Range<u32>,
    connections: u32,
) -> Result<()> {
    let each = connections == 1;
    let started = numbers.start;
    LocalSet::new()
        .run_until(async {
            let mut deployers = JoinSet::new();
            for lane in 0..connections {
                let (wasm, end) = (wasm.to_vec(), numbers.end);
                deployers.spawn_local(async move {
                    let mut connection = Connection::open(address).await?;
                    let mut number = started + lane;
                    while number < end {
                        let wasm = if each {
                            with_mark(&wasm, number)
                        } else {
                            wasm.clone()
                        };
                        let path = format!("/v1/functions/{}", name(number));
                        let answer = connection
                            .send("PUT", &path, "application/wasm", &wasm)
                            .await?;
                        answer.expect(&[201])?;
                        number += connections;
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
    let last = numbers.end.saturating_sub(1);
    let call = json!({"input": last});
    Client::new(address).await?.invoke(&name(last), &call).await
}

fn name(number: u32) -> String {
    format!("function-{number}")
}
