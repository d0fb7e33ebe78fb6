//! Pelton beside its peers, in one run: `wasmtime serve`, bare loops over wasmtime and SQLite, a bare HTTP server.
//!
//! `cargo bench --bench peers` measures, `docs/performance.md` says what and keeps the figures.
//!
//! - [`plan`], [`measure`], [`figure`]: which measurements there are, one each, and their names and bounds.
//! - [`guests`], [`hello`]: the components that are called.
//! - [`engines`], [`restate`], [`obelisk`]: durable engines of others.
//! - [`bare`], [`commits`], [`axum_echo`]: peers that this program is itself, started again in a role.
//! - [`measure::tails`]: tails at a set rate, by the generator in [`open_loop`].
//! - [`plot`]: the picture of it.
//! - what `bench/floor.rs` lists: the load generator, servers, rounds and tables.
//! - [`tools`], [`wit`], [`programs`]: what `tests/foreign` fetches, to build JavaScript and Python.
//!
//! **Invariant:** a peer that is not there is said in the report and keeps nothing else from being measured; a
//! wrong answer ends the run with an error.

mod axum_echo;
#[path = "peers/bare.rs"]
mod bare;
#[path = "peers/commits.rs"]
mod commits;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod echo;
#[path = "peers/engines.rs"]
mod engines;
#[path = "peers/figure.rs"]
mod figure;
#[path = "peers/guests.rs"]
mod guests;
mod hello;
mod http;
mod load;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod machine;
#[path = "peers/measure.rs"]
mod measure;
#[path = "peers/obelisk.rs"]
mod obelisk;
#[expect(dead_code, reason = "the neighbours use all of it")]
mod open_loop;
mod payload;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod pelton;
#[path = "peers/plan.rs"]
mod plan;
#[path = "peers/plot.rs"]
mod plot;
#[path = "../tests/foreign/programs.rs"]
mod programs;
mod report;
#[path = "peers/restate.rs"]
mod restate;
mod rounds;
mod server;
#[path = "../tests/foreign/tools.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "made for tests, which use all of it"
)]
mod tools;
#[path = "../tests/foreign/wit.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "made for tests, which use all of it"
)]
mod wit;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser as _;

/// Measures Pelton beside its peers
#[derive(Debug, clap::Parser)]
struct Args {
    /// Rounds; each takes every measurement once, in an order of its own
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time that a load lasts, in ms
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    load_ms: u64,
    /// Times that a measurement is taken at most in a round, while others disturb it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    tries: u32,
    /// Take one group of measurements alone
    #[arg(long, value_enum, value_name = "WHICH")]
    only: Option<plan::Only>,
    /// The binary to measure [default: the one that was built with this program]
    #[arg(long, value_name = "FILE")]
    pelton: Option<PathBuf>,
    /// `wasmtime` of the version that Pelton is built with [default: the one on the search path, if any]
    #[arg(long, value_name = "FILE")]
    wasmtime: Option<PathBuf>,
    /// Restate's server [default: the one on the search path; else npm's, fetched]
    #[arg(long, value_name = "FILE")]
    restate: Option<PathBuf>,
    /// `obelisk` [default: the one on the search path, if any]
    #[arg(long, value_name = "FILE")]
    obelisk: Option<PathBuf>,
    /// Executions that a durable load enqueues; a fifth of them for Obelisk
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    executions: u32,
    /// Draw the medians into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Said by `cargo bench`; nothing is measured without it, so that `cargo test --all-targets` stays quick
    #[arg(long, hide = true)]
    bench: bool,
    /// What this program was started for by itself
    #[arg(long, value_enum, hide = true, default_value_t)]
    role: Role,
    /// What to do in a role, as JSON
    #[arg(long, hide = true, default_value = "")]
    job: String,
}

/// What a process of this program does.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Role {
    /// It measures.
    #[default]
    Measure,
    /// It is a bare HTTP server.
    AxumEcho,
    /// It is a bare loop over wasmtime.
    Loop,
    /// It is a bare loop over SQLite.
    Commits,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.role {
        Role::AxumEcho => axum_echo::serve(),
        Role::Loop => bare::run(&args.job),
        Role::Commits => commits::run(&args.job),
        Role::Measure if args.bench => measure(args),
        Role::Measure => {
            say("nothing measured: start this with `cargo bench --bench peers`");
            Ok(())
        }
    }
}

fn measure(args: Args) -> Result<()> {
    // One thread: the generator takes one core at most, and the servers have what is left of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the load generator's thread")?;
    let setup = measure::Setup {
        pelton: match args.pelton {
            Some(path) => path,
            None => PathBuf::from(env!("CARGO_BIN_EXE_pelton")),
        },
        wasmtime: args.wasmtime,
        engines: engines::Named {
            restate: args.restate,
            obelisk: args.obelisk,
        },
        executions: args.executions,
        load: std::time::Duration::from_millis(args.load_ms),
    };
    let rounds = rounds::Rounds {
        rounds: args.rounds,
        tries: args.tries,
    };
    let (readings, missing) = runtime.block_on(async {
        let mut bench = measure::Bench::prepare(setup, args.only).await?;
        let chosen = plan::Measurement::chosen(args.only, &bench);
        let readings = rounds::run(&mut bench, chosen, rounds).await?;
        anyhow::Ok((readings, bench.missing()))
    })?;
    if let Some(path) = &args.svg {
        let drawn = plot::svg(&readings);
        std::fs::write(path, drawn).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut stdout = io::stdout().lock();
    let bounds = figure::bounds(&readings);
    stdout.write_all(report::text(&readings, &bounds).as_bytes())?;
    for peer in missing {
        writeln!(stdout, "\nMissing: {peer}.")?;
    }
    stdout.flush()?;
    Ok(())
}

/// Tells whoever waits what is going on.
fn say(line: &str) {
    // Nobody reading is no reason to stop measuring.
    let _ = writeln!(io::stderr(), "{line}");
}
