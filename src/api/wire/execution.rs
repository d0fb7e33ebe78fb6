//! An execution as its clients see it.
//!
//! **Invariant:** an output's bytes go into the answer once, as they are; fields that nanofaas's clients
//! read are there even where they are null.

use bytes::{BufMut, Bytes, BytesMut};

use super::json::{List, Object};
use super::log_line::put_lines;
use super::query::ListQuery;
use crate::execution::State;
use crate::model::ExecutionId;
use crate::store::{AttemptRecord, ExecutionRecord};

/// Room for everything of an answer but the output.
const ANSWER_BYTES: usize = 640;

/// Whether an answer has the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Outputs {
    /// Where it is kept.
    Shown,
    /// It has not even the fields.
    LeftOut,
}

/// The answer to a call: `executionId`, `status`, `output`, `error`, and how the output is written.
pub(in crate::api) fn call_answer(record: &ExecutionRecord) -> Bytes {
    let mut buffer = BytesMut::with_capacity(256 + output_bytes(record));
    let mut answer = Object::open(&mut buffer);
    answer.plain(
        "executionId",
        record.id.text(&mut [0; ExecutionId::TEXT_BYTES]),
    );
    answer.plain("status", record.execution.status().as_str());
    answer.output(record.output.as_ref());
    answer.failure_or_null("error", record.execution.failure());
    answer.close();
    buffer.freeze()
}

/// One execution with everything that is known of it.
pub(in crate::api) fn execution(record: &ExecutionRecord) -> Bytes {
    let mut buffer = BytesMut::with_capacity(ANSWER_BYTES + output_bytes(record));
    put(&mut buffer, record, Outputs::Shown);
    buffer.freeze()
}

/// Adds an execution to lines of JSON.
pub(in crate::api) fn put_line(lines: &mut BytesMut, record: &ExecutionRecord, outputs: Outputs) {
    lines.reserve(ANSWER_BYTES + output_bytes(record));
    put(lines, record, outputs);
    lines.put_u8(b'\n');
}

/// The same with one of its attempts as the member `attempt`.
pub(in crate::api) fn execution_with(record: &ExecutionRecord, attempt: &AttemptRecord) -> Bytes {
    let mut buffer = BytesMut::from(&*execution(record));
    // Before the bracket that closes the object.
    buffer.truncate(buffer.len().saturating_sub(1));
    buffer.put_slice(b",\"attempt\":");
    put_attempt(&mut buffer, attempt);
    buffer.put_slice(b"}");
    buffer.freeze()
}

/// A page of executions, without outputs; `next` is the cursor of the page after it, if there is one.
/// `records` may have one more than the page has room for, which shows that there is.
pub(in crate::api) fn page(query: &ListQuery, records: &[ExecutionRecord]) -> Bytes {
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let (shown, more) = match records.split_at_checked(limit) {
        Some((shown, rest)) => (shown, !rest.is_empty()),
        None => (records, false),
    };
    let mut buffer = BytesMut::with_capacity(64 + ANSWER_BYTES * shown.len());
    let mut answer = Object::open(&mut buffer);
    let mut items = List::open(answer.member("items"));
    for record in shown {
        put(items.item(), record, Outputs::LeftOut);
    }
    items.close();
    let next = shown.last().filter(|_| more);
    let next = next.map(|last| query.cursor_after(last.id));
    answer.text_or_null("next", next.as_deref());
    answer.close();
    buffer.freeze()
}

/// What the attempts of an execution wrote, oldest first.
pub(in crate::api) fn logs(id: ExecutionId, attempts: &[AttemptRecord]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(ANSWER_BYTES * (1 + attempts.len()));
    let mut answer = Object::open(&mut buffer);
    answer.plain("executionId", &id.to_string());
    let mut items = List::open(answer.member("attempts"));
    for attempt in attempts {
        put_attempt(items.item(), attempt);
    }
    items.close();
    answer.close();
    buffer.freeze()
}

fn output_bytes(record: &ExecutionRecord) -> usize {
    let bytes = record.output.as_ref().map_or(0, |output| output.body.len());
    // Text grows by its escapes and base64 by a third: the buffer then grows once.
    bytes + bytes / 8
}

fn put(buffer: &mut BytesMut, record: &ExecutionRecord, outputs: Outputs) {
    let execution = &record.execution;
    let mut object = Object::open(buffer);
    object.plain("executionId", &record.id.to_string());
    object.plain("function", record.function.as_str());
    object.number("version", record.version.0);
    object.plain("status", execution.status().as_str());
    object.number("attempts", execution.attempts.into());
    object.number("faults", execution.faults.into());
    object.number("requeues", execution.requeues.into());
    object.time_or_null("createdAt", Some(execution.created_at));
    object.time_or_null("startedAt", execution.started_at);
    object.time_or_null("finishedAt", execution.finished_at);
    if let State::Queued { due } = execution.state {
        object.time_or_null("dueAt", Some(due));
    }
    if outputs == Outputs::Shown {
        object.output(record.output.as_ref());
    }
    object.failure_or_null("error", execution.failure());
    object.flag("coldStart", record.cold_start);
    object.number_or_null("initDurationMs", record.init_ms);
    object.text_or_null("traceId", record.trace_id.as_deref());
    match record.parent {
        Some(parent) => object.plain("parent", &parent.to_string()),
        None => object.null("parent"),
    }
    object.number("inputBytes", record.input_bytes);
    object.number_or_null("outputBytes", record.output_bytes);
    object.flag("inputKept", record.input_kept);
    object.close();
}

fn put_attempt(buffer: &mut BytesMut, attempt: &AttemptRecord) {
    let mut object = Object::open(buffer);
    object.number("attempt", attempt.number.into());
    object.plain("outcome", attempt.outcome);
    object.failure_or_null("error", attempt.failure.as_ref());
    object.time_or_null("startedAt", Some(attempt.started_at));
    object.time_or_null("finishedAt", Some(attempt.finished_at));
    object.number("runUs", attempt.run_us);
    object.number_or_null("cpuUs", attempt.cpu_us);
    object.flag("coldStart", attempt.cold_start);
    object.number_or_null("initDurationMs", attempt.init_ms);
    object.flag("truncated", attempt.logs.truncated);
    put_lines(List::open(object.member("lines")), &attempt.logs.lines);
    object.close();
}

/// A list of JSON values that are written already.
pub(in crate::api) fn list_of(values: impl IntoIterator<Item = serde_json::Value>) -> Bytes {
    let mut buffer = BytesMut::new();
    let mut list = List::open(&mut buffer);
    for value in values {
        // A value serializes always.
        let _ = serde_json::to_writer(list.item().writer(), &value);
    }
    list.close();
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::Execution;
    use crate::model::{
        Encoding, Failure, Fence, FunctionId, JSON, LogLine, LogStream, Logs, Output, Timestamp,
        VersionNumber,
    };

    fn record(state: State) -> ExecutionRecord {
        let mut execution = Execution::queued(Timestamp(1_000));
        execution.state = state;
        ExecutionRecord {
            id: ExecutionId::from_bytes([1; 16]),
            function_id: FunctionId(1),
            function: "echo".parse().unwrap(),
            version: VersionNumber(2),
            execution,
            output: None,
            input_bytes: 7,
            output_bytes: None,
            input_kept: true,
            cold_start: false,
            init_ms: None,
            trace_id: None,
            parent: None,
        }
    }

    fn pretty(bytes: &Bytes) -> String {
        let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    }

    #[test]
    fn a_queued_execution_has_every_field() {
        let queued = State::Queued {
            due: Timestamp(2_500),
        };
        insta::assert_snapshot!(pretty(&execution(&record(queued))));
    }

    #[test]
    fn an_ended_execution_has_its_output() {
        let mut record = record(State::Success);
        record.execution.started_at = Some(Timestamp(1_001));
        record.execution.finished_at = Some(Timestamp(1_010));
        record.execution.attempts = 1;
        record.output = Some(Output {
            content_type: Some(JSON),
            encoding: Encoding::Json,
            body: Bytes::from_static(b"{\"a\":[1,2]}"),
        });
        record.output_bytes = Some(11);
        record.cold_start = true;
        record.init_ms = Some(12);
        record.trace_id = Some("trace".into());
        record.parent = Some(ExecutionId::from_bytes([2; 16]));
        insta::assert_snapshot!(pretty(&execution(&record)));
    }

    #[test]
    fn the_answer_to_a_call_prints_its_nulls() {
        let failed = record(State::Error(Failure::new("OUT_OF_STOCK", "none \"left\"")));
        assert_eq!(
            call_answer(&failed),
            r#"{"executionId":"01010101-0101-0101-0101-010101010101","status":"error","output":null,"outputContentType":null,"outputEncoding":null,"error":{"code":"OUT_OF_STOCK","message":"none \"left\""}}"#
        );
    }

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let query = |limit| ListQuery {
            filter: crate::store::Filter::default(),
            limit,
        };
        let records = [record(State::Success), record(State::Success)];
        let parsed = |query: &ListQuery| {
            serde_json::from_slice::<serde_json::Value>(&page(query, &records)).unwrap()
        };
        let short = parsed(&query(1));
        assert_eq!(short["items"].as_array().unwrap().len(), 1);
        assert_eq!(short["next"], query(1).cursor_after(records[0].id));
        assert!(short["items"][0].get("output").is_none());
        let whole = parsed(&query(2));
        assert_eq!(whole["items"].as_array().unwrap().len(), 2);
        assert!(whole["next"].is_null());
    }

    #[test]
    fn logs_are_shown_by_attempt() {
        let attempt = AttemptRecord {
            fence: Fence(9),
            number: 1,
            started_at: Timestamp(1_001),
            finished_at: Timestamp(1_002),
            outcome: "retry",
            failure: Some(Failure::new("TRAP", "unreachable")),
            logs: Logs {
                lines: vec![
                    LogLine {
                        stream: LogStream::Stderr,
                        text: "a\tb".to_owned(),
                    },
                    LogLine {
                        stream: LogStream::Stdout,
                        text: String::new(),
                    },
                ],
                truncated: true,
            },
            cold_start: true,
            init_ms: Some(3),
            run_us: 900,
            cpu_us: None,
        };
        insta::assert_snapshot!(pretty(&logs(ExecutionId::from_bytes([1; 16]), &[attempt])));
    }
}
