//! Wires the parts of a plane.
mod listener;
