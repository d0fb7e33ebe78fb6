//! Many functions, some of which are called far more often than others.
//!
//! **Invariant:** the same functions in the same order in every run; every call is counted by the server, with code
//! that was loaded or had to be.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::{JoinSet, LocalSet};

use crate::figures::{self, Meter};
use crate::http::{self, Connection};
use crate::load::Served;
use crate::pelton::{self, Client};
use crate::server::Server;
use crate::{Row, Setup, functions, payload, row, say};

/// Connections that call.
const CONNECTIONS: u32 = 16;
/// The function of rank n is called 1/nᵉ as often as the first.
const EXPONENT: f64 = 1.0;
const SEED: u64 = 20_261_126;
/// One answer in so many is looked at.
const CHECK_EVERY: usize = 64;
/// Room for a part of the code only, in bytes.
const CODE_BYTES_FEW: &str = "33554432";

/// Calls the functions of `folder`: with room for all code, and for a part of it.
pub(crate) async fn measure(
    setup: &Setup,
    folder: &Path,
    functions: u32,
    load_for: Duration,
) -> Result<Vec<Row>> {
    let max = functions.to_string();
    let usual = ["--functions-max", &max];
    let little = [&usual[..], &["--loaded-code-bytes-max", CODE_BYTES_FEW]].concat();
    let mut rows = Vec::new();
    for (room, flags) in [("", &usual[..]), (", 32 MiB of code kept", &little)] {
        say(&format!(
            "calling {functions} functions by Zipf's law{room}"
        ));
        let server = Server::pelton_with(&setup.pelton, folder, flags)?;
        let meter = Meter::begin(&server)?;
        let served = load(server.address, functions, load_for).await?;
        let calls = u64::try_from(served.calls())?;
        let used = meter.used()?;
        let what = format!("Zipf {EXPONENT:.1} over {functions} functions{room}");
        rows.push(row(
            format!("{what}, {CONNECTIONS} connections"),
            figures::rate(calls, used),
        ));
        rows.push(row(format!("{what}: p50 / p99"), figures::tail(&served)));
        let memory = meter.memory(&what)?;
        // A page of a thousand functions' metrics is large: not in the memory above.
        let (cold, warm) = starts(&mut Client::new(server.address).await?).await?;
        ensure!(
            cold + warm == calls,
            "{calls} calls are {cold} cold and {warm} warm starts"
        );
        rows.push(row(
            format!("{what}: calls that had to load code"),
            format!("{cold} of {calls}"),
        ));
        rows.push(memory);
        server.stop()?;
    }
    Ok(rows)
}

/// Attempts that had to load code, and those that had not.
async fn starts(client: &mut Client) -> Result<(u64, u64)> {
    let text = client.metrics().await?;
    let sum = |name: &str| -> Result<u64> {
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let values = series.filter_map(|rest| rest.rsplit_once("} "));
        values
            .map(|(_, value)| value.parse::<u64>().context("no count"))
            .sum()
    };
    Ok((
        sum("function_cold_start_total{")?,
        sum("function_warm_start_total{")?,
    ))
}

/// Who is called next.
struct Ranks {
    /// For each rank: how much weight it and those before it have.
    sums: Vec<f64>,
    random: StdRng,
}

impl Ranks {
    fn new(count: u32) -> Self {
        let weights = (1..=count).map(|rank| f64::from(rank).powf(-EXPONENT));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self {
            sums: sums.collect(),
            random: StdRng::seed_from_u64(SEED),
        }
    }

    fn next(&mut self) -> usize {
        let all = self.sums.last().copied().unwrap_or_default();
        let at = self.random.random::<f64>() * all;
        let rank = self.sums.partition_point(|sum| *sum <= at);
        rank.min(self.sums.len().saturating_sub(1))
    }
}

/// What the connections share.
struct Shared {
    requests: Vec<Vec<u8>>,
    ranks: RefCell<Ranks>,
    until: Instant,
}

async fn load(address: SocketAddr, functions: u32, load_for: Duration) -> Result<Served> {
    let call = payload::call();
    let body = call.to_string();
    let request = |number| {
        let path = pelton::invoke_path(&functions::name(number));
        http::request("POST", address, &path, http::JSON, body.as_bytes())
    };
    let shared = Rc::new(Shared {
        requests: (0..functions).map(request).collect(),
        ranks: RefCell::new(Ranks::new(functions)),
        until: Instant::now() + load_for,
    });
    let check = pelton::echoed(&call);
    let mut all_us = Vec::new();
    LocalSet::new()
        .run_until(async {
            let mut callers = JoinSet::new();
            for _ in 0..CONNECTIONS {
                let (shared, check) = (Rc::clone(&shared), Rc::clone(&check));
                callers.spawn_local(async move {
                    let mut connection = Connection::open(address).await?;
                    let mut latencies_us = Vec::new();
                    while Instant::now() < shared.until {
                        let rank = shared.ranks.borrow_mut().next();
                        let sent = Instant::now();
                        let answer = connection.call(&shared.requests[rank]).await?;
                        let latency_us = sent.elapsed().as_micros();
                        answer.expect(&[200])?;
                        if latencies_us.len() % CHECK_EVERY == 0 {
                            check(&answer)?;
                        }
                        latencies_us.push(u32::try_from(latency_us).unwrap_or(u32::MAX));
                    }
                    anyhow::Ok(latencies_us)
                });
            }
            while let Some(caller) = callers.join_next().await {
                all_us.extend(caller.context("a caller panicked")??);
            }
            anyhow::Ok(())
        })
        .await?;
    Ok(all_us.into())
}
