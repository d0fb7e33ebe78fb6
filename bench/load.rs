//! Closed-loop load: each connection sends its next call when it has the answer to the last.
//!
//! **Invariant:** every status is checked, and every so many bodies; the first wrong answer ends the load
//! with an error.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::{JoinSet, LocalSet};

use crate::http::{Answer, Connection};

/// One body in so many is looked at.
pub(crate) const CHECK_EVERY: usize = 64;

/// Looks at an answer's body.
pub(crate) type Check = Rc<dyn Fn(&Answer<'_>) -> Result<()>>;

/// A load to put on a server.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: u32,
    /// The request that every call sends.
    pub(crate) request: Vec<u8>,
    /// The status that every call must be answered with.
    pub(crate) status: u16,
    pub(crate) check: Check,
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// This long after it began.
    After(Duration),
    /// When this many calls were made.
    Calls(u32),
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Time that each call took, in µs, ascending.
    latencies_us: Vec<u32>,
}

impl From<Vec<u32>> for Served {
    /// What calls came to that took so many µs each.
    fn from(mut latencies_us: Vec<u32>) -> Self {
        latencies_us.sort_unstable();
        Self { latencies_us }
    }
}

impl Served {
    /// How many calls were answered.
    pub(crate) fn calls(&self) -> usize {
        self.latencies_us.len()
    }

    /// The time within which this share of the calls was answered, in ms.
    pub(crate) fn within_ms(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a count is a count"
        )]
        let rank = (last as f64 * share) as usize;
        let latency_us = self.latencies_us.get(rank).copied().unwrap_or_default();
        f64::from(latency_us) / 1000.0
    }
}

impl FromIterator<u32> for Served {
    /// Of times in µs, in any order.
    fn from_iter<I: IntoIterator<Item = u32>>(latencies_us: I) -> Self {
        let mut latencies_us: Vec<u32> = latencies_us.into_iter().collect();
        latencies_us.sort_unstable();
        Self { latencies_us }
    }
}

/// What the connections of one load share.
struct Shared {
    load: Load,
    until: Until,
    began: Instant,
    begun: Cell<u32>,
}

impl Shared {
    /// Whether one more call may begin; counts it if so.
    fn next(&self) -> Option<()> {
        let begun = self.begun.get();
        let more = match self.until {
            Until::After(time) => self.began.elapsed() < time,
            Until::Calls(calls) => begun < calls,
        };
        self.begun.set(begun.saturating_add(1));
        more.then_some(())
    }
}

/// Puts a load on its server.
pub(crate) async fn run(load: Load, until: Until) -> Result<Served> {
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Connection::open(load.address).await?);
    }
    let shared = Rc::new(Shared {
        load,
        until,
        began: Instant::now(),
        begun: Cell::new(0),
    });
    let mut all_us = Vec::new();
    LocalSet::new()
        .run_until(async {
            let mut clients = JoinSet::new();
            for connection in connections {
                clients.spawn_local(one_after_the_other(connection, Rc::clone(&shared)));
            }
            while let Some(latencies_us) = clients.join_next().await {
                let latencies_us = latencies_us.context("a client panicked")??;
                all_us.extend(latencies_us);
            }
            anyhow::Ok(())
        })
        .await?;
    Ok(all_us.into())
}

async fn one_after_the_other(mut connection: Connection, shared: Rc<Shared>) -> Result<Vec<u32>> {
    let load = &shared.load;
    let mut latencies_us = Vec::new();
    while let Some(()) = shared.next() {
        let sent = Instant::now();
        let answer = connection.call(&load.request).await?;
        let latency_us = sent.elapsed().as_micros();
        answer.expect(&[load.status])?;
        if latencies_us.len() % CHECK_EVERY == 0 {
            (load.check)(&answer)?;
        }
        latencies_us.push(u32::try_from(latency_us).unwrap_or(u32::MAX));
    }
    Ok(latencies_us)
}
