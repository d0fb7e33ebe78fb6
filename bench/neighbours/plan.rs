//! Which measurements are taken, and beside whom.

use anyhow::Result;
use serde_json::{Value, json};

use crate::figure::Figure;
use crate::report::Found;
use crate::{Bench, guests, rounds};

/// What may be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// Small calls beside each kind of neighbour
    Beside,
    /// Small calls beside four spinning guests
    Spinning,
    /// Hot and cold functions on the queue
    Queue,
}

/// Who takes all that it gets beside the small function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Neighbour {
    /// Compute for ever, until their limit
    Spinning,
    /// Touch much memory
    Hungry,
    /// Fill their log
    Chatty,
    /// Write to their log without end, until their limit
    Babbling,
    /// Compute for a millisecond, many of them at once
    Busy,
    /// Send more than anybody takes
    Taken,
    /// Are sent their input slowly
    Sent,
}

impl Neighbour {
    const ALL: [Self; 7] = [
        Self::Spinning,
        Self::Hungry,
        Self::Chatty,
        Self::Babbling,
        Self::Busy,
        Self::Taken,
        Self::Sent,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Spinning => "four spinning guests",
            Self::Hungry => "four guests that touch 256 MiB",
            Self::Chatty => "four guests that fill their logs",
            Self::Babbling => "four guests that log without end",
            Self::Busy => "64 callers of a guest that computes for a millisecond",
            Self::Taken => "32 callers that take their answers slowly or not at all",
            Self::Sent => "32 callers that send slowly",
        }
    }

    /// The text of its code; none for the web function of the tests.
    pub(crate) fn wat(self) -> Option<&'static str> {
        match self {
            Self::Spinning => Some(guests::SPINS),
            Self::Hungry => Some(guests::TOUCHES),
            Self::Chatty => Some(guests::CHATS),
            Self::Babbling => Some(guests::BABBLES),
            Self::Busy => Some(guests::COMPUTES),
            Self::Taken | Self::Sent => None,
        }
    }

    /// Its spec, where that is not the usual one.
    pub(crate) fn spec(self) -> Value {
        match self {
            Self::Spinning | Self::Babbling => json!({"timeoutMs": 1000, "maxRetries": 1}),
            Self::Hungry => json!({"memoryMb": guests::TOUCHED_MIB, "maxRetries": 1}),
            Self::Chatty | Self::Busy => json!({"maxRetries": 1}),
            Self::Taken | Self::Sent => json!({"timeoutMs": 300_000}),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measurement {
    Small(Option<Neighbour>),
    Queue(Load),
}

/// What is put on the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// A backlog of which so many run at once.
    pub(crate) hot: Option<u32>,
    /// Functions that are called now and then.
    pub(crate) with_cold: bool,
}

impl Load {
    /// As many of the hot function at once as it gets unless it says otherwise, as are plenty, and as the whole plane
    /// runs.
    const AT_ONCE: [u32; 3] = [4, 64, 256];

    fn all() -> Vec<Self> {
        let mut all = vec![Self {
            hot: None,
            with_cold: true,
        }];
        for at_once in Self::AT_ONCE {
            all.extend([false, true].map(|with_cold| Self {
                hot: Some(at_once),
                with_cold,
            }));
        }
        all
    }
}

impl Measurement {
    /// What belongs to a choice, or everything.
    pub(crate) fn chosen(only: Option<Only>) -> Vec<Self> {
        let mut all = vec![Self::Small(None)];
        all.extend(Neighbour::ALL.map(|neighbour| Self::Small(Some(neighbour))));
        all.extend(Load::all().into_iter().map(Self::Queue));
        all.retain(|measurement| match (only, measurement) {
            (None, _)
            | (Some(Only::Beside), Self::Small(_))
            | (Some(Only::Spinning), Self::Small(None | Some(Neighbour::Spinning)))
            | (Some(Only::Queue), Self::Queue(_)) => true,
            (Some(Only::Beside | Only::Spinning), _) | (Some(Only::Queue), Self::Small(_)) => false,
        });
        all
    }
}

impl rounds::Measurement for Measurement {
    type Figure = Figure;
    type Bench = Bench;

    async fn take(self, bench: &mut Bench) -> Result<Found<Figure>> {
        match self {
            Self::Small(neighbour) => bench.small(neighbour).await,
            Self::Queue(load) => bench.queue(load).await,
        }
    }
}
