//! Runs wasm: compiles it in a child process, keeps the code, gives every attempt a fresh instance.
//!
//! **Invariant:** the only folder that names wasmtime; knows no store, no queue, no HTTP server. Whatever a
//! guest does ends as an [`Outcome`](crate::execution::Outcome), never as a panic or a hang.

mod command;
mod ending;
mod engine;
mod epoch;
mod handler;
mod host;
mod host_limits;
mod limits;
mod output;
mod run;
mod shape;
mod surroundings;
mod watch;

pub use engine::{PoolReport, Wipe};

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::execution::{Attempt, Ran};
use crate::model::{Digest, Shape};

/// Settings of the runtime; every figure is a limit or a size.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for wasm files and compiled code; made if missing.
    pub code_dir: PathBuf,
    /// Guests that run at once in the whole process, at most. The pool has slots for a few more.
    pub guests_max: u32,
    /// Loaded code kept in memory, in bytes of compiled code (an LRU; the disk keeps the rest).
    pub loaded_bytes_max: u64,
    /// Uploads that wait for the compiler, at most; one more is refused as busy.
    pub compile_queue_max: u32,
    /// Time for one compilation, in s.
    pub compile_timeout_s: u64,
    /// Address space of the compiling child, in bytes.
    pub compile_memory_bytes_max: u64,
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

/// A cheap handle on the runtime.
#[derive(Clone)]
pub struct Runtime {
    _inner: Arc<()>,
}

impl Runtime {
    /// Checks and compiles a file, and keeps both file and code on disk (fsynced). Nothing is kept of a
    /// file that is refused. A file that is known already costs nothing.
    ///
    /// # Errors
    /// [`Refused`], with the reason for the uploader.
    pub async fn prepare(&self, wasm: Bytes) -> Result<Prepared, Refused> {
        let _ = wasm;
        unimplemented!("runtime")
    }

    /// What is known of an uploaded file.
    pub fn known(&self, digest: &Digest) -> Option<Prepared> {
        let _ = digest;
        unimplemented!("runtime")
    }

    /// Runs one attempt in a fresh instance and returns when its store is dropped. `stop` ends it early
    /// (outcome `Interrupted`), within two epoch ticks, in a host call too.
    pub async fn run(&self, attempt: &Attempt, stop: &CancellationToken) -> Ran {
        let _ = (attempt, stop);
        unimplemented!("runtime")
    }
}
