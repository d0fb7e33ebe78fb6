//! The SQL of spans of time in which successes began; lists of these go by them.
//!
//! **Invariant:** whenever a transaction ends, the span of every success is there.

use std::collections::BTreeSet;

use rusqlite::params;

use super::{Done, Writes};
use crate::model::ExecutionId;

/// Bytes of an id that name its span: all of its time but the last byte, so 256 ms.
const PREFIX_BYTES: usize = 5;

/// Some spans, each once.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeSet<[u8; PREFIX_BYTES]>);

impl Spans {
    /// Adds the span that an execution belongs to.
    pub(super) fn add(&mut self, id: ExecutionId) {
        let mut first = [0; PREFIX_BYTES];
        first.copy_from_slice(&id.as_bytes()[..PREFIX_BYTES]);
        self.0.insert(first);
    }
}

impl Writes<'_, '_> {
    /// Notes that there are successes in these spans.
    pub(super) fn note_successes(&self, spans: &Spans) -> Done<()> {
        for first in &spans.0 {
            let mut last = [0xff; 16];
            last[..PREFIX_BYTES].copy_from_slice(first);
            self.execute(
                "INSERT OR IGNORE INTO success_spans (first, last) VALUES (?1, ?2)",
                params![first, last],
            )?;
        }
        Ok(())
    }

    /// Notes one success.
    pub(super) fn note_success(&self, id: ExecutionId) -> Done<()> {
        let mut spans = Spans::default();
        spans.add(id);
        self.note_successes(&spans)
    }

    /// Removes those of these spans in which there is no success any more.
    pub(super) fn forget_empty(&self, spans: &Spans) -> Done<()> {
        for first in &spans.0 {
            self.execute(
                "DELETE FROM success_spans WHERE first = ?1 AND NOT EXISTS (SELECT 1 FROM executions e NOT INDEXED \
                 WHERE e.id >= success_spans.first AND e.id <= success_spans.last AND e.standing IS NULL)",
                params![first],
            )?;
        }
        Ok(())
    }
}
