//! The scheduler's promises, each in a small world of its own.

mod admission;
mod calls;
mod invariants;
mod lifecycle;
mod orders;
mod queueing;
mod runtime_config;
mod simulation;
mod slots;
mod support;
