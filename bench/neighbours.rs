//! A small function and its neighbours: how long its calls take beside those that take all that they get, and how
//! long what is called now and then waits beside a backlog.
//!
//! `cargo bench --bench neighbours` measures, `docs/performance.md` says what and keeps the figures.
//!
//! - [`plan`], [`figure`]: which measurements there are, and their names and bounds.
//! - [`guests`], [`crowd`]: the neighbours, and who calls them.
//! - [`beside`]: synchronous calls beside each kind of neighbour.
//! - [`queue`]: hot and cold functions on the queue.
//! - [`open_loop`], and what `bench/floor.rs` lists: load generators, servers, rounds and tables.
//!
//! **Invariant:** a wrong answer, the small function's or a neighbour's, ends the run with an error; a slow one does not.

#[expect(dead_code, reason = "the comparison with peers uses all of it")]
mod axum_echo;
#[path = "neighbours/beside.rs"]
mod beside;
#[path = "neighbours/crowd.rs"]
mod crowd;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod echo;
#[path = "neighbours/figure.rs"]
mod figure;
#[path = "neighbours/guests.rs"]
mod guests;
mod hello;
mod http;
mod load;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod machine;
#[expect(dead_code, reason = "the comparison with peers uses all of it")]
mod open_loop;
mod payload;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod pelton;
#[path = "neighbours/plan.rs"]
mod plan;
#[path = "neighbours/queue.rs"]
mod queue;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod report;
mod rounds;
#[expect(dead_code, reason = "the comparison with peers uses all of it")]
mod server;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;

/// Calls that may wait.
const QUEUE_SIZE: u32 = 10_000;

/// Measures a small function beside its neighbours
#[derive(Debug, clap::Parser)]
struct Args {
    /// Rounds; each takes every measurement once, in an order of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time that calls at a set rate last, in s; half of it is added for one connection alone
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Calls of the small function a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Executions in the hot function's backlog
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    queued: u32,
    /// Times that a measurement is taken at most in a round, while others disturb it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    tries: u32,
    /// Take one group of measurements alone
    #[arg(long, value_enum, value_name = "WHICH")]
    only: Option<plan::Only>,
    /// The binary to measure [default: the one that was built with this program]
    #[arg(long, value_name = "FILE")]
    pelton: Option<PathBuf>,
    /// Said by `cargo bench`; nothing is measured without it, so that `cargo test --all-targets` stays quick
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured and how long.
struct Setup {
    pelton: PathBuf,
    time: Duration,
    rate: u32,
    queued: u32,
}

/// What all measurements need.
struct Bench {
    setup: Setup,
    /// The small function.
    echo: echo::Echo,
    /// A web function that sends and takes as much as it is told to.
    web_file: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if !args.bench {
        say("nothing measured: start this with `cargo bench --bench neighbours`");
        return Ok(());
    }
    // One thread: the generator takes one core at most, and the servers have what is left of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the load generator's thread")?;
    let rounds = rounds::Rounds {
        rounds: args.rounds,
        tries: args.tries,
    };
    let mut bench = Bench {
        setup: Setup {
            pelton: match args.pelton {
                Some(path) => path,
                None => PathBuf::from(env!("CARGO_BIN_EXE_pelton")),
            },
            time: Duration::from_secs(args.seconds.into()),
            rate: args.rate,
            queued: args.queued,
        },
        echo: echo::Echo::build()?,
        web_file: hello::build()?,
    };
    let chosen = plan::Measurement::chosen(args.only);
    let readings = runtime.block_on(rounds::run(&mut bench, chosen, rounds))?;
    let mut stdout = io::stdout().lock();
    let bounds = figure::bounds(&readings);
    stdout.write_all(report::text(&readings, &bounds).as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Tells whoever waits what is going on.
fn say(line: &str) {
    // Nobody reading is no reason to stop measuring.
    let _ = writeln!(io::stderr(), "{line}");
}
