//! How a harness is set up: who moves work, where things are kept, which runtime runs them.
//!
//! **Invariant:** harnesses of one process share one runtime unless they ask for their own: its pool of
//! instances is the expensive part, and nothing of one harness is visible in another through it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context as _;

use crate::clock::Clock;
use crate::endpoint;
use crate::model::Timestamp;
use crate::net::Loopback;
use crate::registry;
use crate::runtime::{self, InProcessCompiler, ReuseCalls, Runtime};
use crate::scheduler;
use crate::store::Store;
use crate::store::memory::{Disk, MemoryStore};
use crate::store::sqlite::{self, SqliteStore, Synchronous};

/// 2026-01-01T00:00:00Z, where every harness's clock starts unless told otherwise.
pub const START: Timestamp = Timestamp(1_767_225_600_000);

/// Who moves work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Movement {
    /// Nothing runs unless it is drained.
    #[default]
    Drained,
    /// The scheduler runs work as soon as it is ready, as a server does.
    Background,
}

/// Where the harness keeps what is durable.
#[derive(Clone, Default)]
pub enum Home {
    /// In memory; gone with the harness.
    #[default]
    Memory,
    /// On a disk in memory that outlives the harness: starting again on it is a restart. Uploaded code is
    /// not on that disk but in the runtime: keep one in [`Setup::runtime`] over the restart.
    Disk(Disk),
    /// The embedded database in this folder, not synced: it survives the harness, not the machine. The code
    /// lies beside it.
    Folder(PathBuf),
    /// A store of the tester's own: one that fails or stalls, or one that is looked into. As with a disk, the
    /// code is elsewhere.
    Store(Arc<dyn Store>),
}

/// How a harness is set up.
#[derive(Clone)]
pub struct Setup {
    /// Who moves work.
    pub movement: Movement,
    /// Where things are kept.
    pub home: Home,
    /// The plane's clock.
    pub clock: Clock,
    /// The scheduler's settings; `manual` is set from `movement`.
    pub scheduler: scheduler::Options,
    /// The settings of the registry of functions.
    pub registry: registry::Options,
    /// The settings of calls to services behind a URL.
    pub endpoint: endpoint::Options,
    /// How many calls an instance of a function with `reuse` is given: any number up to what its spec says flushes out what
    /// a function wrongly carries from one call into the next. Only for a runtime that is not given.
    pub reuse_calls: ReuseCalls,
    /// A runtime to use instead of the one that all harnesses of a process share.
    pub runtime: Option<Runtime>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            movement: Movement::Drained,
            home: Home::Memory,
            clock: Clock::manual(START),
            scheduler: scheduler::Options::default(),
            registry: registry::Options::default(),
            endpoint: endpoint::Options {
                loopback: Loopback::Allowed,
                ..endpoint::Options::default()
            },
            reuse_calls: ReuseCalls::default(),
            runtime: None,
        }
    }
}

/// A runtime that compiles in this process, for code that the tester trusts.
///
/// # Errors
/// The folder or the machine does not do.
pub fn open_runtime(code_dir: &Path) -> anyhow::Result<Runtime> {
    open_runtime_with(code_dir, ReuseCalls::default())
}

fn open_runtime_with(code_dir: &Path, reuse_calls: ReuseCalls) -> anyhow::Result<Runtime> {
    let compiler = InProcessCompiler::new()?;
    let mut options = runtime::Options::new(code_dir);
    options.outgoing.loopback = Loopback::Allowed;
    options.reuse_calls = reuse_calls;
    Ok(Runtime::open(&options, Arc::new(compiler))?)
}

/// The runtime that a setup asks for, and what keeps a shared one alive.
pub(super) fn runtime_of(
    asked: Option<Runtime>,
    home: &Home,
    reuse_calls: ReuseCalls,
) -> anyhow::Result<(Runtime, Option<Arc<SharedRuntime>>)> {
    match (asked, home) {
        (Some(runtime), _) => Ok((runtime, None)),
        (None, Home::Folder(dir)) => Ok((open_runtime_with(&dir.join("code"), reuse_calls)?, None)),
        (None, Home::Memory | Home::Disk(_) | Home::Store(_)) => {
            let shared = match reuse_calls {
                ReuseCalls::AsSpecified => SharedRuntime::get()?,
                // Whoever draws has an order of draws of its own.
                ReuseCalls::Random(_) => SharedRuntime::open(reuse_calls)?,
            };
            Ok((shared.runtime.clone(), Some(shared)))
        }
    }
}

pub(super) fn open_store(home: Home) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match home {
        Home::Memory => Arc::new(MemoryStore::open(&Disk::default())),
        Home::Disk(disk) => Arc::new(MemoryStore::open(&disk)),
        Home::Store(store) => store,
        Home::Folder(dir) => {
            let options = sqlite::Options {
                synchronous: Synchronous::Off,
                ..sqlite::Options::new(dir)
            };
            Arc::new(SqliteStore::open(options)?)
        }
    })
}

/// One runtime for all harnesses of a process.
pub(super) struct SharedRuntime {
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

static SHARED: Mutex<Weak<SharedRuntime>> = Mutex::new(Weak::new());

impl SharedRuntime {
    fn get() -> anyhow::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = shared.upgrade() {
            return Ok(there);
        }
        let made = Self::open(ReuseCalls::default())?;
        *shared = Arc::downgrade(&made);
        Ok(made)
    }

    fn open(reuse_calls: ReuseCalls) -> anyhow::Result<Arc<Self>> {
        let dir = tempfile::tempdir().context("no temporary folder for compiled code")?;
        Ok(Arc::new(Self {
            runtime: open_runtime_with(dir.path(), reuse_calls)?,
            _dir: dir,
        }))
    }
}
