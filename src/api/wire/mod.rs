//! Bodies, headers and queries: what stands on the wire, and what it means inside.
//!
//! **Invariant:** knows serde so that the inner types need not; checks everything here, so that no value
//! that exists inside is out of its range. A call's payload is parsed once and never copied.

mod call;
mod completion;
mod cursor;
mod drain;
mod duration;
mod execution;
mod fields;
mod function;
mod headers;
mod json;
mod log_line;
mod query;
mod reach;
mod redrive;
mod reuse;
mod runtime_config;
mod secret;
mod spec;
mod spec_names;
#[cfg(test)]
mod spec_tests;
mod time;
mod version;

pub(super) use call::CallBody;
pub(super) use completion::CompletionBody;
pub(super) use drain::{drain_answer, drain_options};
pub(super) use execution::{
    Outputs, call_answer, execution, execution_with, list_of, logs, page, put_line,
};
pub(super) use function::{version_view, view};
pub(super) use headers::{CallHeaders, X_EXECUTION_ID, dispatch_attempt};
pub(super) use query::{ExportQuery, ListQuery};
pub(super) use redrive::{redrive, redriven};
pub(super) use runtime_config::{
    Revision, RuntimeConfigBody, runtime_change, runtime_config, runtime_config_valid,
};
pub(super) use secret::{secret_value, secret_view};
pub(super) use spec::{
    NewFunction, full_spec, merge_patch, object, object_of, patched_with_code, spec_of,
};
pub(super) use version::{no_fields, redrive_version, rollback_version};
