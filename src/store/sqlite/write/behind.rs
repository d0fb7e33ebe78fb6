//! The SQL of ended calls that lived in memory: written behind in bundles, taken out of them to be changed.
//!
//! **Invariant:** a call's state row names its number, and the bundle that holds this number is written in
//! the same transaction.

use std::sync::Arc;

use rusqlite::{MAIN_DB, OptionalExtension, params};

use super::executions::{INSERT_UNLESS_KNOWN, NewRow};
use super::plain::Plain;
use super::spans::Spans;
use super::{Done, Problem, Writes, int, len};
use crate::execution::Status;
use crate::model::{ExecutionId, Timestamp};
use crate::store::sqlite::buffer::{Bodies, Ended};
use crate::store::sqlite::bundle::{self, Bundle};
use crate::store::sqlite::read::BUNDLE_OF_SQL;
use crate::store::sqlite::schema::InputKept;

impl Writes<'_, '_> {
    /// Writes ended executions that lived in memory, but for those whose id is known already.
    pub(in crate::store::sqlite) fn record_ended(&self, batch: &[Arc<Ended>]) -> Done<()> {
        let mut bundle = self.bundle.borrow_mut();
        bundle.start_at(0);
        let mut plain = Vec::with_capacity(batch.len());
        for ended in batch {
            let Some(bodies) = worth_a_bundle(ended) else {
                continue;
            };
            let seq = self.take_seq()?;
            let input_kept = match bodies.has_request {
                true => InputKept::Bundle,
                false => InputKept::BundleOfRuns,
            };
            self.insert_ended(ended, seq, input_kept, &mut plain)?;
            if bundle.is_empty() {
                bundle.start_at(seq);
            }
            let record = &ended.record;
            let execution = &record.execution;
            let end = execution.finished_at.unwrap_or(execution.created_at);
            // The numbers of a bundle's calls have no gaps: one whose id is known already takes its place in it, too,
            // and is not found there.
            bundle.add(record.id, end, &bodies.part)?;
            if bundle.is_full() {
                self.insert_bundle(&mut bundle)?;
                bundle.start_at(0);
            }
        }
        if !bundle.is_empty() {
            self.insert_bundle(&mut bundle)?;
        }
        for ended in batch.iter().filter(|ended| worth_a_bundle(ended).is_none()) {
            let input_kept = match ended.bodies {
                Some(_) => InputKept::RowsOfRuns,
                None => InputKept::No,
            };
            self.insert_ended(ended, self.take_seq()?, input_kept, &mut plain)?;
        }
        self.insert_plain(&plain)?;
        let mut spans = Spans::default();
        for ended in batch {
            if ended.record.execution.status() == Status::Success {
                spans.add(ended.record.id);
            }
        }
        self.note_successes(&spans)
    }

    /// Inserts a row, or adds it to those that are inserted together.
    fn insert_ended<'e>(
        &self,
        ended: &'e Ended,
        seq: i64,
        input_kept: InputKept,
        plain: &mut Vec<Plain<'e>>,
    ) -> Done<()> {
        let record = &ended.record;
        let row = NewRow {
            seq,
            id: &record.id,
            function_id: record.function_id,
            function: &record.function,
            version: record.version,
            execution: &record.execution,
            deadline: None,
            input_bytes: int(record.input_bytes)?,
            input_kept,
            output_bytes: record.output_bytes.map(int).transpose()?,
            cold_start: record.cold_start.into(),
            init_ms: record.init_ms.map(int).transpose()?,
            trace_id: record.trace_id.as_deref(),
            parent: record.parent,
        };
        match Plain::of(&row)? {
            Some(row) => plain.push(row),
            None => {
                self.insert_execution(INSERT_UNLESS_KNOWN, &row)?;
            }
        }
        Ok(())
    }

    fn insert_bundle(&self, bundle: &mut Bundle) -> Done<()> {
        let (first_seq, newest_end) = (bundle.first_seq(), bundle.newest_end().0);
        let ids = bundle.ids().to_vec();
        let body = bundle.body()?;
        self.execute(
            "INSERT INTO bundles (first_seq, newest_end, ids, body) VALUES (?1, ?2, ?3, zeroblob(?4))",
            params![first_seq, newest_end, ids, len(body.len())?],
        )?;
        // Straight into its pages: as a value of the statement it would be copied twice before, each time into fresh
        // memory.
        let mut blob = self
            .connection
            .blob_open(MAIN_DB, "bundles", "body", first_seq, false)?;
        blob.write_all_at(body, 0)?;
        Ok(blob.close()?)
    }

    /// The number of an execution whose payloads have rows of their own, once this returns.
    pub(super) fn with_own_rows(&self, id: ExecutionId, seq: i64, input_kept: i64) -> Done<i64> {
        if InputKept::is_bundled(input_kept) {
            self.unbundle(id, seq)
        } else {
            Ok(seq)
        }
    }

    /// Gives an execution that is about to be changed rows of its own; returns its new number. What the bundle
    /// has of it stays there and is not found any more.
    fn unbundle(&self, id: ExecutionId, bundled_as: i64) -> Done<i64> {
        let body: Option<Vec<u8>> = self
            .statements
            .query_row(BUNDLE_OF_SQL, [bundled_as], |row| row.get(0))
            .optional()?;
        let body = body.ok_or_else(|| Problem::Broken("its bundle is gone".to_owned()))?;
        let kept = bundle::find(body, bundled_as)?;
        let seq = self.take_seq()?;
        let input_kept = match &kept.request {
            Some(request) => {
                self.insert_input(seq, request)?;
                InputKept::Row
            }
            None => InputKept::RowsOfRuns,
        };
        if let Some(output) = &kept.output {
            self.replace_output(seq, output)?;
        }
        for attempt in &kept.attempts {
            self.replace_attempt(seq, attempt)?;
        }
        self.execute(
            "UPDATE executions SET seq = ?2, input_kept = ?3 WHERE id = ?1",
            params![id.as_bytes(), seq, input_kept.code()],
        )?;
        Ok(seq)
    }

    /// Removes executions of bundles that are old, and the bundles once nothing of them is left; returns
    /// how many rows went. An execution that got rows of its own has another number, and is left alone.
    pub(super) fn purge_bundles(
        &self,
        before: Timestamp,
        rows_max: u32,
        spans: &mut Spans,
    ) -> Done<u32> {
        let mut left = rows_max;
        while left > 0 {
            let oldest = self
                .statements
                .query_row(
                    "SELECT first_seq, ids FROM bundles WHERE newest_end < ?1 ORDER BY newest_end LIMIT 1",
                    [before.0],
                    |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
                )
                .optional()?;
            let Some((first_seq, ids)) = oldest else {
                break;
            };
            let mut gone = 0;
            for (seq, id) in (first_seq..).zip(bundle::ids(&ids)?) {
                if gone == left {
                    return Ok(rows_max);
                }
                gone += self.remove(
                    "DELETE FROM executions WHERE id = ?1 AND seq = ?2",
                    params![id.as_bytes(), seq],
                )?;
                spans.add(id);
            }
            self.execute("DELETE FROM bundles WHERE first_seq = ?1", [first_seq])?;
            // A bundle of which nothing was left is a row that went.
            left -= gone.max(1);
        }
        Ok(rows_max - left)
    }
}

/// What a bundle would keep of an execution, if that is anything.
fn worth_a_bundle(ended: &Ended) -> Option<&Bodies> {
    let bodies = ended.bodies.as_ref();
    bodies.filter(|bodies| bodies.has_request || bodies.has_attempts)
}
