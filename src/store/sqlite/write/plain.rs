//! The SQL of what most rows are: successes that lived in memory, with nothing else to be said of them.
//!
//! Most columns of such a row are the same for all. What the statement says itself need not be handed over, and one
//! statement inserts several rows: each run of it opens every index of the table, whatever it inserts.
//!
//! **Invariant:** a row that is inserted here is what [`Writes::insert_execution`] would have made of it.

use rusqlite::params_from_iter;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::executions::NewRow;
use super::{Done, Writes, int};
use crate::execution::{Execution, State};

/// Values that are handed over for a row.
const VALUES: usize = 12;
/// Rows that one statement inserts where there are as many.
const ROWS: usize = 8;

macro_rules! insert {
    ($($more:literal)*) => {
        concat!(
            "INSERT OR IGNORE INTO executions (id, seq, function_id, function, version, status, fence, attempts, \
             faults, requeues, created_at, started_at, finished_at, input_bytes, input_kept, output_bytes, \
             cold_start) VALUES (?, ?, ?, ?, ?, 2, 0, ?, 0, 0, ?, ?, ?, ?, ?, ?, 0)",
            $($more, "(?, ?, ?, ?, ?, 2, 0, ?, 0, 0, ?, ?, ?, ?, ?, ?, 0)",)*
        )
    };
}
const INSERT_ONE: &str = insert!();
const INSERT_ROWS: &str = insert!("," "," "," "," "," "," ",");

/// What is handed over for a row.
pub(super) struct Plain<'r>([ToSqlOutput<'r>; VALUES]);

impl<'r> Plain<'r> {
    /// What there is to be handed over of a row, if it is one of these.
    pub(super) fn of(row: &NewRow<'r>) -> Done<Option<Self>> {
        let Execution {
            state: State::Success,
            attempts,
            faults: 0,
            deaths: 0,
            requeues: 0,
            created_at,
            age_since: _,
            started_at: Some(started_at),
            finished_at: Some(finished_at),
        } = row.execution
        else {
            return Ok(None);
        };
        let is_plain = row.deadline.is_none()
            && row.cold_start == 0
            && row.init_ms.is_none()
            && row.trace_id.is_none()
            && row.parent.is_none();
        if !is_plain {
            return Ok(None);
        }
        let number = |number: i64| ToSqlOutput::Owned(Value::Integer(number));
        Ok(Some(Self([
            ToSqlOutput::Borrowed(ValueRef::Blob(row.id.as_bytes())),
            number(row.seq),
            number(row.function_id.0),
            ToSqlOutput::Borrowed(ValueRef::Text(row.function.as_str().as_bytes())),
            number(int(row.version.0)?),
            number((*attempts).into()),
            number(created_at.0),
            number(started_at.0),
            number(finished_at.0),
            number(row.input_bytes),
            number(row.input_kept.code()),
            row.output_bytes
                .map_or(ToSqlOutput::Owned(Value::Null), number),
        ])))
    }
}

impl Writes<'_, '_> {
    /// Inserts rows, but for those whose id is known already.
    pub(super) fn insert_plain(&self, rows: &[Plain<'_>]) -> Done<()> {
        let (many, rest) = rows.as_chunks::<ROWS>();
        for rows in many {
            self.insert_plain_by(INSERT_ROWS, rows)?;
        }
        for row in rest.chunks(1) {
            self.insert_plain_by(INSERT_ONE, row)?;
        }
        Ok(())
    }

    fn insert_plain_by(&self, sql: &'static str, rows: &[Plain<'_>]) -> Done<()> {
        let values = rows.iter().flat_map(|row| &row.0);
        self.execute(sql, params_from_iter(values))?;
        Ok(())
    }
}
