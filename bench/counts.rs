//! Guards: what a call takes in instructions and system calls, beside what it may take.
//!
//! `cargo bench --profile counted --bench counts` counts and compares; `docs/performance.md` says what is counted.
//!
//! - [`bounds`]: the file `bench/counts.toml`, and the comparison.
//! - [`tools`]: this program under callgrind and under strace.
//! - [`phases`], [`plane`], [`gate`]: what it does there, a known number of times.
//!
//! **Invariant:** times are never looked at; what is missing, a tool or a count, is a failure.

#[path = "counts/bounds.rs"]
mod bounds;
#[path = "counts/gate.rs"]
mod gate;
mod hello;
mod payload;
#[path = "counts/phases.rs"]
mod phases;
#[path = "counts/plane.rs"]
mod plane;
#[path = "counts/tools.rs"]
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use serde::{Deserialize, Serialize};

use crate::bounds::{Bounds, Counts, Kind};

/// Calls in a phase under callgrind: fewer than the store's writer takes into one commit.
const CALLS_UNDER_CALLGRIND: u32 = 200;
/// The same under strace.
const CALLS_UNDER_STRACE: u32 = 1000;
/// The profile that the bounds are made with.
const PROFILE: &str = "counted";

/// Counts what a call takes, and compares it with what it may take
#[derive(Debug, clap::Parser)]
struct Args {
    /// Count one kind alone
    #[arg(long, value_enum, value_name = "WHICH")]
    only: Option<Kind>,
    /// Set the bounds to what is counted, instead of comparing
    #[arg(long)]
    write: bool,
    /// Said by `cargo bench`; nothing is counted without it, so that `cargo test --all-targets` stays quick
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
    /// It has others count, and judges.
    #[default]
    Judge,
    /// It is counted.
    Plane,
}

/// What watches a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Tool {
    /// Valgrind without any: to have all code compiled.
    None,
    /// Instructions.
    Callgrind,
    /// System calls.
    Strace,
}

/// What a plane is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) tool: Tool,
    /// For everything that is written.
    pub(crate) folder: PathBuf,
    /// The typed function.
    pub(crate) echo: PathBuf,
    /// The web function.
    pub(crate) hello: PathBuf,
    /// How often a phase does its work.
    pub(crate) calls: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.role {
        Role::Plane => {
            let job: Job = serde_json::from_str(&args.job).context("no job")?;
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(phases::run(&job))
        }
        Role::Judge if args.bench => judge(&args),
        Role::Judge => {
            say("nothing counted: start this with `cargo bench --profile counted --bench counts`");
            Ok(())
        }
    }
}

fn judge(args: &Args) -> Result<()> {
    ensure!(
        profile().as_deref() == Some(PROFILE),
        "the bounds are for the profile {PROFILE}: start this with `cargo bench --profile {PROFILE} --bench counts`"
    );
    ensure!(
        std::env::var_os("CARGO_INCREMENTAL").is_none_or(|value| value == "0"),
        "an incremental build inlines less, by a tenth of all instructions: unset CARGO_INCREMENTAL"
    );
    let kinds = match args.only {
        None => Kind::ALL.to_vec(),
        Some(kind) => vec![kind],
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/counts.toml");
    let text = fs::read_to_string(&file).context("bench/counts.toml")?;
    let bounds = Bounds::read(&text).context("bench/counts.toml")?;
    let made = made()?;
    for (tool, version) in &made {
        let then = bounds.made.get(tool);
        if then != Some(version) && !args.write {
            let then = then.map_or("another one", String::as_str);
            say(&format!(
                "{tool} is {version}, the bounds were made with {then}"
            ));
        }
    }
    // A bound is the least of many runs; beside it, a run is enough that fits.
    let enough = |counts: &Counts| {
        let rows = bounds::compare(&bounds.counts, counts, &[Kind::Instructions]);
        !args.write && bounds::report(&rows).is_ok()
    };
    let counts = count(&kinds, enough)?;
    if args.write {
        let new = Bounds {
            made: match kinds.contains(&Kind::Instructions) {
                true => made,
                false => BTreeMap::new(),
            },
            counts: bounds::bounds_of(&counts),
        };
        fs::write(&file, bounds::rewritten(&text, &new, &kinds)?)?;
        say("bench/counts.toml has new bounds: say in the commit why");
        return Ok(());
    }
    let judged = bounds::report(&bounds::compare(&bounds.counts, &counts, &kinds));
    let (Ok(table) | Err(table)) = &judged;
    io::stdout().lock().write_all(table.as_bytes())?;
    if judged.is_err() {
        bail!(
            "a count is not what bench/counts.toml allows. More than may be: find out what costs it (docs/performance.md, \
             \"Guards\"). Less, or known and wanted: `cargo bench --profile counted --bench counts -- --write`, and say \
             why in the commit"
        );
    }
    Ok(())
}

fn count(kinds: &[Kind], enough: impl Fn(&Counts) -> bool) -> Result<Counts> {
    let guests = pelton::guests::find(None)?;
    let built = pelton::guests::build(&guests, &mut |line| say(line))?;
    let echo = built.iter().find(|built| built.guest.name == "echo");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("counts");
    fs::create_dir_all(&folder)?;
    let job = Job {
        tool: Tool::Callgrind,
        folder,
        echo: echo
            .context("there is no guest named echo")?
            .component
            .clone(),
        hello: hello::build()?,
        calls: CALLS_UNDER_CALLGRIND,
    };
    let mut counts = Counts::new();
    if kinds.contains(&Kind::Instructions) {
        counts.extend(tools::instructions(&job, enough)?);
    }
    if kinds.contains(&Kind::SystemCalls) {
        let job = Job {
            tool: Tool::Strace,
            calls: CALLS_UNDER_STRACE,
            ..job
        };
        counts.extend(tools::system_calls(&job)?);
    }
    Ok(counts)
}

/// The profile that this program was built with: the folder above its own.
fn profile() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?.parent()?;
    Some(folder.file_name()?.to_str()?.to_owned())
}

/// The tools that a count of instructions depends on.
fn made() -> Result<BTreeMap<String, String>> {
    Ok(BTreeMap::from([
        ("rustc".to_owned(), tools::version("rustc")?),
        ("valgrind".to_owned(), tools::version("valgrind")?),
        ("machine".to_owned(), std::env::consts::ARCH.to_owned()),
    ]))
}

/// Tells whoever waits what is going on.
pub(crate) fn say(line: &str) {
    // Nobody reading is no reason to stop counting.
    let _ = writeln!(io::stderr(), "{line}");
}
