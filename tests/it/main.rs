//! The one integration-test binary: a module per subject.

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails may panic, its helpers too"
)]

mod compile_child;
mod guests;
mod support;
