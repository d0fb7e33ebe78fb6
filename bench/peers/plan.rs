//! Which measurements are taken.

use anyhow::Result;

use crate::bare::Settings;
use crate::engines::Engine;
use crate::figure::{Figure, Serve};
use crate::guests::Foreign;
use crate::measure::Bench;
use crate::report::Found;
use crate::rounds;

/// What may be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// A web function, beside `wasmtime serve`
    Http,
    /// The first call after a deploy
    First,
    /// JavaScript and Python, beside a bare loop
    Foreign,
    /// At a set rate, beside a bare server and `wasmtime serve`
    Tails,
    /// A typed function, beside a bare server and a bare loop
    Typed,
    /// Enqueued until succeeded, beside bare commits
    Durable,
    /// The same beside durable engines of others
    Engines,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measurement {
    Axum,
    Echo,
    ReusedEcho,
    Loop(Settings, u32),
    Tails,
    WebTails,
    Hello,
    Serve(Serve),
    FirstCall,
    Foreign(Foreign),
    ForeignLoop(Foreign),
    Commits,
    Durable,
    Engine(Engine),
}

impl Measurement {
    /// What belongs to a choice, or everything, of what can be measured here.
    pub(crate) fn chosen(only: Option<Only>, bench: &Bench) -> Vec<Self> {
        let mut all = vec![
            (Only::Typed, Self::Axum),
            (Only::Typed, Self::Echo),
            (Only::Typed, Self::ReusedEcho),
            (Only::Typed, Self::Loop(Settings::Pelton, 1)),
            (Only::Typed, Self::Loop(Settings::Pelton, 2)),
            (Only::Typed, Self::Loop(Settings::Fastest, 1)),
            (Only::Typed, Self::Loop(Settings::Fastest, 2)),
            (Only::Http, Self::Hello),
            (Only::First, Self::FirstCall),
            (Only::Durable, Self::Commits),
            (Only::Durable, Self::Durable),
            (Only::Tails, Self::Tails),
        ];
        if bench.has_wasmtime() {
            let serves = [Serve::Default, Serve::Tuned, Serve::Reuse];
            all.extend(serves.map(|serve| (Only::Http, Self::Serve(serve))));
            all.push((Only::Tails, Self::WebTails));
        }
        for which in bench.foreign() {
            all.push((Only::Foreign, Self::Foreign(which)));
            all.push((Only::Foreign, Self::ForeignLoop(which)));
        }
        for engine in bench.engines() {
            all.push((Only::Engines, Self::Engine(engine)));
        }
        if only == Some(Only::Engines) {
            // What they are compared with.
            all.push((Only::Engines, Self::Durable));
        }
        if only == Some(Only::Durable) {
            // One of its bounds is measured from there.
            all.push((Only::Durable, Self::Axum));
        }
        all.into_iter()
            .filter(|(group, _)| only.is_none_or(|only| only == *group))
            .map(|(_, measurement)| measurement)
            .collect()
    }
}

impl rounds::Measurement for Measurement {
    type Figure = Figure;
    type Bench = Bench;

    async fn take(self, bench: &mut Bench) -> Result<Found<Figure>> {
        match self {
            Self::Axum => bench.axum().await,
            Self::Echo => bench.echo().await,
            Self::ReusedEcho => bench.reused_echo().await,
            Self::Loop(settings, threads) => bench.bare_loop(settings, threads),
            Self::Tails => bench.tails().await,
            Self::WebTails => bench.web_tails().await,
            Self::Hello => bench.hello().await,
            Self::Serve(serve) => bench.wasmtime_serve(serve).await,
            Self::FirstCall => bench.first_calls().await,
            Self::Foreign(which) => bench.foreign_function(which).await,
            Self::ForeignLoop(which) => bench.foreign_loop(which),
            Self::Commits => bench.commits(),
            Self::Durable => bench.durable().await,
            Self::Engine(engine) => bench.engine(engine).await,
        }
    }
}
