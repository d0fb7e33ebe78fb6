//! The scheduler's promises, each in a small world of its own.

mod calls;
mod faulty;
mod invariants;
mod late_runs;
mod lifecycle;
mod orders;
mod queueing;
mod scripted;
mod simulation;
mod support;
mod trace;
