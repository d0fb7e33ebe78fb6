//! One execution as a store in memory keeps it.
//!
//! **Invariant:** guards are judged here and nowhere else.

use std::sync::Arc;

use crate::execution::{Execution, Status};
use crate::model::{
    ExecutionId, Fence, FunctionId, FunctionName, Output, RecordMode, Timestamp, VersionNumber,
};
use crate::store::{
    Applied, AttemptRecord, EndedExecution, ExecutionRecord, Guard, NewExecution, Request,
    Transition,
};

#[derive(Debug)]
pub(super) struct Row {
    pub(super) function_id: FunctionId,
    pub(super) function: FunctionName,
    pub(super) version: VersionNumber,
    pub(super) execution: Execution,
    pub(super) claimed: Fence,
    pub(super) request: Option<Arc<Request>>,
    /// Whether its runs are kept: not of a summary.
    pub(super) keeps_attempts: bool,
    pub(super) output: Option<Output>,
    /// In the order of their claims.
    pub(super) attempts: Vec<AttemptRecord>,
    pub(super) last: LastRun,
    pub(super) deadline: Option<Timestamp>,
    pub(super) input_bytes: u64,
    pub(super) output_bytes: Option<u64>,
    pub(super) trace_id: Option<Arc<str>>,
    pub(super) parent: Option<ExecutionId>,
}

/// What a row says of its last run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastRun {
    pub(super) cold_start: bool,
    pub(super) init_ms: Option<u64>,
}

impl LastRun {
    pub(super) fn of(attempt: &AttemptRecord) -> Self {
        Self {
            cold_start: attempt.cold_start,
            init_ms: attempt.init_ms,
        }
    }
}

impl Row {
    pub(super) fn of_new(new: NewExecution) -> Self {
        Self {
            function_id: new.function_id,
            function: new.function,
            version: new.version,
            execution: new.execution,
            claimed: Fence(0),
            input_bytes: new.request.input.body.len() as u64,
            trace_id: new.request.trace_id.clone(),
            parent: new.request.parent,
            request: Some(new.request),
            keeps_attempts: true,
            output: None,
            output_bytes: None,
            attempts: Vec::new(),
            last: LastRun::default(),
            deadline: new.deadline,
        }
    }

    pub(super) fn of_ended(ended: EndedExecution) -> Self {
        let ended = ended.without_streams();
        let (input_bytes, output_bytes) = (ended.input_bytes(), ended.output_bytes());
        let keeps_attempts = match ended.record {
            RecordMode::Auto | RecordMode::Full => true,
            RecordMode::Summary => false,
        };
        let keeps_bodies = keeps_attempts && ended.streamed.is_none();
        let mut attempts = ended.attempts;
        let last = attempts.last().map(LastRun::of).unwrap_or_default();
        let claimed = attempts.last().map_or(Fence(0), |attempt| attempt.fence);
        if !keeps_attempts {
            attempts.clear();
        }
        Self {
            function_id: ended.function_id,
            function: ended.function,
            version: ended.version,
            claimed,
            last,
            execution: ended.execution,
            input_bytes,
            trace_id: ended.request.trace_id.clone(),
            parent: ended.request.parent,
            request: keeps_bodies.then_some(ended.request),
            keeps_attempts,
            output_bytes,
            output: ended.output.filter(|_| keeps_bodies),
            attempts,
            deadline: None,
        }
    }

    pub(super) fn apply(&mut self, transition: Transition) -> Applied {
        let status = self.execution.status();
        let holds = match transition.guard {
            Guard::Claim(fence) => !status.is_terminal() && self.claimed <= fence,
            Guard::Live => !status.is_terminal(),
            Guard::Redrivable => matches!(status, Status::Error | Status::Timeout),
        };
        if !holds {
            return Applied::Stale;
        }
        match transition.guard {
            Guard::Claim(fence) => self.claimed = fence,
            Guard::Live => {}
            // Nobody waits for a second life.
            Guard::Redrivable => (self.deadline, self.last) = (None, LastRun::default()),
        }
        self.execution = transition.next;
        if let Some(version) = transition.version {
            self.version = version;
        }
        self.output_bytes = transition
            .output
            .as_ref()
            .map(|output| output.body.len() as u64);
        self.output = transition.output;
        if let Some(attempt) = transition.attempt {
            self.last = LastRun::of(&attempt);
            match self.run_under(attempt.fence) {
                Ok(at) => self.attempts[at] = attempt,
                Err(at) => self.attempts.insert(at, attempt),
            }
        }
        Applied::Done
    }

    /// Where the run of a claim stands, or where it belongs.
    pub(super) fn run_under(&self, fence: Fence) -> std::result::Result<usize, usize> {
        self.attempts
            .binary_search_by_key(&fence, |attempt| attempt.fence)
    }

    pub(super) fn record(&self, id: ExecutionId, output: Option<Output>) -> ExecutionRecord {
        ExecutionRecord {
            id,
            function_id: self.function_id,
            function: self.function.clone(),
            version: self.version,
            execution: self.execution.clone(),
            output,
            input_bytes: self.input_bytes,
            output_bytes: self.output_bytes,
            input_kept: self.request.is_some(),
            cold_start: self.last.cold_start,
            init_ms: self.last.init_ms,
            trace_id: self.trace_id.clone(),
            parent: self.parent,
        }
    }
}
