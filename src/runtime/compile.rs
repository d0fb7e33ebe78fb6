//! Turns wasm into machine code: the trait that the runtime is given, the work itself, and a compiler that
//! does it in this process.
//!
//! **Invariant:** nothing here is trusted by virtue of having been compiled: the runtime puts its own MAC on
//! what it keeps. The server uses [`ChildCompiler`](super::ChildCompiler); [`InProcessCompiler`] is for the
//! harness, where the code is the tester's own.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, ResourcesRequired};

use super::engine::Flavor;
use super::host::Linkers;
use super::runnable::Runnable;
use super::shape::{Layer, Outline};
use super::wire::Needs;
use super::{Refused, engine, imports};
use crate::model::{Digest, Shape};

/// Checks and compiles files of wasm.
#[async_trait::async_trait]
pub trait Compiler: Send + Sync {
    /// Checks and compiles one file. May wait for others; dropping the future gives up.
    ///
    /// # Errors
    /// [`Refused`], with the reason for the uploader.
    async fn compile(&self, wasm: Bytes) -> Result<Compiled, Refused>;

    /// Files that wait or are being compiled.
    fn pending(&self) -> usize;

    /// Files that are compiled at once, at most.
    fn at_once_max(&self) -> usize {
        1
    }
}

/// A compiled file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// How it is run.
    pub shape: Shape,
    /// What one instance takes from the pool.
    pub needs: Needs,
    /// The engine that can load the artifact.
    pub flavor: Flavor,
    /// The interface by which it calls out, if it imports one.
    pub outgoing: Option<String>,
    /// Machine code in wasmtime's own form.
    pub artifact: Bytes,
}

/// Compiles in this process, on a thread for blocking work. Without the child's limits: a hostile file can
/// take all memory or time.
pub struct InProcessCompiler {
    toolchains: Arc<Toolchains>,
}

impl InProcessCompiler {
    /// A compiler for this machine.
    ///
    /// # Errors
    /// [`Refused::Failed`] if wasmtime does not support this machine.
    pub fn new() -> Result<Self, Refused> {
        let toolchains = Toolchains::default();
        toolchains.get(Flavor::Plain)?;
        Ok(Self {
            toolchains: Arc::new(toolchains),
        })
    }
}

#[async_trait::async_trait]
impl Compiler for InProcessCompiler {
    async fn compile(&self, wasm: Bytes) -> Result<Compiled, Refused> {
        let toolchains = Arc::clone(&self.toolchains);
        tokio::task::spawn_blocking(move || toolchains.compile(&wasm))
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the compiler panicked");
                Err(gave_up())
            })
    }

    fn pending(&self) -> usize {
        Arc::strong_count(&self.toolchains).saturating_sub(1)
    }

    fn at_once_max(&self) -> usize {
        usize::MAX
    }
}

/// The compiler stumbled over this file.
pub(super) fn gave_up() -> Refused {
    Refused::TooExpensive(
        "the compiler gave up on this file; a smaller or simpler one may do".to_owned(),
    )
}

/// What compiles for each engine; made when the first file needs it.
#[derive(Default)]
pub(super) struct Toolchains {
    plain: OnceLock<Result<Toolchain, Refused>>,
    with_async: OnceLock<Result<Toolchain, Refused>>,
}

impl Toolchains {
    /// Checks and compiles one file, for the engine that it needs.
    pub(super) fn compile(&self, wasm: &[u8]) -> Result<Compiled, Refused> {
        let mut outline = Outline::read(wasm)?;
        let shape = outline.shape()?;
        let flavor = outline.validate(wasm)?;
        let toolchain = self.get(flavor)?;
        let file = imports::File {
            wasm,
            layer: outline.layer,
            imports: &outline.imports,
        };
        imports::check(file, toolchain.host(), || {
            let with_async = self.get(Flavor::Async);
            with_async.ok().map(Toolchain::host)
        })?;
        let (needs, artifact) = match outline.layer {
            Layer::Module => toolchain.module(wasm)?,
            Layer::Component => toolchain.component(wasm, shape)?,
        };
        Ok(Compiled {
            shape,
            needs,
            flavor,
            outgoing: outline.outgoing(),
            artifact: artifact.into(),
        })
    }

    fn get(&self, flavor: Flavor) -> Result<&Toolchain, Refused> {
        let toolchain = match flavor {
            Flavor::Plain => &self.plain,
            Flavor::Async => &self.with_async,
        };
        let made = toolchain.get_or_init(|| Toolchain::new(flavor));
        made.as_ref().map_err(Clone::clone)
    }
}

/// An engine that compiles and the imports that guests may have.
struct Toolchain {
    engine: Engine,
    linkers: Linkers,
}

impl Toolchain {
    fn new(flavor: Flavor) -> Result<Self, Refused> {
        let build = || -> wasmtime::Result<Self> {
            let engine = engine::compiling(flavor)?;
            let linkers = Linkers::new(&engine, flavor)?;
            Ok(Self { engine, linkers })
        };
        build()
            .map_err(|error| Refused::Failed(format!("the compiler cannot be set up: {error:#}")))
    }

    fn host(&self) -> imports::Host<'_> {
        (&self.engine, &self.linkers)
    }

    fn module(&self, wasm: &[u8]) -> Result<(Needs, Vec<u8>), Refused> {
        let module = Module::from_binary(&self.engine, wasm).map_err(cannot_compile)?;
        Runnable::module(&self.linkers, &module).map_err(wrong_type)?;
        let artifact = module.serialize().map_err(cannot_compile)?;
        Ok((Needs::of(&module.resources_required()), artifact))
    }

    fn component(&self, wasm: &[u8], shape: Shape) -> Result<(Needs, Vec<u8>), Refused> {
        let component = Component::from_binary(&self.engine, wasm).map_err(cannot_compile)?;
        Runnable::component(&self.linkers, &component, shape).map_err(wrong_type)?;
        let needs = component
            .resources_required()
            .as_ref()
            .map(Needs::of)
            .ok_or_else(|| {
                Refused::Unsupported(
                    "this component imports core modules, so what it needs cannot be known"
                        .to_owned(),
                )
            })?;
        let artifact = component.serialize().map_err(cannot_compile)?;
        Ok((needs, artifact))
    }
}

impl Needs {
    fn of(required: &ResourcesRequired) -> Self {
        Self {
            memories: required.num_memories,
            tables: required.num_tables,
        }
    }
}

fn cannot_compile(error: wasmtime::Error) -> Refused {
    if is_out_of_memory(&error) {
        return out_of_memory();
    }
    Refused::Unsupported(format!("this file cannot be compiled: {error:#}"))
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::OutOfMemory>()
        || error.chain().any(|cause| {
            let kind = cause.downcast_ref::<std::io::Error>().map(|io| io.kind());
            let errno = cause.downcast_ref::<rustix::io::Errno>();
            kind == Some(std::io::ErrorKind::OutOfMemory)
                || errno == Some(&rustix::io::Errno::NOMEM)
        })
}

/// The compiler may use only so much memory.
pub(super) fn out_of_memory() -> Refused {
    Refused::TooExpensive(
        "compiling this file takes more memory than the compiler may use; split the program or build it \
         smaller"
            .to_owned(),
    )
}

fn wrong_type(error: wasmtime::Error) -> Refused {
    Refused::Unsupported(format!(
        "an import or export of this file has another type than what goes by its name here: {error:#}"
    ))
}

/// The SHA-256 digest of a file.
pub(super) fn digest_of(wasm: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(wasm).into())
}
