//! Medians, ratios and the printed tables.
//!
//! **Invariant:** a floor is judged by medians over the rounds of one run, and missing one is said, never an error.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::machine;
use crate::measure::Found;
use crate::plan::{OTHER_CORES_MAX, TRIES};

/// The bounds of the floor.
const SYNC_CPU_RATIO_MAX: f64 = 4.0;
const DURABLE_RATE_MIN: f64 = 5_000.0;
const FIRST_ANSWER_MS_MAX: f64 = 100.0;
const IDLE_MB_MAX: f64 = 60.0;

/// What is measured; in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    BareCpu,
    BareRate,
    BareP50,
    BareP99,
    SyncCpu,
    SyncRate,
    SyncP50,
    SyncP99,
    DurableCpu,
    DurableRate,
    AcceptRate,
    AcceptP50,
    AcceptP99,
    FirstAnswer,
    Listening,
    MemoryIdle,
    MemoryAfterSync,
    MemoryAfterDurable,
}

impl Figure {
    /// The words for people, with the unit.
    fn label(self) -> &'static str {
        match self {
            Self::BareCpu => "bare axum echo: server CPU, µs/call",
            Self::BareRate => "bare axum echo: calls/s",
            Self::BareP50 => "bare axum echo: p50, ms",
            Self::BareP99 => "bare axum echo: p99, ms",
            Self::SyncCpu => "synchronous echo: server CPU, µs/call",
            Self::SyncRate => "synchronous echo: calls/s",
            Self::SyncP50 => "synchronous echo: p50, ms",
            Self::SyncP99 => "synchronous echo: p99, ms",
            Self::DurableCpu => "durable echo: server CPU, µs/execution",
            Self::DurableRate => "durable echo: executions/s, enqueue to success",
            Self::AcceptRate => "durable echo: accepted/s",
            Self::AcceptP50 => "durable echo: p50 until 202, ms",
            Self::AcceptP99 => "durable echo: p99 until 202, ms",
            Self::FirstAnswer => "start to first answer, 100 functions, ms",
            Self::Listening => "start to listening, 100 functions, ms",
            Self::MemoryIdle => "resident at rest, 100 functions, MB",
            Self::MemoryAfterSync => "resident after the synchronous load, MB",
            Self::MemoryAfterDurable => "resident after the durable load, MB",
        }
    }
}

/// What all rounds found.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    by_figure: BTreeMap<Figure, Vec<f64>>,
    /// Work of others during each measurement, in cores.
    other_cores: Vec<f64>,
}

impl Readings {
    pub(crate) fn add(&mut self, found: Found) {
        for (figure, value) in found.figures {
            self.by_figure.entry(figure).or_default().push(value);
        }
        self.other_cores.push(found.other_cores);
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        self.by_figure.get(&figure).map(|values| median(values))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (figure, value) in &self.figures {
            write!(f, "{figure:?} {}, ", number(*value))?;
        }
        write!(f, "others {:.2} cores", self.other_cores)
    }
}

/// A bound, and where the medians stand.
struct Floor {
    words: &'static str,
    value: f64,
    verdict: Verdict,
}

enum Verdict {
    Meets,
    Misses,
}

impl Floor {
    fn at_most(words: &'static str, value: f64, bound: f64) -> Self {
        Self::judged(words, value, value <= bound)
    }

    fn at_least(words: &'static str, value: f64, bound: f64) -> Self {
        Self::judged(words, value, value >= bound)
    }

    fn judged(words: &'static str, value: f64, good: bool) -> Self {
        let verdict = if good {
            Verdict::Meets
        } else {
            Verdict::Misses
        };
        Self {
            words,
            value,
            verdict,
        }
    }
}

/// The floors of what was measured.
fn floors(readings: &Readings) -> Vec<Floor> {
    let median = |figure| readings.median(figure);
    let mut floors = Vec::new();
    if let (Some(bare), Some(sync)) = (median(Figure::BareCpu), median(Figure::SyncCpu)) {
        floors.push(Floor::at_most(
            "synchronous CPU / bare axum CPU, at most 4",
            sync / bare,
            SYNC_CPU_RATIO_MAX,
        ));
    }
    if let Some(rate) = median(Figure::DurableRate) {
        floors.push(Floor::at_least(
            "durable executions/s, at least 5000",
            rate,
            DURABLE_RATE_MIN,
        ));
    }
    if let Some(first_ms) = median(Figure::FirstAnswer) {
        floors.push(Floor::at_most(
            "first answer, at most 100 ms",
            first_ms,
            FIRST_ANSWER_MS_MAX,
        ));
    }
    if let Some(idle_mb) = median(Figure::MemoryIdle) {
        floors.push(Floor::at_most(
            "resident at rest, at most 60 MB",
            idle_mb,
            IDLE_MB_MAX,
        ));
    }
    floors
}

/// The report of a run: two Markdown tables, with what is to be known of the machine.
pub(crate) fn text(readings: &Readings) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, readings);
    text
}

fn write_report(text: &mut String, readings: &Readings) -> fmt::Result {
    writeln!(
        text,
        "pelton {}, {}\n",
        env!("CARGO_PKG_VERSION"),
        machine::description()
    )?;
    writeln!(text, "| figure | median | least | most | rounds |")?;
    writeln!(text, "|---|---|---|---|---|")?;
    for (figure, values) in &readings.by_figure {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            figure.label(),
            number(median(values)),
            number(least),
            number(most),
            values.len()
        )?;
    }
    writeln!(text, "\n| floor | measured | |\n|---|---|---|")?;
    for floor in floors(readings) {
        let verdict = match floor.verdict {
            Verdict::Meets => "meets",
            Verdict::Misses => "misses",
        };
        writeln!(
            text,
            "| {} | {} | {verdict} |",
            floor.words,
            number(floor.value)
        )?;
    }
    write_disturbance(text, &readings.other_cores)
}

fn write_disturbance(text: &mut String, other_cores: &[f64]) -> fmt::Result {
    if other_cores.is_empty() {
        return writeln!(text, "\nNothing was measured.");
    }
    let most = other_cores.iter().copied().fold(0.0, f64::max);
    writeln!(
        text,
        "\nOther work during a measurement: median {:.2} cores, most {most:.2}.",
        median(other_cores)
    )?;
    let disturbed = other_cores
        .iter()
        .filter(|cores| **cores > OTHER_CORES_MAX)
        .count();
    if disturbed > 0 {
        writeln!(
            text,
            "{disturbed} of {} measurements had more than {OTHER_CORES_MAX} core of it in each of {TRIES} tries: quote ratios and CPU times of this run, not rates.",
            other_cores.len()
        )?;
    }
    Ok(())
}

/// The middle of some values; of an even number, the mean of the middle two; of none, not a number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let lower = values.len().saturating_sub(1) / 2;
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

/// Three digits that matter, no more.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
