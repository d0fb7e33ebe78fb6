//! The scheduler's promises, each in a small world of its own.

mod admission;
mod aged;
mod calls;
mod direct;
mod faulty;
mod invariants;
mod late_runs;
mod lifecycle;
mod orders;
mod queueing;
mod runtime_config;
mod scripted;
mod simulation;
mod slots;
mod support;
mod suspects;
mod trace;
