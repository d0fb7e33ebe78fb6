//! `pelton demo`: a plane on a temporary folder, the guest functions built and deployed over HTTP, called in
//! every way, and what happened told as a story that anybody can repeat with curl.
//!
//! **Invariant:** it talks to its plane like any client, and a result that is not what it should be ends it
//! with exit code 1.

mod story;

use std::path::PathBuf;

use anyhow::Context as _;

use self::story::Story;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::progress::Progress;
use super::serve;
use super::{log, output};
use crate::app::App;
use crate::config::{Config, LogOptions, Options};
use crate::guests::{self, Built};

/// See functions deployed, called, queued, retried and drained on a server of its own
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// End when the story is told, rather than keep serving
    #[arg(long)]
    exit: bool,
    /// The folder of the guest functions [default: the one of this repository]
    #[arg(long, value_name = "DIR")]
    guests: Option<PathBuf>,
}

impl Args {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        log::start(&LogOptions {
            log_filter: "warn".to_owned(),
            ..LogOptions::default()
        })?;
        let guests = build_guests(self.guests)?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut options = Options {
            listen: "127.0.0.1:0".to_owned(),
            management_listen: "127.0.0.1:0".to_owned(),
            data_dir: folder.path().to_owned(),
            ..Options::default()
        };
        // Nobody waits for what is called here.
        options.limits.shutdown_grace_ms = 1000;
        let config = Config::try_from(options)
            .map_err(|complaints| Failure::Usage(complaints.to_string()))?;
        let runtime = serve::runtime()?;
        let exit = runtime.block_on(async {
            let app = App::start(config).await?;
            let told = tokio::select! {
                told = tell(&app, guests, self.exit) => told,
                () = serve::asked_to_stop() => Ok(()),
            };
            app.stop().await?;
            told.map(|()| Exit::Success)
        });
        runtime.shutdown_background();
        exit
    }
}

/// What the story needs of the guests.
struct Guests {
    readme: PathBuf,
    built: Vec<Built>,
}

fn build_guests(folder: Option<PathBuf>) -> Result<Guests, Failure> {
    let folder = guests::find(folder.as_deref()).map_err(anyhow::Error::from)?;
    let progress = Progress::step("building the guest functions");
    let built = guests::build(&folder, &mut |step| progress.next_step(step));
    progress.end();
    Ok(Guests {
        readme: folder.with_file_name("README.md"),
        built: built.map_err(anyhow::Error::from)?,
    })
}

async fn tell(app: &App, guests: Guests, exit: bool) -> Result<(), Failure> {
    let server = format!("http://{}", app.addr());
    let readme = std::fs::read_to_string(&guests.readme)
        .with_context(|| format!("cannot read {}", guests.readme.display()))?;
    let story = Story::new(Client::new(&server)?, server.clone());
    story.tell(&guests.built, &readme).await?;
    if exit {
        return Ok(());
    }
    output::print(&format!(
        "\nThe plane keeps serving on {server} until ctrl-c; with it its folder goes. In another terminal:\n\
         \x20 export PELTON_SERVER={server}\n\
         \x20 pelton functions ls\n\
         \x20 pelton executions ls\n\
         \x20 pelton invoke roman-numeral -d '{{\"number\": 2026}}'"
    ))?;
    std::future::pending().await
}
