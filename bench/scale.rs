//! The size at which others fall over: ten thousand functions, a million queued executions over a restart, ten
//! thousand callers at once, a queue that is filled faster than it drains.
//!
//! `cargo bench --bench scale` measures, `docs/performance.md` says what and keeps the figures.
//!
//! - [`functions`]: many names of different codes; the start after that; [`zipf`]: some called far more than others.
//! - [`queue`]: a backlog that survives `kill -9` and runs.
//! - [`callers`]: synchronous callers that wait at the same time.
//! - [`overfill`]: enqueued without a pause, far more than runs.
//! - [`stops`]: how long a guest outlives its limit inside one bulk instruction.
//!
//! **Invariant:** a wrong answer, or an execution that is lost, ends the run with an error; a slow one does not.

#[path = "scale/callers.rs"]
mod callers;
#[path = "scale/figures.rs"]
mod figures;
#[path = "scale/functions.rs"]
mod functions;
mod http;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod load;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod machine;
#[path = "scale/overfill.rs"]
mod overfill;
mod payload;
#[expect(dead_code, reason = "the comparison with peers uses all of it")]
mod pelton;
#[path = "scale/queue.rs"]
mod queue;
#[expect(dead_code, reason = "the speed floor uses all of it")]
mod server;
#[path = "scale/stops.rs"]
mod stops;
#[path = "scale/zipf.rs"]
mod zipf;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;

/// The size of an input that is next to nothing, in bytes.
const SMALL_INPUT_BYTES: u32 = 64;

/// Measures Pelton at a large size
#[derive(Debug, clap::Parser)]
struct Args {
    /// Functions in all
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    functions: u32,
    /// How many of them have code of their own
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    different: u32,
    /// How long they are called by Zipf's law, twice
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    zipf_seconds: u32,
    /// Executions with inputs of 64 bytes that are queued over a restart
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    queued: u32,
    /// Size of the inputs when a tenth as many are queued again
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    input_bytes: u32,
    /// Synchronous callers that wait at once
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=25_000))]
    callers: u32,
    /// How long a queue is filled faster than it drains
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    overfill_seconds: u32,
    /// The size of that queue
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    overfill_queue: u32,
    /// Measure one part alone
    #[arg(long, value_enum, value_name = "WHICH")]
    only: Option<Part>,
    /// The binary to measure [default: the one that was built with this program]
    #[arg(long, value_name = "FILE")]
    pelton: Option<PathBuf>,
    /// Said by `cargo bench`; nothing is measured without it, so that `cargo test --all-targets` stays quick
    #[arg(long, hide = true)]
    bench: bool,
}

/// What may be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Many functions
    Functions,
    /// A backlog over a restart
    Queue,
    /// Many callers
    Callers,
    /// A queue that is filled faster than it drains
    Overfill,
    /// Guests in an instruction that cannot be interrupted
    Stops,
}

/// What all parts need.
struct Setup {
    pelton: PathBuf,
    /// The echo function's code.
    echo: Vec<u8>,
}

/// A row of the table: what, and how much.
type Row = (String, String);

fn main() -> Result<()> {
    let args = Args::parse();
    if !args.bench {
        say("nothing measured: start this with `cargo bench --bench scale`");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the load generator's thread")?;
    let rows = runtime.block_on(measure(&args))?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}\n", machine::description())?;
    writeln!(stdout, "| figure | measured |\n|---|---|")?;
    for (what, how_much) in rows {
        writeln!(stdout, "| {what} | {how_much} |")?;
    }
    Ok(())
}

async fn measure(args: &Args) -> Result<Vec<Row>> {
    let folder = ::pelton::guests::find(None)?;
    let built = ::pelton::guests::build(&folder, &mut |line| say(line))?;
    let echo = built.iter().find(|built| built.guest.name == "echo");
    let echo = echo.context("there is no guest named echo")?;
    let setup = Setup {
        pelton: match &args.pelton {
            Some(path) => path.clone(),
            None => PathBuf::from(env!("CARGO_BIN_EXE_pelton")),
        },
        echo: std::fs::read(&echo.component)?,
    };
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted(Part::Functions) {
        let load_for = Duration::from_secs(u64::from(args.zipf_seconds));
        rows.extend(functions::measure(&setup, args.functions, args.different, load_for).await?);
    }
    if wanted(Part::Queue) {
        rows.extend(queue::measure(&setup, args.queued, SMALL_INPUT_BYTES).await?);
        rows.extend(queue::measure(&setup, args.queued / 10, args.input_bytes).await?);
    }
    if wanted(Part::Callers) {
        rows.extend(callers::measure(&setup, args.callers).await?);
    }
    if wanted(Part::Overfill) {
        rows.extend(overfill::measure(&setup, args.overfill_seconds, args.overfill_queue).await?);
    }
    if wanted(Part::Stops) {
        rows.extend(stops::measure(&setup).await?);
    }
    Ok(rows)
}

/// Tells whoever waits what is going on.
fn say(line: &str) {
    // Nobody reading is no reason to stop measuring.
    let _ = writeln!(io::stderr(), "{line}");
}

fn row(what: impl Into<String>, how_much: impl Into<String>) -> Row {
    let row = (what.into(), how_much.into());
    say(&format!("  {}: {}", row.0, row.1));
    row
}

fn seconds(since: Instant) -> String {
    format!("{:.2} s", since.elapsed().as_secs_f64())
}

fn megabytes(mb: f64) -> String {
    format!("{mb:.0} MB")
}
