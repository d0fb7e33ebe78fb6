//! `pelton serve`: runs a plane until it is told to stop.
//!
//! **Invariant:** the first line on standard output is `listening on http://ADDR`, printed once calls are
//! taken; logs go to standard error.

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};
use super::{log, output};
use crate::app::App;
use crate::config::{Config, Options};

/// Run the control plane
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
}

impl Args {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let log = self.options.log.clone();
        let data_dir = self.options.data_dir.display().to_string();
        let config = Config::try_from(self.options)
            .map_err(|complaints| Failure::Usage(complaints.to_string()))?;
        log::start(&log)?;
        log::panics();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            data.dir = data_dir,
            "starting"
        );
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        raise_file_limit();
        let runtime = runtime()?;
        let ended = runtime.block_on(serve(config));
        // What still runs was either waited for, or given up for good by a second signal.
        runtime.shutdown_background();
        ended
    }
}

/// Lets the process hold as many connections and files as it is allowed to; many systems start programs
/// with a tenth of that.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, open_files = limit.current, "the limit of open files could not be raised");
    }
}

async fn serve(config: Config) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let app = tokio::select! {
        app = App::start(config) => app?,
        () = signals.next() => return Ok(Exit::Success),
    };
    if output::print(&format!("listening on http://{}", app.addr())).is_err() {
        tracing::warn!("nobody reads standard output; serving all the same");
    }
    tracing::info!(api = %app.addr(), management = %app.management_addr(), "listening");
    // What the store failed of is in the log already.
    let (exit, reason) = tokio::select! {
        () = signals.next() => (Exit::Success, "asked to"),
        _ = app.store_failed() => (Exit::StoreFailed, "the store failed"),
    };
    tracing::info!(
        stop.reason = reason,
        "stopping; a second signal quits at once"
    );
    tokio::select! {
        stopped = app.stop() => {
            let ended = match (stopped, exit) {
                (Err(error), Exit::Success) => Err(error.into()),
                (_, exit) => Ok(exit),
            };
            if let Ok(exit) = &ended {
                tracing::info!(exit.code = exit.code(), "stopped");
            }
            ended
        }
        () = signals.next() => {
            tracing::warn!("quitting at once");
            Ok(Exit::Failed)
        }
    }
}

/// Returns when the process is asked to stop for the first time. If signals cannot be listened to, never.
pub(super) async fn asked_to_stop() {
    match Signals::listen() {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The threads that a plane runs on.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    Ok(runtime.context("cannot start the threads of the server")?)
}
