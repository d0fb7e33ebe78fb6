//! The figures of the speed floor, and its bounds.

use crate::report::{self, Bound, Readings};

/// The bounds of the floor.
const SYNC_CPU_RATIO_MAX: f64 = 4.0;
const DURABLE_RATE_MIN: f64 = 14_000.0;
const FIRST_ANSWER_MS_MAX: f64 = 30.0;
const IDLE_MB_MAX: f64 = 30.0;

/// What is measured; in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    BareCpu,
    BareRate,
    BareP50,
    BareP99,
    BareBusyCpu,
    BareBusyRate,
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

impl report::Figure for Figure {
    fn label(self) -> String {
        let words = match self {
            Self::BareCpu => "bare axum echo: server CPU, µs/call",
            Self::BareRate => "bare axum echo: calls/s",
            Self::BareP50 => "bare axum echo: p50, ms",
            Self::BareP99 => "bare axum echo: p99, ms",
            Self::BareBusyCpu => "bare axum that computes for 25 µs: the rest of its CPU, µs/call",
            Self::BareBusyRate => "bare axum that computes for 25 µs: calls/s",
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
        };
        words.to_owned()
    }
}

/// The floors of what was measured.
pub(crate) fn floors(readings: &Readings<Figure>) -> Vec<Bound> {
    let median = |figure| readings.median(figure);
    let mut floors = Vec::new();
    if let (Some(bare), Some(sync)) = (median(Figure::BareCpu), median(Figure::SyncCpu)) {
        floors.push(Bound::at_most(
            "synchronous CPU / bare axum CPU, at most 4",
            sync / bare,
            SYNC_CPU_RATIO_MAX,
        ));
    }
    if let Some(rate) = median(Figure::DurableRate) {
        floors.push(Bound::at_least(
            "durable executions/s, at least 14000",
            rate,
            DURABLE_RATE_MIN,
        ));
    }
    if let Some(first_ms) = median(Figure::FirstAnswer) {
        floors.push(Bound::at_most(
            "first answer, at most 30 ms",
            first_ms,
            FIRST_ANSWER_MS_MAX,
        ));
    }
    if let Some(idle_mb) = median(Figure::MemoryIdle) {
        floors.push(Bound::at_most(
            "resident at rest, at most 30 MB",
            idle_mb,
            IDLE_MB_MAX,
        ));
    }
    floors
}
