//! The SQL of reads, and the way back from rows to the model.
//!
//! **Invariant:** each read is one statement, so it sees one moment and holds no transaction beyond
//! it; a row that makes no sense is [`Error::Failed`], never a panic.

mod lists;

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row, params};

use self::lists::{bounds, list_sql};
use super::bundle::{self, Kept};
use super::schema::InputKept;
use crate::execution::{Execution, State, Status};
use crate::model::{
    ContentType, ExecutionId, Failure, Fence, FunctionId, FunctionName, Input, JSON, Output,
    RuntimeRevision, Timestamp, VersionNumber,
};
use crate::store::record::{self, Unreadable};
use crate::store::{
    AttemptRecord, Error, ExecutionRecord, Filter, FunctionRecord, LiveExecution, Request,
    SecretRecord,
};

/// Runs of one execution that are read at once: the latest ones.
const ATTEMPTS_MAX: u32 = 1_000;

/// A read that failed.
#[derive(Debug)]
pub(super) enum ReadError {
    Sql(rusqlite::Error),
    Unreadable(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Unreadable> for ReadError {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<Unreadable> for Error {
    fn from(error: Unreadable) -> Self {
        ReadError::from(error).into()
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sql(error) => Self::Failed(error.to_string().into()),
            ReadError::Unreadable(text) => Self::Failed(text.into()),
        }
    }
}

pub(super) type Read<T> = Result<T, ReadError>;

/// All secrets, by name.
pub(super) fn secrets(connection: &Connection) -> Read<Vec<SecretRecord>> {
    let mut statement = connection
        .prepare_cached("SELECT name, sealed, created_at, updated_at FROM secrets ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut secrets = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get("name")?;
        let name = name
            .parse()
            .map_err(|error| ReadError::Unreadable(format!("stored secret {name:?}: {error}")))?;
        secrets.push(SecretRecord {
            name,
            sealed: row.get::<_, Vec<u8>>("sealed")?.into(),
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
        });
    }
    Ok(secrets)
}

/// The bundle that holds the payloads of a number, if that is in one.
pub(super) const BUNDLE_OF_SQL: &str =
    "SELECT body FROM bundles WHERE first_seq <= ?1 ORDER BY first_seq DESC LIMIT 1";

/// A statement with the bundle of `executions e` as its column `bundle`; none where it is in no bundle.
macro_rules! with_bundle {
    ($select:literal, $from:literal) => {
        concat!(
            $select,
            ", CASE WHEN e.input_kept >= 2 THEN (SELECT b.body FROM bundles b WHERE b.first_seq <= e.seq \
             ORDER BY b.first_seq DESC LIMIT 1) END AS bundle ",
            $from
        )
    };
}

/// What the bundle in a row of such a statement keeps of the row's execution.
fn bundled(row: &Row<'_>) -> Read<Option<Kept>> {
    let body: Option<Vec<u8>> = row.get("bundle")?;
    let Some(body) = body else {
        return Ok(None);
    };
    Ok(Some(bundle::find(body, row.get("execution_seq")?)?))
}

/// All functions with their versions, by name.
pub(super) fn functions(connection: &Connection) -> Read<Vec<FunctionRecord>> {
    let mut statement = connection.prepare_cached(
        "SELECT f.id, f.name, f.settings, f.active, f.created_at, f.updated_at, \
         v.number, v.created_at AS version_created_at, v.record \
         FROM functions f JOIN versions v ON v.function_id = f.id ORDER BY f.name, v.number",
    )?;
    let mut rows = statement.query([])?;
    let mut functions: Vec<FunctionRecord> = Vec::new();
    while let Some(row) = rows.next()? {
        let id = FunctionId(row.get("id")?);
        let number = VersionNumber(unsigned(row, "number")?);
        let text: String = row.get("record")?;
        let created_at = time(row, "version_created_at")?;
        let version = Arc::new(record::decode_version(number, created_at, &text)?);
        match functions.last_mut() {
            Some(function) if function.id == id => function.versions.push(version),
            Some(_) | None => functions.push(FunctionRecord {
                id,
                name: function_name(row, "name")?,
                settings: record::decode_settings(&row.get::<_, String>("settings")?)?,
                active: VersionNumber(unsigned(row, "active")?),
                versions: vec![version],
                created_at: time(row, "created_at")?,
                updated_at: time(row, "updated_at")?,
            }),
        }
    }
    Ok(functions)
}

/// What was changed of the runtime config.
pub(super) fn runtime_config(connection: &Connection) -> Read<Option<RuntimeRevision>> {
    let mut statement = connection
        .prepare_cached("SELECT revision, changed_at, record FROM runtime_config WHERE id = 1")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let text: String = row.get("record")?;
    Ok(Some(RuntimeRevision {
        number: unsigned(row, "revision")?,
        changed_at: time(row, "changed_at")?,
        overrides: record::decode_runtime_overrides(&text)?,
    }))
}

/// One execution with its output.
pub(super) fn execution(connection: &Connection, id: ExecutionId) -> Read<Option<ExecutionRecord>> {
    let mut statement = connection.prepare_cached(
        with_bundle!(
            "SELECT e.*, e.seq AS execution_seq, o.seq AS output_seq, o.content_type AS output_content_type, \
             o.encoding AS output_encoding, o.body AS output_body",
            "FROM executions e LEFT JOIN outputs o ON o.seq = e.seq WHERE e.id = ?1"
        ),
    )?;
    let mut rows = statement.query([id.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut record = execution_record(row)?;
    if let Some(kept) = bundled(row)? {
        record.output = kept.output;
    } else if row.get::<_, Option<i64>>("output_seq")?.is_some() {
        let stated: Option<String> = row.get("output_content_type")?;
        record.output = Some(Output {
            content_type: stated.map(content_type),
            encoding: record::encoding_of(row.get("output_encoding")?)?,
            body: Bytes::from(row.get::<_, Vec<u8>>("output_body")?),
        });
    }
    Ok(Some(record))
}

/// A page without outputs.
pub(super) fn executions(
    connection: &Connection,
    filter: &Filter,
    limit: u32,
) -> Read<Vec<ExecutionRecord>> {
    let function = filter.function.as_ref().map(FunctionName::as_str);
    let status = filter.status.map(record::status_code);
    let (above, below) = bounds(filter);
    let since = filter.since.map(|since| since.0);
    let until = filter.until.map(|until| until.0);
    let mut statement = connection.prepare_cached(&list_sql(filter))?;
    let named: [(&str, &dyn ToSql); 7] = [
        (":function", &function),
        (":status", &status),
        (":above", &above),
        (":below", &below),
        (":since", &since),
        (":until", &until),
        (":limit", &limit),
    ];
    for (name, value) in named {
        if let Some(index) = statement.parameter_index(name)? {
            statement.raw_bind_parameter(index, value)?;
        }
    }
    let mut rows = statement.raw_query();
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(execution_record(row)?);
    }
    Ok(page)
}

/// What the caller sent, where it is kept.
pub(super) fn request(connection: &Connection, id: ExecutionId) -> Read<Option<Request>> {
    let mut statement = connection.prepare_cached(with_bundle!(
        "SELECT e.seq AS execution_seq, e.trace_id, e.parent, i.content_type, i.body, i.metadata, \
             i.traceparent, i.idempotency_key",
        "FROM executions e LEFT JOIN inputs i ON i.seq = e.seq \
             WHERE e.id = ?1 AND (i.seq IS NOT NULL OR e.input_kept = 2)"
    ))?;
    let mut rows = statement.query([id.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    if let Some(kept) = bundled(row)? {
        let (trace_id, parent) = (row.get("trace_id")?, optional_id(row, "parent")?);
        return Ok(kept.request.map(|request| Request {
            trace_id,
            parent,
            ..request
        }));
    }
    let stated: Option<String> = row.get("content_type")?;
    let metadata: Option<String> = row.get("metadata")?;
    let key: Option<String> = row.get("idempotency_key")?;
    let key = key.map(|key| key.parse()).transpose();
    Ok(Some(Request {
        input: Input {
            content_type: stated.map_or(JSON, content_type),
            body: Bytes::from(row.get::<_, Vec<u8>>("body")?),
        },
        metadata: record::decode_metadata(metadata.as_deref())?,
        trace_id: row.get("trace_id")?,
        traceparent: row.get("traceparent")?,
        idempotency_key: key
            .map_err(|error| ReadError::Unreadable(format!("stored key: {error}")))?,
        parent: optional_id(row, "parent")?,
    }))
}

/// The latest runs of an execution, oldest first.
pub(super) fn attempts(connection: &Connection, id: ExecutionId) -> Read<Vec<AttemptRecord>> {
    let mut statement = connection.prepare_cached(with_bundle!(
        "SELECT e.seq AS execution_seq, a.seq AS attempt_seq, a.*",
        "FROM executions e LEFT JOIN attempts a ON a.seq = e.seq WHERE e.id = ?1 \
         ORDER BY a.fence DESC LIMIT ?2"
    ))?;
    let mut rows = statement.query(params![id.as_bytes(), ATTEMPTS_MAX])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(kept) = bundled(row)? {
            return Ok(latest(kept.attempts));
        }
        if row.get::<_, Option<i64>>("attempt_seq")?.is_some() {
            attempts.push(attempt(row)?);
        }
    }
    attempts.reverse();
    Ok(attempts)
}

/// As many of the last ones as are ever shown.
fn latest(mut attempts: Vec<AttemptRecord>) -> Vec<AttemptRecord> {
    let shown = usize::try_from(ATTEMPTS_MAX).unwrap_or(usize::MAX);
    attempts.split_off(attempts.len().saturating_sub(shown))
}

fn attempt(row: &Row<'_>) -> Read<AttemptRecord> {
    let logs: Option<Vec<u8>> = row.get("logs")?;
    Ok(AttemptRecord {
        fence: Fence(unsigned(row, "fence")?),
        number: row.get("number")?,
        started_at: time(row, "started_at")?,
        finished_at: time(row, "finished_at")?,
        outcome: record::outcome_of(&row.get::<_, String>("outcome")?)?,
        failure: failure(row)?,
        logs: record::decode_logs(logs.as_deref())?,
        cold_start: row.get("cold_start")?,
        init_ms: optional_unsigned(row, "init_ms")?,
        run_us: unsigned(row, "run_us")?,
        cpu_us: optional_unsigned(row, "cpu_us")?,
    })
}

/// Durable executions that have not ended, ids greater than `after`, ascending.
pub(super) fn live_executions(
    connection: &Connection,
    after: Option<ExecutionId>,
    limit: u32,
) -> Read<Vec<LiveExecution>> {
    let mut statement = connection.prepare_cached(LIVE_SQL)?;
    let after = after.map_or([0; 16], |id| *id.as_bytes());
    let mut rows = statement.query(params![after, limit])?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(LiveExecution {
            id: execution_id(row, "id")?,
            function_id: FunctionId(row.get("function_id")?),
            function: function_name(row, "function")?,
            version: VersionNumber(unsigned(row, "version")?),
            execution: state(row)?,
            deadline: optional_time(row, "deadline")?,
            input_bytes: unsigned(row, "input_bytes")?,
            trace_id: row.get("trace_id")?,
        });
    }
    Ok(page)
}

/// See [`live_executions`].
pub(super) const LIVE_SQL: &str = "SELECT * FROM executions INDEXED BY executions_by_standing \
     WHERE standing = 0 AND id > ?1 ORDER BY id LIMIT ?2";

fn execution_record(row: &Row<'_>) -> Read<ExecutionRecord> {
    Ok(ExecutionRecord {
        id: execution_id(row, "id")?,
        function_id: FunctionId(row.get("function_id")?),
        function: function_name(row, "function")?,
        version: VersionNumber(unsigned(row, "version")?),
        execution: state(row)?,
        output: None,
        input_bytes: unsigned(row, "input_bytes")?,
        output_bytes: optional_unsigned(row, "output_bytes")?,
        input_kept: InputKept::has_input(row.get("input_kept")?),
        cold_start: row.get("cold_start")?,
        init_ms: optional_unsigned(row, "init_ms")?,
        trace_id: row.get("trace_id")?,
        parent: optional_id(row, "parent")?,
    })
}

fn state(row: &Row<'_>) -> Read<Execution> {
    let ended_badly = |row| {
        failure(row)?.ok_or_else(|| ReadError::Unreadable("a failure without a code".to_owned()))
    };
    let state = match record::status_of(row.get("status")?)? {
        Status::Queued => State::Queued {
            due: time(row, "due")?,
        },
        Status::Running => State::Running {
            fence: Fence(unsigned(row, "fence")?),
        },
        Status::Success => State::Success,
        Status::Error => State::Error(ended_badly(row)?),
        Status::Timeout => State::Timeout(ended_badly(row)?),
        Status::Cancelled => State::Cancelled(ended_badly(row)?),
    };
    let created_at = time(row, "created_at")?;
    Ok(Execution {
        state,
        attempts: row.get("attempts")?,
        faults: row.get("faults")?,
        deaths: row.get("deaths")?,
        requeues: row.get("requeues")?,
        created_at,
        // Only a redrive makes the two differ.
        age_since: optional_time(row, "age_since")?.unwrap_or(created_at),
        started_at: optional_time(row, "started_at")?,
        finished_at: optional_time(row, "finished_at")?,
    })
}

fn failure(row: &Row<'_>) -> Read<Option<Failure>> {
    let code: Option<String> = row.get("error_code")?;
    let message: Option<String> = row.get("error_message")?;
    Ok(code.map(|code| Failure {
        code: code.into(),
        message: message.unwrap_or_default(),
    }))
}

fn unsigned(row: &Row<'_>, column: &str) -> Read<u64> {
    not_negative(row.get(column)?, column)
}

fn optional_unsigned(row: &Row<'_>, column: &str) -> Read<Option<u64>> {
    let value: Option<i64> = row.get(column)?;
    value.map(|value| not_negative(value, column)).transpose()
}

fn not_negative(value: i64, column: &str) -> Read<u64> {
    u64::try_from(value).map_err(|_| ReadError::Unreadable(format!("stored {column}: {value}")))
}

fn time(row: &Row<'_>, column: &str) -> Read<Timestamp> {
    Ok(Timestamp(row.get(column)?))
}

fn optional_time(row: &Row<'_>, column: &str) -> Read<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

fn execution_id(row: &Row<'_>, column: &str) -> Read<ExecutionId> {
    Ok(ExecutionId::from_bytes(row.get(column)?))
}

fn optional_id(row: &Row<'_>, column: &str) -> Read<Option<ExecutionId>> {
    let bytes: Option<[u8; 16]> = row.get(column)?;
    Ok(bytes.map(ExecutionId::from_bytes))
}

fn function_name(row: &Row<'_>, column: &str) -> Read<FunctionName> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error| ReadError::Unreadable(format!("stored name {text:?}: {error}")))
}

/// A stored media type; the usual one costs no memory.
pub(super) fn content_type(text: String) -> ContentType {
    if text == JSON.0 {
        JSON
    } else {
        ContentType(text.into())
    }
}

#[cfg(test)]
mod tests;
