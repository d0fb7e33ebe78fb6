//! What is handed over of an execution that lived in memory.
//!
//! **Invariant:** of one whose caller spoke with the function, nothing that was said is kept.

use std::sync::Arc;

use super::{AttemptRecord, Request};
use crate::execution::{Execution, Streamed};
use crate::model::{ExecutionId, FunctionId, FunctionName, Output, RecordMode, VersionNumber};

/// An execution that lived in memory and has ended: written behind, never waited for.
#[derive(Debug, Clone)]
pub struct EndedExecution {
    /// Its id.
    pub id: ExecutionId,
    /// Whose.
    pub function_id: FunctionId,
    /// The function's name.
    pub function: FunctionName,
    /// The version it ran.
    pub version: VersionNumber,
    /// Its final record.
    pub execution: Execution,
    /// What the caller sent.
    pub request: Arc<Request>,
    /// The result.
    pub output: Option<Output>,
    /// Its caller spoke with the function: of input and output only these sizes are kept, and of its runs only
    /// what says more than that all went well.
    pub streamed: Option<Streamed>,
    /// Its runs.
    pub attempts: Vec<AttemptRecord>,
    /// How much of it to keep.
    pub record: RecordMode,
}

impl EndedExecution {
    /// Bytes of the input.
    pub(crate) fn input_bytes(&self) -> u64 {
        match &self.streamed {
            Some(streamed) => streamed.input_bytes,
            None => u64::try_from(self.request.input.body.len()).unwrap_or(u64::MAX),
        }
    }

    /// Bytes of the output, if there is one.
    pub(crate) fn output_bytes(&self) -> Option<u64> {
        let kept = self.output.as_ref();
        match &self.streamed {
            Some(streamed) => Some(streamed.output_bytes),
            None => kept.map(|output| u64::try_from(output.body.len()).unwrap_or(u64::MAX)),
        }
    }

    /// Lets go of what is not to be kept of one whose caller spoke with the function.
    pub(crate) fn without_streams(mut self) -> Self {
        if self.streamed.is_some() {
            self.output = None;
            self.attempts.retain(|attempt| {
                attempt.failure.is_some() || attempt.cold_start || !attempt.logs.lines.is_empty()
            });
        }
        self
    }
}
