//! Tails at half of what the server reaches, by an open loop.
//!
//! What a server reaches is measured a moment before, by the closed loop of the other measurements. Its peer gets the
//! same calls at the same times.
//!
//! **Invariant:** both sides of a comparison are asked at one rate, by one schedule, over the same number of
//! connections.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::seq::SliceRandom as _;

use super::{Bench, CONNECTIONS, HELLO, QUEUE_SIZE, hello};
use crate::axum_echo;
use crate::echo::ECHO;
use crate::figure::{Figure, Metric, Serve, Subject};
use crate::load::{self, Load, Until};
use crate::machine::Watch;
use crate::open_loop::{self, Open, OpenLoad, Schedule};
use crate::pelton::Client;
use crate::report::{Bound, Found, Readings};
use crate::server::{self, Server};

/// Connections of the open loop: few calls are due while all of them are busy.
const OPEN_CONNECTIONS: u32 = 64;
/// Share of the top rate that calls come at.
const OF_TOP: f64 = 0.5;
/// An open loop lasts so many times as long as other loads: one call in a thousand is to be judged.
const TIMES: u32 = 4;
/// Load before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Whose tail it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tail {
    /// A typed function through Pelton
    Echo,
    /// A bare HTTP server, at the same rate
    Axum,
    /// A web function through Pelton
    Hello,
    /// The same component through `wasmtime serve`, at the same rate
    Serve,
}

impl Tail {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Echo => "Pelton, typed echo, open loop at half of its top rate",
            Self::Axum => "bare axum, open loop at the same rate",
            Self::Hello => "Pelton, HTTP hello, open loop at half of its top rate",
            Self::Serve => "`wasmtime serve` tuned, open loop at the same rate",
        }
    }

    /// What came of its load.
    fn figures(self, open: &Open) -> Vec<(Figure, f64)> {
        let figure = |metric| Figure(Subject::Tail(self), metric);
        let mut figures = Vec::from(
            [
                (Metric::P50, 0.5),
                (Metric::P99, 0.99),
                (Metric::P999, 0.999),
            ]
            .map(|(metric, share)| (figure(metric), open.served.within_ms(share))),
        );
        figures.push((figure(Metric::Late99), open.late.within_ms(0.99)));
        figures.push((figure(Metric::Late999), open.late.within_ms(0.999)));
        figures.push((figure(Metric::Waited), open.waited * 100.0));
        figures.push((figure(Metric::Busy), open.busy * 100.0));
        figures
    }
}

/// A load on a side of a comparison.
struct Side<'a> {
    tail: Tail,
    server: &'a Server,
    load: &'a dyn Fn(u32) -> Load,
}

impl Bench {
    /// Pelton's typed function beside a bare server.
    pub(crate) async fn tails(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.echo.wasm, QUEUE_SIZE).await?;
        let axum = Server::axum_echo()?;
        let invokes = |connections| self.echo.invokes(&server, ECHO, connections);
        let posts = |connections| self.echo.posts(&axum, axum_echo::PATH, connections);
        let sides = [
            Side {
                tail: Tail::Echo,
                server: &server,
                load: &invokes,
            },
            Side {
                tail: Tail::Axum,
                server: &axum,
                load: &posts,
            },
        ];
        let (found, calls) = self.compare(sides).await?;
        let succeeded = usize::try_from(client.succeeded(ECHO).await?)?;
        ensure!(
            succeeded == calls,
            "{calls} calls were answered and {succeeded} executions succeeded"
        );
        server.stop()?;
        axum.stop()?;
        Ok(found)
    }

    /// Pelton's web function beside `wasmtime serve`.
    pub(crate) async fn web_tails(&self) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = self.serve(folder.path())?;
        let mut client = Client::new(server.address).await?;
        let wasm = std::fs::read(&self.hello_file)?;
        client.deploy(HELLO, &wasm, QUEUE_SIZE).await?;
        let peer = self.start_wasmtime(Serve::Tuned)?;
        let ours = format!("/fn/{HELLO}/{HELLO}");
        let theirs = format!("/{HELLO}");
        let to = |server, path| {
            move |connections| Load {
                connections,
                ..hello(server, path)
            }
        };
        let sides = [
            Side {
                tail: Tail::Hello,
                server: &server,
                load: &to(&server, &ours),
            },
            Side {
                tail: Tail::Serve,
                server: &peer,
                load: &to(&peer, &theirs),
            },
        ];
        let (found, _) = self.compare(sides).await?;
        server.stop()?;
        peer.stop()?;
        Ok(found)
    }

    /// Measures the first side's top rate, and both at half of it, in random order; and how many calls the first
    /// side answered.
    async fn compare(&self, mut sides: [Side<'_>; 2]) -> Result<(Found<Figure>, usize)> {
        let time = self.setup.load;
        let [first, second] = &sides;
        let (tail, server) = (first.tail, first.server);
        load::run((second.load)(CONNECTIONS), Until::After(WARM_UP)).await?;
        let mut calls = load::run((first.load)(CONNECTIONS), Until::After(WARM_UP))
            .await?
            .calls();
        let watch = Watch::begin(server.pid())?;
        let top = load::run((first.load)(CONNECTIONS), Until::After(time)).await?;
        let used = watch.end(server.pid())?;
        calls += top.calls();
        #[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 calls")]
        let rate = top.calls() as f64 / used.elapsed_s * OF_TOP;
        let mut figures = vec![(Figure(Subject::Tail(tail), Metric::Rate), rate)];
        let seed = rand::RngExt::random(&mut rand::rng());
        let mut other_cores = used.other_cores;
        sides.shuffle(&mut rand::rng());
        for side in sides {
            let open = OpenLoad {
                load: (side.load)(OPEN_CONNECTIONS),
                more: Vec::new(),
                schedule: Schedule::poisson(rate, time * TIMES, seed),
            };
            let watch = Watch::begin(side.server.pid())?;
            let open = open_loop::run(open)
                .await
                .with_context(|| side.tail.words())?;
            other_cores = watch.end(side.server.pid())?.other_cores.max(other_cores);
            if side.tail == tail {
                calls += open.served.calls();
            }
            figures.extend(side.tail.figures(&open));
        }
        let found = Found {
            figures,
            other_cores,
        };
        Ok((found, calls))
    }
}

/// What is to be reached.
pub(crate) fn bounds(readings: &Readings<Figure>, bounds: &mut Vec<Bound>) {
    let p999 = |tail| readings.median(Figure(Subject::Tail(tail), Metric::P999));
    let pairs = [
        (Tail::Echo, Tail::Axum, "typed echo", "bare axum's"),
        (Tail::Hello, Tail::Serve, "HTTP hello", "`wasmtime serve`'s"),
    ];
    for (ours, theirs, what, whose) in pairs {
        if let (Some(ours), Some(theirs)) = (p999(ours), p999(theirs)) {
            let words = format!(
                "{what} at half of its top rate, open loop: p99.9 beyond twice {whose}, at most 1 ms"
            );
            bounds.push(Bound::at_most(words, ours - 2.0 * theirs, 1.0));
        }
    }
}
