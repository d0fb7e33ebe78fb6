//! What a guest finds around itself: its store's data and the imports that it may link to.
//!
//! **Invariant:** everything of WASI is linked and nothing is granted: no directory, no network, no
//! environment but the spec's. What a guest never asks for is never built.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Linker;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{I32Exit, WasiCtxView, WasiView, p0};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::crowd::Crowd;
use super::engine::Flavor;
use super::extras;
use super::host_limits::FIELDS_BYTES_MAX;
use super::limits::MemoryLimit;
use super::outgoing::Outgoing;
use super::surroundings::Surroundings;
use super::watch::Watch;
use crate::execution::Attempt;

/// The typed world of `wit/pelton.wit`.
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "function",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(super) use bindings::pelton::function::types as typed;
pub(super) use bindings::{Function, FunctionPre};

/// The modules under which core modules import WASI: preview 1, and what came before it.
pub(super) const PREVIEWS: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];
/// Preview 1's "bad file descriptor".
const ERRNO_BADF: i32 = 8;

/// The data of one attempt's store.
pub(super) struct Ctx {
    /// Counts memories and tables.
    pub(super) memory: MemoryLimit,
    /// Whether the instance was made: from then on, what goes wrong is the guest's doing.
    pub(super) instantiated: bool,
    /// What the store's epochs report to.
    pub(super) watch: Arc<Watch>,
    /// The calls that are in it, where it takes several at once.
    pub(super) crowd: Option<Arc<Crowd>>,
    /// Built at the guest's first question: many handlers never ask one. Serves all previews alike.
    wasi: Option<Box<WasiP1Ctx>>,
    http: WasiHttpCtx,
    /// With what WASI answers with, if it is asked.
    outgoing: Outgoing,
}

impl Ctx {
    /// The data of a fresh store.
    pub(super) fn new(memory: MemoryLimit, outgoing: Outgoing, watch: Arc<Watch>) -> Self {
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES_MAX);
        Self {
            memory,
            instantiated: false,
            watch,
            crowd: None,
            wasi: None,
            http,
            outgoing,
        }
    }

    /// What WASI answers with.
    pub(super) fn surroundings(&self) -> &Surroundings {
        self.outgoing.surroundings()
    }

    /// The call is over. Says whether nothing that it began goes on.
    pub(super) fn end_call(&mut self) -> bool {
        self.outgoing.end_call()
    }

    /// Another call of the same version begins in this store.
    pub(super) fn renew(&mut self, attempt: &Attempt, watch: Arc<Watch>) {
        self.memory.forget_denial();
        self.watch = watch;
        self.outgoing.renew(attempt);
    }

    /// A call of the same version joins those that are in this store.
    pub(super) fn join(&mut self, attempt: &Attempt, is_alone: bool) {
        self.outgoing.join(attempt, is_alone);
    }

    fn wasi(&mut self) -> &mut WasiP1Ctx {
        self.wasi
            .get_or_insert_with(|| Box::new(self.outgoing.surroundings().build()))
    }
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi().ctx()
    }
}

impl WasiHttpView for Ctx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let surroundings = self.outgoing.surroundings();
        let wasi = self
            .wasi
            .get_or_insert_with(|| Box::new(surroundings.build()));
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: wasi.ctx().table,
            ctx: &mut self.http,
        }
    }
}

/// The imports that guests may link to, one linker per kind of file.
pub(super) struct Linkers {
    /// For components: WASI 0.2, and 0.3 where the engine has the async that it needs.
    pub(super) component: Linker<Ctx>,
    /// For core modules: preview 1 and what came before it.
    pub(super) module: wasmtime::Linker<Ctx>,
}

impl Linkers {
    /// Links everything that guests of `engine`, which is of this flavor, may import.
    ///
    /// # Errors
    /// Two definitions of one import: a mistake of ours.
    pub(super) fn new(engine: &Engine, flavor: Flavor) -> wasmtime::Result<Self> {
        let mut component = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut component)?;
        extras::link(&mut component)?;
        if flavor == Flavor::Async {
            wasmtime_wasi::p3::add_to_linker(&mut component)?;
            wasmtime_wasi_http::p3::add_to_linker(&mut component)?;
        }

        let mut module = wasmtime::Linker::new(engine);
        p1::add_to_linker_async(&mut module, |ctx: &mut Ctx| ctx.wasi())?;
        p0::add_to_linker_async(&mut module, |ctx: &mut Ctx| ctx.wasi())?;
        module.allow_shadowing(true);
        for preview in PREVIEWS {
            // wasmtime's own `proc_exit` calls every code from 126 on invalid; a program may mean them.
            module.func_wrap(preview, "proc_exit", |code: i32| -> wasmtime::Result<()> {
                Err(I32Exit(code).into())
            })?;
            // wasmtime's own `path_open` copies the path before it finds that there is no directory.
            module.func_wrap(
                preview,
                "path_open",
                |_: i32, _: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32, _: i32| ERRNO_BADF,
            )?;
        }
        module.allow_shadowing(false);
        Ok(Self { component, module })
    }
}
