//! The SQL of executions: accepted, claimed, moved on, ended, written behind.
//!
//! **Invariant:** a guard is judged by the row inside the transaction that changes it; a state row is
//! small, and no write of it touches a payload.

use rusqlite::{OptionalExtension, params};

use super::{Done, Problem, Writes, int, key_holder, len};
use crate::execution::{Execution, State, Status};
use crate::model::{
    ContentType, ExecutionId, FunctionId, FunctionName, JSON, Output, Timestamp, VersionNumber,
};
use crate::store::record;
use crate::store::sqlite::schema::InputKept;
use crate::store::{
    Accepted, Applied, AttemptRecord, ClaimRecord, Error, Guard, NewExecution, Request, Transition,
};

macro_rules! insert_execution {
    ($verb:literal) => {
        concat!(
            $verb,
            " INTO executions (id, seq, function_id, function, version, status, standing, fence, due, attempts, \
             faults, requeues, created_at, started_at, finished_at, deadline, error_code, error_message, \
             input_bytes, input_kept, output_bytes, cold_start, init_ms, trace_id, parent, deaths) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, \
             ?21, ?22, ?23, ?24, ?25, ?26)"
        )
    };
}
const INSERT_EXECUTION: &str = insert_execution!("INSERT");
pub(super) const INSERT_UNLESS_KNOWN: &str = insert_execution!("INSERT OR IGNORE");

macro_rules! insert_attempt {
    ($verb:literal) => {
        concat!(
            $verb,
            " INTO attempts (seq, fence, number, started_at, finished_at, outcome, error_code, error_message, cold_start, \
             init_ms, run_us, cpu_us, logs) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
        )
    };
}
const REPLACE_ATTEMPT: &str = insert_attempt!("INSERT OR REPLACE");
const ADD_ATTEMPT: &str = insert_attempt!("INSERT OR IGNORE");

impl Writes<'_, '_> {
    pub(in crate::store::sqlite) fn accept(&self, new: &NewExecution) -> Done<Accepted> {
        if let Some(claim) = &new.key {
            let holder = key_holder(
                self.connection,
                new.function_id,
                claim.key.as_str(),
                new.execution.created_at,
            )?;
            if let Some(holder) = holder {
                return Ok(Accepted::Existing(holder));
            }
        }
        if !self.exists("SELECT 1 FROM functions WHERE id = ?1", [new.function_id.0])? {
            return Err(Problem::Refused(Error::NoSuchFunction));
        }
        let seq = self.take_seq()?;
        let row = NewRow {
            seq,
            id: &new.id,
            function_id: new.function_id,
            function: &new.function,
            version: new.version,
            execution: &new.execution,
            deadline: new.deadline,
            input_bytes: len(new.request.input.body.len())?,
            input_kept: InputKept::Row,
            output_bytes: None,
            cold_start: 0,
            init_ms: None,
            trace_id: new.request.trace_id.as_deref(),
            parent: new.request.parent,
        };
        self.insert_execution(INSERT_EXECUTION, &row)?;
        self.insert_input(seq, &new.request)?;
        if let Some(claim) = &new.key {
            self.replace_key(new, claim)?;
        }
        Ok(Accepted::New)
    }

    pub(super) fn insert_execution(&self, sql: &'static str, row: &NewRow<'_>) -> Done<usize> {
        let state = StateColumns::of(row.execution);
        let execution = row.execution;
        Ok(self.execute(
            sql,
            params![
                row.id.as_bytes(),
                row.seq,
                row.function_id.0,
                row.function.as_str(),
                int(row.version.0)?,
                state.status,
                state.standing,
                execution.fence().map_or(Ok(0), |fence| int(fence.0))?,
                state.due,
                execution.attempts,
                execution.faults,
                execution.requeues,
                execution.created_at.0,
                execution.started_at.map(|at| at.0),
                execution.finished_at.map(|at| at.0),
                row.deadline.map(|at| at.0),
                state.error_code,
                state.error_message,
                row.input_bytes,
                row.input_kept.code(),
                row.output_bytes,
                row.cold_start,
                row.init_ms,
                row.trace_id,
                row.parent.as_ref().map(ExecutionId::as_bytes),
                execution.deaths,
            ],
        )?)
    }

    pub(super) fn insert_input(&self, seq: i64, request: &Request) -> Done<()> {
        self.execute(
            "INSERT INTO inputs (seq, content_type, body, metadata, traceparent, idempotency_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                seq,
                stored_content_type(&request.input.content_type),
                &request.input.body[..],
                record::encode_metadata(&request.metadata)?,
                request.traceparent.as_deref(),
                request.idempotency_key.as_ref().map(|key| key.as_str()),
            ],
        )?;
        Ok(())
    }

    pub(super) fn replace_output(&self, seq: i64, output: &Output) -> Done<()> {
        self.execute(
            "INSERT OR REPLACE INTO outputs (seq, content_type, encoding, body) VALUES (?1, ?2, ?3, ?4)",
            params![
                seq,
                output.content_type.as_ref().map(|content_type| &*content_type.0),
                record::encoding_code(output.encoding),
                &output.body[..],
            ],
        )?;
        Ok(())
    }

    /// A run that is recorded a second time (the same claim) replaces itself.
    pub(super) fn replace_attempt(&self, seq: i64, attempt: &AttemptRecord) -> Done<()> {
        self.insert_attempt(REPLACE_ATTEMPT, seq, attempt)?;
        Ok(())
    }

    /// Records a run that decides nothing any more, unless it is recorded.
    pub(in crate::store::sqlite) fn add_attempt(
        &self,
        id: ExecutionId,
        attempt: &AttemptRecord,
    ) -> Done<Applied> {
        let found: Option<(i64, i64)> = self
            .statements
            .query_row(
                "SELECT seq, input_kept FROM executions WHERE id = ?1",
                [id.as_bytes()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let Some((seq, input_kept)) = found.filter(|found| InputKept::keeps_runs(found.1)) else {
            return Ok(Applied::Stale);
        };
        let seq = self.with_own_rows(id, seq, input_kept)?;
        if self.insert_attempt(ADD_ATTEMPT, seq, attempt)? > 0 {
            self.execute(
                "UPDATE executions SET cold_start = ?2, init_ms = ?3 WHERE id = ?1 \
                 AND finished_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM attempts WHERE seq = ?4 AND fence > ?5)",
                params![
                    id.as_bytes(),
                    attempt.cold_start,
                    attempt.init_ms.map(int).transpose()?,
                    seq,
                    int(attempt.fence.0)?,
                ],
            )?;
        }
        Ok(Applied::Done)
    }

    fn insert_attempt(&self, sql: &'static str, seq: i64, attempt: &AttemptRecord) -> Done<usize> {
        let failure = attempt.failure.as_ref();
        Ok(self.execute(
            sql,
            params![
                seq,
                int(attempt.fence.0)?,
                attempt.number,
                attempt.started_at.0,
                attempt.finished_at.0,
                record::outcome_of(attempt.outcome)?,
                failure.map(|failure| &*failure.code),
                failure.map(|failure| &*failure.message),
                attempt.cold_start,
                attempt.init_ms.map(int).transpose()?,
                int(attempt.run_us)?,
                attempt.cpu_us.map(int).transpose()?,
                record::encode_logs(&attempt.logs)?,
            ],
        )?)
    }

    /// Logs a claim, if the execution has not ended and no later claim is logged.
    pub(in crate::store::sqlite) fn log_claim(&self, claim: &ClaimRecord) -> Done<()> {
        self.execute(
            "UPDATE executions SET status = ?2, fence = ?3, attempts = ?4, started_at = ?5, due = NULL \
             WHERE id = ?1 AND standing = 0 AND fence < ?3",
            params![
                claim.id.as_bytes(),
                record::status_code(Status::Running),
                int(claim.fence.0)?,
                claim.attempt,
                claim.at.0
            ],
        )?;
        Ok(())
    }

    pub(in crate::store::sqlite) fn transition(&self, transition: &Transition) -> Done<Applied> {
        let found = self
            .statements
            .query_row(
                "SELECT seq, status, fence, input_kept FROM executions WHERE id = ?1",
                [transition.id.as_bytes()],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()?;
        let Some((seq, status, logged, input_kept)) = found else {
            return Ok(Applied::Stale);
        };
        let (status, logged): (Status, i64) = (record::status_of(status)?, logged);
        let fence = match transition.guard {
            Guard::Claim(fence) if !status.is_terminal() && logged <= int(fence.0)? => {
                int(fence.0)?
            }
            Guard::Live if !status.is_terminal() => logged,
            Guard::Redrivable if matches!(status, Status::Error | Status::Timeout) => logged,
            Guard::Claim(_) | Guard::Live | Guard::Redrivable => return Ok(Applied::Stale),
        };
        let seq = self.with_own_rows(transition.id, seq, input_kept)?;
        let running_under = transition
            .next
            .fence()
            .map(|fence| int(fence.0))
            .transpose()?;
        let fence = running_under.map_or(fence, |under| under.max(fence));
        self.update_state(transition, status, fence)?;
        if transition.next.status() == Status::Success {
            self.note_success(transition.id)?;
        }
        if let Some(output) = &transition.output {
            self.replace_output(seq, output)?;
        } else if status.is_terminal() {
            self.execute("DELETE FROM outputs WHERE seq = ?1", [seq])?;
        }
        if let Some(attempt) = &transition.attempt {
            self.replace_attempt(seq, attempt)?;
        }
        Ok(Applied::Done)
    }

    /// Each kind of change names just the columns that it changes: SQLite touches every index with a
    /// named column, changed or not.
    fn update_state(&self, transition: &Transition, was: Status, fence: i64) -> Done<()> {
        if was.is_terminal() {
            self.update_redriven(transition, fence)
        } else if transition.next.status().is_terminal() {
            self.update_ended(transition, fence)
        } else {
            self.update_live(transition, fence)
        }
    }

    fn update_live(&self, transition: &Transition, fence: i64) -> Done<()> {
        let next = &transition.next;
        let state = StateColumns::of(next);
        let last = LastAttempt::of(transition)?;
        self.execute(
            "UPDATE executions SET status = ?2, fence = ?3, due = ?4, attempts = ?5, faults = ?6, requeues = ?7, \
             started_at = ?8, version = COALESCE(?9, version), cold_start = COALESCE(?10, cold_start), \
             init_ms = CASE WHEN ?10 IS NULL THEN init_ms ELSE ?11 END, deaths = ?12 WHERE id = ?1",
            params![
                transition.id.as_bytes(),
                state.status,
                fence,
                state.due,
                next.attempts,
                next.faults,
                next.requeues,
                next.started_at.map(|at| at.0),
                transition.version.map(|version| int(version.0)).transpose()?,
                last.cold_start,
                last.init_ms,
                next.deaths,
            ],
        )?;
        Ok(())
    }

    fn update_ended(&self, transition: &Transition, fence: i64) -> Done<()> {
        let next = &transition.next;
        let state = StateColumns::of(next);
        let last = LastAttempt::of(transition)?;
        self.execute(
            "UPDATE executions SET status = ?2, standing = ?3, fence = ?4, due = NULL, attempts = ?5, faults = ?6, \
             requeues = ?7, started_at = ?8, finished_at = ?9, error_code = ?10, error_message = ?11, output_bytes = ?12, \
             version = COALESCE(?13, version), cold_start = COALESCE(?14, cold_start), \
             init_ms = CASE WHEN ?14 IS NULL THEN init_ms ELSE ?15 END, deaths = ?16 WHERE id = ?1",
            params![
                transition.id.as_bytes(),
                state.status,
                state.standing,
                fence,
                next.attempts,
                next.faults,
                next.requeues,
                next.started_at.map(|at| at.0),
                next.finished_at.map(|at| at.0),
                state.error_code,
                state.error_message,
                output_bytes(transition)?,
                transition.version.map(|version| int(version.0)).transpose()?,
                last.cold_start,
                last.init_ms,
                next.deaths,
            ],
        )?;
        Ok(())
    }

    /// What an earlier life left behind goes: its result, and the caller who waited for it.
    fn update_redriven(&self, transition: &Transition, fence: i64) -> Done<()> {
        let next = &transition.next;
        let state = StateColumns::of(next);
        self.execute(
            "UPDATE executions SET status = ?2, standing = ?3, fence = ?4, due = ?5, attempts = ?6, faults = ?7, \
             requeues = ?8, age_since = ?9, started_at = ?10, finished_at = ?11, deadline = NULL, error_code = ?12, \
             error_message = ?13, output_bytes = ?14, version = COALESCE(?15, version), cold_start = 0, init_ms = NULL, \
             deaths = ?16 WHERE id = ?1",
            params![
                transition.id.as_bytes(),
                state.status,
                state.standing,
                fence,
                state.due,
                next.attempts,
                next.faults,
                next.requeues,
                next.age_since.0,
                next.started_at.map(|at| at.0),
                next.finished_at.map(|at| at.0),
                state.error_code,
                state.error_message,
                output_bytes(transition)?,
                transition.version.map(|version| int(version.0)).transpose()?,
                next.deaths,
            ],
        )?;
        Ok(())
    }
}

/// What a row says of its last run: nothing new if the transition has none.
struct LastAttempt {
    cold_start: Option<bool>,
    init_ms: Option<i64>,
}

impl LastAttempt {
    fn of(transition: &Transition) -> Done<Self> {
        let attempt = transition.attempt.as_ref();
        let init_ms = attempt.and_then(|attempt| attempt.init_ms);
        Ok(Self {
            cold_start: attempt.map(|attempt| attempt.cold_start),
            init_ms: init_ms.map(int).transpose()?,
        })
    }
}

fn output_bytes(transition: &Transition) -> Done<Option<i64>> {
    let output = transition.output.as_ref();
    output.map(|output| len(output.body.len())).transpose()
}

/// The columns that a state fills.
struct StateColumns<'e> {
    status: i64,
    standing: Option<i64>,
    due: Option<i64>,
    error_code: Option<&'e str>,
    error_message: Option<&'e str>,
}

impl<'e> StateColumns<'e> {
    fn of(execution: &'e Execution) -> Self {
        let status = execution.status();
        let failure = execution.failure();
        let due = match execution.state {
            State::Queued { due } => Some(due.0),
            State::Running { .. }
            | State::Success
            | State::Error(_)
            | State::Timeout(_)
            | State::Cancelled(_) => None,
        };
        Self {
            status: record::status_code(status),
            standing: standing(status),
            due,
            error_code: failure.map(|failure| &*failure.code),
            error_message: failure.map(|failure| &*failure.message),
        }
    }
}

/// A row that is not there yet.
pub(super) struct NewRow<'e> {
    pub(super) seq: i64,
    pub(super) id: &'e ExecutionId,
    pub(super) function_id: FunctionId,
    pub(super) function: &'e FunctionName,
    pub(super) version: VersionNumber,
    pub(super) execution: &'e Execution,
    pub(super) deadline: Option<Timestamp>,
    pub(super) input_bytes: i64,
    pub(super) input_kept: InputKept,
    pub(super) output_bytes: Option<i64>,
    pub(super) cold_start: i64,
    pub(super) init_ms: Option<i64>,
    pub(super) trace_id: Option<&'e str>,
    pub(super) parent: Option<ExecutionId>,
}

/// What lists and starts look a row up by; see the schema.
fn standing(status: Status) -> Option<i64> {
    match status {
        Status::Queued | Status::Running => Some(0),
        Status::Success => None,
        Status::Error | Status::Timeout | Status::Cancelled => Some(record::status_code(status)),
    }
}

/// None for JSON, which most payloads are.
fn stored_content_type(content_type: &ContentType) -> Option<&str> {
    (*content_type != JSON).then_some(&*content_type.0)
}
