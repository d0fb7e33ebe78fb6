//! The figures of the comparison, and what is to be reached.

use crate::engines;
use crate::guests::Foreign;
use crate::measure::tails::{self, Tail};
use crate::report::{self, Bound, Readings};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A bare HTTP server, many connections
    Axum,
    /// A bare loop over wasmtime, with Pelton's settings, on this many threads
    Loop(u32),
    /// The same with the fastest settings
    FastLoop(u32),
    /// Synchronous calls of a typed function
    Echo,
    /// The same, in instances that answer several calls
    ReusedEcho,
    /// A bare HTTP server, one connection
    AxumAlone,
    /// Synchronous calls, one connection
    EchoAlone,
    /// A web function through Pelton
    Hello,
    /// The same component through `wasmtime serve`
    Serve(Serve),
    /// At a set rate
    Tail(Tail),
    /// The first call after a deploy
    FirstCall,
    /// A function in another language through Pelton
    Foreign(Foreign),
    /// The same component in a bare loop
    ForeignLoop(Foreign),
    /// A bare loop over SQLite, many executions in a commit
    Commits,
    /// Enqueued until succeeded
    Durable,
    /// A bare loop over SQLite, one execution in a commit
    CommitsAlone,
    /// Enqueued, one connection
    EnqueueAlone,
    /// Sent to Restate until succeeded: its server, with this many partitions
    Restate(u32),
    /// The same: what its server calls
    RestateHandler(u32),
    /// Submitted to Obelisk until succeeded
    Obelisk,
}

/// How `wasmtime serve` is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Serve {
    Default,
    Tuned,
    Reuse,
}

/// How it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// CPU time of the server or loop, in µs per call
    Cpu,
    /// Calls per second
    Rate,
    /// In ms
    P50,
    /// In ms
    P99,
    /// In ms
    Most,
    /// In ms
    P999,
    /// How late the open loop itself was, in ms
    Late99,
    /// In ms
    Late999,
    /// Calls of the open loop that were due while no connection was free, in percent
    Waited,
    /// What the open loop's generator took of a core, in percent
    Busy,
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Figure(pub(crate) Subject, pub(crate) Metric);

impl Subject {
    /// Whether what is counted are executions, not calls.
    fn executes(self) -> bool {
        matches!(
            self,
            Self::Commits
                | Self::CommitsAlone
                | Self::Durable
                | Self::Restate(_)
                | Self::RestateHandler(_)
                | Self::Obelisk
        )
    }

    pub(crate) fn words(self) -> String {
        let threads = |count: u32| match count {
            1 => "one thread".to_owned(),
            count => format!("{count} threads"),
        };
        match self {
            Self::Axum => "bare axum, JSON echo".to_owned(),
            Self::Loop(count) => format!(
                "bare wasmtime, typed echo, Pelton's settings, {}",
                threads(count)
            ),
            Self::FastLoop(count) => format!(
                "bare wasmtime, typed echo, fastest settings, {}",
                threads(count)
            ),
            Self::Echo => "Pelton, typed echo, `:invoke`".to_owned(),
            Self::ReusedEcho => "Pelton, typed echo, `:invoke`, with `reuse`".to_owned(),
            Self::AxumAlone => "bare axum, one connection".to_owned(),
            Self::EchoAlone => "Pelton, `:invoke`, one connection".to_owned(),
            Self::Hello => "Pelton, HTTP hello, `/fn/`".to_owned(),
            Self::Serve(Serve::Default) => "`wasmtime serve`, HTTP hello".to_owned(),
            Self::Serve(Serve::Tuned) => "`wasmtime serve`, tuned".to_owned(),
            Self::Serve(Serve::Reuse) => "`wasmtime serve`, reuse 128".to_owned(),
            Self::Tail(whose) => whose.words().to_owned(),
            Self::FirstCall => "Pelton, first call after a deploy".to_owned(),
            Self::Foreign(which) => format!("Pelton, {}", which.words()),
            Self::ForeignLoop(which) => format!("bare wasmtime, {}", which.words()),
            Self::Commits => "bare SQLite, 64 executions a commit".to_owned(),
            Self::Durable => "Pelton, enqueue to success".to_owned(),
            Self::CommitsAlone => "bare SQLite, one execution a commit".to_owned(),
            Self::EnqueueAlone => "Pelton, `:enqueue`, one connection".to_owned(),
            Self::Restate(count) => format!("Restate's server, {count} partitions"),
            Self::RestateHandler(count) => format!("Restate's handler, {count} partitions"),
            Self::Obelisk => "Obelisk, wasm activity".to_owned(),
        }
    }
}

impl report::Figure for Figure {
    fn label(self) -> String {
        let Self(subject, metric) = self;
        let metric = match (subject, metric) {
            (subject, Metric::Cpu) if subject.executes() => "CPU, µs/execution",
            (subject, Metric::Rate) if subject.executes() => "executions/s",
            (Subject::CommitsAlone, Metric::P50) => "p50 of the first commit, ms",
            (Subject::EnqueueAlone, Metric::P50) => "p50 until 202, ms",
            (Subject::Tail(_), Metric::Rate) => "calls/s that were due",
            (_, Metric::Cpu) => "CPU, µs/call",
            (_, Metric::Rate) => "calls/s",
            (_, Metric::P50) => "p50, ms",
            (_, Metric::P99) => "p99, ms",
            (_, Metric::Most) => "most, ms",
            (_, Metric::P999) => "p99.9, ms",
            (_, Metric::Late99) => "how late the generator sent, p99, ms",
            (_, Metric::Late999) => "how late the generator sent, p99.9, ms",
            (_, Metric::Busy) => "the generator's thread, % of a core",
            (_, Metric::Waited) => "due while no connection was free, %",
        };
        format!("{}: {metric}", subject.words())
    }
}

/// What is to be reached, of what was measured.
pub(crate) fn bounds(readings: &Readings<Figure>) -> Vec<Bound> {
    let mut bounds = Vec::new();
    web(readings, &mut bounds);
    typed(readings, &mut bounds);
    tails::bounds(readings, &mut bounds);
    durable(readings, &mut bounds);
    engines::bounds(readings, &mut bounds);
    bounds
}

fn web(readings: &Readings<Figure>, bounds: &mut Vec<Bound>) {
    let cpu = |subject| readings.median(Figure(subject, Metric::Cpu));
    let serves = [
        (Serve::Default, 0.35, "`wasmtime serve` as it comes"),
        (Serve::Default, 0.25, "`wasmtime serve` as it comes"),
        (Serve::Tuned, 0.6, "`wasmtime serve` tuned"),
        (Serve::Reuse, 1.5, "`wasmtime serve` with reuse 128"),
    ];
    for (serve, bound, words) in serves {
        if let (Some(ours), Some(theirs)) = (cpu(Subject::Hello), cpu(Subject::Serve(serve))) {
            let words = format!("HTTP hello, CPU / that of {words}, at most {bound}");
            bounds.push(Bound::at_most(words, ours / theirs, bound));
        }
    }
    for (metric, words) in [(Metric::P50, "p50"), (Metric::Most, "most")] {
        if let Some(first_ms) = readings.median(Figure(Subject::FirstCall, metric)) {
            let words = format!("first call after a deploy, {words}, at most 5 ms");
            bounds.push(Bound::at_most(words, first_ms, 5.0));
        }
    }
    for which in Foreign::ALL {
        let loops = cpu(Subject::ForeignLoop(which));
        if let (Some(ours), Some(theirs)) = (cpu(Subject::Foreign(which)), loops) {
            let words = format!("{}, CPU / bare wasmtime's, at most 1.2", which.words());
            bounds.push(Bound::at_most(words, ours / theirs, 1.2));
        }
    }
}

fn typed(readings: &Readings<Figure>, bounds: &mut Vec<Bound>) {
    let median = |subject, metric| readings.median(Figure(subject, metric));
    let cpu = |subject| median(subject, Metric::Cpu);
    if let (Some(ours), Some(axum), Some(two)) = (
        cpu(Subject::Echo),
        cpu(Subject::Axum),
        cpu(Subject::FastLoop(2)),
    ) {
        bounds.push(Bound::at_most(
            "typed echo, CPU / (bare axum + bare wasmtime on two threads), at most 1.5",
            ours / (axum + two),
            1.5,
        ));
    }
    if let (Some(ours), Some(axum)) = (cpu(Subject::ReusedEcho), cpu(Subject::Axum)) {
        let words = "typed echo with `reuse`, CPU / bare axum's, at most 1.8";
        bounds.push(Bound::at_most(words, ours / axum, 1.8));
    }
    let rate = |subject| median(subject, Metric::Rate);
    if let (Some(ours), Some(axum)) = (rate(Subject::Echo), rate(Subject::Axum)) {
        bounds.push(Bound::at_least(
            "typed echo, calls/s / bare axum's, at least 0.45",
            ours / axum,
            0.45,
        ));
    }
    let p50 = |subject| median(subject, Metric::P50);
    if let (Some(ours), Some(axum)) = (p50(Subject::EchoAlone), p50(Subject::AxumAlone)) {
        bounds.push(Bound::at_most(
            "typed echo, one connection, p50 beyond bare axum's, at most 45 µs",
            (ours - axum) * 1e3,
            45.0,
        ));
    }
}

fn durable(readings: &Readings<Figure>, bounds: &mut Vec<Bound>) {
    let median = |subject, metric| readings.median(Figure(subject, metric));
    if let Some(cpu_us) = median(Subject::Durable, Metric::Cpu) {
        let words = "durable echo, CPU, at most 90 µs/execution";
        bounds.push(Bound::at_most(words, cpu_us, 90.0));
    }
    if let Some(rate) = median(Subject::Durable, Metric::Rate) {
        let words = "durable echo, at least 14000 executions/s";
        bounds.push(Bound::at_least(words, rate, 14_000.0));
    }
    let p50 = |subject| median(subject, Metric::P50);
    if let (Some(ours), Some(commit), Some(axum)) = (
        p50(Subject::EnqueueAlone),
        p50(Subject::CommitsAlone),
        p50(Subject::AxumAlone),
    ) {
        bounds.push(Bound::at_most(
            "202 at one connection, p50 beyond a bare commit and bare axum, at most 60 µs",
            (ours - commit - axum) * 1e3,
            60.0,
        ));
    }
}
