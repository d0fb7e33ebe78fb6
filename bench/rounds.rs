//! Rounds of measurements in random order, and repeats of those that others disturbed.
//!
//! **Invariant:** every round takes each measurement once, in an order of its own, so that no measurement
//! always runs in the wake of the same other one and a machine that changes changes for all.

use std::fmt;

use anyhow::{Context as _, Result};
use rand::seq::SliceRandom as _;

use crate::report::{Figure, Found, Readings};
use crate::say;

/// Work of others, in cores, above which a measurement is taken again.
pub(crate) const OTHER_CORES_MAX: f64 = 1.0;

/// Something that can be measured again and again.
pub(crate) trait Measurement: Copy + fmt::Debug {
    /// What it finds.
    type Figure: Figure;
    /// What it needs.
    type Bench;

    /// Takes it once.
    async fn take(self, bench: &mut Self::Bench) -> Result<Found<Self::Figure>>;
}

/// How often things are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    /// Each takes every measurement.
    pub(crate) rounds: u32,
    /// Times that one is taken at most in a round; the least disturbed one counts.
    pub(crate) tries: u32,
}

/// Takes all measurements of all rounds.
pub(crate) async fn run<M: Measurement>(
    bench: &mut M::Bench,
    mut measurements: Vec<M>,
    Rounds { rounds, tries }: Rounds,
) -> Result<Readings<M::Figure>> {
    let mut readings = Readings::new(tries);
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        measurements.shuffle(&mut rand::rng());
        for measurement in &measurements {
            readings.add(take_quietly(*measurement, bench, tries).await?);
        }
    }
    Ok(readings)
}

/// Takes it, and again while others disturb it.
async fn take_quietly<M: Measurement>(
    measurement: M,
    bench: &mut M::Bench,
    tries: u32,
) -> Result<Found<M::Figure>> {
    let mut best: Option<Found<M::Figure>> = None;
    for _ in 0..tries {
        let found = measurement
            .take(bench)
            .await
            .with_context(|| format!("the measurement {measurement:?}"))?;
        let quiet = found.other_cores <= OTHER_CORES_MAX;
        say(&format!("  {measurement:?}: {found}"));
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
