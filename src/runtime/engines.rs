//! The two engines that guests run on, with what their guests may import and how many of them there may be.
//!
//! The plain one is made at start. The async one reserves a pool of its own, and is made when the first file
//! that needs it is loaded: a server without such functions pays nothing for it.
//!
//! **Invariant:** an engine whose pool could not be made is asked for again next time; one that was made stays.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use wasmtime::Engine;

use super::engine::{self, Flavor, NoPool, PoolReport, Slots};
use super::epoch::{Epochs, SLOW_TICK, TICK};
use super::host::Linkers;

/// One engine and what belongs to it.
pub(super) struct Unit {
    /// The engine.
    pub(super) engine: Engine,
    /// What it can do.
    pub(super) flavor: Flavor,
    /// What its guests may import.
    pub(super) linkers: Linkers,
    /// What its pool came to.
    pub(super) report: PoolReport,
    /// Fewer than its pool has slots: who holds a permit finds one.
    pub(super) permits: Arc<Semaphore>,
}

/// Both engines.
pub(super) struct Engines {
    plain: Arc<Unit>,
    with_async: Mutex<Option<Arc<Unit>>>,
    epochs: Arc<Epochs>,
    guests_max: u32,
    slots: Slots,
}

/// Why an engine cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEngine {
    /// There is no room for its pool.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// wasmtime or the system refuses something else.
    #[error("{0}")]
    Setup(String),
}

impl From<wasmtime::Error> for NoEngine {
    fn from(error: wasmtime::Error) -> Self {
        Self::Setup(format!("{error:#}"))
    }
}

impl Engines {
    /// Makes the plain engine; the other one waits until it is asked for. Pools have room for so many guests,
    /// or for as many as the machine has.
    ///
    /// # Errors
    /// [`NoEngine`].
    pub(super) fn open(guests_max: u32, slots: Slots) -> Result<Self, NoEngine> {
        let plain = Unit::open(Flavor::Plain, guests_max, slots)?;
        let tick = match slots {
            Slots::Pool => TICK,
            Slots::OnDemand => SLOW_TICK,
        };
        let epochs = Epochs::start(&plain.engine, tick);
        let epochs = epochs.map_err(|error| NoEngine::Setup(error.to_string()))?;
        Ok(Self {
            plain: Arc::new(plain),
            with_async: Mutex::new(None),
            epochs: Arc::new(epochs),
            guests_max,
            slots,
        })
    }

    /// What advances the epochs of both.
    pub(super) fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// The plain engine.
    pub(super) fn plain(&self) -> &Arc<Unit> {
        &self.plain
    }

    /// The async engine, if anything has asked for it.
    pub(super) fn with_async(&self) -> Option<Arc<Unit>> {
        let made = self.with_async.lock();
        made.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine of this flavor. Making it takes some milliseconds: call it from a thread for blocking work.
    ///
    /// # Errors
    /// [`NoEngine`], for the async one.
    pub(super) fn unit(&self, flavor: Flavor) -> Result<Arc<Unit>, NoEngine> {
        if flavor == Flavor::Plain {
            return Ok(Arc::clone(&self.plain));
        }
        let mut made = self
            .with_async
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(unit) = &*made {
            return Ok(Arc::clone(unit));
        }
        // No more than run in all: what the machine had no room for once need not be tried again.
        let guests_max = self.guests_max.min(self.plain.report.guests);
        let unit = Arc::new(Unit::open(flavor, guests_max, self.slots)?);
        self.epochs.add(&unit.engine);
        *made = Some(Arc::clone(&unit));
        Ok(unit)
    }
}

impl Unit {
    fn open(flavor: Flavor, guests_max: u32, slots: Slots) -> Result<Self, NoEngine> {
        let (engine, report) = match slots {
            Slots::Pool => engine::serving(flavor, guests_max)?,
            Slots::OnDemand => engine::on_demand(flavor, guests_max)?,
        };
        let guests = usize::try_from(report.guests).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Self {
            linkers: Linkers::new(&engine, flavor)?,
            permits: Arc::new(Semaphore::new(guests.min(Semaphore::MAX_PERMITS))),
            engine,
            flavor,
            report,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_async_engine_is_made_when_it_is_asked_for_and_once() {
        let engines = Engines::open(2, Slots::Pool).unwrap();
        assert!(engines.with_async().is_none());
        let first = engines.unit(Flavor::Async).unwrap();
        assert!(first.report.guests <= engines.plain().report.guests);
        let second = engines.unit(Flavor::Async).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(Engine::same(
            &engines.plain().engine,
            &engines.unit(Flavor::Plain).unwrap().engine
        ));
        assert!(!Engine::same(&engines.plain().engine, &first.engine));
    }
}
