//! Which measurements are taken, and in what order.
//!
//! **Invariant:** every round takes each measurement once, in an order of its own, so that no measurement
//! always runs in the wake of the same other one and a machine that changes changes for all.

use anyhow::{Context as _, Result};
use rand::seq::SliceRandom as _;

use crate::measure::{Bench, Found, Setup};
use crate::report::Readings;
use crate::say;

/// Work of others, in cores, above which a measurement is taken again.
pub(crate) const OTHER_CORES_MAX: f64 = 1.0;
/// Times that one is taken at most; the least disturbed one counts.
pub(crate) const TRIES: u32 = 3;

/// What may be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// Synchronous calls, beside the bare server
    Sync,
    /// Enqueued until succeeded
    Durable,
    /// Start until the first answer
    Start,
    /// Resident memory
    Memory,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
enum Measurement {
    Bare,
    Sync,
    Durable,
    Start,
    Memory,
}

impl Measurement {
    const ALL: [Self; 5] = [
        Self::Bare,
        Self::Sync,
        Self::Durable,
        Self::Start,
        Self::Memory,
    ];

    /// What belongs to a choice, or everything.
    fn chosen(only: Option<Only>) -> Vec<Self> {
        let belongs = |measurement: &Self| match measurement {
            Self::Bare | Self::Sync => Only::Sync,
            Self::Durable => Only::Durable,
            Self::Start => Only::Start,
            Self::Memory => Only::Memory,
        };
        Self::ALL
            .into_iter()
            .filter(|measurement| only.is_none_or(|only| only == belongs(measurement)))
            .collect()
    }

    async fn take(self, bench: &mut Bench) -> Result<Found> {
        match self {
            Self::Bare => bench.bare().await,
            Self::Sync => bench.sync().await,
            Self::Durable => bench.durable().await,
            Self::Start => bench.start().await,
            Self::Memory => bench.memory().await,
        }
    }

    /// Takes it, and again while others disturb it.
    async fn take_quietly(self, bench: &mut Bench) -> Result<Found> {
        let mut best: Option<Found> = None;
        for _ in 0..TRIES {
            let found = self
                .take(bench)
                .await
                .with_context(|| format!("the measurement {self:?}"))?;
            let quiet = found.other_cores <= OTHER_CORES_MAX;
            say(&format!("  {self:?}: {found}"));
            if best
                .as_ref()
                .is_none_or(|best| found.other_cores < best.other_cores)
            {
                best = Some(found);
            }
            if quiet {
                break;
            }
            say("  others worked meanwhile");
        }
        best.context("nothing was measured")
    }
}

/// Takes all measurements of all rounds.
pub(crate) async fn run(setup: Setup, rounds: u32, only: Option<Only>) -> Result<Readings> {
    let mut bench = Bench::prepare(setup)?;
    let mut measurements = Measurement::chosen(only);
    let mut readings = Readings::default();
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        measurements.shuffle(&mut rand::rng());
        for measurement in &measurements {
            readings.add(measurement.take_quietly(&mut bench).await?);
        }
    }
    Ok(readings)
}
