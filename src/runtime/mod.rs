//! Runs wasm: compiles it in a child process, keeps the code, gives every attempt a fresh instance,
//! unless its function lets instances be reused.
//!
//! **Invariant:** the only folder that names wasmtime; knows no store, no queue, no HTTP server. Whatever a
//! guest does ends as an [`Outcome`], never as a panic or a hang.

mod cache;
mod child;
mod coalesce;
mod code;
mod command;
mod compile;
mod crowd;
mod ending;
mod engine;
mod engines;
mod epoch;
mod exchange;
mod extras;
mod given;
mod handler;
mod host;
mod host_limits;
mod imports;
mod kept;
mod lane;
mod limits;
mod outgoing;
mod output;
mod ready;
mod reuse;
mod run;
mod runnable;
mod shape;
mod shelf;
mod surroundings;
#[cfg(test)]
mod tests;
mod times;
mod watch;
mod web;
mod wire;
mod worker;

pub use child::ChildCompiler;
pub use compile::{Compiled, Compiler, InProcessCompiler};
pub use engine::{Flavor, NoPool, PoolReport, PoolUse, Slots, Wipe, probe};
pub use exchange::{Answer, Ending, Exchange, Teller};
pub use kept::{CodeFolder, Kept, KeyState};
pub use reuse::ReuseCalls;
pub use shelf::WarmStats;
pub use times::{COMPILATION_MS_BUCKETS, CompilationTimes};
pub use web::{BrokenOff, Outflow};
pub use wire::Needs;
pub use worker::{WORKER_COMMAND, worker_main};

use std::collections::HashSet;
use std::future::ready;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::cache::{Cache, EngineKeys};
use self::code::Codes;
use self::crowd::Crowds;
use self::engines::{Engines, NoEngine};
use self::exchange::Opened;
use self::ready::in_time;
use self::reuse::Warm;
use self::run::Runner;
use self::shelf::{Capacity, Shelf};
use crate::execution::{Attempt, Outcome, Ran};
use crate::model::{Code, Digest, Shape};
use crate::net;

/// Settings of the runtime; every figure is a limit or a size.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for wasm files and compiled code; made if missing.
    pub code_dir: PathBuf,
    /// Guests that run at once in the whole process, at most. The pool has slots for a few more.
    pub guests_max: u32,
    /// Where guests find room.
    pub slots: Slots,
    /// Loaded code kept in memory, in bytes of compiled code (an LRU; the disk keeps the rest).
    pub loaded_bytes_max: u64,
    /// Instances that wait for another call of their function, at most, of all functions that let theirs be reused.
    /// 0: none is reused.
    pub warm_instances_max: u32,
    /// Memory of instances that wait, in bytes.
    pub warm_memory_bytes_max: u64,
    /// How many calls a reused instance is given.
    pub reuse_calls: ReuseCalls,
    /// Uploads that wait for the compiler, at most; one more is refused as busy.
    pub compile_queue_max: u32,
    /// Time for one compilation, in s.
    pub compile_timeout_s: u64,
    /// Address space of the compiling child, in bytes.
    pub compile_memory_bytes_max: u64,
    /// What guests' requests are held to.
    pub outgoing: net::Options,
}

impl Options {
    /// The defaults, for this folder.
    pub fn new(code_dir: impl Into<PathBuf>) -> Self {
        Self {
            code_dir: code_dir.into(),
            guests_max: 256,
            slots: Slots::Pool,
            loaded_bytes_max: 512 * 1024 * 1024,
            warm_instances_max: 128,
            warm_memory_bytes_max: 1024 * 1024 * 1024,
            reuse_calls: ReuseCalls::default(),
            compile_queue_max: 16,
            compile_timeout_s: 120,
            compile_memory_bytes_max: 2 * 1024 * 1024 * 1024,
            outgoing: net::Options::default(),
        }
    }
}

/// Code that was uploaded, checked and compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The file's digest.
    pub digest: Digest,
    /// How it is run.
    pub shape: Shape,
    /// The file's size in bytes.
    pub size: u64,
    /// The interface by which it calls out, if it imports one.
    pub outgoing: Option<String>,
}

/// Why an upload was refused. The text is for the uploader and says what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not wasm, truncated, or not valid.
    #[error("{0}")]
    NotWasm(String),
    /// Valid, but of no shape that runs here; or it needs more than any pool has.
    #[error("{0}")]
    Unsupported(String),
    /// Imports that nobody provides, each named.
    #[error("{message}")]
    MissingImports {
        /// The sentence for people.
        message: String,
        /// The imports.
        imports: Vec<String>,
    },
    /// The compiler ran out of time or memory, or gave up.
    #[error("{0}")]
    TooExpensive(String),
    /// Too many uploads are waiting for the compiler: try again later.
    #[error("{0}")]
    Busy(String),
    /// Ours: the disk or the compiler could not be used.
    #[error("{0}")]
    Failed(String),
}

/// Why the runtime cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of code cannot be used.
    #[error("the folder of code {path} cannot be used: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no room for guests.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// wasmtime or the system refuses something else.
    #[error("the runtime cannot be set up: {0}")]
    Setup(String),
}

/// What the runtime is doing, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Permits in use: a guest with many memories or tables holds several.
    pub permits_used: u32,
    /// Permits in all.
    pub permits_max: u32,
    /// Entries of loaded code in memory.
    pub loaded_entries: u64,
    /// Their machine code, in bytes.
    pub loaded_bytes: u64,
    /// Instances that wait for another call.
    pub warm: WarmStats,
    /// Files that wait to be compiled.
    pub compilations_waiting: usize,
    /// Files that are being compiled.
    pub compilations_running: usize,
    /// How long compilations took.
    pub compilation_times: CompilationTimes,
    /// The pool.
    pub pool: PoolReport,
    /// What is taken of it.
    pub pool_use: PoolUse,
    /// The pool for WASI 0.3, once anything has needed it.
    pub async_pool: Option<PoolReport>,
}

impl From<NoEngine> for OpenError {
    fn from(error: NoEngine) -> Self {
        match error {
            NoEngine::NoPool(error) => Self::NoPool(error),
            NoEngine::Setup(why) => Self::Setup(why),
        }
    }
}

/// A cheap handle on the runtime.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    codes: Codes,
    runner: Runner,
    /// For the guests of both pools together, fewer than either has slots. The async pool may be the smaller
    /// one, and has permits of its own beside these.
    permits: Arc<Semaphore>,
    pool: PoolReport,
    /// Before the permits are given up: what waits here holds some.
    shelf: Arc<Shelf<Warm>>,
    /// The instances that several calls may be in at once.
    crowds: Crowds,
    reuse_calls: ReuseCalls,
    outgoing: net::Client,
}

impl Runtime {
    /// Reserves the pool and opens the folder of code. Nothing is loaded before it is called.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: &Options, compiler: Arc<dyn Compiler>) -> Result<Self, OpenError> {
        let engines = Engines::open(options.guests_max, options.slots)?;
        let keys = EngineKeys::of(engine::compiling);
        let keys = keys.map_err(|error| OpenError::Setup(format!("{error:#}")))?;
        let cache = Cache::open(&options.code_dir, keys).map_err(|cause| OpenError::Folder {
            path: options.code_dir.clone(),
            cause,
        })?;
        let pool = engines.plain().report.clone();
        let outgoing = net::Client::new(options.outgoing.clone());
        let permits = usize::try_from(pool.guests).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Self {
            inner: Arc::new(Inner {
                runner: Runner::new(engines.epochs(), outgoing.clone()),
                codes: Codes::new(engines, cache, compiler, options.loaded_bytes_max),
                permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
                pool,
                shelf: Arc::new(Shelf::new(Capacity {
                    items: options.warm_instances_max,
                    bytes: options.warm_memory_bytes_max,
                })),
                crowds: Crowds::default(),
                reuse_calls: options.reuse_calls.clone(),
                outgoing,
            }),
        })
    }

    /// Checks and compiles a file, and keeps both file and code on disk (fsynced). Nothing is kept of a
    /// file that is refused. A file that is known already costs nothing.
    ///
    /// # Errors
    /// [`Refused`], with the reason for the uploader.
    pub async fn prepare(&self, wasm: Bytes) -> Result<Prepared, Refused> {
        self.inner.codes.prepare(wasm).await
    }

    /// What is known of an uploaded file.
    pub fn known(&self, digest: &Digest) -> Option<Prepared> {
        let label = self.inner.codes.cache().known(digest)?;
        code::prepared(*digest, &label)
    }

    /// An uploaded file, if it is kept and whole. Reads the disk.
    pub fn wasm(&self, digest: &Digest) -> Option<Bytes> {
        self.inner.codes.cache().wasm(digest)
    }

    /// Removes files that are not in `referenced` and that nobody deployed or asked for within the last
    /// hour. Works on the disk: call it from a thread for blocking work. Returns how many files of wasm are gone.
    ///
    /// # Errors
    /// The folder cannot be read or changed; what was removed until then stays removed.
    pub fn sweep(&self, referenced: &HashSet<Digest>) -> io::Result<usize> {
        self.sweep_with(referenced, cache::GRACE)
    }

    /// Removes every file that nobody prepared within `unused`, for a folder to which nothing refers.
    /// Works on the disk: call it from a thread for blocking work. Returns how many files of wasm are gone.
    ///
    /// # Errors
    /// See [`Runtime::sweep`].
    pub fn sweep_unused(&self, unused: Duration) -> io::Result<usize> {
        self.sweep_with(&HashSet::new(), unused)
    }

    fn sweep_with(&self, referenced: &HashSet<Digest>, unused: Duration) -> io::Result<usize> {
        let gone = self.inner.codes.cache().sweep(referenced, unused)?;
        for digest in &gone {
            self.inner.codes.forget(digest);
        }
        Ok(gone.len())
    }

    /// The client of guests' requests.
    pub fn outgoing(&self) -> &net::Client {
        &self.inner.outgoing
    }

    /// What the runtime is doing.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let free = u32::try_from(inner.permits.available_permits()).unwrap_or(u32::MAX);
        let (loaded_entries, loaded_bytes) = inner.codes.loaded();
        let (compilations_waiting, compilations_running) = inner.codes.compiling();
        Stats {
            permits_used: inner.pool.guests.saturating_sub(free),
            permits_max: inner.pool.guests,
            loaded_entries,
            loaded_bytes,
            warm: inner.shelf.stats(),
            compilations_waiting,
            compilations_running,
            compilation_times: inner.codes.compilation_times(),
            pool: inner.pool.clone(),
            pool_use: inner.codes.pool_use(),
            async_pool: inner
                .codes
                .engines()
                .with_async()
                .map(|unit| unit.report.clone()),
        }
    }

    /// Runs one attempt in a fresh instance and returns when its store is dropped. `stop` ends it early
    /// (outcome `Interrupted`), within two epoch ticks, in a host call too. The attempt's time counts from
    /// the call, so waiting for code or for a free slot is part of it.
    pub fn run<'a>(
        &'a self,
        attempt: &'a Attempt,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Ran> {
        self.run_for(attempt, None, stop)
    }

    /// [`Runtime::run`] for a caller who speaks HTTP with the function, where the function does.
    pub fn serve<'a>(
        &'a self,
        attempt: &'a Attempt,
        exchange: Exchange,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Ran> {
        self.run_for(attempt, exchange.open(), stop)
    }

    /// One allocation of the size that the kind of run needs; whoever awaits it has room for a pointer.
    fn run_for<'a>(
        &'a self,
        attempt: &'a Attempt,
        exchange: Option<Box<Opened>>,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Ran> {
        let Code::Wasm { digest, .. } = &attempt.version.code else {
            let fault = Outcome::Fault("this version has no wasm to run".to_owned());
            return Box::pin(ready(Ran::bare(fault)));
        };
        match attempt.version.spec.reuse {
            None => Box::pin(self.run_fresh(digest, attempt, exchange, stop)),
            Some(reuse) if self.may_share(reuse, attempt) => {
                Box::pin(self.run_shared(reuse, *digest, attempt, exchange, stop))
            }
            Some(reuse) => Box::pin(self.run_reused(reuse, *digest, attempt, exchange, stop)),
        }
    }

    async fn run_fresh(
        &self,
        digest: &Digest,
        attempt: &Attempt,
        exchange: Option<Box<Opened>>,
        stop: &CancellationToken,
    ) -> Ran {
        // Nearly always there is nothing to wait for, and then nothing that waiting needs is made.
        let (ready, shortened) = match self.ready_at_once(digest) {
            Some(ready) => (Ok(ready), None),
            None => {
                let begun = Instant::now();
                let waiting = Box::pin(in_time(self.ready(*digest), begun, attempt, stop));
                let (ready, shortened) = waiting.await;
                (ready, Some(shortened))
            }
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(outcome) => return Ran::bare(outcome),
        };
        let attempt = shortened.as_ref().unwrap_or(attempt);
        let runner = &self.inner.runner;
        let runnable = &ready.loaded.runnable;
        let mut ran = runner.serve(runnable, attempt, exchange, stop).await;
        if ready.init_duration.is_some() {
            ran.cold_start = true;
            ran.init_duration = ready.init_duration;
        }
        ran
    }
}
