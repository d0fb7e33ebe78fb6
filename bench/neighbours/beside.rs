//! A small function's synchronous calls beside others that take all that they get.
//!
//! **Invariant:** the neighbours have been at work, every one of them, before anything is counted, and still are when
//! the counting ends; what the small function answered is compared with what it was sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::crowd::{Crowd, Member};
use crate::echo::ECHO;
use crate::figure::{Figure, Metric, Subject};
use crate::http::{self, JSON};
use crate::load::{self, Until};
use crate::machine::Watch;
use crate::open_loop::{self, OpenLoad, Schedule};
use crate::pelton::{self, Client};
use crate::plan::Neighbour;
use crate::report::Found;
use crate::server::{self, Server};
use crate::{Bench, QUEUE_SIZE};

/// Connections of the open loop.
const CONNECTIONS: u32 = 16;
/// Load before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// The neighbours' function.
const NEIGHBOUR: &str = "neighbour";
/// Callers of guests that take what they get.
const CALLERS: usize = 4;
/// Callers of a guest that computes for a while, and ends.
const BUSY_CALLERS: usize = 64;
/// Callers that are slow themselves, of each of two kinds.
const SLOW_CALLERS: usize = 16;
/// More than a slow caller takes or sends in the time of a measurement.
const ENDLESS: u64 = 1 << 40;
/// The same of what is held to a limit in memory.
const LONG: u64 = 4_000_000;

impl Bench {
    /// The small function's calls, beside somebody or nobody.
    pub(crate) async fn small(&self, neighbour: Option<Neighbour>) -> Result<Found<Figure>> {
        let folder = server::folder()?;
        let server = Server::pelton(&self.setup.pelton, folder.path())?;
        let mut client = Client::new(server.address).await?;
        client.deploy(ECHO, &self.echo.wasm, QUEUE_SIZE).await?;
        let crowd = match neighbour {
            Some(neighbour) => Some(self.crowd(neighbour, server.address, &mut client).await?),
            None => None,
        };
        if let Some(crowd) = &crowd {
            crowd.under_way().await?;
        }
        let invokes = |connections| self.echo.invokes(&server, ECHO, connections);
        load::run(invokes(1), Until::After(WARM_UP)).await?;
        let turns = || crowd.as_ref().map(Crowd::turns).unwrap_or_default();
        let (began, turns_before) = (Instant::now(), turns());
        let before = Client::new(server.address).await?.succeeded(ECHO).await?;
        let watch = Watch::begin(server.pid())?;
        let open = open_loop::run(OpenLoad {
            load: invokes(CONNECTIONS),
            more: Vec::new(),
            schedule: Schedule::poisson(
                self.setup.rate.into(),
                self.setup.time,
                rand::RngExt::random(&mut rand::rng()),
            ),
        });
        let open = open.await?;
        let alone = load::run(invokes(1), Until::After(self.setup.time / 2)).await?;
        let used = watch.end(server.pid())?;
        #[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 calls")]
        let rate = (turns() - turns_before) as f64 / began.elapsed().as_secs_f64();
        let after = Client::new(server.address).await?.succeeded(ECHO).await?;
        let calls = open.served.calls() + alone.calls();
        ensure!(
            usize::try_from(after - before)? == calls,
            "{calls} calls were answered and {} executions succeeded",
            after - before
        );
        let subject = Subject::Small(neighbour);
        let mut figures: Vec<(Figure, f64)> = [
            (Metric::OpenP50, open.served.within_ms(0.5)),
            (Metric::OpenP99, open.served.within_ms(0.99)),
            (Metric::OpenMost, open.served.within_ms(1.0)),
            (Metric::AloneP50, alone.within_ms(0.5)),
            (Metric::AloneP99, alone.within_ms(0.99)),
            (Metric::Late99, open.late.within_ms(0.99)),
        ]
        .map(|(metric, ms)| (Figure(subject, metric), ms))
        .into();
        if let Some(crowd) = crowd {
            ensure!(rate > 0.0, "the neighbours stood still");
            figures.push((Figure(subject, Metric::Turns), rate));
            crowd.stop()?;
        }
        server.stop()?;
        Ok(Found {
            figures,
            other_cores: used.other_cores,
        })
    }

    /// Deploys a neighbour, and starts those who call it.
    async fn crowd(
        &self,
        neighbour: Neighbour,
        address: SocketAddr,
        client: &mut Client,
    ) -> Result<Crowd> {
        let wasm = match neighbour.wat() {
            Some(text) => wat::parse_str(text).context("the neighbour's text")?,
            None => std::fs::read(&self.web_file)?,
        };
        client.deploy(NEIGHBOUR, &wasm, QUEUE_SIZE).await?;
        client.patch(NEIGHBOUR, &neighbour.spec()).await?;
        Crowd::start(address, members(neighbour, address))
    }
}

/// Who calls a neighbour.
fn members(neighbour: Neighbour, address: SocketAddr) -> Vec<Member> {
    let invoke = pelton::invoke_path(NEIGHBOUR);
    let calls = |status, callers| {
        let body = br#"{"input": 1}"#;
        let request = http::request("POST", address, &invoke, JSON, body);
        vec![Member::Calls { request, status }; callers]
    };
    match neighbour {
        Neighbour::Spinning | Neighbour::Babbling => calls("timeout", CALLERS),
        Neighbour::Hungry | Neighbour::Chatty => calls("success", CALLERS),
        Neighbour::Busy => calls("success", BUSY_CALLERS),
        Neighbour::Taken => {
            let path = format!("/fn/{NEIGHBOUR}/down?bytes={}", 1_u32 << 31);
            let request = http::request("GET", address, &path, "text/plain", b"");
            let slow = Member::TakesSlowly {
                request: request.clone(),
            };
            let silent = Member::TakesNothing { request };
            [vec![slow; SLOW_CALLERS], vec![silent; SLOW_CALLERS]].concat()
        }
        Neighbour::Sent => {
            let head = |path: &str, bytes: u64| {
                Member::SendsSlowly {
                head: format!(
                    "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {JSON}\r\nContent-Length: {bytes}\r\n\r\n"
                )
                .into_bytes(),
            }
            };
            let streamed = head(&format!("/fn/{NEIGHBOUR}/up"), ENDLESS);
            let whole = head(&invoke, LONG);
            [vec![streamed; SLOW_CALLERS], vec![whole; SLOW_CALLERS]].concat()
        }
    }
}
