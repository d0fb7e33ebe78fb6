//! Code with its imports resolved: what is left to do for a call is to instantiate it.
//!
//! **Invariant:** one variant for each [`Shape`]; what a shape must export was found, with the right type.

use wasmtime::Module;
use wasmtime::component::Component;
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::host::{Ctx, FunctionPre, Linkers};
use crate::model::Shape;

/// Code that can be instantiated; shared by all attempts that run it.
pub(super) enum Runnable {
    /// The typed world.
    Handler(FunctionPre<Ctx>),
    /// A `wasi:http/incoming-handler@0.2` component.
    Http02(ProxyPre<Ctx>),
    /// A `wasi:http/handler@0.3` component.
    Http03(ServicePre<Ctx>),
    /// A `wasi:cli/run@0.2` component.
    Command02(p2::bindings::CommandPre<Ctx>),
    /// A `wasi:cli/run@0.3` component.
    Command03(p3::bindings::CommandPre<Ctx>),
    /// A preview 1 module.
    Core(wasmtime::InstancePre<Ctx>),
}

impl Runnable {
    /// A module, which is a program whatever it exports beside `_start`.
    ///
    /// # Errors
    /// An import is not provided, or has another type.
    pub(super) fn module(linkers: &Linkers, module: &Module) -> wasmtime::Result<Self> {
        Ok(Self::Core(linkers.module.instantiate_pre(module)?))
    }

    /// A component of this shape.
    ///
    /// # Errors
    /// An import or export is not there, or has another type.
    pub(super) fn component(
        linkers: &Linkers,
        component: &Component,
        shape: Shape,
    ) -> wasmtime::Result<Self> {
        let pre = linkers.component.instantiate_pre(component)?;
        Ok(match shape {
            Shape::Handler => Self::Handler(FunctionPre::new(pre)?),
            Shape::Http02 => Self::Http02(ProxyPre::new(pre)?),
            Shape::Http03 => Self::Http03(ServicePre::new(pre)?),
            Shape::Command02 => Self::Command02(p2::bindings::CommandPre::new(pre)?),
            Shape::Command03 => Self::Command03(p3::bindings::CommandPre::new(pre)?),
            Shape::CoreCommand => wasmtime::bail!("a component is not a core module"),
        })
    }
}
