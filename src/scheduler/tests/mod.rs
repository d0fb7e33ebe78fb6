//! The scheduler's promises, each in a small world of its own.

mod calls;
mod invariants;
mod lifecycle;
mod orders;
mod queueing;
mod simulation;
mod support;
