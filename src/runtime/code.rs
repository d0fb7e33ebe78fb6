//! Maps machine code into memory, ready to be instantiated, and keeps the most used of it there.
//!
//! **Invariant:** only code whose MAC was just checked is mapped, from the very file that was checked; the
//! server never compiles: what is missing goes to the injected compiler.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Semaphore;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::cache::Cache;
use super::coalesce::Coalesce;
use super::compile::{Compiled, Compiler, digest_of};
use super::engine::{MEMORIES_PER_PERMIT, PoolUse, TABLES_PER_PERMIT, pool_use};
use super::engines::{Engines, Unit};
use super::runnable::Runnable;
use super::times::{CompilationTimes, Times};
use super::wire::{Label, Needs, shape_of, shape_word};
use super::{Prepared, Refused};
use crate::model::{Digest, Shape};

/// Code that can be instantiated at once.
pub(super) struct Loaded {
    /// The code with its imports resolved.
    pub(super) runnable: Runnable,
    /// Its engine.
    pub(super) unit: Arc<Unit>,
    /// Permits that one instance takes, by what it needs of the pool.
    pub(super) permits: u32,
    /// Size of the machine code in bytes.
    pub(super) size: u64,
}

/// Whether code had to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temperature {
    /// It was in memory.
    Warm,
    /// It came from the disk, or from the compiler.
    Cold,
}

/// Why code that was kept cannot be had. Clonable, because all who wait for it are told.
type LoadError = Arc<str>;

/// All code: in memory, on disk, or yet to be compiled.
pub(super) struct Codes {
    shelf: Arc<Shelf>,
    compiler: Arc<dyn Compiler>,
    loaded: moka::sync::Cache<Digest, Arc<Loaded>>,
    loading: Coalesce<Result<Arc<Loaded>, LoadError>>,
    preparing: Coalesce<Result<Prepared, Refused>>,
    /// Who compiles again what is called: one at a time, so that a backlog of such calls (after a restore, or an
    /// update of wasmtime) does not fill the compiler's queue and fail for finding it full.
    recompiling: Semaphore,
    times: Times,
}

/// What blocking threads need.
struct Shelf {
    engines: Engines,
    cache: Cache,
}

/// Bytes hashed on the spot; more than that goes to a thread for blocking work.
const HASH_ON_THE_SPOT_MAX: usize = 64 << 10;
/// The unit in which loaded code is weighed, in bytes: weights are 32 bits wide.
const WEIGHT_UNIT: u64 = 1 << 10;

/// Places for what a thread found last.
const RECENT_PLACES: usize = 16;
/// How often a thread uses what it found before it asks again, so that the cache knows what is used.
const RECENT_USES_MAX: u32 = 32;

thread_local! {
    /// What this thread found in a cache: asking it costs as much as ten other look-ups, and writes at places that
    /// all threads write at. Does not keep code in memory that its cache has let go.
    static RECENT: RefCell<[Option<Recent>; RECENT_PLACES]> = const { RefCell::new([const { None }; RECENT_PLACES]) };
}

struct Recent {
    /// Whose it is: the address of a [`Shelf`]. Where another has come to stand there, the code of the one before is
    /// gone.
    owner: usize,
    digest: Digest,
    loaded: Weak<Loaded>,
    uses: u32,
}

impl Codes {
    pub(super) fn new(
        engines: Engines,
        cache: Cache,
        compiler: Arc<dyn Compiler>,
        loaded_bytes_max: u64,
    ) -> Self {
        let weigh = |_: &Digest, loaded: &Arc<Loaded>| {
            u32::try_from(loaded.size / WEIGHT_UNIT + 1).unwrap_or(u32::MAX)
        };
        Self {
            shelf: Arc::new(Shelf { engines, cache }),
            compiler,
            loaded: moka::sync::Cache::builder()
                .max_capacity(loaded_bytes_max / WEIGHT_UNIT)
                .weigher(weigh)
                .build(),
            loading: Coalesce::default(),
            preparing: Coalesce::default(),
            times: Times::default(),
            recompiling: Semaphore::new(1),
        }
    }

    pub(super) fn engines(&self) -> &Engines {
        &self.shelf.engines
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.shelf.cache
    }

    /// Files that wait for the compiler, and files that it works at.
    pub(super) fn compiling(&self) -> (usize, usize) {
        let pending = self.compiler.pending();
        let running = pending.min(self.compiler.at_once_max());
        (pending - running, running)
    }

    /// How long compilations took, waiting included; those that were given up apart.
    pub(super) fn compilation_times(&self) -> CompilationTimes {
        self.times.read()
    }

    /// What running guests take of the pool.
    pub(super) fn pool_use(&self) -> PoolUse {
        let engines = &self.shelf.engines;
        let plain = pool_use(&engines.plain().engine);
        match engines.with_async() {
            Some(unit) => plain.and(pool_use(&unit.engine)),
            None => plain,
        }
    }

    async fn compile(&self, wasm: Bytes) -> Result<Compiled, Refused> {
        let begun = Instant::now();
        let compiled = self.compiler.compile(wasm).await;
        self.times.record(begun.elapsed());
        compiled
    }

    /// Entries in memory and their weight in bytes, after housekeeping that is due.
    pub(super) fn loaded(&self) -> (u64, u64) {
        self.loaded.run_pending_tasks();
        let bytes = self.loaded.weighted_size().saturating_mul(WEIGHT_UNIT);
        (self.loaded.entry_count(), bytes)
    }

    /// Forgets code that is in memory; guests that run it are not disturbed.
    pub(super) fn forget(&self, digest: &Digest) {
        self.loaded.invalidate(digest);
    }

    /// See [`super::Runtime::prepare`].
    pub(super) async fn prepare(&self, wasm: Bytes) -> Result<Prepared, Refused> {
        let digest = if wasm.len() <= HASH_ON_THE_SPOT_MAX {
            digest_of(&wasm)
        } else {
            let wasm = wasm.clone();
            blocking(move || Ok(digest_of(&wasm))).await?
        };
        self.preparing
            .join(digest, self.prepare_alone(digest, wasm))
            .await
    }

    async fn prepare_alone(&self, digest: Digest, wasm: Bytes) -> Result<Prepared, Refused> {
        let shelf = Arc::clone(&self.shelf);
        if let Some(label) = blocking(move || Ok(shelf.cache.known(&digest))).await?
            && let Some(prepared) = prepared(digest, &label)
        {
            return Ok(prepared);
        }
        let compiled = self.compile(wasm.clone()).await?;
        let shelf = Arc::clone(&self.shelf);
        let label = label_of(&compiled, &wasm);
        let answer = prepared(digest, &label);
        let loaded = blocking(move || {
            shelf
                .cache
                .keep_artifact(&digest, &label, &compiled.artifact)
                .map_err(disk)?;
            let loaded = match shelf.load(&digest, &label) {
                Ok(loaded) => loaded,
                Err(error) => {
                    shelf
                        .cache
                        .drop_artifact(&digest, label.flavor)
                        .map_err(disk)?;
                    return Err(does_not_fit(&error));
                }
            };
            shelf.cache.keep(&digest, &wasm, &label).map_err(disk)?;
            Ok(loaded)
        })
        .await?;
        if let Some(loaded) = loaded {
            self.loaded.insert(digest, Arc::new(loaded));
        }
        answer.ok_or_else(|| Refused::Failed("the compiler named an unknown shape".to_owned()))
    }

    /// Code that is in memory.
    pub(super) fn get_warm(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        let owner = Arc::as_ptr(&self.shelf).addr();
        let [first, ..] = digest.as_bytes();
        RECENT.with_borrow_mut(|recent| {
            let place = recent.get_mut(usize::from(*first) % RECENT_PLACES)?;
            if let Some(known) = place
                && (known.owner, &known.digest) == (owner, digest)
                && known.uses < RECENT_USES_MAX
                && let Some(loaded) = known.loaded.upgrade()
            {
                known.uses += 1;
                return Some(loaded);
            }
            let loaded = self.loaded.get(digest)?;
            *place = Some(Recent {
                owner,
                digest: *digest,
                loaded: Arc::downgrade(&loaded),
                uses: 0,
            });
            Some(loaded)
        })
    }

    /// The code of a file that was prepared, ready to be instantiated.
    ///
    /// # Errors
    /// A sentence for the log and the execution's fault: the file is gone or cannot be compiled any more.
    pub(super) async fn get(
        &self,
        digest: Digest,
    ) -> Result<(Arc<Loaded>, Temperature), LoadError> {
        if let Some(loaded) = self.get_warm(&digest) {
            return Ok((loaded, Temperature::Warm));
        }
        let loaded = self.loading.join(digest, self.fetch(digest)).await?;
        Ok((loaded, Temperature::Cold))
    }

    async fn fetch(&self, digest: Digest) -> Result<Arc<Loaded>, LoadError> {
        let failed = |error: Refused| LoadError::from(format!("code {digest}: {error}"));
        let shelf = Arc::clone(&self.shelf);
        let found = blocking(move || shelf.find(&digest))
            .await
            .map_err(failed)?;
        let loaded = match found {
            Found::Code(loaded) => *loaded,
            Found::Wasm(wasm) => {
                // Never closed; without a turn it would only be less orderly.
                let _turn = self.recompiling.acquire().await;
                tracing::info!(code.digest = %digest, "no machine code for this engine: compiling again");
                let compiled = self.compile(wasm.clone()).await.map_err(failed)?;
                let shelf = Arc::clone(&self.shelf);
                blocking(move || shelf.restore(&digest, &wasm, &compiled))
                    .await
                    .map_err(failed)?
            }
        };
        let loaded = Arc::new(loaded);
        self.loaded.insert(digest, Arc::clone(&loaded));
        Ok(loaded)
    }
}

/// What the disk has of a file.
enum Found {
    Code(Box<Loaded>),
    Wasm(Bytes),
}

impl Shelf {
    fn find(&self, digest: &Digest) -> Result<Found, Refused> {
        let gone = || Refused::Failed("the file is not kept here".to_owned());
        let label = self.cache.label(digest).ok_or_else(gone)?;
        match self.load(digest, &label) {
            Ok(Some(loaded)) => return Ok(Found::Code(Box::new(loaded))),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(code.digest = %digest, error = %format_args!("{error:#}"), "kept machine code does not load");
            }
        }
        let wasm = self.cache.wasm(digest).ok_or_else(gone)?;
        Ok(Found::Wasm(wasm))
    }

    /// Keeps code that was compiled again, and loads it.
    fn restore(
        &self,
        digest: &Digest,
        wasm: &[u8],
        compiled: &Compiled,
    ) -> Result<Loaded, Refused> {
        let label = label_of(compiled, wasm);
        self.cache
            .keep_artifact(digest, &label, &compiled.artifact)
            .map_err(disk)?;
        // This version may see more in a file than the one that it was uploaded to.
        if self.cache.label(digest).as_ref() != Some(&label) {
            self.cache.keep_label(digest, &label).map_err(disk)?;
        }
        self.load(digest, &label)
            .map_err(|error| does_not_fit(&error))?
            .ok_or_else(|| Refused::Failed("machine code was damaged while it was kept".to_owned()))
    }

    /// Loads machine code that is kept, if it is ours.
    fn load(&self, digest: &Digest, label: &Label) -> wasmtime::Result<Option<Loaded>> {
        let Some(artifact) = self.cache.artifact(digest, label)? else {
            return Ok(None);
        };
        let shape = shape_of(&label.shape)
            .ok_or_else(|| wasmtime::format_err!("unknown shape {:?}", label.shape))?;
        let unit = self.engines.unit(label.flavor)?;
        let runnable = match map(&unit.engine, &artifact.file, shape)? {
            Mapped::Module(module) => Runnable::module(&unit.linkers, &module)?,
            Mapped::Component(component) => Runnable::component(&unit.linkers, &component, shape)?,
        };
        Ok(Some(Loaded {
            runnable,
            unit,
            permits: permits(label.needs),
            size: artifact.size,
        }))
    }
}

enum Mapped {
    Module(Module),
    Component(Component),
}

/// Maps machine code out of the open file that was checked, whatever its name points to by now.
#[expect(
    unsafe_code,
    reason = "running machine code that this process compiled is what a runtime is for"
)]
fn map(engine: &Engine, file: &File, shape: Shape) -> wasmtime::Result<Mapped> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the bytes came out of wasmtime's own `serialize`: `Cache::artifact` has just found them, through
    // this very file, to carry a MAC that only this installation can make, over an engine of this exact
    // version and configuration. Files of the cache are never written in place, only renamed over.
    unsafe {
        match shape {
            Shape::CoreCommand => Module::deserialize_file(engine, path).map(Mapped::Module),
            Shape::Handler
            | Shape::Http02
            | Shape::Http03
            | Shape::Command02
            | Shape::Command03 => Component::deserialize_file(engine, path).map(Mapped::Component),
        }
    }
}

/// Permits for one instance, so that guests who hold theirs never exhaust the pool.
fn permits(needs: Needs) -> u32 {
    needs
        .memories
        .div_ceil(MEMORIES_PER_PERMIT)
        .max(needs.tables.div_ceil(TABLES_PER_PERMIT))
        .max(1)
}

/// What is to be known of a file, from what the compiler found.
fn label_of(compiled: &Compiled, wasm: &[u8]) -> Label {
    Label {
        shape: shape_word(compiled.shape).to_owned(),
        size: u64::try_from(wasm.len()).unwrap_or(u64::MAX),
        needs: compiled.needs,
        flavor: compiled.flavor,
        outgoing: compiled.outgoing.clone(),
    }
}

/// What is known of a kept file.
pub(super) fn prepared(digest: Digest, label: &Label) -> Option<Prepared> {
    Some(Prepared {
        digest,
        shape: shape_of(&label.shape)?,
        size: label.size,
        outgoing: label.outgoing.clone(),
    })
}

/// Why fresh machine code was not accepted. Where it is the pool, the text names the number.
fn does_not_fit(error: &wasmtime::Error) -> Refused {
    let causes = error.chain().map(ToString::to_string);
    let about_pool: Vec<_> = causes
        .skip_while(|cause| !cause.contains("pooling allocator"))
        .collect();
    if !about_pool.is_empty() {
        return Refused::Unsupported(format!(
            "this file needs more than one run may have: {}",
            about_pool.join(": ")
        ));
    }
    Refused::Failed(format!(
        "the compiler's code cannot be loaded here: {error:#}"
    ))
}

fn disk(error: std::io::Error) -> Refused {
    Refused::Failed(format!("the code cannot be kept: {error}"))
}

/// Does `work` on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Refused::Failed(format!("a task of ours failed: {error}"))))
}
