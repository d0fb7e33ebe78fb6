//! The one integration-test binary: a module per subject.

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails may panic, its helpers too"
)]

mod api_calls;
mod api_errors;
mod api_executions;
mod api_functions;
mod background;
mod backup;
mod bad_input;
mod binary;
mod cases;
mod compile_child;
mod completion;
mod guests;
mod limits;
mod logs;
mod nanofaas;
mod plane;
mod support;
mod tidy;
mod upkeep;
