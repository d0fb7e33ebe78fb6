//! The figures of a small function and its neighbours, and what is to be reached.

use crate::plan::Neighbour;
use crate::report::{self, Bound, Readings};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The small function, beside nobody or somebody
    Small(Option<Neighbour>),
    /// Functions that are called now and then, beside nobody or a backlog of which so many run at once
    Cold(Option<u32>),
    /// Such a backlog with nothing else in the plane
    Hot(u32),
    /// The same beside the ones that are called now and then
    HotBesideCold(u32),
}

/// How it is measured; times in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Of calls at a set rate
    OpenP50,
    OpenP99,
    OpenMost,
    /// Of one connection that waits for each answer
    AloneP50,
    AloneP99,
    /// How late the generator itself was
    Late99,
    /// What the neighbours did, a second
    Turns,
    /// From enqueued to started
    WaitP50,
    WaitP99,
    WaitMost,
    /// From when an enqueue was due to its 202
    AcceptP50,
    AcceptP99,
    /// Executions a second
    Rate,
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Figure(pub(crate) Subject, pub(crate) Metric);

impl report::Figure for Figure {
    fn label(self) -> String {
        let Self(subject, metric) = self;
        let subject = match subject {
            Subject::Small(None) => "small calls alone".to_owned(),
            Subject::Small(Some(neighbour)) => format!("small calls beside {}", neighbour.words()),
            Subject::Cold(None) => "cold functions alone".to_owned(),
            Subject::Cold(Some(at_once)) => {
                format!("cold functions beside a hot one, {at_once} at once")
            }
            Subject::Hot(at_once) => format!("hot function alone, {at_once} at once"),
            Subject::HotBesideCold(at_once) => {
                format!("hot function beside cold ones, {at_once} at once")
            }
        };
        let metric = match metric {
            Metric::OpenP50 => "open loop, p50, ms",
            Metric::OpenP99 => "open loop, p99, ms",
            Metric::OpenMost => "open loop, most, ms",
            Metric::AloneP50 => "one connection, p50, ms",
            Metric::AloneP99 => "one connection, p99, ms",
            Metric::Late99 => "how late the generator sent, p99, ms",
            Metric::Turns => "what these did, /s",
            Metric::WaitP50 => "enqueued to started, p50, ms",
            Metric::WaitP99 => "enqueued to started, p99, ms",
            Metric::WaitMost => "enqueued to started, most, ms",
            Metric::AcceptP50 => "due to 202, p50, ms",
            Metric::AcceptP99 => "due to 202, p99, ms",
            Metric::Rate => "executions/s",
        };
        format!("{subject}: {metric}")
    }
}

/// What is to be reached, of what was measured.
pub(crate) fn bounds(readings: &Readings<Figure>) -> Vec<Bound> {
    /// In ms.
    const BESIDE_SPINNING: f64 = 15.0;
    let mut bounds = Vec::new();
    let beside = Subject::Small(Some(Neighbour::Spinning));
    for (metric, words) in [
        (Metric::OpenP99, "open loop"),
        (Metric::AloneP99, "one connection"),
    ] {
        if let Some(p99_ms) = readings.median(Figure(beside, metric)) {
            let words = format!(
                "small calls beside four spinning guests, {words}, p99, at most {BESIDE_SPINNING} ms"
            );
            bounds.push(Bound::at_most(words, p99_ms, BESIDE_SPINNING));
        }
    }
    bounds
}
