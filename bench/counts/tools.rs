//! Starts this program again under callgrind and strace, and reads what they have counted.
//!
//! **Invariant:** a tool that is not there, or does not count what it should, ends the run with an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::bounds::{Counts, Name};
use crate::phases::{BETWEEN, MARK};
use crate::{Job, Tool, say};

/// System calls that are counted, together where they stand for one thing; each with the name of its bound. The last
/// one is everything else.
const WATCHED: [(&str, &[&str]); 7] = [
    ("fsync", &["fsync", "fdatasync"]),
    ("futex", &["futex"]),
    ("madvise", &["madvise"]),
    ("mmap", &["mmap"]),
    ("mprotect", &["mprotect"]),
    ("munmap", &["munmap"]),
    ("other", &[]),
];

/// Beside them: commits of the store, of each call.
const COMMITS: &str = "commits";

/// System calls that are not counted, because how many there are is a matter of time: the epochs' ticker, threads
/// that wait for others and wake them, the store's writing to its files.
const UNWATCHED: [&str; 6] = [
    "clock_nanosleep",
    "epoll_wait",
    "fcntl",
    "pread64",
    "pwrite64",
    "write",
];

/// Runs under strace.
const TRACES: u32 = 3;
/// Runs under callgrind, at most.
const COUNTINGS: u32 = 6;

/// The end of a phase, as the program says it.
#[derive(Debug, PartialEq)]
struct Mark {
    phase: String,
    calls: f64,
    commits: f64,
}

impl Mark {
    /// Reads what follows [`MARK`].
    fn read(words: &str) -> Result<Self> {
        let mut words = words.split_whitespace();
        let mut next = || words.next().context("a mark is cut off");
        Ok(Self {
            phase: next()?.to_owned(),
            calls: next()?.parse()?,
            commits: next()?.parse()?,
        })
    }

    fn is_counted(&self) -> bool {
        self.phase != BETWEEN
    }
}

/// Instructions of each call, by phase; of some runs the least of each, until that is `enough`. What is left in the
/// allocator's lists from before a phase, and in which pieces, differs from run to run: to take what a phase needs out of
/// them costs more or less, in a phase as short as a tick more than a twentieth in one run of eight.
pub(crate) fn instructions(job: &Job, enough: impl Fn(&Counts) -> bool) -> Result<Counts> {
    // First everything is compiled, for the processor that valgrind plays, where nothing is counted.
    let compile = Job {
        tool: Tool::None,
        calls: 1,
        ..job.clone()
    };
    say("compiling the functions under valgrind");
    let mut tool = Command::new("valgrind");
    tool.args(["--tool=none", "--quiet"]);
    output(start(tool, &compile)?)?;
    say("counting instructions");
    let mut least = counted(job)?;
    for _ in 1..COUNTINGS {
        if enough(&least) {
            break;
        }
        say("counting them again: the least of all runs is what is judged");
        take_least(&mut least, counted(job)?)?;
    }
    Ok(least)
}

/// Each count becomes that of another run, where there it is less.
fn take_least(least: &mut Counts, counts: Counts) -> Result<()> {
    ensure!(
        counts.len() == least.len(),
        "two runs counted different things"
    );
    for (name, count) in counts {
        let known = least.get_mut(&name).context("not counted before")?;
        *known = known.min(count);
    }
    Ok(())
}

/// One run under callgrind.
fn counted(job: &Job) -> Result<Counts> {
    let dumps = job.folder.join("callgrind");
    if dumps.exists() {
        fs::remove_dir_all(&dumps)?;
    }
    fs::create_dir_all(&dumps)?;
    let mut tool = Command::new("valgrind");
    tool.args(["--tool=callgrind", "--quiet", "--dump-after=*phase_ends*"])
        .arg(format!(
            "--callgrind-out-file={}",
            dumps.join("out").display()
        ));
    let said = output(start(tool, job)?)?;
    let mut counts = Counts::new();
    for (number, line) in (1..).zip(said.lines()) {
        let mark = line.strip_prefix(MARK).context("not a mark")?;
        let mark = Mark::read(mark).with_context(|| line.to_owned())?;
        if !mark.is_counted() {
            continue;
        }
        let dump = dumps.join(format!("out.{number}"));
        let total = total(&dump).with_context(|| dump.display().to_string())?;
        let name = Name::instructions(&mark.phase);
        ensure!(counts.insert(name, total / mark.calls).is_none(), "{line}");
        // Where somebody looks who wants to know what it went to.
        fs::rename(&dump, dumps.join(format!("{}.out", mark.phase)))?;
    }
    ensure!(!counts.is_empty(), "callgrind has counted nothing");
    say(&format!(
        "what went where: callgrind_annotate {}/PHASE.out",
        dumps.display()
    ));
    Ok(counts)
}

/// The sum of a dump of callgrind.
fn total(dump: &Path) -> Result<f64> {
    let text = fs::read_to_string(dump)?;
    let sum = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .context("no totals")?;
    Ok(sum.trim().parse()?)
}

/// System calls of each call, by phase; syncs of the disk of each commit. Of some runs the least of each: threads that
/// happen to wait for each other add to them, and nothing ever takes away what every call makes.
pub(crate) fn system_calls(job: &Job) -> Result<Counts> {
    say("counting system calls");
    let mut least = traced(job)?;
    for _ in 1..TRACES {
        take_least(&mut least, traced(job)?)?;
    }
    Ok(least)
}

fn traced(job: &Job) -> Result<Counts> {
    let trace = job.folder.join("strace.out");
    let mut tool = Command::new("strace");
    tool.args(["-f", "-qq", "-e", "trace=all", "-e", "signal=none", "-o"])
        .arg(&trace);
    output(start(tool, job)?)?;
    let text = fs::read_to_string(&trace)?;
    let counts = count_calls(&text).with_context(|| trace.display().to_string())?;
    Ok(counts)
}

fn count_calls(trace: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    let mut counted = [0_u32; WATCHED.len()];
    for line in trace.lines() {
        // The number of the thread, blanks, then the call; one that was interrupted by another thread's is named a
        // second time when it ends.
        let Some((_, line)) = line.split_once(' ') else {
            bail!("not a line of strace: {line}");
        };
        let Some((call, arguments)) = line.trim_start().split_once('(') else {
            continue;
        };
        if call.contains(' ') {
            continue;
        }
        if let Some((_, mark)) = arguments.split_once(&format!("\"{MARK} "))
            && call == "write"
        {
            let mark = mark.split_once("\\n").context("a mark is cut off")?.0;
            let mark = Mark::read(mark)?;
            if mark.is_counted() {
                add(&mut counts, &mark, &counted)?;
            }
            counted = [0; WATCHED.len()];
            continue;
        }
        if UNWATCHED.contains(&call) {
            continue;
        }
        let which = WATCHED.iter().position(|(_, calls)| calls.contains(&call));
        if let Some(count) = counted.get_mut(which.unwrap_or(WATCHED.len() - 1)) {
            *count += 1;
        }
    }
    ensure!(!counts.is_empty(), "strace has counted nothing");
    Ok(counts)
}

fn add(counts: &mut Counts, mark: &Mark, counted: &[u32]) -> Result<()> {
    ensure!(mark.calls > 0.0, "{mark:?}");
    // What a commit takes stays small however few calls share it.
    counts.insert(
        Name::system_call(&mark.phase, COMMITS),
        mark.commits / mark.calls,
    );
    for ((call, _), count) in WATCHED.iter().zip(counted) {
        let (call, per) = match *call {
            "fsync" => ("fsync_per_commit", mark.commits),
            call => (call, mark.calls),
        };
        ensure!(per > 0.0, "{mark:?}");
        let name = Name::system_call(&mark.phase, call);
        let known = counts.insert(name, f64::from(*count) / per);
        ensure!(known.is_none(), "{mark:?} comes twice");
    }
    Ok(())
}

/// This program, under a tool.
fn start(mut tool: Command, job: &Job) -> Result<Command> {
    tool.arg(std::env::current_exe()?)
        .args(["--bench", "--role", "plane", "--job"])
        .arg(serde_json::to_string(job)?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    Ok(tool)
}

/// What it writes, once it has ended well.
fn output(mut command: Command) -> Result<String> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .output()
        .with_context(|| format!("{} cannot be run: install it", program.display()))?;
    ensure!(
        output.status.success(),
        "{} ended with {}",
        program.display(),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The first line that a tool says of its version.
pub(crate) fn version(program: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null());
    let said = output(command)?;
    let line = said.lines().next().context("it has no version")?;
    Ok(line.to_owned())
}
