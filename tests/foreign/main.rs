//! Functions that none of us wrote, and what other languages' tools make of a few lines: fetched by package name when
//! this runs, built, deployed to the real binary and called.
//!
//! It needs a network, Node, Python, Debian's C compiler for wasm and a few minutes, so it is no part of `cargo test`;
//! `.ci/run` brings what is missing and runs it: `cargo test --test foreign`.
//!
//! **Invariant:** every server here has its default settings, but for the time of the compiler; nothing that was fetched
//! or built is kept in the repository; a tool that is missing is a failure.

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails may panic, its helpers too"
)]

// The first is shared with the other test binary, which uses more of it.
#[path = "../it/support/binary.rs"]
#[expect(dead_code, reason = "the other test binary uses more of it")]
mod binary;
mod commands;
mod handlers;
mod plane;
mod programs;
mod rust;
mod tools;
mod web;
mod wit;
