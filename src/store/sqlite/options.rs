//! What an embedded store may be told, and why opening one may fail.
//!
//! **Invariant:** every queue and buffer of the store has its bound here, by name and with its unit.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How hard a commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Every commit is synced to the disk before anybody is told of it.
    #[default]
    Full,
    /// Nothing is synced: survives the process, not the machine. For the test harness only.
    Off,
}

/// A test's hand on the write path: it can make a commit fail or stall. Nothing in production sets one.
pub trait WriteFaults: std::fmt::Debug + Send + Sync {
    /// Called on the writer's thread before each commit of a batch. An error is taken for a failed
    /// commit: the batch is rolled back and the store poisoned. Blocking here stalls all writes.
    ///
    /// # Errors
    /// Whatever the test wants the commit to fail with.
    fn before_commit(&self) -> std::io::Result<()>;
}

/// Settings of an embedded store; [`Options::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder; created if missing, for its owner only.
    pub dir: PathBuf,
    /// How hard a commit is.
    pub synchronous: Synchronous,
    /// Operations in one commit, at most.
    pub batch_ops_max: u32,
    /// Payload bytes in one commit, at most (one operation may be bigger and then goes alone; what is
    /// written behind comes on top).
    pub batch_bytes_max: u32,
    /// Operations that wait or are being committed, at most; further callers wait before they hand over.
    pub queue_ops_max: u32,
    /// Payload bytes that wait or are being committed, at most; likewise.
    pub queue_bytes_max: u32,
    /// Claims that wait to be logged, at most; further ones are not logged.
    pub claims_max: u32,
    /// Bytes of ended executions that wait to be written behind, at most.
    pub write_behind_bytes_max: u64,
    /// How long what a run ended with waits, after a commit that answered a client, for that client's next request.
    /// The default is four times what a client on the same machine takes for it. Not waited where nothing is synced.
    pub company_wait: Duration,
    /// Connections for reads, each with a thread of its own while it reads.
    pub readers: u32,
    /// For fault tests; none in production.
    pub faults: Option<Arc<dyn WriteFaults>>,
}

impl Options {
    /// The defaults, for this folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            synchronous: Synchronous::Full,
            batch_ops_max: 1024,
            batch_bytes_max: 8 * 1024 * 1024,
            queue_ops_max: 8192,
            queue_bytes_max: 64 * 1024 * 1024,
            claims_max: 65_536,
            write_behind_bytes_max: 16 * 1024 * 1024,
            company_wait: Duration::from_micros(300),
            readers: 3,
            faults: None,
        }
    }
}

/// Why a store could not be opened. Nothing in the folder was changed, but for a migration that got
/// that far: those are complete or not there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another store of this one) has the folder.
    #[error(
        "{} is in use by another Pelton: stop that one, or give this one another data folder",
        .dir.display()
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// A newer Pelton wrote this database.
    #[error(
        "{} has schema version {found}, and this Pelton knows versions up to {supported}: use a newer Pelton, or a copy of the folder from before the upgrade",
        .path.display()
    )]
    FromFuture {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest one that this build knows.
        supported: i64,
    },
    /// The folder or a file in it cannot be used.
    #[error("cannot use {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error("cannot use the database {}", .path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(super) fn database<E: Into<Box<dyn StdError + Send + Sync>>>(
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Database {
            path,
            source: source.into(),
        }
    }
}
