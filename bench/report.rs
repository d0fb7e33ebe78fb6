//! Medians, bounds and the printed tables.
//!
//! **Invariant:** a bound is judged by medians over the rounds of one run, and missing one is said, never an error.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::machine;
use crate::rounds::OTHER_CORES_MAX;

/// What is measured; its order is that of the table.
pub(crate) trait Figure: Copy + Ord + fmt::Debug {
    /// The words for people, with the unit.
    fn label(self) -> String;
}

/// What one measurement found.
pub(crate) struct Found<F> {
    pub(crate) figures: Vec<(F, f64)>,
    /// What other processes took of the machine meanwhile, in cores.
    pub(crate) other_cores: f64,
}

impl<F: fmt::Debug> fmt::Display for Found<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (figure, value) in &self.figures {
            write!(f, "{figure:?} {}, ", number(*value))?;
        }
        write!(f, "others {:.2} cores", self.other_cores)
    }
}

/// What all rounds found.
#[derive(Debug)]
pub(crate) struct Readings<F> {
    by_figure: BTreeMap<F, Vec<f64>>,
    /// Work of others during each measurement, in cores.
    other_cores: Vec<f64>,
    tries: u32,
}

impl<F: Figure> Readings<F> {
    /// Of measurements that were tried up to so many times each.
    pub(crate) fn new(tries: u32) -> Self {
        Self {
            by_figure: BTreeMap::new(),
            other_cores: Vec::new(),
            tries,
        }
    }

    pub(crate) fn add(&mut self, found: Found<F>) {
        for (figure, value) in found.figures {
            self.by_figure.entry(figure).or_default().push(value);
        }
        self.other_cores.push(found.other_cores);
    }

    /// Of a figure that was measured.
    pub(crate) fn median(&self, figure: F) -> Option<f64> {
        self.by_figure.get(&figure).map(|values| median(values))
    }
}

/// A bound, and where the medians stand.
pub(crate) struct Bound {
    words: String,
    value: f64,
    verdict: Verdict,
}

enum Verdict {
    Meets,
    Misses,
}

impl Bound {
    pub(crate) fn at_most(words: impl Into<String>, value: f64, bound: f64) -> Self {
        Self::judged(words, value, value <= bound)
    }

    pub(crate) fn at_least(words: impl Into<String>, value: f64, bound: f64) -> Self {
        Self::judged(words, value, value >= bound)
    }

    fn judged(words: impl Into<String>, value: f64, good: bool) -> Self {
        Self {
            words: words.into(),
            value,
            verdict: if good {
                Verdict::Meets
            } else {
                Verdict::Misses
            },
        }
    }
}

/// The report of a run: two Markdown tables, with what is to be known of the machine.
pub(crate) fn text<F: Figure>(readings: &Readings<F>, bounds: &[Bound]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, readings, bounds);
    text
}

fn write_report<F: Figure>(
    text: &mut String,
    readings: &Readings<F>,
    bounds: &[Bound],
) -> fmt::Result {
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
    writeln!(text, "\n| bound | measured | |\n|---|---|---|")?;
    for bound in bounds {
        let verdict = match bound.verdict {
            Verdict::Meets => "meets",
            Verdict::Misses => "misses",
        };
        writeln!(
            text,
            "| {} | {} | {verdict} |",
            bound.words,
            number(bound.value)
        )?;
    }
    write_disturbance(text, &readings.other_cores, readings.tries)
}

fn write_disturbance(text: &mut String, other_cores: &[f64], tries: u32) -> fmt::Result {
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
            "{disturbed} of {} measurements had more than {OTHER_CORES_MAX} core of it, however often they were tried (at most {tries}): quote ratios and CPU times of this run, not rates.",
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
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
