//! Pelton: upload a wasm function, call it or queue it, and never lose what was accepted.

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod endpoint;
pub mod execution;
pub mod guests;
pub mod model;
pub mod observe;
pub mod registry;
pub mod runtime;
pub mod scheduler;
pub mod shutdown;
pub mod store;
pub mod testing;
