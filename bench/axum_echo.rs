//! The server that the others are compared with: axum, one route, JSON in and the same JSON out.
//!
//! It checks that the body is JSON without making values of it, which is the least that an echo of JSON does.
//!
//! **Invariant:** it runs on as many threads as Pelton does (tokio's default, for both), and ends with the
//! process that started it.

use std::io::{self, Read as _, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::routing::post;
use axum::{Json, Router};
use rustix::time::{ClockId, clock_gettime};
use serde_json::value::RawValue;

/// Where it takes calls.
pub(crate) const PATH: &str = "/echo";
/// Where it takes calls and computes for [`BUSY`] before each answer.
pub(crate) const BUSY_PATH: &str = "/busy";
/// About what a function and its record take of the CPU. A server that answers at that pace finds its client waiting and
/// has to wake it for every answer, where the fast echo's client never sleeps.
pub(crate) const BUSY: Duration = Duration::from_micros(25);

/// Serves on a free port of loopback until standard input ends. The first line on standard output is
/// `listening on http://ADDR`, as with Pelton.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        // The end of the parent, however it ends, closes the pipe.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = stop.send(());
    });
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot listen on loopback")?;
        writeln!(
            io::stdout(),
            "listening on http://{}",
            listener.local_addr()?
        )?;
        let echo = async |body: Json<Box<RawValue>>| body;
        let busy = async |body: Json<Box<RawValue>>| {
            compute(BUSY);
            body
        };
        let server = axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |stream| {
                // As Pelton does; with the delay on, small answers would wait for acknowledgements.
                let _ = stream.set_nodelay(true);
            }),
            Router::new()
                .route(PATH, post(echo))
                .route(BUSY_PATH, post(busy)),
        );
        tokio::select! {
            served = server => Ok(served?),
            _ = stopped => Ok(()),
        }
    })
}

/// Takes this much of the CPU, whatever else runs there meanwhile.
fn compute(time: Duration) {
    let used = || {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(
            used.tv_sec.try_into().unwrap_or(0),
            used.tv_nsec.try_into().unwrap_or(0),
        )
    };
    let until = used() + time;
    while used() < until {
        std::hint::spin_loop();
    }
}
