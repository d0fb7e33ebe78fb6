//! Write a Pelton function as one annotated Rust function.
//!
//! ```
//! use pelton_guest::{Failure, handler};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Greet {
//!     name: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Greeting {
//!     text: String,
//! }
//!
//! #[handler]
//! fn handle(input: Greet) -> Result<Greeting, Failure> {
//!     if input.name.is_empty() {
//!         return Err(Failure::new("NO_NAME", "whom shall I greet?"));
//!     }
//!     Ok(Greeting { text: format!("Hello, {}!", input.name) })
//! }
//! # fn main() {}
//! ```
//!
//! The crate of such a function is a `cdylib`, built with
//! `cargo build --release --target wasm32-wasip2`. On any other target the same function is an ordinary
//! one: unit tests call it directly, or as the host would ([`testing`]).
//!
//! - **Input**: any `serde` type (the body is read as JSON; if it does not fit, the execution ends in error
//!   [`INVALID_INPUT`]), or [`Payload`] for the bytes as they came. [`&Execution`](Execution) before it, if
//!   the function wants to know which attempt it is.
//! - **Answer**: `Result<T, E>` with any `serde` type or [`Payload`] for `T`, and [`Failure`] (a final error)
//!   or [`Outcome`] (any of the four) for `E`; or an [`Outcome`] or a [`Payload`] outright.
//! - **Outcomes**: [`Outcome::Success`]; [`Outcome::Error`], final; [`Outcome::Retry`], the function's retry
//!   policy decides; [`Outcome::Requeue`], later and at no cost. A panic is a trap: it is retried like a
//!   `Retry`, with the code `TRAP`, and its message stands in the execution's logs (standard error).
//! - **Exit codes** are the language of commands, programs with a `main`, and not of handlers. Who writes a
//!   command should know: Rust's standard library cannot carry an exit code on `wasm32-wasip2`, every
//!   failure arrives as 1. On `wasm32-wasip1` the code arrives as it was given.
//!
//! **Invariant:** the author's function sees the types of this crate only; bindings exist in `host`, and in
//! wasm builds alone.

mod execution;
mod handler;
#[cfg(target_family = "wasm")]
mod host;
mod outcome;
mod payload;
pub mod testing;

pub use execution::Execution;
pub use handler::{FromInput, Handler, INVALID_INPUT};
pub use outcome::{Failure, IntoOutcome, IntoPayload, Outcome};
pub use payload::Payload;
pub use pelton_guest_macros::handler;

/// What the code made by [`macro@handler`] needs; not for authors.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::host::*;

    /// Fails to compile, with the reason, for a function that is no handler.
    pub const fn check<H: crate::Handler<Shape>, Shape>(_handler: &H) {}
}

/// The examples for authors compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
