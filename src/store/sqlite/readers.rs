//! Connections for reads, lent out one read at a time on threads that may block.
//!
//! **Invariant:** never blocks an async worker; a connection comes back whatever became of the read.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::open_reading;
use super::read::Read;
use crate::store::{Error, Result};

/// See the module.
#[derive(Debug)]
pub(super) struct Readers {
    count: u32,
    slots: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// A connection on loan. Its slot is free after it is back.
struct Loan {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.connection.take());
    }
}

impl Readers {
    pub(super) fn open(path: &Path, count: u32) -> rusqlite::Result<Self> {
        let count = count.max(1);
        let idle = (0..count)
            .map(|_| open_reading(path))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self {
            count,
            slots: Arc::new(Semaphore::new(idle.len())),
            idle: Arc::new(Mutex::new(idle)),
        })
    }

    /// Runs a read. Dropping the future does not stop a read that has begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Read<T> + Send + 'static,
    ) -> Result<T> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| Error::Closed)?;
        let loan = self.lend(slot);
        let outcome = tokio::task::spawn_blocking(move || match &loan.connection {
            Some(connection) => read(connection).map_err(Error::from),
            None => Err(Error::Closed),
        });
        // A read that panicked, or a process that is going down.
        let failed = |error: tokio::task::JoinError| Err(Error::Failed(error.to_string().into()));
        outcome.await.unwrap_or_else(failed)
    }

    fn lend(&self, slot: OwnedSemaphorePermit) -> Loan {
        let connection = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        Loan {
            connection,
            idle: Arc::clone(&self.idle),
            _slot: slot,
        }
    }

    /// Whether reads are refused.
    pub(super) fn is_closed(&self) -> bool {
        self.slots.is_closed()
    }

    /// Lets the reads under way end, and refuses later ones.
    pub(super) async fn close(&self) {
        let all = self.slots.acquire_many(self.count).await;
        self.slots.close();
        drop(all);
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
