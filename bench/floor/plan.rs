//! Which measurements are taken.

use anyhow::Result;

use crate::figure::Figure;
use crate::measure::Bench;
use crate::report::Found;
use crate::rounds;

/// Times that a measurement is taken at most.
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
pub(crate) enum Measurement {
    Bare,
    BareBusy,
    Sync,
    Durable,
    Start,
    Memory,
}

impl Measurement {
    const ALL: [Self; 6] = [
        Self::Bare,
        Self::BareBusy,
        Self::Sync,
        Self::Durable,
        Self::Start,
        Self::Memory,
    ];

    /// What belongs to a choice, or everything.
    pub(crate) fn chosen(only: Option<Only>) -> Vec<Self> {
        let belongs = |measurement: &Self| match measurement {
            Self::Bare | Self::BareBusy | Self::Sync => Only::Sync,
            Self::Durable => Only::Durable,
            Self::Start => Only::Start,
            Self::Memory => Only::Memory,
        };
        Self::ALL
            .into_iter()
            .filter(|measurement| only.is_none_or(|only| only == belongs(measurement)))
            .collect()
    }
}

impl rounds::Measurement for Measurement {
    type Figure = Figure;
    type Bench = Bench;

    async fn take(self, bench: &mut Bench) -> Result<Found<Figure>> {
        match self {
            Self::Bare => bench.bare().await,
            Self::BareBusy => bench.bare_busy().await,
            Self::Sync => bench.sync().await,
            Self::Durable => bench.durable().await,
            Self::Start => bench.start().await,
            Self::Memory => bench.memory().await,
        }
    }
}
