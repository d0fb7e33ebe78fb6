//! The API's words for callers in the same process: `pelton run` reads a spec and shows an execution as the server does.
//!
//! **Invariant:** nothing is said here in other words than over HTTP.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::error::Error;
use super::wire;
use crate::model::{FunctionName, Spec};
use crate::registry;
use crate::store::{AttemptRecord, ExecutionRecord};

/// A refusal, as its HTTP answer would say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// Every complaint, if there are several.
    pub details: Vec<String>,
}

impl From<registry::Error> for Problem {
    fn from(error: registry::Error) -> Self {
        Error::from(error).into_problem()
    }
}

impl Problem {
    /// What an upload of more than `limit_bytes` is answered.
    pub fn upload_too_large(limit_bytes: usize) -> Self {
        Error::too_large("the upload", limit_bytes).into_problem()
    }
}

/// The whole spec that the fields of an object say, for the function `name`.
///
/// # Errors
/// All complaints.
pub fn spec(fields: Map<String, Value>, name: &FunctionName) -> Result<Spec, Vec<String>> {
    wire::full_spec(fields, name)
}

/// An execution as `GET /v1/executions/{id}` shows it, with its only run so far as `attempt`, in the form in which
/// `…/logs` shows it.
pub fn execution_with(record: &ExecutionRecord, attempt: &AttemptRecord) -> Bytes {
    wire::execution_with(record, attempt)
}
