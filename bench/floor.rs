//! The speed floor: what one build of Pelton costs, beside a bare HTTP server, in one run on one machine.
//!
//! `cargo bench --bench floor` measures, `docs/performance.md` says what and keeps the figures.
//!
//! - [`plan`], [`measure`], [`figure`]: which measurements there are, one each, and their names and bounds.
//! - [`rounds`]: random order, repeats of disturbed ones.
//! - [`echo`]: the loads of the echo function, which `bench/peers.rs` puts on too.
//! - [`axum_echo`]: the server that the others are compared with; this program starts itself for it.
//! - [`server`], [`pelton`]: servers as child processes, and what a client asks of Pelton.
//! - [`http`], [`load`]: the load generator.
//! - [`machine`], [`report`]: readings from `/proc`; medians, bounds and the printed table.
//!
//! **Invariant:** nothing measured ends the run with an error, however slow it is; a wrong answer always does.

mod axum_echo;
mod echo;
#[path = "floor/figure.rs"]
mod figure;
mod http;
mod load;
#[expect(dead_code, reason = "the comparison with peers uses all of it")]
mod machine;
#[path = "floor/measure.rs"]
mod measure;
mod payload;
#[expect(dead_code, reason = "the comparison with peers uses all of it")]
mod pelton;
#[path = "floor/plan.rs"]
mod plan;
mod report;
mod rounds;
#[expect(dead_code, reason = "the comparison with peers uses all of it")]
mod server;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser as _;

/// Measures Pelton against its speed floor
#[derive(Debug, clap::Parser)]
struct Args {
    /// Rounds; each takes every measurement once, in an order of its own
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time that a load lasts, in s
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Executions that the durable load enqueues
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    executions: u32,
    /// Take one measurement alone
    #[arg(long, value_enum, value_name = "WHICH")]
    only: Option<plan::Only>,
    /// The binary to measure [default: the one that was built with this program]
    #[arg(long, value_name = "FILE")]
    pelton: Option<PathBuf>,
    /// Said by `cargo bench`; nothing is measured without it, so that `cargo test --all-targets` stays quick
    #[arg(long, hide = true)]
    bench: bool,
    /// What this program was started for by itself
    #[arg(long, value_enum, hide = true, default_value_t)]
    role: Role,
}

/// What a process of this program does.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Role {
    /// It measures.
    #[default]
    Measure,
    /// It is the server that Pelton is compared with.
    AxumEcho,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.role {
        Role::AxumEcho => axum_echo::serve(),
        Role::Measure if args.bench => measure(&args),
        Role::Measure => {
            say("nothing measured: start this with `cargo bench --bench floor`");
            Ok(())
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    // One thread: the generator takes one core at most, and the servers have what is left of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the load generator's thread")?;
    let setup = measure::Setup {
        pelton: match &args.pelton {
            Some(path) => path.clone(),
            None => PathBuf::from(env!("CARGO_BIN_EXE_pelton")),
        },
        seconds: args.seconds,
        executions: args.executions,
    };
    let mut bench = measure::Bench::prepare(setup)?;
    let rounds = rounds::Rounds {
        rounds: args.rounds,
        tries: plan::TRIES,
    };
    let chosen = plan::Measurement::chosen(args.only);
    let readings = runtime.block_on(rounds::run(&mut bench, chosen, rounds))?;
    let mut stdout = io::stdout().lock();
    let floors = figure::floors(&readings);
    stdout.write_all(report::text(&readings, &floors).as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Tells whoever waits what is going on.
fn say(line: &str) {
    // Nobody reading is no reason to stop measuring.
    let _ = writeln!(io::stderr(), "{line}");
}
