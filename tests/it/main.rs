//! The one integration-test binary: a module per subject.

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails may panic, its helpers too"
)]

mod admission;
mod api_calls;
mod api_errors;
mod api_executions;
mod api_functions;
mod app;
mod background;
mod backup;
mod bad_input;
mod binary;
mod binary_executions;
mod bulk;
mod cases;
mod compatibility;
mod compile_child;
mod completion;
mod crash;
mod deploy;
mod direct;
mod direct_origin;
mod greedy;
mod guards;
mod guests;
mod hostile;
mod limits;
mod logs;
mod metrics;
mod nanofaas;
mod nanofaas_clients;
mod neighbours;
mod outcomes;
mod plane;
mod reach;
mod reuse;
mod reuse_at_once;
mod run;
mod runtime_config;
mod scale;
mod secrecy;
mod secrets;
mod store_faults;
mod support;
mod tidy;
mod upkeep;
mod web_calls;
mod web_heads;
mod web_mistakes;
mod web_rules;
mod web_server;
